"""FIR resampling against recorded vectors, zero insertion in numpy and finite differences."""

import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, PartitionSpec

from gan_jax.layers.fir import blur, downsample2d, filter2d, normalised, upfirdn2d, upsample2d

GOLDEN = pathlib.Path(__file__).parent / "golden"
RNG = np.random.default_rng(0)
TAPS = tuple(RNG.normal(size=5).tolist())
PLANE = RNG.normal(size=(3, 4))

# taps, up, down, padding, flip: 1-D and plane, fractional rates, cropping, fewer taps than zeros, many taps
CASES = [
    ((1, 3, 3, 1), 2, 1, ((2, 1), (2, 1)), False),
    (TAPS, 1, 2, ((1, 2), (2, 2)), False),
    (TAPS, (3, 2), (2, 3), ((4, -1), (-2, 5)), True),
    (PLANE, 2, (3, 4), ((3, 2), (1, 4)), False),
    (PLANE, (4, 1), 2, ((-3, 4), (2, 0)), True),
    ((2.0,), 3, 2, 0, False),
    (RNG.normal(size=(12, 13)), (4, 3), (1, 2), ((8, 5), (9, -1)), False),
]


def recorded_padding(value):
    """[left, right, top, bottom] of the recordings as ((top, bottom), (left, right))."""
    if isinstance(value, int):
        return value
    left, right, top, bottom = value
    return (top, bottom), (left, right)


def nhwc(x):
    return np.moveaxis(np.asarray(x), 1, -1)


def zero_insertion(x, taps, up, down, padding, flip, gain=1.0):
    """The definition, literally, in float64."""
    up, down = np.broadcast_to(up, 2), np.broadcast_to(down, 2)
    padding = np.broadcast_to(padding, (2, 2))
    taps = np.asarray(taps, np.float64)
    taps = np.outer(taps, taps) if taps.ndim == 1 else taps
    taps = taps if flip else taps[::-1, ::-1]
    b, h, w, c = x.shape
    (top, bottom), (left, right) = padding
    big = np.zeros((b, 100 + h * up[0], 100 + w * up[1], c))
    big[:, 50 : 50 + h * up[0] : up[0], 50 : 50 + w * up[1] : up[1]] = x
    big = big[:, 50 - top : 50 + h * up[0] + bottom, 50 - left : 50 + w * up[1] + right]
    windows = np.lib.stride_tricks.sliding_window_view(big, taps.shape, (1, 2))
    return gain * np.einsum("bhwckl,kl->bhwc", windows, taps)[:, :: down[0], :: down[1]]


@pytest.fixture(scope="module")
def recorded():
    with np.load(GOLDEN / "op_upfirdn2d.npz", allow_pickle=False) as file:
        return dict(file)


def test_recorded_cases(recorded):
    """19 cases, the wrappers with 5 filters, and all filters that the recorded set-up makes of raw taps."""
    meta, x = json.loads(str(recorded["meta"])), nhwc(recorded["in/x"])
    calls = {}
    for name, case in meta["cases"].items():
        options = {"padding": recorded_padding(case["padding"]), "flip": case.get("flip_filter", False)}
        for rate in ("up", "down"):  # pairs are recorded as [x, y]
            value = case[rate]
            options[rate] = value if isinstance(value, int) else tuple(value[::-1])
        options["gain"] = case.get("gain", 1)
        calls[name] = upfirdn2d, x, recorded.get(f"filter/{name}"), options
    for name in ("f1331", "asym5", "sep8", "asym2d", "f121"):
        taps, x2 = recorded[f"filter/wrap_{name}"], nhwc(recorded["in/x2"])
        calls[f"upsample2d/{name}"] = upsample2d, x2, taps, {}
        calls[f"upsample2d_up4_flip/{name}"] = upsample2d, x2, taps, {"factor": 4, "flip": True}
        calls[f"downsample2d/{name}"] = downsample2d, x2, taps, {}
        calls[f"downsample2d_flip_pad1/{name}"] = downsample2d, x2, taps, {"flip": True, "padding": 1}
        calls[f"filter2d/{name}"] = filter2d, x2, taps, {}
        calls[f"filter2d_flip_gain2/{name}"] = filter2d, x2, taps, {"flip": True, "gain": 2}
    assert set(calls) == {key[4:] for key in recorded if key.startswith("out/")}

    outputs = jax.jit(lambda: {key: f(x, taps, **options) for key, (f, x, taps, options) in calls.items()})()
    for key, y in outputs.items():
        expected = nhwc(recorded[f"out/{key}"])
        assert y.shape == expected.shape, key
        np.testing.assert_allclose(y, expected, rtol=0, atol=2e-6 * np.abs(expected).max(), err_msg=key)


def test_recorded_filters(recorded):
    """A recorded filter of two axes is the product of ours along both."""
    for key in (key for key in recorded if key.startswith("setup_filter/out/")):
        *_, name, variant = key.split("/")
        raw, expected = recorded[f"setup_filter/in/{name}"], recorded[key]
        options = {"gain": 3.0, "flip": True} if variant == "flip_gain3" else {}
        taps = raw if variant == "nonorm" else normalised(raw, **options)
        if taps.ndim == 1 and expected.ndim == 2:
            taps = np.outer(taps, taps)
        np.testing.assert_allclose(taps, expected, rtol=1e-6, err_msg=key)


