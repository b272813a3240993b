"""CUT's networks against recorded numbers and the layout of the published ones: outputs, maps, gradients, heads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import initial
from gan_jax.errors import UserError
from gan_jax.layers.enlarge import bilinear
from gan_jax.models import cut, cyclegan
from gan_jax.models.patchgan import blurred
from tests import golden_cut as golden
from tests import settings
from tests.golden_cyclegan import close, shapes

GENERATORS = {  # recorded: blocks, norm, whether halvings and doublings are antialiased
    "antialias": (4, 6, "instance", True, True),
    "plain": (3, 9, "instance", False, False),
    "mixed": (4, 6, "batch", True, False),
}
PLAIN = {0: "input", 4: "down0", 8: "down1_norm", 12: "block2", 16: "block6"}  # maps without antialiasing


def near(ours, theirs, largest):
    """Gradients; those that are zero but for rounding are held to the largest of all."""
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 3e-4 * np.abs(theirs).max() + 1e-6 * largest


@pytest.mark.parametrize("name", GENERATORS)
def test_recorded_generators(name):
    """Images, their L1 distance to a target, its gradients, and the maps of the encoder, all in training."""
    width, blocks, norm, down, up = GENERATORS[name]
    arrays, places = golden.load(f"cut_generator_{name}"), golden.generator_places(blocks, down=down, up=up)
    model = cut.Generator(width=width, blocks=blocks, norm=norm, antialias_down=down, antialias_up=up)
    collections, recorded = (golden.variables(arrays, prefix, places, up=up) for prefix in ("params/", "grad/"))
    x, target = (golden.images(arrays[f"in/{key}"]) for key in ("x", "target"))
    maps = {n: layer for n, layer in (golden.LAYERS if down else PLAIN).items() if f"out/feat{n}" in arrays}

    @jax.jit
    def play(collections, x, target):
        def loss(params):
            y, _ = model.apply({**collections, "params": params}, x, train=True, mutable=["batch_stats"])
            return jnp.abs(y - target).mean(), y

        features = {}
        if maps:
            features = model.apply(collections, x, train=True, layers=tuple(maps.values()), mutable=["batch_stats"])[0]
        return jax.value_and_grad(loss, has_aux=True)(collections["params"]), features

    ((l1, y), gradients), features = play(collections, x, target)
    close(y, golden.images(arrays["out/y"]), 1e-4)
    assert float(l1) == pytest.approx(float(arrays["out/l1"]), rel=1e-5)
    for n, layer in maps.items():
        close(features[layer], golden.images(arrays[f"out/feat{n}"]), 1e-4)
    largest = max(np.abs(value).max() for value in jax.tree.leaves(recorded))
    jax.tree.map(lambda a, b: near(a, b, largest), gradients, recorded["params"])


def test_recorded_filters():
    """Of maps of 5x6, so of odd sides, too."""
    arrays = golden.load("cut_generator_antialias")
    for name, function in (("7_Downsample", blurred), ("18_Upsample", lambda x: bilinear(x, 2))):
        x, out = (golden.images(arrays[f"{side}/resample{name}"]) for side in ("in", "out"))
        close(jax.jit(function)(x), out, 1e-6)


def test_recorded_discriminator():
    arrays = golden.load("cut_discriminator_antialias")
    model, x = cut.Discriminator(width=4), golden.images(arrays["in/x"])
    params = golden.variables(arrays, "params/", golden.DISCRIMINATOR)["params"]

    @jax.jit
    def play(params, x):
        def loss(params, target):
            logits = model.apply({"params": params}, x, train=True)
            return jnp.square(logits - target).mean(), logits

        return [jax.value_and_grad(loss, has_aux=True)(params, target) for target in (1.0, 0.0)]

    for kind, ((loss, logits), gradients) in zip(("real", "fake"), play(params, x), strict=True):
        close(logits, golden.images(arrays["out/y"]), 1e-5)
        assert float(loss) == pytest.approx(float(arrays[f"out/lsgan_{kind}"]), rel=1e-5)
        recorded = golden.variables(arrays, f"grad/lsgan_{kind}/", golden.DISCRIMINATOR)["params"]
        largest = max(np.abs(value).max() for value in jax.tree.leaves(recorded))
        jax.tree.map(lambda a, b, largest=largest: near(a, b, largest), gradients, recorded)


def test_published_layout_and_count():
    """The authors' file counts its constant filters, too."""
    arrays = golden.layout("cut_resnet_9blocks")
    ours = shapes(cut.Generator(), 1, 32, 32, 3)
    published = golden.variables(arrays, "", golden.generator_places(9))
    assert jax.tree.map(jnp.shape, ours) == jax.tree.map(jnp.shape, published)
    assert sum(leaf.size for leaf in jax.tree.leaves(ours)) == 11_378_179
    filters = sum(value.size for key, value in arrays.items() if key.endswith(".filt"))
    assert 11_378_179 + filters == 11_387_779


