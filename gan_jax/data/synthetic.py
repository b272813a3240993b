"""Seeded pictures of any size for smoke runs and benchmarks: a disc on a gradient, its look by the label."""

import colorsys

import numpy as np

from gan_jax.data.checks import unknown
from gan_jax.data.fit import Fit
from gan_jax.data.order import bits, uniform
from gan_jax.data.source import Example, Source
from gan_jax.errors import UserError
from gan_jax.specs import labelled

CLASSES = 10
SPLITS = ("train", "test")


def picture(index: int, shape: tuple[int, int, int], key: int) -> tuple[np.ndarray, int]:
    """Picture `index` of the sequence `key`: (uint8 (H, W, C), label).

    The label sets the disc's hue and the gradient's direction; place, radius and contrast vary.
    """
    height, width, channels = shape
    at = np.array([index])
    label = int(bits(at, key, 0)[0] % np.uint64(CLASSES))
    x0, y0, size, contrast = (float(uniform(at, key, word)[0]) for word in (1, 2, 3, 4))
    y, x = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij")
    angle = 2 * np.pi * label / CLASSES
    slope = 0.5 + (0.2 + 0.3 * contrast) * ((x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle))
    disc = (x - 0.25 - 0.5 * x0) ** 2 + (y - 0.25 - 0.5 * y0) ** 2 < (0.12 + 0.15 * size) ** 2
    colour = np.array([*colorsys.hsv_to_rgb(label / CLASSES, 0.9, 0.95), 1.0])
    if channels < 3:
        colour = np.array([(label + 0.5) / CLASSES, 1.0])
    out = np.where(disc[..., None], colour[:channels], slope[..., None])
    if channels in (2, 4):
        out[..., -1] = 1.0  # opaque
    return np.round(255 * np.clip(out, 0, 1)).astype(np.uint8), label


def open_synthetic(count: str, *, split: str, fit: Fit) -> Source:
    """`synthetic:COUNT`; the splits `train` and `test` hold different pictures. Raises UserError."""
    if not count.isascii() or not count.isdigit() or int(count) == 0:
        raise UserError(f"data.name='synthetic:{count}': expected a number of images, as in synthetic:1000.")
    if split not in SPLITS:
        raise unknown("data.split", split, SPLITS)
    key = SPLITS.index(split)
    return Source(
        identity={"kind": "synthetic", "count": int(count), "key": key, "shape": fit.shape},
        count=int(count),
        spec=labelled(fit.shape, CLASSES),
        class_names=tuple(str(label) for label in range(CLASSES)),
        read=lambda index: _read(index, fit.shape, key),
    )


def _read(index: int, shape: tuple[int, int, int], key: int) -> Example:
    image, label = picture(index, shape, key)
    return {"image": image, "label": np.int32(label)}
