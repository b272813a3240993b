"""Large pictures through a convolutional network in overlapping tiles, with the result of the whole picture.

A network here is function(x (1, h, w, C) float32 in [0, 1]) -> (1, h * scale, w * scale, C'), for any h and w that are
multiples of its `unit`. What it makes of a place depends on the pixels around, up to its reach. A tile is cut out with
so many pixels more on every side, the margin, and only its inside is used; where the picture ends the tile ends too, so
that it sees the same zeros beyond as the whole picture does.
"""

import itertools
import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax.errors import UserError

LARGEST_UNIT = 64
LIVE = 3  # arrays as large as a network's largest that are in memory at once
PROBE = (16, 256, 64)  # rows and columns of what the reach is measured on, and columns that are exchanged
EXACT = 2.0**-20  # of [0, 1]: what is less is rounding
INVISIBLE = 2.0**-12  # a sixteenth of one of 256 levels
CARE = 1.5  # other pictures may reach further than those measured
RUNG = 0.8  # sides of windows, each of that before


class Plan(NamedTuple):
    """How pictures are cut."""

    unit: int = 1  # sides are multiples of it; pictures are continued by their mirror image up to there
    side: int = 0  # of windows, in pixels, margins included; 0: pictures are whole
    margin: int = 0  # of input pixels, 0 where nothing is cut
    is_coarse: bool = False  # sides of windows are a few in number, so that few programs serve pictures of many sizes


class Span(NamedTuple):
    """Of one axis: a window, and the part of it that is used."""

    start: int
    stop: int
    first: int
    last: int


def unit(function: Callable, channels: int) -> int:
    """The number of which sides must be multiples. Raises UserError where there is none up to `LARGEST_UNIT`."""
    error = None
    for side in (2**n for n in range(LARGEST_UNIT.bit_length())):
        try:
            jax.eval_shape(function, _shape(33 * side, 35 * side, channels))
            return side
        except UserError as reason:
            error = reason
    raise error


def _shape(height: int, width: int, channels: int, count: int = 1) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((count, height, width, channels), jnp.float32)


