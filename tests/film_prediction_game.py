"""A game that goes on with clips: of the first frames those that follow, the last one plus what a net adds to it."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from gan_jax import config as configs
from gan_jax.layers import pixels
from gan_jax.specs import Field
from gan_jax.step import Out, Phase

NETS = EMA_NETS = ("generator",)
DEFAULTS = {"context": 2}


class Predictor(nn.Module):
    """Frames (B, T, H, W, C) in [-1, 1] -> the next (B, frames, H, W, C)."""

    frames: int

    @nn.compact
    def __call__(self, context):
        b, t, h, w, c = context.shape
        stacked = context.transpose(0, 2, 3, 1, 4).reshape(b, h, w, t * c)
        added = nn.Conv(self.frames * c, (3, 3))(stacked).reshape(b, h, w, self.frames, c)
        return jnp.tanh(context[:, -1:] + added.transpose(0, 3, 1, 2, 4))


def constructors(config):
    return {"generator": Predictor}


def reads(config):
    return ("video",)


def asks(config):
    return ("context",)


def drawn(config):
    return "future"


def target(config):
    return "future"


def derived(config, spec):
    frames, *rest = spec["video"].shape
    return {"context": Field("video", (config.context, *rest)),
            "future": Field("video", (frames - config.context, *rest))}  # fmt: skip


def derive(config, examples):
    return {"context": examples["video"][:, : config.context], "future": examples["video"][:, config.context :]}


def baselines(config, train):
    frames = config.data.frames - config.context
    return {"copy_last": lambda given: np.repeat(np.asarray(given["context"])[:, -1:], frames, axis=1)}


def nets(config, spec):
    frames = spec["video"].shape[0] - config.context
    return {"generator": configs.build(Predictor, config.generator, "generator", frames=frames)}


def init(config, nets, spec, key):
    context = jnp.zeros((1, config.context, *spec["video"].shape[1:]))
    return {"generator": nets["generator"].init(key, context)["params"]}, {}, ()


def phases(config, nets):
    def loss(params, state, batch, rng):
        clips = pixels.normalise(batch["video"])
        future = nets["generator"].apply({"params": params["generator"]}, clips[:, : config.context])
        return jnp.abs(future - clips[:, config.context :]).mean(), Out({}, {})

    return (Phase("generator", loss, ("generator",), "generator"),)


def sample(nets, ema, keys, given):
    return {"future": nets["generator"].apply(ema["generator"], pixels.normalise(jnp.asarray(given["context"])))}
