"""Numbers per sample do not depend on the batch that a sample stands in; dropout keeps the mean."""

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax.layers.dropout import dropout
from gan_jax.layers.random import KEY, UNIFORM, Draw, draw, fold, normal, uniform


def test_a_sample_keeps_its_numbers_in_any_batch():
    keys = jax.random.split(jax.random.key(3), 6)
    for make in (normal, uniform):
        whole = make(keys, (4, 5))
        assert whole.shape == (6, 4, 5) and whole.dtype == jnp.float32
        np.testing.assert_array_equal(make(keys[2:4], (4, 5)), whole[2:4])
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


def test_numbers_are_those_of_jax():
    keys = jax.random.split(jax.random.key(6), 3)
    expected = np.stack([jax.random.uniform(key, (5, 7)) for key in keys])
    np.testing.assert_array_equal(uniform(keys, (5, 7)), expected)
    expected = np.stack([jax.random.uniform(key, (), minval=-1.0, maxval=3.0) for key in keys])
    np.testing.assert_array_equal(uniform(keys, (), -1.0, 3.0), expected)


WANTED = {3: UNIFORM, 0: Draw("normal", (2, 50)), 7: KEY, 1: Draw("uniform", (40,)), 2: Draw("normal", (30,))}


def test_draws_do_not_depend_on_what_else_is_wanted():
    keys = jax.random.split(jax.random.key(5), 4)
    draws = draw(keys, WANTED)
    assert {number: x.shape for number, x in draws.items()} == {n: (4, *one.shape) for n, one in WANTED.items()}
    for number, one in WANTED.items():
        for alone in (draw(keys, {number: one})[number], draw(keys[1:], {number: one})[number]):
            among_others = draws[number][-len(alone) :]
            if one.kind == "key":
                alone, among_others = jax.random.key_data(alone), jax.random.key_data(among_others)
            np.testing.assert_array_equal(alone, among_others)


def test_draws_are_independent_and_of_their_kind():
    draws = draw(jax.random.split(jax.random.key(8), 200), WANTED)
    normals = np.concatenate([np.asarray(draws[n]).reshape(200, -1) for n in (0, 2)], axis=1)
    uniforms = np.concatenate([np.asarray(draws[n]).reshape(200, -1) for n in (3, 1)], axis=1)
    assert abs(normals.mean()) < 0.02 and abs(normals.std() - 1) < 0.02
    assert uniforms.min() >= 0 and uniforms.max() < 1 and abs(uniforms.mean() - 0.5) < 0.02
    assert len(np.unique(jax.random.key_data(draws[7]), axis=0)) == 200
    correlations = np.corrcoef(np.concatenate([normals, uniforms], axis=1).T) - np.eye(171)
    assert np.abs(correlations).max() < 0.4  # 1 where two are the same; else 1 / sqrt(200) or so


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
