"""Equalized layers against recorded vectors, and the scales they start from; pixel and instance norm."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.layers.equalized import EqualConv, EqualDense, he_scale
from gan_jax.layers.norm import instance_norm, pixel_norm

GOLDEN = pathlib.Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def recorded():
    with np.load(GOLDEN / "op_sg2_layers.npz", allow_pickle=False) as file:
        return dict(file)


def parameters(recorded, layer):
    weight = recorded[f"{layer}/weight"]
    params = {"kernel": weight.T if weight.ndim == 2 else weight.transpose(2, 3, 1, 0)}
    if f"{layer}/bias" in recorded:
        params["bias"] = recorded[f"{layer}/bias"]
    return {"params": params}


def close(y, expected, name):
    assert y.shape == expected.shape, name
    np.testing.assert_allclose(y, expected, rtol=0, atol=5e-6 * np.abs(expected).max(), err_msg=name)


def test_recorded_dense(recorded):
    variants = json.loads(str(recorded["meta"]))["kwargs"]["fc"]
    names = {"lr_multiplier": "lr_multiplier", "activation": "activation", "bias": "use_bias"}
    for name, options in variants.items():
        options = {names[key]: value for key, value in options.items() if key in names}
        layer = EqualDense(recorded[f"fc/{name}/weight"].shape[0], **options)
        y = layer.apply(parameters(recorded, f"fc/{name}"), recorded[f"fc/{name}/in"])
        close(y, recorded[f"fc/{name}/out"], name)


def test_recorded_convolution(recorded):
    variants = json.loads(str(recorded["meta"]))["kwargs"]["conv_layer"]
    names = {"out_channels": "features", "bias": "use_bias", "conv_clamp": "clamp"}
    for name, options in variants.items():
        options = {names.get(key, key): value for key, value in options.items() if key != "in_channels"}
        layer = EqualConv(**options)
        x = np.moveaxis(recorded[f"conv_layer/{name}/in"], 1, -1)
        y = jax.jit(layer.apply)(parameters(recorded, f"conv_layer/{name}"), x)
        close(np.moveaxis(np.asarray(y), -1, 1), recorded[f"conv_layer/{name}/out"], name)


def test_recorded_pixel_norm(recorded):
    y = pixel_norm(recorded["normalize_2nd_moment/in"])
    close(y, recorded["normalize_2nd_moment/out"], "normalize_2nd_moment")


def test_initial_parameters():
    """Kernels of deviation 1 / lr_multiplier; a bias that is added as it was asked for."""
    x = jnp.zeros((1, 200))
    layer = EqualDense(300, lr_multiplier=0.01, bias_init=2.0)
    params = layer.init(jax.random.key(0), x)["params"]
    assert float(jnp.std(params["kernel"])) == pytest.approx(100, rel=0.02)
    np.testing.assert_allclose(params["bias"], 200)
    np.testing.assert_allclose(layer.apply({"params": params}, x), 2, rtol=1e-6)

    layer = EqualDense(4, weight_init_std=0.0, bias_init=(1.0, 0.0, 0.0, 0.0))
    np.testing.assert_array_equal(layer.init_with_output(jax.random.key(0), x)[0], [[1, 0, 0, 0]])

    params = EqualConv(64, 3).init(jax.random.key(0), jnp.zeros((1, 4, 4, 32)))["params"]
    assert params["kernel"].shape == (3, 3, 32, 64)
    assert float(jnp.std(params["kernel"])) == pytest.approx(1, rel=0.02)
    np.testing.assert_array_equal(params["bias"], np.zeros(64))


def test_own_gains():
    """he_scale's sqrt(2) before a leaky ReLU of gain 1 is ProGAN's layer."""
    assert he_scale(18, 2**0.5) == pytest.approx(1 / 3)
    x = np.random.default_rng(0).normal(size=(5, 18)).astype(np.float32)
    layer = EqualDense(7, activation="lrelu", weight_gain=2**0.5, activation_gain=1.0)
    y, variables = layer.init_with_output(jax.random.key(0), x)
    z = x @ np.asarray(variables["params"]["kernel"]) / 3
    np.testing.assert_allclose(y, np.where(z > 0, z, 0.2 * z), rtol=1e-5, atol=1e-6)


def test_dtype_and_rectangles():
    layer = EqualConv(4, (3, 1), activation="lrelu", down=2, clamp=1.0, dtype=jnp.bfloat16)
    y, variables = layer.init_with_output(jax.random.key(0), jnp.ones((2, 8, 4, 3)))
    assert y.shape == (2, 4, 2, 4) and y.dtype == jnp.bfloat16
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))


def test_instance_norm():
    x = np.random.default_rng(0).normal(3, 2, size=(2, 5, 4, 3))
    with jax.enable_x64(True):
        y = instance_norm(jnp.asarray(x), 1e-3)
        expected = (x - x.mean((1, 2), keepdims=True)) / np.sqrt(x.var((1, 2), keepdims=True) + 1e-3)
        np.testing.assert_allclose(y, expected, rtol=1e-10)
        z = pixel_norm(jnp.asarray(x))
        np.testing.assert_allclose(np.mean(np.square(z), -1), 1, rtol=1e-7)
