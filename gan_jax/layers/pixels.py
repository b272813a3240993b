"""Between the host's uint8 images or clips and the networks' range [-1, 1]."""

import jax
import jax.numpy as jnp


def normalise(images: jax.Array) -> jax.Array:
    """uint8 (B, ..., H, W, C) in [0, 255] to float32 in [-1, 1]; other dtypes (points of a mixture) pass through."""
    if images.dtype != jnp.uint8:
        return images
    return images.astype(jnp.float32) / 127.5 - 1.0


def quantise(images: jax.Array) -> jax.Array:
    """float (B, ..., H, W, C) in [-1, 1] to uint8, rounded to nearest and clipped; points (B, 2) pass through."""
    if images.ndim < 4:
        return images
    return jnp.clip(jnp.round((images.astype(jnp.float32) + 1.0) * 127.5), 0, 255).astype(jnp.uint8)


def random_flip(images: jax.Array, draws: jax.Array) -> jax.Array:
    """Mirrors each image (B, H, W, C), or whole clip (B, T, H, W, C), left to right where its draw (B,), U(0, 1), is
    below one half."""
    return jnp.where((draws < 0.5).reshape(-1, *(1,) * (images.ndim - 1)), images[..., ::-1, :], images)


def jittered(images: jax.Array, corners: jax.Array, extra: int) -> jax.Array:
    """Images (B, H, W, C) enlarged to (H + extra, W + extra), cut to their size from `corners` (B, 2) on.

    Both are one resampling, with the cubic filter of Keys (1981, a = -1/2).
    """
    scale = jnp.array([(side + extra) / side for side in images.shape[1:3]])

    def one(image, corner):
        return jax.image.scale_and_translate(image, image.shape, (0, 1), scale, -corner, "cubic", antialias=False)

    return jax.vmap(one)(images, corners)
