"""Text to image with DF-GAN's values (Tao et al. 2020, arXiv 2008.05865), on COCO with captions at 256x256.

    python launch.py train --config=coco_dfgan --workdir=runs/coco_dfgan

TFDS's `coco_captions` has five captions an image. The paper reports an FID of 19.32 on COCO, and 15.41 for the later released
weights: the authors' figures, with text encoders that were pretrained on the same captions; nobody has trained this file to
its end. All settings are those of `cub_dfgan` but for the data and the length, whose 301 epochs are from memory.
"""

from cub_dfgan import get_config as birds
from ml_collections import ConfigDict

IMAGES, EPOCHS = 82_783, 301  # of the training set, and of the players


def get_config(variant: str = "") -> ConfigDict:
    """Variants: `smoke`, tiny and done in seconds."""
    config = birds(variant)
    if variant == "smoke":
        return config
    matching = 40 * IMAGES
    config.total_images, config.matching.images = matching + EPOCHS * IMAGES, matching
    config.data.name, config.data.captions = "tfds:coco_captions", 5
    config.evaluation.split = "val+test+restval"  # the 40,504 images of COCO's own validation set
    return config
