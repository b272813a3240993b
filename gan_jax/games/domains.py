"""What games between two independent sets of pictures share: the domains a and b, and their pictures in training."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from gan_jax.errors import UserError
from gan_jax.layers import pixels, random
from gan_jax.specs import Field
from gan_jax.step import Rng

DOMAINS = ("a", "b")
FLIP, JITTER, FREE = range(3)  # independent draws, `draw` numbers those of each; a game's own ones begin at FREE
MOST = 1 << 16  # of a kind


def reads(config) -> tuple[str, ...]:
    """The pictures of both domains."""
    return DOMAINS


def shapes(spec: Mapping[str, Field], game: str) -> dict[str, tuple[int, ...]]:
    """Of the domains' pictures. Raises UserError where they are no images of one size."""
    result = {domain: spec[domain].shape for domain in DOMAINS}
    if any(spec[domain].kind != "image" for domain in DOMAINS) or result["a"][:2] != result["b"][:2]:
        raise UserError(f"the game {game!r} needs images of one size, not {result['a']} and {result['b']}")
    return result


def flips(config) -> dict[str, bool]:
    """Whether a domain's pictures are mirrored at random, as its data say."""
    return {domain: config.data.parts[domain].flip for domain in DOMAINS}


def pictures(batch: dict, rng: Rng, *, flips: dict[str, bool], jitter: int) -> dict[str, jax.Array]:
    """Pictures of both domains in [-1, 1], each moved by `jitter`, and mirrored at random where its data are."""
    reals = {}
    for number, domain in enumerate(DOMAINS):
        images = pixels.normalise(batch[domain])
        if jitter:
            draws = random.uniform(draw(rng.samples, JITTER, number), (2,))
            images = pixels.jittered(images, jnp.floor(draws * (jitter + 1)), jitter)
        draws = random.uniform(draw(rng.samples, FLIP, number), ())
        reals[domain] = pixels.random_flip(images, draws) if flips[domain] else images
    return reals


def draw(keys: jax.Array, kind: int, number: int) -> jax.Array:
    """Keys (B,) of the use `number` of a kind of draw."""
    return random.fold(keys, kind * MOST + number)
