"""Frechet distance between Gaussians fitted to two sets of features (FID where the features are Inception's).

Heusel et al. 2017 (arXiv 1706.08500), equation 6. All in float64 on the host: the distance is a small
difference of large traces, which float32 would drown in rounding.
"""

from typing import NamedTuple

import numpy as np

from gan_jax.errors import UserError


class Moments(NamedTuple):
    """Mean and covariance of a set of features."""

    mean: np.ndarray        # (D,) float64
    covariance: np.ndarray  # (D, D) float64, unbiased (divided by count - 1)
    count: int              # rows that they were taken from


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


def frechet_distance(mean1, covariance1, mean2, covariance2) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), the squared Wasserstein-2 distance of two Gaussians.

    The trace of the root is that of the symmetric (C1^(1/2) C2 C1^(1/2))^(1/2), with real eigenvalues >= 0:
    no general matrix root, no complex parts, no offset on the diagonals, singular covariances included. C1 is
    cut to its numerical rank, so that its null space adds no noise of order sqrt(epsilon).

    Args:
      mean1, mean2: (D,).
      covariance1, covariance2: (D, D), symmetric positive semi-definite, of any rank.
    Returns:
      The distance in squared feature units, at least 0; identical moments give rounding error alone
      (about 1e-14 of the trace).
    """
    mean1, mean2 = np.asarray(mean1, np.float64), np.asarray(mean2, np.float64)
    c1, c2 = np.asarray(covariance1, np.float64), np.asarray(covariance2, np.float64)
    assert mean1.shape == mean2.shape and c1.shape == c2.shape == mean1.shape * 2, (mean1.shape, c1.shape)
    values, vectors = np.linalg.eigh((c1 + c1.T) / 2)
    kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
    root = vectors[:, kept] * np.sqrt(values[kept])  # (D, r), C1 = root root^T
    product = root.T @ ((c2 + c2.T) / 2) @ root      # (r, r), the spectrum of C1^(1/2) C2 C1^(1/2)
    trace_root = np.sqrt(np.maximum(np.linalg.eigvalsh((product + product.T) / 2), 0)).sum()
    distance = np.sum((mean1 - mean2) ** 2) + np.trace(c1) + np.trace(c2) - 2 * trace_root
    return float(np.maximum(distance, 0))  # rounding alone can make it negative
