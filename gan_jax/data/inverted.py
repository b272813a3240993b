"""The bundled digits as another would write them: dark blue on cream, in RGB, with or without noise.

A second domain for unpaired translation whose right answers are known: the digit of an image is its label in both.
"""

import functools

import numpy as np

from gan_jax.data.checks import unknown
from gan_jax.data.fit import Fit
from gan_jax.data.order import uniform
from gan_jax.data.source import Example, Source
from gan_jax.data.windows import Windows
from gan_jax.errors import UserError
from gan_jax.specs import labelled

PAPER, INK = (255.0, 240.0, 190.0), (25.0, 35.0, 130.0)  # colours where a digit of `digits` is black, and white
NOISE = {"": 0.0, "inverted": 0.0, "inverted_noise": 0.06 * 127.5}  # look -> standard deviation, in levels


def open_digits(look: str, *, split: str, fit: Fit, folder: str, windows: Windows | None = None) -> Source:
    """`digits`, or `digits:LOOK`; `windows` are of moving ones. Raises UserError for an unknown look, or channels that
    it does not have."""
    from gan_jax.data import moving, outlines, tfds_source

    looks = (*filter(None, NOISE), outlines.LOOK, moving.LOOK)
    if look and look not in looks:
        raise unknown("data.name", f"digits:{look}", ["digits", *(f"digits:{name}" for name in looks)])
    if look == moving.LOOK:
        return moving.of_windows(split, fit, windows)
    if look == outlines.LOOK:
        return outlines.of_digits(tfds_source.open_digits(split=split, fit=fit, folder=folder))
    if not look:
        return tfds_source.open_digits(split=split, fit=fit, folder=folder)
    if fit.channels != 3:
        raise UserError(f"data.name='digits:{look}' is in colour: set data.channels=3, not {fit.channels}")
    grey = tfds_source.open_digits(split=split, fit=fit._replace(channels=1), folder=folder)
    read = functools.partial(_read, grey=grey, std=NOISE[look])
    identity = {**grey.identity, "look": look, "colours": [PAPER, INK, NOISE[look]]}
    return grey._replace(identity=identity, spec=labelled(fit.shape, len(grey.class_names)), read=read)


def _read(index: int, *, grey: Source, std: float) -> Example:
    example = grey.read(index)
    return {**example, "image": inverted(example["image"], std, index)}


def inverted(image: np.ndarray, std: float, index: int) -> np.ndarray:
    """uint8 (H, W, 1) -> uint8 (H, W, 3): from PAPER at 0 to INK at 255, with normal noise that `index` decides."""
    share = image.astype(np.float64) / 255
    colour = np.array(PAPER) * (1 - share) + np.array(INK) * share
    if std:
        places = np.arange(2 * colour.size)
        u, v = uniform(places, index, len(PAPER)).reshape(2, *colour.shape)
        colour += std * np.sqrt(-2 * np.log1p(-u)) * np.cos(2 * np.pi * v)  # Box & Muller (1958)
    return np.clip(np.round(colour), 0, 255).astype(np.uint8)
