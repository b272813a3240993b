"""ProGAN (Karras et al. 2018, arXiv 1710.10196) on CelebA-HQ at 128 to 1024 px.

    python launch.py train --config=celebahq_progan:1024_8gpu --workdir=runs/celebahq_progan

Settings are those of the authors' TensorFlow code, preset v2: 600 + 600 thousand images a resolution, 12 million in all,
batch sizes and learning rates by resolution and number of devices. Their own times on V100 for 1024 px: 2 weeks on 1,
1 week on 2, 3 days on 4, 2 days on 8.

| | FID |
| --- | --- |
| 1024 px | 7.30; 7.79 as measured in the StyleGAN paper |
| 256 px | 8.03 |

The figures are from the tables of later papers, not from runs here: nothing of this size was trained here. The authors'
schedule moves once in four steps of each player, ours at every step.

The set must have been prepared with TFDS.
FID, which needs a file of weights (docs/metrics.md): `--config.evaluation.metrics="('fid50k_full',)"`.
"""

from ml_collections import ConfigDict

RESOLUTIONS = ("128", "256", "512", "1024")

# By number of devices: batch size where the resolution has none of its own, those by resolution, and learning rates
# by resolution as factors of 1e-3.
SCHEDULES = {
    1: (4, ((4, 128), (8, 128), (16, 128), (32, 64), (64, 32), (128, 16), (256, 8), (512, 4)), ((1024, 1.5),)),
    2: (8, ((4, 256), (8, 256), (16, 128), (32, 64), (64, 32), (128, 16)), ((512, 1.5), (1024, 2.0))),
    4: (16, ((4, 512), (8, 256), (16, 128), (32, 64), (64, 32)), ((256, 1.5), (512, 2.0), (1024, 3.0))),
    8: (32, ((4, 512), (8, 256), (16, 128), (32, 64), (64, 32)), ((128, 1.5), (256, 2.0), (512, 3.0), (1024, 3.0))),
}


def get_config(variant: str = "") -> ConfigDict:
    """Variants: 128, 256, 512, 1024 (the default), each with _2gpu, _4gpu or _8gpu; `smoke`, done in seconds."""
    resolution, _, devices = variant.partition("_")
    if variant == "smoke":
        config = progan("synthetic:16", resolution=8)
        shrink(config)
        return config
    resolution, devices = resolution or "1024", devices or "1gpu"
    if resolution not in RESOLUTIONS or devices not in [f"{n}gpu" for n in SCHEDULES]:
        raise ValueError(f"{variant!r}; expected one of {', '.join(RESOLUTIONS)}, with _2gpu, _4gpu, _8gpu, or smoke")
    return progan(f"tfds:celeb_a_hq/{resolution}", resolution=int(resolution), devices=int(devices[0]), flip=True)


def progan(data: str, *, resolution: int, devices: int = 1, flip: bool = False) -> ConfigDict:
    """What the paper's experiments share."""
    adam = {"name": "adam", "learning_rate": 1e-3, "b1": 0.0, "b2": 0.99, "eps": 1e-8}
    net = {"name": "progan", "feature_base": 8192, "feature_max": 512}
    limits = ((256, 16), (512, 8), (1024, 4))
    return ConfigDict(
        {
            "game": "progressive",
            "total_images": 12_000_000,
            "batch_size": SCHEDULES[devices][0],
            "data": {"name": data, "split": "train", "resolution": resolution, "channels": 3, "flip": flip},
            "generator": {**net, "latent_size": 512},
            "discriminator": {**net, "stddev_group": 4},
            "loss": {"name": "wasserstein", "gradient_penalty": 10.0, "gradient_target": 1.0, "drift": 1e-3},
            "growth": {"initial_resolution": 4, "device_batch_limits": limits, **schedule(devices)},
            "optim": {"generator": adam, "discriminator": adam},
            "ema": {"decay": 0.999},
            "every": {"log_images": 10_000, "sample_images": 600_000, "checkpoint_images": 200_000},
            "evaluation": {"features": "none", "metrics": ()},
        }
    )


def schedule(devices: int) -> dict:
    """The part of `growth` that depends on the number of devices, and how long each resolution takes."""
    _, batch_sizes, rates = SCHEDULES[devices]
    lengths = {"training_images": 600_000, "transition_images": 600_000}
    return {**lengths, "batch_sizes": batch_sizes, "learning_rates": rates, "devices": devices}


def shrink(config: ConfigDict) -> None:
    """Makes a run of three steps of eight images from 4 to 8 px, which fades from the second on."""
    config.data.name, config.data.split, config.data.resolution = "synthetic:16", "train", 8
    config.total_images, config.batch_size, config.grid = 24, 8, 4
    for net in (config.generator, config.discriminator):
        net.feature_base, net.feature_max = 16, 4
    config.generator.latent_size = 4
    config.growth = {"initial_resolution": 4, "training_images": 0, "transition_images": 64}
    config.every = {"log_images": 8, "sample_images": 16, "checkpoint_images": 8}
