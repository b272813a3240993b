"""pix2pix (Isola et al. 2017, arXiv 1611.07004) from edges to shoes at 256 px, with the paper's values.

    python launch.py train --config=edges2shoes_pix2pix --workdir=runs/edges2shoes
    python launch.py sample --workdir=runs/edges2shoes --inputs=sketch.png --out=shoe

As `facades_pix2pix.py`, but for batches of four, 15 epochs, and pairs that are neither moved nor mirrored. The data are the
authors': 49,825 edges and photographs side by side, in the folders train and val of datasets/edges2shoes. FID of the
authors' weights 76, of a repetition 84 (mmgeneration).
"""

from facades_pix2pix import pix2pix, shrink
from ml_collections import ConfigDict

PAIRS, EPOCHS = 49_825, 15


def get_config(variant: str = "") -> ConfigDict:
    """Variants: `smoke`, tiny and done in seconds."""
    if variant not in ("", "smoke"):
        raise ValueError(f"{variant!r}; expected smoke")
    data = "folder:datasets/edges2shoes"
    config = pix2pix(data, images=EPOCHS * PAIRS, direction="ab", batch_size=4, jitter=0)
    if variant == "smoke":
        shrink(config)
    return config
