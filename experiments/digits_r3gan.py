"""R3GAN (Huang et al. 2024, arXiv 2501.05441) on scikit-learn's 1,797 handwritten digits at 16 px.

    python launch.py train --config=digits_r3gan --workdir=runs/digits_r3gan

The recipe of the authors' CIFAR-10 run, narrowed to what two CPU cores train in a quarter of an hour: relativistic loss
with R1 and R2 at every step, Adam without momentum, and along one cosine a falling learning rate and penalty, a rising
beta2, half-life of the average and probability of augmentation. A run of 2,000 steps needs a higher rate than the
authors' 2e-4. Digits are neither mirrored, turned nor recoloured.
"""

from digits_dcgan import shrink
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Variants: `smoke`, tiny and done in seconds."""
    images = 64_000
    adam = {"name": "adam", "learning_rate": 1e-3, "b1": 0.0, "b2": 0.9, "b2_final": 0.99}
    adam |= {"schedule": "cosine", "decay_images": images, "final_factor": 0.25}
    off = dict.fromkeys(("xflip", "rotate90", "rotate", "lumaflip", "hue", "saturation"), 0.0)
    config = ConfigDict(
        {
            "game": "unconditional",
            "total_images": images,
            "batch_size": 32,
            "data": {"name": "digits", "resolution": 16, "channels": 1},
            "generator": {"name": "r3gan", "widths": (128, 64, 32), "blocks": (1, 1, 1)},
            "discriminator": {"name": "r3gan", "widths": (128, 64, 32), "blocks": (1, 1, 1)},
            "loss": {"name": "relativistic", "r1_gamma": 1.0, "r2_gamma": 1.0}
            | {"penalty_decay_images": float(images), "penalty_final_factor": 0.1},
            "augment": {"name": "ada", "target": 0.0, "p": 0.3, "growth_images": float(images)}
            | {"brightness": 0.5, "contrast": 0.5, "cutout": 1.0, **off},
            "optim": {"generator": adam, "discriminator": adam},
            "ema": {"half_life_images": 10_000.0, "growth_images": float(images)},
            "every": {"sample_images": 16_000, "checkpoint_images": 16_000},
            "evaluation": {"features": "digits_classifier", "metrics": ("fd", "kd", "prdc", "classes")},
        }
    )
    if variant == "smoke":
        shrink(config)
        config.data.resolution = 8
        for net in (config.generator, config.discriminator):
            net.widths, net.blocks = (16, 8), (1, 1)
    elif variant:
        raise ValueError(f"{variant!r}; expected smoke")
    return config
