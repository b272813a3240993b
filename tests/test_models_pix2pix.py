"""pix2pix's U-Net against recorded numbers and the published layout, and what its design promises."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.errors import UserError
from gan_jax.models import cyclegan, pix2pix
from gan_jax.models.pix2pix import Discriminator, Generator
from tests import golden_cyclegan as golden
from tests import settings

KEY = jax.random.key(0)


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize(("name", "model"), [
    ("unet5downs", Generator(width=8, depth=5, statistics="running")),  # of 64 pixels: 2x2 in the middle
    ("unet128", Generator(width=4, channels=2, statistics="running")),  # down to one pixel
])  # fmt: skip
def test_recorded_generators(name, model, norm):
    places = golden.unet_places(model.depth or 7)
    golden.compare(model.clone(norm=norm), golden.load(f"pix2pix_{name}_{norm}"), places, "params/", "out/y")


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_gradients_of_parameters_and_images(norm):
    arrays, net, places = golden.load("pix2pix_gradients"), f"unet_{norm}", golden.unet_places(3)
    variables = golden.variables(arrays, f"params/{net}/", places)
    x, weight, out, of_x = (golden.images(arrays[key.format(net)])
                            for key in ("in/{}/x", "in/{}/weight", "out/{}", "grad_x/{}"))  # fmt: skip
    recorded = golden.variables(arrays, f"grad/{net}/", places)["params"], of_x
    golden.compare_gradients(Generator(width=3, channels=2, norm=norm), variables, x, weight, out, recorded)


def test_published_layouts_and_counts():
    """PyTorch counts the running statistics, too, and for each norm its number of batches, which we do not hold."""
    for name, model, side, channels, places, count in (
        ("pix2pix_unet_256", Generator(), 256, 3, golden.unet_places(8), 54_423_824),
        ("patchgan_70_batch_6in", Discriminator(), 32, 6, golden.discriminator_places(3), 2_770_500),
    ):
        arrays, ours = golden.layout(name), golden.shapes(model, 1, side, side, channels)
        assert jax.tree.map(jnp.shape, ours) == jax.tree.map(jnp.shape, golden.variables(arrays, "", places))
        batches = sum(key.endswith("num_batches_tracked") for key in arrays)
        assert sum(leaf.size for leaf in jax.tree.leaves(ours)) + batches == count


@pytest.fixture(scope="module")
def small():
    """A network, its variables with uneven running statistics, pictures and keys."""
    model, x = Generator(width=2, channels=2), jax.random.normal(KEY, (3, 8, 8, 3))
    variables = settings.numpy_variables(model, x)
    variables["batch_stats"] = jax.tree.map(lambda leaf: leaf + 0.5, variables["batch_stats"])
    return model, variables, x, jax.random.split(KEY, 3)


def test_a_picture_is_drawn_with_its_own_statistics(small):
    """As a batch of one is in training, whatever stands beside it; and with the running ones where asked for."""
    model, variables, x, _ = small
    draw = jax.jit(functools.partial(model.apply, variables, train=False))
    train = jax.jit(lambda x: model.apply(variables, x, train=True, mutable=["batch_stats"])[0])
    together = draw(x)
    for i in range(3):
        golden.close(train(x[i : i + 1]), together[i : i + 1])
    assert np.abs(train(x) - together).max() > 1e-3
    running = model.clone(statistics="running").apply(variables, x, train=False)
    assert np.abs(running - together).max() > 1e-3


def test_dropout_depends_on_the_keys_alone_and_stays_when_a_picture_is_drawn(small):
    model, variables, x, keys = small
    draw = jax.jit(functools.partial(model.apply, variables, train=False))
    dropped, plain = draw(x, keys=keys), draw(x)
    golden.close(draw(x[1:], keys=keys[1:]), dropped[1:])
    assert np.abs(dropped - plain).max() > 1e-3
    assert np.abs(draw(x, keys=keys[::-1]) - dropped)[0].max() > 1e-3
    for other in ({"dropout": 0.0}, {"dropout_layers": 0}):
        np.testing.assert_array_equal(model.clone(**other).apply(variables, x, train=False, keys=keys),
                                      model.apply(variables, x, train=False))  # fmt: skip


@pytest.mark.parametrize(
    ("layers", "start", "expected"),
    [(3, 0, [(2, 2, 16), (4, 4, 8), (8, 8, 4)]), (1, 0, [(2, 2, 16)]), (2, 1, [(4, 4, 8), (8, 8, 4)])],
)
def test_dropout_is_in_the_first_layers_of_the_way_back(monkeypatch, layers, start, expected):
    """Of 32 pixels and width 2: features 16, 8, 4 and 2 from the middle on; each layer has keys of its own."""
    dropped, used = [], []

    def record(x, keys, rate):
        dropped.append(x.shape[1:])
        used.append(keys)
        return x

    monkeypatch.setattr(pix2pix, "dropout", record)
    model = Generator(width=2, dropout_layers=layers, dropout_start=start)

    def keys_of_layers():
        model.init_with_output(KEY, jnp.zeros((2, 32, 32, 1)), train=True, keys=jax.random.split(KEY, 2))
        return jax.random.key_data(jnp.stack(used)).reshape(-1, 2)

    drawn = jax.jit(keys_of_layers)()
    assert dropped == expected and len(np.unique(drawn, axis=0)) == 2 * layers


def test_sides_and_channels():
    for sides, depth in (((12, 20), 0), ((16, 8), 2), ((6, 2), 1)):
        x = jax.ShapeDtypeStruct((2, *sides, 1), jnp.float32)
        image = jax.eval_shape(lambda x, depth=depth: Generator(depth=depth).init_with_output(KEY, x, train=True)[0], x)
        assert image.shape == (2, *sides, 3) and image.dtype == jnp.float32
    for sides, depth, unit in (((12, 20), 3, 8), ((7, 8), 0, 2), ((1, 1), 0, 2)):
        with pytest.raises(UserError, match=f"images of {sides[0]}x{sides[1]}: .* multiples of {unit}"):
            golden.shapes(Generator(depth=depth), 1, *sides, 3)


@pytest.mark.parametrize(("options", "message"), [
    ({"depth": -1}, "depth=-1: expected 0 or more"), ({"dropout": 1.0}, "dropout=1.0"),
    ({"norm": "layer"}, "norm 'layer' is unknown"), ({"statistics": "batch"}, "statistics 'batch' is unknown"),
])  # fmt: skip
def test_fields_out_of_range_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        Generator(**options)


def test_the_discriminator_is_cyclegans_with_batch_normalisation():
    ours, theirs = Discriminator(width=2, layers=1), cyclegan.Discriminator(width=2, layers=1, norm="batch")
    assert golden.shapes(ours, 1, 8, 8, 6) == golden.shapes(theirs, 1, 8, 8, 6)


def test_bfloat16_computes_and_keeps_float32_parameters():
    x = jax.random.normal(KEY, (2, 8, 8, 3))
    model, low = (Generator(width=8, dtype=dtype) for dtype in (jnp.float32, jnp.bfloat16))
    variables = settings.numpy_variables(low, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    exact, rounded = (jax.jit(functools.partial(net.apply, train=False))(variables, x) for net in (model, low))
    assert rounded.dtype == jnp.float32
    assert 0 < np.abs(exact - rounded).mean() < 0.05 * np.abs(exact).mean()
