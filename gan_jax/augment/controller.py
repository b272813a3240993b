"""How strongly images are augmented: fixed, rising with the images seen, or adapted to the discriminator."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gan_jax import optim, parallel
from gan_jax.errors import UserError


class Memory(NamedTuple):
    """What the adaptive strength remembers between steps; equal on all devices."""

    p: jax.Array  # float32, the present strength
    signs: jax.Array  # float32, sum of the signs of the real logits since p last moved
    count: jax.Array  # int32, their number


def adapted(
    p: jax.Array,  # strength before
    mean_sign: jax.Array,  # of the real logits of the last `interval_steps` batches
    *,
    target: float,  # mean sign to be held, 0.6 in the paper
    batch_size: int,  # over all devices
    interval_steps: int,  # steps between two moves
    speed_images: float,  # images in which p can go from 0 to 1
) -> jax.Array:
    """Karras et al. 2020 (2006.06676), section 3.1: p + sign(mean_sign - target) batch interval / speed, from 0 up.

    p has no upper limit; transformations whose probability exceeds 1 are simply always applied.
    """
    move = jnp.sign(mean_sign - target) * (batch_size * interval_steps / speed_images)
    return jnp.maximum(p + move, 0.0)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """No augmentation, and the base of those that do something; its fields say how the strength moves."""

    p: float = 0.0  # strength: probability of each transformation; the first value where it is adapted
    growth_images: float = 0.0  # p rises to its value from 0 over them, along a cosine (R3GAN); 0: at once
    target: float = 0.0  # mean sign of real logits that p is adapted to hold (ADA); 0: p is not adapted
    interval_steps: int = 4  # steps between two moves of an adapted p
    speed_images: float = 500_000.0  # images in which an adapted p can go from 0 to 1

    def __post_init__(self):
        if self.p < 0 or self.growth_images < 0:
            raise UserError(f"config.augment: p={self.p}, growth_images={self.growth_images}: expected 0 or more")
        if self.target and self.growth_images:
            raise UserError("config.augment sets target and growth_images: p can be adapted or scheduled, not both")
        if not -1 < self.target < 1 or self.interval_steps < 1 or self.speed_images <= 0:
            raise UserError(
                f"config.augment: target={self.target}, interval_steps={self.interval_steps}, "
                f"speed_images={self.speed_images}: expected -1 to 1, 1 or more, above 0"
            )

    def __call__(self, images: jax.Array, keys: jax.Array, strength: jax.Array) -> jax.Array:
        """Images (B, H, W, C) in [-1, 1], each transformed by its own key (B,), with probability `strength`."""
        return images

    def init(self) -> Any:
        """A fresh memory; () where the strength is not adapted."""
        return Memory(jnp.float32(self.p), jnp.float32(0), jnp.int32(0)) if self.target else ()

    def strength(self, memory: Any, images: jax.Array) -> jax.Array:
        """The present strength, float32 scalar, where `images` images were seen before this step."""
        if self.target:
            return memory.p
        if self.growth_images:
            return optim.cosine(images, 0.0, self.p, self.growth_images)
        return jnp.float32(self.p)

    def observe(self, memory: Any, real_logits: jax.Array, batch_size: int) -> Any:
        """The memory after a discriminator's look at real images; None where there is nothing to remember.

        Args:
          memory: as `init` made it.
          real_logits: logits of this device's augmented real images, any shape; a part of the batch will do.
          batch_size: images per step, over all devices.
        """
        if not self.target:
            return None
        size = real_logits.shape[0] * lax.axis_size(parallel.AXIS)
        mean = parallel.mean(jnp.sign(real_logits.astype(jnp.float32)).mean())
        signs, count = memory.signs + mean * size, memory.count + size
        rule = {"target": self.target, "interval_steps": self.interval_steps, "speed_images": self.speed_images}
        moved = adapted(memory.p, signs / count, batch_size=batch_size, **rule)
        full = count >= batch_size * self.interval_steps
        return Memory(*(jnp.where(full, a, b) for a, b in zip((moved, 0.0, 0), (memory.p, signs, count), strict=True)))
