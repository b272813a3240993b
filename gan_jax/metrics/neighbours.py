"""Precision, recall, density and coverage from the nearest neighbours of features.

Precision and recall: Kynkaanniemi et al. 2019 (arXiv 1904.06991), section 2. Density and coverage: Naeem et
al. 2020 (arXiv 2002.09797), section 3. Distances are taken in blocks of rows, far below 1 GB for any count.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from gan_jax.errors import UserError

BLOCK_ENTRIES = 2**23  # distances held at once: 64 MB in float64, and a few copies of it


class Neighbourhoods(NamedTuple):
    """Shares of samples inside the manifolds that balls around the other set span."""

    precision: float  # of fakes inside any real's ball
    recall: float     # of reals inside any fake's ball
    density: float    # mean number of reals' balls around a fake, over k; can exceed 1
    coverage: float   # of reals whose ball holds any fake


def radii(features, k: int) -> np.ndarray:
    """Distance from each row to its k-th nearest other row; (N, D) -> (N,) float64.

    Raises:
      UserError: k is not between 1 and N - 1.
    """
    x = np.asarray(features, np.float64)
    if not 1 <= k < len(x):
        raise UserError(f"nearest neighbour number {k} among {len(x)} images: expected 1 <= k < {len(x)}; "
                        "evaluate more images or lower k.")
    found = []
    for start, block in _distances(x, x):
        block[np.arange(len(block)), start + np.arange(len(block))] = np.inf
        block.partition(k - 1, axis=1)
        found.append(block[:, k - 1].copy())  # a view would keep the block
    return np.concatenate(found)


def neighbourhoods(real, fake, *, k: int = 5, inclusive: bool = False) -> Neighbourhoods:
    """Precision, recall, density and coverage of fakes against reals.

    Radii leave the point itself out in both conventions (k-th neighbour without it = (k + 1)-th with it).

    Args:
      real, fake: features (M, D), (N, D).
      k: neighbours that span a ball; papers and NVIDIA's code use 3, the prdc package 5.
      inclusive: balls hold their border (`<=`), as in torch-fidelity and NVIDIA's code; else `<`, as in prdc.
    Raises:
      UserError: k is not below the size of both sets, or the numbers of features differ.
    """
    real, fake = np.asarray(real, np.float64), np.asarray(fake, np.float64)
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1]:
        raise UserError(f"nearest neighbours of features {real.shape} and {fake.shape}: "
                        "expected two sets (N, D) of one D.")
    inside = np.less_equal if inclusive else np.less
    real_radii, fake_radii = radii(real, k), radii(fake, k)
    balls = np.zeros(len(fake), np.int64)  # reals' balls around each fake
    recalled, covered = [], []
    for start, block in _distances(real, fake):
        held = inside(block, real_radii[start:start + len(block), None])
        balls += held.sum(axis=0)
        covered.append(held.any(axis=1))
        recalled.append(inside(block, fake_radii).any(axis=1))
    return Neighbourhoods(precision=float(np.mean(balls > 0)), recall=float(np.concatenate(recalled).mean()),
                          density=float(balls.mean() / k), coverage=float(np.concatenate(covered).mean()))


def _distances(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """First row and Euclidean distances (rows, N) of each block of x's rows to y.

    By |x|^2 + |y|^2 - 2 x.y in float64, so that squares are off by about 1e-16 of the largest |x|^2.
    """
    y_squares = np.einsum("nd,nd->n", y, y)
    rows = max(1, BLOCK_ENTRIES // len(y))
    for start in range(0, len(x), rows):
        part = x[start:start + rows]
        block = part @ y.T
        block *= -2.0
        block += np.einsum("md,md->m", part, part)[:, None]
        block += y_squares
        yield start, np.sqrt(np.maximum(block, 0.0, out=block), out=block)
