"""Super-resolution networks against recorded numbers and layouts of published files, and what their design promises."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import initial
from gan_jax.errors import UserError
from gan_jax.layers import degradation, enlarge
from gan_jax.layers.activation import PRelu
from gan_jax.models import enhancenet, esrgan, msrgan, real_esrgan, srgan
from tests import golden_superres as golden
from tests import settings

KEY = jax.random.key(0)
SMALL_RRDB = {"width": 8, "blocks": 1, "growth": 4}
GENERATORS = [
    ("sr_rrdbnet_x1", esrgan.Generator(scale=1, **SMALL_RRDB), golden.RRDBNET),
    ("sr_rrdbnet_x2", esrgan.Generator(scale=2, **SMALL_RRDB), golden.RRDBNET),
    ("sr_rrdbnet_x4", esrgan.Generator(scale=4, **SMALL_RRDB), golden.RRDBNET),
    ("sr_msrresnet_x3", msrgan.Generator(scale=3, width=8, blocks=2), golden.MSRRESNET),
    ("sr_msrresnet_x4", msrgan.Generator(scale=4, width=8, blocks=2), golden.MSRRESNET),
]
ALL = (esrgan.Generator, esrgan.Discriminator, msrgan.Generator, srgan.Generator, srgan.Discriminator,
       real_esrgan.Generator, real_esrgan.Discriminator, enhancenet.Generator, enhancenet.Discriminator)  # fmt: skip


def _shapes(model, *shape):
    return jax.eval_shape(lambda: model.init(KEY, jnp.zeros(shape), train=True))


def _agree(ours, recorded, tolerance):
    """Trees of which the second may have a part of the first; each leaf relative to the recorded one's largest."""
    for path, value in jax.tree_util.tree_leaves_with_path(recorded):
        mine = functools.reduce(lambda tree, key: tree[key.key], path, ours)
        assert mine.shape == value.shape, path
        assert np.abs(mine - value).max() <= tolerance * np.abs(value).max(), path


def _l1(model, params, x, target):
    y = model.apply({"params": params}, x, train=True)
    return jnp.abs(y - target).mean(), y


@pytest.mark.parametrize(("name", "model", "names"), GENERATORS, ids=[name for name, _, _ in GENERATORS])
def test_recorded_generators_with_gradients(name, model, names):
    """Of the L1 loss, in all parameters that are recorded and in the pictures."""
    arrays = golden.load(name)
    variables = golden.variables(arrays, "params/", names)
    x, target = (golden.images(arrays[key]) for key in ("in/x", "in/target"))
    assert jax.tree.map(jnp.shape, _shapes(model, *x.shape)) == jax.tree.map(jnp.shape, variables)
    play = jax.jit(jax.value_and_grad(functools.partial(_l1, model), argnums=(0, 1), has_aux=True))
    (loss, y), (of_params, of_x) = play(variables["params"], x, target)
    _agree(y, golden.images(arrays["out/y"]), 1e-4)
    assert loss == pytest.approx(float(arrays["out/l1_loss"]), rel=1e-4)
    _agree(of_params, golden.variables(arrays, "grad/", names)["params"], 1e-3)
    _agree(of_x, golden.images(arrays["grad/x"]), 1e-3)


@pytest.mark.parametrize("activation", ["prelu", "relu", "leaky_relu"])
def test_recorded_compact_generator(activation):
    """The loss is the mean of |y - 1/2|; gradients are recorded with learned slopes."""
    arrays, theirs = golden.load("sr_srvggnetcompact"), activation.replace("_", "")
    model = real_esrgan.Generator(width=8, layers=3, activation=activation)
    variables = golden.variables(arrays, f"params/{theirs}/", golden.COMPACT)
    x = golden.images(arrays["in/x"])
    assert jax.tree.map(jnp.shape, _shapes(model, *x.shape)) == jax.tree.map(jnp.shape, variables)
    play = jax.jit(jax.value_and_grad(functools.partial(_l1, model), has_aux=True))
    (loss, y), gradients = play(variables["params"], x, 0.5)
    _agree(y, golden.images(arrays[f"out/{theirs}/y"]), 1e-4)
    assert loss == pytest.approx(float(arrays[f"out/{theirs}/l1_to_half"]), rel=1e-4)
    if activation == "prelu":
        _agree(gradients, golden.variables(arrays, f"grad/{theirs}/", golden.COMPACT)["params"], 1e-3)


