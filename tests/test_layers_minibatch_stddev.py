"""Minibatch standard deviation against recorded vectors and numpy."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.layers.minibatch_stddev import minibatch_stddev

GOLDEN = pathlib.Path(__file__).parent / "golden"


def test_recorded():
    """The recorded groups hold samples N / group apart: the batch is permuted to make them neighbours."""
    with np.load(GOLDEN / "op_sg2_layers.npz", allow_pickle=False) as file:
        recorded = {key: file[key] for key in file if key.startswith(("mbstd", "meta"))}
    x = np.moveaxis(recorded["mbstd/in"], 1, -1)
    variants = json.loads(str(recorded["meta"]))["kwargs"]["mbstd"]
    assert {f"mbstd/out/{name}" for name in variants} == {key for key in recorded if "/out/" in key}
    for name, options in variants.items():
        group = min(options["group_size"] or len(x), len(x))
        order = np.arange(len(x)).reshape(group, -1).T.ravel()
        y = minibatch_stddev(x[order], group_size=options["group_size"], channels=options["num_channels"])
        expected = np.moveaxis(recorded[f"mbstd/out/{name}"], 1, -1)[order]
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6, err_msg=name)


def test_against_numpy_loops():
    x = np.random.default_rng(0).normal(size=(6, 2, 3, 4))
    with jax.enable_x64(True):
        y = minibatch_stddev(jnp.asarray(x), group_size=3, channels=2)
    assert y.dtype == jnp.float64
    for sample in range(6):
        group = x[sample // 3 * 3 : sample // 3 * 3 + 3]
        for channel in range(2):
            std = np.sqrt(group[..., 2 * channel : 2 * channel + 2].var(0) + 1e-8)
            np.testing.assert_allclose(y[sample, :, :, 4 + channel], std.mean(), rtol=1e-10)


def test_equal_samples_have_finite_gradients():
    x = jnp.ones((4, 2, 2, 3))
    grad = jax.grad(lambda x: jnp.sum(jnp.square(jax.grad(lambda x: jnp.sum(minibatch_stddev(x)))(x))))(x)
    assert np.isfinite(grad).all()


def test_bfloat16_statistics_are_float32():
    x = jnp.asarray(100 + np.random.default_rng(0).normal(size=(4, 2, 2, 3)), jnp.bfloat16)
    y = minibatch_stddev(x)
    assert y.dtype == jnp.bfloat16
    exact = np.sqrt(np.asarray(x, np.float64).var(0) + 1e-8).mean()
    np.testing.assert_allclose(float(y[0, 0, 0, 3]), exact, rtol=1e-2)


def test_rejects_a_batch_that_does_not_divide():
    with pytest.raises(AssertionError, match="batch of 6 is not a multiple of the group size 4"):
        minibatch_stddev(jnp.ones((6, 2, 2, 3)))
