"""How well samples of a known mixture of Gaussians cover its modes.

Definitions of VEEGAN (arXiv 1705.07761, section 5.1) and PacGAN (arXiv 1712.04086, section 4.1), which report
rings of 8 and grids of 25 modes.
"""

from typing import NamedTuple

import numpy as np

from gan_jax.errors import UserError


class MixtureQuality(NamedTuple):
    """Quality of samples against the modes of a mixture."""

    modes_covered: int          # modes that are nearest to at least one high-quality sample
    high_quality_share: float   # of samples within 3 standard deviations of the nearest mode
    reverse_kl: float           # KL(samples' mode histogram || the mixture's weights), in nats
    counts: np.ndarray          # (M,) samples nearest to each mode, of any quality


def mixture_quality(samples, centres, std, *, weights=None, sigmas: float = 3.0) -> MixtureQuality:
    """Modes covered, share of high-quality samples and reverse KL of the mode histogram.

    The mixture's own samples score below 1: in two dimensions 1 - exp(-4.5) = 0.9889 of them lie within 3
    standard deviations. The histogram assigns every sample to its nearest mode, whatever its quality.

    Args:
      samples: (N, D).
      centres: (M, D), the modes' means.
      std: standard deviation of each coordinate, one number or (M,).
      weights: (M,) of the modes, summing to 1; None for equal ones.
      sigmas: radius of high quality, in standard deviations.
    Raises:
      UserError: shapes do not match, or a sample is not finite.
    """
    samples, centres = np.asarray(samples, np.float64), np.asarray(centres, np.float64)
    if samples.ndim != 2 or centres.ndim != 2 or samples.shape[1] != centres.shape[1] or not len(samples):
        raise UserError(f"mixture quality of samples {samples.shape} against centres {centres.shape}: "
                        "expected (N, D) and (M, D); the metric serves mixtures of Gaussians only.")
    if not np.isfinite(samples).all():
        raise UserError("mixture quality: samples are NaN or infinite; evaluate an earlier checkpoint.")
    distances = np.stack([np.linalg.norm(samples - centre, axis=1) for centre in centres], axis=1)  # (N, M)
    nearest = distances.argmin(axis=1)
    good = distances.min(axis=1) < sigmas * np.broadcast_to(std, len(centres))[nearest]
    counts = np.bincount(nearest, minlength=len(centres))
    weights = np.full(len(centres), 1 / len(centres)) if weights is None else np.asarray(weights, np.float64)
    assert weights.shape == (len(centres),), weights.shape
    populated = counts > 0
    shares = counts[populated] / len(samples)
    return MixtureQuality(modes_covered=len(np.unique(nearest[good])), high_quality_share=float(good.mean()),
                          reverse_kl=float(np.sum(shares * np.log(shares / weights[populated]))), counts=counts)
