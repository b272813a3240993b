"""The pipeline of transformations of StyleGAN2-ADA (Karras et al. 2020, arXiv 2006.06676, appendix B).

Three stages, each pure: `draw` makes random numbers, `parameters` turns them into what each transformation does (or
does not, where its gate is closed), `apply` transforms the images.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax.augment.controller import Augmentation
from gan_jax.augment.warp import (
    identity,
    product,
    rotation,
    scaling,
    toeplitz,
    translation,
    warp,
)
from gan_jax.layers import random

# name: (distribution, numbers a sample, how many of them have a gate of their own)
_DRAWS = {
    "xflip": ("uniform", 1, 1),
    "rotate90": ("uniform", 1, 1),
    "xint": ("uniform", 2, 1),
    "scale": ("normal", 1, 1),
    "rotate_pre": ("uniform", 1, 1),
    "aniso": ("normal", 1, 1),
    "rotate_post": ("uniform", 1, 1),
    "xfrac": ("normal", 2, 1),
    "brightness": ("normal", 1, 1),
    "contrast": ("normal", 1, 1),
    "lumaflip": ("uniform", 1, 1),
    "hue": ("uniform", 1, 1),
    "saturation": ("normal", 1, 1),
    "imgfilter": ("normal", 4, 4),
    "noise": ("normal", 1, 1),
    "cutout": ("uniform", 2, 1),
}
_ONLY_RGB = ("hue", "saturation")
_SYM2 = tuple(np.array([1 + 3**0.5, 3 + 3**0.5, 3 - 3**0.5, 1 - 3**0.5]) / (4 * 2**0.5))  # Daubechies, 2 moments
_POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)  # share of a natural image's power in each band


@dataclass(frozen=True, kw_only=True)
class Ada(Augmentation):
    """Adaptive discriminator augmentation; the default is the paper's choice 'bgc': blit, geometry and colour."""

    target: float = 0.6
    # Probability of each transformation, times the strength.
    xflip: float = 1.0  # mirror
    rotate90: float = 1.0  # by a multiple of 90 degrees
    xint: float = 1.0  # shift by whole pixels
    scale: float = 1.0
    rotate: float = 1.0  # before and after `aniso`
    aniso: float = 1.0  # stretch
    xfrac: float = 1.0  # shift by fractions of a pixel
    brightness: float = 1.0
    contrast: float = 1.0
    lumaflip: float = 1.0  # mirror of the brightness
    hue: float = 1.0
    saturation: float = 1.0
    imgfilter: float = 0.0  # gains of four bands of frequency
    noise: float = 0.0
    cutout: float = 0.0
    # How far each of them goes.
    xint_max: float = 0.125  # of the image's side
    scale_std: float = 0.2  # of log2 of the factor
    rotate_max: float = 1.0  # of half a turn
    aniso_std: float = 0.2  # of log2 of the factor
    xfrac_std: float = 0.125  # of the image's side
    brightness_std: float = 0.2
    contrast_std: float = 0.5  # of log2 of the factor
    hue_max: float = 1.0  # of half a turn
    saturation_std: float = 1.0  # of log2 of the factor
    imgfilter_bands: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)  # multipliers of `imgfilter`, low to high
    imgfilter_std: float = 1.0  # of log2 of the gain
    noise_std: float = 0.1
    cutout_size: float = 0.5  # of the image's side

    def __call__(self, images: jax.Array, keys: jax.Array, strength: jax.Array) -> jax.Array:
        """See `Augmentation.__call__`."""
        draws = self.draw(keys, images.shape[1:])
        return self.apply(images, self.parameters(draws, strength))

    def draw(self, keys: jax.Array, shape: tuple[int, int, int]) -> dict[str, Any]:
        """Random numbers for images of `shape` (H, W, C), one row a key (B,), of the transformations that are on.

        Returns:
          name -> (values, gates): values (B,) or (B, n), U(0, 1) or N(0, 1); gates (B,) or (B, n), U(0, 1). And
          noise_image -> N(0, 1) (B, H, W, C).
        """
        count = sum(n for _, n, _ in _DRAWS.values())
        uniform, normal = random.Draw("uniform", (count,)), random.Draw("normal", (count,))
        streams = random.draw(keys, {0: uniform, 1: normal, 2: uniform, 3: random.KEY})
        numbers, gates = {"uniform": streams[0], "normal": streams[1]}, streams[2]
        draws, start = {}, 0
        for name, (kind, n, gate_count) in _DRAWS.items():
            if self._multiplier(name) > 0 and not (name in _ONLY_RGB and shape[2] < 3):
                draws[name] = tuple(
                    x[:, start] if k == 1 else x[:, start : start + k]
                    for x, k in ((numbers[kind], n), (gates, gate_count))
                )
            start += n
        if "noise" in draws:
            draws["noise_image"] = random.normal(streams[3], shape)
        return draws

    def _multiplier(self, name: str) -> float:
        return getattr(self, "rotate" if name.startswith("rotate_") else name)

    def parameters(self, draws: dict[str, Any], strength: jax.Array) -> dict[str, jax.Array]:
        """What each transformation does to each sample: the identity where its gate is not below its probability.

        Args:
          draws: as `draw` returns them.
          strength: p, a scalar that may be traced.
        Returns:
          name -> (B,) or (B, n), in the units of `apply`.
        """
        result = {}
        for name, numbers in draws.items():
            if name == "noise_image":
                result[name] = numbers
                continue
            values, gates = numbers
            amount, off = self._amount(name, values)
            chance = self._multiplier(name) * strength
            if name.startswith("rotate_"):  # two of them: either one turns the image with the probability asked for
                chance = 1 - jnp.sqrt(jnp.clip(1 - chance, 0, 1))
            elif name == "imgfilter":
                chance = chance * jnp.array(self.imgfilter_bands)
            elif name == "cutout":
                amount, off = jnp.concatenate([values, jnp.full_like(values[:, :1], self.cutout_size)], 1), 0.0
            applied = gates < chance
            result[name] = jnp.where(applied.reshape(*applied.shape, *(1,) * (amount.ndim - applied.ndim)), amount, off)
        return result

    def _amount(self, name: str, x: jax.Array) -> tuple[jax.Array, float]:
        """(what the drawn numbers stand for, what does nothing)."""
        if name in ("xflip", "lumaflip"):
            return jnp.floor(x * 2), 0.0
        if name == "rotate90":
            return jnp.floor(x * 4), 0.0
        if name == "xint":
            return (x * 2 - 1) * self.xint_max, 0.0
        if name in ("rotate_pre", "rotate_post", "hue"):
            return (x * 2 - 1) * (math.pi * (self.hue_max if name == "hue" else self.rotate_max)), 0.0
        if name in ("scale", "aniso", "contrast", "saturation", "imgfilter"):
            return jnp.exp2(x * getattr(self, f"{name}_std")), 1.0
        if name == "noise":
            return jnp.abs(x) * self.noise_std, 0.0
        return (x * getattr(self, f"{name}_std"), 0.0) if name != "cutout" else (x, 0.0)

    def apply(self, images: jax.Array, parameters: dict[str, jax.Array]) -> jax.Array:
        """Images (B, H, W, C) in [-1, 1] after every transformation that has parameters.

        Args:
          images: RGB, gray, or either with an opacity channel behind, which colours do not touch.
          parameters: xflip, lumaflip: 0 or 1; rotate90: quarter turns; xint, xfrac (B, 2): shares of (width, height);
            scale, aniso, contrast, saturation: factors; rotate_pre, rotate_post, hue: radians; brightness: summand;
            imgfilter (B, 4): gains; noise: standard deviation, with noise_image; cutout (B, 3): centre (x, y) and
            side, as shares of the image's.
        """
        dtype = images.dtype
        x = images.astype(jnp.promote_types(dtype, jnp.float32))
        inverse = _geometry(parameters, x.shape)
        if inverse is not None:
            x = warp(x, inverse)
        x = _recolour(x, parameters)
        if "imgfilter" in parameters:
            x = _filter_bands(x, parameters["imgfilter"])
        if "noise" in parameters:
            x = x + parameters["noise"][:, None, None, None] * parameters["noise_image"]
        if "cutout" in parameters:
            x = _cut_out(x, parameters["cutout"])
        return x.astype(dtype)


