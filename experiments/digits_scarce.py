"""Ten images of each digit: a class-conditional GAN with DiffAugment, and what a classifier learns of its images.

    python launch.py train --config=digits_scarce --workdir=runs/digits_scarce
    python launch.py evaluate --workdir=runs/digits_scarce
    python launch.py sample --workdir=runs/digits_scarce --labels=0-9 --seeds=0-99 --out=digits

BigGAN's blocks (Brock et al. 2018, arXiv 1809.11096), small, at 8 px: an embedding of the class and parts of z scale and
move the generator's normalised maps, and the discriminator projects on a vector of the class. DiffAugment (Zhao et al.
2020, arXiv 2006.10738) shifts what the discriminator sees of the hundred images. A weak R1 (Mescheder et al. 2018, arXiv
1801.04406) stands in the place of BigGAN's hinge loss and spectral norm in the discriminator, with which the generator
drew one image a class.

`cas` is the accuracy, on held-out digits, of classifiers that learn generated images alone, `nas` of those that learn
them beside the hundred; `nearest` is the distance to the nearest of the hundred. `docs/reproduction.md` has the figures.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Variants: `plain`, not augmented; `smoke`, tiny and done in seconds."""
    if variant not in ("", "plain", "smoke"):
        raise ValueError(f"{variant!r}; expected plain or smoke")
    adam = {"name": "adam", "learning_rate": 1e-3, "b1": 0.0, "b2": 0.99}
    adam |= {"schedule": "linear", "decay_begin_images": 40_000}
    config = ConfigDict(
        {
            "game": "unconditional",
            "conditional": True,
            "total_images": 64_000,
            "batch_size": 32,
            "data": {"name": "digits", "split": "train@10", "resolution": 8, "channels": 1},
            "generator": {"name": "biggan", "latent_size": 48, "shared_size": 16, "widths": (32, 32)},
            "discriminator": {"name": "biggan", "widths": (48, 48, 48), "halvings": 2, "spectral_norm": False},
            "loss": {"name": "non_saturating", "r1_gamma": 0.05},
            "augment": {"name": "diffaugment", "policy": ("translation",)},
            "optim": {"generator": dict(adam), "discriminator": dict(adam)},
            "ema": {"half_life_images": 8_000.0, "rampup": 0.1},
            "every": {"penalty_steps": 4, "log_images": 3_200, "sample_images": 32_000, "checkpoint_images": 32_000},
            "evaluation": {
                "features": "digits_classifier",
                "metrics": ("cas", "nas", "nearest", "fd", "classes"),
                "split": "test",
                "samples": 2_000,
            },
        }
    )
    if variant == "plain":
        config.augment = {"name": "none"}
    if variant == "smoke":
        config.data.split = "train@2"
        config.total_images, config.batch_size, config.grid = 24, 8, 4
        config.generator.latent_size, config.generator.shared_size, config.generator.widths = 4, 4, (4,)
        config.discriminator.widths, config.discriminator.halvings = (4,), 1
        for player in config.optim.values():
            player.schedule = "constant"
        config.every = {"penalty_steps": 2, "log_images": 8, "sample_images": 16, "checkpoint_images": 8}
        config.evaluation.samples = 64
    return config
