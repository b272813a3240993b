"""R3GAN's networks against recorded activations, losses and gradients of the official code, and official sizes."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import losses, penalties
from gan_jax.errors import UserError
from gan_jax.layers.conv import conv
from gan_jax.layers.fir import downsample2d, normalised, upsample2d
from gan_jax.models.r3gan import Discriminator, Generator
from tests import golden_r3gan

KEY = jax.random.key(0)
GOLDEN = golden_r3gan.GOLDEN


def _close(ours, recorded, tolerance=1e-5):
    ours, recorded = np.asarray(ours), np.asarray(recorded)
    assert ours.shape == recorded.shape
    assert np.abs(ours - recorded).max() <= tolerance * np.abs(recorded).max()


@pytest.fixture(scope="module", params=["uncond", "cond"])
def recorded(request):
    return golden_r3gan.Recorded(request.param)


def test_recorded_images_logits_and_activations(recorded):
    net_g, net_d = recorded.generator, recorded.discriminator
    label, real_label = recorded.labels("in/c"), recorded.labels("in/real_c")

    @jax.jit
    def play(params_g, params_d, z, real):
        img, inside_g = net_g.apply({"params": params_g}, z, label, capture_intermediates=True)
        fake, inside_d = net_d.apply({"params": params_d}, img, label, capture_intermediates=True)
        return img, fake, net_d.apply({"params": params_d}, real, real_label), inside_g, inside_d

    params = [recorded.tree(f"params/{net}", net) for net in "GD"]
    shapes = [jax.eval_shape(lambda net=net, x=x: net.init(KEY, x, label))["params"]
              for net, x in ((net_g, recorded.npz["in/z"]), (net_d, recorded.images("in/real_img")))]  # fmt: skip
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, params)
    img, fake, real, inside_g, inside_d = play(*params, recorded.npz["in/z"], recorded.images("in/real_img"))
    _close(img, recorded.images("out/img"))
    _close(fake, recorded.npz["out/logits_fake"])
    _close(real, recorded.npz["out/logits_real"])
    levels = len(recorded.meta["G_kwargs"]["WidthPerStage"])
    for level in range(levels):
        last = f"stage{level}_block{recorded.meta['G_kwargs']['BlocksPerStage'][level] - 1}"
        _close(inside_g["intermediates"][last]["__call__"][0][:2], recorded.images(f"inter/G/stage{level}"))
    for stage in range(levels - 1):
        name = f"stage{levels - 1 - stage}_change"
        if name in inside_d["intermediates"]:
            _close(inside_d["intermediates"][name]["__call__"][0][:2], recorded.images(f"inter/D/stage{stage}"))


def test_recorded_losses_and_gradients(recorded):
    """R1 and R2 of one backward pass over real and generated images together."""
    net_g, net_d, gamma = recorded.generator, recorded.discriminator, recorded.meta["gamma"]
    game, label = losses.adversarial("relativistic"), recorded.labels("in/real_c")

    def loss_d(params, real, fake):
        def logits(x):
            return net_d.apply({"params": params}, x, None if label is None else jnp.concatenate([label, label]))

        (r1, r2), both = penalties.r1_and_r2(logits, real, fake, r1_gamma=gamma, r2_gamma=gamma)
        terms = game.discriminator(*both)["relativistic"]
        return (terms + r1 + r2).mean(), (terms, r1, r2)

    def loss_g(params, params_d, z, real):
        fake = net_d.apply({"params": params_d}, net_g.apply({"params": params}, z, label), label)
        terms = game.generator(net_d.apply({"params": params_d}, real, label), fake)
        return terms.mean(), terms

    params_g, params_d = (recorded.tree(f"params/{net}", net) for net in "GD")
    z, real = recorded.npz["in/z"], recorded.images("in/real_img")
    fake = jax.jit(net_g.apply)({"params": params_g}, z, label)
    (total, (terms, r1, r2)), grads = jax.jit(jax.value_and_grad(loss_d, has_aux=True))(params_d, real, fake)
    out = recorded.npz
    _close(total, out["out/D/total_loss"])
    _close(terms, out["out/D/adversarial_loss_per_sample"])
    _close(r1, out["out/D/r1_penalty_per_sample"] * gamma / 2)
    _close(r2, out["out/D/r2_penalty_per_sample"] * gamma / 2)
    jax.tree.map(lambda a, b: _close(a, b, 1e-4), grads, recorded.tree("grad/D", "D"))
    (_, terms), grads = jax.jit(jax.value_and_grad(loss_g, has_aux=True))(params_g, params_d, z, real)
    _close(terms, out["out/G/adversarial_loss_per_sample"])
    jax.tree.map(lambda a, b: _close(a, b, 1e-4), grads, recorded.tree("grad/G", "G"))


def test_the_penalties_together_are_r1_and_r2_and_their_gradient_is_that_of_finite_differences():
    with jax.enable_x64(True):
        model = Discriminator(resolution=8, channels=2, width=4, blocks=(1, 1), cardinalities=(2, 2))
        shapes = jax.eval_shape(lambda: model.init(KEY, jnp.zeros((1, 8, 8, 2))))
        rng = np.random.default_rng(0)
        params, direction = (jax.tree.map(lambda x: rng.normal(0, 0.5, x.shape), shapes) for _ in range(2))
        real, fake = rng.normal(size=(2, 3, 8, 8, 2))

        def together(params):
            def logits(x):
                return model.apply(params, x)

            return penalties.r1_and_r2(logits, real, fake, r1_gamma=2.0, r2_gamma=3.0), logits

        @jax.jit
        def values(params):
            (pair, _), logits = together(params)
            return pair, (penalties.r1(logits, real, gamma=2.0), penalties.r2(logits, fake, gamma=3.0))

        @jax.jit
        def total(params):
            (r1, r2), _ = together(params)[0]
            return jnp.sum(r1 + r2)

        for a, b in zip(*values(params), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10)
        grads = jax.jit(jax.grad(total))(params)
        slope = sum(jnp.vdot(g, d) for g, d in zip(*map(jax.tree.leaves, (grads, direction)), strict=True))
        ahead, behind = (jax.tree.map(lambda p, d, s=s: p + s * d, params, direction) for s in (1e-6, -1e-6))
        np.testing.assert_allclose(slope, (total(ahead) - total(behind)) / 2e-6, rtol=1e-6)


@pytest.mark.parametrize("name, taps", [("f121", (1, 3, 3, 1)), ("f14641", (1, 5, 10, 10, 5, 1)), ("f11", (1, 2, 1))])
def test_recorded_resampling(name, taps):
    npz = np.load(GOLDEN / "r3gan_ops.npz")
    x = npz[f"resample/{name}/in"].transpose(0, 2, 3, 1)
    _close(upsample2d(x, normalised(taps)), npz[f"resample/{name}/up"].transpose(0, 2, 3, 1))
    _close(downsample2d(x, normalised(taps)), npz[f"resample/{name}/down"].transpose(0, 2, 3, 1))


@pytest.mark.parametrize("name", ["CIFAR10/c0", "FFHQ-64"])
@pytest.mark.parametrize("net", ["G", "D"])
def test_official_sizes_and_initial_scales(name, net):
    counts = np.load(GOLDEN / "counts.npz")
    table = json.loads(str(counts[f"table/R3GAN/{name}/{net}"]))
    kwargs = table["kwargs"]
    widths = tuple(kwargs["WidthPerStage"][:: 1 if net == "G" else -1])
    model = {"G": Generator, "D": Discriminator}[net](resolution=kwargs["img_resolution"], widths=widths)
    first = jnp.zeros((1, 64)) if net == "G" else jnp.zeros((1, *(kwargs["img_resolution"],) * 2, 3))
    shapes = jax.eval_shape(lambda: model.init(KEY, first))["params"]
    assert sum(x.size for x in jax.tree.leaves(shapes)) == counts[f"count/R3GAN/{name}/{net}/parameters"]


def test_conditional_sizes():
    """CIFAR-10 with labels: 20.78 and 21.28 million in the authors' code."""
    label = jnp.zeros(1, jnp.int32)
    for model, x, millions in ((Generator(num_classes=10), jnp.zeros((1, 64)), 20.78),
                               (Discriminator(num_classes=10), jnp.zeros((1, 32, 32, 3)), 21.28)):  # fmt: skip
        shapes = jax.eval_shape(lambda model=model, x=x: model.init(KEY, x, label))
        assert round(sum(x.size for x in jax.tree.leaves(shapes)) / 1e6, 2) == millions


