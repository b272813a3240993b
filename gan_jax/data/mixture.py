"""Two-dimensional mixtures of Gaussians, the usual test of mode collapse."""

import numpy as np

from gan_jax.data.checks import unknown
from gan_jax.data.order import bits, uniform

NAMES = ("ring8", "grid25")


def mixture(name: str) -> tuple[np.ndarray, float]:
    """Centres and standard deviation of a mixture with equal weights.

    Source: Srivastava et al. 2017 (VEEGAN, arXiv 1705.07761), Lin et al. 2018 (PacGAN, arXiv 1712.04086).

    Args:
      name: `ring8`, eight modes on the unit circle with std 0.01, or `grid25`, 5x5 modes on
        {-4, -2, 0, 2, 4}^2 with std 0.05.
    Returns:
      (centres float64 (M, 2), std).
    Raises:
      UserError: another name.
    """
    if name == "ring8":
        angle = 2 * np.pi * np.arange(8) / 8
        return np.stack([np.cos(angle), np.sin(angle)], axis=1), 0.01
    if name == "grid25":
        x, y = np.meshgrid(np.arange(-4.0, 5.0, 2.0), np.arange(-4.0, 5.0, 2.0), indexing="ij")
        return np.stack([x.ravel(), y.ravel()], axis=1), 0.05
    raise unknown("mixture", name, NAMES)


def points(name: str, seed: int, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Samples of a mixture; sample i is a pure function of (name, seed, i).

    Args:
      name: as for `mixture`.
      seed: chooses the endless sequence of samples.
      indices: int (B,), places in that sequence.
    Returns:
      (points float32 (B, 2), modes int32 (B,)).
    """
    centres, std = mixture(name)
    mode = (bits(indices, seed, 0) % np.uint64(len(centres))).astype(np.int32)
    radius = np.sqrt(-2 * np.log1p(-uniform(indices, seed, 1)))  # Box-Muller: r = sqrt(-2 ln u)
    angle = 2 * np.pi * uniform(indices, seed, 2)
    noise = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return (centres[mode] + std * noise).astype(np.float32), mode
