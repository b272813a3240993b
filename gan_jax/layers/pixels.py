"""Between the host's uint8 images and the networks' range [-1, 1]."""

import jax
import jax.numpy as jnp


def normalise(images: jax.Array) -> jax.Array:
    """uint8 (B, H, W, C) in [0, 255] to float32 in [-1, 1]; other dtypes (points of a mixture) pass through."""
    if images.dtype != jnp.uint8:
        return images
    return images.astype(jnp.float32) / 127.5 - 1.0


def quantise(images: jax.Array) -> jax.Array:
    """float (B, H, W, C) in [-1, 1] to uint8, rounded to nearest and clipped; points (B, 2) pass through."""
    if images.ndim != 4:
        return images
    return jnp.clip(jnp.round((images.astype(jnp.float32) + 1.0) * 127.5), 0, 255).astype(jnp.uint8)


def random_flip(images: jax.Array, draws: jax.Array) -> jax.Array:
    """Mirrors each image (B, H, W, C) left to right where its draw (B,), U(0, 1), is below one half."""
    return jnp.where((draws < 0.5)[:, None, None, None], images[:, :, ::-1], images)
