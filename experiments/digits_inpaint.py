"""Inpainting on scikit-learn's digits: the middle quarter of a digit is a hole, and is drawn anew.

    python launch.py train --config=digits_inpaint --workdir=runs/digits_inpaint
    python launch.py evaluate --workdir=runs/digits_inpaint
    python launch.py sample --workdir=runs/digits_inpaint --seeds=0-31 --out=drawn

LaMa's players (Suvorov et al. 2021, arXiv 2109.07161), small, at 8 px with a hole of 4x4. Held-out digits are filled and
compared inside the hole with what was there, beside the biharmonic equation's solution and the mean of what is known; and a
classifier of the digits tells their classes. LaMa's L1 is of what is known alone; here it is of the hole, too: so small a
picture leaves less to imagine. `docs/reproduction.md` has the figures.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Variants: `smoke`, tiny and done in seconds."""
    if variant not in ("", "smoke"):
        raise ValueError(f"{variant!r}; expected smoke")
    adam = {"name": "adam", "b1": 0.9, "b2": 0.999, "clip_norm": 1.0}
    adam |= {"schedule": "linear", "decay_begin_images": 32_000}
    config = ConfigDict(
        {
            "game": "inpainting",
            "total_images": 64_000,
            "batch_size": 32,
            "grid": 32,
            "data": {"name": "digits", "resolution": 8, "channels": 1},
            "generator": {"name": "lama", "width": 32, "halvings": 1, "blocks": 3},
            "discriminator": {"name": "lama", "width": 32, "layers": 1},
            "inpainting": {"masks": "centre", "centre": (4, 4)},
            "loss": {"known": 10.0, "missing": 40.0, "adversarial": 1.0, "matching": 10.0, "r1": 0.01},
            "optim": {
                "generator": {**adam, "learning_rate": 1e-3},
                "discriminator": {**adam, "learning_rate": 1e-3},
            },
            "ema": {"half_life_images": 4_000.0},
            "every": {"log_images": 3_200, "sample_images": 16_000, "checkpoint_images": 32_000},
            "evaluation": {
                "features": "digits_classifier",
                "metrics": ("masked_l1", "l1", "classes", "fd"),
                "samples": 360,
                "split": "test",
            },
        }
    )
    if variant == "smoke":
        shrink(config)
    return config


def shrink(config: ConfigDict) -> None:
    """Makes a run of three steps of eight digits with narrow players and holes of all kinds."""
    config.total_images, config.batch_size, config.grid = 24, 8, 4
    config.generator.width = config.discriminator.width = 4
    config.generator.blocks = 1
    config.inpainting = {
        "masks": "mixed", "lengths": (2, 6), "widths": (1, 2), "box_sides": (2, 4), "margin": 1,
    }
    for player in config.optim.values():
        player.schedule = "constant"
    config.every = {"log_images": 8, "sample_images": 16, "checkpoint_images": 8}
    config.evaluation.samples = 64
