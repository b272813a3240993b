"""Real-ESRGAN (Wang et al. 2021, arXiv 2107.10833): pictures from cameras and the net, four times as large.

    python launch.py train --config=real_esrgan:pixel --workdir=runs/real_esrnet --config.data.name=folder:PATH
    python launch.py train --config=real_esrgan --workdir=runs/real_esrgan --config.data.name=folder:PATH \\
        --config.transfer.workdir=runs/real_esrnet

The folder holds squares of 400 pixels, cut from the pictures of DIV2K, Flickr2K and OutdoorSceneTraining. Of each, a
square of 256 is cut at random, sharpened, and made small by two rounds of blur, change of size, noise and JPEG. The first
stage, Real-ESRNet, has an L1 loss alone. The second has a U-Net as its discriminator, which sees pictures that were not
sharpened, and needs VGG19's weights, see `docs/metrics_weights.md`.

The authors begin the first stage from an ESRGAN, and keep a queue of 180 pairs from which they draw their batches. Here
the first stage begins afresh unless `transfer.workdir` names a run, and each picture of a batch is degraded on its own.

Nothing of this size was trained here.

Variants: `pixel`, the first stage; `smoke` and `pixel_smoke`, tiny and done in seconds. Source: section 4.1 of the
paper, and for what it does not say the public options of its authors' program, both written from memory.
"""

from ml_collections import ConfigDict

VARIANTS = ("", "pixel", "smoke", "pixel_smoke")
LAYERS = ("conv1_2", "conv2_2", "conv3_4", "conv4_4", "conv5_4")


def get_config(variant: str = "") -> ConfigDict:
    """Variants: `pixel`; `smoke`, `pixel_smoke`."""
    if variant not in VARIANTS:
        raise ValueError(f"{variant!r}; expected one of {', '.join(filter(None, VARIANTS))}")
    is_pixel = variant.startswith("pixel")
    batch, steps = 48, 1_000_000 if is_pixel else 400_000
    adam = {"name": "adam", "b1": 0.9, "b2": 0.99, "learning_rate": 2e-4 if is_pixel else 1e-4}
    losses = {"pixel": 1.0} if is_pixel else {"pixel": 1.0, "perceptual": 1.0, "adversarial": 0.1}
    config = ConfigDict(
        {
            "game": "super_resolution",
            "total_images": batch * steps,
            "batch_size": batch,
            "grid": 16,
            "data": {"name": "folder:data/df2k_ost_squares", "resolution": 400, "channels": 3, "flip": True},
            "super_resolution": {"degradation": "real", "crop": 256, "turn": True, "sharpen": True},
            "generator": {"name": "esrgan", "scale": 4},
            "discriminator": {"name": "real_esrgan"},
            "loss": {"name": "non_saturating", **losses},
            "perceptual": {"features": "vgg19", "layers": LAYERS, "factors": (0.1, 0.1, 1.0, 1.0, 1.0)},
            "optim": {"generator": dict(adam), "discriminator": dict(adam)},
            "ema": {"decay": 0.999},
            "every": {"log_images": 4_800, "sample_images": 240_000, "checkpoint_images": 240_000},
        }
    )
    if variant.endswith("smoke"):
        shrink(config)
    return config


def shrink(config: ConfigDict) -> None:
    """Makes a run of three steps of eight synthetic images of 16x16, which are too small to be sharpened."""
    config.total_images, config.batch_size, config.grid = 24, 8, 4
    config.data.name, config.data.resolution = "synthetic:16", 16
    config.super_resolution.update({"crop": 8, "sharpen": False})
    config.generator.update({"width": 4, "blocks": 1, "growth": 2})
    config.discriminator.update({"width": 2})
    config.perceptual.update({"features": "random_vgg19", "layers": ("conv1_2",), "factors": (1.0,)})
    config.every = {"log_images": 8, "sample_images": 16, "checkpoint_images": 8}
