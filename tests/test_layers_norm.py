"""BatchNorm against numpy, and on eight devices against one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from gan_jax.layers.norm import BatchNorm


def _data(batch=16):
    x = np.random.default_rng(0).normal(3.0, 2.0, (batch, 3, 5, 4)).astype(np.float32)
    variables = {
        "params": {"scale": np.float32([1, 2, 3, 4]), "bias": np.float32([0, 1, 0, -1])},
        "batch_stats": {"mean": np.float32([1, 2, 3, 4]), "var": np.float32([4, 3, 2, 1])},
    }
    return x, variables


def test_training_and_evaluation_against_numpy():
    x, variables = _data()
    norm = BatchNorm(momentum=0.8, epsilon=1e-3)
    y, new = norm.apply(variables, x, use_running_average=False, mutable=["batch_stats"])
    wide = x.astype(np.float64)
    mean, var = wide.mean((0, 1, 2)), wide.var((0, 1, 2))
    scale, bias = variables["params"]["scale"], variables["params"]["bias"]
    np.testing.assert_allclose(y, (wide - mean) / np.sqrt(var + 1e-3) * scale + bias, rtol=1e-5, atol=1e-5)
    old, count = variables["batch_stats"], 16 * 3 * 5
    np.testing.assert_allclose(new["batch_stats"]["mean"], 0.8 * old["mean"] + 0.2 * mean, rtol=1e-6)
    unbiased = var * count / (count - 1)
    np.testing.assert_allclose(new["batch_stats"]["var"], 0.8 * old["var"] + 0.2 * unbiased, rtol=1e-6)
    y = norm.apply(variables, x, use_running_average=True)
    expected = (wide - old["mean"]) / np.sqrt(old["var"] + 1e-3) * scale + bias
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def test_initialisation_and_frozen_statistics():
    x, variables = _data()
    norm = BatchNorm(axis_name="data")  # no collective while initialising, hence no axis needed
    fresh = norm.init(jax.random.key(0), x, use_running_average=False)
    np.testing.assert_array_equal(fresh["batch_stats"]["mean"], np.zeros(4))
    np.testing.assert_array_equal(fresh["batch_stats"]["var"], np.ones(4))
    BatchNorm().apply(variables, x, use_running_average=False)  # statistics not mutable: used, not stored


def test_bfloat16_statistics_are_float32():
    x, variables = _data()
    y, new = BatchNorm(dtype=jnp.bfloat16).apply(
        variables, x.astype(jnp.bfloat16), use_running_average=False, mutable=["batch_stats"]
    )
    assert y.dtype == jnp.bfloat16 and new["batch_stats"]["var"].dtype == jnp.float32
    exact = BatchNorm().apply(variables, x, use_running_average=False)
    np.testing.assert_allclose(y.astype(np.float32), exact, atol=0.1)


@pytest.mark.parametrize("check_vma", [True, False])
def test_eight_devices_as_one(check_vma):
    x, variables = _data()
    weight = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)

    def loss(params, stats, x, weight, axis):
        y, new = BatchNorm(axis_name=axis).apply(
            {"params": params, "batch_stats": stats}, x, use_running_average=False, mutable=["batch_stats"]
        )
        return jnp.mean(y * y * weight), (y, new)

    def one(params, stats, x, weight):
        (_, (y, new)), grads = jax.value_and_grad(loss, has_aux=True)(params, stats, x, weight, None)
        return y, new, grads

    def each(params, stats, x, weight):
        params = jax.lax.pcast(params, "data", to="varying")
        (_, (y, new)), grads = jax.value_and_grad(loss, has_aux=True)(params, stats, x, weight, "data")
        return y, new, jax.lax.pmean(grads, "data")

    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    whole, split = PartitionSpec(), PartitionSpec("data")
    many = jax.shard_map(
        each,
        mesh=mesh,
        in_specs=(whole, whole, split, split),
        out_specs=(split, whole, whole),
        check_vma=check_vma,
    )
    args = variables["params"], variables["batch_stats"], x, weight
    a, b = jax.jit(one)(*args), jax.jit(many)(*args)
    jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, rtol=1e-5, atol=2e-6), a, b)
