"""EQ-T and EQ-R of StyleGAN3 (Karras et al. 2021, arXiv 2106.12423, eq. 3 and appendix E).

How well moving the generator's input moves its image: the peak signal-to-noise ratio, in decibels, between the
image of the moved input and the moved image of the unmoved one, over the pixels that both know. Images are
(B, H, W, C), nominally in [-1, 1]; x points to the right, y down, lengths are in shares of the image's shorter side.
"""

import math
from collections.abc import Callable, Iterable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gan_jax.errors import UserError

METRICS = ("eqt_int", "eqt_frac", "eqr")
TRANSLATE_MAX = 0.125  # largest shift along an axis, as published
ROTATE_MAX = 1.0  # largest angle, in half turns
PEAK = 2.0  # range of the images, for the ratio
LANCZOS = 3  # half-width of the filters, in samples
_UP = 4  # enlargement before a rotated image is read
_FIELD = 64  # the ideal filters are convolved on a square that reaches so many samples from its centre


def equivariance(
    render: Callable[[int, np.ndarray], jax.Array],
    draws: Iterable[np.ndarray],
    *,
    metric: str,
    translate_max: float = TRANSLATE_MAX,
    rotate_max: float = ROTATE_MAX,
) -> float:
    """PSNR in decibels of one of METRICS: EQ-T by whole pixels, EQ-T by fractions of them, EQ-R.

    Args:
      render: (number of the batch, transform (3, 3)) -> images (B, H, W, C): the same latents for the same number,
        through the generator whose input plane is mapped by the transform.
      draws: for each batch one draw, see `motion`.
    Raises:
      UserError: an unknown metric, or no draws.
    """
    error = weight = 0.0
    for number, one in enumerate(draws):
        unmoved = render(number, np.eye(3))
        limits = {"translate_max": translate_max, "rotate_max": rotate_max}
        move = motion(metric, one, min(unmoved.shape[1:3]), **limits)
        more, pixels = squared_error(metric, unmoved, render(number, transform(metric, move)), move)
        error, weight = error + more, weight + pixels
    return decibels(error, weight, metric)


def motion(
    metric: str, draw: np.ndarray, side: int, *, translate_max: float = TRANSLATE_MAX, rotate_max: float = ROTATE_MAX
) -> float | np.ndarray:
    """How far a picture is moved: an angle, (2 u - 1) pi rotate_max, or a shift (2,), (2 u - 1) translate_max.

    Args:
      metric: one of METRICS.
      draw: u in [0, 1), a scalar for 'eqr', else (2,) along x and y.
      side: pixels of the image's shorter side, to whose multiples 'eqt_int' rounds.
    Raises:
      UserError: an unknown metric.
    """
    if metric not in METRICS:
        raise UserError(f"metric {metric!r} is unknown; expected one of {', '.join(METRICS)}")
    if metric == "eqr":
        return (2 * float(draw) - 1) * math.pi * rotate_max
    shift = (2 * np.asarray(draw, np.float64) - 1) * translate_max
    return np.rint(shift * side) / side if metric == "eqt_int" else shift


def transform(metric: str, move: float | np.ndarray) -> np.ndarray:
    """(3, 3), the map of the generator's input plane whose picture is moved by `motion`'s result."""
    return rotation(-move) if metric == "eqr" else translation(-move)


def squared_error(metric: str, unmoved: jax.Array, moved: jax.Array, move: float | np.ndarray) -> tuple[float, float]:
    """(sum of squared errors, number of values) between the moved image of the unmoved input and the moved input's.

    Args:
      metric: one of METRICS.
      unmoved: images (B, H, W, C).
      moved: the same through the generator with `transform`.
      move: see `motion`.
    """
    if metric == "eqr":
        reference, mask = rotate(unmoved, move)
        moved, valid = band_limit(moved, move)
        mask = mask * valid
    else:
        reference, mask = translate(unmoved, move, whole=metric == "eqt_int")
    error = float(_squared_error(reference, moved, mask))
    return error, float(np.sum(mask)) * unmoved.shape[0] * unmoved.shape[3]


def decibels(error: float, weight: float, metric: str) -> float:
    """PSNR of images in [-1, 1] from the sums that `squared_error` gives; infinite where there is no error.

    Raises:
      UserError: nothing was summed up.
    """
    if not weight:
        raise UserError(f"{metric}: no draws, or no pixel that stays within the image; give at least one batch")
    return 20 * math.log10(PEAK) - 10 * math.log10(error / weight) if error else math.inf


