"""R3GAN (Huang et al. 2024, arXiv 2501.05441), configuration E, on CIFAR-10, FFHQ and ImageNet.

    python launch.py train --config=r3gan:cifar10 --workdir=runs/r3gan

| | batch | GPUs | FID | parameters of G, D |
| --- | --- | --- | --- | --- |
| `cifar10`, with labels | 512 | 8 | 1.96 | 20.78, 21.28 million |
| `ffhq64` | 256 | 8 | 1.95 | 22.43, 22.38 million |
| `ffhq256` | 256 | 8 | 2.75 | 23.06, 23.01 million |
| `imagenet32`, with labels | 4096 | 32 | 1.27 | 82.91, 86.55 million |
| `imagenet64`, with labels | 4096 | 64 | 2.09 | 103.57, 107.21 million |

FID, batches and GPUs are the authors' own; nothing of this size was trained here. CIFAR-10 took them 4 days on 8 L40, for
250 million images; the lengths of the others' runs were not found, and those here are ten times their schedules or more.
Along one cosine fall the learning rate from 2e-4 to 5e-5 and the penalties to a tenth; beta2 rises from 0.9 to 0.99, and
the average's half-life and the probability of augmentation rise from 0. All resolutions but 4 px compute in bfloat16.

The images of FFHQ are a folder or a zip at `config.data.name`; the others must have been prepared with TFDS, whose small
ImageNet may have been made smaller in another way than the authors'.
FID, which needs a file of weights (docs/metrics.md): `--config.evaluation.metrics="('fid50k_full',)"`.
"""

from digits_dcgan import shrink
from ml_collections import ConfigDict

# variant: data, side, widths from 4 px on, batch, gamma of R1 and R2, half-life of the average, probability of
# augmentation, images of the schedule, images in all
VARIANTS = {
    "cifar10": ("tfds:cifar10", 32, (768,) * 4, 512, 0.05, 5e6, 0.55, 2e7, 250_000_000),
    "ffhq64": ("folder:datasets/ffhq", 64, (768,) * 4 + (384,), 256, 2.0, 5e5, 0.3, 2e7, 250_000_000),
    "ffhq256": ("folder:datasets/ffhq", 256, (768,) * 4 + (384, 192, 96), 256, 150.0, 5e5, 0.3, 2e7, 250_000_000),
    "imagenet32": ("tfds:imagenet_resized/32x32", 32, (1536,) * 4, 4096, 0.5, 5e7, 0.5, 2e8, 2_000_000_000),
    "imagenet64": ("tfds:imagenet_resized/64x64", 64, (1536,) * 5, 4096, 1.0, 5e7, 0.4, 2e8, 2_000_000_000),
}


def get_config(variant: str = "") -> ConfigDict:
    """Variants: cifar10 (the default), ffhq64, ffhq256, imagenet32, imagenet64; `smoke`, done in seconds."""
    name = "cifar10" if variant in ("", "smoke") else variant
    if name not in VARIANTS:
        raise ValueError(f"{variant!r}; expected one of {', '.join(VARIANTS)} or smoke")
    data, resolution, widths, batch, gamma, half_life, p, schedule, images = VARIANTS[name]
    adam = {"name": "adam", "learning_rate": 2e-4, "b1": 0.0, "b2": 0.9, "b2_final": 0.99, "eps": 1e-8}
    adam |= {"schedule": "cosine", "decay_images": schedule, "final_factor": 0.25}
    groups = tuple(2 * n // (32 if name.startswith("imagenet") else 16) for n in widths)  # of so many features
    net = {"name": "r3gan", "widths": widths, "cardinalities": groups, "num_bf16_res": len(widths) - 1}
    config = ConfigDict(
        {
            "game": "unconditional",
            "conditional": not name.startswith("ffhq"),
            "total_images": images,
            "batch_size": batch,
            "data": {"name": data, "split": "train", "resolution": resolution, "channels": 3}
            | {"flip": True, "filter": "box"},
            "generator": {**net, "latent_size": 64, "embed_size": 64},
            "discriminator": net,
            "loss": {"name": "relativistic", "r1_gamma": gamma, "r2_gamma": gamma}
            | {"penalty_decay_images": schedule, "penalty_final_factor": 0.1},
            "augment": {"name": "ada", "target": 0.0, "p": p, "growth_images": schedule}
            | dict.fromkeys(("brightness", "contrast", "lumaflip", "hue", "saturation"), 0.5)
            | {"cutout": 1.0},
            "optim": {"generator": adam, "discriminator": adam},
            "ema": {"half_life_images": half_life, "growth_images": schedule},
            "every": {"sample_images": 1_000_000, "checkpoint_images": 1_000_000, "log_images": 20_480},
            "evaluation": {"features": "none", "metrics": ()},
        }
    )
    if variant == "smoke":
        shrink(config, data="synthetic:16")
        config.data.resolution = 8
        for name in ("xflip", "rotate90", "xint", "scale", "rotate", "aniso", "xfrac"):  # slow to compile
            config.augment[name] = 0.0
        for player in (config.generator, config.discriminator):
            player.widths, player.cardinalities, player.blocks, player.num_bf16_res = (8, 4), (1, 1), (1, 1), 0
    return config
