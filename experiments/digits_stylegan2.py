"""StyleGAN2-ADA on scikit-learn's 1,797 handwritten digits at 32 px, on two CPU cores.

    python launch.py train --config=digits_stylegan2 --workdir=runs/digits_stylegan2
    python launch.py sample --workdir=runs/digits_stylegan2 --truncation=0.7 --out=digits

Karras et al. 2020 (arXiv 1912.04958) with the settings that StyleGAN2-ADA (arXiv 2006.06676) has for CIFAR-10, narrow:
two mapping layers, no style mixing, no path length penalty, residual discriminator, weak R1. The adaptive augmentation
leaves out what turns one digit into another or another shade: mirroring, quarter turns, and inverted brightness.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Variants: `path_length`, with style mixing and the penalty; `plain`, not augmented; `smoke`, done in seconds."""
    adam = {"name": "adam", "learning_rate": 2.5e-3, "b1": 0.0, "b2": 0.99, "eps": 1e-8}
    width = {"channel_base": 1024, "channel_max": 64}
    off = dict.fromkeys(("xflip", "rotate90", "rotate", "lumaflip", "hue", "saturation"), 0.0)
    config = ConfigDict(
        {
            "game": "style",
            "total_images": 96_000,
            "batch_size": 32,
            "data": {"name": "digits", "resolution": 32, "channels": 1},
            "generator": {"name": "stylegan2", "latent_size": 64, "w_size": 64, "mapping_layers": 2, **width},
            "discriminator": {"name": "stylegan2", **width},
            "loss": {"r1_gamma": 0.1, "path_length_weight": 0.0},
            "style": {"mixing": 0.0},
            "augment": {"name": "ada", "speed_images": 100_000.0, **off},
            "optim": {"generator": adam, "discriminator": adam},
            "ema": {"half_life_images": 10_000.0, "rampup": 0.05},
            "every": {"log_images": 3_200, "sample_images": 16_000, "checkpoint_images": 16_000},
            "evaluation": {"features": "digits_classifier", "metrics": ("fd", "kd", "prdc", "classes")},
        }
    )
    if variant in ("path_length", "smoke"):
        config.loss.path_length_weight, config.style.mixing = 2.0, 0.9
    if variant in ("plain", "smoke"):
        config.augment = {"name": "none"}
    if variant == "smoke":
        shrink(config)
    elif variant not in ("", "path_length", "plain"):
        raise ValueError(f"{variant!r}; expected path_length, plain or smoke")
    return config


def shrink(config: ConfigDict) -> None:
    """Makes a run of three steps of eight images at 8 px with narrow players."""
    config.data.resolution = 8
    config.total_images, config.batch_size, config.grid = 24, 8, 4
    config.generator.latent_size = config.generator.w_size = 8
    for player in (config.generator, config.discriminator):
        player.channel_base, player.channel_max = 128, 8
    config.every = {"log_images": 8, "sample_images": 16, "checkpoint_images": 8, "path_length_steps": 2, "penalty_steps": 2}
    config.evaluation.samples = 64
