"""Inpainting with LaMa's values (Suvorov et al. 2021, arXiv 2109.07161), on Places at 256x256.

    python launch.py train --config=places_lama --workdir=runs/places_lama
    python launch.py train --config=places_lama:big --workdir=runs/big_lama

TFDS has 1.8 million pictures of 256x256 as `places365_small`; the paper crops them out of the large ones. Any folder of
pictures does as well: `--config.data.name=folder:PATH`. The numbers are those of the published `lama-fourier`, but for its
perceptual term: it compares the maps of a dilated ResNet50, trained to segment scenes, with the weight 30, and this network
is not here. `--config.loss.perceptual=0.1` compares those of VGG19 in its place; with 0 there is none.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Variants: `big`, big-lama's generator of 18 blocks; `smoke`, tiny and done in seconds."""
    if variant not in ("", "big", "smoke"):
        raise ValueError(f"{variant!r}; expected big or smoke")
    adam = {"name": "adam", "b1": 0.9, "b2": 0.999, "clip_norm": 1.0}
    config = ConfigDict(
        {
            "game": "inpainting",
            "total_images": 30_000_000,  # 40 epochs of 25,000 batches of 3 devices, each of 10
            "batch_size": 30,
            "grid": 8,
            "data": {"name": "places365_small", "resolution": 256, "flip": True},
            "generator": {"name": "lama", "blocks": 18 if variant == "big" else 9},
            "discriminator": {"name": "lama"},
            "inpainting": {"masks": "mixed"},
            "loss": {
                "known": 10.0, "missing": 0.0, "adversarial": 10.0, "matching": 100.0, "r1": 0.001, "perceptual": 0.0,
            },
            "optim": {
                "generator": {**adam, "learning_rate": 1e-3},
                "discriminator": {**adam, "learning_rate": 1e-4},
            },
            "ema": {"half_life_images": 0.0},
            "every": {"log_images": 3_000, "sample_images": 75_000, "checkpoint_images": 75_000},
            "evaluation": {
                "features": "inception", "metrics": ("masked_l1", "l1", "psnr", "ssim"), "samples": 2_000,
                "split": "validation",
            },
        }
    )
    if variant == "smoke":
        shrink(config)
    return config


def shrink(config: ConfigDict) -> None:
    """Makes a run of three steps of eight photographs with narrow players and small holes."""
    config.total_images, config.batch_size, config.grid = 24, 8, 4
    config.data = {"name": "photographs:chelsea+coffee", "resolution": 32, "flip": True}
    config.generator = {"name": config.generator.name, "width": 4, "halvings": 2, "blocks": 1}
    config.discriminator = {"name": config.discriminator.name, "width": 4, "layers": 2}
    config.inpainting = {
        "masks": "mixed", "lengths": (2, 20), "widths": (1, 8), "box_sides": (4, 12), "margin": 2,
    }
    config.every = {"log_images": 8, "sample_images": 16, "checkpoint_images": 8}
    config.evaluation.samples, config.evaluation.split = 16, "test"
    config.evaluation.features, config.evaluation.metrics = "none", ("masked_l1", "l1")
