"""Changes of size in super-resolution networks: pixels dealt over channels and back, and bilinear enlargement."""

import jax
import jax.numpy as jnp


def shuffle(x: jax.Array, factor: int) -> jax.Array:
    """(B, h, w, C * factor^2) -> (B, h * factor, w * factor, C), the sub-pixel layer of Shi et al. 2016 (1609.05158).

    Channel c * factor^2 + i * factor + j becomes row i and column j of each square, as PyTorch orders them.
    """
    b, h, w, c = x.shape
    c //= factor**2
    x = x.reshape(b, h, w, c, factor, factor)
    return x.transpose(0, 1, 4, 2, 5, 3).reshape(b, h * factor, w * factor, c)


def unshuffle(x: jax.Array, factor: int) -> jax.Array:
    """The inverse of `shuffle`: (B, H, W, C) -> (B, H / factor, W / factor, C * factor^2); factor divides both."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // factor, factor, w // factor, factor, c)
    return x.transpose(0, 1, 3, 5, 2, 4).reshape(b, h // factor, w // factor, c * factor**2)


def bilinear(x: jax.Array, factor: int) -> jax.Array:
    """(B, h, w, C) -> (B, h * factor, w * factor, C), between the centres of pixels; the border's are repeated."""
    b, h, w, c = x.shape
    return jax.image.resize(x, (b, h * factor, w * factor, c), "bilinear").astype(jnp.result_type(x))
