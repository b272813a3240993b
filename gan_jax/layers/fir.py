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
import operator
from functools import cache, partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gan_jax.layers.conv import Padding, Pair, as_pair, conv

_MOST_TERMS = 144  # of a sum of slices, 12 x 12
_MOST_WHOLE = 64  # among taps that are left whole numbers: bfloat16 has them all
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
    column, row, scale = _separated(taps, gain)
    first = math.prod(up) > math.prod(down) or x.dtype == jnp.float16  # the smaller image; float16 holds no larger sums
    x = x * scale if scale != 1 and first else x
    x = _apply(x, column[:, None], (up[0], 1), (down[0], 1), (before[0], 0), (size[0], x.shape[2]))
    x = _apply(x, row[None], (1, up[1]), (1, down[1]), (0, before[1]), size)
    return x if scale == 1 or first else x * scale


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


def _separated(taps, gain):
    """Vertical and horizontal taps, and a factor; multiples of one number, such as 1/8, 3/8, 3/8, 1/8, become whole."""
    if isinstance(taps, np.ndarray) and taps.any():
        unit = np.abs(taps[taps != 0]).min()
        integers = np.round(taps / unit)
        if np.abs(integers).max() <= _MOST_WHOLE and np.allclose(taps, integers * unit, rtol=1e-12, atol=0):
            return integers, integers, float(unit * unit * gain)
    root = math.sqrt(abs(gain))
    return taps * root, taps * math.copysign(root, gain), 1


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
    if any((*pad_h, *pad_w)):
        x = lax.pad(x, np.zeros((), dtype), ((0, 0, 0), (*pad_h, 0), (*pad_w, 0), (0, 0, 0)))
    x = x.astype(wide)
    if taps.size > _MOST_TERMS:
        y = _convolved(x, jnp.asarray(taps, wide), rows, columns, steps_h, steps_w)
    else:
        y = _shifted_sums(x, taps, rows, columns, steps_h, steps_w)
    y = _interleave([_interleave([part.astype(dtype) for part in row], 2) for row in y], 1)
    return y if y.shape[1:3] == size else y[:, : size[0], : size[1]]


def _shifted_sums(x, taps, rows, columns, steps_h, steps_w):
    """All phases: of each, the slices of padded x that its taps meet, weighted and added up.

    In few operations, as programs hold many of these maps: slices of the same tap are added up first, a tap of 1 does
    not weigh, and what several phases read alike is weighed and cut once.
    """

    def weighed(x, tap):
        if isinstance(tap, tuple):  # the place of a traced one
            return taps[tap].astype(x.dtype) * x
        return x if tap == 1 else tap * x

    @cache
    def weighed_slice(tap, i, j):
        return weighed(x, tap)[:, _strided(i, *steps_h), _strided(j, *steps_w)]

    def phase(row, column):
        starts = {}
        for k, i in row:
            for m, j in column:
                tap = (k, m) if isinstance(taps, jax.Array) else float(taps[k, m])
                starts.setdefault(tap, []).append((i, j))
        starts.pop(0.0, None)
        if not starts:  # fewer taps than zeros between the samples
            return lax.full_like(x[:, : steps_h[0], : steps_w[0]], 0)
        parts = []
        for tap, places in starts.items():
            if len(places) == 1 and len(rows) * len(columns) > 1:
                parts.append(weighed_slice(tap, *places[0]))
            else:
                parts.append(weighed(reduce(operator.add, (weighed_slice(1, *place) for place in places)), tap))
        return reduce(operator.add, parts)

    return [[phase(row, column) for column in columns] for row in rows]


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
    all_starts = [start for phase in starts for _, start in phase] or [0]
    low = max(0, -min(all_starts))
    high = max(0, max(all_starts) + stride * (count - 1) + 1 - n)
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
