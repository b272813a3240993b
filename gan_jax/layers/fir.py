"""FIR resampling of images: zero insertion, padding, a filter and decimation as one map (Karras et al. 2020).

Along each axis, with g the taps reversed (a true convolution) or as they are (`flip`), and u the input with
up - 1 zeros after each sample,

    y[m] = sum_k g[k] u[m * down + k - before]

Output positions of equal remainder modulo up / gcd(up, down) read the same taps at inputs down / gcd apart.
Each such phase is a sum of shifted slices: no zeros are inserted or multiplied, and nothing is computed that
decimation drops. The map is linear, and its transpose is the same map with up and down exchanged and the
taps reversed, so that reverse derivatives of any order are such maps again.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gan_jax.layers.conv import Padding, Pair, as_pair, conv

_MOST_TERMS = 144  # of a sum of slices, 12 x 12
Taps = tuple[float, ...] | np.ndarray | jax.Array | None


def upfirdn2d(
    x: jax.Array,
    taps: Taps,
    *,
    up: int | Pair = 1,
    down: int | Pair = 1,
    padding: int | Padding = 0,
    gain: float = 1.0,
    flip: bool = False,
) -> jax.Array:
    """Resamples x (B, H, W, C) by up / down through a filter -> (B, h, w, C), in the dtype of x.

    h = (H * up + top + bottom - taps) // down + 1. `up` and `down` are one number or (vertical, horizontal).
    `padding` is in pixels of the zero-inserted image, one number or ((top, bottom), (left, right)); negative
    values crop. `taps` (K,) filter both axes, (kh, kw) the plane, None is the identity; they are used as
    given, see `normalised`. The filter is a convolution, with `flip` a correlation; `gain` multiplies the
    result. Sums are float32 (float64 for float64 inputs). Only taps that are traced need be a `jax.Array`;
    derivatives are JAX's own then, slow where up or down is not 1.
    """
    assert x.ndim == 4, x.shape
    up, down, padding = as_pair(up), as_pair(down), as_padding(padding)
    if not isinstance(taps, jax.Array):
        taps = np.ones(1) if taps is None else np.asarray(taps, np.float64)
    kernel, before = kernel_size(taps), (padding[0][0], padding[1][0])
    assert taps.ndim in (1, 2) and min(kernel) > 0, taps.shape
    size = tuple(
        (n * u + sum(p) - k) // d + 1
        for n, u, p, k, d in zip(x.shape[1:3], up, padding, kernel, down, strict=True)
    )
    assert min(size) > 0, f"no pixels are left of {x.shape} after padding {padding} and {kernel} taps"
    if not flip:
        taps = taps[(slice(None, None, -1),) * taps.ndim]
    if taps.ndim == 2:
        return _apply(x, taps * gain, up, down, before, size)
    root = math.sqrt(abs(gain))
    column, row = (taps * root)[:, None], (taps * math.copysign(root, gain))[None]
    x = _apply(x, column, (up[0], 1), (down[0], 1), (before[0], 0), (size[0], x.shape[2]))
    return _apply(x, row, (1, up[1]), (1, down[1]), (0, before[1]), size)


def upsample2d(
    x: jax.Array,
    taps: Taps,
    factor: int = 2,
    *,
    padding: int | Padding = 0,
    gain: float = 1.0,
    flip: bool = False,
) -> jax.Array:
    """Enlarges x (B, H, W, C) to (B, H * factor, W * factor, C), plus `padding` in pixels of the output.

    Brightness is kept for taps of sum 1: the result is multiplied by factor ** 2 besides `gain`.
    """
    ends = tuple(((k + factor - 1) // 2, (k - factor) // 2) for k in kernel_size(taps))
    padding = _add(as_padding(padding), ends)
    return upfirdn2d(x, taps, up=factor, padding=padding, gain=gain * factor**2, flip=flip)


def downsample2d(
    x: jax.Array,
    taps: Taps,
    factor: int = 2,
    *,
    padding: int | Padding = 0,
    gain: float = 1.0,
    flip: bool = False,
) -> jax.Array:
    """Shrinks x (B, H, W, C) to (B, H / factor, W / factor, C); `padding` is in pixels of x."""
    ends = tuple(((k - factor + 1) // 2, (k - factor) // 2) for k in kernel_size(taps))
    return upfirdn2d(x, taps, down=factor, padding=_add(as_padding(padding), ends), gain=gain, flip=flip)


def filter2d(
    x: jax.Array,
    taps: Taps,
    *,
    padding: int | Padding = 0,
    gain: float = 1.0,
    flip: bool = False,
) -> jax.Array:
    """Filters x (B, H, W, C) at its own size, with zeros around it; `padding` enlarges the result."""
    ends = tuple((k // 2, (k - 1) // 2) for k in kernel_size(taps))
    return upfirdn2d(x, taps, padding=_add(as_padding(padding), ends), gain=gain, flip=flip)


def blur(x: jax.Array, sigma: float | jax.Array, *, largest: float) -> jax.Array:
    """Filters x (B, H, W, C) along both axes with 2 ** -(k / sigma)^2, |k| <= 3 sigma, of sum 1.

    `sigma`, in pixels, may be traced and lie anywhere in [0, largest]; 0 is the identity. It is the blur of
    the discriminator's input in StyleGAN3-R (Karras et al. 2021, appendix B), which fades out in training.
    """
    radius = math.floor(3 * largest)
    distance = np.abs(np.arange(-radius, radius + 1))
    sigma = jnp.asarray(sigma, jnp.promote_types(x.dtype, jnp.float32))
    taps = jnp.exp2(-jnp.square(distance / jnp.maximum(sigma, 1e-6)))
    taps = jnp.where(distance <= jnp.floor(3 * sigma), taps, 0)
    return filter2d(x, taps / jnp.sum(taps))


def normalised(taps: Taps, *, gain: float = 1.0, flip: bool = False) -> np.ndarray:
    """Taps (K,) or (kh, kw) of sum 1, times the gain that both axes together are to have."""
    taps = np.asarray(taps, np.float64)
    taps = taps / taps.sum()
    if flip:
        taps = taps[(slice(None, None, -1),) * taps.ndim]
    return taps * gain ** (taps.ndim / 2)


def kernel_size(taps: Taps) -> Pair:
    """Height and width of the filter that `upfirdn2d` applies for these taps."""
    if taps is None:
        return 1, 1
    shape = np.shape(taps)
    return shape if len(shape) == 2 else shape * 2


def as_padding(padding: int | Padding) -> Padding:
    """((top, bottom), (left, right)) of a padding that may be one number for all sides."""
    if isinstance(padding, int):
        return (padding, padding), (padding, padding)
    (top, bottom), (left, right) = padding
    return (top, bottom), (left, right)


def _add(a: Padding, b: Padding) -> Padding:
    return tuple((p[0] + q[0], p[1] + q[1]) for p, q in zip(a, b, strict=True))


def _apply(x, taps, up, down, before, size):
    if isinstance(taps, jax.Array):
        return _polyphase(x, taps, up, down, before, size)
    return _resample(x, tuple(map(tuple, taps.tolist())), up, down, before, size)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4, 5))
def _resample(x, taps, up, down, before, size):
    return _polyphase(x, np.asarray(taps), up, down, before, size)


def _forward(x, taps, up, down, before, size):
    return _resample(x, taps, up, down, before, size), x.shape[1:3]


def _backward(taps, up, down, before, size, shape, g):
    reverse = tuple(row[::-1] for row in taps[::-1])
    before = tuple(k - 1 - n for k, n in zip((len(taps), len(taps[0])), before, strict=True))
    return (_resample(g, reverse, down, up, before, shape),)


_resample.defvjp(_forward, _backward)


def _polyphase(x, taps, up, down, before, size):
    """The map of the module's head in both axes: taps (kh, kw), already reversed for a convolution."""
    rows, steps_h, pad_h = _phases(x.shape[1], taps.shape[0], up[0], down[0], before[0], size[0])
    columns, steps_w, pad_w = _phases(x.shape[2], taps.shape[1], up[1], down[1], before[1], size[1])
    dtype, wide = x.dtype, jnp.promote_types(x.dtype, jnp.float32)
    x = lax.pad(x, jnp.zeros((), dtype), ((0, 0, 0), (*pad_h, 0), (*pad_w, 0), (0, 0, 0)))
    if taps.size > _MOST_TERMS:
        y = _convolved(x.astype(wide), jnp.asarray(taps, wide), rows, columns, steps_h, steps_w)
    else:
        y = [[_shifted_sum(x, taps, row, column, steps_h, steps_w) for column in columns] for row in rows]
    y = _interleave([_interleave(row, 2) for row in y], 1)
    return y[:, : size[0], : size[1]].astype(dtype)


