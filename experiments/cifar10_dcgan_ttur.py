"""DCGAN with a learning rate per player (TTUR, Heusel et al. 2017, arXiv 1706.08500), on CIFAR-10 at 32 px.

    python launch.py train --config=cifar10_dcgan_ttur --workdir=runs/cifar10_dcgan_ttur

| | discriminator | generator | updates | FID |
| --- | --- | --- | --- | --- |
| two rates | 1e-4 | 5e-4 | 75,000 | 36.9 |
| one rate, `:single` | 1e-4 | 1e-4 | 100,000 | 37.7 |

Rates, updates and FID stand on the authors' NIPS 2017 poster in bioinf-jku/TTUR; they have not been reproduced here.
Players, batch, latents, beta1 and the 32 px were read in that repository: four layers, and so a base of 2x2.

The set must have been prepared with TFDS.
FID, which needs a file of weights (docs/metrics.md): `--config.evaluation.metrics="('fid50k_full',)"`.
"""

from celeba_dcgan_ttur import dcgan_ttur, narrow_base, set_rates
from digits_dcgan import shrink
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Variants: `single`, the baseline of one learning rate; `smoke`, tiny and done in seconds."""
    config = dcgan_ttur("tfds:cifar10", discriminator=1e-4, generator=5e-4, updates=75_000)
    narrow_base(config, 512, 256, 128, 64)
    if variant == "single":
        set_rates(config, discriminator=1e-4, generator=1e-4, updates=100_000)
    elif variant == "smoke":
        shrink(config, data="synthetic:64")
        narrow_base(config, 8, 4, 4, 4)
    elif variant:
        raise ValueError(f"{variant!r}; expected single or smoke")
    return config
