"""Games: one file each, found by `config.game`.

A game is a module with
    NETS                          names of its nets' config sections; nets that are built alike share one
    EMA_NETS                      names of the nets that are averaged
    DEFAULTS                      {section: {key: value}}, what it adds to a config
    constructors(config)          -> {section: class whose fields are the schema of config.<section>}
    nets(config, spec)            -> {net: Linen module}; `spec` has `shape` (H, W, C) or (D,) and `num_classes`
    init(config, nets, spec, key) -> (params, variables, memory), each but memory a dict keyed by net
    phases(config, nets)          -> tuple of step.Phase; numbers that are to be inputs of a program, and not part of
                                  it, are a phase's `weights`
    sample(nets, ema, keys, labels) -> images (B, H, W, C) in [-1, 1], a function of each sample's key
    EMA_COPIED                    optional: collections that the average copies, as they are averages themselves
    latents, decode               optional: (generator, keys) -> z (B, latent_size); `sample` from z instead of keys
    truncate(nets, psi, cutoff)   optional, of games with styles: keyword arguments of `sample`, `decode` and `styles`
    styles, paint                 optional, of games with styles, the halves of `decode`: (nets, ema, z, labels) -> ws
                                  (B, num_ws, w_size); (nets, ema, ws, keys, noise=) -> images
    groups(config)                optional: {config key: neighbours of a batch that belong together}, see `groups`
    stages(config, spec)          optional: tuple of Stage, for games whose batch or networks change on the way; then
                                  `phases` takes the stage as its third argument
"""

import importlib
from types import ModuleType
from typing import NamedTuple

from gan_jax.errors import UserError

NAMES = ("unconditional", "progressive", "style")


class Stage(NamedTuple):
    """A stretch of a run with one batch size, from `start_images` up to `end_images`; its optimizers start afresh.

    A step belongs to the stage in which it begins, so that a stage may end by less than a batch too late.
    """

    batch_size: int
    start_images: int
    end_images: int
    level: int = 0  # halvings of the resolution that is trained, below that of the data
    learning_rate: float = 1.0  # factor of every player's


def find(name: str) -> ModuleType:
    """The game of that name. Raises UserError for an unknown one."""
    if name not in NAMES:
        raise UserError(f"config.game={name!r}: expected one of {', '.join(NAMES)}")
    return importlib.import_module(f"gan_jax.games.{name}")


def stages(game: ModuleType, config, spec) -> tuple[Stage, ...]:
    """The game's stages; one for the whole run where it defines none."""
    if hasattr(game, "stages"):
        return game.stages(config, spec)
    return (Stage(config.batch_size, 0, config.total_images),)


def phases(game: ModuleType, config, nets: dict, stage: Stage) -> tuple:
    """The game's table of moves in a stage, a tuple of step.Phase."""
    return game.phases(config, nets, stage) if hasattr(game, "stages") else game.phases(config, nets)


def groups(game: ModuleType, config, nets: dict) -> dict[str, int]:
    """Config key -> so many neighbours of a batch belong together (0: all), so that no device may hold a part of them.

    Those of nets are their `sample_groups`, field -> number.
    """
    found = {net: getattr(module, "sample_groups", {}) for net, module in nets.items()}
    of_nets = {f"{net}.{field}": size for net, fields in found.items() for field, size in fields.items()}
    return of_nets | (game.groups(config) if hasattr(game, "groups") else {})


def begins(stages: tuple[Stage, ...]) -> tuple[int, ...]:
    """The images seen when each stage begins: where the one before, which plays whole batches, has ended."""
    images, result = 0, []
    for stage in stages:
        result.append(images)
        images += -(-max(stage.end_images - images, 0) // stage.batch_size) * stage.batch_size
    return tuple(result)
