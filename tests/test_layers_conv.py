"""The three convolutions against numpy loops, JAX's own derivatives and finite differences."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, PartitionSpec

from gan_jax.layers import conv as layers
from gan_jax.layers.conv import conv, conv_transpose, same_padding

# size, kernel, stride, padding: DCGAN's, 'SAME' 5x5, unequal and cropping paddings, rows left, whole window
CASES = [
    ((8, 8), (4, 4), 2, ((1, 1), (1, 1))),
    ((7, 6), (5, 5), (1, 2), ((2, 2), (1, 2))),
    ((9, 7), (3, 2), (2, 3), ((0, 2), (1, 0))),
    ((6, 5), (2, 3), (3, 1), ((-1, 1), (3, 0))),
    ((4, 3), (4, 3), 1, ((0, 0), (0, 0))),
    ((6, 5), (1, 1), 1, ((0, 0), (0, 0))),  # a matrix product on CPU
    ((6, 5), (1, 1), 2, ((1, 0), (0, 1))),
    ((5, 6), (3, 3), 1, ((2, 2), (2, 1))),  # the output is larger than the input, as in StyleGAN3
]


@pytest.fixture(params=["cpu", "default"])
def platform(request, monkeypatch):
    """What a CPU computes, and what all other platforms do, here on the CPU."""
    if request.param == "default":
        monkeypatch.setattr(layers, "by_platform", lambda *operands, cpu, default: default(*operands))
    return request.param


each_platform = pytest.mark.usefixtures("platform")


def _arrays(size, kernel, stride, padding, dtype=np.float64):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *size, 3)).astype(dtype)
    w = rng.normal(size=(*kernel, 3, 4)).astype(dtype)
    return x, w


def _loops(x, w, stride, padding):
    sh, sw = (stride, stride) if isinstance(stride, int) else stride
    (top, bottom), (left, right) = padding
    big = np.zeros((x.shape[0], 40, 40, x.shape[3]))
    big[:, 10 : 10 + x.shape[1], 10 : 10 + x.shape[2]] = x
    big = big[:, 10 - top : 10 + x.shape[1] + bottom, 10 - left : 10 + x.shape[2] + right]
    kh, kw = w.shape[:2]
    h, v = (big.shape[1] - kh) // sh + 1, (big.shape[2] - kw) // sw + 1
    y = np.zeros((x.shape[0], h, v, w.shape[3]))
    for i in range(h):
        for j in range(v):
            y[:, i, j] = np.einsum("bklc,klco->bo", big[:, i * sh : i * sh + kh, j * sw : j * sw + kw], w)
    return y


def _plain(x, w, stride, padding):
    stride = (stride, stride) if isinstance(stride, int) else stride
    return lax.conv_general_dilated(x, w, stride, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


@each_platform
@pytest.mark.parametrize("case", CASES)
def test_forward_against_loops(case):
    x, w = _arrays(*case)
    with jax.enable_x64(True):
        np.testing.assert_allclose(conv(x, w, *case[2:]), _loops(x, w, *case[2:]), rtol=1e-10, atol=1e-12)


@each_platform
@pytest.mark.parametrize("case", CASES)
def test_transposed_is_the_adjoint(case):
    """<conv(x, w), y> = <x, conv_transpose(y, w')> with the input and output channels of w swapped."""
    x, w = _arrays(*case)
    left = _loops(x, w, *case[2:])
    y = np.random.default_rng(1).normal(size=left.shape)
    stride = (case[2],) * 2 if isinstance(case[2], int) else case[2]
    extra = [
        n + sum(p) - k - (m - 1) * s
        for n, p, k, m, s in zip(case[0], case[3], case[1], y.shape[1:3], stride, strict=True)
    ]
    with jax.enable_x64(True):
        back = conv_transpose(y, np.swapaxes(w, 2, 3), stride, case[3], tuple(extra))
        assert back.shape == x.shape
        np.testing.assert_allclose(np.sum(left * y), np.sum(x * back), rtol=1e-10)


@each_platform
@pytest.mark.parametrize("case", CASES)
def test_gradients_against_jax(case):
    x, w = _arrays(*case)

    def grads(f, x, w):
        return jax.jit(jax.grad(lambda x, w: jnp.sum(jnp.sin(f(x, w, *case[2:]))), (0, 1)))(x, w)

    with jax.enable_x64(True):
        for a, b in zip(grads(conv, x, w), grads(_plain, x, w), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)


def _penalty(conv_fn, tconv_fn, x, w1, w2):
    """The squared input gradient of a small net with a strided and a transposed convolution."""

    def net(x):
        h = jax.nn.leaky_relu(conv_fn(x, w1), 0.2)
        return jnp.sum(jnp.tanh(tconv_fn(h, w2)))

    return jnp.sum(jnp.square(jax.grad(net)(x)))


def _penalty_case():
    rng = np.random.default_rng(0)
    x, w1, w2 = rng.normal(size=(2, 8, 6, 2)), rng.normal(size=(4, 4, 2, 3)), rng.normal(size=(4, 4, 3, 2))
    pads = ((1, 1), (1, 1))

    def ours(x, w1, w2):
        def tconv(x, w):
            return conv_transpose(x, w, 2, pads)

        return _penalty(lambda x, w: conv(x, w, 2, pads), tconv, x, w1, w2)

    def plain(x, w1, w2):
        def tconv(x, w):
            dims = ("NHWC", "HWIO", "NHWC")
            options = {"lhs_dilation": (2, 2), "dimension_numbers": dims}
            return lax.conv_general_dilated(x, w[::-1, ::-1], (1, 1), ((2, 2), (2, 2)), **options)

        return _penalty(lambda x, w: _plain(x, w, 2, pads), tconv, x, w1, w2)

    return (x, w1, w2), ours, plain


@each_platform
def test_second_and_third_derivatives_against_jax():
    args, ours, plain = _penalty_case()
    with jax.enable_x64(True):
        np.testing.assert_allclose(jax.jit(ours)(*args), jax.jit(plain)(*args), rtol=1e-10)
        for f in (lambda p: p, lambda p: lambda *t: jnp.sum(jnp.square(jax.grad(p, 1)(*t)))):
            a = jax.jit(jax.grad(f(ours), (0, 1, 2)))(*args)
            b = jax.jit(jax.grad(f(plain), (0, 1, 2)))(*args)
            for p, q in zip(a, b, strict=True):
                np.testing.assert_allclose(p, q, rtol=1e-8, atol=1e-8 * np.abs(q).max())


@each_platform
def test_second_derivative_against_finite_differences():
    args, ours, _ = _penalty_case()
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        value = jax.jit(ours)
        for i, grad in enumerate(jax.jit(jax.grad(ours, (0, 1, 2)))(*args)):
            direction = rng.normal(size=grad.shape)
            ends = []
            for sign in (1, -1):
                moved = list(args)
                moved[i] = args[i] + sign * 1e-6 * direction
                ends.append(float(value(*moved)))
            np.testing.assert_allclose(np.sum(grad * direction), (ends[0] - ends[1]) / 2e-6, rtol=1e-5)


@each_platform
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_dtypes(dtype):
    x, w = (jnp.asarray(a, dtype) for a in _arrays(*CASES[0]))
    y, back = jax.vjp(lambda x, w: conv(x, w, 2, ((1, 1), (1, 1))), x, w)
    assert y.dtype == dtype and all(g.dtype == dtype for g in back(y))


@each_platform
@pytest.mark.parametrize("case", [CASES[0], ((24, 24), (1, 1), 1, CASES[4][3]), ((24, 24), (3, 3), 1, CASES[-1][3])])
def test_gradients_of_16_bits_are_summed_in_float32(case):
    """Within the rounding of the result alone, 2^-8 of it, of float64 sums over the same rounded inputs."""
    x, w = (np.asarray(jnp.asarray(a, jnp.bfloat16)) for a in _arrays(*case))
    y, back = jax.vjp(lambda x, w: conv(x, w, *case[2:]), x, w)
    g = np.asarray(jnp.ones_like(y))
    with jax.enable_x64(True):
        _, exact = jax.vjp(lambda w: _plain(x.astype(np.float64), w, *case[2:]), w.astype(np.float64))
        (expected,) = exact(g.astype(np.float64))
    gradient = np.asarray(back(g)[1], np.float64)
    assert gradient.shape == expected.shape
    np.testing.assert_allclose(gradient, expected, rtol=2**-8, atol=1e-3)


@each_platform
def test_a_pointwise_transpose_with_output_padding_has_a_row_of_zeros():
    x, w = (np.asarray(a) for a in _arrays((4, 3), (1, 1), 1, None, np.float32))
    y = conv_transpose(x, w, 1, output_padding=1)
    assert y.shape == (2, 5, 4, 4)
    np.testing.assert_allclose(y[:, :4, :3], np.einsum("bhwi,io->bhwo", x, w[0, 0]), rtol=1e-5, atol=1e-6)
    assert not np.any(y[:, 4]) and not np.any(y[:, :, 3])
    assert conv(x, w.astype(jnp.float32), 2).dtype == jnp.float32


def test_same_padding():
    assert same_padding((28, 28), (5, 5), (2, 2)) == ((1, 2), (1, 2))
    assert same_padding((32, 7), (4, 3), (2, 1)) == ((1, 1), (1, 1))


def _slow_convolutions(text):
    """How many there are in compiled text, and those that are not NHWC / HWIO, reversed, or large over dilated images.

    XLA does the others quickly.
    """
    lines = [line for line in text.splitlines() if " convolution(" in line]

    def is_slow(line):
        size = max(map(int, re.search(r"window=\{size=(\d+)x(\d+)", line).groups()))
        large = "lhs_dilate" in line and size > 4
        return large or "rhs_reversal" in line or "dim_labels=b01f_01io->b01f" not in line

    return len(lines), [line for line in lines if is_slow(line)]


def test_compiled_penalty_has_fast_convolutions_only():
    ws = [jnp.full((4, 4, i, o), 0.1) for i, o in ((1, 8), (8, 16), (16, 32))]
    x = jnp.ones((4, 32, 32, 1))

    def penalty(conv_fn, ws):
        def logits(x):
            for w in ws:
                x = jax.nn.leaky_relu(conv_fn(x, w, 2, ((1, 1), (1, 1))), 0.2)
            return jnp.sum(jnp.square(x))

        return jnp.sum(jnp.square(jax.grad(logits)(x)))

    def slow(conv_fn):
        text = jax.jit(jax.grad(lambda ws: penalty(conv_fn, ws))).lower(ws).compile().as_text()
        count, found = _slow_convolutions(text)
        assert count >= 9
        return found

    assert not slow(conv)
    assert slow(_plain)  # else JAX's own derivatives became as good, and these maps are not needed


def test_compiled_convolution_that_enlarges_is_fast():
    """Of 3x3 with a padding of 2, whose gradient of the weights has a window larger than the image."""
    x, w = jnp.ones((2, 12, 12, 8), jnp.bfloat16), jnp.ones((3, 3, 8, 8), jnp.bfloat16)

    def slow(conv_fn):
        gradients = jax.grad(lambda x, w: jnp.sum(jnp.sin(conv_fn(x, w, 1, ((2, 2), (2, 2))))), (0, 1))
        return _slow_convolutions(jax.jit(gradients).lower(x, w).compile().as_text())

    count, found = slow(conv)
    assert not found and count == 3
    assert slow(_plain)[1]


def _sharded_gradients(run):
    x, w = _arrays(*CASES[0], dtype=np.float32)
    x = np.concatenate([x] * 4) * np.arange(1, 9, dtype=np.float32)[:, None, None, None]

    def loss(w, x):
        def out(x):
            h = jax.nn.leaky_relu(conv(x, w, 2, ((1, 1), (1, 1))), 0.2)
            return jnp.sum(conv_transpose(h, w.swapaxes(2, 3), 2, ((1, 1), (1, 1))) ** 2)

        return jnp.mean(jnp.sum(jnp.square(jax.grad(out)(x)), (1, 2, 3)))

    expected = jax.jit(jax.grad(loss))(w, x)
    np.testing.assert_allclose(run(loss, w, x), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@each_platform
@pytest.mark.parametrize(("varying", "check_vma"), [(True, True), (True, False), (False, True)])
def test_shard_map(varying, check_vma):
    def run(loss, w, x):
        def each(w, x):
            if varying:
                return lax.pmean(jax.grad(loss)(lax.pcast(w, "data", to="varying"), x), "data")
            return jax.grad(lambda w, x: lax.pmean(loss(w, x), "data"))(w, x)

        mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
        specs = PartitionSpec(), PartitionSpec("data")
        step = jax.shard_map(each, mesh=mesh, in_specs=specs, out_specs=specs[0], check_vma=check_vma)
        return jax.jit(step)(w, x)

    _sharded_gradients(run)


@each_platform
def test_pmap():
    def run(loss, w, x):
        each = jax.pmap(
            lambda w, x: lax.pmean(jax.grad(loss)(w, x), "data"),
            axis_name="data",
            in_axes=(None, 0),
            out_axes=None,
        )
        return each(w, x.reshape(8, 1, *x.shape[1:]))

    _sharded_gradients(run)


def _grouped_loops(x, w, groups, padding):
    pairs = zip(np.split(x, groups, 3), np.split(w, groups, 3), strict=True)
    return np.concatenate([_loops(xs, ws, 1, padding) for xs, ws in pairs], 3)


# the first two are dealt into parts of several groups and of one, the next is one part, the last are XLA's
GROUPED = [
    (8, 16, 192, 12, "float32"),
    (2, 16, 256, 4, "bfloat16"),
    (2, 5, 12, 3, "float32"),
    (2, 5, 36, 12, "float32"),
]


@each_platform
@pytest.mark.parametrize(("batch", "side", "channels", "groups", "dtype"), GROUPED)
def test_many_groups(batch, side, channels, groups, dtype):
    """Forward, and both gradients by their bilinear form: <conv(x, w), g> is linear in x and in w."""
    rng = np.random.default_rng(1)
    padding, bound = ((1, 1), (1, 0)), dict(float32=2e-5, bfloat16=2e-2)[dtype]
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)  # noqa: E731
    x, other_x = draw(batch, side, side, channels), draw(batch, side, side, channels)
    w, other_w = (draw(3, 3, channels // groups, channels) for _ in range(2))
    g = draw(batch, side, side - 1, channels)
    y, back = jax.vjp(jax.jit(lambda x, w: conv(x, w, padding=padding, groups=groups)), x, w)
    to_x, to_w = back(g)
    assert y.dtype == to_x.dtype == to_w.dtype == dtype

    def close(ours, expected):
        assert np.linalg.norm(np.asarray(ours, np.float64) - expected) < bound * np.linalg.norm(expected)

    def loops(x, w):
        return _grouped_loops(np.asarray(x, np.float32), np.asarray(w, np.float32), groups, padding)

    def inner(a, b):
        return np.vdot(np.asarray(a, np.float64), np.asarray(b, np.float64))

    close(y, loops(x, w))
    size = np.linalg.norm(loops(x, w)) * np.linalg.norm(np.asarray(g, np.float64))
    assert abs(inner(to_x, other_x) - inner(loops(other_x, w), g)) < bound * size
    assert abs(inner(to_w, other_w) - inner(loops(x, other_w), g)) < bound * size


@each_platform
def test_gradients_of_grouped_gradients_in_parts():
    """A penalty's second derivative, against that of JAX's own grouped convolution."""
    rng = np.random.default_rng(2)
    x, w = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((8, 16, 16, 192), (3, 3, 16, 192)))

    def own(x, w):
        layout = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "feature_group_count": 12}
        return lax.conv_general_dilated(x, w, (1, 1), ((1, 1), (1, 1)), **layout)

    def penalty(conv_fn, w):
        return jnp.sum(jnp.square(jax.grad(lambda x: jnp.sum(jnp.tanh(conv_fn(x, w) / 12)))(x)))

    ours = jax.jit(jax.grad(lambda w: penalty(lambda x, w: conv(x, w, padding=((1, 1), (1, 1)), groups=12), w)))(w)
    expected = jax.jit(jax.grad(lambda w: penalty(own, w)))(w)
    np.testing.assert_allclose(ours, expected, atol=1e-4 * float(jnp.abs(expected).max()), rtol=0)


def test_many_groups_are_no_grouped_convolution():
    """96 groups of 16 are a loop over 48 parts on the CPU."""
    x, w = jnp.ones((4, 8, 8, 1536)), jnp.ones((3, 3, 16, 1536))
    compiled = jax.jit(lambda x, w: conv(x, w, padding=((1, 1), (1, 1)), groups=96)).lower(x, w).compile()
    assert not re.search(r"feature_group_count=(?!1\b)\d", compiled.as_text())


@pytest.mark.parametrize("side", [32, 64])
def test_gradients_of_bfloat16_weights_have_small_windows(side):
    """With fewer products; a convolution's window would be the image: XLA:CPU takes up to nine times as long."""
    x = jnp.ones((2, side, side, 64), jnp.bfloat16)
    w = jnp.ones((3, 3, 64, 64), jnp.bfloat16)
    gradient = jax.jit(jax.grad(lambda w: jnp.sum(conv(x, w, padding=((1, 1), (1, 1))).astype(jnp.float32) ** 2)))
    text = gradient.lower(w).compile().as_text()
    windows = [int(size) for size in re.findall(r"window=\{size=(\d+)x", text)]
    assert all(window < side for window in windows)


def test_a_program_holds_its_own_platform_alone():
    x, w = jnp.ones((8, 16, 16, 32), jnp.float32), jnp.ones((3, 3, 32, 32), jnp.float32)
    traced = jax.jit(jax.grad(lambda w: conv(x, w, 1, ((1, 1), (1, 1))).sum())).trace(w)
    sizes = {}
    for platform in ("cpu", "cuda", "tpu"):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert "stablehlo.case" not in text
        sizes[platform] = text.count("stablehlo.")
    assert sizes["cuda"] == sizes["tpu"] < sizes["cpu"]  # which has the filter's gradient in a layout of its own
    many = traced.lower(lowering_platforms=("cpu", "cuda")).as_text()
    assert "stablehlo.case" in many
