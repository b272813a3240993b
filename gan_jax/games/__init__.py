"""Games: one file each, found by `config.game`.

A game is a module with
    NETS                          names of its nets' config sections; nets that are built alike share one
    EMA_NETS                      names of the nets that are averaged
    DEFAULTS                      {section: {key: value}}, what it adds to a config
    constructors(config)          -> {section: class whose fields are the schema of config.<section>}
    nets(config, spec)            -> {net: Linen module}; `spec` has `shape` (H, W, C) or (D,) and `num_classes`
    init(config, nets, spec, key) -> (params, variables, memory), each but memory a dict keyed by net
    phases(config, nets)          -> tuple of step.Phase
    sample(nets, ema, keys, labels) -> images (B, H, W, C) in [-1, 1], a function of each sample's key
    stages(config)                optional: tuple of Stage, for games whose batch or networks change on the way
"""

import importlib
from types import ModuleType
from typing import NamedTuple

from gan_jax.errors import UserError

NAMES = ("unconditional",)


class Stage(NamedTuple):
    """A stretch of a run with one batch size, from `start_images` up to `end_images`; its optimizers start afresh."""

    batch_size: int
    start_images: int
    end_images: int


def find(name: str) -> ModuleType:
    """The game of that name. Raises UserError for an unknown one."""
    if name not in NAMES:
        raise UserError(f"config.game={name!r}: expected one of {', '.join(NAMES)}")
    return importlib.import_module(f"gan_jax.games.{name}")


def stages(game: ModuleType, config) -> tuple[Stage, ...]:
    """The game's stages; one for the whole run where it defines none."""
    if hasattr(game, "stages"):
        return game.stages(config)
    return (Stage(config.batch_size, 0, config.total_images),)
