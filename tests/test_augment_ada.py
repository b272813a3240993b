"""The ADA pipeline against the official code's recorded draws and fixed percentiles, and its derivatives."""

import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erfinv

from gan_jax.augment import warp
from gan_jax.augment.ada import Ada, filter_bank
from tests import golden_ada

GOLDEN = pathlib.Path(__file__).parent / "golden"
OFF = dict.fromkeys(("xflip", "rotate90", "xint", "scale", "rotate", "aniso", "xfrac", "brightness", "contrast",
                     "lumaflip", "hue", "saturation", "imgfilter", "noise", "cutout"), 0.0)  # fmt: skip
RANDOM = np.load(GOLDEN / "ada_random.npz")
CASES = json.loads(str(RANDOM["meta"]))["cases"]
PERCENTILE = np.load(GOLDEN / "ada_percentile.npz")
KWARGS = json.loads(str(PERCENTILE["meta"]))["kwargs_per_key"]
KEYS = jax.random.split(jax.random.key(5), 64)


def _nhwc(x):
    return x.transpose(0, 2, 3, 1)


@pytest.mark.parametrize("case", CASES)
def test_recorded_random_draws(case):
    ada = Ada(**OFF | CASES[case]["kwargs"])
    images = _nhwc(RANDOM[CASES[case]["images"]])
    draws = golden_ada.draws(RANDOM, f"draw/{case}/")
    assert jax.tree.map(jnp.shape, draws) == jax.tree.map(jnp.shape, ada.draw(KEYS[: len(images)], images.shape[1:]))
    ours = jax.jit(lambda x, d, p: ada.apply(x, ada.parameters(d, p)))(images, draws, CASES[case]["p"])
    np.testing.assert_allclose(ours, _nhwc(RANDOM[f"out/{case}"]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("group", sorted({key.split("@")[0] for key in KWARGS}))
def test_recorded_percentiles(group):
    images = _nhwc(PERCENTILE["in/images"])
    play = jax.jit(_apply)
    for key in KWARGS:
        if key.split("@")[0] != group:
            continue
        noise = f"in/noise_image/{key}"
        noise = _nhwc(PERCENTILE[noise]) if noise in PERCENTILE.files else None
        with np.errstate(all="ignore"):
            parameters = _percentile_parameters(KWARGS[key], float(key.split("@")[1]), len(images), noise)
        expected = _nhwc(PERCENTILE[f"out/{key}"])
        np.testing.assert_allclose(play(images, parameters), expected, rtol=0, atol=1e-5, err_msg=key)


def _apply(images, parameters):
    return Ada().apply(images, parameters)


def _percentile_parameters(kwargs, q, b, noise):
    normal, share = erfinv(2 * q - 1), 2 * q - 1
    table = {
        "xflip": math.floor(2 * q), "rotate90": math.floor(4 * q), "xint": (share * 0.125,) * 2,
        "scale": 2 ** (normal * 0.2), "rotate": share * math.pi, "aniso": 2 ** (normal * 0.2),
        "xfrac": (normal * 0.125,) * 2, "brightness": normal * 0.2, "contrast": 2 ** (normal * 0.5),
        "lumaflip": math.floor(2 * q), "hue": share * math.pi, "saturation": 2**normal,
        "imgfilter": (2**normal,) * 4, "noise": erfinv(q) * 0.1, "cutout": (q, q, 0.5),
    }  # fmt: skip
    parameters = {"rotate_pre" if k == "rotate" else k: np.array([table[k]] * b, np.float32) for k in kwargs}
    return parameters | ({"noise_image": noise} if noise is not None else {})


def test_the_filter_bank_and_the_wavelet_are_the_recorded_ones():
    np.testing.assert_allclose(filter_bank(), PERCENTILE["out/Hz_fbank"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.array(warp.SYM6) / np.sum(warp.SYM6), PERCENTILE["out/Hz_geom"], rtol=0, atol=1e-7)
    assert np.sum(np.square(warp.SYM6)) == pytest.approx(1, abs=1e-9)  # orthogonal: of unit norm


def test_strength_zero_draws_the_identity_and_two_a_sample_never_rests():
    ada = Ada(imgfilter=1.0, noise=1.0, cutout=1.0)
    draws = ada.draw(KEYS, (8, 8, 3))
    still, moving = (ada.parameters(draws, p) for p in (0.0, 2.0))
    rest = {"scale": 1.0, "aniso": 1.0, "contrast": 1.0, "saturation": 1.0, "imgfilter": 1.0}
    for name in still:
        if name == "noise_image":
            continue
        side = np.s_[:, 2] if name == "cutout" else np.s_[:]
        assert np.all(still[name][side] == rest.get(name, 0.0)), name
        share = np.mean(np.any(np.atleast_2d((moving[name][side] != rest.get(name, 0.0)).T), 0))
        assert share >= (0.3 if name in ("xflip", "lumaflip") else 0.6), name


def test_draws_have_their_distributions_and_gates_their_probability():
    ada = Ada()
    draws = ada.draw(jax.random.split(jax.random.key(1), 4000), (8, 8, 3))
    for name in ("hue", "xint"):
        assert np.mean(draws[name][0]) == pytest.approx(0.5, abs=0.03)
    for name in ("scale", "xfrac"):
        assert np.mean(draws[name][0]) == pytest.approx(0, abs=0.06)
        assert np.std(draws[name][0]) == pytest.approx(1, abs=0.06)
    parameters = ada.parameters(draws, 0.5)
    assert np.mean(parameters["scale"] != 1) == pytest.approx(0.5, abs=0.04)
    turned = (parameters["rotate_pre"] != 0) | (parameters["rotate_post"] != 0)
    assert np.mean(turned) == pytest.approx(0.5, abs=0.04)  # both rotations together
    assert abs(np.corrcoef(draws["hue"][0], draws["hue"][1])[0, 1]) < 0.06


@pytest.mark.parametrize("shape", [(8, 6, 1), (6, 8, 2), (8, 8, 4)])
def test_gray_and_opacity_channels(shape):
    """Colours move gray images as they move equal r, g and b in the mean; opacity only moves with the pixels."""
    images = jax.random.uniform(jax.random.key(0), (4, *shape), minval=-1)
    ada = Ada(**OFF | {"brightness": 1, "contrast": 1, "lumaflip": 1})
    parameters = ada.parameters(ada.draw(KEYS[:4], shape), 1.0)
    moved = ada.apply(images, parameters)
    if shape[2] % 2 == 0:
        np.testing.assert_array_equal(moved[..., -1], images[..., -1])
    if shape[2] < 3:
        colour = ada.apply(jnp.repeat(images[..., :1], 3, 3), parameters)
        np.testing.assert_allclose(moved[..., :1], colour.mean(3, keepdims=True), rtol=0, atol=1e-5)
    assert not {"hue", "saturation"} & set(Ada().draw(KEYS[:4], (8, 6, 1)))


def test_derivatives_of_the_whole_pipeline_against_finite_differences():
    """First and second: of a function of the image, and of |its gradient|^2, in float64."""
    with jax.enable_x64(True):
        ada, shape = Ada(imgfilter=1.0, noise=1.0, cutout=1.0), (5, 6, 3)
        parameters = jax.jit(lambda k: ada.parameters(ada.draw(k, shape), 1.0))(KEYS[:2])
        parameters = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), parameters)
        images, direction = jax.random.normal(jax.random.key(1), (2, 2, *shape), jnp.float64)

        def value(x):
            return jnp.sum(jnp.tanh(ada.apply(x, parameters)))

        def penalty(x):
            return jnp.sum(jax.grad(value)(x) ** 2)

        @jax.jit
        def both(x):
            first, second = (jnp.vdot(jax.grad(f)(x), direction) for f in (value, penalty))
            return first, second, value(x), penalty(x)

        first, second, *_ = both(images)
        (*_, a, b), (*_, c, d) = both(images + 1e-5 * direction), both(images - 1e-5 * direction)
        np.testing.assert_allclose(first, (a - c) / 2e-5, rtol=1e-6)
        np.testing.assert_allclose(second, (b - d) / 2e-5, rtol=1e-6)


def test_a_sample_depends_on_its_own_key_alone():
    ada, images = Ada(**OFF | {"rotate": 1, "xfrac": 1, "hue": 1}), jax.random.normal(KEYS[0], (6, 8, 8, 3))
    play = jax.jit(ada.__call__)
    whole, part = play(images, KEYS[:6], 0.7), play(images[2:5], KEYS[2:5], 0.7)
    np.testing.assert_allclose(whole[2:5], part, rtol=0, atol=1e-6)