def draw(metric: str, batches: int, seed: int) -> np.ndarray:
    """Draws from U[0, 1) for `motion`: (batches, 2), or (batches,) for 'eqr'."""
    shape = (batches,) if metric == "eqr" else (batches, 2)
    return np.random.default_rng(seed).random(shape)


def rotation(angle: float) -> np.ndarray:
    """(3, 3) map of the plane, (x, y) -> (c x + s y, c y - s x): counter-clockwise to the eye, as y points down."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])


def translation(shift: np.ndarray) -> np.ndarray:
    """(3, 3) map of the plane that adds (x, y)."""
    matrix = np.eye(3)
    matrix[:2, 2] = shift
    return matrix


def translate(images: jax.Array, shift: np.ndarray, *, whole: bool = False) -> tuple[jax.Array, np.ndarray]:
    """Images (B, H, W, C) moved by (x, y), and the mask (H, W) of pixels known from within.

    By whole pixels, or through a Lanczos filter with zeros around the image.
    """
    (h, w), (x, y) = images.shape[1:3], np.asarray(shift, np.float64) * min(images.shape[1:3])
    (rows, mask_y), (columns, mask_x) = _shift_matrix(h, y, whole), _shift_matrix(w, x, whole)
    return _separable(images, rows, columns), np.outer(mask_y, mask_x).astype(np.float32)


def rotate(images: jax.Array, angle: float) -> tuple[jax.Array, np.ndarray]:
    """Images (B, H, W, C) turned by `rotation(angle)` about their centre, and the mask (H, W) of known pixels.

    They are low-passed to what both grids can hold, enlarged, and read bilinearly.
    """
    h, w = images.shape[1:3]
    matrix = rotation(angle)
    taps = band_limit_taps(matrix, _UP)
    edge = len(taps) // 2  # pixels of the enlarged image that are added on each side
    y, x = np.meshgrid(np.arange(h) - (h - 1) / 2, np.arange(w) - (w - 1) / 2, indexing="ij")
    x, y = np.moveaxis(np.stack([x, y], -1) @ np.linalg.inv(matrix[:2, :2]).T, -1, 0)
    x, y = _UP * (x + w / 2) + edge, _UP * (y + h / 2) + edge
    mask = _inside(x, w * _UP, edge) & _inside(y, h * _UP, edge)
    return _read(_enlarge(images, taps.astype(np.float32)), y, x), mask.astype(np.float32)


def band_limit(images: jax.Array, angle: float) -> tuple[jax.Array, np.ndarray]:
    """Images (B, H, W, C) low-passed to what `rotate` by this angle keeps, but not turned, and the mask (H, W)."""
    taps = band_limit_taps(rotation(-angle), 1)
    edge = len(taps) // 2
    mask = np.zeros(images.shape[1:3], np.float32)
    mask[edge:-edge, edge:-edge] = 1
    return _filter(images, taps[::-1, ::-1, None].astype(np.float32), ((edge, edge), (edge, edge))), mask


def band_limit_taps(matrix: np.ndarray, up: int) -> np.ndarray:
    """Low-pass filter (n, n), n = 12 up - 1, for an affine map between two unit grids, on a grid `up` times as fine.

    The ideal filters of the source grid and of the target grid, both squares in frequency, are convolved, and
    windowed by the convolution of their Lanczos windows. Every one of the up ** 2 phases has the sum up ** -2.
    """
    reach = 2 * LANCZOS  # of the convolved windows
    field = _FIELD * up
    t = np.fft.ifftshift(np.arange(1 - field, field)) / up
    y, x = np.meshgrid(t, t, indexing="ij")
    grids = [(x, y), np.moveaxis(np.stack([x, y], -1) @ matrix[:2, :2].T, -1, 0)]

    def convolved(function):
        return np.fft.ifftn(np.prod([np.fft.fftn(function(*grid)) for grid in grids], axis=0)).real

    def window(x, y):
        inside = (np.abs(x) < LANCZOS) & (np.abs(y) < LANCZOS)
        return np.sinc(x / LANCZOS) * np.sinc(y / LANCZOS) * inside

    taps = np.fft.fftshift(convolved(lambda x, y: np.sinc(x) * np.sinc(y)) * convolved(window))
    crop = field - reach * up
    taps = np.pad(taps[crop:-crop, crop:-crop], (0, 1)).reshape(2 * reach, up, 2 * reach, up)
    taps = taps / taps.sum((0, 2), keepdims=True) / up**2
    return taps.reshape(2 * reach * up, 2 * reach * up)[:-1, :-1]


def _shift_matrix(n: int, shift: float, whole: bool) -> tuple[np.ndarray, np.ndarray]:
    """(n, n) from the axis to the moved axis, and which of its samples are known (n,)."""
    start = round(shift) if whole else math.floor(shift)
    offset = np.arange(n)[:, None] - np.arange(n) - start
    if whole:
        low = high = 0
        weights = (offset == 0).astype(np.float32)
    else:
        low, high = LANCZOS - 1, LANCZOS  # taps before and after
        distance = np.arange(-low, high + 1) - (shift - start)
        taps = np.sinc(distance) * np.sinc(distance / LANCZOS)
        taps /= taps.sum()
        inside = (offset >= -low) & (offset <= high)
        weights = np.where(inside, taps[np.clip(offset + low, 0, len(taps) - 1)], 0).astype(np.float32)
    i = np.arange(n) - start
    return weights, (i >= high) & (i < n - low)


def _inside(position: np.ndarray, size: int, edge: int) -> np.ndarray:
    """Whether the enlarged sample that is nearest lies more than `edge` away from the image's border."""
    nearest = np.rint(position)
    return (nearest >= 2 * edge + 1) & (nearest < size - 1)


