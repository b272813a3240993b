"""Frechet distance between Gaussians fitted to two sets of features (FID where the features are Inception's).

Heusel et al. 2017 (arXiv 1706.08500), equation 6. All in float64 on the host: the distance is a small
difference of large traces, which float32 would drown in rounding.
"""

import os
import pathlib
from typing import NamedTuple

import numpy as np

from gan_jax import archives
from gan_jax.errors import MissingPathError, UserError


class Moments(NamedTuple):
    """Mean and covariance of a set of features."""

    mean: np.ndarray        # (D,) float64
    covariance: np.ndarray  # (D, D) float64, unbiased (divided by count - 1)
    count: int              # rows that they were taken from; 0 where a file does not say


class Accumulator(NamedTuple):
    """Sums from which moments are finished; any order and any batch sizes give the same moments."""

    count: int
    mean: np.ndarray     # (D,) of the rows so far
    scatter: np.ndarray  # (D, D) sum of (x - mean)(x - mean)^T


def empty(dim: int) -> Accumulator:
    """The accumulator of no rows of `dim` features."""
    return Accumulator(0, np.zeros(dim), np.zeros((dim, dim)))


def update(accumulator: Accumulator, features) -> Accumulator:
    """The accumulator with rows of `features` (B, D) added; raises UserError for NaN or infinite features."""
    features = np.asarray(features, np.float64)
    assert features.shape == (len(features), len(accumulator.mean)), (features.shape, len(accumulator.mean))
    bad = int(np.sum(~np.isfinite(features).all(axis=1)))
    if bad:
        raise UserError(f"features of {bad} of {len(features)} images are NaN or infinite, expected finite; "
                        "look at the images; if training has diverged, evaluate an earlier checkpoint.")
    if not len(features):
        return accumulator
    mean = features.mean(axis=0)
    centred = features - mean
    return merge(accumulator, Accumulator(len(features), mean, centred.T @ centred))


def merge(a: Accumulator, b: Accumulator) -> Accumulator:
    """The accumulator of both sets of rows: Chan, Golub and LeVeque 1983, equation 2.1, for vectors."""
    count = a.count + b.count
    if not count:
        return a
    delta = b.mean - a.mean
    mean = a.mean + delta * (b.count / count)
    between = np.outer(delta, delta) * (a.count * b.count / count)
    return Accumulator(count, mean, a.scatter + b.scatter + between)


def finish(accumulator: Accumulator) -> Moments:
    """Mean and unbiased covariance; raises UserError where fewer than two rows were seen."""
    if accumulator.count < 2:
        raise UserError(f"a covariance of {accumulator.count} images: expected at least 2; evaluate more.")
    return Moments(accumulator.mean, accumulator.scatter / (accumulator.count - 1), accumulator.count)


def moments(features) -> Moments:
    """Moments of features (N, D) held in memory; raises UserError for N < 2, NaN and infinity."""
    features = np.asarray(features)
    return finish(update(empty(features.shape[1]), features))


def root(covariance) -> np.ndarray:
    """R (D, r) with R R^T = the covariance (D, D), r its numerical rank.

    Directions below the rounding of the largest eigenvalue are left out, so that a null space adds no noise of
    order sqrt(epsilon) to a distance.
    """
    covariance = np.asarray(covariance, np.float64)
    narrow = _narrow_root(covariance)
    return _wide_root(covariance) if narrow is None else narrow


def _wide_root(covariance: np.ndarray) -> np.ndarray:
    """`root` of any rank."""
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    significant = values > values[-1] * len(values) * np.finfo(np.float64).eps
    return vectors[:, significant] * np.sqrt(values[significant])


def factor(covariance) -> np.ndarray:
    """R (D, r) with R R^T = the covariance (D, D), r its numerical rank, sooner than `root` but not orthogonal.

    Cholesky's method with pivots (Higham 2002, section 10.3) ends after as many columns as the rank.
    """
    from scipy.linalg import lapack

    covariance = np.asarray(covariance, np.float64)
    triangle, pivots, rank, _ = lapack.dpstrf((covariance + covariance.T) / 2, lower=1)
    columns = np.zeros((len(triangle), rank))
    columns[pivots - 1] = np.tril(triangle[:, :rank])
    return columns


def _narrow_root(covariance: np.ndarray) -> np.ndarray | None:
    """`root` where the rank is at most half of D, else None; few samples take seconds of 2048 features otherwise.

    The columns of a factor span what the covariance does, so that a rotation by a matrix of their number makes them
    orthogonal.
    """
    columns, dim = factor(covariance), len(covariance)
    if columns.shape[1] > dim // 2:
        return None
    values, vectors = np.linalg.eigh(columns.T @ columns)
    significant = values > values.max(initial=0) * dim * np.finfo(np.float64).eps
    return columns @ vectors[:, significant]


