"""Numbers for each channel beside images: repeated in one operation, whose transpose is one sum."""

import jax
from jax import lax


def along_channels(values: jax.Array, x: jax.Array) -> jax.Array:
    """values (C,) or (B, C) for x (B, ..., C), in its shape and dtype.

    Where axes of length 1 are inserted first, derivatives sum twice, and programs are as much larger.
    """
    assert values.ndim in (1, 2) and values.shape[-1] == x.shape[-1], (values.shape, x.shape)
    axes = (x.ndim - 1,) if values.ndim == 1 else (0, x.ndim - 1)
    return lax.broadcast_in_dim(values.astype(x.dtype), x.shape, axes)
