"""Masks of holes, drawn from keys on the device: 1 in the hole, 0 where the picture is known.

Free-form masks are those of LaMa (Suvorov et al. 2021, 2109.07161, section 2.4 and appendix): strokes of a thick brush,
each a chain of straight segments with round ends. Boxes lie anywhere inside a margin. Numbers are of pixels, and a
pair is the least and the most, both possible.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gan_jax.errors import UserError
from gan_jax.layers import random

Range = tuple[int, int]
KINDS = ("mixed", "free_form", "boxes", "centre")


class FreeForm(NamedTuple):
    """How strokes are drawn; the defaults are LaMa's for 256x256."""

    strokes: Range = (1, 6)
    segments: Range = (1, 5)  # of a stroke
    lengths: Range = (10, 209)  # of a segment
    widths: Range = (5, 104)
    angles: int = 4  # so many, each a radian after the one before, from 0.01 on; every other stroke turns the other way


class Boxes(NamedTuple):
    """How boxes are drawn; the defaults are LaMa's for 256x256."""

    boxes: Range = (1, 4)
    sides: Range = (30, 150)  # of each side by itself
    margin: int = 10  # to the picture's border


class Rule(NamedTuple):
    """What masks a picture is given."""

    kind: str = "mixed"  # one of KINDS; mixed: free-form or boxes, each half of the time
    free_form: FreeForm = FreeForm()
    boxes: Boxes = Boxes()
    centre: tuple[int, int] = (0, 0)  # height and width of the box in the middle; 0: half of the picture's


def wanted(rule: Rule) -> dict[str, random.Draw]:
    """What `make` needs of each sample's key, by name."""
    strokes, each = rule.free_form.strokes[1], rule.free_form.segments[1]
    table = {
        "free_form": random.Draw("uniform", (1 + 3 * strokes + 3 * strokes * each,)),
        "boxes": random.Draw("uniform", (1 + 4 * rule.boxes.boxes[1],)),
        "kind": random.UNIFORM,
    }
    of_kind = {"free_form": ("free_form",), "boxes": ("boxes",), "mixed": tuple(table), "centre": ()}
    return {name: table[name] for name in of_kind[rule.kind]}