@pytest.mark.parametrize("side", [16, 17, 24])
def test_the_discriminator_halves_any_side(side):
    """Of 24 a patch of three layers is left, as without antialiasing."""
    model = cut.Discriminator(width=2, layers=2)
    logits = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), jnp.zeros((1, side, 24, 3)), train=True))
    assert logits[0].shape == (1, -(-(-(-(side - 1) // 2) - 1) // 2) - 2, 4, 1)


def test_maps_end_where_the_last_one_does():
    """Of a generator without blocks, without halvings, and the same whatever else is asked for."""
    model, x = cyclegan.Generator(width=2, blocks=2, halvings=0), jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    assert model.encoder == ("input", "stem", "stem_norm", "block0", "block1")
    variables = settings.numpy_variables(model, x)
    every = jax.jit(lambda x: model.apply(variables, x, train=True, layers=model.encoder))(x)
    assert set(every) == set(model.encoder)
    np.testing.assert_array_equal(every["stem_norm"] > 0, every["stem_norm"] != 0)
    first = {"params": {"stem": variables["params"]["stem"]}}  # deeper ones are not looked at
    alone = jax.jit(lambda x: model.apply(first, x, train=True, layers=("stem",)))(x)
    close(alone["stem"], every["stem"])
    assert cut.Generator(blocks=0).encoder[-1] == "down1_norm"


def test_heads_give_vectors_of_length_one_and_gradients_at_zero():
    model, features = cut.Heads(width=4), {"input": jnp.zeros((2, 5, 3)), "block0": jnp.ones((2, 3, 6))}
    params = settings.numpy_variables(Named(model), features)
    out, gradients = jax.jit(jax.value_and_grad(lambda p: model.apply(p, features)["block0"].sum()))(params)
    assert np.isfinite(out) and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    given = jax.jit(model.apply)(params, features)
    np.testing.assert_allclose(jnp.square(given["block0"]).sum(-1), 1, rtol=1e-5)
    assert given["input"].shape == (2, 5, 4) and not np.asarray(given["input"]).any()  # biases are 0 here


class Named:
    """A network without the keyword `train`."""

    def __init__(self, model):
        self.model = model

    def init(self, key, *args, train):
        return self.model.init(key, *args)


@pytest.mark.parametrize("model", [cut.Generator(width=16, blocks=1), cut.Discriminator(width=32)])
def test_initial_values(model):
    """Kernels N(0, .02^2 * 2 / (fan in + fan out)), biases 0."""
    params = initial.evaluate(lambda: model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=True))["params"]
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if path[-1].key == "bias":
            assert not leaf.any()
        elif leaf.size > 10_000:
            fans = np.prod(leaf.shape[:2]) * (leaf.shape[2] + leaf.shape[3])
            assert leaf.std() == pytest.approx(0.02 * np.sqrt(2 / fans), rel=0.05)


@pytest.mark.parametrize(("model", "options", "message"), [
    (cut.Generator, {"kernels": "he"}, "kernels 'he' is unknown; expected one of normal, xavier"),
    (cut.Discriminator, {"kernels": "he"}, "kernels 'he' is unknown"),
    (cut.Heads, {"width": 0}, "width=0: expected 1 or more"),
])  # fmt: skip
def test_fields_out_of_range_are_refused(model, options, message):
    with pytest.raises(UserError, match=message):
        model(**options)
