"""What a Frechet distance of finitely many samples says of the true one: extrapolation and resampling.

Extrapolation: Chong and Forsyth 2020 (arXiv 1911.07023), section 3. All in float64 on the host, features in blocks.
"""

from typing import NamedTuple

import numpy as np

from gan_jax.errors import UserError
from gan_jax.metrics import frechet
from gan_jax.metrics.frechet import Moments

LEAST = 5000  # images at the line's far end, as published
BLOCK_ROWS = 4096  # rows held in float64 at once: 64 MB of 2048 features, and a few copies of it


class Extrapolation(NamedTuple):
    """A straight line through distances over 1 / (number of fakes)."""

    value: float           # the intercept: the distance from endlessly many fakes; below 0 by noise where it is 0
    slope: float           # of the line, in squared feature units times images
    sizes: np.ndarray      # int (P,), fakes behind each distance, rising
    distances: np.ndarray  # (P,)


class Interval(NamedTuple):
    """A distance and where it would lie if other samples had been drawn."""

    value: float  # of all rows
    low: float
    high: float
    shift: float  # by how much resampled distances lie above `value` on average, taken off both ends


def sizes(count: int, dim: int, *, points: int = 15, least: int | None = None) -> np.ndarray:
    """Numbers of fakes, evenly spaced from `least` to `count`, rounded down; int (points,).

    Without `least` it is 5000 as in the authors' code where there are 50,000 fakes or more, else a tenth of
    them, and in any case twice the number of features: the distance is a straight line over 1 / N for N well
    above `dim` alone, and bends where covariances are singular.

    Raises:
      UserError: fewer than two points, or no room for two of them.
    """
    least = max(min(LEAST, count // 10), min(LEAST, 2 * dim)) if least is None else least
    if points < 2 or not 2 <= least < count:
        raise UserError(f"extrapolation over {points} points from {least} to {count} images of {dim} features: "
                        "expected at least 2 points and 2 <= least < the number of images; evaluate more images, "
                        "or state a smaller `least`.")
    return np.linspace(least, count, points).astype(np.int64)


def extrapolated_distance(
    fake, real: Moments, *, points: int = 15, least: int | None = None, seed: int = 0,
) -> Extrapolation:
    """FID-infinity: distances of subsets of the fakes, a straight line over 1 / N, its value at 0.

    Of the fakes' number alone: the bias from the reals' finite number stays, as in published values.

    Args:
      fake: features (N, D).
      real: the reference's moments.
      points: subsets, the last one all fakes; each is drawn anew without replacement.
      least: rows of the smallest subset; None for the rule of `sizes`.
      seed: of numpy's default generator.
    Raises:
      UserError: see `sizes`; features are NaN or infinite, or not of the reference's number.
    """
    fake = _checked(fake, real.mean.shape)
    counts = sizes(*fake.shape, points=points, least=least)
    rng, root1, distances = np.random.default_rng(seed), frechet.root(real.covariance), []
    for size in counts:
        weights = np.zeros(len(fake), np.int64)
        weights[rng.permutation(len(fake))[:size]] = 1
        distances.append(_distance(real, weighted_moments(fake, weights), root1))
    slope, value = np.polyfit(1 / counts, distances, 1)
    return Extrapolation(float(value), float(slope), counts, np.array(distances))


def bootstrap_interval(
    fake, real, *, replicates: int = 200, level: float = 0.95, seed: int = 0,
) -> Interval:
    """Percentile interval of the distance under resampling of the images, with replacement.

    A resampled set is a sample of a sample: its distance is biased once more, by `shift` on average. The shift
    is taken off, so that the interval is centred on the value itself. It covers the expected distance at this
    number of images, that number's bias included, and not the distance of endlessly many. Around a distance of
    0 it is too wide, and `low` may lie below 0.

    Args:
      fake: features (N, D).
      real: features (M, D), resampled as well, or the reference's `Moments`, taken as exact.
      replicates: resampled distances.
      level: share of repetitions that the interval is to cover.
      seed: of numpy's default generator.
    Raises:
      UserError: fewer than 2 replicates, a level outside (0, 1), features NaN or infinite, or their numbers differ.
    """
    if replicates < 2 or not 0 < level < 1:
        raise UserError(f"bootstrap with {replicates} replicates at level {level}: "
                        "expected at least 2 and a level between 0 and 1.")
    fixed = isinstance(real, Moments)
    if not fixed:
        rows = _checked(real, np.shape(real)[1:])
    reference = real if fixed else weighted_moments(rows, np.ones(len(rows), np.int64))
    fake = _checked(fake, reference.mean.shape)
    root1 = frechet.root(reference.covariance)
    value = _distance(reference, weighted_moments(fake, np.ones(len(fake), np.int64)), root1)
    rng, distances = np.random.default_rng(seed), []
    for _ in range(replicates):
        resampled = weighted_moments(fake, _multiplicities(rng, len(fake)))
        if fixed:
            distances.append(_distance(reference, resampled, root1))
        else:
            distances.append(_distance(weighted_moments(rows, _multiplicities(rng, len(rows))), resampled))
    shift = float(np.mean(distances)) - value
    low, high = np.quantile(distances, [(1 - level) / 2, (1 + level) / 2]) - shift
    return Interval(value, float(low), float(high), shift)


def weighted_moments(features, weights) -> Moments:
    """Moments of the rows of features (N, D), each as often as its weight, an integer (N,), says.

    The sums X^T diag(w) X go over blocks of rows, those of weight 0 left out, and about the plain mean.

    Raises:
      UserError: the weights add up to less than 2.
    """
    features, weights = np.asarray(features), np.asarray(weights)
    assert features.ndim == 2 and weights.shape == features.shape[:1], (features.shape, weights.shape)
    count = int(weights.sum())
    if count < 2:
        raise UserError(f"a covariance of {count} images: expected at least 2; evaluate more.")
    centre = features.mean(axis=0, dtype=np.float64)
    total, scatter = np.zeros_like(centre), np.zeros(centre.shape * 2)
    for start in range(0, len(features), BLOCK_ROWS):
        block = weights[start:start + BLOCK_ROWS]
        rows = features[start:start + BLOCK_ROWS][block > 0] - centre
        block = block[block > 0].astype(np.float64)
        total += block @ rows
        rows *= np.sqrt(block)[:, None]
        scatter += rows.T @ rows
    shift = total / count
    return Moments(centre + shift, (scatter - count * np.outer(shift, shift)) / (count - 1), count)


def _multiplicities(rng: np.random.Generator, count: int) -> np.ndarray:
    """How often each of `count` rows is drawn in as many draws with replacement."""
    return np.bincount(rng.integers(0, count, count), minlength=count)


def _distance(real: Moments, fake: Moments, root1: np.ndarray | None = None) -> float:
    if fake.count <= len(fake.mean) // 2:  # the fakes' own root is of lower rank
        root1 = None
    return frechet.frechet_distance(real.mean, real.covariance, fake.mean, fake.covariance, root1=root1)


def _checked(features, shape: tuple[int, ...]) -> np.ndarray:
    features = np.asarray(features)
    if features.ndim != 2 or features.shape[1:] != shape or not np.isfinite(features).all():
        raise UserError(f"a distance of features {features.shape}, {np.sum(~np.isfinite(features))} of them NaN or "
                        f"infinite; expected finite ones (N, {', '.join(map(str, shape))}); look at the images.")
    return features
