"""Perceptual path length: how far an image moves, as a network sees it, for a small step between two latents.

Karras et al. 2019 (arXiv 1812.04948), section 4.1, and Karras et al. 2020 (arXiv 1912.04958), in the order of the
official code: latents -> `ends` -> the mapping network (for Z) -> the synthesis network with one noise for both
ends -> `prepared` -> features of the perceptual network -> `distances` -> `trimmed_mean`. Steps on latents and
images are jittable and independent per sample; the final mean is numpy float64.
"""

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax.errors import UserError

EPSILON = 1e-4  # length of the step, as published
SPACES = ("z", "w")
SAMPLINGS = ("full", "end")
RESOLUTION = 256  # larger images are shrunk for the perceptual network


def normalised(x: jax.Array) -> jax.Array:
    """x (..., D) over its length."""
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def slerp(a: jax.Array, b: jax.Array, t: jax.Array) -> jax.Array:
    """Point at share t of the great circle from a to b, of length 1; NaN where a and b are parallel.

    Args:
      a, b: (..., D) of any length above 0.
      t: broadcastable with (..., 1).
    """
    a, b = normalised(a), normalised(b)
    cosine = jnp.sum(a * b, axis=-1, keepdims=True)
    angle = t * jnp.arccos(cosine)
    ahead = normalised(b - cosine * a)
    return normalised(a * jnp.cos(angle) + ahead * jnp.sin(angle))


def lerp(a: jax.Array, b: jax.Array, t: jax.Array) -> jax.Array:
    """a + t (b - a)."""
    return a + t * (b - a)


def positions(uniform: jax.Array, *, sampling: str) -> jax.Array:
    """Where on its path each step starts: the draw from [0, 1) itself for 'full', 0 for 'end'.

    Raises:
      UserError: an unknown sampling.
    """
    _check_choice("sampling", sampling, SAMPLINGS)
    return uniform if sampling == "full" else jnp.zeros_like(uniform)


def ends(a: jax.Array, b: jax.Array, t: jax.Array, *, space: str, epsilon: float = EPSILON) -> jax.Array:
    """Both ends of each step, at t and t + epsilon: by `slerp` in Z, by `lerp` in W.

    Args:
      a, b: (B, D) in Z; (B, D) or (B, num_ws, D) in W.
      t: (B,), see `positions`.
      space: 'z' or 'w'.
    Returns:
      (2 B, ...): all beginnings, then all ends, in the samples' order.
    Raises:
      UserError: an unknown space.
    """
    _check_choice("space", space, SPACES)
    along = slerp if space == "z" else lerp
    t = t.reshape(-1, *[1] * (a.ndim - 1))
    return jnp.concatenate([along(a, b, t), along(a, b, t + epsilon)])


def prepared(images: jax.Array, *, crop: bool = False, count_after_crop: bool = False) -> jax.Array:
    """Images as the perceptual network sees them: cropped, averaged down over boxes, in [0, 255], three channels.

    Args:
      images: (B, H, H, C), nominally in [-1, 1], not clipped; C 1 or 3.
      crop: the middle of a face: rows 3/8 to 7/8, columns 2/8 to 6/8.
      count_after_crop: the boxes' side is the cropped image's side over 256, as in the TensorFlow code (a 1024
        image ends at 256); else the whole image's, as in the PyTorch code (it ends at 128).
    Returns:
      (B, h, w, 3).
    Raises:
      UserError: images are not square or have other channels, or a crop of less than 8 pixels.
    """
    b, h, w, c = images.shape
    if h != w or c not in (1, 3) or (crop and h < 8):
        raise UserError(f"path length of images {images.shape}: expected square ones of 1 or 3 channels, "
                        "of at least 8 pixels where they are cropped.")
    if crop:
        eighth = h // 8
        images = images[:, 3 * eighth:7 * eighth, 2 * eighth:6 * eighth]
    factor = (images.shape[1] if count_after_crop else h) // RESOLUTION
    if factor > 1:
        h, w = images.shape[1] // factor, images.shape[2] // factor
        boxes = images[:, :h * factor, :w * factor].reshape(b, h, factor, w, factor, c)
        images = boxes.mean(axis=(2, 4))
    images = (images + 1) * (255 / 2)
    return jnp.broadcast_to(images, (*images.shape[:3], 3))


def distances(features: jax.Array, *, epsilon: float = EPSILON) -> jax.Array:
    """|f(end) - f(beginning)|^2 / epsilon^2; features (2 B, F) in the order of `ends` -> (B,)."""
    begin, end = jnp.split(features, 2)
    return jnp.sum(jnp.square(begin - end), axis=1) / epsilon**2


def trimmed_mean(values) -> float:
    """Mean of the values from the 1st to the 99th percentile, both rounded outward to values that occur.

    Raises:
      UserError: no values, or one is NaN or infinite.
    """
    values = np.asarray(values, np.float64).reshape(-1)
    if not len(values) or not np.isfinite(values).all():
        raise UserError(f"path length of {len(values)} steps, {np.sum(~np.isfinite(values))} of them NaN or infinite; "
                        "expected at least one and finite ones: look at the images.")
    low, high = np.percentile(values, 1, method="lower"), np.percentile(values, 99, method="higher")
    return float(values[(values >= low) & (values <= high)].mean())


def _check_choice(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"path length with {what} {value!r}; expected one of {', '.join(choices)}")
