"""Dropout (Srivastava et al. 2014) with one key per sample; kept values are scaled by 1 / (1 - rate)."""

import jax
import jax.numpy as jnp

from gan_jax.layers import random


def dropout(x: jax.Array, keys: jax.Array | None, rate: float) -> jax.Array:
    """Zeroes entries of x (B, ...) with probability `rate`, keys (B,); identity for rate 0 or keys None."""
    assert 0 <= rate < 1, f"dropout rate {rate} is outside [0, 1)"
    if rate == 0 or keys is None:
        return x
    keep = random.uniform(keys, x.shape[1:]) < 1 - rate
    return jnp.where(keep, x / (1 - rate), jnp.zeros_like(x))
