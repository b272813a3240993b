"""Super-resolution of pictures from anywhere, and EnhanceNet: what becomes small, textures, their experiments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from gan_jax import config as configs
from gan_jax import runs, specs
from gan_jax import step as steps
from gan_jax.errors import UserError
from gan_jax.features import vgg
from gan_jax.games import perceptual, super_resolution
from gan_jax.layers import degradation, random, second_order
from tests import settings


def _config(name, variant="", **overrides):
    path = settings.EXPERIMENTS / f"{name}.py"
    return runs.load_config(f"{path}:{variant}" if variant else str(path),
                            [(key.replace("__", "."), str(value)) for key, value in overrides.items()])  # fmt: skip


def _build(config, shape=(16, 16, 3)):
    return runs.build(config, {"image": specs.Field("image", shape)})


# What becomes small.


def test_held_out_pictures_are_degraded_by_their_own_pixels():
    """So each time alike, wherever they stand; another one is degraded in another way."""
    config = _config("real_esrgan", "smoke")
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    other = image.copy()
    other[3, 5, 1] ^= 1
    small = super_resolution.derive(config, {"image": np.stack([image, other])})["low_resolution"]
    again = super_resolution.derive(config, {"image": np.stack([other, image])})["low_resolution"]
    assert small.dtype == np.uint8 and small.shape == (2, 4, 4, 3)
    np.testing.assert_array_equal(small, again[::-1])
    assert np.abs(small[0].astype(int) - small[1]).mean() > 2


def test_held_out_pictures_are_sharpened_as_in_training(monkeypatch):
    """Where what is aimed at is sharpened, and what is small is made of that."""
    monkeypatch.setattr(second_order, "degraded", lambda images, keys, scale: images[:, ::scale, ::scale])
    images = np.random.default_rng(0).integers(0, 256, (2, 28, 28, 3), dtype=np.uint8)
    large = jnp.asarray(images / 255, jnp.float32)
    super_resolution._small.clear_cache()  # the others are of the true degradation
    for sharpen, expected in ((True, degradation.sharpened(large)), (False, large)):
        config = _config("real_esrgan", "smoke", super_resolution__sharpen=sharpen)
        small = super_resolution.derive(config, {"image": images})["low_resolution"]
        np.testing.assert_allclose(small, np.asarray(expected[:, ::4, ::4]) * 255, atol=0.51)
    super_resolution._small.clear_cache()


def test_what_is_aimed_at_is_degraded_and_by_the_sample_s_key(monkeypatch):
    """Sharpened pictures, moved as the large ones; the other draws are those without a degradation."""
    seen = {}

    def degraded(images, keys, scale):
        seen.update(images=images, keys=keys, scale=scale)
        return images[:, ::scale, ::scale]

    monkeypatch.setattr(second_order, "degraded", degraded)
    images = np.random.default_rng(0).integers(0, 256, (2, 28, 28, 3), dtype=np.uint8)
    rng = steps.Rng(None, jax.random.split(jax.random.key(0), 2))
    look = dict(scale=4, crop=0, turn=True, flip=True)
    plain = super_resolution._pictures({"image": jnp.asarray(images)}, rng, sharpen=False, **look)[1]
    batch = {"image": jnp.asarray(images)}
    small, large, target = super_resolution._pictures(batch, rng, sharpen=True, real=True, **look)
    np.testing.assert_array_equal(large, plain)
    np.testing.assert_allclose(seen["images"], degradation.sharpened(large), atol=1e-6)
    assert seen["scale"] == 4 and small.shape == (2, 7, 7, 3)
    keys = random.draw(rng.samples, {super_resolution.CHAIN: random.KEY})[super_resolution.CHAIN]
    np.testing.assert_array_equal(jax.random.key_data(seen["keys"]), jax.random.key_data(keys))
    assert np.abs(target - large).max() > 0.05


@pytest.mark.parametrize(("overrides", "shape", "message"), [
    ({"super_resolution__degradation": "none"}, (16, 16, 3), "degradation='none': expected one of bicubic, real"),
    ({}, (16, 16, 4), "degradation='real': writes JPEG, which has 1 or 3 channels, not 4"),
    ({"perceptual__patch": -1}, (16, 16, 3), "config.perceptual.patch=-1: expected 0 or more"),
    ({"perceptual__textures": ("relu1_1",)}, (16, 16, 3), r"textures=\('relu1_1',\) with config.perceptual.texture_fa"),
])  # fmt: skip
def test_errors(overrides, shape, message):
    with pytest.raises(UserError, match=message):
        _build(_config("real_esrgan", "smoke", **overrides), shape)


def test_threes():
    """A generator that enlarges by three, through the game: what it is given, makes, and is compared with."""
    config = _config("enhancenet", "pixel_smoke", generator__scale=3, super_resolution__crop=9)
    run = _build(config, (18, 18, 3))
    state, metrics = settings.play(run, count=1)
    assert np.isfinite(metrics[0]["generator/pixel"])
    images = np.random.default_rng(0).integers(0, 256, (2, 18, 18, 3), dtype=np.uint8)
    given = super_resolution.derive(config, {"image": images})
    assert given["low_resolution"].shape == (2, 6, 6, 3)
    assert super_resolution.sample(run.nets, state.ema, None, given)["image"].shape == (2, 18, 18, 3)
    assert super_resolution.baselines(config, None)["bicubic"](given).shape == (2, 18, 18, 3)
    with pytest.raises(UserError, match="scale=3 needs sides that are its multiples"):
        _build(config, (16, 16, 3))


# Textures.


def test_patches_have_products_of_channels_of_their_own():
    maps = np.random.default_rng(0).normal(size=(2, 7, 4, 3)).astype(np.float32)
    expected = np.zeros((2, 3, 2, 3, 3))
    for b in range(2):
        for i in range(3):
            for j in range(2):
                square = maps[b, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].reshape(4, 3)
                expected[b, i, j] = square.T @ square
    np.testing.assert_allclose(perceptual.patch_gram(jnp.asarray(maps), 2), expected, atol=1e-5)
    with pytest.raises(UserError, match="patch=5: a map has 7x4 pixels"):
        perceptual.patch_gram(jnp.asarray(maps), 5)


def test_enhancenet_s_terms_are_as_their_formula(monkeypatch):
    """Maps over their means; pools of one layer, textures of others, each with its weight."""
    rng = np.random.default_rng(1)
    maps = {name: {tap: rng.uniform(1, 2, shape).astype(np.float32) for tap, shape in
                   ((1, (2, 8, 8, 3)), (9, (2, 4, 4, 5)))} for name in ("made", "target")}  # fmt: skip
    monkeypatch.setattr(vgg.Trunk, "apply", lambda self, variables, x: maps["made" if x.mean() > 0 else "target"])
    section = {"layers": ("pool2",), "factors": (0.2,), "textures": ("relu1_1",), "texture_factors": (3e-7,)}
    section |= {"patch": 4, "normalise": True, "criterion": "l2"}
    config = ConfigDict({**perceptual.DEFAULTS, **section})
    terms = perceptual.terms(config)(None, jnp.ones((2, 8, 8, 3)), jnp.zeros((2, 8, 8, 3)))

    def normal(x):
        return x / x.mean((1, 2, 3), keepdims=True)

    def products(x):
        squares = [normal(x)[:, i : i + 4, j : j + 4].reshape(2, 16, 3) for i in (0, 4) for j in (0, 4)]
        return np.stack([np.einsum("bpc,bpd->bcd", square, square) for square in squares])

    made, target = maps["made"], maps["target"]
    assert terms["perceptual"] == pytest.approx(0.2 * np.square(normal(made[9]) - normal(target[9])).mean(), rel=1e-4)
    expected = 3e-7 * np.square(products(made[1]) - products(target[1])).mean()
    assert terms["texture"] == pytest.approx(expected, rel=1e-4)


# Experiments.


def _size(run):
    shapes = jax.eval_shape(lambda: run.game.init(run.config, run.nets, run.spec, jax.random.key(0))[0])
    return {net: sum(leaf.size for leaf in jax.tree.leaves(tree)) for net, tree in shapes.items()}


@pytest.mark.parametrize(("variant", "steps", "rate", "weights"), [
    ("", 400_000, 1e-4, (1.0, 1.0, 0.0, 0.1)), ("pixel", 1_000_000, 2e-4, (1.0, 0.0, 0.0, 0.0)),
])  # fmt: skip
def test_real_esrgan_has_the_published_values(variant, steps, rate, weights):
    """Of section 4.1 of the paper: batches of 48 squares of 256 pixels, five layers of VGG19."""
    config = _config("real_esrgan", variant)
    assert (config.batch_size, config.super_resolution.crop, config.total_images) == (48, 256, 48 * steps)
    assert tuple(config.loss[name] for name in super_resolution.WEIGHTS) == weights
    assert (config.loss.name, config.ema.decay, config.generator.blocks) == ("non_saturating", 0.999, 23)
    assert (config.super_resolution.degradation, config.super_resolution.sharpen) == ("real", True)
    layers = dict(zip(config.perceptual.layers, config.perceptual.factors, strict=True))
    assert layers == {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1.0, "conv4_4": 1.0, "conv5_4": 1.0}
    assert {(adam.learning_rate, adam.b1, adam.b2) for adam in config.optim.values()} == {(rate, 0.9, 0.99)}
    sizes = _size(_build(config, (400, 400, 3)))
    assert sizes["generator"] == 16_697_987
    assert ("discriminator" in sizes) == (not variant)


def test_enhancenet_has_the_published_values():
    """Weights of PAT; the generator's and the discriminator's layers, counted by hand."""
    config = _config("enhancenet")
    assert {name: config.loss[name] for name in super_resolution.WEIGHTS} == {
        "pixel": 0.0, "perceptual": 1.0, "texture": 1.0, "adversarial": 2.0}  # fmt: skip
    section = config.perceptual
    assert dict(zip(section.layers, section.factors, strict=True)) == {"pool2": 0.2, "pool5": 0.02}
    textures = dict(zip(section.textures, section.texture_factors, strict=True))
    assert textures == {"relu1_1": 3e-7, "relu2_1": 1e-6, "relu3_1": 1e-6}
    assert (section.patch, section.normalise, section.criterion, config.batch_size) == (16, True, "l2", 32)
    assert (config.super_resolution.crop, config.optim.generator.learning_rate) == (128, 1e-4)
    conv = [(3, 64), *[(64, 64)] * (20 + 2 + 1), (64, 3)]
    pairs = [(3, 32), (32, 32)] + [pair for n in (32, 64, 128, 256) for pair in ((n, 2 * n), (2 * n, 2 * n))]
    dense = 4 * 4 * 512 * 1024 + 1024 + 1024 + 1
    expected = {"generator": sum(9 * i * o + o for i, o in conv),
                "discriminator": sum(9 * i * o + o for i, o in pairs) + dense}  # fmt: skip
    assert _size(_build(config, (256, 256, 3))) == expected
    last = max(perceptual._taps(section, "layers", "factors"))
    assert last == vgg.tap("vgg19", "pool5")


@pytest.mark.parametrize("name", ["faces_superres", "photos_superres", "celeba_superres"])
def test_stages_differ_by_the_adversary_and_its_optimizers(name):
    """The first has a generator alone, of the same networks, so that the second can begin where it ended."""
    first, second = _config(name, "pixel"), _config(name)
    assert first.loss.adversarial == 0 and second.loss.adversarial > 0
    assert first.generator == second.generator and first.data == second.data
    unlike = {key.removeprefix("config.").partition(":")[0] for key in configs.differences(first, second)}
    assert {key.partition(".")[0] for key in unlike} <= {"loss", "optim", "total_images", "ema", "every"}
    assert second.evaluation.split == "test" and "sharpness" in second.evaluation.metrics
