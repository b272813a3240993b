"""DCGAN on scikit-learn's 1,797 handwritten digits at 32 px: the default experiment.

    python launch.py train --config=experiments/digits_dcgan.py --workdir=runs/digits_dcgan

Radford et al. 2015 (arXiv 1511.06434) in the form of the PyTorch examples, half as wide.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Variants: `smoke`, tiny and done in seconds."""
    adam = {"name": "adam", "learning_rate": 2e-4, "b1": 0.5, "b2": 0.999}
    config = ConfigDict(
        {
            "game": "unconditional",
            "total_images": 160_000,
            "batch_size": 64,
            "data": {"name": "digits", "resolution": 32, "channels": 1},
            "generator": {"name": "dcgan", "latent_size": 100, "width": 32},
            "discriminator": {"name": "dcgan", "width": 32},
            "loss": {"name": "non_saturating"},
            "optim": {"generator": adam, "discriminator": adam},
            "ema": {"half_life_images": 5_000.0, "rampup": 0.05},
            "every": {"sample_images": 32_000, "checkpoint_images": 32_000},
            "evaluation": {"features": "digits_classifier", "metrics": ("fd", "kd", "prdc", "classes")},
        }
    )
    if variant == "smoke":
        shrink(config)
    elif variant:
        raise ValueError(f"{variant!r}; expected smoke")
    return config


def shrink(config: ConfigDict) -> None:
    """Makes a run of three steps of eight images with narrow players."""
    config.total_images, config.batch_size, config.grid = 24, 8, 4
    config.generator.width = config.discriminator.width = 4
    config.every = {"log_images": 8, "sample_images": 16, "checkpoint_images": 8}
    config.evaluation.samples = 64
