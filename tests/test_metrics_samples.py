"""Metrics of plain samples: mixtures, the baseline models, and how extractors are fed."""

import numpy as np
import pytest

from gan_jax import metrics
from gan_jax.errors import UserError
from gan_jax.features.state import weights_sha256
from gan_jax.metrics import baselines, mixture

# Mixtures

def test_mixture_quality_of_a_hand_made_example():
    centres = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    samples = np.array([
        [0.1, 0.0], [0.0, 0.2], [-0.2, 0.1], [0.29, 0.0],  # four good ones at mode 0
        [10.0, 0.2], [10.0, 0.31],                         # mode 1: one good, one just outside 3 x 0.1
        [0.0, 9.0], [4.9, 6.0],                            # nearest to mode 2, none of them good
    ])
    result = metrics.mixture_quality(samples, centres, 0.1)
    assert result.modes_covered == 2
    assert result.high_quality_share == 5 / 8
    np.testing.assert_array_equal(result.counts, [4, 2, 2, 0])
    expected = 0.5 * np.log(0.5 / 0.25) + 2 * 0.25 * np.log(0.25 / 0.25)  # 0 log 0 = 0 for the lost mode
    np.testing.assert_allclose(result.reverse_kl, expected, rtol=1e-12)


def test_mixture_quality_of_the_mixture_itself():
    rng = np.random.default_rng(10)
    angles = 2 * np.pi * np.arange(8) / 8
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    samples = ring[rng.integers(0, 8, 20000)] + 0.01 * rng.normal(size=(20000, 2))
    result = metrics.mixture_quality(samples.astype(np.float32), ring, 0.01)
    assert result.modes_covered == 8
    assert abs(result.high_quality_share - (1 - np.exp(-4.5))) < 0.003  # 4 standard errors
    assert 0 <= result.reverse_kl < 1e-3                                # about 7 / (2 x 20000)


def test_mixture_quality_knows_each_modes_weight_and_std():
    centres = np.array([[0.0], [10.0]])
    samples = np.array([[0.5], [0.2], [0.1], [9.5]])
    result = metrics.mixture_quality(samples, centres, [0.1, 1.0], weights=[0.75, 0.25])
    assert result == (2, 0.75, pytest.approx(0.0, abs=1e-15), pytest.approx(np.array([3, 1])))
    collapsed = mixture.mixture_quality(samples[:3], centres, 0.1)
    np.testing.assert_allclose(collapsed.reverse_kl, np.log(2))


def test_mixture_quality_refuses_images_and_nan():
    with pytest.raises(UserError, match="mixtures of Gaussians only"):
        metrics.mixture_quality(np.zeros((4, 8, 8, 1)), np.zeros((3, 2)), 0.1)
    with pytest.raises(UserError, match="NaN"):
        metrics.mixture_quality(np.full((4, 2), np.nan), np.zeros((3, 2)), 0.1)


# Baselines

def test_pixel_gaussian_has_the_pixels_moments_and_no_correlation():
    rng = np.random.default_rng(11)
    level = rng.normal(size=(500, 1, 1, 1))  # one brightness per image: pixels fully correlated
    exact = 128 + level * np.array([5.0, 20.0]).reshape(1, 1, 2, 1)
    images = np.clip(np.rint(exact), 0, 255).astype(np.uint8)
    samples = metrics.pixel_gaussian_samples(images, 4000, seed=3)
    assert samples.shape == (4000, 1, 2, 1) and samples.dtype == np.uint8
    flat, reals = samples.reshape(4000, 2).astype(float), images.reshape(500, 2).astype(float)
    np.testing.assert_allclose(flat.mean(0), reals.mean(0), atol=1.5)
    np.testing.assert_allclose(flat.std(0), reals.std(0), rtol=0.05)
    assert abs(np.corrcoef(flat.T)[0, 1]) < 0.07 < np.corrcoef(reals.T)[0, 1]
    np.testing.assert_array_equal(samples, metrics.pixel_gaussian_samples(images, 4000, seed=3))


def test_pixel_gaussian_is_clipped_rather_than_wrapped():
    images = np.repeat(np.array([0, 255], np.uint8), 50).reshape(100, 1, 1, 1)
    samples = metrics.pixel_gaussian_samples(images, 500, seed=0)
    assert np.mean(samples == 0) > 0.1 and np.mean(samples == 255) > 0.1  # 16 % of the mass beyond each end


def test_pixel_shuffle_keeps_each_images_pixels():
    images = np.random.default_rng(12).integers(0, 256, (3, 4, 5, 2), dtype=np.uint8)
    samples = metrics.pixel_shuffle_samples(images, 5, seed=0)
    for number, sample in enumerate(samples):
        original = images[number % 3]
        assert sorted(map(tuple, sample.reshape(-1, 2))) == sorted(map(tuple, original.reshape(-1, 2)))
        assert (sample != original).any()


def test_noise_fills_the_range():
    samples = baselines.noise_samples((8, 8, 1), 50, seed=0)
    assert samples.shape == (50, 8, 8, 1) and samples.min() == 0 and samples.max() == 255


def test_baselines_refuse_floats():
    with pytest.raises(UserError, match="uint8"):
        metrics.pixel_gaussian_samples(np.zeros((2, 4, 4, 1), np.float32), 3, seed=0)


# Weights

def test_weights_digest_sees_names_types_shapes_and_values():
    base = {"a": np.arange(4, dtype=np.float32), "b": np.ones(2)}
    changed = [{"c": base["a"], "b": base["b"]}, {**base, "a": base["a"].astype(np.int32)},
               {**base, "a": base["a"].reshape(2, 2)}, {**base, "b": np.array([1.0, 2.0])}]
    digests = {weights_sha256(arrays) for arrays in [base, *changed]}
    assert len(digests) == 5
    assert weights_sha256(dict(reversed(base.items()))) == weights_sha256(base)
    assert weights_sha256({**base, "a": base["a"].astype(">f4")}) == weights_sha256(base)


def test_ridge_regression_is_that_of_scikit_learn_at_the_penalty_of_cross_validation():
    """The penalty by the definition, eq. 1.4 with the matrix that maps targets to their fit, over the same choices."""
    from sklearn.linear_model import Ridge

    rng = np.random.default_rng(0)
    sources = rng.integers(0, 256, (40, 3, 3, 1), dtype=np.uint8)
    noisy = 0.4 * sources[:, :2, :2].repeat(2, -1) + rng.normal(90, 20, (40, 2, 2, 2))
    targets = np.clip(noisy, 0, 255).astype(np.uint8)
    ours = metrics.ridge_regression(sources, targets)
    x, y = sources.reshape(40, -1).astype(float), targets.reshape(40, -1).astype(float)
    centred = x - x.mean(0)

    def score(penalty):
        hat = centred @ np.linalg.solve(centred.T @ centred + penalty * np.eye(9), centred.T) + 1 / 40
        return np.square(y - hat @ y).sum() / np.trace(np.eye(40) - hat) ** 2

    choices = np.geomspace(1e-6, 1, 31) * np.linalg.eigvalsh(centred.T @ centred)[-1]
    assert ours.penalty == pytest.approx(min(choices, key=score))
    theirs = Ridge(alpha=ours.penalty).fit(x, y)
    fresh = rng.integers(0, 256, (5, 3, 3, 1), dtype=np.uint8)
    expected = np.rint(theirs.predict(fresh.reshape(5, -1))).reshape(5, 2, 2, 2)
    np.testing.assert_array_equal(ours.predict(fresh), np.clip(expected, 0, 255))
