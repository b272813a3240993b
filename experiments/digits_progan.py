"""ProGAN on scikit-learn's 1,797 handwritten digits, growing from 8 over 16 to 32 px.

    python launch.py train --config=digits_progan --workdir=runs/digits_progan

Karras et al. 2018 (arXiv 1710.10196) with narrow networks: WGAN-GP with drift, Adam (0, .99) at 1e-3, batches of 16,
fade-in as long as training at each resolution. The generator's average has a half-life to fit so short a run.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Variants: `smoke`, tiny and done in seconds."""
    adam = {"name": "adam", "learning_rate": 1e-3, "b1": 0.0, "b2": 0.99, "eps": 1e-8}
    net = {"name": "progan", "feature_base": 256, "feature_max": 64}
    config = ConfigDict(
        {
            "game": "progressive",
            "total_images": 96_000,
            "batch_size": 16,
            "data": {"name": "digits", "resolution": 32, "channels": 1},
            "generator": {**net, "latent_size": 64},
            "discriminator": dict(net),
            "loss": {"name": "wasserstein", "gradient_penalty": 10.0, "drift": 1e-3},
            "growth": {"initial_resolution": 8, "training_images": 12_000, "transition_images": 12_000},
            "optim": {"generator": adam, "discriminator": adam},
            "ema": {"half_life_images": 5_000.0, "rampup": 0.05},
            "every": {"sample_images": 16_000, "checkpoint_images": 16_000},
            "evaluation": {"features": "digits_classifier", "metrics": ("fd", "kd", "prdc", "classes")},
        }
    )
    if variant == "smoke":
        shrink(config)
    elif variant:
        raise ValueError(f"{variant!r}; expected smoke")
    return config


def shrink(config: ConfigDict) -> None:
    """Makes a run of three steps of eight images, the third in mid-fade."""
    config.data.resolution, config.growth.initial_resolution = 8, 4
    config.total_images, config.batch_size, config.grid = 24, 8, 4
    for net in (config.generator, config.discriminator):
        net.feature_base, net.feature_max = 16, 4
    config.generator.latent_size = 4
    config.growth.training_images, config.growth.transition_images = 8, 16
    config.every = {"log_images": 8, "sample_images": 16, "checkpoint_images": 8}
    config.evaluation.samples = 64
