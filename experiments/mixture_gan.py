"""The 2014 game on a ring of eight Gaussians."""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    adam = {"name": "adam", "learning_rate": 1e-3, "b1": 0.5, "b2": 0.999, "schedule": "cosine"}
    config = ConfigDict(
        {
            "game": "unconditional",
            "total_images": 5_120_000,
            "batch_size": 512,
            "grid": 2_500,
            "data": {"name": "mixture:ring8"},
            "generator": {
                "name": "gan",
                "latent_size": 16,
                "latent": "normal",
                "widths": (128, 128, 128),
                "output": "linear",
                "init_range": 0.0,
            },
            "discriminator": {
                "name": "gan",
                "widths": (128, 128, 128),
                "activation": "leaky_relu",
                "dropout_input": 0.0,
                "dropout_hidden": 0.0,
                "init_range": 0.0,
            },
            "loss": {"name": "non_saturating", "r1_gamma": 0.01},
            "optim": {"generator": adam, "discriminator": adam},
            "ema": {"half_life_images": 50_000.0, "rampup": 0.05},
            "every": {"log_images": 512_000, "sample_images": 2_560_000, "checkpoint_images": 2_560_000},
            "evaluation": {"features": "none", "metrics": ("modes",), "samples": 10_000},
        }
    )
    return config
