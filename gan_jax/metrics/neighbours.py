"""Precision, recall, density and coverage from the nearest neighbours of features.

Precision and recall: Kynkaanniemi et al. 2019 (arXiv 1904.06991), section 2. Density and coverage: Naeem et
al. 2020 (arXiv 2002.09797), section 3. Squared distances, |a|^2 + |b|^2 - 2 a.b, are taken a tile at a time, so that
beside the features memory does not grow with the sets; within a set once for both rows of a pair.
"""

import functools
import hashlib
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gan_jax.errors import UserError

BLOCK_ENTRIES = 2**22  # distances of a tile: 32 MB in float64, and a few copies of it
BORDER = 1e-13  # BLAS rounds a square by its place in the tile, by far less than this; copies of a pair must tie


class Neighbourhoods(NamedTuple):
    """Shares of samples inside the manifolds that balls around the other set span."""

    precision: float  # of fakes inside any real's ball
    recall: float     # of reals inside any fake's ball
    density: float    # mean number of reals' balls around a fake, over k; can exceed 1
    coverage: float   # of reals whose ball holds any fake


class _Tile(NamedTuple):
    rows: Any     # (T, D); zeros where they only fill up a device's tile
    squares: Any  # (T,) squared lengths; infinite where rows only fill up
    labels: Any = None  # (T,) integers, equal for equal rows; on the device


class _Backend(NamedTuple):
    load: Callable         # a tile -> the same, ready to be compared with many
    distances: Callable    # two tiles -> (T, T) squared distances, at least 0
    nearest: Callable      # (T, k) smallest yet, distances, whether they are a tile's to itself -> (T, k), largest last
    memberships: Callable  # see `_memberships`


def neighbourhoods(real, fake, *, k: int = 5, inclusive: bool = False, device: bool = False) -> Neighbourhoods:
    """Precision, recall, density and coverage of fakes against reals.

    Radii leave the point itself out in both conventions (k-th neighbour without it = (k + 1)-th with it).

    On the host squared distances within BORDER of the largest squared length from a squared radius are on the border.
    On the device the features lie in float32, less the reals' mean. Squared distances are off by up to some 1e-7 of the
    largest squared length of such a row, so that a point this near to a border may be counted otherwise than on the
    host. With `inclusive` a copy of a ball's centre is always inside, in both.

    Args:
      real, fake: features (M, D), (N, D).
      k: neighbours that span a ball; papers and NVIDIA's code use 3, the prdc package 5.
      inclusive: balls hold their border (`<=`), as in torch-fidelity and NVIDIA's code; else `<`, as in prdc.
      device: in float32 on JAX's default device, which then holds both sets; else in float64 on the host.
    Raises:
      UserError: k is not below the size of both sets, the numbers of features differ, or some are not finite.
    """
    real, fake = np.asarray(real), np.asarray(fake)
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1]:
        raise UserError(f"nearest neighbours of features {real.shape} and {fake.shape}: "
                        "expected two sets (N, D) of one D.")
    _check_count(k, len(real))
    _check_count(k, len(fake))
    rows = _tile_rows(max(len(real), len(fake)))
    if device:
        backend, border = _device(), 0.0
        mean = real.mean(axis=0, dtype=np.float64)
        labels = _labels(real, fake)
        reals, fakes = (_device_tiles(*pair, rows, mean) for pair in zip((real, fake), labels, strict=True))
    else:
        backend, reals, fakes = _HOST, _host_tiles(real, rows), _host_tiles(fake, rows)
        border = BORDER * max(tile.squares.max() for tile in reals + fakes) * (1 if inclusive else -1)

    real_radii = [squared + border for squared in _squared_radii(reals, len(real), k, backend)]
    fake_radii = [squared + border for squared in _squared_radii(fakes, len(fake), k, backend)]
    balls, covered, recalled = [0] * len(fakes), [False] * len(reals), [False] * len(reals)
    for i, a in enumerate(map(backend.load, reals)):
        for j, b in enumerate(fakes):
            counts, covers, recalls = backend.memberships(
                backend.distances(a, b), real_radii[i], fake_radii[j], inclusive=inclusive
            )
            balls[j] = balls[j] + counts
            covered[i], recalled[i] = covered[i] | covers, recalled[i] | recalls
    balls = np.concatenate(balls)[:len(fake)]
    covered, recalled = np.concatenate(covered)[:len(real)], np.concatenate(recalled)[:len(real)]
    return Neighbourhoods(precision=float(np.mean(balls > 0)), recall=float(recalled.mean()),
                          density=float(balls.mean() / k), coverage=float(covered.mean()))


def _check_count(k: int, count: int) -> None:
    if not 1 <= k < count:
        raise UserError(f"nearest neighbour number {k} among {count} images: expected 1 <= k < {count}; "
                        "evaluate more images or lower k.")


