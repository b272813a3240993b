"""DCGAN with a learning rate per player (TTUR, Heusel et al. 2017, arXiv 1706.08500), on CelebA at 64 px.

    python launch.py train --config=celeba_dcgan_ttur --workdir=runs/celeba_dcgan_ttur

| | discriminator | generator | updates | FID |
| --- | --- | --- | --- | --- |
| two rates | 1e-5 | 5e-4 | 225,000 | 12.5 |
| one rate, `:single` | 5e-4 | 5e-4 | 70,000 | 21.4 |

Rates, updates and FID stand on the authors' NIPS 2017 poster in bioinf-jku/TTUR; they have not been reproduced here.
Players, batch, latents and beta1 were read in DCGAN_FID_batched of that repository. It trains on images that had been
cropped beforehand, and does not say how: the 108 px taken here are its default for uncropped ones. Its statistics of
the real images are those of all splits, hence `all`.

The set must have been prepared with TFDS.
FID, which needs a file of weights (docs/metrics.md): `--config.evaluation.metrics="('fid50k_full',)"`.
"""

from digits_dcgan import shrink
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Variants: `single`, the baseline of one learning rate; `smoke`, tiny and done in seconds."""
    config = dcgan_ttur("tfds:celeb_a", discriminator=1e-5, generator=5e-4, updates=225_000)
    config.data.split, config.data.crop_size = "all", 108
    if variant == "single":
        set_rates(config, discriminator=5e-4, generator=5e-4, updates=70_000)
    elif variant == "smoke":
        shrink(config, data="synthetic:64")
        config.data.resolution = 16
        config.data.crop_size = 0
    elif variant:
        raise ValueError(f"{variant!r}; expected single or smoke")
    return config


def dcgan_ttur(data: str, *, discriminator: float, generator: float, updates: int) -> ConfigDict:
    """What the paper's DCGAN experiments share, at 64 px; the two numbers are learning rates."""
    adam = {"name": "adam", "b1": 0.5, "b2": 0.999}
    config = ConfigDict(
        {
            "game": "unconditional",
            "batch_size": 64,
            "data": {"name": data, "split": "train", "resolution": 64, "channels": 3},
            "generator": {
                "name": "dcgan",
                "latent_size": 100,
                "latent": "uniform",
                "width": 64,  # 512, 256, 128, 64 from the stem on
                "kernel_size": 5,
                "stem": "dense",
            },
            "discriminator": {"name": "dcgan", "width": 64, "kernel_size": 5, "head": "dense"},
            "loss": {"name": "non_saturating"},
            "optim": {"discriminator": dict(adam), "generator": dict(adam)},
            "every": {"sample_images": 320_000, "checkpoint_images": 320_000},  # 5,000 updates
            "evaluation": {"features": "none", "metrics": (), "samples": 50_000},
        }
    )
    set_rates(config, discriminator=discriminator, generator=generator, updates=updates)
    return config


def set_rates(config: ConfigDict, *, discriminator: float, generator: float, updates: int) -> None:
    """Sets the two learning rates, and the length of the run by its updates."""
    config.optim.discriminator.learning_rate = discriminator
    config.optim.generator.learning_rate = generator
    config.total_images = updates * config.batch_size


def narrow_base(config: ConfigDict, *features: int) -> None:
    """The same four layers on images of 32 px, down to a base of 2x2; `features` from the generator's stem on."""
    config.data.resolution = 32
    config.generator.features, config.discriminator.features = features, features[::-1]
