"""DiffAugment (Zhao et al. 2020, arXiv 2006.10738): colour, translation and cutout of every image."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax.augment.controller import Augmentation
from gan_jax.errors import UserError
from gan_jax.layers import random

POLICIES = ("color", "translation", "cutout")


@dataclass(frozen=True, kw_only=True)
class DiffAugment(Augmentation):
    """The policies in the order given; each is applied to an image with probability `strength`, 1 in the paper."""

    p: float = 1.0
    policy: tuple[str, ...] = POLICIES  # any of `POLICIES`, in order
    translation: float = 0.125  # furthest shift along each axis, as a share of it
    cutout: float = 0.5  # sides of the box that is blanked, as a share of the image's

    def __post_init__(self):
        super().__post_init__()
        unknown = [name for name in self.policy if name not in POLICIES]
        if unknown:
            raise UserError(f"config.augment.policy={self.policy}: expected any of {', '.join(POLICIES)}")

    def __call__(self, images: jax.Array, keys: jax.Array, strength: jax.Array) -> jax.Array:
        """See `Augmentation.__call__`."""
        return self.apply(images, self.draw(keys, images.shape[1:3]), strength)

    def draw(self, keys: jax.Array, size: tuple[int, int]) -> dict[str, Any]:
        """Random numbers for images of `size` (height, width), one row a key (B,).

        Returns:
          brightness, saturation, contrast in [0, 1) (B,); translation, cutout: int32 (B, 2), (down, right) shifts and
          centres; gate: (B, policies) in [0, 1).
        """
        u = random.uniform(keys, (7 + len(POLICIES),))
        color = dict(zip(("brightness", "saturation", "contrast"), u.T, strict=False))
        far = [int(n * self.translation + 0.5) for n in size]
        last = [n + 1 - int(n * self.cutout + 0.5) % 2 for n in size]
        return color | {
            "translation": _integers(u[:, 3:5], [(-n, n + 1) for n in far]),
            "cutout": _integers(u[:, 5:7], [(0, n) for n in last]),
            "gate": u[:, 7:],
        }

    def apply(self, images: jax.Array, draws: dict[str, Any], strength: jax.Array = 1.0) -> jax.Array:
        """Images (B, H, W, C) after the policies, from the numbers of `draw`."""
        moves = {
            "color": _color,
            "translation": lambda x, d: _shift(x, d["translation"]),
            "cutout": partial(_cutout, share=self.cutout),
        }
        for name in self.policy:
            moved = moves[name](images, draws)
            if "gate" in draws:
                applied = draws["gate"][:, POLICIES.index(name)] < strength
                moved = jnp.where(applied[:, None, None, None], moved, images)
            images = moved
        return images


def _integers(u, ranges):
    """int32 (B, len(ranges)), each uniform in its [low, high), of draws U(0, 1)."""
    low, high = np.array(ranges, np.float32).T
    return jnp.int32(low + jnp.floor(u * (high - low)))


def _color(x, draws):
    """Brightness + u - 1/2, saturation times 2u about each pixel's mean, contrast times u + 1/2 about the image's."""
    u = {name: draws[name][:, None, None, None] for name in ("brightness", "saturation", "contrast")}
    x = x + u["brightness"] - 0.5
    gray = x.mean(3, keepdims=True)
    x = (x - gray) * (2 * u["saturation"]) + gray
    mean = x.mean((1, 2, 3), keepdims=True)
    return (x - mean) * (u["contrast"] + 0.5) + mean


@jax.custom_vjp
def _shift(x, by):
    """y[i, j] = x[i + by[0], j + by[1]], zero outside: x (B, H, W, C), by (B, 2). Its transpose is shift -by."""
    for axis in (1, 2):
        size = x.shape[axis]
        index = jnp.arange(size) + by[:, axis - 1, None]
        inside = (index >= 0) & (index < size)
        shape = [1] * x.ndim
        shape[0], shape[axis] = x.shape[0], size
        x = jnp.take_along_axis(x, jnp.clip(index, 0, size - 1).reshape(shape), axis)
        x = jnp.where(inside.reshape(shape), x, 0)
    return x


_shift.defvjp(lambda x, by: (_shift(x, by), by), lambda by, g: (_shift(g, -by), None))


def _cutout(x, draws, share):
    """Blanks a box; where it reaches over the border, its part inside and at least the row or column of the border."""
    keep = None
    for axis in (1, 2):
        size = x.shape[axis]
        box = int(size * share + 0.5)
        start = draws["cutout"][:, axis - 1, None] - box // 2
        first, last = jnp.clip(start, 0, size - 1), jnp.clip(start + box - 1, 0, size - 1)
        at = jnp.arange(size)
        outside = (at < first) | (at > last)
        keep = outside[:, :, None] if keep is None else keep | outside[:, None, :]
    return jnp.where(keep[..., None], x, 0)