def frechet_distance(mean1, covariance1, mean2, covariance2, *, root1: np.ndarray | None = None) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), the squared Wasserstein-2 distance of two Gaussians.

    The trace of the root is that of the symmetric (R1^T C2 R1)^(1/2) with C1 = R1 R1^T, whose eigenvalues are
    real and >= 0: no general matrix root, no complex parts, no offset on the diagonals, singular covariances
    included. Of 2048 features it takes 1.5 s on two cores, half of it for the root; of few samples, whose covariance
    is of low rank, it takes less.

    Args:
      mean1, mean2: (D,).
      covariance1, covariance2: (D, D), symmetric positive semi-definite, of any rank.
      root1: `root(covariance1)`, where many distances from one reference share it; else it is taken here.
    Returns:
      The distance in squared feature units, at least 0; identical moments give rounding error alone
      (about 1e-14 of the trace).
    """
    mean1, mean2 = np.asarray(mean1, np.float64), np.asarray(mean2, np.float64)
    c1, c2 = np.asarray(covariance1, np.float64), np.asarray(covariance2, np.float64)
    assert mean1.shape == mean2.shape and c1.shape == c2.shape == mean1.shape * 2, (mean1.shape, c1.shape)
    other = c2
    if root1 is None:  # of the side of lower rank, where one is low: the trace is the same from either
        sides = [(narrow, c) for narrow, c in ((_narrow_root(c1), c2), (_narrow_root(c2), c1)) if narrow is not None]
        root1, other = min(sides, key=lambda side: side[0].shape[1]) if sides else (_wide_root(c1), c2)
    product = root1.T @ ((other + other.T) / 2) @ root1  # (r, r), the spectrum of C1^(1/2) C2 C1^(1/2)
    trace_root = np.sqrt(np.maximum(np.linalg.eigvalsh((product + product.T) / 2), 0)).sum()
    distance = np.sum((mean1 - mean2) ** 2) + np.trace(c1) + np.trace(c2) - 2 * trace_root
    return float(np.maximum(distance, 0))  # rounding alone can make it negative


def bias(covariance, count: int) -> float:
    """Expected distance between a Gaussian and the moments of `count` samples of it, to first order in 1 / count.

    The mean gives tr(C) / N. The covariance is off by E with E|E_ij|^2 = l_i l_j (1 + d_ij) / N in the basis of
    C's eigenvalues l, and the distance of C and C + E is 1/2 sum_ij E_ij^2 / (l_i + l_j) to second order in E.

    It holds where count is well above the number D of features, the next term being smaller by about D / count,
    and says little at count <= D. A generator's distance is too large by about as much where its features
    resemble the true ones.

    Args:
      covariance: (D, D) of the Gaussian.
      count: samples N.
    Raises:
      UserError: count is below 2.
    """
    if count < 2:
        raise UserError(f"bias of a distance from {count} images: expected at least 2.")
    covariance = np.asarray(covariance, np.float64)
    values = np.maximum(np.linalg.eigvalsh((covariance + covariance.T) / 2), 0)
    sums = values[:, None] + values
    pairs = np.divide(np.outer(values, values), sums, out=np.zeros_like(sums), where=sums > 0)
    return float((values.sum() + 0.5 * (pairs.sum() + np.trace(pairs))) / count)


def save_moments(path: os.PathLike | str, moments: Moments) -> None:
    """Writes an .npz file as pytorch-fid has it, `mu` and `sigma`, with `count` besides; whole or not at all.

    Raises:
      UserError: it cannot be written.
    """
    path = pathlib.Path(path)
    part = path.with_name(f".{path.name}.part")
    try:
        with open(part, "wb") as file:
            np.savez(file, mu=moments.mean, sigma=moments.covariance, count=np.int64(moments.count))
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UserError(f"{path}: cannot be written: {error.strerror or error}; give another file.") from error


def load_moments(path: os.PathLike | str) -> Moments:
    """Moments from an .npz file with `mu` (D,) and `sigma` (D, D), such as pytorch-fid's; `count` may be there.

    Nothing in the file is run: pickled objects are refused.

    Raises:
      MissingPathError: no such file.
      UserError: no .npz file, `mu` or `sigma` missing, or other shapes, types or values.
    """
    arrays = _read(path)
    missing = {"mu", "sigma"} - arrays.keys()
    if missing:
        raise UserError(f"{path}: has no array named {' or '.join(sorted(missing))}; expected mu (D,) and "
                        "sigma (D, D), moments of features as pytorch-fid saves them.")
    mean, covariance, count = arrays["mu"], arrays["sigma"], arrays.get("count", np.int64(0))
    if mean.ndim != 1 or not mean.size or covariance.shape != mean.shape * 2 or count.shape != ():
        raise UserError(f"{path}: mu has the shape {mean.shape}, sigma {covariance.shape}, count {count.shape}; "
                        "expected (D,), (D, D) and a single number.")
    if not {mean.dtype.kind, covariance.dtype.kind, count.dtype.kind} <= set("fiu"):
        raise UserError(f"{path}: mu, sigma and count are of types {mean.dtype}, {covariance.dtype} and {count.dtype}; "
                        "expected real numbers.")
    mean, covariance = mean.astype(np.float64), covariance.astype(np.float64)
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise UserError(f"{path}: mu or sigma is NaN or infinite, expected finite; make the file anew.")
    if not np.isfinite(count) or count < 0 or count != int(count):
        raise UserError(f"{path}: count is {count}; expected a whole number of images, 0 where it is not known.")
    return Moments(mean, covariance, int(count))


def _read(path: os.PathLike | str) -> dict[str, np.ndarray]:
    if not os.path.exists(path):
        raise MissingPathError(f"{path}: no such file; expected an .npz file of moments.")
    try:
        arrays = archives.arrays(path, ("mu", "sigma", "count"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read as an .npz file of plain arrays: {error}") from error
    return {name: array for name, array in arrays.items() if array is not None}
