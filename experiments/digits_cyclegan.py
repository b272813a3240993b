"""Unpaired translation on scikit-learn's digits: grey ones to dark blue ones on cream paper, and back.

    python launch.py train --config=digits_cyclegan --workdir=runs/digits_cyclegan
    python launch.py sample --workdir=runs/digits_cyclegan --inputs=PATH --out=translated

CycleGAN (Zhu et al. 2017, arXiv 1703.10593) with two residual blocks at 16 px. The domain a is one half of the train split, b
the other, so that no digit is seen in both forms. Held-out digits are translated and judged: by a classifier of b, which
knows the right class, and by the distance of its features. An instance normalisation would take from such small
pictures how much ink there is: the generators have batch normalisation, the discriminators none. The paper's two
halvings would leave maps of 4x4, in which a generator redraws a digit as another as easily as it recolours it, and the
way back is right all the same: here there are none, but in the variants, which are to show what the cycle is worth.

Variants: `noise`, where b has pixel noise on it, so that the cycle has something to say; `noise_no_cycle`, the same without
it. `docs/reproduction.md` has the figures; two CPU cores take five minutes.
"""

from ml_collections import ConfigDict

VARIANTS = ("", "noise", "noise_no_cycle", "smoke")


def get_config(variant: str = "") -> ConfigDict:
    """Variants: `noise`, `noise_no_cycle`; `smoke`, tiny and done in seconds."""
    if variant not in VARIANTS:
        raise ValueError(f"{variant!r}; expected one of {', '.join(filter(None, VARIANTS))}")
    noisy = variant.startswith("noise")
    adam = {"name": "adam", "learning_rate": 1e-3, "b1": 0.5, "b2": 0.999}
    adam |= {"schedule": "linear", "decay_begin_images": 24_000}
    look = {"resolution": 16, "channels": 3}
    config = ConfigDict(
        {
            "game": "translation",
            "total_images": 48_000,
            "batch_size": 16,
            "grid": 32,
            "data": {
                "parts": {
                    "a": {"name": "digits", "split": "train[:50%]", **look},
                    "b": {"name": "digits:inverted" + "_noise" * noisy, "split": "train[50%:]", **look},
                }
            },
            "generator": {"name": "cyclegan", "width": 16, "halvings": 2 * noisy, "blocks": 2, "norm": "batch"},
            "discriminator": {"name": "cyclegan", "width": 32, "layers": 1, "norm": "none"},
            "loss": {"cycle_a": 10.0, "cycle_b": 10.0, "identity": 0.0, "pool": 50},
            "optim": {"generators": dict(adam), "discriminators": dict(adam)},
            "ema": {"half_life_images": 1_000.0},
            "every": {"log_images": 1_600, "sample_images": 8_000, "checkpoint_images": 16_000},
            "evaluation": {"features": "digits_classifier", "metrics": ("fd", "classes"), "samples": 360, "split": "test"},
        }
    )
    if variant == "noise_no_cycle":
        config.loss.cycle_a = config.loss.cycle_b = 0.0
    if variant == "smoke":
        shrink(config)
    return config


def shrink(config: ConfigDict) -> None:
    """Makes a run of three steps of eight images with narrow players, normalised as the paper's."""
    config.total_images, config.batch_size, config.grid = 24, 8, 4
    config.generator.width = config.discriminator.width = 4
    config.generator.norm = config.discriminator.norm = "instance"
    config.generator.halvings, config.generator.blocks, config.loss.pool = 2, 1, 4
    for player in config.optim.values():
        player.schedule = "constant"
    config.every = {"log_images": 8, "sample_images": 16, "checkpoint_images": 8}
    config.evaluation.samples = 64
