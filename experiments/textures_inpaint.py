"""Inpainting of textures: brick, grass and gravel, grey, 32 px, of photographs that ship with scikit-image.

    python launch.py train --config=textures_inpaint --workdir=runs/textures_inpaint
    python launch.py evaluate --workdir=runs/textures_inpaint
    python launch.py sample --workdir=runs/textures_inpaint --seeds=0-31 --out=drawn

The middle quarter of a square is a hole. What was there cannot be told from what is around it, so that the filled squares
are judged by their patches: the sliced Wasserstein distance to those of the whole squares, beside that of the biharmonic
equation's solution, which is smooth. The players are LaMa's (Suvorov et al. 2021, arXiv 2109.07161), small; the test split is
the lowest fifth of each photograph.
"""

from ml_collections import ConfigDict

HELD_OUT = 144  # squares of the test split


def get_config(variant: str = "") -> ConfigDict:
    """Variants: `smoke`, tiny and done in seconds."""
    if variant not in ("", "smoke"):
        raise ValueError(f"{variant!r}; expected smoke")
    adam = {"name": "adam", "b1": 0.5, "b2": 0.99, "clip_norm": 1.0}
    adam |= {"schedule": "linear", "decay_begin_images": 12_000}
    config = ConfigDict(
        {
            "game": "inpainting",
            "total_images": 24_000,
            "batch_size": 16,
            "grid": 24,
            "data": {"name": "photographs:brick+grass+gravel", "resolution": 32, "channels": 1, "flip": True},
            "generator": {"name": "lama", "width": 16, "halvings": 2, "blocks": 3},
            "discriminator": {"name": "lama", "width": 32, "layers": 2},
            "inpainting": {"masks": "centre", "centre": (16, 16)},
            "loss": {"known": 10.0, "missing": 2.0, "adversarial": 10.0, "matching": 50.0, "r1": 0.01},
            "optim": {
                "generator": {**adam, "learning_rate": 1e-3},
                "discriminator": {**adam, "learning_rate": 5e-4},
            },
            "ema": {"half_life_images": 1_000.0},
            "every": {"log_images": 1_600, "sample_images": 8_000, "checkpoint_images": 12_000},
            "evaluation": {
                "features": "none", "metrics": (f"swd{HELD_OUT}", "masked_l1"), "samples": HELD_OUT, "split": "test",
            },
        }
    )
    if variant == "smoke":
        shrink(config)
    return config


def shrink(config: ConfigDict) -> None:
    """Makes a run of three steps of eight squares with narrow players."""
    config.total_images, config.batch_size, config.grid = 24, 8, 4
    config.generator.width = config.discriminator.width = 4
    config.generator.blocks = 1
    for player in config.optim.values():
        player.schedule = "constant"
    config.every = {"log_images": 8, "sample_images": 16, "checkpoint_images": 8}
