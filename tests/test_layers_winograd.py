"""Convolutions with fewer products: equal to XLA's own, to which they are transposes of each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from gan_jax.layers import conv as layers
from gan_jax.layers import winograd

CASES = [  # kernel, stride, (height, width), padding
    (3, 1, (8, 8), ((1, 1), (1, 1))), (3, 1, (7, 10), ((0, 0), (2, 1))), (3, 1, (5, 4), ((1, 0), (1, 2))),
    (4, 2, (8, 8), ((1, 1), (1, 1))), (4, 2, (11, 14), ((2, 1), (0, 0))), (4, 2, (9, 7), ((1, 2), (1, 1))),
]  # fmt: skip


def arrays(kernel, stride, size, padding):
    """x, w and a cotangent, float64 values with few digits, and XLA's convolution."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((3, *size, 5)), rng.standard_normal((kernel, kernel, 5, 6))

    def plain(x, w):
        return lax.conv_general_dilated(x, w, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    x, w = (jnp.asarray(a, jnp.float32) for a in (x, w))
    g = jnp.asarray(rng.standard_normal(jax.eval_shape(plain, x, w).shape), jnp.float32)
    return x, w, g, plain


@pytest.mark.parametrize(("kernel", "stride", "size", "padding"), CASES)
def test_the_three_maps(kernel, stride, size, padding):
    x, w, g, plain = arrays(kernel, stride, size, padding)
    pair = (stride, stride)

    @jax.jit
    def both(x, w, g):
        y, pull = jax.vjp(plain, x, w)
        own = (winograd.conv(x, w, pair, padding, y.shape[1:3]), winograd.tconv(g, w, pair, padding, size),
               winograd.wgrad(x, g, pair, padding, (kernel, kernel)))
        return (y, *pull(g)), own

    for expected, actual in zip(*both(x, w, g), strict=True):
        assert actual.shape == expected.shape
        np.testing.assert_allclose(actual, expected, rtol=0, atol=3e-6 * np.abs(expected).max())


def test_a_batch_is_taken_in_parts_that_divide_it(monkeypatch):
    """And gives what it gives whole."""
    x, w, g, _ = arrays(4, 2, (8, 8), ((1, 1), (1, 1)))
    x, g = (jnp.concatenate([a, 2 * a]) for a in (x, g))  # six images, 4 tiles each, of 20 and 6 channels
    arguments = (2, 2), ((1, 1), (1, 1))

    def maps():
        return (winograd.conv(x, w, *arguments, (4, 4)), winograd.tconv(g, w, *arguments, (8, 8)),
                winograd.wgrad(x, g, *arguments, (4, 4)))

    whole = maps()
    size = 4 * 20 * 16 * 4  # bytes of an image
    for room, parts in ((6 * size, 1), (5 * size, 2), (2 * size, 3), (size + 1, 6), (1, 6)):
        monkeypatch.setattr(winograd, "CHUNK_BYTES", room)
        assert winograd._parts(6, (4, 4), 20, 6) == parts
        for expected, actual in zip(whole, maps(), strict=True):
            np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


def test_never_where_a_size_is_not_known():
    """Of a program that is exported for any batch."""
    (batch,) = jax.export.symbolic_shape("batch")
    assert not winograd.pays("conv", (batch, 32, 32, 64), (batch, 16, 16, 128), (4, 4), (2, 2))


@pytest.mark.parametrize(("kind", "x", "g", "kernel", "stride", "expected"), [
    ("conv", (64, 32, 32, 64), (64, 16, 16, 128), 4, 2, True),
    ("conv", (64, 64, 64, 3), (64, 32, 32, 64), 4, 2, False),  # few channels
    ("wgrad", (64, 64, 64, 3), (64, 32, 32, 64), 4, 2, True),
    ("conv", (8, 32, 32, 128), (8, 32, 32, 128), 3, 1, True),
    ("conv", (8, 4, 4, 512), (8, 4, 4, 512), 3, 1, False),  # few tiles
    ("wgrad", (8, 4, 4, 512), (8, 4, 4, 512), 3, 1, True),
    ("wgrad", (2, 8, 8, 16), (2, 8, 8, 16), 3, 1, False),  # not worth the compilation
    ("wgrad", (8, 32, 32, 128), (8, 16, 16, 128), 3, 2, False),  # no algorithm
])  # fmt: skip
def test_where_it_pays(kind, x, g, kernel, stride, expected):
    assert winograd.pays(kind, x, g, (kernel, kernel), (stride, stride)) == expected


@pytest.mark.parametrize("filtering", [winograd._TWO_TAPS, winograd._THREE_TAPS])
def test_the_matrices_filter(filtering):
    """Exactly: entries and inputs are small dyadic numbers."""
    n, r = filtering.taps.shape
    rng = np.random.default_rng(1)
    x, w = rng.integers(-8, 9, n).astype(float), rng.integers(-8, 9, r).astype(float)
    y = filtering.outputs @ ((filtering.taps @ w) * (filtering.inputs @ x))
    np.testing.assert_array_equal(y, [x[i : i + r] @ w for i in range(winograd.TILE)])
    assert n == winograd.TILE + r - 1


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, ((1, 1), (1, 1))), (4, 2, ((1, 1), (1, 1)))])
def test_layers_take_it_in_derivatives_of_any_order(kernel, stride, padding, monkeypatch):
    """A penalty on the input's gradient, as R1: its value and its gradients, by XLA's convolutions and by these."""
    x, w, _, plain = arrays(kernel, stride, (8, 8), padding)
    kinds = []
    monkeypatch.setattr(winograd, "pays", lambda kind, *_: kinds.append(kind) or True)

    def penalty(conv):
        def slope(x, w):
            return jnp.sum(jnp.square(jax.grad(lambda x: jnp.sum(jnp.tanh(conv(x, 0.1 * w))))(x)))

        return jax.jit(jax.value_and_grad(slope, (0, 1)))(x, w)

    expected, actual = penalty(plain), penalty(lambda x, w: layers.conv(x, w, stride, padding))
    assert set(kinds) == {"conv", "tconv", "wgrad"}
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(actual), strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-5 * np.abs(a).max())
