"""Numbers per sample do not depend on the batch that a sample stands in; dropout keeps the mean."""

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax.layers.dropout import dropout
from gan_jax.layers.random import fold, normal, streams, uniform


def test_a_sample_keeps_its_numbers_in_any_batch():
    keys = jax.random.split(jax.random.key(3), 6)
    for draw in (normal, uniform):
        whole = draw(keys, (4, 5))
        assert whole.shape == (6, 4, 5) and whole.dtype == jnp.float32
        np.testing.assert_array_equal(draw(keys[2:4], (4, 5)), whole[2:4])
        assert len(np.unique(np.asarray(whole))) == whole.size


def test_moments_and_limits():
    keys = jax.random.split(jax.random.key(0), 50)
    x = np.asarray(normal(keys, (1000,)))
    assert abs(x.mean()) < 0.02 and abs(x.std() - 1) < 0.02
    u = np.asarray(uniform(keys, (1000,), -1.0, 3.0))
    assert u.min() >= -1 and u.max() < 3 and abs(u.mean() - 1) < 0.03


def test_any_number_of_samples_has_the_numbers_of_their_keys():
    for count in (1, 2, 3, 5, 6):
        keys = jax.random.split(jax.random.key(4), count)
        expected = np.stack([jax.random.normal(key, (2, 3)) for key in keys])
        np.testing.assert_allclose(normal(keys, (2, 3)), expected, rtol=1e-6)


def test_streams_are_the_keys_folded_with_each_number():
    keys = jax.random.split(jax.random.key(5), 3)
    found = np.asarray(jax.random.key_data(streams(keys, 4)))
    expected = [[jax.random.key_data(jax.random.fold_in(key, i)) for key in keys] for i in range(4)]
    np.testing.assert_array_equal(found, np.asarray(expected))


def test_fold_gives_independent_streams():
    keys = jax.random.split(jax.random.key(0), 3)
    data = [np.asarray(jax.random.key_data(fold(keys, i))).tobytes() for i in range(4)]
    assert len({*data, np.asarray(jax.random.key_data(keys)).tobytes()}) == 5


def test_dropout_zeroes_and_scales():
    keys = jax.random.split(jax.random.key(1), 20)
    x = jnp.full((20, 30, 40), 3.0)
    y = np.asarray(dropout(x, keys, 0.25))
    assert set(np.unique(y)) == {0.0, 4.0}
    assert abs((y == 0).mean() - 0.25) < 0.01
    np.testing.assert_array_equal(dropout(x[5:7], keys[5:7], 0.25), y[5:7])
    assert dropout(x, keys, 0.0) is x and dropout(x, None, 0.5) is x
    assert dropout(x.astype(jnp.bfloat16), keys, 0.5).dtype == jnp.bfloat16