def _geometry(p, shape):
    """The inverse map (B, 3, 3) of all transformations of places, in the paper's order; None where there is none."""
    b, h, w, _ = shape
    steps = []
    if "xflip" in p:
        steps.append(scaling(1 - 2 * p["xflip"], jnp.ones(b)))
    if "rotate90" in p:
        steps.append(rotation(p["rotate90"] * (math.pi / 2)))
    if "xint" in p:
        steps.append(translation(-jnp.round(p["xint"][:, 0] * w), -jnp.round(p["xint"][:, 1] * h)))
    if "scale" in p:
        steps.append(scaling(1 / p["scale"], 1 / p["scale"]))
    if "rotate_pre" in p:
        steps.append(rotation(p["rotate_pre"]))
    if "aniso" in p:
        steps.append(scaling(1 / p["aniso"], p["aniso"]))
    if "rotate_post" in p:
        steps.append(rotation(p["rotate_post"]))
    if "xfrac" in p:
        steps.append(translation(-p["xfrac"][:, 0] * w, -p["xfrac"][:, 1] * h))
    return functools.reduce(product, steps, identity(b)) if steps else None


def _recolour(x, p):
    """One affine map of (r, g, b) for each sample; a gray image gets the mean of its rows."""
    matrix = _colour_matrix(p, x.shape[0])
    if matrix is None:
        return x
    if x.shape[3] >= 3:
        colour = jnp.einsum("bhwc,bdc->bhwd", x[..., :3], matrix[:, :3, :3], precision="highest")
        colour, opacity = colour + matrix[:, None, None, :3, 3], x[..., 3:]
    else:
        row = matrix[:, :3].mean(1)[:, None, None, None]  # (B, 1, 1, 1, 4)
        colour, opacity = x[..., :1] * row[..., :3].sum(-1) + row[..., 3], x[..., 1:]
    return jnp.concatenate([colour, opacity], 3) if opacity.shape[3] else colour


