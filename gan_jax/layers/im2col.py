"""Convolutions of few pixels and many channels as one product of matrices, for XLA:CPU.

What each tap sees of an image (im2col; Chellapilla, Puri and Simard 2006) becomes a row of a matrix for each pixel of
the output. The deepest layers of a U-Net or of a discriminator have far more weights than pixels. Their time is that of
reading the weights, which a product of matrices does once: `winograd` reads and writes them several times, and XLA:CPU
turns them round for the transposes. The maps, and their transposes in x and in w, are as in `layers.conv`.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from gan_jax.layers.winograd import Padding, Pair

LEAST_WEIGHTS = 1 << 18  # of a kernel; with fewer, all ways are fast


def pays(kind: str, x: tuple[int, ...], g: tuple[int, ...], kernel: Pair, stride: Pair) -> bool:
    """Whether a map is faster so than by `winograd` and by XLA:CPU, as `benchmarks/convolutions.py` measured it.

    Args:
      kind: conv, tconv or wgrad.
      x, g: shapes (B, H, W, I) of the convolution's input and (B, h, w, O) of its output.
      kernel, stride: of the convolution.
    """
    if not all(isinstance(side, int) for side in (*x, *g)):  # a program that is exported for any batch
        return False
    taps, pixels, channels = math.prod(kernel), math.prod(g[:3]), min(x[3], g[3])
    if taps == 1 or taps * x[3] * g[3] < LEAST_WEIGHTS:
        return False
    return pixels <= (channels if kind == "tconv" and stride == (1, 1) else channels // 4)


def conv(x: jax.Array, w: jax.Array, stride: Pair, padding: Padding, size: Pair) -> jax.Array:
    """x (B, H, W, I) with w (kh, kw, I, O) -> (B, *size, O)."""
    y = _columns(x, w.shape[:2], stride, padding, size) @ w.reshape(-1, w.shape[3])
    return y.reshape(x.shape[0], *size, -1)


def tconv(g: jax.Array, w: jax.Array, stride: Pair, padding: Padding, size: Pair) -> jax.Array:
    """The transpose in x: g (B, h, w, O) -> (B, *size, I)."""
    columns = (g.reshape(-1, g.shape[3]) @ w.reshape(-1, w.shape[3]).T).reshape(*g.shape[:3], *w.shape[:3])
    total = None
    for tap in _taps(w.shape[:2]):
        ends = []
        for n, length, first, step, (low, _) in zip(g.shape[1:3], size, tap, stride, padding, strict=True):
            before = first - low
            ends.append((before, length - before - (step * (n - 1) + 1), step - 1))
        part = lax.pad(columns[:, :, :, *tap], jnp.zeros((), g.dtype), ((0, 0, 0), *ends, (0, 0, 0)))
        total = part if total is None else total + part
    return total


def wgrad(x: jax.Array, g: jax.Array, stride: Pair, padding: Padding, kernel: Pair) -> jax.Array:
    """The transpose in w: x (B, H, W, I), g (B, h, w, O) -> (kh, kw, I, O)."""
    w = _columns(x, kernel, stride, padding, g.shape[1:3]).T @ g.reshape(-1, g.shape[3])
    return w.reshape(*kernel, x.shape[3], -1)


def _columns(x: jax.Array, kernel: Pair, stride: Pair, padding: Padding, size: Pair) -> jax.Array:
    """What each output's taps see of x (B, H, W, I): (B h w, kh kw I)."""
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)))
    (s, t), (h, w) = stride, size
    seen = [x[:, i : i + s * (h - 1) + 1 : s, j : j + t * (w - 1) + 1 : t] for i, j in _taps(kernel)]
    return jnp.concatenate(seen, -1).reshape(-1, math.prod(kernel) * x.shape[3])


def _taps(kernel: Pair) -> list[Pair]:
    return [(i, j) for i in range(kernel[0]) for j in range(kernel[1])]
