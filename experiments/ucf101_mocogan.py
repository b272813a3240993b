"""MoCoGAN on UCF-101 (Tulyakov et al. 2018, arXiv 1707.04993): 101 kinds of human actions, 16 frames of 64 px.

    python launch.py train --config=ucf101_mocogan --workdir=runs/ucf101_mocogan
    python launch.py evaluate --workdir=runs/ucf101_mocogan

Networks and numbers are the authors' code's: a content of 50 entries, 6 categories that the discriminator of clips is to
tell, a motion of 10; DCGAN's layers of 64 to 512 features; a discriminator of patches of one frame, and one of clips;
cross-entropy; Adam of 2e-4 with (.5, .999) and 1e-5 of L2; 100,000 steps of 32 clips of every fourth frame. TFDS prepares the
set with ffmpeg: `--config.data.download=True`. The paper's inception score,
by a C3D network, is 12.42; this figure and the deviation of the noise are from memory.

Variants: `labels`, where the categories are the kinds of action of the data.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Variants: `labels`, `smoke`, tiny and done in seconds."""
    if variant not in ("", "labels", "smoke"):
        raise ValueError(f"{variant!r}; expected labels or smoke")
    adam = {"name": "adam", "learning_rate": 2e-4, "b1": 0.5, "b2": 0.999, "l2": 1e-5}
    config = ConfigDict(
        {
            "game": "video",
            "conditional": variant == "labels",
            "total_images": 3_200_000,
            "batch_size": 32,
            "grid": 16,
            "data": {
                "name": "tfds:ucf101/ucf101_1_256", "resolution": 64, "channels": 3, "frames": 16, "frame_step": 4,
            },
            "generator": {"name": "mocogan", "content": 50, "categories": 6, "motion": 10, "width": 64},
            "discriminator_frames": {"name": "mocogan", "width": 64, "noise": 0.1},
            "discriminator_clips": {"name": "mocogan", "width": 64, "window": 4, "categories": 6, "noise": 0.1},
            "video": {"frames": 1},
            "loss": {"name": "non_saturating", "classes": 1.0},
            "optim": {"generator": dict(adam), "discriminator": dict(adam)},
            "every": {"log_images": 3_200, "sample_images": 64_000, "checkpoint_images": 64_000},
        }
    )
    if variant == "smoke":
        shrink(config)
    return config


def shrink(config: ConfigDict) -> None:
    """Makes a run of three steps of eight clips of bouncing digits, with narrow players."""
    config.total_images, config.batch_size, config.grid = 24, 8, 4
    config.data = {"name": "digits:moving", "resolution": 16, "channels": 1, "frames": 4, "flip": True}
    config.generator.width = config.discriminator_frames.width = config.discriminator_clips.width = 4
    config.discriminator_frames.layers = config.discriminator_clips.layers = 1
    config.discriminator_clips.window = 2
    config.every = {"log_images": 8, "sample_images": 16, "checkpoint_images": 8}