def bytes_per_pixel(function: Callable, channels: int, unit: int) -> float:
    """Memory that the network takes for a pixel of its input: `LIVE` arrays as large as the largest that grows with it.

    Weights do not grow: arrays that a picture of half the side has as well do not count.
    """
    side = 64 * unit
    small, large = (
        set(_shapes(jax.make_jaxpr(function)(_shape(length, length, channels)).jaxpr)) for length in (side // 2, side)
    )
    return LIVE * max(math.prod(shape) * 4 for shape in large - small) / side**2


def _shapes(jaxpr) -> Iterator[tuple[int, ...]]:
    """Of every value that a program computes."""
    for equation in jaxpr.eqns:
        yield from (variable.aval.shape for variable in equation.outvars)
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _shapes(inner)


def margin(function: Callable, channels: int, scale: int, unit: int) -> tuple[int, float]:
    """How far the network reaches: pixels beside a place on which what it makes there depends; both axes alike.

    It is measured on the network's own weights: part of a picture is exchanged, and the margin is the distance from
    which on nothing else changes by more than `EXACT`, with `CARE`, or nothing at all. A very deep network's reach in
    theory is much longer than in effect.

    Returns:
      The margin, a multiple of `unit`, and the largest change beyond it; (0, inf) where a place depends on all pixels,
      such as by statistics of the whole picture.
    """
    rows, columns, exchanged = (max(side // unit, 1) * unit for side in PROBE)
    rng = np.random.default_rng(0)
    noise = rng.random((2, rows, columns, channels))
    blocks = np.kron(rng.random((2, rows // 8 + 1, columns // 8 + 1, channels)), np.ones((1, 8, 8, 1)))
    one, other = ((noise + blocks[:, :rows, :columns]) / 2).astype(np.float32)
    place = np.arange(columns)[None, :, None]
    left, right = (np.where(where, other, one) for where in (place < exchanged, place >= columns - exchanged))
    with jax.default_matmul_precision("highest"):
        results = np.asarray(jax.jit(jax.vmap(lambda x: function(x[None])[0]))(np.stack([one, left, right])))
    changes = np.abs(results[1:] - results[:1]).max((1, 3), initial=0).reshape(2, -1, scale)
    changes = np.stack([changes[0].max(1), changes[1].max(1)[::-1]]).max(0)[exchanged:]  # by distance
    for bound in (EXACT, INVISIBLE):
        reach, support = (int(np.flatnonzero(changes > least).max(initial=-1)) + 1 for least in (bound, 0))
        if reach <= len(changes) // 2:
            width = -(-min(math.ceil(CARE * reach), support) // unit) * unit
            return width, float(changes[width:].max(initial=0))
    return 0, math.inf


def spans(length: int, side: int, margin: int) -> list[Span]:
    """Windows of `side` that cover an axis; their used parts share it, each `margin` or more from a window's cut ends.

    Raises:
      ValueError: windows that have nothing between their margins.
    """
    if side >= length:
        return [Span(0, length, 0, length)]
    if side <= 2 * margin:
        raise ValueError(f"windows of {side} with margins of {margin}")
    step = side - 2 * margin
    starts = [*range(0, length - side, step), length - side]
    seams = [(low + high + side) // 2 for low, high in itertools.pairwise(starts)]  # in the middle of what both see
    return [Span(start, start + side, first, last)
            for start, first, last in zip(starts, [0, *seams], [*seams, length], strict=True)]  # fmt: skip


def window(length: int, plan: Plan) -> int:
    """The side of the windows of an axis."""
    side = plan.side or length
    if not plan.is_coarse:
        return min(side, length)
    while side > length and side * RUNG > 4 * plan.margin + plan.unit:
        side = int(side * RUNG) // plan.unit * plan.unit
    return min(side, length)


def padded(pixels: np.ndarray, unit: int) -> np.ndarray:
    """pixels (H, W, C), continued by their mirror image below and on the right up to multiples of `unit`."""
    rows, columns = (-side % unit for side in pixels.shape[:2])
    return np.pad(pixels, ((0, rows), (0, columns), (0, 0)), "symmetric") if rows or columns else pixels


def count(height: int, width: int, plan: Plan) -> int:
    """Tiles of a picture."""
    sides = (-(-side // plan.unit) * plan.unit for side in (height, width))
    return math.prod(len(spans(side, window(side, plan), plan.margin)) for side in sides)


def tiled(
    program: Callable, pixels: np.ndarray, plan: Plan, scale: int, *, at_once: int = 1
) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Plays a network over a picture, tile by tile.

    Args:
      program: the network, compiled for the shapes that it is given.
      pixels: float32 (H, W, C).
      plan: how it is cut.
      scale: of the network.
      at_once: tiles in the making at a time, where one leaves a part of the machine idle. Above 1 the program is called
        by other threads, which see no context of JAX's settings around the caller.
    Yields:
      Rows and columns of the result (H * scale, W * scale, C'), and what the network made of them.
    """
    height, width = (scale * side for side in pixels.shape[:2])
    pixels = padded(pixels, plan.unit)
    rows, columns = (spans(side, window(side, plan), plan.margin) for side in pixels.shape[:2])

    def play(tile: tuple[Span, Span]) -> np.ndarray:
        row, column = tile
        part = np.ascontiguousarray(pixels[row.start : row.stop, column.start : column.stop])
        return np.asarray(program(part[None]))[0]

    cut = list(itertools.product(rows, columns))
    for (row, column), values in zip(cut, _played(play, cut, at_once), strict=True):
        places, cuts = [], []
        for span, side in ((row, height), (column, width)):
            first, last = scale * span.first, min(scale * span.last, side)
            places.append(slice(first, last))
            cuts.append(slice(first - scale * span.start, last - scale * span.start))
        yield *places, values[cuts[0], cuts[1]]


def _played(play: Callable, cut: Sequence, at_once: int) -> Iterator[np.ndarray]:
    """What becomes of the tiles, in their order. An interrupt waits for those in the making."""
    if min(at_once, len(cut)) == 1:
        yield from map(play, cut)
        return
    with ThreadPoolExecutor(at_once) as threads:
        waiting = deque()
        for tile in cut:
            if len(waiting) == at_once:
                yield waiting.popleft().result()
            waiting.append(threads.submit(play, tile))
        while waiting:
            yield waiting.popleft().result()


def compiled_once(program: Callable) -> Callable:
    """A jitted function of one array for several threads: each shape is compiled by the first that comes with it."""
    lock, shapes = threading.Lock(), set()

    def play(x):
        if x.shape in shapes:
            return program(x)
        with lock:
            result = program(x)
            shapes.add(x.shape)
            return result

    return play
