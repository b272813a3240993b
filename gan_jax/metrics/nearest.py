"""How near images lie to those that a generator was trained on: what it has memorised.

A generator that repeats its training images lies nearer to them than other images of the data do (Meehan, Chaudhuri
and Dasgupta 2020, arXiv 2004.05675). So each distance is held beside those of held-out images from the same set.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

TILE_BYTES = 1 << 26  # of rows in float64 at once
QUANTILE = 0.05  # of held-out images, the nearest


class Nearness(NamedTuple):
    """Distances of generated and of held-out images from the nearest training image."""

    generated: float        # mean
    held_out: float         # mean
    generated_share: float  # of those no farther than the nearest `QUANTILE` of the held-out ones
    held_out_share: float   # the same of the held-out ones themselves: about `QUANTILE`


def tile_rows(length: int) -> int:
    """Rows of so many numbers that are compared at once."""
    return max(TILE_BYTES // (8 * length), 1)


def nearest_distances(rows: np.ndarray, others: Callable[[], Iterable[np.ndarray]]) -> np.ndarray:
    """Euclidean distance of each row from the nearest of the others, float64 (N,).

    Squared distances are |a|^2 + |b|^2 - 2 a.b in float64, exact for whole numbers such as pixels. Beside the rows
    no more than two tiles of `TILE_BYTES` are held, and the distances between them.

    Args:
      rows: (N, D), numbers of any type.
      others: () -> arrays (M, D) one after another, one row or more in all; see `tile_rows`.
    """
    squared, size = np.full(len(rows), np.inf), tile_rows(rows.shape[1])
    for part in others():
        b = np.asarray(part, np.float64)
        of_b = np.einsum("md,md->m", b, b)
        for start in range(0, len(rows), size):
            a = rows[start : start + size].astype(np.float64)
            between = np.einsum("nd,nd->n", a, a)[:, None] + of_b - 2 * (a @ b.T)
            squared[start : start + size] = np.minimum(squared[start : start + size], between.min(axis=1))
    return np.sqrt(np.maximum(squared, 0))


def nearness(generated: np.ndarray, held_out: np.ndarray) -> Nearness:
    """What distances (N,) of generated images and (M,) of held-out ones say together; M at least 1."""
    border = np.quantile(held_out, QUANTILE)
    shares = (float(np.mean(distances <= border)) for distances in (generated, held_out))
    return Nearness(float(np.mean(generated)), float(np.mean(held_out)), *shares)
