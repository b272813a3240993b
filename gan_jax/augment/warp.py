"""Affine maps of images without aliasing: the orthogonal lowpass of Karras et al. 2020 (2006.06676), appendix B.

Matrices are (B, 3, 3) on columns (x, y, 1) in pixels about the image's centre, x to the right and y down.
"""

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax.layers.fir import downsample2d, normalised, upsample2d

# Lowpass of the symlet of order 6 (Daubechies 1992, table 6.3): 12 taps, orthogonal, nearly symmetric.
SYM6 = (
    *(0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633),
    *(0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252),
    *(-0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148),
)
_MARGIN = len(SYM6) // 4  # pixels that the filter needs on each side of the output


def identity(b: int) -> jax.Array:
    """(b, 3, 3)."""
    return jnp.broadcast_to(jnp.eye(3), (b, 3, 3))


def scaling(x: jax.Array, y: jax.Array) -> jax.Array:
    """diag(x, y, 1) for factors (B,)."""
    zero = jnp.zeros_like(x)
    return _matrix((x, zero, zero), (zero, y, zero))


def translation(x: jax.Array, y: jax.Array) -> jax.Array:
    """Moves by (x, y), each (B,)."""
    zero, one = jnp.zeros_like(x), jnp.ones_like(x)
    return _matrix((one, zero, x), (zero, one, y))


def rotation(angle: jax.Array) -> jax.Array:
    """[[cos, -sin], [sin, cos]] for angles (B,)."""
    c, s, zero = jnp.cos(angle), jnp.sin(angle), jnp.zeros_like(angle)
    return _matrix((c, -s, zero), (s, c, zero))


def product(a: jax.Array, b: jax.Array) -> jax.Array:
    """a @ b in full float32: an angle's error is magnified by the image's size."""
    return jnp.matmul(a, b, precision="highest")


def _matrix(*rows):
    b = rows[0][0].shape[0]
    last = jnp.broadcast_to(jnp.array([0.0, 0.0, 1.0]), (b, 1, 3))
    return jnp.concatenate([jnp.stack([jnp.stack(row, -1) for row in rows], 1), last], 1)


def warp(images: jax.Array, inverse: jax.Array) -> jax.Array:
    """Images (B, H, W, C) seen through an affine map; `inverse` takes places of the output to places of the input.

    The image is continued by reflection, once on each side. It is enlarged twice, sampled bilinearly, and shrunk again
    with the transposed filter. The margin is the largest that can be needed, for then all shapes are static.
    """
    b, h, w, _ = images.shape
    taps = normalised(SYM6)
    x = jnp.pad(images, ((0, 0), (h - 1, h - 1), (w - 1, w - 1), (0, 0)), mode="reflect")
    x = upsample2d(x, taps)
    rows, columns = _places(inverse, (h, w), x.shape[1:3])
    x = bilinear(x, rows, columns)
    return downsample2d(x, taps, padding=-2 * _MARGIN, flip=True)


def _places(inverse, size, source):
    """Rows and columns (B, h, w) of the enlarged image of size `source` that the enlarged output of `size` looks at."""
    h, w = (2 * (n + 2 * _MARGIN) for n in size)
    # The filter enlarges by half a pixel too far: the map acts between grids that are moved by as much.
    y = (jnp.arange(h) + 1 - h / 2)[None, :, None]
    x = (jnp.arange(w) + 1 - w / 2)[None, None, :]
    m = inverse[:, :2, :, None, None]  # (B, row, column, 1, 1)
    columns, rows = (m[:, i, 0] * x + m[:, i, 1] * y + 2 * m[:, i, 2] for i in range(2))
    return rows + (source[0] / 2 - 1), columns + (source[1] / 2 - 1)


def bilinear(x: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """x (B, H, W, C) at places (B, h, w) -> (B, h, w, C), interpolated linearly, zero outside."""
    b, height, width, c = x.shape
    vertical, horizontal = _neighbours(rows, height), _neighbours(columns, width)
    index = jnp.stack([row * width + column for row, _ in vertical for column, _ in horizontal], 1).reshape(b, -1)
    weights = [down * right for _, down in vertical for _, right in horizontal]

    def look_up(image, at):
        return image.at[at].get(mode="promise_in_bounds")

    corners = jax.vmap(look_up)(x.reshape(b, -1, c), index).reshape(b, 4, *rows.shape[1:], c)
    return jnp.sum(corners * jnp.stack(weights, 1)[..., None].astype(x.dtype), 1)


def _neighbours(places: jax.Array, size: int) -> list[tuple[jax.Array, jax.Array]]:
    """(number, weight) of the pixel before each place along an axis and of the one after it; 0 weigh those outside."""
    before = jnp.floor(places)
    beyond = places - before
    return [
        (jnp.clip(at, 0, size - 1).astype(jnp.int32), jnp.where((at >= 0) & (at < size), weight, 0))
        for at, weight in ((before, 1 - beyond), (before + 1, beyond))
    ]


def toeplitz(taps: jax.Array, size: int) -> jax.Array:
    """Correlation with taps (B, K) as matrices (B, size, size + K - 1), for an axis that is padded already."""
    number = np.arange(size + taps.shape[1] - 1)[None] - np.arange(size)[:, None]
    inside = (number >= 0) & (number < taps.shape[1])
    return jnp.where(inside, taps[:, np.clip(number, 0, taps.shape[1] - 1)], 0)
