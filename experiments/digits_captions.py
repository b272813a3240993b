"""Text to image on scikit-learn's digits: captions such as "a bright seven on the left", some of them never seen.

    python launch.py train --config=digits_captions --workdir=runs/digits_captions
    python launch.py evaluate --workdir=runs/digits_captions --split=unseen
    python launch.py sample --workdir=runs/digits_captions --captions="a dim seven on the left" --out=drawn

DF-GAN (Tao et al. 2020, arXiv 2008.05865), small, at 8x16 px. A good quarter of the run trains the encoders of captions and
images, the rest the players. A judge that is fitted on pictures of all captions says whether both sides and the
brightness are as asked; `--split=unseen` measures the fifth of the captions that training never showed.
`docs/reproduction.md` has the figures.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Variants: `smoke`, tiny and done in seconds."""
    if variant not in ("", "smoke"):
        raise ValueError(f"{variant!r}; expected smoke")
    adam = {"name": "adam", "learning_rate": 2e-3, "b1": 0.0, "b2": 0.9}
    adam |= {"schedule": "linear", "decay_begin_images": 102_400}
    config = ConfigDict(
        {
            "game": "text_to_image",
            "total_images": 140_800,
            "batch_size": 32,
            "grid": 40,
            "data": {"name": "digits:captions", "resolution": (8, 16), "channels": 1, "caption_length": 7},
            "generator": {"name": "dfgan", "width": 32, "latent_size": 32},
            "discriminator": {"name": "dfgan", "width": 32},
            "text": {
                "name": "recurrent", "cell": "gru", "embedding": 32, "size": 64, "dropout": 0.0, "normalise": True,
            },
            "matching": {"images": 38_400, "batch_size": 64, "width": 16, "region_side": 4},
            "optim": {
                "generator": dict(adam),
                "discriminator": dict(adam),
                "encoders": {"name": "adam", "learning_rate": 2e-3, "b1": 0.9, "b2": 0.999},
            },
            "ema": {"half_life_images": 6_000.0},
            "every": {"log_images": 3_200, "sample_images": 19_200, "checkpoint_images": 48_000},
            "evaluation": {
                "features": "none", "metrics": ("obeyed", "r_precision"), "samples": 1_000, "split": "test",
                "judge_split": "every",
            },
        }
    )
    if variant == "smoke":
        shrink(config)
    return config


def shrink(config: ConfigDict) -> None:
    """Makes a run of three steps of eight digits with narrow players, the first of them the encoders'."""
    config.total_images, config.batch_size, config.grid = 24, 8, 4
    config.generator.width = config.discriminator.width = config.matching.width = 4
    config.generator.latent_size = config.text.embedding = config.text.size = 8
    config.matching.images = config.matching.batch_size = 8
    for player in ("generator", "discriminator"):
        config.optim[player].schedule = "constant"
    config.every = {"log_images": 8, "sample_images": 16, "checkpoint_images": 8}
    config.evaluation.samples, config.evaluation.metrics = 64, ()
