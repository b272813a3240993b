"""SRGAN (Ledig et al. 2017, arXiv 1609.04802): pictures four times as large, in two stages.

    python launch.py train --config=div2k_srgan:pixel --workdir=runs/srresnet --config.data.name=folder:PATH
    python launch.py train --config=div2k_srgan --workdir=runs/srgan --config.data.name=folder:PATH \\
        --config.transfer.workdir=runs/srresnet

The folder is that of `div2k_esrgan.py`; the paper took 350 thousand pictures of ImageNet. Squares of 96 pixels are cut
at random. The first stage, SRResNet, has squared differences alone. The second has those of VGG19's maps and a
discriminator. It needs VGG19's weights, see `docs/metrics_weights.md`, and lowers the signal-to-noise ratio, as it is
meant to. The paper's maps are scaled by 1 / 12.75, which is the weight 0.006. Its learning rate is 1e-4 for 100,000
steps and 1e-5 for as many; here it falls along a line in the second half. `gan_jax/models/srgan.py` says how the
networks differ from the paper's.

Nothing of this size was trained here.

Variants: `pixel`, the first stage; `smoke` and `pixel_smoke`, tiny and done in seconds. Source: section 3.2 of the
paper.
"""

from ml_collections import ConfigDict

VARIANTS = ("", "pixel", "smoke", "pixel_smoke")


def get_config(variant: str = "") -> ConfigDict:
    """Variants: `pixel`; `smoke`, `pixel_smoke`."""
    if variant not in VARIANTS:
        raise ValueError(f"{variant!r}; expected one of {', '.join(filter(None, VARIANTS))}")
    is_pixel = variant.startswith("pixel")
    batch, steps = 16, 1_000_000 if is_pixel else 200_000
    adam = {"name": "adam", "b1": 0.9, "b2": 0.999, "learning_rate": 1e-4}
    if not is_pixel:
        adam |= {"schedule": "linear", "decay_begin_images": batch * steps // 2, "final_factor": 0.1}
    losses = {"pixel": 1.0} if is_pixel else {"pixel": 0.0, "perceptual": 0.006, "adversarial": 1e-3}
    config = ConfigDict(
        {
            "game": "super_resolution",
            "total_images": batch * steps,
            "batch_size": batch,
            "grid": 16,
            "data": {"name": "folder:data/div2k_squares", "resolution": 480, "channels": 3},
            "super_resolution": {"crop": 96},
            "generator": {"name": "srgan", "scale": 4},
            "discriminator": {"name": "srgan"},
            "loss": {"name": "non_saturating", "criterion": "l2", **losses},
            "perceptual": {"features": "vgg19", "layers": ("relu5_4",), "factors": (1.0,), "criterion": "l2"},
            "optim": {"generator": dict(adam), "discriminator": dict(adam)},
            "ema": {"decay": 0.0},
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
    config.generator.update({"width": 4, "blocks": 1})
    config.discriminator.update({"features": (2, 4), "hidden": 4})
    config.perceptual.update({"features": "random_vgg19", "layers": ("relu1_2",)})
    for player in config.optim.values():
        player.update({"schedule": "constant", "decay_begin_images": 0})
    config.every = {"log_images": 8, "sample_images": 16, "checkpoint_images": 8}