def test_initial_values_have_the_recorded_spread():
    """Each kernel's standard deviation, of one narrow network scaled to the widths of the recorded one."""
    counts = np.load(GOLDEN / "counts.npz")
    recorded = {p["name"]: p for p in json.loads(str(counts["table/R3GAN/CIFAR10/c0/D"]))["parameters"]}
    model = Discriminator(width=64, cardinalities=(8,) * 4)
    params = jax.jit(lambda: model.init(KEY, jnp.zeros((1, 32, 32, 3))))()["params"]
    expected = {
        ("stage3_block0", "expand", "kernel"): ("0.Layers.0.LinearLayer1.Layer.weight", 768 / 64),
        ("stage3_block0", "kernel"): ("0.Layers.0.LinearLayer2.Layer.weight", 1),
        ("stage3_block0", "reduce", "kernel"): ("0.Layers.0.LinearLayer3.Layer.weight", 1),
        ("stage0_block1", "bias2"): ("3.Layers.1.NonLinearity2.Bias", 1),
        ("basis",): ("3.Layers.2.Basis.weight", 1),
        ("project", "kernel"): ("3.Layers.2.LinearLayer.weight", 768 / 64),
    }
    for path, (name, ratio) in expected.items():
        leaf = params
        for key in path:
            leaf = leaf[key]
        theirs = recorded[f"Model.MainLayers.{name}"]["init_std"] * ratio**0.5
        assert float(jnp.std(leaf)) == pytest.approx(theirs, rel=0.25, abs=1e-9), path


