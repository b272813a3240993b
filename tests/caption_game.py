"""A game that draws from captions, for gan_jax's own loop: a picture of each digit is all that it learns.

What a caption says is read from its tokens by rule, so that what is to be drawn is known. It is a game module as
`gan_jax.games` describes them, and an experiment file at once.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from gan_jax import config as configs
from gan_jax.data import captions, digits_captions
from gan_jax.layers import pixels
from gan_jax.step import Out, Phase

NETS = EMA_NETS = ("generator",)
DEFAULTS = {}
WORDS = captions.vocabulary(map(digits_captions.caption, digits_captions.meanings(unseen=False)))
NUMBER = np.array([digits_captions.WORDS.index(word) if word in digits_captions.WORDS else 10 for word in WORDS])
LEFT, RIGHT, BRIGHT, TWO = (WORDS.index(word) for word in ("left", "right", "bright", "two"))


def get_config(variant: str = "") -> ConfigDict:
    """Three steps of eight pictures."""
    return ConfigDict(
        {
            "game": "tests.caption_game",
            "total_images": 24,
            "batch_size": 8,
            "grid": 6,
            "data": {"name": "digits:captions", "resolution": (8, 16), "caption_length": 8, "captions": 2},
            "generator": {"name": "templates"},
            "optim": {"generator": {"name": "adam", "learning_rate": 0.1}},
            "every": {"log_images": 8, "sample_images": 16, "checkpoint_images": 8},
            "evaluation": {"split": "test"},
        }
    )


class Generator(nn.Module):
    """(tokens (B, L), noise (B,)) -> (B, 8, 16, 1) in [-1, 1]: the digits that are said, at their places."""

    always_dim: bool = False

    @nn.compact
    def __call__(self, tokens, noise):
        templates = self.param("templates", nn.initializers.constant(-1.0), (11, 8, 8))
        number = jnp.asarray(NUMBER)[tokens]
        two = tokens[:, 0] == TWO
        at_left = tokens[:, 5] == LEFT
        left = jnp.where(two, number[:, 3], jnp.where(at_left, number[:, 2], 10))
        right = jnp.where(two, number[:, 5], jnp.where(at_left, 10, number[:, 2]))
        is_bright = (tokens[:, 1] == BRIGHT) & (not self.always_dim)
        level = jnp.where(is_bright, 1.0, 0.4)[:, None, None]
        image = level * (jnp.concatenate([templates[left], templates[right]], axis=2) + 1) - 1
        return image[..., None] + 0.01 * noise[:, None, None, None]


def reads(config) -> tuple[str, ...]:
    """Pictures and their captions."""
    return "image", "caption"


def asks(config) -> tuple[str, ...]:
    """A caption."""
    return ("caption",)


def constructors(config) -> dict[str, type]:
    """The one net."""
    return {"generator": Generator}


def nets(config, spec) -> dict[str, nn.Module]:
    """The one net."""
    return {"generator": configs.build(Generator, config.generator, "generator")}


def init(config, nets, spec, key):
    """Black pictures."""
    tokens = jnp.zeros((1, spec["caption"].shape[1]), jnp.int32)
    return {"generator": nets["generator"].init(key, tokens, jnp.zeros(1))["params"]}, {}, ()


def phases(config, nets) -> tuple[Phase, ...]:
    """The squared distance to the picture."""

    def loss(params, state, batch, rng):
        tokens = batch["caption"][:, 0]
        drawn = nets["generator"].apply({"params": params["generator"]}, tokens, jnp.zeros(len(tokens)))
        return jnp.square(drawn - pixels.normalise(batch["image"])).mean(), Out({}, {})

    return (Phase("generator", loss, ("generator",), "generator"),)


def sample(nets, ema, keys, given):
    """What the captions say, the first of each example, a little lighter or darker by the key."""
    noise = jax.vmap(jax.random.uniform)(keys)
    return {"image": nets["generator"].apply(ema["generator"], given["caption"][:, 0], noise)}
