"""How large pictures become the small ones that super-resolution is given: pure functions of the pictures."""

import math

import jax
import jax.numpy as jnp
import numpy as np


def bicubic(images: jax.Array, scale: float) -> jax.Array:
    """images (B, H, W, C) float -> (B, ceil(H * scale), ceil(W * scale), C), as MATLAB's `imresize` has them.

    The cubic of Keys (1981, a = -1/2), as much wider as the pictures become smaller. Beyond the border they are
    mirrored, its pixels repeated. Benchmarks of super-resolution are made with it.
    """
    rows, columns = (jnp.asarray(_weights(side, scale), images.dtype) for side in images.shape[1:3])
    return jnp.einsum("hi,bijc,wj->bhwc", rows, images, columns, precision="highest")


def low_resolution(images: jax.Array, scale: int) -> jax.Array:
    """images (B, H, W, C) in [0, 1] -> (B, H / scale, W / scale, C), rounded to the 256 levels of a file of pixels."""
    return jnp.round(jnp.clip(bicubic(images, 1 / scale), 0, 1) * 255) / 255


def sharpened(images: jax.Array, weight: float = 0.5, radius: int = 50, threshold: float = 10.0) -> jax.Array:
    """images (B, H, W, C) in [0, 1], sharpened as Real-ESRGAN (2107.10833) sharpens what is aimed at.

    Unsharp masking, where what a Gaussian blur takes away is above the threshold; the border between there and
    elsewhere is blurred itself.

    Args:
      images: of sides above `radius` / 2.
      weight: of what is added.
      radius: pixels of the blur's window; made odd.
      threshold: in 256ths.
    """
    size = radius + (radius + 1) % 2
    rows, columns = (jnp.asarray(_blurring(side, size), images.dtype) for side in images.shape[1:3])

    def blurred(x):
        return jnp.einsum("hi,bijc,wj->bhwc", rows, x, columns, precision="highest")

    residual = images - blurred(images)
    soft = blurred((jnp.abs(residual) * 255 > threshold).astype(images.dtype))
    return soft * jnp.clip(images + weight * residual, 0, 1) + (1 - soft) * images


def _blurring(side: int, size: int) -> np.ndarray:
    """(side, side): a Gaussian of `size` taps, as wide as OpenCV makes it for them, with mirrored borders."""
    sigma = 0.3 * ((size - 1) / 2 - 1) + 0.8
    offsets = np.arange(size) - size // 2
    taps = np.exp(-(offsets**2) / (2 * sigma**2))
    places = np.abs(np.arange(side)[:, None] + offsets)
    places = np.minimum(places, 2 * (side - 1) - places)  # the outermost pixel is not repeated
    table = np.zeros((side, side))
    np.add.at(table, (np.broadcast_to(np.arange(side)[:, None], places.shape), places), taps / taps.sum())
    return table


def _weights(side: int, scale: float) -> np.ndarray:
    """(new side, side): what of each old pixel is in each new one; rows sum to 1."""
    count, narrow = math.ceil(side * scale), min(scale, 1.0)
    width = 4 / narrow  # of the kernel, in old pixels
    centres = (np.arange(count) + 0.5) / scale - 0.5
    places = np.floor(centres - width / 2).astype(int)[:, None] + np.arange(math.ceil(width) + 2)
    weights = _cubic(narrow * (centres[:, None] - places))
    weights /= weights.sum(1, keepdims=True)
    mirrored = places % (2 * side)
    mirrored = np.where(mirrored < side, mirrored, 2 * side - 1 - mirrored)
    table = np.zeros((count, side))
    np.add.at(table, (np.broadcast_to(np.arange(count)[:, None], places.shape), mirrored), weights)
    return table


def _cubic(distance: np.ndarray) -> np.ndarray:
    t = np.abs(distance)
    return np.where(t <= 1, 1.5 * t**3 - 2.5 * t**2 + 1, np.where(t <= 2, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2, 0.0))
