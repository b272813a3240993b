"""Textures of no known kind: a creative adversarial network on patches of six photographs.

    python launch.py train --config=textures_art --workdir=runs/textures_art
    python launch.py train --config=textures_art:plain --workdir=runs/textures_art_plain
    python launch.py evaluate --workdir=runs/textures_art

CAN (Elgammal et al. 2017, arXiv 1706.07068) on grey patches of 16 px out of photographs that ship with scikit-image; a
patch's style is its photograph. `plain` is the same without the term that keeps styles undecided. `style_entropy` says how
undecided a classifier of the six is about the samples, `discriminator/fake_probability` in `metrics.jsonl` how real the
run's own discriminator takes them for. `docs/reproduction.md` has the figures.
"""

from ml_collections import ConfigDict

STYLES = "brick+grass+gravel+hubble_deep_field+immunohistochemistry+moon"


def get_config(variant: str = "") -> ConfigDict:
    """Variants: `plain`, the term left out; `smoke`, tiny and done in seconds."""
    if variant not in ("", "plain", "smoke"):
        raise ValueError(f"{variant!r}; expected plain or smoke")
    adam = {"name": "adam", "learning_rate": 5e-4, "b1": 0.5, "b2": 0.999}
    config = ConfigDict(
        {
            "game": "creative",
            "total_images": 96_000,
            "batch_size": 64,
            "data": {"name": f"photographs:{STYLES}", "resolution": 16, "channels": 1, "flip": True},
            "generator": {"name": "can", "latent_size": 64, "width": 48},
            "discriminator": {"name": "can", "width": 32, "hidden": (64, 32), "norm": "none"},
            "loss": {"name": "non_saturating", "ambiguity": 0.1},
            "optim": {"generator": dict(adam), "discriminator": {**adam, "learning_rate": 1e-3}},
            "ema": {"half_life_images": 4_000.0},
            "every": {"log_images": 3_200, "sample_images": 24_000, "checkpoint_images": 96_000},
            "evaluation": {
                "features": "classifier",
                "judge": f"photographs:{STYLES}",
                "metrics": ("style_entropy", "fd", "classes"),
                "samples": 2_000,
                "split": "test",
            },
        }
    )
    if variant == "plain":
        config.loss.ambiguity = 0.0
    elif variant == "smoke":
        shrink(config)
    return config


def shrink(config: ConfigDict) -> None:
    """Makes a run of three steps of eight images with narrow players."""
    config.total_images, config.batch_size, config.grid = 24, 8, 4
    config.generator.width = config.discriminator.width = 4
    config.generator.latent_size, config.discriminator.hidden = 8, (8,)
    config.every = {"log_images": 8, "sample_images": 16, "checkpoint_images": 8}
    config.evaluation.samples = 64
