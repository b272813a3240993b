"""BigGAN with DiffAugment (Zhao et al. 2020, arXiv 2006.10738) on CIFAR-10, all of it, a fifth or a tenth.

    python launch.py train --config=cifar10_biggan:10 --workdir=runs/cifar10_biggan_10

| | images | FID without augmentation | with translation and cutout |
| --- | --- | --- | --- |
| `all` (the default), `baseline` | 50,000 | 9.59 | 8.70 |
| `20`, `baseline_20` | 10,000 | 21.58 | 14.04 |
| `10`, `baseline_10` | 5,000 | 39.78 | 22.40 |

The figures are the authors' (mit-han-lab/data-efficient-gans): 10,000 samples against the test images. One run took them
about a day on two GPUs; nothing of this size was trained here. The settings are those of their scripts: batches of 50, four
updates of the discriminator for each of the generator, Adam (0, .999) at 2e-4 for both, hinge loss, weights from
N(0, .02), mirrored images, 1,000 passes over all images or 5,000 over a part, and an average of the generator with the decay
.9999. Theirs begins after 1,000 updates; here its half-life rises to the same value over them. Their parts are drawn at
random; here they are the first images.

The set must have been prepared with TFDS.
FID, which needs a file of weights (docs/metrics.md): `--config.evaluation.metrics="('fid10k',)"`.
"""

from ml_collections import ConfigDict

SPLITS = {"all": ("train", 1_000 * 50_000), "20": ("train[:20%]", 5_000 * 10_000), "10": ("train[:10%]", 5_000 * 5_000)}
VARIANTS = ("all", "20", "10", "baseline", "baseline_20", "baseline_10", "smoke")


def get_config(variant: str = "") -> ConfigDict:
    """Variants: those of the table; `smoke`, tiny and done in seconds."""
    variant = variant or "all"
    if variant not in VARIANTS:
        raise ValueError(f"{variant!r}; expected {', '.join(VARIANTS[:-1])} or smoke")
    split, images = SPLITS.get(variant.removeprefix("baseline").strip("_"), SPLITS["all"])
    adam = {"name": "adam", "learning_rate": 2e-4, "b1": 0.0, "b2": 0.999, "eps": 1e-8}
    config = ConfigDict(
        {
            "game": "unconditional",
            "conditional": True,
            "total_images": images,
            "batch_size": 50,
            "data": {"name": "tfds:cifar10", "split": split, "resolution": 32, "channels": 3, "flip": True},
            "generator": {"name": "biggan", "latent_size": 128, "width": 64}
            | {"shared_size": 0, "skip_z": False, "initializer": "normal"},
            "discriminator": {"name": "biggan", "width": 64, "initializer": "normal"},
            "loss": {"name": "hinge"},
            "augment": {"name": "diffaugment", "policy": ("translation", "cutout")},
            "optim": {"generator": dict(adam), "discriminator": dict(adam)},
            # .9999 an update of the generator, of 4 * 50 images: 200 * log(1 / 2) / log(.9999)
            "ema": {"half_life_images": 1_386_225.0, "growth_images": 1_000 * 200.0},
            "every": {"generator_steps": 4, "sample_images": 800_000, "checkpoint_images": 800_000},
            "evaluation": {"features": "none", "metrics": (), "split": "test"},
        }
    )
    if variant.startswith("baseline"):
        config.augment = {"name": "none"}
    if variant == "smoke":
        config.data.name, config.data.resolution, config.evaluation.split = "synthetic:16", 8, "train"
        config.total_images, config.batch_size, config.grid = 24, 8, 4
        config.generator.latent_size, config.generator.widths = 8, (4,)
        config.discriminator.widths, config.discriminator.halvings = (4, 4), 1
        config.every = {"generator_steps": 2, "log_images": 8, "sample_images": 16, "checkpoint_images": 8}
    return config
