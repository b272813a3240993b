"""Random numbers per sample: one typed PRNG key each, so that results do not depend on the sharding."""

import jax


def normal(keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """N(0, 1) float32 of shape (B, *shape) from keys (B,)."""
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


def uniform(keys: jax.Array, shape: tuple[int, ...], minval: float = 0.0, maxval: float = 1.0) -> jax.Array:
    """U[minval, maxval) float32 of shape (B, *shape) from keys (B,)."""
    return jax.vmap(lambda key: jax.random.uniform(key, shape, minval=minval, maxval=maxval))(keys)


def fold(keys: jax.Array, data: int) -> jax.Array:
    """New keys (B,), each folded with the same integer: one independent stream per use."""
    return jax.vmap(lambda key: jax.random.fold_in(key, data))(keys)
