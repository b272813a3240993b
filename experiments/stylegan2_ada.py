"""StyleGAN2-ADA (Karras et al. 2020, arXiv 2006.06676): the authors' base configurations.

    python launch.py train --config=stylegan2_ada:auto_512_8gpu --workdir=runs/ada \\
        --config.data.name=folder:datasets/mine

| | what it reproduces | FID | s per 1000 images, 8 V100 |
| --- | --- | --- | --- |
| `stylegan2` | FFHQ at 1024 px, config F of StyleGAN2, not augmented | 2.84 | 17.55 |
| `paper256` | FFHQ at 256 px, 140,000 images with their mirrored ones | 3.81 | 4.01 |
| `paper512` | AFHQ and BreCaHAD at 512 px; here AFHQ's dogs | 7.40 | 9.11 |
| `paper1024` | MetFaces at 1024 px, there from a network for FFHQ, here afresh | 18.22 | 18.56 |
| `cifar` | CIFAR-10 with labels, tuned; 2 devices | 2.42 | |
| `auto` | nothing: a first guess for a new set, by resolution and number of devices | | 4.4 to 5.5 at 256 px |

FID and times are the authors' own (README of NVlabs/stylegan2-ada-pytorch, docs/configs.md of NVlabs/stylegan3); nothing
of this size was trained here. They compute the four highest resolutions in float16 where this takes bfloat16. FFHQ at 256
px must be made by averaging squares of pixels. A base configuration says nothing of the data, of mirroring or of labels:
those here are the ones of the results above. MetFaces from another run's networks, imported ones too:
`paper1024` with --config.transfer.workdir=RUN and --config.augment.speed_images=100_000.

Folders and zips are looked for at `config.data.name`; CIFAR-10 must have been prepared with TFDS.
FID, which needs a file of weights (docs/metrics.md): `--config.evaluation.metrics="('fid50k_full',)"`.
"""

from ffhq_stylegan2 import shrink, stylegan2
from ml_collections import ConfigDict

# images, batch, minibatch stddev's group, width, learning rate, gamma of R1, half-life of the average, its ramp, mapping
PRESETS = {
    "stylegan2": (25_000_000, 32, 4, 1.0, 0.002, 10.0, 10_000.0, 0.0, 8),
    "paper256": (25_000_000, 64, 8, 0.5, 0.0025, 1.0, 20_000.0, 0.0, 8),
    "paper512": (25_000_000, 64, 8, 1.0, 0.0025, 0.5, 20_000.0, 0.0, 8),
    "paper1024": (25_000_000, 32, 4, 1.0, 0.002, 2.0, 10_000.0, 0.0, 8),
    "cifar": (100_000_000, 64, 32, 1.0, 0.0025, 0.01, 500_000.0, 0.05, 2),
}
DATA = {  # its name, side in pixels, whether images are mirrored
    "stylegan2": ("folder:datasets/ffhq", 1024, True),
    "paper256": ("folder:datasets/ffhq", 256, True),
    "paper512": ("folder:datasets/afhq/train/dog", 512, True),
    "paper1024": ("folder:datasets/metfaces", 1024, True),
    "cifar": ("tfds:cifar10", 32, False),
}
AUTO = {f"auto_{side}_{devices}gpu": (side, devices) for side in (128, 256, 512, 1024) for devices in (1, 2, 4, 8)}


def auto(resolution: int, devices: int) -> tuple:
    """A row of `PRESETS` for images of this side on so many devices."""
    batch = max(min(devices * min(4096 // resolution, 32), 64), devices)
    width, rate = (1.0 if resolution >= 512 else 0.5), (0.002 if resolution >= 1024 else 0.0025)
    gamma = 0.0002 * resolution**2 / batch
    return 25_000_000, batch, min(batch // devices, 4), width, rate, gamma, batch * 10_000 / 32, 0.05, 2


def get_config(variant: str = "") -> ConfigDict:
    """Variants: `auto` (the default, auto_256_1gpu), others as auto_512_8gpu; those of the table; `smoke`, a tiny `cifar`."""
    preset = "cifar" if variant == "smoke" else variant
    if preset in PRESETS:
        data, resolution, flip = DATA[preset]
        config = build(data, resolution, PRESETS[preset])
        config.data.flip = flip
    elif variant in ("", "auto", *AUTO):
        resolution, devices = AUTO.get(variant, (256, 1))
        config = build("folder:datasets/mine", resolution, auto(resolution, devices))
    else:
        raise ValueError(f"{variant!r}; expected auto, {', '.join(AUTO)}, {', '.join(PRESETS)} or smoke")
    if variant != "stylegan2":
        config.augment = {"name": "ada", "target": 0.6, "interval_steps": 4, "speed_images": 500_000.0}
    if preset == "cifar":
        tune_for_cifar(config)
    if variant == "smoke":
        shrink(config)
        for name in ("xflip", "rotate90", "xint", "scale", "rotate", "aniso", "xfrac"):  # slow to compile
            config.augment[name] = 0.0
    return config


def build(data: str, resolution: int, preset: tuple) -> ConfigDict:
    """StyleGAN2 with the numbers of a preset."""
    images, batch, group, width, rate, gamma, half_life, rampup, mapping = preset
    config = stylegan2(data, resolution=resolution, channel_base=int(width * 32768), batch_size=batch)
    config.total_images = images
    config.data.filter = "box"
    config.generator.mapping_layers = mapping
    config.discriminator.mbstd_group = group
    config.loss.r1_gamma = gamma
    config.ema = {"half_life_images": half_life, "rampup": rampup}
    for player in ("generator", "discriminator"):
        config.optim[player].learning_rate = rate
        config[player].conv_clamp, config[player].num_bf16_res = 256.0, 4
    return config


def tune_for_cifar(config: ConfigDict) -> None:
    """No path length, no style mixing, a discriminator without shortcuts; labels."""
    config.conditional = True
    config.discriminator.architecture = "orig"
    config.loss.path_length_weight, config.style.mixing = 0.0, 0.0
    # The authors correct the generator's optimizer for a path length every 4 steps, of weight 0 though it is.
    config.optim.generator.learning_rate *= 4 / 5
    config.optim.generator.b2 **= 4 / 5
