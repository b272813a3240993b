"""CycleGAN (Zhu et al. 2017, arXiv 1703.10593) between summer and winter in Yosemite at 256 px, as in the paper.

    python launch.py train --config=summer2winter --workdir=runs/summer2winter \\
        --config.data.parts.a.download=True --config.data.parts.b.download=True
    python launch.py sample --workdir=runs/summer2winter --inputs=summer.jpg --out=winter

The frame and the values of `horse2zebra`. FID from summer to winter 77.3, back 72.6 (the authors' weights, measured by
mmgeneration's authors); nothing of this size was trained here. `--direction=ba` makes summer of winter.
"""

from horse2zebra import EPOCHS, cyclegan, shrink
from ml_collections import ConfigDict

EPOCH = 1_231  # pictures of summer, the larger set


def get_config(variant: str = "") -> ConfigDict:
    """Variants: `folder`, data at datasets/summer2winter_yosemite; `smoke`, tiny and done in seconds."""
    if variant not in ("", "folder", "smoke"):
        raise ValueError(f"{variant!r}; expected folder or smoke")
    set_name = "summer2winter_yosemite"
    name = f"folder:datasets/{set_name}" if variant == "folder" else f"tfds:cycle_gan/{set_name}"
    config = cyclegan(name, images=EPOCHS * EPOCH)
    if variant == "smoke":
        shrink(config)
    return config
