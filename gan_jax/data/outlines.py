"""The outlines of the bundled digits, one bit a pixel, each with the grey digit that it was drawn from: pairs."""

import functools

import numpy as np

from gan_jax.data.source import Example, Source
from gan_jax.errors import UserError
from gan_jax.specs import paired

LOOK = "outlines"  # of `digits:LOOK`
THRESHOLD = 128  # levels from which on a pixel is ink


def of_digits(grey: Source) -> Source:
    """`digits:outlines` from `digits`. Raises UserError where that is in colour."""
    shape = grey.spec["image"].shape
    if shape[2] != 1:
        raise UserError(f"data.name='digits:{LOOK}' is grey: set data.channels=1, not {shape[2]}")
    identity = {**grey.identity, "look": [LOOK, THRESHOLD]}
    spec = paired(shape, shape, len(grey.class_names))
    return grey._replace(identity=identity, spec=spec, read=functools.partial(_read, grey=grey))


def _read(index: int, *, grey: Source) -> Example:
    example = grey.read(index)
    return {**example, "source": outline(example["image"])}


def outline(image: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 1) -> the same shape: 255 where there is ink beside paper, above, below, left or right; else 0."""
    ink = np.pad(image[..., 0] >= THRESHOLD, 1)
    inner = ink[1:-1, 1:-1] & ink[:-2, 1:-1] & ink[2:, 1:-1] & ink[1:-1, :-2] & ink[1:-1, 2:]
    return np.where(ink[1:-1, 1:-1] & ~inner, 255, 0).astype(np.uint8)[..., None]
