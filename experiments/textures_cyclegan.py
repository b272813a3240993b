"""Unpaired translation between two photographs: grass to gravel, and back.

    python launch.py train --config=textures_cyclegan --workdir=runs/textures_cyclegan
    python launch.py evaluate --workdir=runs/textures_cyclegan
    python launch.py sample --workdir=runs/textures_cyclegan --seeds=0-31 --out=gravel

CycleGAN (Zhu et al. 2017, arXiv 1703.10593) on grey squares of 32 px, cut out of two photographs that ship with
scikit-image: a small case of one season, or one material, made another. The lowest fifth of each photograph is held
out. A classifier of the two (`evaluation.judge`) says how many translated pictures of grass are gravel, and `cycle_l1` how
near they come to themselves on their way back.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Variants: `smoke`, tiny and done in seconds."""
    if variant not in ("", "smoke"):
        raise ValueError(f"{variant!r}; expected smoke")
    adam = {"name": "adam", "learning_rate": 5e-4, "b1": 0.5, "b2": 0.999}
    adam |= {"schedule": "linear", "decay_begin_images": 6_000}
    look = {"resolution": 32, "channels": 1, "flip": True}
    config = ConfigDict(
        {
            "game": "translation",
            "total_images": 12_000,
            "batch_size": 8,
            "grid": 24,
            "data": {"parts": {"a": {"name": "photographs:grass", **look}, "b": {"name": "photographs:gravel", **look}}},
            "generator": {"name": "cyclegan", "width": 16, "halvings": 1, "blocks": 2},
            "discriminator": {"name": "cyclegan", "width": 24, "layers": 2},
            "loss": {"cycle_a": 10.0, "cycle_b": 10.0, "identity": 0.0, "pool": 50},
            "optim": {"generators": dict(adam), "discriminators": dict(adam)},
            "ema": {"half_life_images": 500.0},
            "every": {"log_images": 800, "sample_images": 3_000, "checkpoint_images": 12_000},
            "evaluation": {
                "features": "classifier",
                "judge": "photographs:grass+gravel",
                "metrics": ("classes", "cycle_l1"),
                "samples": 48,
                "split": "test",
            },
        }
    )
    if variant == "smoke":
        shrink(config)
    return config


def shrink(config: ConfigDict) -> None:
    """Makes a run of three steps of eight images with narrow players."""
    config.total_images, config.batch_size, config.grid, config.loss.pool = 24, 8, 4, 4
    config.generator.width = config.discriminator.width = 4
    config.generator.blocks, config.discriminator.layers = 1, 1
    for player in config.optim.values():
        player.schedule = "constant"
    config.every = {"log_images": 8, "sample_images": 16, "checkpoint_images": 8}
    config.evaluation.samples = 16
