"""DeepFillv2's layers against numpy and closed forms, its sizes, and what is refused."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.errors import UserError
from gan_jax.layers import attention
from gan_jax.layers.conv import conv_dilated
from gan_jax.models import deepfill

KEY = jax.random.key(0)


def _shapes(model, *shape):
    return jax.eval_shape(lambda: model.init(KEY, jnp.zeros(shape), train=True))


@pytest.mark.parametrize(("dilation", "kernel", "padding"), [
    (2, (3, 3), ((2, 2), (2, 2))), (3, (2, 3), ((0, 0), (1, 4))), (5, (3, 3), ((5, 5), (5, 5))),
])  # fmt: skip
def test_dilated_convolution(dilation, kernel, padding):
    """With its derivatives, against XLA's own; sides that the dilation does not divide."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, 7, 11, 3)), rng.normal(size=(*kernel, 3, 4))
    x, w = x.astype(np.float32), w.astype(np.float32)

    def theirs(x, w):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, w, (1, 1), padding, rhs_dilation=(dilation, dilation), dimension_numbers=numbers, precision="highest"
        )

    ours = partial(conv_dilated, dilation=dilation, padding=padding)
    np.testing.assert_allclose(ours(x, w), theirs(x, w), atol=1e-4)
    slopes = [jax.grad(lambda x, w, f=f: jnp.sin(f(x, w)).sum(), (0, 1))(x, w) for f in (ours, theirs)]
    for a, b in zip(*slopes, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)


def test_gated_convolution():
    """A kernel of one pixel, by numpy: the first half passes through ELU, the second is its gate."""
    x = np.random.default_rng(0).normal(size=(1, 4, 4, 2)).astype(np.float32)
    layer = deepfill.GatedConv(6, 1)
    variables = layer.init(KEY, x)
    kernel = np.asarray(variables["params"]["conv"]["kernel"])[0, 0]
    bias = np.arange(6, dtype=np.float32)
    variables["params"]["conv"]["bias"] = bias
    passing, gates = np.split(x @ kernel + bias, 2, axis=-1)
    expected = np.where(passing > 0, passing, np.expm1(passing)) / (1 + np.exp(-gates))
    np.testing.assert_allclose(layer.apply(variables, x), expected, rtol=1e-5, atol=1e-6)
    assert deepfill.GatedConv(8, 3, 2).apply(deepfill.GatedConv(8, 3, 2).init(KEY, x), x).shape == (1, 2, 2, 4)


@pytest.mark.parametrize("rate", [1, 2])
def test_attention_copies_the_right_patches(rate):
    """Stripes of eight kinds, each twice; faint copies in the hole become what they are copies of."""
    rng = np.random.default_rng(0)
    tile = rng.normal(size=(1, 8, 8, 4)).astype(np.float32)
    whole = np.tile(tile, (1, 3, 3, 1))
    mask = np.zeros((1, 24, 24, 1), np.float32)
    mask[:, 8:16, 10:14] = 1
    x = whole * np.where(mask, 0.3, 1)
    play = jax.jit(partial(attention.contextual, rate=rate))
    filled = np.asarray(play(x, mask, sharpness=1000.0))
    inside = np.broadcast_to(mask > 0, x.shape)
    assert np.abs(filled - whole)[inside].max() < 0.02
    soft = np.asarray(play(x, mask, sharpness=0.0))  # every known patch weighs the same
    assert soft[0, 2:-2, 2:-2].std((0, 1)).max() < 0.5 * whole.std()
    known = whole[0].reshape(-1, 4)[mask.reshape(-1) == 0]
    assert np.abs(filled).max() <= np.abs(known).max() + 1e-3


def test_attention_never_looks_into_the_hole():
    """What is written there is a query, and nobody's answer."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(1, 16, 16, 2)).astype(np.float32)
    mask = np.zeros((1, 16, 16, 1), np.float32)
    mask[:, 4:10, 4:10] = 1
    huge = np.where(mask, 100.0, x)
    assert np.abs(attention.contextual(huge, mask, rate=2)).max() <= np.abs(x).max() + 1e-3
    slope = jax.grad(lambda x: jnp.sin(attention.contextual(x, jnp.ones_like(mask))).sum())(x)  # nothing is known
    assert np.isfinite(slope).all()


def test_sizes_are_the_papers():
    """4.1 million parameters in two stages (section 4.1); five by five convolutions of stride 2 leave 4x4 of 256."""
    shapes = _shapes(deepfill.Generator(), 1, 64, 64, 4)
    assert list(shapes) == ["params"]
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert round(count / 1e6, 1) == 4.1
    model = deepfill.Discriminator()
    logits, variables = jax.eval_shape(lambda: model.init_with_output(KEY, jnp.zeros((1, 256, 256, 4)), train=True))
    assert logits.shape == (1, 4, 4, 256)
    widths = (4, 64, 128, 256, 256, 256, 256)
    expected = sum(25 * i * o + o for i, o in zip(widths, widths[1:], strict=False))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == expected
    assert sorted(variables["spectral"]) == [f"conv{i}" for i in range(6)]


def test_both_stages_and_bfloat16():
    """Pictures of both in [0, 1], in float32 whatever is computed in."""
    model = deepfill.Generator(width=8, channels=1, dilations=(2, 4))
    x = jnp.asarray(np.random.default_rng(0).random((2, 16, 24, 2)), jnp.float32)
    variables = jax.jit(partial(model.init, train=True))(KEY, x)
    fine, coarse = jax.jit(partial(model.apply, train=True, method="stages"))(variables, x)
    assert fine.shape == coarse.shape == (2, 16, 24, 1)
    for image in (fine, coarse):
        assert image.dtype == jnp.float32 and image.min() >= 0 and image.max() <= 1
    low = model.clone(dtype=jnp.bfloat16)
    y = jax.eval_shape(lambda: low.apply(variables, x, train=False))
    assert y.dtype == jnp.float32


@pytest.mark.parametrize(("model", "options", "message"), [
    (deepfill.Generator, {"width": 10}, "width=10: expected a multiple of 4"),
    (deepfill.Generator, {"width": 0}, "width=0: expected 4 or more"),
    (deepfill.Discriminator, {"layers": 0}, "layers=0: expected 1 or more"),
])  # fmt: skip
def test_fields_out_of_range_are_refused(model, options, message):
    with pytest.raises(UserError, match=message):
        model(**options)


def test_sides_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="pictures of 20x16: expected sides that are multiples of 8, from 16 on"):
        _shapes(deepfill.Generator(), 1, 20, 16, 4)
