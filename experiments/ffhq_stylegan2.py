"""StyleGAN2 (Karras et al. 2020, arXiv 1912.04958) on FFHQ: configurations E and F at 256, 512 and 1024 px.

    python launch.py train --config=ffhq_stylegan2:F --workdir=runs/ffhq_stylegan2
    python launch.py sample --workdir=runs/ffhq_stylegan2 --truncation=0.5 --out=faces

| | FID | time on 8 V100 | on 1 |
| --- | --- | --- | --- |
| E, 1024 px: half the features at high resolutions, R1 gamma 100 | 3.31 | 5 days 6 hours | 35 days 11 hours |
| F, 1024 px: R1 gamma 10 | 2.84 +- 0.03 | 9 days 18 hours | 69 days 23 hours |
| F, 256 px | | 4 days 18 hours | 32 days 13 hours |

FID and times, for 25 million images, are the authors' own; nothing of this size was trained here. E's path length, like
F's, is penalised every 4 steps with weight 2, and R1 every 16. Smaller images are made by averaging squares of pixels:
another filter changes FID by more than one (NVlabs/stylegan2-ada-pytorch, issue 283).

The images are a folder or a zip at `config.data.name`.
FID, which needs a file of weights (docs/metrics.md): `--config.evaluation.metrics="('fid50k_full',)"`.
"""

from ml_collections import ConfigDict

CONFIGS = {"E": (16384, 100.0), "F": (32768, 10.0)}  # features times resolution, weight of R1
RESOLUTIONS = ("256", "512", "1024")


def get_config(variant: str = "") -> ConfigDict:
    """Variants: E, F (the default), E_512, F_512, E_256, F_256; `smoke`, tiny and done in seconds."""
    letter, _, side = variant.partition("_")
    letter, side = letter or "F", side or "1024"
    if variant == "smoke":
        letter = "F"
    elif letter not in CONFIGS or side not in RESOLUTIONS:
        known = ", ".join([*CONFIGS, *(f"{name}_{n}" for n in RESOLUTIONS for name in CONFIGS)])
        raise ValueError(f"{variant!r}; expected one of {known} or smoke")
    config = stylegan2("folder:datasets/ffhq", resolution=int(side), channel_base=CONFIGS[letter][0])
    config.data.flip, config.data.filter = True, "box"
    config.loss.r1_gamma = CONFIGS[letter][1]
    if variant == "smoke":
        shrink(config)
    return config


def stylegan2(data: str, *, resolution: int, channel_base: int, batch_size: int = 32) -> ConfigDict:
    """Configuration F but for the number of features, in float32."""
    adam = {"name": "adam", "learning_rate": 2e-3, "b1": 0.0, "b2": 0.99, "eps": 1e-8}
    width = {"channel_base": channel_base, "channel_max": 512}
    mapping = {"latent_size": 512, "w_size": 512, "mapping_layers": 8, "mapping_lr_multiplier": 0.01}
    return ConfigDict(
        {
            "game": "style",
            "total_images": 25_000_000,
            "batch_size": batch_size,
            "data": {"name": data, "split": "train", "resolution": resolution, "channels": 3},
            "generator": {"name": "stylegan2", "architecture": "skip", **mapping, **width},
            "discriminator": {"name": "stylegan2", "architecture": "resnet", "mbstd_group": 4, **width},
            "loss": {"r1_gamma": 10.0}
            | {"path_length_weight": 2.0, "path_length_decay": 0.01, "path_length_shrink": 2},
            "style": {"mixing": 0.9},
            "optim": {"generator": dict(adam), "discriminator": dict(adam)},
            "ema": {"half_life_images": 10_000.0},
            "every": {"path_length_steps": 4, "penalty_steps": 16}
            | {"log_images": 4_000, "sample_images": 200_000, "checkpoint_images": 200_000},
            "evaluation": {"features": "none", "metrics": ()},
        }
    )


def shrink(config: ConfigDict) -> None:
    """Makes a run of three steps of eight images at 8 px with narrow players in float32, all phases in each."""
    config.data.name, config.data.split, config.data.resolution = "synthetic:16", "train", 8
    config.total_images, config.batch_size, config.grid = 24, 8, 4
    config.generator.latent_size = config.generator.w_size = 4
    config.generator.mapping_layers = 2
    for player in (config.generator, config.discriminator):
        player.channel_base, player.channel_max, player.num_bf16_res = 16, 4, 0
    config.every = {"path_length_steps": 1, "penalty_steps": 1}
    config.every.update({"log_images": 8, "sample_images": 16, "checkpoint_images": 8})