@jax.jit
def _separable(images, rows, columns):
    return jnp.einsum("ih,bhwc,jw->bijc", rows, images, columns, precision="highest")


@jax.jit
def _squared_error(a, b, mask):
    return jnp.sum(jnp.square(a - b) * mask[:, :, None])


@partial(jax.jit, static_argnums=2)
def _filter(images, kernels, padding):
    """Correlates each channel of images (B, H, W, C) with kernels (h, w, K) -> (B, H', W', C * K)."""
    b, h, w, c = images.shape
    x = images.transpose(0, 3, 1, 2).reshape(b * c, h, w, 1)
    y = lax.conv_general_dilated(
        x, kernels[:, :, None, :], (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest"
    )
    return y.reshape(b, c, *y.shape[1:3], -1).transpose(0, 2, 3, 1, 4).reshape(b, *y.shape[1:3], -1)


@jax.jit
def _enlarge(images, taps):
    """Images with zeros inserted and filtered by taps (n, n) of sum 1, n + 1 a multiple of _UP: size * _UP + n - 1.

    Sample _UP q + 1 + r of the result, per axis, reads source samples q + s - size + 1 with taps _UP s + _UP - 1 - r.
    """
    b, h, w, c = images.shape
    size = (len(taps) + 1) // _UP
    kernels = jnp.pad(taps[::-1, ::-1] * _UP**2, (0, 1)).reshape(size, _UP, size, _UP)[:, ::-1, :, ::-1]
    kernels = kernels.transpose(0, 2, 1, 3).reshape(size, size, _UP**2)
    y = _filter(images, kernels, ((size, size), (size, size)))  # q from -1 on
    q = y.shape[1:3]
    y = y.reshape(b, *q, c, _UP, _UP).transpose(0, 1, 4, 2, 5, 3).reshape(b, q[0] * _UP, q[1] * _UP, c)
    first, extra = _UP - 1, len(taps) - 1
    return y[:, first : first + h * _UP + extra, first : first + w * _UP + extra]


def _read(images: jax.Array, y: np.ndarray, x: np.ndarray) -> jax.Array:
    """Images (B, H, W, C) read bilinearly at rows y (h, w) and columns x (h, w), zero outside -> (B, h, w, C)."""
    i, j = np.floor(y).astype(np.int32), np.floor(x).astype(np.int32)
    return _interpolate(images, i, j, (y - i).astype(np.float32), (x - j).astype(np.float32))


@jax.jit
def _interpolate(images, i, j, fy, fx):
    h, w = images.shape[1:3]

    def sample(i, j, weight):
        weight = jnp.where((i >= 0) & (i < h) & (j >= 0) & (j < w), weight, 0)
        return images[:, jnp.clip(i, 0, h - 1), jnp.clip(j, 0, w - 1)] * weight[:, :, None]

    return (
        sample(i, j, (1 - fy) * (1 - fx))
        + sample(i, j + 1, (1 - fy) * fx)
        + sample(i + 1, j, fy * (1 - fx))
        + sample(i + 1, j + 1, fy * fx)
    )
