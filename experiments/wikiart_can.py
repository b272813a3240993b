"""CAN (Elgammal et al. 2017, arXiv 1706.07068): paintings of no known style, 256 px.

    python launch.py train --config=wikiart_can --workdir=runs/wikiart_can --config.data.name=folder:PATH

PATH is a folder with a sub-folder of images for each style, such as WikiArt's 25; TFDS has no such set. The networks, the
learning rate and the form of the style term are the paper's as others tell them: it was not at hand. It prints no distance,
and asks people. Batch size and
length, 25 times 81,449 paintings, are those of a public program (mlberkeley/Creative-Adversarial-Networks), whose noise on
labels is left out.

The players have 45 million parameters: meant for one GPU. `evaluate --metrics=style_entropy --features=classifier` needs
`--config.evaluation.judge=folder:PATH` in training; its classifier looks at 16 px, which is little for paintings.
"""

from ml_collections import ConfigDict
from textures_art import shrink

PAINTINGS = 81_449


def get_config(variant: str = "") -> ConfigDict:
    """Variants: `smoke`, tiny and done in seconds, on patches of two photographs."""
    if variant not in ("", "smoke"):
        raise ValueError(f"{variant!r}; expected smoke")
    adam = {"name": "adam", "learning_rate": 1e-4, "b1": 0.5, "b2": 0.999}
    config = ConfigDict(
        {
            "game": "creative",
            "total_images": 25 * PAINTINGS,
            "batch_size": 16,
            "data": {"name": "folder:wikiart", "resolution": 256, "channels": 3, "flip": True},
            "generator": {"name": "can", "latent_size": 100, "features": (1024, 1024, 512, 256, 128, 64)},
            "discriminator": {"name": "can"},
            "loss": {"name": "non_saturating", "ambiguity": 1.0, "ambiguity_form": "binary"},
            "optim": {"generator": dict(adam), "discriminator": dict(adam)},
            "every": {"sample_images": PAINTINGS, "checkpoint_images": PAINTINGS},
            "evaluation": {"features": "none", "metrics": ()},
        }
    )
    if variant == "smoke":
        shrink(config)
        config.generator.features = ()
        config.data.name, config.data.resolution = "photographs:coffee+rocket", 16
    return config
