"""StyleGAN (Karras et al. 2019, arXiv 1812.04948) on FFHQ at 1024 px: the paper's configurations A to F.

    python launch.py train --config=ffhq_stylegan:F --workdir=runs/ffhq_stylegan
    python launch.py sample --workdir=runs/ffhq_stylegan --truncation=0.7,8 --out=faces

| | what it adds | FID |
| --- | --- | --- |
| A | ProGAN, WGAN-GP, 12 million images | 8.04 |
| B | bilinear resampling, non-saturating loss with R1, growth from 8 px, 25 million images | |
| C | mapping network and styles | |
| D | a learned constant in place of the input from w | |
| E | noise | |
| F | style mixing | 4.40 |

The two FID are the paper's table 1; those of B to E were not checked against a source and are left out. The authors'
time for 25 million images at 1024 px on V100: 6 days 14 hours on 8, 41 days on 1. Nothing of this size was trained here.
Adam, rates and batch sizes are those of ProGAN on 8 devices; A differs from `celebahq_progan.py` by the images alone. The
authors' schedule moves once in four steps of each player, ours at every step.

The images are a folder or a zip at `config.data.name`.
FID, which needs a file of weights (docs/metrics.md): `--config.evaluation.metrics="('fid50k_full',)"`.
"""

from celebahq_progan import progan, schedule, shrink
from ml_collections import ConfigDict

DATA = "folder:datasets/ffhq"

# What B to E leave out of the generator.
WITHOUT = {
    "B": {"styles": False, "instance_norm": False, "mapping_layers": 0, "const_input": False, "noise": False},
    "C": {"const_input": False, "noise": False},
    "D": {"noise": False},
    "E": {},
    "F": {},
}


def get_config(variant: str = "") -> ConfigDict:
    """Variants: A, B, C, D, E, F (the default); `smoke`, tiny and done in seconds."""
    if variant not in ("", "smoke", "A", *WITHOUT):
        raise ValueError(f"{variant!r}; expected A, B, C, D, E, F or smoke")
    config = progan(DATA, resolution=1024, devices=8, flip=True)
    if variant != "A":
        upgrade(config, variant if variant in WITHOUT else "F")
    if variant == "smoke":
        shrink(config)
        config.growth.initial_resolution = 8  # `celebahq_progan.py:smoke` grows
        config.generator.w_size = config.generator.mapping_features = 4
        config.generator.mapping_layers = 2
    return config


def upgrade(config: ConfigDict, letter: str) -> None:
    """From configuration A to a later one."""
    net = {"name": "stylegan1", "feature_base": 8192, "feature_max": 512, "blur": (1.0, 2.0, 1.0)}
    config.total_images = 25_000_000
    config.generator = {
        **net,
        "latent_size": 512,
        "w_size": 512,
        "mapping_layers": 8,
        "mapping_features": 512,
        "mapping_lr_multiplier": 0.01,
        "w_avg_beta": 0.995,
        "pixel_norm": letter == "B",
        **WITHOUT[letter],
    }
    config.discriminator = {**net, "stddev_group": 4}
    config.loss = {"name": "non_saturating", "gradient_penalty": 0.0, "drift": 0.0, "r1_gamma": 10.0}
    config.loss.style_mixing = 0.9 if letter == "F" else 0.0
    config.growth = {"initial_resolution": 8, **schedule(8)}
    config.ema = {"half_life_images": 10_000.0}