@pytest.mark.parametrize("case", CASES)
def test_against_zero_insertion(case):
    """Values, and by the adjoint's definition the derivative: <A x, y> = <x, A' y>."""
    taps, up, down, padding, flip = case
    x = np.random.default_rng(1).normal(size=(2, 7, 6, 3))
    with jax.enable_x64(True):

        def f(x):
            return upfirdn2d(x, taps, up=up, down=down, padding=padding, gain=-1.7, flip=flip)

        y, back = jax.vjp(jax.jit(f), x)
        expected = zero_insertion(x, taps, up, down, padding, flip, -1.7)
        np.testing.assert_allclose(y, expected, rtol=1e-10, atol=1e-12)
        g = np.random.default_rng(2).normal(size=y.shape)
        np.testing.assert_allclose(np.sum(expected * g), np.sum(x * back(g)[0]), rtol=1e-10)


@pytest.mark.parametrize("case", [CASES[2], CASES[3], CASES[6]])
def test_second_derivative_against_finite_differences(case):
    taps, up, down, padding, flip = case
    x = np.random.default_rng(1).normal(size=(1, 7, 6, 2))
    direction = np.random.default_rng(2).normal(size=x.shape)

    def net(x):
        y = upfirdn2d(jnp.tanh(x), taps, up=up, down=down, padding=padding, flip=flip)
        return jnp.sum(jnp.tanh(y))

    with jax.enable_x64(True):
        penalty = jax.jit(lambda x: jnp.sum(jnp.square(jax.grad(net)(x))))
        slope = jnp.sum(jax.jit(jax.grad(penalty))(x) * direction)
        ends = [penalty(x + step * direction) for step in (1e-6, -1e-6)]
        np.testing.assert_allclose(slope, (ends[0] - ends[1]) / 2e-6, rtol=1e-6)


def test_derivatives_are_resampling_again():
    """Third derivatives hold no convolution, no dilated padding and no scatter."""

    def f(x):
        y = jnp.sin(upsample2d(x, normalised((1, 3, 3, 1))))
        return jnp.sum(jnp.sin(downsample2d(y, normalised((1, 2, 1)))))

    for _ in range(2):
        f = (lambda g: lambda x: jnp.sum(jnp.square(jax.grad(g)(x))))(f)
    text = str(jax.make_jaxpr(jax.grad(f))(jnp.ones((1, 8, 8, 2))))
    assert "conv_general" not in text and "scatter" not in text
    pads = re.findall(r"padding_config=(\(\(.*?\)\))", text)
    assert pads
    assert all(inner == "0" for pad in pads for inner in re.findall(r"\(-?\d+, -?\d+, (\d+)\)", pad))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_low_precision_is_rounded_at_the_end(dtype):
    x = jnp.asarray(np.random.default_rng(3).normal(size=(1, 8, 8, 2)), dtype)
    y, back = jax.vjp(lambda x: filter2d(x, PLANE), x)
    assert y.dtype == back(y)[0].dtype == dtype
    exact = filter2d(x.astype(jnp.float32), PLANE)
    np.testing.assert_allclose(y.astype(jnp.float32), exact, rtol=float(jnp.finfo(dtype).eps))


def test_traced_taps_equal_fixed_ones():
    x = jnp.asarray(np.random.default_rng(4).normal(size=(2, 7, 6, 2)), jnp.float32)
    for taps in (np.asarray(TAPS), PLANE):
        options = {"up": (2, 1), "down": (1, 2), "padding": 3, "gain": 2.0}
        y = jax.jit(lambda x, t, o=options: upfirdn2d(x, t, **o))(x, jnp.asarray(taps, jnp.float32))
        np.testing.assert_allclose(y, upfirdn2d(x, taps, **options), rtol=1e-5, atol=1e-5)


def test_blur_is_an_identity_at_zero_and_cuts_off_at_three_sigma():
    x = np.zeros((1, 15, 15, 1), np.float32)
    x[0, 7, 7] = 1
    apply = jax.jit(lambda sigma: blur(x, sigma, largest=2.0))
    np.testing.assert_array_equal(apply(0.0), x)
    for sigma in (0.5, 1.3, 2.0):
        k = np.arange(-7, 8)
        taps = np.where(np.abs(k) <= np.floor(3 * sigma), 2.0 ** -((k / sigma) ** 2), 0)
        expected = np.outer(taps, taps) / taps.sum() ** 2
        np.testing.assert_allclose(apply(sigma)[0, :, :, 0], expected, atol=1e-7)


def test_rejects_what_leaves_no_pixels():
    with pytest.raises(AssertionError, match="no pixels are left"):
        upfirdn2d(jnp.ones((1, 2, 2, 1)), (1, 2, 3, 4))


def test_shard_map():
    x = np.random.default_rng(5).normal(size=(8, 6, 6, 2)).astype(np.float32)

    def loss(x):
        y = upfirdn2d(x, (1.0,), up=(3, 1), padding=((1, 0), (0, 0)))  # with phases that read no tap
        y = downsample2d(jnp.tanh(upsample2d(y, (1, 3, 3, 1))), PLANE)
        return jnp.sum(jnp.square(y), (1, 2, 3))

    def penalty(x):
        return jnp.sum(jnp.square(jax.grad(lambda x: jnp.sum(loss(x)))(x)), (1, 2, 3))

    def each(x):
        return lax.pmean(jnp.mean(penalty(x)), "data")

    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    step = jax.shard_map(each, mesh=mesh, in_specs=PartitionSpec("data"), out_specs=PartitionSpec())
    np.testing.assert_allclose(jax.jit(step)(x), jax.jit(lambda x: jnp.mean(penalty(x)))(x), rtol=1e-5)
