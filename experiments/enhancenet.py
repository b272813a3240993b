"""EnhanceNet (Sajjadi et al. 2017, arXiv 1612.07919): pictures four times as large, with textures that look right.

    python launch.py train --config=enhancenet --workdir=runs/enhancenet --config.data.name=folder:PATH
    python launch.py train --config=enhancenet:pixel --workdir=runs/enhancenet_e --config.data.name=folder:PATH

The folder holds pictures of MSCOCO, whose central squares are resized to 256 pixels; squares of 128 are cut at random. This
is EnhanceNet-PAT: squared differences of VGG19's maps behind two pools, an adversary, and the products of channels in
squares of 16x16 pixels of three maps. All maps are divided by their means. It has no term of pixels, needs VGG19's
weights, see `docs/metrics_weights.md`, and lowers the signal-to-noise ratio, as it is meant to. `pixel` is EnhanceNet-E,
which has squared differences of pixels alone.

The paper holds its discriminator back where that is too good; here it learns at every step. The length is ours. Nothing
of this size was trained here.

Variants: `pixel`; `smoke` and `pixel_smoke`, tiny and done in seconds. Written without the paper or its code at hand.
"""

from ml_collections import ConfigDict

VARIANTS = ("", "pixel", "smoke", "pixel_smoke")


def get_config(variant: str = "") -> ConfigDict:
    """Variants: `pixel`; `smoke`, `pixel_smoke`."""
    if variant not in VARIANTS:
        raise ValueError(f"{variant!r}; expected one of {', '.join(filter(None, VARIANTS))}")
    is_pixel = variant.startswith("pixel")
    batch, steps = 32, 200_000
    adam = {"name": "adam", "learning_rate": 1e-4, "b1": 0.9, "b2": 0.999}
    losses = {"pixel": 0.0, "perceptual": 1.0, "texture": 1.0, "adversarial": 2.0}
    config = ConfigDict(
        {
            "game": "super_resolution",
            "total_images": batch * steps,
            "batch_size": batch,
            "grid": 16,
            "data": {"name": "folder:data/coco", "resolution": 256, "channels": 3, "flip": True},
            "super_resolution": {"crop": 128},
            "generator": {"name": "enhancenet", "scale": 4},
            "discriminator": {"name": "enhancenet"},
            "loss": {"name": "non_saturating", "criterion": "l2", **({"pixel": 1.0} if is_pixel else losses)},
            "perceptual": {
                "features": "vgg19",
                "layers": ("pool2", "pool5"),
                "factors": (0.2, 0.02),
                "textures": ("relu1_1", "relu2_1", "relu3_1"),
                "texture_factors": (3e-7, 1e-6, 1e-6),
                "patch": 16,
                "normalise": True,
                "criterion": "l2",
            },
            "optim": {"generator": dict(adam), "discriminator": dict(adam)},
            "ema": {"decay": 0.0},
            "every": {"log_images": 3_200, "sample_images": 160_000, "checkpoint_images": 160_000},
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
    config.discriminator.update({"width": 2, "halvings": 2, "hidden": 4})
    config.perceptual.update({"features": "random_vgg19", "layers": ("relu1_2",), "factors": (1.0,), "patch": 4})
    config.perceptual.update({"textures": ("relu1_1",), "texture_factors": (1e-6,)})
    config.every = {"log_images": 8, "sample_images": 16, "checkpoint_images": 8}
