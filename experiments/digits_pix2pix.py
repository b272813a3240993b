"""Paired translation on scikit-learn's digits: from the outline of a digit, one bit a pixel, to the grey digit.

    python launch.py train --config=digits_pix2pix --workdir=runs/digits_pix2pix
    python launch.py evaluate --workdir=runs/digits_pix2pix
    python launch.py sample --workdir=runs/digits_pix2pix --seeds=0-31 --out=drawn

pix2pix (Isola et al. 2017, arXiv 1611.07004) at 16 px. Held-out outlines are drawn and compared with their digits, pixel by
pixel and by a classifier of the digits, beside the best linear map of all pixels (`ridge`) and the outline itself
(`copy`). The batches are of many pictures, so that the running statistics are right for each of them; the paper's are
of one. `docs/reproduction.md` has the figures.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Variants: `smoke`, tiny and done in seconds."""
    if variant not in ("", "smoke"):
        raise ValueError(f"{variant!r}; expected smoke")
    adam = {"name": "adam", "learning_rate": 1e-3, "b1": 0.5, "b2": 0.999}
    adam |= {"schedule": "linear", "decay_begin_images": 32_000}
    config = ConfigDict(
        {
            "game": "paired",
            "total_images": 64_000,
            "batch_size": 32,
            "grid": 32,
            "data": {"name": "digits:outlines", "resolution": 16, "channels": 1},
            "generator": {"name": "pix2pix", "width": 16, "depth": 3, "statistics": "running", "dropout": 0.0},
            "discriminator": {"name": "pix2pix", "width": 24, "layers": 1},
            "loss": {"l1": 100.0},
            "optim": {"generator": dict(adam), "discriminator": dict(adam)},
            "ema": {"half_life_images": 2_000.0},
            "every": {"log_images": 3_200, "sample_images": 16_000, "checkpoint_images": 32_000},
            "evaluation": {
                "features": "digits_classifier",
                "metrics": ("l1", "psnr", "ssim", "classes", "fd"),
                "samples": 360,
                "split": "test",
            },
        }
    )
    if variant == "smoke":
        shrink(config)
    return config


def shrink(config: ConfigDict) -> None:
    """Makes a run of three steps of eight pairs with narrow players, noise and statistics as the paper's."""
    config.total_images, config.batch_size, config.grid = 24, 8, 4
    config.generator.width = config.discriminator.width = 4
    config.generator.statistics, config.generator.dropout = "picture", 0.5
    for player in config.optim.values():
        player.schedule = "constant"
    config.every = {"log_images": 8, "sample_images": 16, "checkpoint_images": 8}
    config.evaluation.samples = 64
