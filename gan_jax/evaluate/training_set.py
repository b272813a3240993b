"""Metrics that need the examples that a run was trained on: their names, and which runs have them."""

from collections.abc import Iterable

from ml_collections import ConfigDict

from gan_jax import games, run_data
from gan_jax.errors import UserError

LEARNED = ("cas", "nas")  # a classifier learns generated images: alone, and with the training images
NEAREST, NEAREST_FEATURES = "nearest", "nearest_features"  # of pixels, and of config.evaluation.features
NAMES = (*LEARNED, NEAREST, NEAREST_FEATURES)
UNRANKED = (NEAREST,)  # kinds that are the better the nearer those of held-out images


def expanded(name: str, section: ConfigDict) -> tuple[str, ...]:
    """`nearest` is of pixels, and of features where config.evaluation has such."""
    return (NEAREST, NEAREST_FEATURES) if name == NEAREST and section.features != "none" else (name,)


def check(listed: Iterable[str], config: ConfigDict) -> None:
    """Raises UserError where a run has no labels to learn, or no held-out images."""
    listed = [name for name in listed if name in NAMES]
    learned = [name for name in listed if name in LEARNED]
    if learned and "label" not in games.find(config.game).asks(config):
        raise UserError(f"metrics={','.join(learned)}: a classifier learns generated images by their labels, and this "
                        f"run of the game {config.game!r} is unconditional; train one with labels, or leave them out")
    trained, split = run_data.splits(config, ""), config.evaluation.split
    if listed and (not split or run_data.splits(config, split) == trained):
        raise UserError(f"metrics={','.join(listed)}: they compare with held-out images, and config.evaluation.split="
                        f"{split!r} names those that are trained on; give another one, such as --split=test")
