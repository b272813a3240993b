"""DCGAN against recorded numbers of the PyTorch examples network, known sizes, and its other forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.errors import UserError
from gan_jax.models.dcgan import Discriminator, Generator, plan
from tests import golden_dcgan, settings

KEY = jax.random.key(0)


def _apply(model, variables, *args, **kwargs):
    static = {"train": kwargs.pop("train")}
    return jax.jit(lambda v, a, k: model.apply(v, *a, **k, **static))(variables, args, kwargs)


@pytest.fixture(scope="module")
def golden():
    return golden_dcgan.load()


def _close(ours, recorded, tolerance=1e-5):
    ours, recorded = np.asarray(ours), np.asarray(recorded)
    assert ours.shape == recorded.shape
    assert np.abs(ours - recorded).max() <= tolerance * np.abs(recorded).max()


def _statistics(npz, prefix, net, ours):
    recorded = golden_dcgan.tree(npz, prefix, net, statistics=True)
    assert jax.tree.structure(recorded) == jax.tree.structure(ours)
    jax.tree.map(_close, ours, recorded)


def _train(model, params, stats, *args):
    out, new = model.apply(
        {"params": params, "batch_stats": stats}, *args, train=True, mutable=["batch_stats"]
    )
    return out, new["batch_stats"]


def test_recorded_generator(golden):
    params, stats, npz = golden.params["G"], golden.batch_stats["G"], golden.npz
    model = golden.generator
    initial = jax.eval_shape(lambda: model.init(KEY, golden.z[0], train=True))
    assert jax.tree.map(jnp.shape, initial) == jax.tree.map(
        jnp.shape, {"params": params, "batch_stats": stats}
    )
    images = npz["out/eval_initial/img"].transpose(0, 2, 3, 1)
    _close(_apply(model, {"params": params, "batch_stats": stats}, golden.z[0], train=False), images)
    fake, stats = _train(model, params, stats, golden.z[0])
    _close(fake, npz["out/train/img"].transpose(0, 2, 3, 1))
    _statistics(npz, "out/train/G_bn_after_1_forward/", "G", stats)
    images = npz["out/eval_after/img"].transpose(0, 2, 3, 1)
    _close(_apply(model, {"params": params, "batch_stats": stats}, golden.z[0], train=False), images)


def test_recorded_discriminator(golden):
    params, stats, npz = golden.params["D"], golden.batch_stats["D"], golden.npz
    model = golden.discriminator
    initial = jax.eval_shape(lambda: model.init(KEY, golden.real[0], train=True))
    assert jax.tree.map(jnp.shape, initial) == jax.tree.map(
        jnp.shape, {"params": params, "batch_stats": stats}
    )
    logits = _apply(model, {"params": params, "batch_stats": stats}, golden.real[0], train=False)
    _close(jax.nn.sigmoid(logits), npz["out/eval_initial/D_real"])
    logits, stats = _train(model, params, stats, golden.real[0])
    _close(jax.nn.sigmoid(logits), npz["out/train/D_real"])
    fake = npz["out/train/img"].transpose(0, 2, 3, 1)
    logits, stats = _train(model, params, stats, fake)
    _close(jax.nn.sigmoid(logits), npz["out/train/D_fake"], 3e-5)
    after = {key.split("/")[2] for key in npz if key.startswith("out/train/D_bn_after")}
    _statistics(npz, f"out/train/{max(after)}/", "D", stats)
    logits = _apply(model, {"params": params, "batch_stats": stats}, golden.real[0], train=False)
    _close(jax.nn.sigmoid(logits), npz["out/eval_after/D_real"])


def _sizes(model, *args):
    variables = jax.eval_shape(lambda: model.init(KEY, *args, train=True))
    return sum(a.size for a in jax.tree.leaves(variables["params"])), variables


def test_published_parameter_counts():
    z, x = jnp.zeros((2, 100)), jnp.zeros((2, 64, 64, 3))
    assert _sizes(Generator(resolution=64), z)[0] == 3_576_704
    assert _sizes(Discriminator(resolution=64), x)[0] == 2_765_568


def test_tensorflow_tutorial_counts():
    """2,330,944 values of which 2,305,472 are trained, and 212,865, as Keras prints them for the tutorial."""
    common = {"resolution": 28, "channels": 1, "kernel_size": 5, "initializer": "glorot"}
    g = Generator(
        features=(256, 128, 64),
        strides=(1, 2, 2),
        stem="dense",
        activation="leaky_relu",
        slope=0.3,
        norm_momentum=0.99,
        norm_epsilon=1e-3,
        **common,
    )
    d = Discriminator(
        features=(64, 128), strides=(2, 2), norm="none", dropout=0.3, head="dense", slope=0.3, **common
    )
    trained, variables = _sizes(g, jnp.zeros((2, 100)))
    assert trained == 2_305_472
    assert sum(a.size for a in jax.tree.leaves(variables)) == 2_330_944
    trained, variables = _sizes(d, jnp.zeros((2, 28, 28, 1)))
    assert trained == 212_865 and "batch_stats" not in variables


@pytest.mark.parametrize("resolution", [8, 20, 32, (16, 24), (48, 32)])
@pytest.mark.parametrize("form", ["torch", "paper"])
def test_any_size(resolution, form):
    size = (resolution, resolution) if isinstance(resolution, int) else resolution
    paper = form == "paper"
    options = {"resolution": resolution, "channels": 2, "width": 4, "kernel_size": 5 if paper else 4}
    g = Generator(latent_size=3, stem="dense" if paper else "conv", **options)
    d = Discriminator(head="dense" if paper else "conv", **options)
    x, _ = jax.eval_shape(lambda: g.init_with_output(KEY, jnp.ones((3, 3)), train=True))
    assert x.shape == (3, *size, 2) and x.dtype == jnp.float32
    logits, _ = jax.eval_shape(lambda: d.init_with_output(KEY, jnp.ones(x.shape), train=True))
    assert logits.shape == (3,) and logits.dtype == jnp.float32


def test_plan():
    assert plan(64, 64) == ((4, 4), (64, 128, 256, 512), (2, 2, 2, 2))
    assert plan(128, 8, reverse=True) == ((4, 4), (128, 64, 32, 16, 8), (2, 2, 2, 2, 2))
    assert plan((28, 14), 8, strides=(1, 2)) == ((14, 7), (8, 16), (1, 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 30, "strides": (2, 2), "features": (8, 8)}, "multiples of 4"),
        ({"resolution": 7}, "cannot be halved"),
        ({"features": (8, 8), "strides": (2,)}, "differ in length"),
        ({"norm": "layer"}, "norm 'layer' is unknown; expected one of batch, none"),
    ],
)
def test_errors(options, message):
    for model in (Generator, Discriminator):
        with pytest.raises(UserError, match=message):
            model(**options)


def test_conditional_networks():
    common = {"resolution": 16, "channels": 1, "num_classes": 3, "width": 4}
    g, d = Generator(latent_size=5, **common), Discriminator(spectral_norm=True, norm="none", **common)
    z, label = jax.random.normal(KEY, (6, 5)), jnp.int32([0, 1, 2, 0, 1, 2])
    variables = settings.numpy_variables(g, z, label)
    x = _apply(g, variables, z, label, train=False)
    assert variables["params"]["embed"]["kernel"].shape == (3, 5)
    assert variables["params"]["stem"]["kernel"].shape == (4, 4, 10, 8)
    assert np.abs(_apply(g, variables, z, (label + 1) % 3, train=False) - x).max() > 0
    variables = settings.numpy_variables(d, x, label)
    assert set(variables["spectral"]) == {"down0", "down1", "head", "embed"}

    # logit(x, a) - logit(x, b) = <embed(a) - embed(b), h(x)>: labels with equal vectors have equal logits.
    variables["params"]["embed"]["kernel"][1] = variables["params"]["embed"]["kernel"][0]
    same = jnp.repeat(x[:1], 3, 0)
    logits = _apply(d, variables, same, jnp.int32([0, 1, 2]), train=False)
    np.testing.assert_allclose(logits[0], logits[1], rtol=1e-6)
    assert abs(logits[2] - logits[0]) > 1e-5
    with pytest.raises(AssertionError, match="needs labels"):
        d.apply(variables, x, train=False)


def test_dropout_by_sample_and_by_layer():
    d = Discriminator(resolution=8, channels=1, width=4, norm="none", dropout=0.5)
    x = jax.random.normal(KEY, (6, 8, 8, 1))
    keys = jax.random.split(KEY, 6)
    variables = settings.numpy_variables(d, x)
    dropped = _apply(d, variables, x, train=True, keys=keys)
    np.testing.assert_allclose(
        _apply(d, variables, x[1:3], train=True, keys=keys[1:3]), dropped[1:3], rtol=1e-5
    )
    plain = _apply(d, variables, x, train=False, keys=keys)
    assert np.abs(dropped - plain).max() > 0
    np.testing.assert_array_equal(_apply(d, variables, x, train=True), plain)


def test_bfloat16_computes_and_keeps_float32_state():
    options = {"resolution": 16, "channels": 1, "width": 8, "dtype": jnp.bfloat16}
    g, d = Generator(latent_size=8, **options), Discriminator(spectral_norm=True, **options)
    z = jax.random.normal(KEY, (8, 8))
    variables = settings.numpy_variables(g, z)
    x = _apply(g, variables, z, train=True)
    assert {a.dtype for a in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    exact = _apply(g.clone(dtype=jnp.float32), variables, z, train=False)
    np.testing.assert_allclose(_apply(g, variables, z, train=False), exact, atol=0.02)
    variables = settings.numpy_variables(d, x)
    assert {a.dtype for a in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    grads = jax.grad(lambda p: jnp.sum(d.apply({**variables, "params": p}, x, train=True)))(
        variables["params"]
    )
    assert {a.dtype for a in jax.tree.leaves(grads)} == {jnp.dtype("float32")}


def test_initial_values():
    model = Generator(resolution=8, width=64, channels=1)
    params = jax.jit(lambda: model.init(KEY, jnp.ones((2, 100)), train=True))()["params"]
    assert abs(float(jnp.std(params["stem"]["kernel"])) - 0.02) < 5e-4
    scale = params["stem_norm"]["scale"]
    assert abs(float(jnp.mean(scale)) - 1) < 0.01 and 0.01 < float(jnp.std(scale)) < 0.03
    assert float(jnp.abs(params["stem_norm"]["bias"]).max()) == 0


@pytest.mark.parametrize("field", ["width", "channels", "kernel_size"])
def test_sizes_below_one_are_refused(field):
    for model in (Generator, Discriminator):
        with pytest.raises(UserError, match=f"{field}=0"):
            model(**{field: 0})
