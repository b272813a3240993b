"""Super-resolution of CelebA's faces, from 32 to 128 pixels, in two stages, with ESRGAN's networks (1809.00219).

    python launch.py train --config=celeba_superres:pixel --workdir=runs/celeba_pixel
    python launch.py train --config=celeba_superres --workdir=runs/celeba_superres \\
        --config.transfer.workdir=runs/celeba_pixel

The set must have been prepared with TFDS; `--config.data.name=folder:PATH` takes a folder instead, then with a split of its
own for `evaluation.split`. Weights of the losses and optimizers are those of `div2k_esrgan.py`; the lengths, the six
blocks of the generator, which are Real-ESRGAN's for animation, and the size are ours. The second stage needs VGG19's
weights, see `docs/metrics_weights.md`. Held-out faces are compared, in Y and without four pixels at each side, as
papers of super-resolution do it.

Nothing of this size was trained here; `faces_superres.py` is a small one that was.

Variants: `pixel`, the first stage; `smoke` and `pixel_smoke`, tiny and done in seconds.
"""

from div2k_esrgan import get_config as esrgan
from div2k_esrgan import shrink
from ml_collections import ConfigDict

EPOCH_IMAGES = 162_770  # CelebA's split `train`


def get_config(variant: str = "") -> ConfigDict:
    """Variants: `pixel`; `smoke`, `pixel_smoke`."""
    config = esrgan(variant.removesuffix("smoke").removesuffix("_") if variant.endswith("smoke") else variant)
    config.total_images = 20 * EPOCH_IMAGES
    config.data = {"name": "tfds:celeb_a", "split": "train", "resolution": 128, "channels": 3, "flip": True}
    config.super_resolution = {"crop": 0, "turn": False}
    config.generator.blocks = 6
    config.every = {"log_images": 1_600, "sample_images": EPOCH_IMAGES, "checkpoint_images": EPOCH_IMAGES}
    config.evaluation = {"metrics": ("psnr_y", "ssim_y", "sharpness"), "samples": 10_000, "split": "test", "border": 4}
    if variant.endswith("smoke"):
        shrink(config)
        config.super_resolution.crop, config.evaluation.split, config.evaluation.metrics = 0, "", ()
    return config
