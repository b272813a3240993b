"""The networks of 2014: shapes, ranges, counts, maxout by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.errors import UserError
from gan_jax.models.gan import Discriminator, Generator


def test_published_sizes():
    """784-1200-1200 generator; two maxout layers of 240 units with 5 pieces (Goodfellow et al. 2014)."""
    z, x = jnp.zeros((2, 100)), jnp.zeros((2, 28, 28, 1))
    g = jax.eval_shape(lambda: Generator().init(jax.random.key(0), z, train=True))
    d = jax.eval_shape(lambda: Discriminator().init(jax.random.key(0), x, train=True))
    count = [sum(a.size for a in jax.tree.leaves(v["params"])) for v in (g, d)]
    assert count[0] == 100 * 1200 + 1200 + 1200 * 1200 + 1200 + 1200 * 784 + 784
    assert count[1] == 784 * 1200 + 1200 + 240 * 1200 + 1200 + 240 + 1


@pytest.mark.parametrize(("output", "low", "high"), [("sigmoid", -1, 1), ("tanh", -1, 1), ("linear", -9, 9)])
def test_outputs(output, low, high):
    model = Generator(shape=(2,), latent_size=3, widths=(8,), output=output, activation="leaky_relu")
    z = 50 * jax.random.normal(jax.random.key(0), (40, 3))
    variables = model.init(jax.random.key(1), z, train=True)
    x = model.apply(variables, z, train=False)
    assert x.shape == (40, 2) and x.dtype == jnp.float32 and low <= x.min() and x.max() <= high
    assert np.abs(variables["params"]["hidden0"]["kernel"]).max() <= 0.05


def test_maxout_against_numpy():
    model = Discriminator(shape=(2,), widths=(3,), pieces=2, init_range=0)
    x = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    params = model.init(jax.random.key(0), x, train=False)["params"]
    params = jax.tree.map(lambda a: np.asarray(a) + 0.1, params)
    h = (x @ params["hidden0"]["kernel"] + params["hidden0"]["bias"]).reshape(5, 3, 2).max(-1)
    expected = (h @ params["out"]["kernel"] + params["out"]["bias"])[:, 0]
    np.testing.assert_allclose(model.apply({"params": params}, x, train=True), expected, rtol=1e-5)


def test_dropout_needs_training_and_keys():
    model = Discriminator(shape=(4, 4, 1), widths=(8, 8), init_range=0)
    x = jax.random.normal(jax.random.key(0), (6, 4, 4, 1))
    keys = jax.random.split(jax.random.key(1), 6)
    variables = jax.jit(lambda: model.init(jax.random.key(0), x, train=True))()
    plain = model.apply(variables, x, train=False, keys=keys)
    np.testing.assert_array_equal(model.apply(variables, x, train=True), plain)
    dropped = model.apply(variables, x, train=True, keys=keys)
    assert np.abs(dropped - plain).min() > 0
    np.testing.assert_allclose(
        model.apply(variables, x[2:4], train=True, keys=keys[2:4]), dropped[2:4], rtol=1e-5
    )


def test_spectral_norm_and_errors():
    model = Discriminator(shape=(2,), widths=(8,), activation="relu", spectral_norm=True, dtype=jnp.bfloat16)
    x = jnp.ones((3, 2))
    variables = model.init(jax.random.key(0), x, train=True)
    assert set(variables["spectral"]) == {"hidden0", "out"}
    assert model.apply(variables, x, train=False).dtype == jnp.float32
    with pytest.raises(UserError, match="num_classes=10"):
        Generator(num_classes=10)
    with pytest.raises(UserError, match="activation 'elu'"):
        Discriminator(activation="elu")
