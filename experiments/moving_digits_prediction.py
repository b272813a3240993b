"""Prediction of a digit that bounces through a black frame: of four frames the next four.

    python launch.py train --config=moving_digits_prediction --workdir=runs/moving_digits_prediction
    python launch.py evaluate --workdir=runs/moving_digits_prediction
    python launch.py sample --workdir=runs/moving_digits_prediction --seeds=0-15 --out=drawn

DVD-GAN-FP's players (Clark et al. 2019, arXiv 1907.06571), small, at 16 px: one recurrence at the frames' own size, whose
first state is made of the given frames. Beside the adversarial terms it has an L1 term. Held-out clips are predicted
and compared frame by frame, beside the last frame again and again (`copy_last`) and each pixel's line through the last two
(`linear`). `docs/reproduction.md` has the figures.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Variants: `smoke`, tiny and done in seconds."""
    if variant not in ("", "smoke"):
        raise ValueError(f"{variant!r}; expected smoke")
    adam = {"name": "adam", "b1": 0.0, "b2": 0.99, "clip_norm": 10.0}
    config = ConfigDict(
        {
            "game": "video_prediction",
            "total_images": 16_000,
            "batch_size": 16,
            "grid": 16,
            "data": {"name": "digits:moving", "resolution": 16, "channels": 1, "frames": 8},
            "generator": {
                "name": "dvdgan", "latent_size": 4, "widths": (16,), "still": 1, "blocks": 1, "spectral_norm": False,
            },
            "discriminator_frames": {"name": "dvdgan", "widths": (12, 32), "halvings": 2},
            "discriminator_clips": {"name": "dvdgan", "widths": (8, 16), "halvings": 2, "volumes": 2},
            "video": {"context": 4, "frames": 1, "shrink": 2},
            "loss": {"name": "hinge", "l1": 100.0},
            "optim": {
                "generator": {**adam, "learning_rate": 2e-3},
                "discriminator": {**adam, "learning_rate": 1e-3},
            },
            "ema": {"half_life_images": 1_000.0},
            "every": {"log_images": 1_600, "sample_images": 8_000, "checkpoint_images": 8_000},
            "evaluation": {"metrics": ("pooled_psnr", "l1", "ssim"), "samples": 500, "split": "test"},
        }
    )
    if variant == "smoke":
        shrink(config)
    return config


def shrink(config: ConfigDict) -> None:
    """Makes a run of three steps of eight clips with narrow players."""
    config.total_images, config.batch_size, config.grid = 24, 8, 4
    config.generator.widths, config.data.frames, config.video.context = (2,), 4, 2
    config.discriminator_frames.widths = config.discriminator_clips.widths = (2, 2)
    config.every = {"log_images": 8, "sample_images": 16, "checkpoint_images": 8}
    config.evaluation.samples = 64