def _in_both_modes(model, variables, x):
    """What a network makes in evaluation and in training, and its collections after the latter."""

    @jax.jit
    def play(variables, x):
        trained, state = model.apply(variables, x, train=True, mutable=["batch_stats", "spectral"])
        return model.apply(variables, x, train=False), trained, state

    return play(variables, x)


def test_recorded_srgan_generator():
    arrays = golden.load("sr_srgan")
    model = srgan.Generator(width=8, blocks=5)
    variables, x = golden.variables(arrays, "params/G4/", golden.SRGAN_G), golden.images(arrays["in/lr"])
    assert jax.tree.map(jnp.shape, _shapes(model, *x.shape)) == jax.tree.map(jnp.shape, variables)
    evaluated, trained, state = _in_both_modes(model, variables, x)
    _agree(evaluated, golden.images(arrays["out/G4_eval"]), 1e-4)
    _agree(trained, golden.images(arrays["out/G4_train"]), 1e-4)
    _agree(state, golden.variables(arrays, "out/G4_after_train/", golden.SRGAN_G), 1e-4)


def test_recorded_srgan_discriminator():
    """Which is recorded behind a sigmoid."""
    arrays = golden.load("sr_srgan")
    model = srgan.Discriminator(features=(8, 16, 24, 32), hidden=48)
    variables, x = golden.variables(arrays, "params/D/", golden.SRGAN_D), golden.images(arrays["in/d_in"])
    assert jax.tree.map(jnp.shape, _shapes(model, *x.shape)) == jax.tree.map(jnp.shape, variables)
    evaluated, trained, state = _in_both_modes(model, variables, x)
    _agree(jax.nn.sigmoid(evaluated), arrays["out/D_eval"], 1e-4)
    _agree(jax.nn.sigmoid(trained), arrays["out/D_train"], 1e-4)
    _agree(state, golden.variables(arrays, "out/D_after_train/", golden.SRGAN_D), 1e-4)


def test_recorded_vgg_style_discriminator():
    arrays = golden.load("sr_vggstyle_discriminator")
    model = esrgan.Discriminator(width=3)
    variables, x = golden.variables(arrays, "params/", golden.VGG_D), golden.images(arrays["in/x"])
    assert jax.tree.map(jnp.shape, _shapes(model, *x.shape)) == jax.tree.map(jnp.shape, variables)
    evaluated, trained, state = _in_both_modes(model, variables, x)
    _agree(evaluated, arrays["out/y_eval"][:, 0], 1e-4)
    _agree(trained, arrays["out/y_train"][:, 0], 1e-4)
    _agree(state, golden.variables(arrays, "out/y_after_train/", golden.VGG_D), 1e-4)


def test_recorded_u_net_discriminator():
    """In training. In evaluation PyTorch takes its second stored vector, which is not kept here."""
    arrays = golden.load("sr_unet_discriminator_sn")
    model = real_esrgan.Discriminator(width=4)
    variables, x = golden.variables(arrays, "params/", golden.UNET_D), golden.images(arrays["in/x"])
    assert jax.tree.map(jnp.shape, _shapes(model, *x.shape)) == jax.tree.map(jnp.shape, variables)
    _, trained, state = _in_both_modes(model, variables, x)
    _agree(trained, golden.images(arrays["out/y_train"]), 1e-4)
    _agree(state, golden.variables(arrays, "out/y_after_train/", golden.UNET_D), 1e-4)


