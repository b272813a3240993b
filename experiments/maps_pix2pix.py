"""pix2pix (Isola et al. 2017, arXiv 1611.07004) from maps to aerial photographs at 256 px, with the paper's values.

    python launch.py train --config=maps_pix2pix --workdir=runs/maps
    python launch.py train --config=maps_pix2pix:aerial2map --workdir=runs/aerial2map

As `facades_pix2pix.py`, 200 epochs of 1,096 pairs. The data are the authors': photograph and map side by side, in the
folders train and val of datasets/maps. FID of maps to photographs: 102 with the authors' weights, 88 of a repetition
(mmgeneration). The paper's pictures are of 600 pixels, enlarged and cut from there; here they are read at 256.
"""

from facades_pix2pix import pix2pix, shrink
from ml_collections import ConfigDict

PAIRS, EPOCHS = 1_096, 200
DIRECTIONS = {"": "ba", "aerial2map": "ab", "smoke": "ba"}


def get_config(variant: str = "") -> ConfigDict:
    """Variants: `aerial2map`, the other way; `smoke`, tiny and done in seconds."""
    if variant not in DIRECTIONS:
        raise ValueError(f"{variant!r}; expected aerial2map or smoke")
    config = pix2pix("folder:datasets/maps", images=EPOCHS * PAIRS, direction=DIRECTIONS[variant])
    if variant == "smoke":
        shrink(config)
    return config
