"""bias_act against recorded values and gradients, and its behaviour on the limits."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.errors import UserError
from gan_jax.layers.activation import activation_gain, bias_act

GOLDEN = pathlib.Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def recorded():
    with np.load(GOLDEN / "op_bias_act.npz", allow_pickle=False) as file:
        return dict(file)


def test_recorded_values_and_gradients(recorded):
    meta = json.loads(str(recorded["meta"]))
    x, dy = (np.moveaxis(recorded[f"in/{name}"], 1, -1) for name in ("x", "dy"))
    b, x2 = recorded["in/b"], recorded["in/x2"]

    def everything(x, b, x2, dy):
        result = {}
        for case, options in meta["cases"].items():
            options = dict(options, activation=case.split("/")[0])
            y, back = jax.vjp(lambda x, b, o=options: bias_act(x, b, **o), x, b)
            gx, gb = back(dy)
            result |= {f"out/{case}": jnp.moveaxis(y, -1, 1), f"grad/{case}/b": gb}
            result[f"grad/{case}/x"] = jnp.moveaxis(gx, -1, 1)
        for name in meta["defaults"]:
            result[f"out/{name}/nobias_2d"] = bias_act(x2, activation=name)
            result[f"out/{name}/bias_2d"] = bias_act(x2, b, activation=name)
        return result

    result = jax.jit(everything)(x, b, x2, dy)
    assert set(result) == {key for key in recorded if key.startswith(("out/", "grad/"))}
    for key, y in result.items():
        expected = recorded[key]
        np.testing.assert_allclose(y, expected, rtol=0, atol=5e-6 * np.abs(expected).max(), err_msg=key)
    for name, default in meta["defaults"].items():
        assert activation_gain(name) == pytest.approx(default["def_gain"])


def test_slopes_on_the_limits():
    """torch's: the leaky slope at 0, and 1 where the value equals the clamp."""
    assert jax.grad(lambda x: bias_act(x, gain=1.0))(0.0) == pytest.approx(0.2)
    assert jax.grad(lambda x: bias_act(x, activation="linear", clamp=2.0))(2.0) == 1
    assert jax.grad(lambda x: bias_act(x, activation="linear", clamp=2.0))(-2.5) == 0


def test_a_clamp_does_not_hide_nan():
    assert jnp.isnan(bias_act(jnp.asarray([jnp.nan]), clamp=1.0))[0]


def test_second_derivatives_against_finite_differences():
    with jax.enable_x64(True):
        x = np.random.default_rng(0).normal(size=(7,)) * 2
        for name in ("tanh", "sigmoid", "elu", "selu", "softplus", "swish", "lrelu"):

            def slope(x, name=name):
                return jax.vmap(jax.grad(lambda x: bias_act(x, activation=name, gain=1.3)))(x)

            second = jax.vmap(jax.grad(lambda x, s=slope: s(x[None])[0]))(x)
            numeric = (slope(x + 1e-6) - slope(x - 1e-6)) / 2e-6
            np.testing.assert_allclose(second, numeric, rtol=1e-6, atol=1e-8, err_msg=name)


def test_keeps_bfloat16():
    x, b = jnp.ones((2, 3), jnp.bfloat16), jnp.ones(3, jnp.float32)
    assert bias_act(x, b, clamp=2.0).dtype == jnp.bfloat16


def test_unknown_activation():
    with pytest.raises(UserError, match="'gelu' is unknown.*lrelu"):
        bias_act(jnp.ones(3), activation="gelu")