@pytest.mark.parametrize(("name", "model", "names", "side"), [
    ("RealESRGAN_x4plus", esrgan.Generator(), golden.RRDBNET, 8),
    ("RealESRGAN_x2plus", esrgan.Generator(scale=2), golden.RRDBNET, 8),
    ("RealESRGAN_x4plus_anime_6B", esrgan.Generator(blocks=6), golden.RRDBNET, 8),
    ("realesr-animevideov3", real_esrgan.Generator(), golden.compact(16), 8),
    ("realesr-general-x4v3", real_esrgan.Generator(layers=32), golden.compact(32), 8),
    ("RealESRGAN_netD", real_esrgan.Discriminator(), golden.UNET_D, 16),
])  # fmt: skip
def test_published_layouts_and_counts(name, model, names, side):
    """The defaults are the published sizes. PyTorch's count has the right singular vectors besides."""
    arrays = golden.layout(name)
    ours = _shapes(model, 1, side, side, 3)
    assert jax.tree.map(jnp.shape, ours) == jax.tree.map(jnp.shape, golden.variables(arrays, "", names))
    right_vectors = sum(value.size for key, value in arrays.items() if key.endswith("weight_v"))
    record = json.loads((settings.ROOT / f"tests/golden/layout_{name}.json").read_text(encoding="utf-8"))
    assert sum(leaf.size for leaf in jax.tree.leaves(ours)) + right_vectors == record["n_params"]


def test_sizes_of_the_others():
    """Counted by hand: SRResNet of 16 blocks, and the layers that a discriminator of 128x128 is published with."""

    def conv(kernel, i, o, bias=True):
        return kernel**2 * i * o + bias * o

    def count(model, side):
        return sum(leaf.size for leaf in jax.tree.leaves(_shapes(model, 1, side, side, 3)["params"]))

    block, slopes = 2 * conv(3, 64, 64) + 4 * 64, 1 + 16 + 2
    expected = conv(9, 3, 64) + 16 * block + conv(3, 64, 64) + 2 * 64 + 2 * conv(3, 64, 256) + conv(9, 64, 3) + slopes
    assert count(srgan.Generator(), 8) == expected
    expected = conv(3, 3, 64) + 16 * 2 * conv(3, 64, 64) + 2 * conv(3, 64, 256) + conv(3, 64, 64) + conv(3, 64, 3)
    assert count(msrgan.Generator(), 8) == expected
    widths = (64, 128, 256, 512, 512)
    pairs = zip((3, *widths), widths, strict=False)
    expected = sum(conv(3, i, o, False) + conv(4, o, o, False) + 4 * o for i, o in pairs) + 64 - 2 * 64
    assert count(esrgan.Discriminator(), 128) == expected + 16 * 512 * 100 + 100 + 101


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_without_a_residual_enhancenet_is_the_cubic(scale):
    """Its last convolution is set to zero."""
    model = enhancenet.Generator(scale=scale, width=4, blocks=1)
    x = jax.random.uniform(KEY, (2, 5, 6, 3))
    params = dict(model.init(KEY, x, train=True)["params"])
    params["image"] = jax.tree.map(jnp.zeros_like, params["image"])
    made = model.apply({"params": params}, x, train=True)
    np.testing.assert_allclose(made, degradation.bicubic(x, scale), atol=1e-6)
    assert made.shape == (2, 5 * scale, 6 * scale, 3)


def test_pixels_are_shuffled_as_recorded():
    arrays = golden.load("sr_pixelshuffle_imresize")
    x, y = golden.images(arrays["in/shuffle"]), golden.images(arrays["in/unshuffle"])
    for ours, name in (
        (enlarge.shuffle(x, 3), "pixel_shuffle_r3"),
        (enlarge.shuffle(x[..., :16], 2), "pixel_shuffle_r2_first16"),
        (enlarge.unshuffle(y, 2), "pixel_unshuffle_torch_r2"),
        (enlarge.unshuffle(y, 3), "pixel_unshuffle_torch_r3"),
    ):
        np.testing.assert_array_equal(ours, golden.images(arrays[f"out/{name}"]))
    np.testing.assert_array_equal(enlarge.unshuffle(enlarge.shuffle(x, 3), 3), x)


def test_bilinear_enlargement_of_a_row():
    """Between centres: quarters of the neighbours, and the border's pixel itself."""
    row = jnp.array([0.0, 4.0, 8.0]).reshape(1, 1, 3, 1)
    np.testing.assert_allclose(enlarge.bilinear(row, 2)[0, 0, :, 0], [0, 1, 3, 5, 7, 8], atol=1e-6)
    np.testing.assert_allclose(enlarge.bilinear(row, 2)[0, 1], enlarge.bilinear(row, 2)[0, 0])


