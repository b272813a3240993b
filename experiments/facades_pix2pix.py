"""pix2pix (Isola et al. 2017, arXiv 1611.07004) from plans of facades to photographs at 256 px, with the paper's values.

    python launch.py train --config=facades_pix2pix --workdir=runs/facades
    python launch.py evaluate --workdir=runs/facades --metrics=l1,psnr,ssim,lpips_alex
    python launch.py sample --workdir=runs/facades --inputs=plan.png --out=facade

A U-Net of eight halvings with dropout, which stays on in samples, discriminators of 70x70 patches, L1 of weight 100,
batches of one pair, 200 epochs of 400 pairs, Adam 2e-4 throughout, pairs enlarged to 286 px, cut and mirrored at random
(the paper's appendix 6.2). Nothing of this size was trained here. The data are the CMP facades as the authors pack them:
photograph and plan side by side in one picture, in the folders train, val and test of datasets/facades. FID of the
authors' weights 119, of a repetition 125 (mmgeneration, against few images).
"""

from ml_collections import ConfigDict

PAIRS, EPOCHS = 400, 200


def get_config(variant: str = "") -> ConfigDict:
    """Variants: `smoke`, tiny and done in seconds."""
    if variant not in ("", "smoke"):
        raise ValueError(f"{variant!r}; expected smoke")
    config = pix2pix("folder:datasets/facades", images=EPOCHS * PAIRS, direction="ba")
    if variant == "smoke":
        shrink(config)
    return config


def pix2pix(data: str, *, images: int, direction: str, batch_size: int = 1, jitter: int = 30) -> ConfigDict:
    """The paper's settings for a set of pairs side by side; `jitter` is of 256 pixels, 0: neither moved nor mirrored."""
    adam = {"name": "adam", "learning_rate": 2e-4, "b1": 0.5, "b2": 0.999}
    look = {"resolution": 256, "channels": 3, "filter": "bicubic", "flip": jitter > 0}
    return ConfigDict(
        {
            "game": "paired",
            "total_images": images,
            "batch_size": batch_size,
            "grid": 16,
            "data": {"name": data, "pair": "side_by_side", "direction": direction, **look},
            "paired": {"jitter": jitter},
            "generator": {"name": "pix2pix", "width": 64, "dropout": 0.5},
            "discriminator": {"name": "pix2pix", "width": 64, "layers": 3},
            "loss": {"name": "non_saturating", "l1": 100.0, "discriminator": 0.5},
            "optim": {"generator": dict(adam), "discriminator": dict(adam)},
            "every": {"log_images": 400, "sample_images": 10_000, "checkpoint_images": 10_000},
            "evaluation": {"features": "none", "metrics": ("l1", "psnr", "ssim"), "samples": 1_000, "split": "val"},
        }
    )


def shrink(config: ConfigDict) -> None:
    """Makes a run of three steps of eight outlines of digits with narrow players."""
    config.data.update({"name": "digits:outlines", "pair": "", "resolution": 16, "channels": 1})
    config.total_images, config.batch_size, config.grid = 24, 8, 4
    config.paired.jitter = min(config.paired.jitter, 2)
    config.generator.width = config.discriminator.width = 4
    config.discriminator.layers = 1
    config.every = {"log_images": 8, "sample_images": 16, "checkpoint_images": 8}
    config.evaluation.samples, config.evaluation.split = 32, "test"
