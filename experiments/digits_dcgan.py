"""DCGAN on scikit-learn's 1,797 handwritten digits at 32 px: the default experiment.

    python launch.py train --config=experiments/digits_dcgan.py --workdir=runs/digits

Radford et al. 2015 (arXiv 1511.06434) in the PyTorch examples' form, half as wide.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Variants: `smoke` (tiny, seconds)."""
    config = ConfigDict()
    config.game = "unconditional"
    config.conditional = False
    config.seed = 0
    config.total_images = 160_000
    config.batch_size = 64
    config.accumulate = 1
    config.parallel = "shard_map"
    config.grid = 64
    config.data = ConfigDict(
        dict(
            name="digits",
            split="train",
            resolution=32,
            channels=1,
            crop="center",
            crop_size=0,
            filter="lanczos",
            flip=False,
            skip_corrupt=False,
            dir="",
        )
    )
    config.generator = ConfigDict(dict(name="dcgan", latent_size=100, latent="normal", width=32))
    config.discriminator = ConfigDict(dict(name="dcgan", width=32, spectral_norm=False))
    config.loss = ConfigDict(
        dict(name="non_saturating", r1_gamma=0.0, r2_gamma=0.0, gradient_penalty=0.0, dragan=0.0)
    )
    adam = dict(name="adam", learning_rate=2e-4, b1=0.5, b2=0.999, eps=1e-8, clip_norm=0.0, schedule="constant")
    config.optim = ConfigDict(dict(generator=dict(adam), discriminator=dict(adam)))
    config.ema = ConfigDict(dict(half_life_images=5_000.0, rampup=0.05))
    config.every = ConfigDict(
        dict(
            generator_steps=1,
            penalty_steps=1,
            log_images=6_400,
            sample_images=32_000,
            checkpoint_images=32_000,
            evaluate_images=0,
        )
    )
    config.evaluation = ConfigDict(
        dict(features="digits_classifier", metrics=("fd", "kd", "prdc", "classes"), samples=10_000)
    )
    config.checkpoints = ConfigDict(dict(keep=2))
    if variant == "smoke":
        config.total_images = 24
        config.batch_size = 8
        config.grid = 4
        config.generator.width = config.discriminator.width = 4
        config.every.update(log_images=8, sample_images=16, checkpoint_images=8)
        config.evaluation.samples = 64
    elif variant:
        raise ValueError(f"{variant!r}; expected smoke")
    return config
