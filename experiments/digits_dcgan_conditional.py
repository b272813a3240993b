"""The default experiment with labels: each digit can be asked for.

    python launch.py train --config=digits_dcgan_conditional --workdir=runs/digits_dcgan_conditional
    python launch.py sample --workdir=runs/digits_dcgan_conditional --labels=0-9 --seeds=0-99 --out=digits

The generator sees a learned vector of the label beside z, the discriminator projects on one (Miyato and Koyama 2018,
arXiv 1802.05637). `label_agreement` is the share of samples in which the classifier sees the digit asked for.
"""

from digits_dcgan import get_config as unconditional
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Variants: `smoke`, tiny and done in seconds."""
    config = unconditional(variant)
    config.conditional = True
    return config
