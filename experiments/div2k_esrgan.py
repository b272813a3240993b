"""ESRGAN (Wang et al. 2018, arXiv 1809.00219): pictures of DIV2K four times as large, in two stages.

    python launch.py train --config=div2k_esrgan:pixel --workdir=runs/rrdb --config.data.name=folder:PATH
    python launch.py train --config=div2k_esrgan --workdir=runs/esrgan --config.data.name=folder:PATH \\
        --config.transfer.workdir=runs/rrdb

The folder holds squares of 480 pixels, cut from DIV2K's training pictures every 240. Of each, a square of 128 is cut at
random, turned and mirrored, and made small by MATLAB's cubic. The first stage has an L1 loss alone. The second needs
VGG19's weights, see `docs/metrics_weights.md`. It makes pictures sharper and their signal-to-noise ratio lower, as it
is meant to. BasicSR restarts the cosine of the first stage's rate every 250 thousand steps, and halves the second's at
50, 100, 200 and 300 thousand. Here both fall along one cosine.

Set5 in RGB: PSNR 28.27 and SSIM 0.778, after the first stage 30.64 and 0.856 (mmagic's). Nothing of this size was
trained here.

Variants: `pixel`, the first stage; `smoke` and `pixel_smoke`, tiny and done in seconds. Source: the paper, and for what
it does not say BasicSR's options for RRDBNet and ESRGAN (Apache-2.0).
"""

from ml_collections import ConfigDict

VARIANTS = ("", "pixel", "smoke", "pixel_smoke")


def get_config(variant: str = "") -> ConfigDict:
    """Variants: `pixel`; `smoke`, `pixel_smoke`."""
    if variant not in VARIANTS:
        raise ValueError(f"{variant!r}; expected one of {', '.join(filter(None, VARIANTS))}")
    is_pixel = variant.startswith("pixel")
    batch, steps = 16, 1_000_000 if is_pixel else 400_000
    adam = {"name": "adam", "b1": 0.9, "b2": 0.99, "learning_rate": 2e-4 if is_pixel else 1e-4, "schedule": "cosine"}
    losses = {"pixel": 1.0} if is_pixel else {"pixel": 1e-2, "perceptual": 1.0, "adversarial": 5e-3}
    config = ConfigDict(
        {
            "game": "super_resolution",
            "total_images": batch * steps,
            "batch_size": batch,
            "grid": 16,
            "data": {"name": "folder:data/div2k_squares", "resolution": 480, "channels": 3, "flip": True},
            "super_resolution": {"crop": 128, "turn": True},
            "generator": {"name": "esrgan", "scale": 4},
            "discriminator": {"name": "esrgan"},
            "loss": {"name": "relativistic_average", **losses},
            "perceptual": {"features": "vgg19", "layers": ("conv5_4",), "factors": (1.0,), "criterion": "l1"},
            "optim": {"generator": dict(adam), "discriminator": dict(adam)},
            "ema": {"decay": 0.999},
            "every": {"log_images": 1_600, "sample_images": 80_000, "checkpoint_images": 80_000},
        }
    )
    if variant.endswith("smoke"):
        shrink(config)
    return config


def shrink(config: ConfigDict) -> None:
    """Makes a run of three steps of eight synthetic images of 16x16 with narrow networks and features of no file."""
    config.total_images, config.batch_size, config.grid = 24, 8, 4
    config.data.name, config.data.resolution, config.super_resolution.crop = "synthetic:16", 16, 8
    config.generator.update({"width": 4, "blocks": 1, "growth": 2})
    config.discriminator.update({"width": 2, "halvings": 2, "hidden": 4})
    config.perceptual.update({"features": "random_vgg19", "layers": ("conv1_2",)})
    config.every = {"log_images": 8, "sample_images": 16, "checkpoint_images": 8}
