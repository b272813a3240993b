"""Random numbers per sample: one typed PRNG key each, so that results do not depend on the sharding."""

import jax
import jax.numpy as jnp
from jax import lax


def normal(keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """N(0, 1) float32 of shape (B, *shape) from keys (B,)."""
    draw = jax.vmap(lambda key: jax.random.normal(key, shape))
    if len(keys) == 1:
        return draw(keys)
    # In a loop of two, for XLA:CPU copies what stands outside of one into every fusion that reads it: noise was drawn
    # again at each use, and for every channel.
    parts = next(n for n in range(2, len(keys) + 1) if len(keys) % n == 0)
    drawn = lax.map(draw, keys.reshape(parts, -1))
    return drawn.reshape(len(keys), *shape)


def uniform(keys: jax.Array, shape: tuple[int, ...], minval: float = 0.0, maxval: float = 1.0) -> jax.Array:
    """U[minval, maxval) float32 of shape (B, *shape) from keys (B,)."""
    return jax.vmap(lambda key: jax.random.uniform(key, shape, minval=minval, maxval=maxval))(keys)


def streams(keys: jax.Array, count: int) -> jax.Array:
    """Keys (count, B): what `fold` gives for 0, 1, ... count - 1, in one draw."""
    return jax.vmap(fold, (None, 0))(keys, jnp.arange(count, dtype=jnp.uint32))


def fold(keys: jax.Array, data: int | jax.Array) -> jax.Array:
    """New keys (B,), each folded with the same integer: one independent stream per use."""
    return jax.vmap(lambda key: jax.random.fold_in(key, data))(keys)
