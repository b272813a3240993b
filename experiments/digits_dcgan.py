"""DCGAN on scikit-learn's 1,797 handwritten digits at 32 px: the default experiment.

    python launch.py train --config=digits_dcgan --workdir=runs/digits_dcgan

Radford et al. 2015 (arXiv 1511.06434) in the form of the PyTorch examples, half as wide, with a lazy R1 penalty
(Mescheder et al. 2018, arXiv 1801.04406) and learning rates that fall to zero over the second half. Two CPU
cores took twelve minutes with installation and evaluation; `docs/reproduction.md` has the figures.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Variants: `smoke`, tiny and done in seconds."""
    adam = {"name": "adam", "learning_rate": 2e-4, "b1": 0.5, "b2": 0.999}
    adam |= {"schedule": "linear", "decay_begin_images": 160_000}
    config = ConfigDict(
        {
            "game": "unconditional",
            "total_images": 320_000,
            "batch_size": 64,
            "data": {"name": "digits", "resolution": 32, "channels": 1},
            "generator": {"name": "dcgan", "latent_size": 100, "width": 32},
            "discriminator": {"name": "dcgan", "width": 32},
            "loss": {"name": "non_saturating", "r1_gamma": 1.0},
            "optim": {"generator": adam, "discriminator": adam},
            "ema": {"half_life_images": 5_000.0, "rampup": 0.05},
            "every": {"penalty_steps": 8, "sample_images": 32_000, "checkpoint_images": 32_000},
            "evaluation": {"features": "digits_classifier", "metrics": ("fd", "kd", "prdc", "classes")},
        }
    )
    if variant == "smoke":
        shrink(config)
    elif variant:
        raise ValueError(f"{variant!r}; expected smoke")
    return config


def shrink(config: ConfigDict, data: str = "") -> None:
    """Makes a run of three steps of eight images with narrow players, on other data where its name is given."""
    config.total_images, config.batch_size, config.grid = 24, 8, 4
    config.generator.width = config.discriminator.width = 4
    for player in config.optim.values():
        player.schedule = "constant"
    lazy = {"penalty_steps": 2} if config.every.get("penalty_steps", 1) > 1 else {}
    config.every = {"log_images": 8, "sample_images": 16, "checkpoint_images": 8, **lazy}
    config.evaluation.samples = 64
    if data:
        config.data.name, config.data.split = data, "train"