@pytest.mark.parametrize("per_channel", [False, True])
def test_slopes_are_one_or_one_a_channel(per_channel):
    x = jnp.array([[-2.0, 1.0, -4.0]])
    layer = PRelu(per_channel=per_channel)
    fresh = layer.init(KEY, x)
    np.testing.assert_allclose(layer.apply(fresh, x), [[-0.5, 1.0, -1.0]])
    slope = jnp.array([0.5, 0.0, 1.0]) if per_channel else jnp.array([0.5])
    expected = [[-1.0, 1.0, -4.0]] if per_channel else [[-1.0, 1.0, -2.0]]
    np.testing.assert_allclose(layer.apply({"params": {"slope": slope}}, x), expected)


def test_initial_deviations():
    """He's deviation times 0.1 in dense blocks, U(-1, 1) / sqrt(fan-in) outside them; biases 0."""
    model = esrgan.Generator(width=32, blocks=1, growth=16)
    params = initial.evaluate(lambda: model.init(KEY, jnp.zeros((1, 8, 8, 3)), train=True))["params"]
    inner, outer = params["block0"]["dense1"]["conv5"], params["trunk"]
    assert inner["kernel"].std() == pytest.approx(0.1 * (2 / (9 * 96)) ** 0.5, rel=0.05)
    assert np.abs(outer["kernel"]).max() == pytest.approx((9 * 32) ** -0.5, rel=0.01)
    assert not any(np.any(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(params) if path[-1].key == "bias")


@pytest.mark.parametrize("model", ALL, ids=lambda model: f"{model.__module__.rpartition('.')[2]}_{model.__name__}")
def test_bfloat16_and_any_channels(model):
    """Parameters stay float32, and so does what comes out."""
    net = model(dtype=jnp.bfloat16)
    x = jax.ShapeDtypeStruct((2, 32, 64, 3), jnp.float32)
    y, variables = jax.eval_shape(lambda x: net.init_with_output(KEY, x, train=True), x)
    assert y.dtype == jnp.float32 and {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    if hasattr(net, "scale"):
        assert y.shape == (2, 128, 256, 3)


@pytest.mark.parametrize(("model", "options", "message"), [
    (esrgan.Generator, {"scale": 3}, "scale=3: this generator enlarges by 4, 2, 1"),
    (esrgan.Generator, {"growth": 0}, "growth=0: expected 1 or more"),
    (esrgan.Discriminator, {"halvings": 0}, "halvings=0: expected 1 or more"),
    (msrgan.Generator, {"scale": 8}, "scale=8: this generator enlarges by 1, 2, 3, 4"),
    (enhancenet.Generator, {"scale": 5}, "scale=5: this generator enlarges by 1, 2, 3, 4"),
    (enhancenet.Discriminator, {"hidden": 0}, "hidden=0: expected 1 or more"),
    (srgan.Generator, {"scale": 3}, "scale=3: this generator enlarges by powers of two"),
    (srgan.Discriminator, {"features": ()}, "features=.*expected one number or more"),
    (real_esrgan.Generator, {"activation": "elu"}, "activation 'elu' is unknown; expected one of prelu, relu"),
    (real_esrgan.Discriminator, {"width": 0}, "width=0: expected 1 or more"),
])  # fmt: skip
def test_fields_out_of_range_are_refused(model, options, message):
    with pytest.raises(UserError, match=message):
        model(**options)


@pytest.mark.parametrize(("model", "side", "multiple"), [
    (esrgan.Generator(scale=1), 6, 4), (esrgan.Discriminator(), 48, 32), (real_esrgan.Discriminator(), 12, 8),
    (enhancenet.Discriminator(), 48, 32),
])  # fmt: skip
def test_sides_that_do_not_fit_are_refused(model, side, multiple):
    with pytest.raises(UserError, match=f"pictures of {side}x{side}: expected sides that are multiples of {multiple}"):
        _shapes(model, 1, side, side, 3)
