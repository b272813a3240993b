"""Numbers for each channel beside images: repeated in one operation, whose transpose is one sum."""

import jax
from jax import lax


def varying_axes(x: jax.Array) -> frozenset[str]:
    """The mesh axes over which a value may differ, as `shard_map` tracks them."""
    kind = jax.typeof(x)  # the attribute's name differs between versions of JAX
    return kind.vma if hasattr(kind, "vma") else kind.mat.varying


def along_channels(values: jax.Array, x: jax.Array) -> jax.Array:
    """values (C,) or (B, C) for x (B, ..., C), in its shape and dtype.

    Where axes of length 1 are inserted first, derivatives sum twice, and programs are as much larger.
    """
    assert values.ndim in (1, 2) and values.shape[-1] == x.shape[-1], (values.shape, x.shape)
    axes = (x.ndim - 1,) if values.ndim == 1 else (0, x.ndim - 1)
    # What is equal on all devices is marked as theirs here, and not where it meets x: its gradient would be summed over
    # devices pixel by pixel.
    if missing := tuple(varying_axes(x) - varying_axes(values)):
        values = lax.pcast(values, missing, to="varying")
    return lax.broadcast_in_dim(values.astype(x.dtype), x.shape, axes)
