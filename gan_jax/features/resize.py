"""Resizing as TensorFlow 1, PyTorch and Pillow do it: features are only comparable behind the same resize.

Every resize here is separable and linear (but for Pillow's rounding), so it is two products with small matrices,
which are built in numpy from the sizes: one for the columns, then one for the rows. `size` is (height, width).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax.errors import UserError

Size = tuple[int, int]

_COEFFICIENT_BITS = 22  # of Pillow's fixed-point coefficients: 32 less 8 of a pixel, less 2 of headroom


def tf1_bilinear(x: jax.Array, size: Size, *, align_corners: bool = False) -> jax.Array:
    """`tf.image.resize_bilinear` of TensorFlow 1: pixel i is read at i * in / out, without half-pixel centres.

    Args:
      x: (B, H, W, C), float32.
      size: (height, width) of the result.
      align_corners: pixel i is read at i * (in - 1) / (out - 1) instead, so that the corners stay where they are.
    Returns:
      (B, height, width, C), float32. Not smoothed when it shrinks.
    """
    return _apply(x, *(_tf1_matrix(n, m, align_corners) for n, m in zip(x.shape[1:3], size, strict=True)))


def bilinear(x: jax.Array, size: Size, *, antialias: bool = False) -> jax.Array:
    """`torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`: half-pixel centres.

    Args:
      x: (B, H, W, C), float32.
      size: (height, width) of the result.
      antialias: whether the triangle widens with the reduction when it shrinks, as torch's `antialias=True`.
    Returns:
      (B, height, width, C), float32.
    """
    matrix = _half_pixel_matrix if not antialias else lambda n, m: _filter_matrix(n, m, "bilinear", np.float32)
    return _apply(x, *(matrix(n, m) for n, m in zip(x.shape[1:3], size, strict=True)))


def pil(
    x: jax.Array, size: Size, *, filter: str = "bicubic", quantise: bool = False, rows_first: bool = False
) -> jax.Array:
    """`PIL.Image.resize`: filters whose support widens with the reduction.

    Args:
      x: (B, H, W, C), float32; with `quantise` whole numbers from 0 to 255, in float32 or an integer type.
      size: (height, width) of the result.
      filter: "bicubic" (a = -0.5), "bilinear", "lanczos" (three lobes) or "box".
      quantise: as of a uint8 image, whose columns and then rows are resized in fixed point, each result rounded and
        clipped to 0..255; a direction that keeps its size is passed over. Otherwise as of a float image of one
        channel (mode "F"), which may leave the range of x.
      rows_first: the rows before the columns. Pillow 13 does so where the height falls, and by more than twice as
        many pixels as the width; earlier ones, with which the published numbers were taken, never do. Between
        squares there is no difference; a float image's is below its rounding.
    Returns:
      (B, height, width, C), float32.
    Raises:
      UserError: there is no such filter.
    """
    if filter not in _FILTERS:
        raise UserError(f"resize filter {filter!r}: expected one of {', '.join(map(repr, _FILTERS))}")
    rows, columns = (_filter_matrix(n, m, filter) for n, m in zip(x.shape[1:3], size, strict=True))
    if not quantise:
        return _apply(x, rows, columns)
    x = jnp.asarray(x, jnp.int32)
    passes = [("bhwc,vw->bhvc", columns), ("bhwc,uh->buwc", rows)]
    for product, matrix in passes[::-1] if rows_first else passes:
        if not _is_identity(matrix):
            x = _to_byte(jnp.einsum(product, x, _fixed_point(matrix)))
    return x.astype(jnp.float32)


def _apply(x: jax.Array, rows: np.ndarray, columns: np.ndarray) -> jax.Array:
    """Columns first, as the references do; matrices (out, in); an identity leaves x bit by bit as it is."""
    x = jnp.asarray(x, jnp.float32)
    if not _is_identity(columns):
        x = jnp.einsum("bhwc,vw->bhvc", x, columns.astype(np.float32), precision="highest")
    if not _is_identity(rows):
        x = jnp.einsum("bhwc,uh->buwc", x, rows.astype(np.float32), precision="highest")
    return x


def _is_identity(matrix: np.ndarray) -> bool:
    return matrix.shape[0] == matrix.shape[1] and np.allclose(matrix, np.eye(len(matrix)), rtol=0, atol=1e-12)


def _fixed_point(matrix: np.ndarray) -> np.ndarray:
    """Coefficients in units of 2^-22, halves rounded away from zero."""
    scaled = matrix * 2**_COEFFICIENT_BITS
    return np.trunc(scaled + np.copysign(0.5, scaled)).astype(np.int32)


def _to_byte(x: jax.Array) -> jax.Array:
    return jnp.clip((x + 2 ** (_COEFFICIENT_BITS - 1)) >> _COEFFICIENT_BITS, 0, 255)


# Matrices, (out, in)

def _tf1_matrix(n: int, m: int, align_corners: bool) -> np.ndarray:
    scale = (n - 1) / max(1, m - 1) if align_corners else n / m
    # in float32 as the kernel has it: whether a product falls below a whole number decides which pixels are mixed
    return _two_taps(np.arange(m, dtype=np.float32) * np.float32(scale), n)


def _half_pixel_matrix(n: int, m: int) -> np.ndarray:
    # the scale in float32, then a fused multiply and add: at large coordinates another rounding shifts the image
    source = (np.arange(m) + 0.5) * np.float64(np.float32(n / m)) - 0.5
    return _two_taps(np.maximum(source, 0).astype(np.float32), n)


def _two_taps(source: np.ndarray, n: int) -> np.ndarray:
    """Linear interpolation between the two pixels about each source coordinate, the last pixel repeated."""
    low = np.minimum(source.astype(np.int64), n - 1)
    share = (source - low.astype(np.float32)).astype(np.float64)
    matrix = np.zeros((len(source), n))
    index = np.arange(len(source))
    np.add.at(matrix, (index, low), 1 - share)
    np.add.at(matrix, (index, np.minimum(low + 1, n - 1)), share)
    return matrix


def _filter_matrix(n: int, m: int, filter: str, dtype=np.float64) -> np.ndarray:
    """Samples of a filter about each half-pixel centre, stretched by the reduction, normalised to sum 1.

    Pillow computes them in float64, PyTorch in float32.
    """
    radius, weight = _FILTERS[filter]
    scale, half = dtype(n / m), dtype(0.5)
    stretch = max(scale, dtype(1))
    matrix = np.zeros((m, n))
    for i in range(m):
        centre = dtype(i + 0.5) * scale
        first = max(int(centre - dtype(radius) * stretch + half), 0)
        last = min(int(centre + dtype(radius) * stretch + half), n)
        taps = weight((np.arange(first, last).astype(dtype) - centre + half) * (dtype(1) / stretch))
        matrix[i, first:last] = taps / taps.sum()
    return matrix


def _bicubic(t: np.ndarray, a: float = -0.5) -> np.ndarray:
    """The piecewise cubic of Keys 1981, equation 4."""
    t = np.abs(t)
    inner = ((a + 2) * t - (a + 3)) * t * t + 1
    outer = (((t - 5) * t + 8) * t - 4) * a
    return np.where(t < 1, inner, np.where(t < 2, outer, 0.0))


def _triangle(t: np.ndarray) -> np.ndarray:
    return np.maximum(1 - np.abs(t), 0)


def _lanczos(t: np.ndarray) -> np.ndarray:
    return np.where((t >= -3) & (t < 3), np.sinc(t) * np.sinc(t / 3), 0.0)


def _box(t: np.ndarray) -> np.ndarray:
    return np.where((t > -0.5) & (t <= 0.5), 1.0, 0.0)


_FILTERS: dict[str, tuple[float, Callable]] = {
    "bicubic": (2.0, _bicubic), "bilinear": (1.0, _triangle), "lanczos": (3.0, _lanczos), "box": (0.5, _box),
}
