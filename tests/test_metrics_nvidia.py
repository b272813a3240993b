"""Metrics against values recorded from NVIDIA's StyleGAN code, where its conventions differ from other packages'."""

import pathlib

import numpy as np
import pytest

from gan_jax import metrics
from gan_jax.metrics import kernel

GOLDEN = pathlib.Path(__file__).resolve().parent / "golden"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "stylegan_metrics.npz") as file:
        return {name: file[name] for name in file.files}


def biased(features):
    """Mean and covariance divided by N, as NVIDIA's code has them."""
    mean, covariance, count = metrics.moments(features)
    return mean, covariance * (count - 1) / count


def test_frechet_distance_of_biased_moments(golden):
    real, fake = golden["in/real_features"], golden["in/fake_features"]
    for name, (mean, covariance) in {"real": biased(real), "fake": biased(fake)}.items():
        np.testing.assert_allclose(mean, golden[f"fid/mu_{name}"], rtol=0, atol=1e-12)
        np.testing.assert_allclose(covariance, golden[f"fid/cov_{name}"], rtol=0, atol=1e-12)
    value = metrics.frechet_distance(*biased(fake), *biased(real))
    np.testing.assert_allclose(value, golden["result/fid"], rtol=1e-6)
    few = metrics.frechet_distance(*biased(fake[:500]), *biased(real[:500]))
    whole = metrics.frechet_distance(*biased(fake[:500]), *biased(real))
    assert min(abs(value / golden["result/fid_first_500"] - 1) for value in (few, whole)) < 1e-6


def test_kernel_distance_of_stored_subsets(golden):
    values = kernel.subset_distances(golden["in/fake_features"], golden["in/real_features"],
                                     golden["kid/subset_idx_fake"], golden["kid/subset_idx_real"])
    np.testing.assert_allclose(values.mean(), golden["result/kid_float64_same_subsets"], rtol=1e-6)
    np.testing.assert_allclose(values.mean(), golden["result/kid"], rtol=5e-4)  # of float32 products


@pytest.mark.parametrize("k", [3, 5])
def test_precision_and_recall_with_borders_included(golden, k):
    result = metrics.neighbourhoods(golden["in/real_features"], golden["in/fake_features"], k=k, inclusive=True)
    for name in ("precision", "recall"):
        np.testing.assert_allclose(getattr(result, name), golden[f"result/pr_float64_k{k}_{name}"], rtol=1e-12)
        np.testing.assert_allclose(getattr(result, name), golden[f"result/pr_float32_k{k}_{name}"], rtol=1e-6)


@pytest.mark.parametrize("splits", [1, 10])
def test_inception_score_in_order(golden, splits):
    logits = np.log(golden["in/probs"].astype(np.float64))
    mean, std = metrics.inception_score(logits, splits=splits, seed=None)
    np.testing.assert_allclose(mean, golden[f"result/is_splits{splits}_mean"], rtol=1e-6)
    np.testing.assert_allclose(std, golden[f"result/is_splits{splits}_std"], rtol=1e-5, atol=1e-12)
