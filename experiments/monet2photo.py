"""CycleGAN (Zhu et al. 2017, arXiv 1703.10593) between Monet's paintings and photographs at 256 px, as in the paper.

    python launch.py train --config=monet2photo --workdir=runs/monet2photo \\
        --config.data.parts.a.download=True --config.data.parts.b.download=True
    python launch.py sample --workdir=runs/monet2photo --inputs=photo.jpg --out=painted

The frame of `horse2zebra`, with the identity term at half of the cycles' weight, which keeps colours between paintings
and photographs (section 5.2 of the paper). Samples are photographs painted; `--direction=ab` makes photographs of
paintings. An epoch is of the 6,287 photographs; nothing of this size was trained here. Other collections of the paper are
`--config.data.parts.a.name=tfds:cycle_gan/vangogh2photo` and so on, for both parts.
"""

from horse2zebra import EPOCHS, cyclegan, shrink
from ml_collections import ConfigDict

EPOCH = 6_287  # photographs, the larger set


def get_config(variant: str = "") -> ConfigDict:
    """Variants: `folder`, data at datasets/monet2photo; `smoke`, tiny and done in seconds."""
    if variant not in ("", "folder", "smoke"):
        raise ValueError(f"{variant!r}; expected folder or smoke")
    name = "folder:datasets/monet2photo" if variant == "folder" else "tfds:cycle_gan/monet2photo"
    config = cyclegan(name, images=EPOCHS * EPOCH)
    config.translation.direction = "ba"
    config.loss.identity = 0.5
    if variant == "smoke":
        shrink(config)
    return config
