"""The frames that come next: a clip's first frames become its last ones (DVD-GAN-FP: Clark et al. 2019, 1907.06571).

The discriminator of clips sees the first frames in front of those that are made, and the generator is pulled towards
the right frames by an L1 term (Mathieu et al. 2016, 1511.05440); see `clips`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax import config as configs
from gan_jax.errors import UserError
from gan_jax.games import clips, players
from gan_jax.games.clips import EMA_NETS, NETS, VIDEO, constructors, reads
from gan_jax.layers import pixels
from gan_jax.specs import Field

__all__ = ["EMA_NETS", "NETS", "constructors", "reads"]

CONTEXT, FUTURE = "context", "future"  # the first frames, and the last ones
DEFAULTS = {
    **clips.DEFAULTS,
    "video": {**clips.DEFAULTS["video"], "context": 4},  # frames that are given
    "loss": {**clips.DEFAULTS["loss"], "l1": 100.0},  # weight of |G(context) - future|
}
NEEDS = {**clips.NEEDS, "generator": ("clips", "predicts")}


def asks(config) -> tuple[str, ...]:
    """The first frames; and a label, where `config.conditional`."""
    return CONTEXT, *players.asks(config)


def drawn(config) -> str:
    """Samples are to be like the last frames."""
    return FUTURE


def target(config) -> str:
    """The last frames."""
    return FUTURE


def derived(config, spec: dict[str, Field]) -> dict[str, Field]:
    """Both parts of a clip."""
    count, *frame = spec[VIDEO].shape
    lengths = {CONTEXT: config.video.context, FUTURE: count - config.video.context}
    return {name: Field("video", (length, *frame)) for name, length in lengths.items()}


def derive(config, examples: dict[str, Any]) -> dict[str, Any]:
    """Both parts of clips (B, T, H, W, C), uint8."""
    video, count = examples[VIDEO], config.video.context
    return {CONTEXT: video[:, :count], FUTURE: video[:, count:]}


def baselines(config, train) -> dict[str, Callable[[dict], np.ndarray]]:
    """The last frame again and again, and each pixel's line through the last two."""
    count = train.spec[VIDEO].shape[0] - config.video.context
    table = {"copy_last": partial(_extrapolated, count=count, slope=0)}
    return table | ({"linear": partial(_extrapolated, count=count, slope=1)} if config.video.context > 1 else {})


def _extrapolated(given: dict[str, np.ndarray], count: int, slope: int) -> np.ndarray:
    context = np.asarray(given[CONTEXT]).astype(np.int32)
    last, change = context[:, -1:], slope * (context[:, -1:] - context[:, -2:-1] if slope else 0)
    ahead = np.arange(1, count + 1).reshape(1, -1, 1, 1, 1)
    return np.clip(last + ahead * change, 0, 255).astype(np.uint8)


def nets(config, spec: dict[str, Field]) -> dict:
    """The three nets. Raises UserError for a number of given frames that leaves none to make; see `clips.nets`."""
    frames, count = spec[VIDEO].shape[0], config.video.context
    if not 1 <= count < frames:
        raise UserError(f"config.video.context={count}: expected 1 to {frames - 1}, for clips of {frames} frames")
    return clips.nets(config, spec, count)


def init(config, nets: dict, spec: dict[str, Field], key: jax.Array) -> tuple[dict, dict, None]:
    """Fresh parameters and collections of all three."""
    return clips.init(config, nets, spec, key, config.video.context)


def phases(config, nets: dict) -> tuple:
    """The table of moves for `config.loss`, see `clips.moves`."""
    configs.check_range(config, "0 or more", "loss.l1")
    weights = (("l1", config.loss.l1),) if config.loss.l1 else ()
    return clips.moves(config, nets, weights, config.video.context)


def sample(nets: dict, ema: dict, keys: jax.Array, given: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """`future` (B, T', H, W, C) in [-1, 1], of the first frames; what these leave open is the key's."""
    z, context = players.latents(nets["generator"], keys), pixels.normalise(jnp.asarray(given[CONTEXT]))
    label = given["label"] if players.labelled(nets) else None
    return {FUTURE: nets["generator"].apply(ema["generator"], z, label=label, context=context, train=False)}
