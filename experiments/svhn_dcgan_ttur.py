"""DCGAN with a learning rate per player (TTUR, Heusel et al. 2017, arXiv 1706.08500), on SVHN at 32 px.

    python launch.py train --config=svhn_dcgan_ttur --workdir=runs/svhn_dcgan_ttur

| | discriminator | generator | updates | FID |
| --- | --- | --- | --- | --- |
| two rates | 1e-5 | 1e-4 | 165,000 | 12.5 |
| one rate, `:single` | 5e-5 | 5e-5 | 185,000 | 21.4 |

Rates, updates and FID stand on the authors' NIPS 2017 poster in bioinf-jku/TTUR; they have not been reproduced here.
Players, batch, latents and beta1 were read in that repository. It holds SVHN's curve but neither its settings nor the
size of its images: here the digits keep their own 32 px, with the players of CIFAR-10. Whether the paper's were scaled
to 64 px is unverified.

The set must have been prepared with TFDS.
FID, which needs a file of weights (docs/metrics.md): `--config.evaluation.metrics="('fid50k_full',)"`.
"""

from celeba_dcgan_ttur import dcgan_ttur, narrow_base, set_rates
from digits_dcgan import shrink
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Variants: `single`, the baseline of one learning rate; `smoke`, tiny and done in seconds."""
    config = dcgan_ttur("tfds:svhn_cropped", discriminator=1e-5, generator=1e-4, updates=165_000)
    narrow_base(config, 512, 256, 128, 64)
    if variant == "single":
        set_rates(config, discriminator=5e-5, generator=5e-5, updates=185_000)
    elif variant == "smoke":
        shrink(config, data="synthetic:64")
        narrow_base(config, 8, 4, 4, 4)
    elif variant:
        raise ValueError(f"{variant!r}; expected single or smoke")
    return config