def test_other_shapes_multi_hot_labels_and_bfloat16():
    size = dict(resolution=(16, 24), channels=2, num_classes=3, width=16, blocks=(1, 1, 1))
    generator, discriminator = (net(**size, num_bf16_res=1) for net in (Generator, Discriminator))
    z, label = jax.random.normal(KEY, (2, 64)), jnp.array([[1.0, 0, 0], [0, 0.5, 0.5]])
    params_g = jax.jit(generator.init)(KEY, z, label)
    params_d = jax.jit(discriminator.init)(KEY, jnp.zeros((1, 16, 24, 2)), label[:1])
    assert params_g["params"]["basis"].shape == params_d["params"]["basis"].shape == (4, 6, 16)

    @jax.jit
    def play(z, label):
        images = generator.apply(params_g, z, label)
        return images, discriminator.apply(params_d, images, label)

    images, logits = play(z, label)
    assert (images.shape, images.dtype) == ((2, 16, 24, 2), jnp.float32)
    assert (logits.shape, logits.dtype) == ((2,), jnp.float32)
    np.testing.assert_allclose(play(z, jnp.array([0, 1]))[0][0], images[0], rtol=0, atol=1e-5)
    full = Generator(**size).apply(params_g, z, label)
    difference = np.abs(full - images).max() / np.abs(full).max()
    assert 0 < difference < 0.03  # bfloat16 has 8 bits


MISTAKES = [
    ({"widths": (8, 8)}, "has 4 stages"),
    ({"width": 24, "cardinalities": (5,) * 4}, "divide"),
    ({"resolution": 7}, "resolution 7"),
]


@pytest.mark.parametrize("options, message", MISTAKES)
def test_mistakes_are_named(options, message):
    for net in (Generator, Discriminator):
        with pytest.raises(UserError, match=message):
            net(**options)


def test_grouped_convolutions_are_closed_under_differentiation():
    """A penalty's gradient equals JAX's own, without the batch-grouped form that is 15 to 200 times slower on CPU."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, 6, 5, 6)), rng.normal(size=(3, 3, 2, 9))

    def plain(x, w):
        options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "feature_group_count": 3}
        return jax.lax.conv_general_dilated(x, w, (2, 1), ((1, 1), (1, 0)), **options)

    def penalty(f):
        def value(x, w):
            return jnp.sum(jnp.square(jax.grad(lambda x: jnp.sum(jnp.tanh(f(x, w))))(x)))

        return jax.jit(jax.grad(value, (0, 1)))

    with jax.enable_x64(True):
        ours = penalty(lambda x, w: conv(x, w, (2, 1), ((1, 1), (1, 0)), groups=3))
        for a, b in zip(ours(x, w), penalty(plain)(x, w), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-9)
        assert "batch_group_count = 3" not in ours.lower(x, w).as_text()
        assert "batch_group_count = 3" in penalty(plain).lower(x, w).as_text()
