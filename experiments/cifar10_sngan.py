"""SNGAN (Miyato et al. 2018, arXiv 1802.05957) on CIFAR-10: residual networks, spectral norm, hinge loss.

    python launch.py train --config=cifar10_sngan --workdir=runs/cifar10_sngan

| | FID | Inception score |
| --- | --- | --- |
| these settings, as trained by mimicry (50,000 samples) | 16.77 +- 0.04 | 7.97 +- 0.06 |
| `projection`: the same with labels, mimicry's cGAN-PD (Miyato and Koyama 2018, arXiv 1802.05637) | 10.84 +- 0.03 | 8.25 +- 0.13 |

100,000 updates of the generator with five of the discriminator each, Adam (0, .9) at 2e-4 that falls to zero along a line:
the settings of kwotsin/mimicry, whose figures these are. The paper's own are not given, as they were not checked against
it. Nothing of this size was trained here, and mimicry prints no time for it.

The set must have been prepared with TFDS.
FID, which needs a file of weights (docs/metrics.md): `--config.evaluation.metrics="('fid50k_full',)"`.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Variants: `projection`, with labels; `smoke`, tiny and done in seconds."""
    if variant not in ("", "projection", "smoke"):
        raise ValueError(f"{variant!r}; expected projection or smoke")
    adam = {"name": "adam", "learning_rate": 2e-4, "b1": 0.0, "b2": 0.9, "eps": 1e-8, "schedule": "linear"}
    config = ConfigDict(
        {
            "game": "unconditional",
            "conditional": variant == "projection",
            "total_images": 100_000 * 5 * 64,
            "batch_size": 64,
            "data": {"name": "tfds:cifar10", "split": "train", "resolution": 32, "channels": 3},
            "generator": {"name": "sngan", "latent_size": 128, "widths": (256, 256, 256)},
            "discriminator": {"name": "sngan", "widths": (128, 128, 128, 128), "halvings": 2},
            "loss": {"name": "hinge"},
            "optim": {"generator": adam, "discriminator": adam},
            "every": {"generator_steps": 5, "sample_images": 640_000, "checkpoint_images": 640_000},
            "evaluation": {"features": "none", "metrics": ()},
        }
    )
    if variant == "smoke":
        config.data.name, config.data.resolution = "synthetic:16", 8
        config.total_images, config.batch_size, config.grid = 24, 8, 4
        config.generator.widths, config.discriminator.widths, config.discriminator.halvings = (4,), (4, 4), 1
        config.every = {"generator_steps": 2, "log_images": 8, "sample_images": 16, "checkpoint_images": 8}
    return config
