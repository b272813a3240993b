"""Borders of images and maps."""

import jax
import jax.numpy as jnp


def reflect(x: jax.Array, border: int) -> jax.Array:
    """x (B, h, w, C) with so many rows and columns more on every side: mirrored, the outermost of x not repeated."""
    return jnp.pad(x, ((0, 0), (border, border), (border, border), (0, 0)), mode="reflect")
