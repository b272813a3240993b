"""Convolution, transposed convolution and dense modules; spectral normalisation against the SVD."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from gan_jax.layers.linear import Conv, ConvTranspose, Dense


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (Conv(6, 5, 2), (4, 3, 6)),
        (Conv(6, (4, 3), padding="VALID", use_bias=False), (5, 4, 6)),
        (Conv(6, 4, 2, ((1, 1), (0, 2))), (4, 3, 6)),
        (ConvTranspose(6, 5, 2), (16, 12, 6)),
        (ConvTranspose(6, 4, (2, 1)), (16, 6, 6)),
        (ConvTranspose(6, 2, 3), (24, 18, 6)),
        (ConvTranspose(6, 3, 2, padding="VALID"), (17, 13, 6)),
    ],
)
def test_shapes(module, shape):
    x = jnp.ones((2, 8, 6, 3))
    y, variables = jax.eval_shape(lambda: module.init_with_output(jax.random.key(0), x))
    assert y.shape == (2, *shape) and ("bias" in variables["params"]) == module.use_bias
    assert {a.dtype for a in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    half = module.clone(dtype=jnp.bfloat16)
    y, variables = jax.eval_shape(lambda: half.init_with_output(jax.random.key(0), x))
    assert y.dtype == jnp.bfloat16 and {a.dtype for a in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


def test_dense_is_affine():
    x = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    params = {"kernel": np.arange(20, dtype=np.float32).reshape(5, 4), "bias": np.float32([1, 2, 3, 4])}
    expected = x @ params["kernel"] + params["bias"]
    np.testing.assert_allclose(Dense(4).apply({"params": params}, x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("module", [Conv(6, 3), ConvTranspose(6, 3, 2), Dense(6)])
def test_spectral_norm_finds_the_largest_singular_value(module):
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype(np.float32)
    module = module.clone(spectral_norm=True, use_bias=False)
    variables = jax.jit(lambda: module.init(jax.random.key(0), x, train=True))()
    step = jax.jit(lambda v: module.apply(v, x, train=True, mutable=["spectral"])[1])
    assert variables["spectral"]["u"].shape == (6,)
    for _ in range(200):
        variables = {**variables, **step(variables)}
    kernel = np.asarray(variables["params"]["kernel"], np.float64)
    matrix = np.moveaxis(kernel, -1, 0).reshape(6, -1)
    plain = module.clone(spectral_norm=False).apply(variables, x)
    sigma = np.linalg.svd(matrix, compute_uv=False)[0]
    y = module.apply(variables, x)
    np.testing.assert_allclose(y, plain / sigma, rtol=1e-4, atol=1e-5)


def test_spectral_norm_iterates_once_in_training_only():
    x = np.ones((2, 5), np.float32)
    module = Dense(4, use_bias=False, spectral_norm=True)
    variables = module.init(jax.random.key(1), x)
    w = np.asarray(variables["params"]["kernel"], np.float64).T
    u = np.asarray(variables["spectral"]["u"], np.float64)
    np.testing.assert_allclose(np.linalg.norm(u), 1, rtol=1e-6)
    y, same = module.apply(variables, x, train=False, mutable=["spectral"])
    np.testing.assert_array_equal(same["spectral"]["u"], variables["spectral"]["u"])
    np.testing.assert_allclose(y, x @ w.T / np.linalg.norm(w.T @ u), rtol=1e-5)
    v = w.T @ u / np.linalg.norm(w.T @ u)
    new_u = w @ v / np.linalg.norm(w @ v)
    y, new = module.apply(variables, x, train=True, mutable=["spectral"])
    np.testing.assert_allclose(new["spectral"]["u"], new_u, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(y, x @ w.T / (new_u @ w @ v), rtol=1e-5)
    np.testing.assert_array_equal(module.apply(variables, x, train=True), y)  # 'spectral' not mutable


def test_spectral_gradient_holds_the_singular_vectors_constant():
    """d sigma / d W = u v^T (Miyato et al. 2018, eq. 11), hence the gradient of <W / sigma, C>."""
    module = Dense(3, use_bias=False, spectral_norm=True)
    rng = np.random.default_rng(0)
    kernel, c, u = rng.normal(size=(4, 3)), rng.normal(size=(4, 3)), rng.normal(size=3)
    v = kernel @ u / np.linalg.norm(kernel @ u)
    sigma = v @ kernel @ u
    expected = c / sigma - np.sum(c * kernel) / sigma**2 * np.outer(v, u)

    def f(kernel):
        y = module.apply(
            {"params": {"kernel": kernel}, "spectral": {"u": u.astype(np.float32)}},
            np.eye(4, dtype=np.float32),
        )
        return jnp.sum(y * c.astype(np.float32))

    np.testing.assert_allclose(jax.grad(f)(kernel.astype(np.float32)), expected, rtol=1e-4, atol=1e-5)


def test_spectral_vector_stays_replicated_under_shard_map():
    module = Dense(4, spectral_norm=True, axis_name="data")
    x = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
    variables = module.init(jax.random.key(0), x, train=True)

    def each(params, spectral, x):
        params = jax.lax.pcast(params, "data", to="varying")
        return module.apply({"params": params, "spectral": spectral}, x, train=True, mutable=["spectral"])

    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    p, split = PartitionSpec(), PartitionSpec("data")
    step = jax.shard_map(each, mesh=mesh, in_specs=(p, p, split), out_specs=(split, p))
    a = jax.jit(step)(variables["params"], variables["spectral"], x)
    alone = module.clone(axis_name=None)
    b = jax.jit(lambda v: alone.apply(v, x, train=True, mutable=["spectral"]))(variables)
    jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, rtol=1e-5, atol=1e-6), a, b)