def _shifted_sum(x, taps, row, column, steps_h, steps_w):
    """One phase: the slices of padded x that its taps meet, weighted and added up in float32."""
    wide = jnp.promote_types(x.dtype, jnp.float32)
    total = None
    for k, i in row:
        for m, j in column:
            if isinstance(taps, np.ndarray) and taps[k, m] == 0:
                continue
            tap = float(taps[k, m]) if isinstance(taps, np.ndarray) else taps[k, m].astype(wide)
            part = tap * x[:, _strided(i, *steps_h), _strided(j, *steps_w)].astype(wide)
            total = part if total is None else total + part
    if total is None:  # fewer taps than zeros between the samples
        return lax.full_like(x[:, : steps_h[0], : steps_w[0]], 0)
    return total.astype(x.dtype)


def _convolved(x, taps, rows, columns, steps_h, steps_w):
    """All phases of many taps: one convolution of each channel alone, with an output for every phase.

    XLA takes minutes and gigabytes to fuse hundreds of slices.
    """
    height, width = (1 + max(start for axis in axes for _, start in axis) for axes in (rows, columns))
    index = np.full((height, width, len(rows), len(columns)), taps.size)  # the zero behind the taps
    for r, row in enumerate(rows):
        for c, column in enumerate(columns):
            for k, i in row:
                for m, j in column:
                    index[i, j, r, c] = k * taps.shape[1] + m
    kernel = jnp.append(taps.ravel(), 0)[index].reshape(height, width, 1, -1)
    b, h, w, channels = x.shape
    x = x.transpose(0, 3, 1, 2).reshape(b * channels, h, w, 1)
    y = conv(x, kernel, (steps_h[1], steps_w[1]))[:, : steps_h[0], : steps_w[0]]
    y = y.reshape(b, channels, steps_h[0], steps_w[0], len(rows), len(columns)).transpose(4, 5, 0, 2, 3, 1)
    return [[y[r, c] for c in range(len(columns))] for r in range(len(rows))]


def _phases(n, k, up, down, before, size):
    """How one axis of n samples is read.

    Returns for each phase its (tap, start) pairs, the (count, stride) of the samples read from every start,
    and the padding that makes all of them exist.
    """
    common = math.gcd(up, down)
    period, stride = up // common, down // common
    count = -(-size // period)
    starts = []
    for remainder in range(min(period, size)):
        first = remainder * down - before
        starts.append([(t, (first + t) // up) for t in range(k) if (first + t) % up == 0])
    used = [start for phase in starts for _, start in phase] or [0]
    low = max(0, -min(used))
    high = max(0, max(used) + stride * (count - 1) + 1 - n)
    return [[(t, s + low) for t, s in phase] for phase in starts], (count, stride), (low, high)


def _strided(start, count, stride):
    return slice(start, start + stride * (count - 1) + 1, stride)


def _interleave(parts, axis):
    """Joins P equal arrays so that along `axis` their elements take turns."""
    if len(parts) == 1:
        return parts[0]
    shape = list(parts[0].shape)
    shape[axis] *= len(parts)
    return jnp.stack(parts, axis + 1).reshape(shape)
