"""Contextual attention (Yu et al. 2018, 1801.07892, section 4.1): a hole is filled with patches from outside it."""

import jax
import jax.numpy as jnp

WINDOW = 3  # pixels of a patch whose likeness is measured
FLOOR = 1e-4  # of a patch's norm
NEVER = -1e9  # logit of a patch that holds a part of the hole


def contextual(x: jax.Array, mask: jax.Array, *, rate: int = 2, sharpness: float = 10.0) -> jax.Array:
    """Every place of x, put together anew from its patches outside the hole.

    The cosine of patches of 3x3, of every `rate`-th pixel, is summed along neighbours of both (attention propagation:
    runs of matches are favoured). A softmax over all patches without hole weighs patches of 2 rate x 2 rate, whose
    overlaps are averaged.

    Args:
      x: (B, h, w, C), sides multiples of `rate`.
      mask: (B, h, w, 1), 1 in the hole. Where every patch holds hole all weigh the same.
      rate: pixels from one patch to the next.
      sharpness: factor of the summed cosines in front of the softmax.
    Returns:
      (B, h, w, C).
    """
    small = x[:, ::rate, ::rate]
    batch, rows, columns, _ = small.shape
    is_outside = ~(_patches(mask[:, ::rate, ::rate], 1.0) > 0).any(-1)  # what lies beyond the border is hole
    patches = _patches(small, 0.0)
    norms = jnp.sqrt(jnp.maximum(jnp.square(patches).sum(-1, keepdims=True), FLOOR**2))
    patches = patches / norms
    cosines = jnp.einsum("bijk,bmnk->bijmn", patches, patches)
    logits = sharpness * _propagated(cosines)
    logits = jnp.where(is_outside[:, None, None], logits, NEVER).reshape(batch, rows, columns, -1)
    weights = jax.nn.softmax(logits.astype(jnp.float32), -1).reshape(cosines.shape).astype(x.dtype)
    return _assembled(jnp.einsum("bijmn,bmnpqk->bijpqk", weights, _large_patches(x, rate)), rate)


def _patches(x: jax.Array, outside: float) -> jax.Array:
    """(B, h, w, C) -> (B, h, w, 9 C): the window around each pixel."""
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=outside)
    return jnp.concatenate([padded[:, i : i + height, j : j + width] for i in range(WINDOW) for j in range(WINDOW)], -1)


def _propagated(cosines: jax.Array) -> jax.Array:
    """(B, i, j, m, n): the sums over neighbours, (j + d, n + d) first, then (i + d, m + d), d from -1 to 1."""
    for one, other in ((2, 4), (1, 3)):
        border = [(1, 1) if axis in (one, other) else (0, 0) for axis in range(5)]
        padded = jnp.pad(cosines, border)

        def shifted(d, padded=padded, one=one, other=other):
            part = jax.lax.slice_in_dim(padded, d, d + padded.shape[one] - 2, axis=one)
            return jax.lax.slice_in_dim(part, d, d + padded.shape[other] - 2, axis=other)

        cosines = shifted(0) + shifted(1) + shifted(2)
    return cosines


def _blocks(x: jax.Array, rate: int) -> jax.Array:
    """(B, h, w, C) -> (B, h / rate + 1, w / rate + 1, rate, rate, C): with a border of zeros of `rate` in all."""
    border = (rate // 2, rate - rate // 2)
    x = jnp.pad(x, ((0, 0), border, border, (0, 0)))
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // rate, rate, width // rate, rate, channels).swapaxes(2, 3)


def _large_patches(x: jax.Array, rate: int) -> jax.Array:
    """(B, h / rate, w / rate, 2 rate, 2 rate, C): four blocks each."""
    blocks = _blocks(x, rate)
    upper, lower = blocks[:, :-1], blocks[:, 1:]
    halves = [jnp.concatenate([part[:, :, :-1], part[:, :, 1:]], 4) for part in (upper, lower)]
    return jnp.concatenate(halves, 3)


def _assembled(patches: jax.Array, rate: int) -> jax.Array:
    """Patches (B, rows, columns, 2 rate, 2 rate, C) put side by side, overlaps averaged -> (B, h, w, C)."""
    batch, rows, columns, *_, channels = patches.shape

    def total(patches):
        blocks = 0
        for i in range(2):
            for j in range(2):
                part = patches[:, :, :, i * rate : (i + 1) * rate, j * rate : (j + 1) * rate]
                blocks += jnp.pad(part, ((0, 0), (i, 1 - i), (j, 1 - j), (0, 0), (0, 0), (0, 0)))
        x = blocks.swapaxes(2, 3).reshape(len(patches), (rows + 1) * rate, (columns + 1) * rate, -1)
        low = rate // 2
        return x[:, low : low + rows * rate, low : low + columns * rate]

    counts = total(jnp.ones((1, rows, columns, 2 * rate, 2 * rate, 1), patches.dtype))
    return total(patches) / counts
