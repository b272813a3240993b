"""CycleGAN (Zhu et al. 2017, arXiv 1703.10593) on horses and zebras at 256 px, with the paper's values.

    python launch.py train --config=horse2zebra --workdir=runs/horse2zebra \\
        --config.data.parts.a.download=True --config.data.parts.b.download=True
    python launch.py train --config=horse2zebra:folder --workdir=runs/horse2zebra
    python launch.py sample --workdir=runs/horse2zebra --inputs=horse.jpg --out=zebra

Nine residual blocks, discriminators of 70x70 patches, batches of one image, 200 epochs of the larger set with learning
rates that fall to zero over the second half, images enlarged to 286 px and cut at random. FID from horses to zebras: 77.2
(Park et al. 2020, arXiv 2007.15651, table 1); nothing of this size was trained here. The data are those of TFDS, or of a
folder or zip at `config.data.parts.*.name` with trainA, trainB, testA and testB in it.
`--config.translation.direction=ba` turns zebras into horses in samples; both directions are trained in any case.
"""

from ml_collections import ConfigDict

EPOCH, EPOCHS = 1_334, 200  # images of the larger set


def get_config(variant: str = "") -> ConfigDict:
    """Variants: `folder`, data at datasets/horse2zebra; `smoke`, tiny and done in seconds."""
    if variant not in ("", "folder", "smoke"):
        raise ValueError(f"{variant!r}; expected folder or smoke")
    name = "folder:datasets/horse2zebra" if variant == "folder" else "tfds:cycle_gan/horse2zebra"
    config = cyclegan(name, images=EPOCHS * EPOCH)
    if variant == "smoke":
        shrink(config)
    return config


def cyclegan(data: str, *, images: int, resolution: int = 256, blocks: int = 9) -> ConfigDict:
    """The paper's settings for a set with the splits trainA, trainB, testA and testB."""
    adam = {"name": "adam", "learning_rate": 2e-4, "b1": 0.5, "b2": 0.999}
    adam |= {"schedule": "linear", "decay_begin_images": images // 2}
    look = {"name": data, "resolution": resolution, "channels": 3, "filter": "bicubic", "flip": True}
    return ConfigDict(
        {
            "game": "translation",
            "total_images": images,
            "batch_size": 1,
            "grid": 16,
            "data": {"parts": {"a": {**look, "split": "trainA"}, "b": {**look, "split": "trainB"}}},
            "translation": {"direction": "ab", "jitter": 30},
            "generator": {"name": "cyclegan", "width": 64, "blocks": blocks},
            "discriminator": {"name": "cyclegan", "width": 64, "layers": 3},
            "loss": {"cycle_a": 10.0, "cycle_b": 10.0, "identity": 0.5, "pool": 50},
            "optim": {"generators": dict(adam), "discriminators": dict(adam)},
            "every": {"log_images": 100, "sample_images": 5_000, "checkpoint_images": 5_000},
            "evaluation": {"features": "none", "metrics": (), "split": "testA,testB"},
        }
    )


def shrink(config: ConfigDict) -> None:
    """Makes a run of three steps of eight synthetic images with narrow players."""
    for part, split in (("a", "train"), ("b", "test")):
        config.data.parts[part].update({"name": "synthetic:16", "split": split, "resolution": 16})
    config.total_images, config.batch_size, config.grid, config.translation.jitter = 24, 8, 4, 2
    config.generator.width = config.discriminator.width = 4
    config.generator.blocks, config.discriminator.layers, config.loss.pool = 1, 1, 4
    for player in config.optim.values():
        player.schedule = "constant"
    config.every = {"log_images": 8, "sample_images": 16, "checkpoint_images": 8}
    config.evaluation.split = "test"