def make(uniform: dict[str, jax.Array], count: int, size: tuple[int, int], rule: Rule) -> jax.Array:
    """Masks (count, H, W, 1) from the uniform numbers that `wanted` names, for so many samples."""
    if rule.kind == "centre":
        sides = tuple(side or length // 2 for side, length in zip(rule.centre, size, strict=True))
        return jnp.repeat(centre(size, sides), count, axis=0)
    if rule.kind == "free_form":
        return free_form(uniform["free_form"], size, rule.free_form)
    if rule.kind == "boxes":
        return boxes(uniform["boxes"], size, rule.boxes)
    both = free_form(uniform["free_form"], size, rule.free_form), boxes(uniform["boxes"], size, rule.boxes)
    return jnp.where(uniform["kind"][:, None, None, None] < 0.5, *both)


def free_form(uniform: jax.Array, size: tuple[int, int], rule: FreeForm) -> jax.Array:
    """Strokes, from uniform numbers (B, n) as `wanted` tells -> (B, H, W, 1)."""
    return segments(*lines(uniform, size, rule), size)


def lines(uniform: jax.Array, size: tuple[int, int], rule: FreeForm) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Of segments (ends (B, n, 2, 2) as (x, y) of begin and end, widths (B, n), whether each is in the mask (B, n)).

    A segment that would leave the picture ends at its border, and the next one begins there.
    """
    strokes, each = rule.strokes[1], rule.segments[1]
    first, count, begins, parts = jnp.split(uniform, (1, 1 + strokes, 1 + 3 * strokes), axis=1)
    height, width = size
    corner = jnp.array([width, height], jnp.float32)
    parts = parts.reshape(-1, strokes, each, 3)
    angle = 0.01 + jnp.floor(parts[..., 0] * rule.angles)
    angle = jnp.where(jnp.arange(strokes)[:, None] % 2 == 0, 2 * jnp.pi - angle, angle)
    length, brush = _integer(parts[..., 1], rule.lengths), _integer(parts[..., 2], rule.widths)
    steps = length[..., None] * jnp.stack([jnp.sin(angle), jnp.cos(angle)], -1)

    points = [jnp.floor(begins.reshape(-1, strokes, 2) * corner)]
    for i in range(each):
        points.append(jnp.clip(jnp.trunc(points[-1] + steps[:, :, i]), 0, corner))
    ends = jnp.stack([jnp.stack(points[:-1], 2), jnp.stack(points[1:], 2)], 3)
    is_part = (jnp.arange(strokes) < _integer(first, rule.strokes))[..., None]
    is_part &= jnp.arange(each) < _integer(count, rule.segments)[..., None]
    total = strokes * each
    return ends.reshape(-1, total, 2, 2), brush.reshape(-1, total), is_part.reshape(-1, total)


def segments(ends: jax.Array, widths: jax.Array, is_part: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Mask (B, H, W, 1) of thick segments with round ends, see `lines`: 1 up to half of the width + 1 away."""
    # Coordinates apart, so that all of it is one pass over the pixels.
    x, y = (ends[:, None, None, :, 0, axis] for axis in range(2))
    along_x, along_y = (ends[:, None, None, :, 1, axis] - ends[:, None, None, :, 0, axis] for axis in range(2))
    from_x, from_y = jnp.arange(size[1])[None, None, :, None] - x, jnp.arange(size[0])[None, :, None, None] - y
    share = (from_x * along_x + from_y * along_y) / jnp.maximum(along_x**2 + along_y**2, 1)
    share = jnp.clip(share, 0, 1)
    squares = (from_x - share * along_x) ** 2 + (from_y - share * along_y) ** 2
    inside = (squares <= jnp.square((widths + 1) / 2)[:, None, None]) & is_part[:, None, None]
    return inside.any(-1, keepdims=True).astype(jnp.float32)


def boxes(uniform: jax.Array, size: tuple[int, int], rule: Boxes) -> jax.Array:
    """Boxes, from uniform numbers (B, n) as `wanted` tells -> (B, H, W, 1)."""
    count, parts = uniform[:, :1], uniform[:, 1:].reshape(-1, rule.boxes[1], 4)
    room = jnp.array([size[1], size[0]]) - 2 * rule.margin
    sides = _integer(parts[..., :2], (rule.sides[0], jnp.minimum(rule.sides[1], room)))
    corners = _integer(parts[..., 2:], (rule.margin, rule.margin + room - sides))
    return rectangles(corners, sides, jnp.arange(rule.boxes[1]) < _integer(count, rule.boxes), size)


def rectangles(corners: jax.Array, sides: jax.Array, is_part: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Mask (B, H, W, 1) of boxes: corners (B, n, 2) at the upper left and sides, as (x, y), where `is_part`."""

    def covered(axis, length):
        begin, pixel = corners[..., axis, None], jnp.arange(length)
        return (pixel >= begin) & (pixel < begin + sides[..., axis, None])

    both = covered(1, size[0])[..., None] & covered(0, size[1])[..., None, :]
    return (both & is_part[..., None, None]).any(1)[..., None].astype(jnp.float32)


def centre(size: tuple[int, int], sides: tuple[int, int]) -> jax.Array:
    """(1, H, W, 1): a box of height and width `sides` in the middle; an odd pixel that is left lies behind it."""
    rows, columns = (
        jnp.abs(2 * (jnp.arange(length) - (length - side) // 2) + 1 - side) < side
        for length, side in zip(size, sides, strict=True)
    )
    return (rows[:, None] & columns)[None, :, :, None].astype(jnp.float32)


def check(name: str, pair: Range, least: int) -> None:
    """Raises UserError where a pair is none, or holds less than `least`; `name` is its key."""
    pair = tuple(pair)
    if len(pair) != 2 or not all(isinstance(value, int) for value in pair) or not least <= pair[0] <= pair[1]:
        raise UserError(f"{name}={pair}: expected the least and the most, whole numbers from {least} on")


def _integer(uniform: jax.Array, of: tuple) -> jax.Array:
    """Whole numbers of a range, both ends possible and all equally likely, as float32."""
    low, high = of
    return jnp.floor(low + uniform * (high - low + 1))
