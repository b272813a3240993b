"""Super-resolution of faces, from 6 to 24 pixels, in two stages; the data ship with scikit-image.

    python launch.py train --config=faces_superres:pixel --workdir=runs/faces_pixel
    python launch.py train --config=faces_superres --workdir=runs/faces --config.transfer.workdir=runs/faces_pixel
    python launch.py evaluate --workdir=runs/faces
    python launch.py sample --workdir=runs/faces --seeds=0-19 --out=faces

80 grey faces of Labeled Faces in the Wild train, 20 others are held out: their central 24 pixels, and these made small by
MATLAB's cubic. MSRGAN's generator learns by an L1 loss first (`pixel`). Then it has the adversary of Real-ESRGAN (Wang et
al. 2021, arXiv 2107.10833), whose kernels are divided by their spectral norms, and no perceptual term, so that no file of
weights is needed. `evaluate` compares with the right faces, beside the cubic's enlargement: the first stage is nearer to
them by PSNR, the second sharper than the first, and far from the real ones. `docs/reproduction.md` has the figures.

Variants: `pixel`, the first stage; `smoke` and `pixel_smoke`, tiny and done in seconds.
"""

from ml_collections import ConfigDict

VARIANTS = ("", "pixel", "smoke", "pixel_smoke")


def get_config(variant: str = "") -> ConfigDict:
    """Variants: `pixel`; `smoke`, `pixel_smoke`."""
    if variant not in VARIANTS:
        raise ValueError(f"{variant!r}; expected one of {', '.join(filter(None, VARIANTS))}")
    is_pixel = variant.startswith("pixel")
    adam = {"name": "adam", "learning_rate": 3e-4, "b1": 0.5, "b2": 0.99}
    pixel_adam = {"learning_rate": 1e-3, "b1": 0.9, "schedule": "cosine"}
    config = ConfigDict(
        {
            "game": "super_resolution",
            "total_images": 8_000 if is_pixel else 9_600,
            "batch_size": 16,
            "grid": 20,
            "data": {"name": "faces", "resolution": 24, "crop_size": 24, "channels": 1, "flip": True},
            "generator": {"name": "msrgan", "scale": 4, "width": 32, "blocks": 4},
            "discriminator": {"name": "real_esrgan", "width": 16},
            "loss": {"name": "non_saturating", "pixel": 1.0, "adversarial": 0.0 if is_pixel else 0.02},
            "optim": {
                "generator": adam | (pixel_adam if is_pixel else {}),
                "discriminator": adam | {"learning_rate": 1e-3},
            },
            "ema": {"half_life_images": 1_000.0 if is_pixel else 400.0},
            "every": {"log_images": 1_600, "sample_images": 1_600, "checkpoint_images": 1_600},
            "evaluation": {"metrics": ("psnr", "ssim", "sharpness"), "samples": 20, "split": "test"},
        }
    )
    if variant.endswith("smoke"):
        shrink(config)
    return config


def shrink(config: ConfigDict) -> None:
    """Makes a run of three steps of eight faces of 16x16 with narrow networks."""
    config.total_images, config.batch_size, config.grid = 24, 8, 4
    config.data.resolution = config.data.crop_size = 16
    config.generator.update({"width": 4, "blocks": 1})
    config.discriminator.width = 2
    config.every = {"log_images": 8, "sample_images": 16, "checkpoint_images": 8}
    config.evaluation.samples = 16
