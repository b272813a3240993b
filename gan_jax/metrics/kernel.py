"""Kernel distance: squared maximum mean discrepancy under a cubic kernel (KID for Inception's features).

Binkowski et al. 2018 (arXiv 1801.01401), section 4. Float64 on the host, of the rows in use alone.
"""

import numpy as np

from gan_jax.errors import UserError


def polynomial_kernel(x, y) -> np.ndarray:
    """(x . y / D + 1)^3 for every pair of rows; x (M, D), y (N, D) -> (M, N)."""
    base = x @ y.T / x.shape[1] + 1.0
    return base * base * base  # numpy's powers are many times slower


def squared_mmd(x, y) -> float:
    """Unbiased estimate of MMD^2: own-set means without the diagonal, minus twice the mean over cross pairs.

    Args:
      x, y: features (M, D), (N, D), M and N at least 2.
    Returns:
      The estimate; around 0, also below it, where both sets follow one distribution.
    Raises:
      UserError: a set has fewer than 2 rows, or the numbers of features differ.
    """
    x, y = (part.astype(np.float64) for part in _pair(x, y))
    m, n = len(x), len(y)
    xx, yy = polynomial_kernel(x, x), polynomial_kernel(y, y)
    mean_xx = (xx.sum() - np.trace(xx)) / (m * (m - 1))
    mean_yy = (yy.sum() - np.trace(yy)) / (n * (n - 1))
    return float(mean_xx + mean_yy - 2 * polynomial_kernel(x, y).mean())


def draw_subsets(count_x: int, count_y: int, *, subsets: int, subset_size: int, seed: int):
    """Index pairs of the subsets, in torch-fidelity's draw: RandomState(seed); per subset set 1, then set 2.

    A `subset_size` above the smaller set is clipped to it (as NVIDIA's KID does; torch-fidelity refuses).

    Returns:
      Two integer arrays (subsets, size), each row without repetition.
    """
    size = min(subset_size, count_x, count_y)
    rng = np.random.RandomState(seed)
    pairs = [(rng.choice(count_x, size, replace=False), rng.choice(count_y, size, replace=False))
             for _ in range(subsets)]
    return np.stack([x for x, _ in pairs]), np.stack([y for _, y in pairs])


def subset_distances(x, y, index_x, index_y) -> np.ndarray:
    """`squared_mmd` of each pair of subsets; x (M, D), y (N, D), indices (S, size) each -> (S,) float64."""
    x, y = _pair(x, y)
    return np.array([squared_mmd(x[i], y[j]) for i, j in zip(index_x, index_y, strict=True)])


def kernel_distance(
    x, y, *, subsets: int = 100, subset_size: int = 1000, seed: int = 2020,
) -> tuple[float, float]:
    """Mean and population standard deviation of the unbiased MMD^2 over random subsets.

    Args:
      x, y: features (M, D), (N, D).
      subsets: how many pairs of subsets.
      subset_size: rows of each; clipped to the smaller set, see `draw_subsets`.
      seed: of the draw; 2020 repeats torch-fidelity's.
    Raises:
      UserError: a set has fewer than 2 rows, the numbers of features differ, or a subset has fewer than 2.
    """
    if subsets < 1 or subset_size < 2:
        raise UserError(f"kernel distance over {subsets} subsets of {subset_size} images: "
                        "expected at least 1 subset of at least 2.")
    x, y = _pair(x, y)
    indices = draw_subsets(len(x), len(y), subsets=subsets, subset_size=subset_size, seed=seed)
    values = subset_distances(x, y, *indices)
    return float(values.mean()), float(values.std())


def _pair(x, y) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise UserError(f"kernel distance of features {x.shape} and {y.shape}: expected two sets (N, D) of "
                        "one D and at least 2 rows each; evaluate more images.")
    return x, y
