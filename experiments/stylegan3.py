"""StyleGAN3 (Karras et al. 2021, arXiv 2106.12423), configurations T and R, at 256, 512 and 1024 px.

    python launch.py train --config=stylegan3:t --workdir=runs/stylegan3_t
    python launch.py evaluate --workdir=runs/stylegan3_t --metrics=eqt,eqr

| | data | gamma of R1 | FID | EQ-T, EQ-R | s per 1000 images, 8 V100 |
| --- | --- | --- | --- | --- | --- |
| `t` | FFHQ, 1024 px | 32.8 | 2.79 | 61.21, 13.82 | 28.71 |
| `r` | FFHQ, 1024 px | 32.8 | 3.07 | 64.76, 46.62 | 34.12 |
| `t_512` | AFHQv2, with ADA | 8.2 | 4.04 | 60.15, 13.51 | 18.47 |
| `r_512` | AFHQv2, with ADA | 16.4 | 4.40 | 64.89, 40.34 | 20.44 |
| `t_256` | FFHQ-U, half the features | 1 | 4.62 | 63.01, 13.12 | 7.40 |
| `r_256` | FFHQ-U, half the features | 1 | 4.50 | 66.65, 40.48 | 6.71 |

Settings and times are those of docs/configs.md in NVlabs/stylegan3 for 25 million images, FID the authors' own; equivariance
in dB at 1024 and 512 px is from mmgeneration's tables. Nothing of this size was trained here. They compute the four highest
resolutions in float16 where this takes bfloat16. For other sets they advise gammas of 0.5, 2, 8 and 32 at 128, 256, 512 and
1024 px, and then 2 and 4 times as much and as little.

The images are a folder or a zip at `config.data.name`.
FID, which needs a file of weights (docs/metrics.md): `--config.evaluation.metrics="('fid50k_full',)"`.
"""

from ml_collections import ConfigDict

# variant: data, side, gamma, batch, features times resolution (the generator's doubled for R), rate of the discriminator
VARIANTS = {
    "t": ("folder:datasets/ffhq", 1024, 32.8, 32, 32768, 0.002),
    "r": ("folder:datasets/ffhq", 1024, 32.8, 32, 32768, 0.002),
    "t_512": ("folder:datasets/afhqv2/train", 512, 8.2, 32, 32768, 0.002),
    "r_512": ("folder:datasets/afhqv2/train", 512, 16.4, 32, 32768, 0.002),
    "t_256": ("folder:datasets/ffhq_u", 256, 1.0, 64, 16384, 0.0025),
    "r_256": ("folder:datasets/ffhq_u", 256, 1.0, 64, 16384, 0.0025),
}


def get_config(variant: str = "") -> ConfigDict:
    """Variants: t (the default), r, t_512, r_512, t_256, r_256; `smoke`, R tiny and done in seconds."""
    name = {"": "t", "smoke": "r"}.get(variant, variant)
    if name not in VARIANTS:
        raise ValueError(f"{variant!r}; expected one of {', '.join(VARIANTS)} or smoke")
    data, resolution, gamma, batch, base, rate = VARIANTS[name]
    adam = {"name": "adam", "b1": 0.0, "b2": 0.99, "eps": 1e-8}
    width = {"channel_base": base, "channel_max": 512, "conv_clamp": 256.0, "num_bf16_res": 4}
    config = ConfigDict(
        {
            "game": "style",
            "total_images": 25_000_000,
            "batch_size": batch,
            "data": {"name": data, "split": "train", "resolution": resolution, "channels": 3}
            | {"flip": True, "filter": "box"},
            "generator": {"name": "stylegan3", "latent_size": 512, "w_size": 512, "mapping_layers": 2, **width}
            | {"magnitude_ema_beta": 0.5 ** (batch / 20_000)},
            "discriminator": {"name": "stylegan3", "mbstd_group": 4, **width},
            "loss": {"r1_gamma": gamma, "path_length_weight": 0.0},
            "style": {"mixing": 0.0},
            "optim": {
                "generator": {**adam, "learning_rate": 0.0025},
                "discriminator": {**adam, "learning_rate": rate},
            },
            "ema": {"half_life_images": batch * 10_000 / 32, "rampup": 0.05},
            "every": {"penalty_steps": 16}
            | {"log_images": 4_000, "sample_images": 200_000, "checkpoint_images": 200_000},
            "evaluation": {"features": "none", "metrics": ()},
        }
    )
    if name.startswith("r"):
        make_rotatable(config)
    if name.endswith("512"):
        config.augment = {"name": "ada", "target": 0.6, "interval_steps": 4, "speed_images": 500_000.0}
    if variant == "smoke":
        shrink(config)
    return config


def make_rotatable(config: ConfigDict) -> None:
    """From T to R: 1x1 convolutions, twice the features, radial filters, a blur of what D sees that fades at first."""
    config.generator.kernel_size, config.generator.radial_filters = 1, True
    config.generator.channel_base *= 2
    config.generator.channel_max *= 2
    config.loss.blur_sigma = 10.0
    config.loss.blur_fade_images = config.batch_size * 200_000 // 32


def shrink(config: ConfigDict) -> None:
    """Makes a run of three steps of eight images at 8 px with three narrow layers in float32."""
    config.data.name, config.data.resolution = "synthetic:16", 8
    config.total_images, config.batch_size, config.grid = 24, 8, 4
    config.generator.latent_size = config.generator.w_size = 4
    config.generator.num_layers, config.generator.num_critical, config.generator.margin = 2, 1, 2
    for player in (config.generator, config.discriminator):
        player.channel_base, player.channel_max, player.num_bf16_res = 64, 4, 0
    config.loss.blur_sigma = 1.0
    config.every = {"log_images": 8, "sample_images": 16, "checkpoint_images": 8, "penalty_steps": 1}
