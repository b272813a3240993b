"""DCGAN with a learning rate per player (TTUR, Heusel et al. 2017, arXiv 1706.08500), on LSUN bedrooms at 64 px.

    python launch.py train --config=lsun_dcgan_ttur --workdir=runs/lsun_dcgan_ttur

| | discriminator | generator | updates | FID |
| --- | --- | --- | --- | --- |
| two rates | 1e-5 | 1e-4 | 340,000 | 57.5 |
| one rate, `:single` | 5e-5 | 5e-5 | 70,000 | 70.4 |

Rates, updates and FID stand on the authors' NIPS 2017 poster in bioinf-jku/TTUR; they have not been reproduced here.
Players, batch, latents, beta1 and the 64 px were read in that repository.

The set must have been prepared with TFDS.
FID, which needs a file of weights (docs/metrics.md): `--config.evaluation.metrics="('fid50k_full',)"`.
"""

from celeba_dcgan_ttur import dcgan_ttur, set_rates
from digits_dcgan import shrink
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Variants: `single`, the baseline of one learning rate; `smoke`, tiny and done in seconds."""
    config = dcgan_ttur("tfds:lsun/bedroom", discriminator=1e-5, generator=1e-4, updates=340_000)
    if variant == "single":
        set_rates(config, discriminator=5e-5, generator=5e-5, updates=70_000)
    elif variant == "smoke":
        shrink(config, data="synthetic:64")
        config.data.resolution = 16
    elif variant:
        raise ValueError(f"{variant!r}; expected single or smoke")
    return config
