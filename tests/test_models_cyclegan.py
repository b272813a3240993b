"""CycleGAN's networks against recorded numbers and layouts of the published ones, and what their design promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import initial
from gan_jax.errors import UserError
from gan_jax.models import cyclegan
from gan_jax.models.cyclegan import Discriminator, Generator
from tests import golden_cyclegan, settings

KEY = jax.random.key(0)
PATCH = {"patch70": (8, 3), "patch_n2": (8, 2), "patch_n4": (4, 4), "pixel": (8, 0)}  # recorded: width, layers


def _apply(model, variables, x, train=True, keys=None):
    @jax.jit
    def play(variables, x, keys):
        return model.apply(variables, x, train=train, keys=keys, mutable=["batch_stats"])[0]

    return play(variables, x, keys)


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_recorded_generator(norm):
    arrays = golden_cyclegan.load(f"cyclegan_resnet6_{norm}")
    model = Generator(width=8, blocks=6, norm=norm)
    golden_cyclegan.compare(model, arrays, golden_cyclegan.generator_places(6), "params/", "out/y")


@pytest.mark.parametrize("net", PATCH)
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_recorded_discriminators(norm, net):
    arrays = golden_cyclegan.load(f"patchgan_{norm}")
    width, layers = PATCH[net]
    model = Discriminator(width=width, layers=layers, norm=norm)
    golden_cyclegan.compare(model, arrays, golden_cyclegan.discriminator_places(layers), f"params/{net}/", f"out/{net}")


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize(("name", "model", "places"), [
    ("generator", Generator(width=3, blocks=2), golden_cyclegan.generator_places(2)),
    ("patch", Discriminator(width=3, layers=2), golden_cyclegan.discriminator_places(2)),
    ("pixel", Discriminator(width=4, layers=0), golden_cyclegan.discriminator_places(0)),
])  # fmt: skip
def test_gradients_of_parameters_and_images(name, model, places, norm):
    """Of sum(out * weight) in training, as PyTorch has them; in front of an instance norm a bias has rounding alone."""
    arrays, net = golden_cyclegan.load("cyclegan_gradients"), f"{name}_{norm}"
    variables = golden_cyclegan.variables(arrays, f"params/{net}/", places)
    x, weight, out, of_x = (golden_cyclegan.images(arrays[key.format(net)])
                            for key in ("in/{}/x", "in/{}/weight", "out/{}", "grad_x/{}"))  # fmt: skip
    model = model.clone(norm=norm)

    recorded = golden_cyclegan.variables(arrays, f"grad/{net}/", places)["params"], of_x
    golden_cyclegan.compare_gradients(model, variables, x, weight, out, recorded)


@pytest.mark.parametrize(
    ("name", "model", "channels", "count"),
    [
        ("cyclegan_resnet_9blocks", Generator(), 3, 11_378_179),
        ("resnet_9blocks_batch_dropout", Generator(norm="batch", dropout=0.5), 3, 11_393_946),
        ("patchgan_70_instance_3in", Discriminator(), 3, 2_764_737),
        ("patchgan_70_batch_6in", Discriminator(norm="batch"), 6, 2_770_500),
    ],
)
def test_published_layouts_and_counts(name, model, channels, count):
    """PyTorch counts the running statistics, too, and for each norm its number of batches, which we do not hold."""
    arrays = golden_cyclegan.layout(name)
    is_generator = isinstance(model, Generator)
    places = (golden_cyclegan.generator_places(9, model.dropout > 0) if is_generator
              else golden_cyclegan.discriminator_places(3))  # fmt: skip
    ours = golden_cyclegan.shapes(model, 1, 32, 32, channels)
    assert jax.tree.map(jnp.shape, ours) == jax.tree.map(jnp.shape, golden_cyclegan.variables(arrays, "", places))
    batches = sum(key.endswith("num_batches_tracked") for key in arrays)
    assert sum(leaf.size for leaf in jax.tree.leaves(ours)) + batches == count


@pytest.mark.parametrize(("layers", "side"), [(0, 1), (1, 16), (2, 34), (3, 70)])
def test_a_logit_sees_its_patch(layers, side):
    """The gradient of one inner logit; all weights are positive, so that nothing cancels."""
    model = Discriminator(width=1, layers=layers, norm="batch")
    x = jnp.zeros((1, 96, 104, 1))
    variables = jax.tree.map(jnp.abs, settings.numpy_variables(model, x))
    shape = jax.eval_shape(lambda: model.apply(variables, x, train=False)).shape
    assert shape == (1, *((n // 2**layers - 2 if layers else n) for n in (96, 104)), 1)
    row, column = shape[1] // 2, shape[2] // 2
    gradient = jax.jit(jax.grad(lambda x: model.apply(variables, x, train=False)[0, row, column, 0]))(x)
    seen = np.asarray(gradient[0, ..., 0]) != 0
    assert seen.any(0).sum() == seen.any(1).sum() == side and seen.sum() == side**2


@pytest.mark.parametrize("model", [Generator(width=2, blocks=1), Discriminator(width=2, layers=1)])
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_samples_are_coupled_by_batch_norm_alone(model, norm):
    model = model.clone(norm=norm)
    x = jax.random.normal(KEY, (3, 12, 8, 2))
    variables = settings.numpy_variables(model, x)
    together, alone = _apply(model, variables, x), _apply(model, variables, x[1:2])
    if norm == "batch":
        assert np.abs(together[1] - alone[0]).max() > 1e-3 * np.abs(together).max()
    else:
        golden_cyclegan.close(together[1:2], alone)
    if isinstance(model, Discriminator):
        assert model.couples_samples == (norm == "batch")


def test_dropout_depends_on_the_keys_alone():
    model = Generator(width=2, blocks=2, dropout=0.5)
    x, keys = jax.random.normal(KEY, (3, 8, 8, 3)), jax.random.split(KEY, 3)
    variables = settings.numpy_variables(model, x)
    dropped = _apply(model, variables, x, keys=keys)
    golden_cyclegan.close(_apply(model, variables, x[1:], keys=keys[1:]), dropped[1:])
    assert np.abs(_apply(model, variables, x, keys=keys[::-1]) - dropped)[0].max() > 1e-3
    plain = _apply(model, variables, x)
    assert np.abs(plain - dropped).max() > 1e-3
    np.testing.assert_array_equal(_apply(model, variables, x, train=False, keys=keys), plain)
    np.testing.assert_array_equal(_apply(model.clone(dropout=0.0), variables, x, keys=keys), plain)


def test_each_block_drops_other_features(monkeypatch):
    model = Generator(width=1, blocks=3, dropout=0.5)
    x, keys = jnp.zeros((2, 8, 8, 1)), jax.random.split(KEY, 2)
    variables, used = settings.numpy_variables(model, x), []
    monkeypatch.setattr(cyclegan, "dropout", lambda x, keys, rate: used.append(keys) or x)

    @jax.jit
    def keys_of_blocks():
        model.apply(variables, x, train=True, keys=keys)
        return jax.random.key_data(jnp.stack(used)).reshape(-1, 2)

    assert len(np.unique(keys_of_blocks(), axis=0)) == 6


@pytest.mark.parametrize("channels", [1, 4])
def test_any_channels_and_sides(channels):
    x = jax.ShapeDtypeStruct((2, 12, 20, channels), jnp.uint8)
    images = jax.eval_shape(lambda x: Generator(channels=2).init_with_output(KEY, x, train=True)[0], x)
    assert images.shape == (2, 12, 20, 2) and images.dtype == jnp.float32
    logits = jax.eval_shape(lambda x: Discriminator(layers=2).init_with_output(KEY, x, train=True)[0], x)
    assert logits.shape == (2, 1, 3, 1) and logits.dtype == jnp.float32


@pytest.mark.parametrize("model", [Generator(width=8, blocks=1), Discriminator(width=8, layers=1)])
def test_bfloat16_computes_and_keeps_float32_parameters(model):
    x = jax.random.normal(KEY, (2, 8, 8, 3))
    low = model.clone(dtype=jnp.bfloat16)
    variables = settings.numpy_variables(low, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    exact, rounded = _apply(model, variables, x), _apply(low, variables, x)
    assert rounded.dtype == jnp.float32
    assert 0 < np.abs(exact - rounded).mean() < 0.05 * np.abs(exact).mean()


@pytest.mark.parametrize("model", [Generator(width=16, blocks=1, norm="batch"), Discriminator(norm="batch")])
def test_initial_values(model):
    """Kernels N(0, .02), scales N(1, .02), biases 0."""
    params = initial.evaluate(lambda: model.init(KEY, jnp.zeros((1, 32, 32, 3)), train=True))["params"]
    fields = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        fields.setdefault(path[-1].key, []).append(leaf.ravel())
    values = {field: np.concatenate(leaves) for field, leaves in fields.items()}
    assert abs(values["kernel"].std() - 0.02) < 5e-4 and abs(values["kernel"].mean()) < 5e-4
    assert abs(values["scale"].std() - 0.02) < 4e-3 and abs(values["scale"].mean() - 1) < 4e-3
    assert not values["bias"].any()


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (Generator, {"width": 0}, "width=0: expected 1 or more"),
        (Generator, {"channels": 0}, "channels=0: expected 1 or more"),
        (Generator, {"blocks": -1}, "blocks=-1: expected 0 or more"),
        (Generator, {"dropout": 1.0}, "dropout=1.0"),
        (Generator, {"norm": "layer"}, "norm 'layer' is unknown; expected one of instance, batch"),
        (Discriminator, {"width": 0}, "width=0: expected 1 or more"),
        (Discriminator, {"layers": -1}, "layers=-1: expected 0 or more"),
        (Discriminator, {"norm": "group"}, "norm 'group' is unknown"),
    ],
)
def test_fields_out_of_range_are_refused(model, options, message):
    with pytest.raises(UserError, match=message):
        model(**options)


@pytest.mark.parametrize(
    ("model", "smallest", "refused"),
    [
        (Generator(), (8, 8), ((30, 32), (32, 30), (4, 8), (8, 4))),
        (Generator(blocks=0), (4, 4), ((0, 4), (6, 4))),
        (Discriminator(), (24, 24), ((23, 24), (24, 23))),
        (Discriminator(layers=1), (6, 6), ((5, 6), (6, 5))),
        (Discriminator(layers=0), (1, 1), ((0, 1),)),
    ],
)
def test_sides_that_do_not_fit_are_refused(model, smallest, refused):
    golden_cyclegan.shapes(model, 1, *smallest, 3)
    for height, width in refused:
        with pytest.raises(UserError, match=f"images of {height}x{width}: "):
            golden_cyclegan.shapes(model, 1, height, width, 3)


def test_without_normalisation_a_pixel_discriminator_is_three_products():
    """1x1 convolutions are products over channels: leaky ReLU of .2 between them, and nothing else."""
    x = np.random.default_rng(0).normal(size=(2, 3, 3, 3)).astype(np.float32)
    model = Discriminator(width=4, layers=0, norm="none")
    variables = model.init(jax.random.key(0), jnp.asarray(x), train=True)
    assert variables.keys() == {"params"}
    params = jax.tree.map(lambda leaf: np.random.default_rng(leaf.size).normal(size=leaf.shape), variables["params"])
    expected = x
    for name in ("conv0", "conv1", "head"):
        expected = expected @ params[name]["kernel"][0, 0] + params[name].get("bias", 0.0)
        expected = np.where(expected > 0, expected, 0.2 * expected) if name != "head" else expected
    np.testing.assert_allclose(model.apply({"params": params}, x, train=True), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("blocks", [0, 2])
def test_without_halvings_a_pixel_reaches_as_far_as_the_kernels_do(blocks):
    """3 pixels by the first layer, 2 by each block, 3 by the last; sides need not be even."""
    net = cyclegan.Generator(width=2, halvings=0, blocks=blocks, norm="none")
    image = jax.random.normal(jax.random.key(0), (1, 21, 19, 3))
    variables = jax.tree.map(lambda w: 3 * w, net.init(jax.random.key(1), image, train=False))  # above rounding
    assert not [name for name in variables["params"] if name.startswith(("down", "up"))]
    apply = jax.jit(lambda x: net.apply(variables, x, train=False))
    moved = np.any(apply(image) != apply(image.at[0, 0, 0].add(1.0)), axis=(0, 3))
    reach = 3 + 2 * blocks + 3
    assert moved[reach].any() and moved[:, reach].any()
    assert not moved[reach + 1 :].any() and not moved[:, reach + 1 :].any()


def test_sides_follow_the_halvings():
    cases = (1, (10, 7), "multiples of 2, from 4 on"), (3, (8, 8), "multiples of 8, from 16 on")
    for halvings, sides, message in cases:
        net = cyclegan.Generator(width=2, halvings=halvings, blocks=1)
        with pytest.raises(UserError, match=message):
            net.init(jax.random.key(0), np.zeros((1, *sides, 3)), train=False)
