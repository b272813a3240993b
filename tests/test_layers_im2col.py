"""Convolutions of few pixels as products of matrices: equal to XLA's own, and where they are taken."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from gan_jax.layers import conv as layers
from gan_jax.layers import im2col

CASES = [  # (kernel), (stride), (height, width), padding; the last but one crops, the last leaves a row over
    ((3, 3), (1, 1), (4, 4), ((1, 1), (1, 1))), ((4, 4), (2, 2), (2, 2), ((1, 1), (1, 1))),
    ((2, 3), (1, 2), (5, 7), ((0, 1), (2, 0))), ((3, 3), (1, 1), (6, 5), ((-1, 0), (0, -1))),
    ((4, 4), (2, 2), (7, 9), ((1, 1), (1, 1))),
]  # fmt: skip


def arrays(kernel, stride, size, padding):
    """x, w and a cotangent, and XLA's convolution."""
    rng = np.random.default_rng(0)

    def plain(x, w):
        return lax.conv_general_dilated(x, w, stride, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    shapes = (3, *size, 5), (*kernel, 5, 6)
    x, w = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes)
    g = jnp.asarray(rng.standard_normal(jax.eval_shape(plain, x, w).shape), jnp.float32)
    return x, w, g, plain


@pytest.mark.parametrize(("kernel", "stride", "size", "padding"), CASES)
def test_the_three_maps(kernel, stride, size, padding):
    x, w, g, plain = arrays(kernel, stride, size, padding)

    @jax.jit
    def both(x, w, g):
        y, pull = jax.vjp(plain, x, w)
        own = (im2col.conv(x, w, stride, padding, y.shape[1:3]), im2col.tconv(g, w, stride, padding, size),
               im2col.wgrad(x, g, stride, padding, kernel))
        return (y, *pull(g)), own

    for expected, actual in zip(*both(x, w, g), strict=True):
        assert actual.shape == expected.shape
        np.testing.assert_allclose(actual, expected, rtol=0, atol=3e-6 * np.abs(expected).max())


@pytest.mark.parametrize(("kind", "x", "g", "kernel", "stride", "expected"), [
    ("conv", (4, 4, 4, 512), (4, 2, 2, 256), 4, 2, True),
    ("conv", (4, 8, 8, 256), (4, 4, 4, 256), 4, 2, True),
    ("wgrad", (5, 8, 8, 256), (5, 4, 4, 256), 4, 2, False),  # more pixels
    ("tconv", (8, 8, 8, 512), (8, 8, 8, 512), 3, 1, True),  # which XLA computes slowly
    ("conv", (8, 8, 8, 512), (8, 8, 8, 512), 3, 1, False),
    ("conv", (4, 2, 2, 128), (4, 2, 2, 128), 3, 1, False),  # few weights
    ("conv", (4, 2, 2, 512), (4, 2, 2, 512), 1, 1, False),  # a product of matrices as it is
])  # fmt: skip
def test_where_it_pays(kind, x, g, kernel, stride, expected):
    assert im2col.pays(kind, x, g, (kernel, kernel), (stride, stride)) == expected


def test_never_where_a_size_is_not_known():
    """Of a program that is exported for any batch."""
    (batch,) = jax.export.symbolic_shape("batch")
    assert not im2col.pays("conv", (batch, 4, 4, 512), (batch, 2, 2, 512), (4, 4), (2, 2))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_layers_take_it_in_derivatives_of_any_order(dtype, monkeypatch):
    """A penalty on the input's gradient, as R1: its value and its gradients, by XLA's convolutions and by these."""
    x, w, _, plain = arrays((4, 4), (2, 2), (4, 4), ((1, 1), (1, 1)))
    kinds = []
    monkeypatch.setattr(im2col, "pays", lambda kind, *_: kinds.append(kind) or True)

    def penalty(conv):
        def slope(x, w):
            return jnp.sum(jnp.square(jax.grad(lambda x: jnp.sum(jnp.tanh(conv(x, 0.1 * w)), dtype="float32"))(x)))

        return jax.jit(jax.value_and_grad(slope, (0, 1)))(x.astype(dtype), w.astype(dtype))

    expected, actual = penalty(plain), penalty(lambda x, w: layers.conv(x, w, 2, ((1, 1), (1, 1))))
    assert set(kinds) == {"conv", "tconv", "wgrad"}
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(actual), strict=True):
        assert a.dtype == b.dtype
        a, b = (np.asarray(array, np.float32) for array in (a, b))
        np.testing.assert_allclose(b, a, rtol=0, atol=(1e-5 if dtype == "float32" else 3e-2) * np.abs(a).max())
