"""StyleGAN3's filtered nonlinearity and filter design against recorded vectors and finite differences."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.layers.filtered_lrelu import filtered_lrelu, lowpass_taps

GOLDEN = pathlib.Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def recorded():
    with np.load(GOLDEN / "op_filtered_lrelu.npz", allow_pickle=False) as file:
        return dict(file)


def padding_of(value):
    """[left, right, top, bottom] of the recordings as ((top, bottom), (left, right))."""
    return value if isinstance(value, int) else (tuple(value[2:]), tuple(value[:2]))


def test_recorded_values_and_gradients(recorded):
    cases = json.loads(str(recorded["meta"]))["cases"]
    dys = {case: np.moveaxis(recorded[f"in/dy/{case}"], 1, -1) for case in cases}

    def everything(x, b, dys):
        result = {}
        for case, spec in cases.items():
            options = {key: spec[key] for key in ("slope", "gain", "clamp", "up", "down") if key in spec}
            options |= {"padding": padding_of(spec["padding"]), "flip": spec.get("flip_filter", False)}
            options["up_taps"], options["down_taps"] = (
                None if spec[key] is None else recorded[f"design/{spec[key]}"] for key in ("fu", "fd")
            )
            y, back = jax.vjp(lambda x, b, o=options: filtered_lrelu(x, b, **o), x, b)
            gx, gb = back(dys[case])
            result |= {f"out/{case}": jnp.moveaxis(y, -1, 1), f"grad/{case}/b": gb}
            result[f"grad/{case}/x"] = jnp.moveaxis(gx, -1, 1)
        return result

    result = jax.jit(everything)(np.moveaxis(recorded["in/x"], 1, -1), recorded["in/b"], dys)
    assert set(result) == {key for key in recorded if key.startswith(("out/", "grad/"))}
    for key, y in result.items():
        expected = recorded[key]
        assert y.shape == expected.shape, key
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5 * np.abs(expected).max(), err_msg=key)


def test_recorded_designs(recorded):
    designs = json.loads(str(recorded["meta"]))["design_kwargs"]
    for name, options in designs.items():
        expected = recorded[f"design/{name}"]
        np.testing.assert_allclose(lowpass_taps(**options), expected, atol=1e-7, err_msg=name)


def test_filters_pass_low_and_stop_high_frequencies():
    taps = lowpass_taps(48, 4.0, 2.0, 32.0)
    t = np.arange(48) / 32

    def response(frequency):
        return abs(np.sum(taps * np.exp(-2j * np.pi * frequency * t)))

    assert response(0) == pytest.approx(1)
    assert response(2.5) == pytest.approx(1, abs=0.01) and response(5.5) == pytest.approx(0, abs=0.01)
    plane = lowpass_taps(25, 4.0, 2.0, 32.0, radial=True)
    assert plane.shape == (25, 25) and plane.sum() == pytest.approx(1)
    np.testing.assert_allclose(plane, plane.T)
    assert np.unravel_index(plane.argmax(), plane.shape) == (12, 12)
    assert lowpass_taps(1, 4.0, 2.0, 32.0) is None


@pytest.mark.parametrize("radial", [False, True])
def test_second_derivatives_against_finite_differences(radial):
    taps = lowpass_taps(6, 1.0, 1.1, 8.0)
    down_taps = lowpass_taps(6, 1.0, 1.1, 8.0, radial=radial)
    rng = np.random.default_rng(0)
    x, b = rng.normal(size=(1, 5, 4, 2)), rng.normal(size=2)
    direction = rng.normal(size=x.shape)

    def penalty(x):
        def net(x):
            options = {"up": 2, "down": 2, "padding": ((4, 5), (5, 4))}
            y = filtered_lrelu(jnp.tanh(x), b, up_taps=taps, down_taps=down_taps, **options)
            return jnp.sum(jnp.tanh(y))

        return jnp.sum(jnp.square(jax.grad(net)(x)))

    with jax.enable_x64(True):
        slope = jnp.sum(jax.jit(jax.grad(penalty))(x) * direction)
        value = jax.jit(penalty)
        ends = [value(x + step * direction) for step in (1e-7, -1e-7)]
        np.testing.assert_allclose(slope, (ends[0] - ends[1]) / 2e-7, rtol=1e-5)


def test_a_constant_keeps_its_brightness():
    """Away from the borders a constant comes out as gain * lrelu(constant)."""
    taps = lowpass_taps(12, 4.0, 2.7, 32.0)
    y = filtered_lrelu(jnp.full((1, 24, 24, 1), -3.0), up_taps=taps, down_taps=taps, up=2, down=2, gain=1.0)
    np.testing.assert_allclose(y[0, 4:-4, 4:-4], -0.6, rtol=0.02)
