"""The mixtures: their centres by hand, their statistics, and that sample i depends on (seed, i) only."""

import itertools

import numpy as np
import pytest

from gan_jax import specs
from gan_jax.data import open_dataset
from gan_jax.data.mixture import mixture, points
from gan_jax.errors import UserError


def test_centres_and_std_are_the_papers():
    ring, std = mixture("ring8")
    assert std == 0.01 and ring.shape == (8, 2)
    np.testing.assert_allclose(np.hypot(*ring.T), 1)
    np.testing.assert_allclose(ring[[0, 2, 4]], [[1, 0], [0, 1], [-1, 0]], atol=1e-15)
    np.testing.assert_allclose(ring[1], [0.5**0.5, 0.5**0.5])
    grid, std = mixture("grid25")
    assert std == 0.05
    assert set(map(tuple, grid)) == set(itertools.product((-4, -2, 0, 2, 4), repeat=2))
    with pytest.raises(UserError, match="ring8, grid25"):
        mixture("ring")


@pytest.mark.parametrize("name", ["ring8", "grid25"])
def test_statistics(name):
    centres, std = mixture(name)
    count = 200_000
    image, label = points(name, 5, np.arange(count))
    assert (image.dtype, label.dtype, image.shape) == (np.float32, np.int32, (count, 2))
    shares = np.bincount(label, minlength=len(centres)) / count
    np.testing.assert_allclose(shares, 1 / len(centres), atol=5 * (1 / len(centres) / count) ** 0.5)
    noise = (image - centres[label]) / std
    np.testing.assert_allclose(noise.mean(0), 0, atol=5 / count**0.5)
    np.testing.assert_allclose(np.cov(noise.T), np.eye(2), atol=0.02)
    np.testing.assert_allclose((noise**4).mean(0), 3, atol=0.15)  # the kurtosis of a Gaussian
    assert abs(np.mean(noise[:-1] * noise[1:])) < 5 / count**0.5


def test_sample_i_is_a_pure_function_of_seed_and_i():
    whole, labels = points("ring8", 9, np.arange(100))
    indices = np.array([99, 3, 3, 50])
    image, label = points("ring8", 9, indices)
    np.testing.assert_array_equal(image, whole[indices])
    np.testing.assert_array_equal(label, labels[indices])
    assert (points("ring8", 10, np.arange(100))[0] != whole).any()


def test_stream_and_examples():
    data = open_dataset(name="mixture:grid25")
    assert (data.size, data.spec) == (0, specs.labelled((2,), 25))
    stream = data.stream(seed=4, start=30, batch_size=20, rows=np.arange(5, 15))
    next(stream)
    batch = next(stream)
    stream.close()
    image, label = points("grid25", 4, np.arange(55, 65))
    np.testing.assert_array_equal(batch["image"], image)
    np.testing.assert_array_equal(batch["label"], label)
    held_out = data.examples(np.arange(1000))
    for seed in range(3):
        assert not np.isin(held_out["image"], points("grid25", seed, np.arange(1000))[0]).all(1).any()