def _tile_rows(count: int) -> int:
    tiles = -(-count // max(1, math.isqrt(BLOCK_ENTRIES)))
    return -(-count // tiles)  # even: nearly nothing is left over in the last


def _labels(*sets: np.ndarray) -> list[np.ndarray]:
    """For each set (N, D) integers (N,) that are equal where rows are, across sets too."""
    dtype = np.result_type(*sets)
    numbers: dict[bytes, int] = {}

    def number(row) -> int:
        digest = hashlib.sha256(row.astype(dtype) + 0).digest()  # + 0: -0.0 equals 0.0
        return numbers.setdefault(digest, len(numbers))

    return [np.array([number(row) for row in x], np.int32) for x in sets]


def _squared_radii(tiles: list[_Tile], count: int, k: int, backend: _Backend) -> list:
    """Squared distance to the k-th nearest other row, a tile at a time; -1, no ball, for rows that only fill up."""
    best = [np.full((len(tile.squares), k), np.inf, np.float32) for tile in tiles]
    for i, a in enumerate(map(backend.load, tiles)):
        for j in range(i, len(tiles)):
            block = backend.distances(a, tiles[j])
            best[i] = backend.nearest(best[i], block, same_tile=i == j)
            if j > i:
                best[j] = backend.nearest(best[j], block.T, same_tile=False)
    radii = [smallest[:, -1].copy() for smallest in best]  # comparing with a strided view would be slow
    last_count = count - len(radii[0]) * (len(tiles) - 1)  # of the last tile
    radii[-1] = np.where(np.arange(len(radii[-1])) < last_count, radii[-1], -1)
    return radii


def _memberships(xp, block, radii_a, radii_b, *, inclusive: bool):
    """Of squared distances between reals a and fakes b: each b's number of balls, is an a's filled, is a in any."""
    inside = xp.less_equal if inclusive else xp.less
    in_balls = inside(block, radii_a[:, None])
    return in_balls.sum(axis=0), in_balls.any(axis=1), inside(block, radii_b).any(axis=1)


def _lengths(rows: np.ndarray) -> np.ndarray:
    """Squared lengths of rows (T, D) -> (T,) float64."""
    rows = rows.astype(np.float64)
    squares = np.einsum("nd,nd->n", rows, rows)
    if not np.isfinite(squares).all():
        raise UserError("nearest neighbours of features that are NaN or infinite, expected finite ones; "
                        "look at the images; if training has diverged, evaluate an earlier checkpoint.")
    return squares


def _host_tiles(x: np.ndarray, rows: int) -> list[_Tile]:
    """Views of the features: a tile becomes float64 where it is used."""
    parts = [x[start:start + rows] for start in range(0, len(x), rows)]
    return [_Tile(part, _lengths(part)) for part in parts]


def _host_load(tile: _Tile) -> _Tile:
    return tile._replace(rows=tile.rows.astype(np.float64, copy=False))


def _host_distances(a: _Tile, b: _Tile) -> np.ndarray:
    block = a.rows @ b.rows.astype(np.float64, copy=False).T
    block *= -2.0
    block += np.add.outer(a.squares, b.squares)  # their sum first: it does not depend on which is a
    return np.maximum(block, 0.0, out=block)


def _host_nearest(best: np.ndarray, block: np.ndarray, *, same_tile: bool) -> np.ndarray:
    k = best.shape[1]
    both = np.concatenate((best, block), axis=1)
    if same_tile:
        np.fill_diagonal(both[:, k:], np.inf)
    both.partition(k - 1, axis=1)
    return both[:, :k].copy()  # a view would keep the block


_HOST = _Backend(_host_load, _host_distances, _host_nearest, functools.partial(_memberships, np))


def _device_tiles(x: np.ndarray, labels: np.ndarray, rows: int, mean: np.ndarray) -> list[_Tile]:
    """Tiles of one size, so that each function compiles once, of float32 features less `mean`."""
    import jax  # host metrics do without

    tiles = []
    for start in range(0, len(x), rows):
        with np.errstate(invalid="ignore"):  # infinite ones are refused below
            part = (x[start:start + rows] - mean).astype(np.float32)
        fill = (0, rows - len(part))
        squares = _lengths(part).astype(np.float32)
        tiles.append(jax.device_put(_Tile(
            np.pad(part, (fill, (0, 0))),
            np.pad(squares, fill, constant_values=np.inf),
            np.pad(labels[start:start + rows], fill, constant_values=-1),
        )))
    return tiles


@functools.cache
def _device() -> _Backend:
    import jax
    import jax.numpy as jnp

    @jax.jit
    def distances(a: _Tile, b: _Tile) -> jax.Array:
        products = jnp.matmul(a.rows, b.rows.T, precision="highest")
        block = jnp.maximum(a.squares[:, None] + b.squares - 2.0 * products, 0.0)
        return jnp.where(a.labels[:, None] == b.labels, 0.0, block)

    @functools.partial(jax.jit, static_argnames="same_tile")
    def nearest(best: jax.Array, block: jax.Array, *, same_tile: bool) -> jax.Array:
        if same_tile:
            block = jnp.where(jnp.eye(len(block), dtype=bool), jnp.inf, block)
        return -jax.lax.top_k(-jnp.concatenate((best, block), axis=1), best.shape[1])[0]

    memberships = jax.jit(functools.partial(_memberships, jnp), static_argnames="inclusive")
    return _Backend(lambda tile: tile, distances, nearest, memberships)
