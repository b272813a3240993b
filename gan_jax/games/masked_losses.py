"""Terms of losses that treat a hole apart from what is known (LaMa: Suvorov et al. 2021, 2109.07161, section 2).

A mask (B, H, W, 1) is 1 in the hole and 0 where the picture is known. Logits are maps (B, h, w, 1).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gan_jax import losses
from gan_jax.errors import UserError

RESIZE = ("nearest", "bilinear", "maximum")


def _absolute(x: jax.Array) -> jax.Array:
    """|x| with the slope 0 at 0, as PyTorch has it; `jnp.abs` has 1 there."""
    return x * jax.lax.stop_gradient(jnp.sign(x))


# Apart from the table of `perceptual`, whose l1 is `jnp.abs`: the slopes at 0 differ.
CRITERIA = {"l1": _absolute, "l2": jnp.square}


class Hole(NamedTuple):
    """How an adversarial loss treats the hole; the defaults are LaMa's."""

    fake_in_hole: bool = True  # made pictures are fake in the hole alone, and as real as others outside it
    hole_only_discriminator: bool = False  # of made pictures it is judged in the hole alone; where not `fake_in_hole`
    hole_only_generator: bool = False  # the generator hears of the hole alone
    extra: float = 0.0  # what the hole weighs more than the rest in the generator's term; where `fake_in_hole`
    resize: str = "nearest"  # of the mask, to the logits: see `resized`


def check(hole: Hole, section: str) -> None:
    """Raises UserError for an unknown way to resize, `section` being where it stands."""
    if hole.resize not in RESIZE:
        raise UserError(f"{section}.resize={hole.resize!r}: expected one of {', '.join(RESIZE)}")


def distance(made: jax.Array, image: jax.Array, mask: jax.Array, *, criterion: str, known, missing) -> jax.Array:
    """Mean over all values of l1's |d| or l2's d^2, times `known` outside the hole and `missing` inside it."""
    weights = mask * missing + (1 - mask) * known
    return (weights * CRITERIA[criterion](made - image)).mean()


def matching(of_made: tuple, of_real: tuple, mask: jax.Array | None = None) -> jax.Array:
    """Mean over layers of the mean squared difference of a discriminator's maps (pix2pixHD, 1711.11585, eq. 3).

    With a mask, in what is known alone: it is brought to each map's size, bilinearly.
    """
    terms = []
    for made, real in zip(of_made, of_real, strict=True):
        squares = jnp.square(made.astype(jnp.float32) - real.astype(jnp.float32))
        if mask is not None:
            squares = squares * (1 - resized(mask, made.shape[1:3], "bilinear"))
        terms.append(squares.mean())
    return sum(terms) / len(terms)


def discriminator(
    game: losses.Adversarial, real: jax.Array, fake: jax.Array, mask: jax.Array, hole: Hole
) -> dict[str, jax.Array]:
    """The terms of a discriminator, one value a logit."""
    terms = game.discriminator(real, fake)
    mask = resized(mask, fake.shape[1:3], hole.resize)
    if hole.fake_in_hole:
        as_real = game.discriminator(fake, fake)["real"]
        return {**terms, "fake": mask * terms["fake"] + (1 - mask) * as_real}
    return {**terms, "fake": mask * terms["fake"]} if hole.hole_only_discriminator else terms


def generator(
    game: losses.Adversarial, real: jax.Array | None, fake: jax.Array, mask: jax.Array, hole: Hole
) -> jax.Array:
    """The generator's adversarial term, one value a logit."""
    term, mask = game.generator(real, fake), resized(mask, fake.shape[1:3], hole.resize)
    if hole.hole_only_generator:
        return mask * term
    return (1 + hole.extra * mask) * term if hole.fake_in_hole and hole.extra else term


def resized(mask: jax.Array, size: tuple[int, int], how: str) -> jax.Array:
    """mask (B, H, W, 1) at another size (h, w).

    'nearest': pixel i of the result is pixel floor(i H / h); 'bilinear': between the centres of pixels, without a wider
    filter where it becomes smaller; 'maximum': of all pixels that a pixel of the result touches.
    """
    if mask.shape[1:3] == tuple(size):
        return mask
    for axis, (length, wanted) in enumerate(zip(mask.shape[1:3], size, strict=True), 1):
        if how == "nearest":
            mask = jnp.take(mask, jnp.arange(wanted) * length // wanted, axis=axis)
        elif how == "maximum":
            begins = [i * length // wanted for i in range(wanted)]
            ends = [-(-(i + 1) * length // wanted) for i in range(wanted)]
            parts = [jax.lax.slice_in_dim(mask, a, b, axis=axis) for a, b in zip(begins, ends, strict=True)]
            mask = jnp.concatenate([part.max(axis, keepdims=True) for part in parts], axis)
    if how == "bilinear":
        mask = jax.image.resize(mask, (len(mask), *size, 1), "bilinear", antialias=False)
    return mask
