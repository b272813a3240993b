"""Resampling and modulated convolutions against recorded vectors and one kernel for each sample."""

import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, PartitionSpec

from gan_jax.layers.fir import blur, normalised, upfirdn2d
from gan_jax.layers.modulated import modulated_conv, modulated_conv3, resample_conv

GOLDEN = pathlib.Path(__file__).parent / "golden"
F1331 = normalised((1, 3, 3, 1))


def nhwc(x):
    return np.moveaxis(x, 1, -1)


def hwio(w):
    return w.transpose(2, 3, 1, 0)


def load(name):
    with np.load(GOLDEN / name, allow_pickle=False) as file:
        return dict(file)


def check(outputs, recorded, prefixes):
    """All recorded results under the prefixes are there and equal within float32 rounding."""
    assert set(outputs) == {key for key in recorded if key.startswith(prefixes)}
    for key, y in outputs.items():
        expected = nhwc(recorded[key])
        assert y.shape == expected.shape, key
        np.testing.assert_allclose(y, expected, rtol=0, atol=5e-6 * np.abs(expected).max(), err_msg=key)


def test_recorded_stylegan2():
    recorded = load("op_sg2_layers.npz")
    resample = json.loads(str(recorded["meta"]))["kwargs"]["conv2d_resample"]

    def everything():
        result, top = {}, "conv2d_resample"
        for taps in ("f1331", "asym5"):
            x, filters = nhwc(recorded[f"{top}/in/{taps}/x"]), recorded[f"{top}/filter/{taps}"]
            for k in (1, 3):
                w = jnp.asarray(hwio(recorded[f"{top}/in/{taps}/w{k}"]))
                for variant, options in resample.items():
                    y = resample_conv(x, w, taps=filters, **(options | {"padding": k // 2}))
                    result[f"{top}/out/{taps}/k{k}/{variant}"] = y
        top = "modulated_conv2d"
        x, styles, taps = (recorded[f"{top}/in/{name}"] for name in ("x", "styles", "filter"))
        for key in (key for key in recorded if key.startswith(f"{top}/out/")):
            case = key.split("/")[-1]
            k, up, demodulate, noise = (int(digit) for digit in re.findall(r"\d", case))
            options = {"up": up, "taps": taps, "demodulate": bool(demodulate)}
            if noise:
                options["noise"] = nhwc(recorded[f"{top}/in/noise/{case}"])
            result[key] = modulated_conv(nhwc(x), hwio(recorded[f"{top}/in/w{k}"]), styles, **options)
        return result

    prefixes = "conv2d_resample/out", "modulated_conv2d/out"
    check(jax.jit(everything)(), recorded, prefixes)


def test_recorded_stylegan3():
    recorded = load("op_sg3_layers.npz")

    def everything():
        top, result = "modulated_conv2d", {}
        x, styles = nhwc(recorded[f"{top}/in/x"]), recorded[f"{top}/in/styles"]
        for key in (key for key in recorded if key.startswith(f"{top}/out/")):
            k, demodulate, gain = re.search(r"k(\d)_demod(\d)_gain_(.*)", key).groups()
            gain = None if gain == "none" else recorded[f"{top}/in/gain_{gain}"]
            options = {"padding": int(k) - 1, "demodulate": demodulate == "1", "input_gain": gain}
            result[key] = modulated_conv3(x, hwio(recorded[f"{top}/in/w{k}"]), styles, **options)
        for key in (key for key in recorded if key.startswith("blur/out/")):
            sigma = jnp.float32(key.split("sigma")[-1])
            result[key] = blur(nhwc(recorded["blur/in"]), sigma, largest=3)
        return result

    check(jax.jit(everything)(), recorded, ("modulated_conv2d/out", "blur/out"))


def modulated_conv_grouped(x, w, styles, up=1, down=1, taps=F1331, demodulate=True, noise=None):
    """The definition: zero insertion and filter, then a grouped convolution with a kernel for each sample."""
    b, k = x.shape[0], w.shape[0]
    kernels = w[None] * styles[:, None, None, :, None]  # (B, kh, kw, I, O)
    if demodulate:
        kernels = kernels / jnp.sqrt(jnp.sum(jnp.square(kernels), (1, 2, 3), keepdims=True) + 1e-8)
    if up > 1:
        kernels = kernels[:, ::-1, ::-1]
    f = len(taps)
    low = k // 2 + ((f + up - 1) // 2 if up > 1 else 0) + ((f - down + 1) // 2 if down > 1 else 0)
    high = k // 2 + ((f - up) // 2 if up > 1 else 0) + ((f - down) // 2 if down > 1 else 0)
    if up > 1:
        big = jnp.zeros((b, x.shape[1] * up, x.shape[2] * up, x.shape[3]), x.dtype)
        x = big.at[:, ::up, ::up].set(x)
    x = jnp.pad(x, ((0, 0), (low, high), (low, high), (0, 0)))
    if up > 1:
        x = upfirdn2d(x, taps, gain=up**2)
    if down > 1:
        x = upfirdn2d(x, taps)
    grouped = x.transpose(1, 2, 0, 3).reshape(1, *x.shape[1:3], -1)
    kernel = kernels.transpose(1, 2, 3, 0, 4).reshape(*w.shape[:3], -1)
    options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "feature_group_count": b}
    y = lax.conv_general_dilated(grouped, kernel, (down, down), "VALID", **options)
    y = y.reshape(*y.shape[1:3], b, -1).transpose(2, 0, 1, 3)
    return y if noise is None else y + noise


def arrays(dtype=np.float64):
    rng = np.random.default_rng(0)
    x, w, s = rng.normal(size=(3, 6, 5, 4)), rng.normal(size=(3, 3, 4, 2)), rng.normal(size=(3, 4))
    return x.astype(dtype), w.astype(dtype), s.astype(dtype)


@pytest.mark.parametrize("rates", [{}, {"up": 2}, {"down": 2}])
def test_against_a_kernel_for_each_sample(rates):
    """Values, gradients of all arguments, and the gradients of a squared style gradient (path length)."""

    def derivatives(f, *args):
        def net(x, w, s):
            return jnp.sum(jnp.sin(f(x, w, s, taps=(1, 3, 3, 2), **rates)))

        def penalty(x, w, s):
            return jnp.sum(jnp.square(jax.grad(net, 2)(x, w, s)))

        first, second = jax.grad(net, (0, 1, 2))(*args), jax.grad(penalty, (0, 1, 2))(*args)
        return f(*args, taps=(1, 3, 3, 2), **rates), first, second

    with jax.enable_x64(True):
        ours = jax.jit(lambda *args: derivatives(modulated_conv, *args))(*arrays())
        other = jax.jit(lambda *args: derivatives(modulated_conv_grouped, *args))(*arrays())
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8 * np.abs(b).max())


def style_penalty(x, w, s):
    """The squared style gradient of an enlarging and a shrinking layer."""

    def image(s):
        y = modulated_conv(x, w, s, up=2, taps=F1331)
        y = modulated_conv(jnp.tanh(y), w.swapaxes(2, 3), s[:, :2], down=2, taps=F1331, demodulate=False)
        return jnp.sum(jnp.tanh(y))

    return jnp.sum(jnp.square(jax.grad(image)(s)))


def test_second_derivatives_against_finite_differences():
    args, rng = arrays(), np.random.default_rng(1)
    with jax.enable_x64(True):
        value = jax.jit(style_penalty)
        grads = jax.jit(jax.grad(style_penalty, (0, 1, 2)))(*args)
        for i, grad in enumerate(grads):
            direction, ends = rng.normal(size=grad.shape), []
            for step in (1e-6, -1e-6):
                moved = list(args)
                moved[i] = args[i] + step * direction
                ends.append(float(value(*moved)))
            np.testing.assert_allclose(np.sum(grad * direction), (ends[0] - ends[1]) / 2e-6, rtol=1e-5)


def test_compiled_penalty_has_small_ungrouped_convolutions_only():
    """What XLA does slowly: grouped convolutions, and image-sized windows over a dilated image."""
    x, w, s = jnp.ones((4, 16, 16, 8)), jnp.ones((3, 3, 8, 8)), jnp.ones((4, 8))

    def penalty(conv_fn, x, w, s):
        def image(s):
            y = conv_fn(jnp.tanh(conv_fn(x, w, s, up=2, taps=F1331)), w, s, down=2, taps=F1331)
            return jnp.sum(jnp.square(y))

        return jnp.sum(jnp.square(jax.grad(image)(s)))

    def slow(conv_fn):
        grads = jax.jit(jax.grad(lambda *args: penalty(conv_fn, *args), (0, 1, 2)))
        text = grads.lower(x, w, s).compile().as_text()
        lines = [line for line in text.splitlines() if " convolution(" in line]
        assert len(lines) >= 6

        def is_slow(line):
            size = max(map(int, re.search(r"window=\{size=(\d+)x(\d+)", line).groups()))
            grouped = re.search(r"(feature|batch)_group_count=([2-9]|\d\d)", line)
            return grouped or ("lhs_dilate" in line and size > 3)

        return [line for line in lines if is_slow(line)]

    assert not slow(modulated_conv)
    assert slow(modulated_conv_grouped)


def test_rates_both_ways_and_sizes():
    """up and down together commute with the order of the definition; even kernels and unequal sides."""
    rng = np.random.default_rng(2)
    x, w, taps = rng.normal(size=(2, 6, 5, 3)), rng.normal(size=(4, 2, 3, 2)), (1.0, 2.0, 4.0)
    with jax.enable_x64(True):
        y = resample_conv(x, w, up=3, down=2, taps=taps, padding=((2, 1), (1, 0)))
        pads = ((2 + 2 + 1, 1 + 0 + 0), (1 + 2 + 1, 0 + 0 + 0))
        z = upfirdn2d(x, taps, up=3, padding=pads, gain=9)
        z = lax.conv_general_dilated(z, w, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        np.testing.assert_allclose(y, upfirdn2d(z, taps, down=2), rtol=1e-9, atol=1e-11)


def test_float16_survives_large_styles():
    x, w, s = arrays(np.float32)
    exact = modulated_conv(x, 100 * w, 1000 * s)
    y = modulated_conv(x.astype(np.float16), 100 * w, 1000 * s)
    assert y.dtype == jnp.float16
    np.testing.assert_allclose(y.astype(jnp.float32), exact, atol=5e-3 * np.abs(exact).max())
    low = modulated_conv(x.astype(jnp.bfloat16), w, s, up=2, taps=F1331)
    assert low.dtype == jnp.bfloat16


def test_shard_map():
    """The gradients of replicated kernels on eight devices are those on one."""
    x, w, s = arrays(np.float32)
    x, s = np.resize(x, (8, *x.shape[1:])), np.resize(s, (8, s.shape[1]))

    def loss(w, x, s):
        return style_penalty(x, w, s) / len(x)

    def each(w, x, s):
        return lax.pmean(jax.grad(loss)(lax.pcast(w, "data", to="varying"), x, s), "data")

    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    specs = PartitionSpec(), PartitionSpec("data"), PartitionSpec("data")
    step = jax.shard_map(each, mesh=mesh, in_specs=specs, out_specs=PartitionSpec())
    expected = jax.jit(jax.grad(loss))(w, x, s)
    np.testing.assert_allclose(jax.jit(step)(w, x, s), expected, atol=1e-5 * np.abs(expected).max())
