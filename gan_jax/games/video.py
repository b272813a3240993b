"""Clips out of noise, with labels or without: MoCoGAN (1707.04993), DVD-GAN (1907.06571); see `clips`."""

import jax

from gan_jax.games import players
from gan_jax.games.clips import DEFAULTS, EMA_NETS, NEEDS, NETS, VIDEO, constructors, init, moves, nets, reads
from gan_jax.games.players import asks
from gan_jax.step import Phase

__all__ = ["DEFAULTS", "EMA_NETS", "NEEDS", "NETS", "asks", "constructors", "init", "nets", "reads"]


def phases(config, nets: dict) -> tuple[Phase, ...]:
    """The table of moves for `config.loss`, see `clips.moves`."""
    return moves(config, nets)


def drawn(config) -> str:
    """Samples are to be like the data's clips."""
    return VIDEO


def sample(nets: dict, ema: dict, keys: jax.Array, given: dict) -> dict[str, jax.Array]:
    """`video` (B, T, H, W, C) in [-1, 1] from the averaged generator; clip i depends on keys[i] and its label alone."""
    z = players.latents(nets["generator"], keys)
    label = given["label"] if players.labelled(nets) else None
    return {VIDEO: nets["generator"].apply(ema["generator"], z, label=label, train=False)}
