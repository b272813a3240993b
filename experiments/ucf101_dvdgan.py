"""DVD-GAN on UCF-101 (Clark et al. 2019, arXiv 1907.06571), compact: 16 frames of 128 px, by their kind of action.

    python launch.py train --config=ucf101_dvdgan --workdir=runs/ucf101_dvdgan
    python launch.py evaluate --workdir=runs/ucf101_dvdgan

The paper's game: hinge with projection, spectral norm of every weight, orthogonal matrices at first, two steps of both
discriminators for one of the generator, Adam with (0, .999) at 1e-4 and 5e-4; one discriminator sees 8 frames, the other one
all, at half of the size; an average of the generator with .9999. Features are an eighth to a quarter of the paper's, without
self-attention, and a batch has 64 clips instead of 512. TFDS prepares the set with ffmpeg: `--config.data.download=True`.
The paper was not at hand: its values, and its inception score by a C3D network, 32.97, are from memory.

Variants: `prediction`, DVD-GAN-FP: of 5 frames the 11 next ones, without labels and with an L1 term that the paper does not have.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Variants: `prediction`, `smoke`, tiny and done in seconds."""
    if variant not in ("", "prediction", "smoke"):
        raise ValueError(f"{variant!r}; expected prediction or smoke")
    adam = {"name": "adam", "b1": 0.0, "b2": 0.999}
    config = ConfigDict(
        {
            "game": "video",
            "conditional": variant != "prediction",
            "total_images": 19_200_000,
            "batch_size": 64,
            "grid": 16,
            "data": {"name": "tfds:ucf101/ucf101_1_256", "resolution": 128, "channels": 3, "frames": 16, "flip": True},
            "generator": {"name": "dvdgan", "widths": (512, 256, 128, 64, 32)},
            "discriminator_frames": {"name": "dvdgan", "widths": (32, 64, 128, 256, 512, 512), "halvings": 5},
            "discriminator_clips": {
                "name": "dvdgan", "widths": (32, 64, 128, 256, 512), "halvings": 4, "volumes": 2,
            },
            "video": {"frames": 8, "shrink": 2},
            "loss": {"name": "hinge"},
            "optim": {
                "generator": {**adam, "learning_rate": 1e-4},
                "discriminator": {**adam, "learning_rate": 5e-4},
            },
            "ema": {"decay": 0.9999},
            "every": {
                "generator_steps": 2, "log_images": 6_400, "sample_images": 128_000, "checkpoint_images": 128_000,
            },
        }
    )
    if variant == "prediction":
        config.game, config.video.context, config.loss.l1 = "video_prediction", 5, 10.0
    if variant == "smoke":
        shrink(config)
    return config


def shrink(config: ConfigDict) -> None:
    """Makes a run of three steps of eight clips of bouncing digits, with narrow players."""
    config.total_images, config.batch_size, config.grid = 24, 8, 4
    config.data = {"name": "digits:moving", "resolution": 16, "channels": 1, "frames": 4}
    config.generator = {"name": "dvdgan", "widths": (2,), "latent_size": 4, "embed_size": 2}
    for net in (config.discriminator_frames, config.discriminator_clips):
        net.widths, net.halvings = (2, 2), 2
    config.video.frames = 2
    config.every.log_images, config.every.sample_images, config.every.checkpoint_images = 8, 16, 8
