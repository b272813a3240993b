"""A game of clips with one tiny net, for gan_jax's own loop: latents, and labels where asked for, to clips.

Its clips come near the mean of the data's. It is a game module as `gan_jax.games` describes them.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax import config as configs
from gan_jax import specs
from gan_jax.games import players
from gan_jax.layers import random
from gan_jax.step import Out, Phase

NETS = EMA_NETS = ("generator",)
DEFAULTS = {"conditional": False}


class Painter(nn.Module):
    """z (B, 4), labels (B,) or None -> clips (B, T, H, W, C) in [-1, 1]."""

    shape: tuple
    num_classes: int = 0

    @nn.compact
    def __call__(self, z, label=None):
        if label is not None:
            z = jnp.concatenate([z, jax.nn.one_hot(label, self.num_classes)], axis=-1)
        size = 1
        for side in self.shape:
            size *= side
        return jnp.tanh(nn.Dense(size)(z)).reshape(-1, *self.shape)


def constructors(config):
    return {"generator": Painter}


def reads(config):
    return ("video", "label") if config.conditional else ("video",)


def asks(config):
    return ("label",) if config.conditional else ()


def drawn(config):
    return "video"


def nets(config, spec):
    fields = {"shape": spec["video"].shape, "num_classes": specs.classes(spec)}
    return {"generator": configs.build(Painter, config.generator, "generator", **fields)}


def init(config, nets, spec, key):
    label = jnp.zeros((1,), jnp.int32) if config.conditional else None
    return {"generator": nets["generator"].init(key, jnp.zeros((1, 4)), label)["params"]}, {}, ()


def phases(config, nets):
    def loss(params, state, batch, rng):
        z = random.normal(rng.samples, (4,))
        fakes = nets["generator"].apply({"params": params["generator"]}, z, batch.get("label"))
        flips = random.uniform(random.fold(rng.samples, 1), ())
        reals = players.reals(batch, flips, config.data.flip, "video")
        return jnp.square(fakes - reals).mean(), Out({}, {})

    return (Phase("generator", loss, ("generator",), "generator"),)


def sample(nets, ema, keys, given):
    z = random.normal(keys, (4,))
    return {"video": nets["generator"].apply(ema["generator"], z, given.get("label"))}
