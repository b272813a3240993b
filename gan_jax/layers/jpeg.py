"""JPEG on the device: what a picture becomes when it is written with a quality and read again.

ITU-T T.81: squares of 8x8 pixels, their cosine transform, rounded by the tables of annex K; colours at half the size in
both directions. As the library of the Independent JPEG Group does it, to rounding: its scale of qualities, means of
2x2 pixels, and an enlargement between the centres of pixels.
"""

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax.layers.enlarge import bilinear
from gan_jax.layers.rescale import downscale

SIDE = 8  # pixels of a square
# Steps of the coefficients at quality 50, of annex K: of luma, and of both colours.
LUMA = np.array([
    [16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56], [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99],
])  # fmt: skip
CHROMA = np.full((SIDE, SIDE), 99)
CHROMA[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
# Y, Cb and Cr of R, G and B of JFIF; Cb and Cr lie around 128.
YCC = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])


def _cosines() -> np.ndarray:
    """(8, 8): row u has the u-th cosine of the orthonormal transform."""
    u, x = np.mgrid[:SIDE, :SIDE]
    return np.cos((2 * x + 1) * u * np.pi / (2 * SIDE)) * np.sqrt(np.where(u == 0, 1, 2) / SIDE)


def jpeg(images: jax.Array, quality: jax.Array) -> jax.Array:
    """Pictures (B, H, W, 1 or 3) in [0, 1] of any size, written with qualities (B,) of 1 to 100 and read again.

    Qualities are rounded to whole ones. Beyond the lower right border the outermost pixels are repeated.
    """
    height, width = images.shape[1:3]
    pads = [(0, -n % (2 * SIDE)) for n in (height, width)]
    levels = jnp.round(255 * jnp.pad(images, [(0, 0), *pads, (0, 0)], "edge"))
    quality = jnp.clip(jnp.round(quality), 1, 100)
    percent = jnp.where(quality < 50, jnp.floor(5000 / quality), 200 - 2 * quality)
    if images.shape[3] == 1:
        levels = _rounded(levels, LUMA, percent)
    else:
        ycc = jnp.round(jnp.einsum("bhwc,dc->bhwd", levels, YCC, precision="highest"))
        luma = _rounded(ycc[..., :1], LUMA, percent)
        colours = jnp.round(downscale(ycc[..., 1:])) + 128
        colours = jnp.round(bilinear(_rounded(colours, CHROMA, percent), 2)) - 128
        read = jnp.concatenate([luma, colours], -1)
        levels = jnp.einsum("bhwd,cd->bhwc", read, np.linalg.inv(YCC), precision="highest")
    return jnp.clip(jnp.round(levels), 0, 255)[:, :height, :width] / 255


def _rounded(levels: jax.Array, table: np.ndarray, percent: jax.Array) -> jax.Array:
    """Levels (B, H, W, C), H and W multiples of 8, of coefficients that are multiples of the table's steps."""
    steps = jnp.clip(jnp.floor((table * percent[:, None, None] + 50) / 100), 1, 255)[:, None, None, None]
    b, h, w, c = levels.shape
    squares = (levels - 128).reshape(b, h // SIDE, SIDE, w // SIDE, SIDE, c).transpose(0, 1, 3, 5, 2, 4)
    cosines = jnp.asarray(_cosines(), levels.dtype)
    coefficients = jnp.einsum("ux,...xy,vy->...uv", cosines, squares, cosines, precision="highest")
    coefficients = steps * jnp.round(coefficients / steps)
    squares = jnp.einsum("ux,...uv,vy->...xy", cosines, coefficients, cosines, precision="highest")
    levels = squares.transpose(0, 1, 4, 2, 5, 3).reshape(b, h, w, c)
    return jnp.clip(jnp.round(levels + 128), 0, 255)
