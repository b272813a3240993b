"""BatchNorm, with and without a condition, against numpy, finite differences, and on eight devices against one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from gan_jax.layers.norm import BatchNorm, ConditionalBatchNorm, film


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


def _conditional(batch=16):
    """x (batch, 3, 5, 4), conditions (batch, 3), weights of the sum, and variables of a ConditionalBatchNorm."""
    rng = np.random.default_rng(2)
    x, _ = _data(batch)
    condition, weight = rng.normal(size=(batch, 3)).astype(np.float32), rng.normal(size=x.shape).astype(np.float32)
    maps = {name: {"kernel": rng.normal(size=(3, 4)).astype(np.float32)} for name in ("scale", "offset")}
    stats = {"norm": {"mean": np.float32([1, 2, 3, 4]), "var": np.float32([4, 3, 2, 1])}}
    return x, condition, weight, {"params": maps, "batch_stats": stats}


def test_film_is_a_scale_and_an_offset_of_each_sample_and_channel():
    x, condition, _, _ = _conditional()
    scale, offset = (condition[:, :1] + np.arange(n, n + 4) for n in (1, 5))
    expected = x * scale[:, None, None, :] + offset[:, None, None, :]
    np.testing.assert_allclose(film(x, scale, offset), expected, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(film(x, scale[0], offset[0]), x * scale[0] + offset[0], rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("train", (True, False))
def test_conditional_norm_against_numpy(train):
    x, condition, _, variables = _conditional()
    norm = ConditionalBatchNorm(epsilon=1e-3)
    y, new = norm.apply(variables, x, condition, not train, mutable=["batch_stats"])
    wide, old = x.astype(np.float64), variables["batch_stats"]["norm"]
    mean, var = (wide.mean((0, 1, 2)), wide.var((0, 1, 2))) if train else (old["mean"], old["var"])
    scale, offset = (condition @ variables["params"][name]["kernel"] for name in ("scale", "offset"))
    expected = (wide - mean) / np.sqrt(var + 1e-3) * (1 + scale)[:, None, None, :] + offset[:, None, None, :]
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    if train:
        np.testing.assert_allclose(new["batch_stats"]["norm"]["mean"], 0.9 * old["mean"] + 0.1 * mean, rtol=1e-6)


def test_a_fresh_conditional_norm_is_the_plain_one_and_its_maps_count_their_classes():
    x, _, _, variables = _conditional()
    norm, hot = ConditionalBatchNorm(axis_name="data"), np.eye(3, dtype=np.float32)[np.arange(16) % 3]
    fresh = norm.init(jax.random.key(0), x, hot, False)
    shapes = {name: tree["kernel"].shape for name, tree in fresh["params"].items()}
    assert shapes == {"scale": (3, 4), "offset": (3, 4)}
    y = ConditionalBatchNorm().apply(fresh, x, hot, False)
    plain = BatchNorm(affine=False).apply({"batch_stats": fresh["batch_stats"]["norm"]}, x, False)
    np.testing.assert_allclose(y, plain, rtol=1e-6)
    tables = ConditionalBatchNorm().apply(variables, x, hot, False)  # row of the class: its own scale and offset
    row = plain[0] * (1 + variables["params"]["scale"]["kernel"][0]) + variables["params"]["offset"]["kernel"][0]
    np.testing.assert_allclose(tables[0], row, rtol=1e-5, atol=1e-5)


def test_spectral_norm_divides_the_maps_by_their_largest_singular_values():
    x, condition, _, variables = _conditional()
    norm = ConditionalBatchNorm(spectral_norm=True)
    spectral = {name: {"u": np.linalg.svd(variables["params"][name]["kernel"])[2][0]} for name in ("scale", "offset")}
    y = norm.apply({**variables, "spectral": spectral}, x, condition, True)
    maps = {name: {"kernel": kernel["kernel"] / np.linalg.svd(kernel["kernel"])[1][0]}
            for name, kernel in variables["params"].items()}  # fmt: skip
    expected = ConditionalBatchNorm().apply({**variables, "params": maps}, x, condition, True)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def test_gradients_of_the_conditional_norm_are_finite_differences():
    x, condition, weight, variables = _conditional(4)
    with jax.enable_x64(True):
        arguments = jax.tree.map(lambda array: jnp.asarray(array, jnp.float64), (variables["params"], x, condition))
        stats = variables["batch_stats"]

        def total(params, x, condition):
            y = ConditionalBatchNorm().apply({"params": params, "batch_stats": stats}, x, condition, False)
            return jnp.sum(jnp.sin(y) * weight)

        rng = np.random.default_rng(3)
        way = jax.tree.map(lambda array: jnp.asarray(rng.normal(size=array.shape)), arguments)
        slope = sum(jnp.vdot(a, b) for a, b in zip(
            jax.tree.leaves(jax.grad(total, (0, 1, 2))(*arguments)), jax.tree.leaves(way), strict=True))  # fmt: skip
        ends = [total(*jax.tree.map(lambda a, b, step=step: a + step * b, arguments, way)) for step in (1e-5, -1e-5)]
        np.testing.assert_allclose(slope, (ends[0] - ends[1]) / 2e-5, rtol=1e-7)


def test_a_conditional_norm_is_the_same_on_eight_devices():
    x, condition, weight, variables = _conditional()
    spectral = {name: {"u": np.float32([0.5, 0.5, 0.5, 0.5])} for name in ("scale", "offset")}
    variables = {**variables, "spectral": spectral}

    def loss(params, rest, x, condition, weight, axis):
        norm, names = ConditionalBatchNorm(axis_name=axis, spectral_norm=True), ["batch_stats", "spectral"]
        y, new = norm.apply({"params": params, **rest}, x, condition, False, mutable=names)
        return jnp.mean(y * y * weight), (y, new)

    def one(params, rest, *arrays):
        (_, (y, new)), grads = jax.value_and_grad(loss, has_aux=True)(params, rest, *arrays, None)
        return y, new, grads

    def each(params, rest, *arrays):
        params = jax.lax.pcast(params, "data", to="varying")
        (_, (y, new)), grads = jax.value_and_grad(loss, has_aux=True)(params, rest, *arrays, "data")
        return y, new, jax.lax.pmean(grads, "data")

    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    whole, split = PartitionSpec(), PartitionSpec("data")
    specs = {"in_specs": (whole, whole, split, split, split), "out_specs": (split, whole, whole)}
    params = variables.pop("params")
    args = params, variables, x, condition, weight
    a, b = jax.jit(one)(*args), jax.jit(jax.shard_map(each, mesh=mesh, **specs))(*args)
    jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, rtol=1e-5, atol=2e-6), a, b)