def _colour_matrix(p, b):
    eye, axis = jnp.eye(4), np.array([1, 1, 1, 0]) / 3**0.5
    gray = jnp.asarray(np.outer(axis, axis), jnp.float32)
    steps = []
    if "brightness" in p:
        steps.append(eye + p["brightness"][:, None, None] * jnp.array([[0, 0, 0, 1]] * 3 + [[0] * 4]))
    if "contrast" in p:
        steps.append(jnp.eye(4).at[3, 3].set(0) * p["contrast"][:, None, None] + jnp.zeros((4, 4)).at[3, 3].set(1))
    if "lumaflip" in p:
        steps.append(eye - 2 * gray * p["lumaflip"][:, None, None])
    if "hue" in p:
        steps.append(_about_gray(p["hue"]))
    if "saturation" in p:
        steps.append(gray + (eye - gray) * jnp.ones((b, 1, 1)) * _but_last(p["saturation"]))
    return functools.reduce(lambda matrix, step: product(step, matrix), steps) if steps else None


def _but_last(factor):
    """(B, 4, 4) of a factor (B,) for the colours and 1 for the constant."""
    colours = jnp.zeros((4, 4)).at[3, 3].set(1)
    return jnp.where(colours == 1, 1.0, factor[:, None, None])


def _about_gray(angle):
    """Rotation (B, 4, 4) about the gray axis a (Rodrigues): cos I + sin K + (1 - cos) a a^T, K x the cross product."""
    c, s = jnp.cos(angle)[:, None, None], jnp.sin(angle)[:, None, None]
    k = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / 3**0.5
    turn = c * jnp.eye(3) + s * jnp.asarray(k, jnp.float32) + (1 - c) / 3
    return jnp.broadcast_to(jnp.eye(4), (angle.shape[0], 4, 4)).at[:, :3, :3].set(turn)


@functools.cache
def filter_bank() -> np.ndarray:
    """Four symmetric filters (4, 43) that sum to the identity: an octave each, from the lowest frequencies up.

    An undecimated two-channel bank on the wavelet sym2: each octave splits what is below it, with taps twice as far
    apart as those of the octave above.
    """
    low = np.array(_SYM2)
    high = low * (-1.0) ** np.arange(len(low))
    low, high = (np.convolve(f, f[::-1]) / 2 for f in (low, high))  # zero phase
    below, bands = np.ones(1), []
    for octave in range(3):
        spread = [np.kron(f, np.eye(1, 2**octave)[0])[: (len(f) - 1) * 2**octave + 1] for f in (low, high)]
        bands.append(np.convolve(below, spread[1]))
        below = np.convolve(below, spread[0])
    bands = [below, *reversed(bands)]
    widest = max(map(len, bands))
    return np.stack([np.pad(f, (widest - len(f)) // 2) for f in bands])


def _filter_bands(x, gains):
    """Each band of frequency times its gain, brought back to the power that is expected of an image."""
    total, power = jnp.ones_like(gains), jnp.array(_POWER, gains.dtype)
    for band in range(gains.shape[1]):
        factor = jnp.where(np.arange(gains.shape[1]) == band, gains[:, band : band + 1], 1)
        total = total * factor / jnp.sqrt(jnp.sum(power * jnp.square(factor), 1, keepdims=True))
    taps = jnp.matmul(total, jnp.array(filter_bank(), gains.dtype), precision="highest")  # (B, K)
    reach = taps.shape[1] // 2
    x = jnp.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="reflect")
    rows, columns = toeplitz(taps, x.shape[1] - 2 * reach), toeplitz(taps, x.shape[2] - 2 * reach)
    x = jnp.einsum("bhi,biwc->bhwc", rows, x, precision="highest")
    return jnp.einsum("bwj,bhjc->bhwc", columns, x, precision="highest")


def _cut_out(x, boxes):
    """Blanks the pixels whose centres lie within half a side of the box's centre along both axes."""
    _, h, w, _ = x.shape
    centre_x, centre_y, side = (boxes[:, i, None, None] for i in range(3))
    near_x = jnp.abs((jnp.arange(w) + 0.5)[None, None] / w - centre_x) < side / 2
    near_y = jnp.abs((jnp.arange(h) + 0.5)[None, :, None] / h - centre_y) < side / 2
    return jnp.where((near_x & near_y)[..., None], 0, x)
