"""Small pictures as they come from cameras and the net: Real-ESRGAN's degradation (Wang et al. 2021, 2107.10833).

Two rounds of blur, change of size, noise and JPEG; then the size that is wanted, and a sinc filter, before the last
JPEG or behind it. All numbers are the paper's (section 3 and appendix) and its public options', from memory.

Arrays have one size, whatever size is drawn: a picture lies in the upper left corner of a *canvas* as large as the
largest size of its round, and its last row and column are repeated up to the canvas' end. A change of size is a matrix
for the rows and one for the columns, whose entries are functions of the drawn sizes. So blur and JPEG see repeated
pixels beyond the border, where BasicSR mirrors them or has zeros. Noise of counted light has Poisson's mean and
skewness, and its variance to 1/18 of a count: a quadratic of a normal number, and not a draw of Poisson's law.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax.layers import random
from gan_jax.layers.jpeg import jpeg

KERNEL = 21  # pixels of the largest blur's side
SIZES = np.arange(7, KERNEL + 1, 2)  # of blurs, equally likely
# Gaussian, generalised Gaussian and plateau, each isotropic and not: how likely each is.
SHAPES = {"iso": 0.45, "aniso": 0.25, "generalised_iso": 0.12, "generalised_aniso": 0.03,
          "plateau_iso": 0.12, "plateau_aniso": 0.03}  # fmt: skip
GENERALISED, PLATEAU = (0.5, 4.0), (1.0, 2.0)  # exponents; as likely below 1 as above
SINC, LAST_SINC = 0.1, 0.8  # probabilities of a sinc filter in place of a round's blur, and behind both
GAUSSIAN, GREY = 0.5, 0.4  # probabilities of Gaussian noise, else Poisson's; of noise that is equal in all channels
QUALITY = (30.0, 95.0)  # of both JPEGs
AREA, BILINEAR, BICUBIC = MODES = range(3)  # ways to change a size, equally likely
NUMBERS = (16, 1, 16, 1, 5)  # U(0, 1) that both rounds, each with its JPEG, and the last filter take
GREYS = np.array([0.2989, 0.587, 0.114])  # of R, G, B


class Round(NamedTuple):
    """What a round draws from."""

    blur: float  # probability
    sigma: tuple[float, float]  # pixels, deviation of a blur
    larger: float  # probabilities of a change of size; else it stays
    smaller: float
    sizes: tuple[float, float]  # factors
    noise: tuple[float, float]  # levels of 256, deviation of Gaussian noise
    poisson: tuple[float, float]  # factor of Poisson noise


FIRST = Round(1.0, (0.2, 3.0), 0.2, 0.7, (0.15, 1.5), (1.0, 30.0), (0.05, 3.0))
SECOND = Round(0.8, (0.2, 1.5), 0.3, 0.4, (0.3, 1.2), (1.0, 25.0), (0.05, 2.5))


class Canvas(NamedTuple):
    """A picture in the upper left corner. Beyond it, its last row and column are repeated."""

    pixels: jax.Array  # (H, W, C) in [0, 1]
    height: jax.Array | int  # of the picture
    width: jax.Array | int


def degraded(images: jax.Array, keys: jax.Array, scale: int) -> jax.Array:
    """images (B, H, W, 1 or 3) in [0, 1] -> (B, H / scale, W / scale, C), rounded to the levels of a file.

    Args:
      keys: (B,), one for each picture, by which everything is drawn.
      scale: divides H and W.
    """
    sides, channels = images.shape[1:3], images.shape[3]
    shapes = _canvas(sides, FIRST), _canvas([side // scale for side in sides], SECOND)
    normals = [random.normal(random.fold(keys, n), (*shape, channels)) for n, shape in enumerate(shapes)]
    numbers = random.uniform(random.fold(keys, len(shapes)), (sum(NUMBERS),))
    return jax.vmap(partial(_degraded, scale=scale))(images, numbers, *normals)


def _canvas(sides, drawn: Round) -> tuple[int, int]:
    """The largest size of a round."""
    height, width = (max(math.floor(side * drawn.sizes[1]), 1) for side in sides)
    return height, width


def _degraded(image: jax.Array, numbers: jax.Array, *normals: jax.Array, scale: int) -> jax.Array:
    """One picture; `numbers` are U(0, 1), and N(0, 1) those of each round's noise."""
    parts = jnp.split(numbers, np.cumsum(NUMBERS)[:-1])
    small = tuple(side // scale for side in image.shape[:2])
    canvas = _round(parts[0], Canvas(image, *image.shape[:2]), image.shape[:2], normals[0], FIRST)
    canvas = _repeated(canvas._replace(pixels=_jpeg(parts[1], canvas.pixels)))
    canvas = _round(parts[2], canvas, small, normals[1], SECOND)
    is_sinc, cutoff, size, mode, is_last = parts[4]
    blur = sinc(_between(cutoff, (math.pi / 3, math.pi)), _one_of(size, SIZES))
    blur = jnp.where(is_sinc < LAST_SINC, blur, _nothing())

    def shrunk(pixels):
        pixels = resized(canvas._replace(pixels=pixels), small, small, _one_of(mode, MODES)).pixels
        return jnp.clip(blurred(pixels, blur), 0, 1)

    written = partial(_jpeg, parts[3])
    pixels = jnp.where(is_last < 0.5, written(shrunk(canvas.pixels)), shrunk(written(canvas.pixels)))
    return jnp.round(255 * pixels) / 255


def _round(u: jax.Array, canvas: Canvas, sides: tuple[int, int], normal: jax.Array, drawn: Round) -> Canvas:
    """Blur, change of size by a factor of `sides`, and noise."""
    blur, size, noise, kernel = jnp.split(u, (1, 4, 7))
    pixels = blurred(canvas.pixels, jnp.where(blur[0] < drawn.blur, random_blur(kernel, drawn.sigma), _nothing()))
    least, most = drawn.sizes
    factor = jnp.where(size[0] < drawn.larger, _between(size[1], (1.0, most)), 1.0)
    factor = jnp.where(size[0] > 1 - drawn.smaller, _between(size[1], (least, 1.0)), factor)
    goal = tuple(jnp.maximum(jnp.floor(side * factor).astype(jnp.int32), 1) for side in sides)
    changed = resized(canvas._replace(pixels=pixels), goal, _canvas(sides, drawn), _one_of(size[2], MODES))
    return _repeated(changed._replace(pixels=noisy(changed.pixels, normal, noise, drawn)))


def _repeated(canvas: Canvas) -> Canvas:
    """With the picture's last row and column beyond it, whatever was there."""
    rows, columns = (jnp.minimum(jnp.arange(count), side - 1)
                     for count, side in zip(canvas.pixels.shape[:2], canvas[1:], strict=True))  # fmt: skip
    return canvas._replace(pixels=canvas.pixels[rows][:, columns])


def _one_of(u: jax.Array, values: np.ndarray) -> jax.Array:
    return jnp.asarray(np.array(values))[jnp.floor(len(values) * u).astype(jnp.int32)]


def _between(u: jax.Array, ends: tuple[float, float]) -> jax.Array:
    return ends[0] + u * (ends[1] - ends[0])


# Blurs


def random_blur(u: jax.Array, sigma: tuple[float, float]) -> jax.Array:
    """A kernel (21, 21) that sums to 1: one of `SHAPES`, or a sinc filter; of a random size, with zeros around it.

    Args:
      u: (9,), U(0, 1).
      sigma: ends of the deviations along both axes.
    """
    first, second, angle, is_below, exponent, is_sinc, cutoff, size, shape = u
    size = _one_of(size, SIZES)
    shape = (shape > np.cumsum(list(SHAPES.values()))[:-1]).sum()
    first, second = _between(first, sigma), jnp.where(shape % 2 == 0, _between(first, sigma), _between(second, sigma))
    kind = shape // 2
    ends = [jnp.where(is_below < 0.5, _between(exponent, (low, 1.0)), _between(exponent, (1.0, high)))
            for low, high in (GENERALISED, PLATEAU)]  # fmt: skip
    kernel = bell(first, second, _between(angle, (-math.pi, math.pi)), kind, jnp.where(kind == 1, *ends), size)
    least = jnp.where(size < 13, math.pi / 3, math.pi / 5)
    return jnp.where(is_sinc < SINC, sinc(least + cutoff * (math.pi - least), size), kernel)


def bell(first, second, angle, kind, exponent, size) -> jax.Array:
    """A kernel (21, 21) of deviations `first` along an axis at an `angle` and `second` across, zero beyond `size`.

    `kind` 0: Gaussian, 1: with the squared distance to the power of `exponent`, 2: 1 / (1 + that).
    """
    y, x = _offsets()
    along, across = x * jnp.cos(angle) + y * jnp.sin(angle), y * jnp.cos(angle) - x * jnp.sin(angle)
    squared = (along / first) ** 2 + (across / second) ** 2
    power = jnp.where(squared > 0, jnp.where(squared > 0, squared, 1.0) ** jnp.where(kind == 0, 1.0, exponent), 0.0)
    return _of_size(jnp.where(kind == 2, 1 / (1 + power), jnp.exp(-power / 2)), size)


def sinc(cutoff, size) -> jax.Array:
    """A kernel (21, 21) that passes frequencies below `cutoff` (radians a pixel) in all directions; it rings.

    cutoff J1(cutoff r) / (2 pi r) at the distance r, J1 being Bessel's function.
    """
    radius = jnp.hypot(*_offsets())
    safe = jnp.where(radius > 0, radius, 1.0)
    angles = np.arange(96) * (2 * np.pi / 96)  # Bessel's integral, whose sum is exact up to rounding at these arguments
    bessel = jnp.cos(angles - (cutoff * safe)[..., None] * np.sin(angles)).mean(-1)
    kernel = jnp.where(radius > 0, cutoff * bessel / (2 * math.pi * safe), cutoff**2 / (4 * math.pi))
    return _of_size(kernel, size)


def _offsets() -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns from the middle, (21, 21) each."""
    y, x = np.mgrid[:KERNEL, :KERNEL] - KERNEL // 2
    return y.astype(np.float32), x.astype(np.float32)


def _of_size(kernel: jax.Array, size) -> jax.Array:
    y, x = _offsets()
    kernel = jnp.where(np.maximum(np.abs(y), np.abs(x)) <= (size - 1) / 2, kernel, 0.0)
    return kernel / kernel.sum()


def _nothing() -> np.ndarray:
    kernel = np.zeros((KERNEL, KERNEL), np.float32)
    kernel[KERNEL // 2, KERNEL // 2] = 1
    return kernel


def blurred(pixels: jax.Array, kernel: jax.Array) -> jax.Array:
    """pixels (H, W, C) filtered with a kernel (21, 21) that is equal from both ends; outermost pixels are repeated."""
    half = KERNEL // 2
    padded = jnp.pad(pixels, ((half, half), (half, half), (0, 0)), "edge")
    shape = tuple(side + KERNEL - 1 for side in padded.shape[:2])
    spectrum = jnp.fft.rfft2(padded, shape, axes=(0, 1)) * jnp.fft.rfft2(kernel, shape)[..., None]
    whole = jnp.fft.irfft2(spectrum, shape, axes=(0, 1))
    return whole[2 * half : 2 * half + pixels.shape[0], 2 * half : 2 * half + pixels.shape[1]]


# Sizes


def resized(canvas: Canvas, goal, shape: tuple[int, int], mode) -> Canvas:
    """The picture with `goal` (height, width) of pixels, on a canvas of `shape`; clipped to [0, 1].

    As PyTorch's `interpolate` without antialiasing does it: a smaller picture by `BILINEAR` or `BICUBIC` has aliases.
    """
    inside = canvas.height, canvas.width
    rows, columns = (
        weights(shape[axis], canvas.pixels.shape[axis], inside[axis], goal[axis], mode) for axis in range(2)
    )
    pixels = jnp.einsum("hi,ijc,wj->hwc", rows, canvas.pixels, columns, precision="highest")
    return Canvas(jnp.clip(pixels, 0, 1), *goal)


def weights(count: int, side: int, inside, goal, mode) -> jax.Array:
    """(count, side): what of each old pixel is in each new one. The new ones beyond `goal` are as the last.

    Args:
      count, side: pixels of the new and of the old canvas.
      inside: old pixels that are the picture's.
      goal: new ones, at most `count`.
      mode: `AREA`, `BILINEAR` or `BICUBIC`.
    """
    new, old = jnp.minimum(jnp.arange(count), goal - 1)[:, None], jnp.arange(side)[None]
    start, end = new * inside // goal, -(-(new + 1) * inside // goal)
    area = ((old >= start) & (old < end)) / (end - start)
    centre = (new + 0.5) * (inside / goal) - 0.5
    linear = jnp.maximum(1 - jnp.abs(jnp.clip(centre, 0, inside - 1) - old), 0)
    first, cubic = jnp.floor(centre), jnp.zeros((count, side))
    for tap in range(-1, 3):
        place = jnp.clip(first + tap, 0, inside - 1)
        cubic += jnp.where(old == place, _cubic(jnp.abs(centre - first - tap)), 0.0)
    return jnp.select([mode == AREA, mode == BILINEAR], [area, linear], cubic)


def _cubic(t: jax.Array, a: float = -0.75) -> jax.Array:
    """Keys' cubic at the distance t >= 0, with PyTorch's slope."""
    near = (a + 2) * t**3 - (a + 3) * t**2 + 1
    return jnp.where(t <= 1, near, jnp.where(t < 2, a * (t**3 - 5 * t**2 + 8 * t - 4), 0.0))


# Noise


def noisy(pixels: jax.Array, normal: jax.Array, u: jax.Array, drawn: Round) -> jax.Array:
    """pixels (H, W, C) in [0, 1] with noise, clipped.

    Args:
      normal: (H, W, C), N(0, 1).
      u: (3,), U(0, 1): which noise, whether it is grey, and how strong.
      drawn: what the strength is drawn from.
    """
    is_grey = u[1] < GREY
    normal = jnp.where(is_grey, normal[..., :1], normal)
    noise = jnp.where(u[0] < GAUSSIAN, _between(u[2], drawn.noise) / 255 * normal,
                      _between(u[2], drawn.poisson) * counted(pixels, normal, is_grey))  # fmt: skip
    return jnp.clip(pixels + noise, 0, 1)


def counted(pixels: jax.Array, normal: jax.Array, is_grey) -> jax.Array:
    """Noise of counted light: of a brightness b it has the variance b / levels.

    Levels are the power of two at or above the number of different ones of the picture; grey noise is of its grey. In
    counts, of which b levels are expected, it is sqrt(b levels) n + (n^2 - 1) / 6 (Cornish and Fisher 1938).
    """
    grey = (pixels @ GREYS)[..., None] if pixels.shape[2] == 3 else pixels
    seen = jnp.round(255 * jnp.where(is_grey, grey, pixels))
    different = jnp.zeros(256).at[seen.astype(jnp.int32).ravel()].set(1).sum()
    levels = 2 ** jnp.ceil(jnp.log2(different) - 1e-4)
    expected = seen / 255 * levels
    return jnp.where(seen > 0, jnp.sqrt(expected) * normal + (normal**2 - 1) / 6, 0.0) / levels


def _jpeg(u: jax.Array, pixels: jax.Array) -> jax.Array:
    return jpeg(pixels[None], _between(u, QUALITY))[0]
