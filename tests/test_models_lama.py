"""LaMa's networks against recorded numbers and layouts of published files, and what their design promises."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.errors import UserError
from gan_jax.models import lama
from tests import golden_lama as golden
from tests import settings

GENERATOR = lama.Generator(width=8, halvings=2, blocks=2)
DISCRIMINATOR = lama.Discriminator(width=6, layers=3)
OF_GENERATOR, OF_DISCRIMINATOR = golden.generator(2, 2), golden.discriminator(3)


def _agree(ours, recorded, tolerance, skip=()):
    """Trees of equal structure; each leaf relative to the recorded one's largest."""
    assert jax.tree.structure(ours) == jax.tree.structure(recorded)
    for (path, mine), value in zip(jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(recorded), strict=True):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name not in skip:
            assert mine.shape == value.shape, name
            assert np.abs(mine - value).max() <= tolerance * np.abs(value).max(), name


@pytest.mark.parametrize(("name", "unit"), [
    ("fourier_unit_even", lama.FourierUnit(4)), ("fourier_unit_odd", lama.FourierUnit(3)),
    ("spectral_s1", lama.SpectralTransform(8)), ("spectral_s2_lfu", lama.SpectralTransform(8, 2, local_unit=True)),
])  # fmt: skip
def test_recorded_units(name, unit):
    """Where training is recorded, the stored statistics are those behind it, and evaluation came in front."""
    arrays = golden.load("lama_ffc_units")
    variables, x = golden.variables(arrays, f"params/{name}/", golden.units()), golden.images(arrays[f"in/{name}"])
    if f"out/{name}_train" in arrays:
        trained, moved = unit.apply(variables, x, train=True, mutable=["batch_stats"])
        golden.close(trained, golden.images(arrays[f"out/{name}_train"]))

        def before(stored, moved):  # stored = .9 before + .1 batch, moved = .9 stored + .1 batch
            return stored - (moved - stored) / 0.9

        variables |= {"batch_stats": jax.tree.map(before, variables["batch_stats"], moved["batch_stats"])}
    golden.close(jax.jit(partial(unit.apply, train=False))(variables, x), golden.images(arrays[f"out/{name}_eval"]))


@pytest.fixture(scope="module")
def recorded():
    """(arrays, variables by net, x of the generator, picture, mask)."""
    arrays = golden.load("lama_generator_discriminator")
    nets = {
        "generator": golden.variables(arrays, "params/G/", OF_GENERATOR),
        "discriminator": golden.variables(arrays, "params/D/", OF_DISCRIMINATOR),
    }
    image, mask = golden.images(arrays["in/image"]), golden.images(arrays["in/mask"])
    return arrays, nets, np.concatenate([image * (1 - mask), mask], -1), image, mask


def test_recorded_networks_in_evaluation(recorded):
    arrays, nets, x, image, mask = recorded
    for model, net, shown in ((GENERATOR, "generator", x), (DISCRIMINATOR, "discriminator", image)):
        assert jax.tree.map(jnp.shape, golden.shapes(model, *shown.shape)) == jax.tree.map(jnp.shape, nets[net])
    fake = jax.jit(partial(GENERATOR.apply, train=False))(nets["generator"], x)
    golden.close(fake, golden.images(arrays["out/G_eval"]), 1e-4)
    logits, maps = DISCRIMINATOR.apply(nets["discriminator"], image, train=False, method="maps")
    golden.close(logits, golden.images(arrays["out/D_pred_eval"]), 1e-4)
    assert len(maps) == 4
    for i, one in enumerate(maps):
        golden.close(one, golden.images(arrays[f"out/D_feat{i}_eval"]), 1e-4)
    np.testing.assert_array_equal(DISCRIMINATOR.apply(nets["discriminator"], image, train=False), logits)


def _training(net, variables, x, method="__call__"):
    return net.apply(variables, x, train=True, mutable=["batch_stats"], method=method)[0]


def test_recorded_gradients_of_the_generator(recorded):
    """Of ten times L1 on what is known, ten times the adversarial term, a hundred times that of the maps."""
    arrays, nets, x, image, mask = recorded
    of_discriminator = nets["discriminator"]

    @jax.jit
    @partial(jax.value_and_grad, has_aux=True)
    def play(params):
        fake = _training(GENERATOR, {**nets["generator"], "params": params}, x)
        _, of_real = _training(DISCRIMINATOR, of_discriminator, image, "maps")
        logits, of_fake = _training(DISCRIMINATOR, of_discriminator, fake, "maps")
        l1 = 10 * (jnp.abs(fake - image) * (1 - mask)).mean()
        adversarial = 10 * jax.nn.softplus(-logits).mean()
        matching = 100 * sum(jnp.square(a - b).mean() for a, b in zip(of_fake, of_real, strict=True)) / len(of_fake)
        return l1 + adversarial + matching, (fake, l1, adversarial, matching)

    (total, (fake, *terms)), gradients = play(nets["generator"]["params"])
    golden.close(fake, golden.images(arrays["out/G_train"]), 1e-4)
    for value, name in zip((*terms, total), ("l1", "adv", "fm", "total"), strict=True):
        assert value == pytest.approx(float(arrays[f"out/gen_{name}"]), rel=1e-4), name
    # Biases in front of a norm have no effect.
    expected = golden.variables(arrays, "grad/G/", OF_GENERATOR)["params"]
    _agree(gradients, expected, 1e-3, skip=("up0/bias", "up1/bias"))


def test_recorded_gradients_of_the_discriminator(recorded):
    """Fakes are judged as fake in the hole alone; the penalty looks at the pictures."""
    arrays, nets, _, image, mask = recorded
    fake = golden.images(arrays["out/G_train"])

    @jax.jit
    @partial(jax.value_and_grad, has_aux=True)
    def play(params):
        variables = {**nets["discriminator"], "params": params}

        def total(image):
            logits = _training(DISCRIMINATOR, variables, image)
            return logits.sum(), logits

        slope, real = jax.grad(total, has_aux=True)(image)
        penalty = 0.001 * jnp.square(slope).sum((1, 2, 3)).mean()
        logits = _training(DISCRIMINATOR, variables, fake)
        height, width = logits.shape[1:3]
        rows, columns = np.arange(height) * mask.shape[1] // height, np.arange(width) * mask.shape[2] // width
        hole = mask[:, rows][:, :, columns]
        of_fake = hole * jax.nn.softplus(logits) + (1 - hole) * jax.nn.softplus(-logits)
        return jax.nn.softplus(-real).mean() + penalty + of_fake.mean(), penalty

    (loss, penalty), gradients = play(nets["discriminator"]["params"])
    assert loss == pytest.approx(float(arrays["out/D_loss"]), rel=1e-4)
    assert penalty == pytest.approx(float(arrays["out/D_gp_times_coef"]), rel=1e-3)
    expected = golden.variables(arrays, "grad/D/", OF_DISCRIMINATOR)["params"]
    _agree(gradients, expected, 1e-3, skip=[f"conv{i}/bias" for i in (1, 2, 3)])


@pytest.mark.parametrize(("name", "model", "names", "channels"), [
    ("lama-fourier_generator", lama.Generator(), golden.generator(3, 9), 4),
    ("big-lama_generator", lama.Generator(blocks=18), golden.generator(3, 18), 4),
    ("big-lama_discriminator", lama.Discriminator(), golden.discriminator(4), 3),
])  # fmt: skip
def test_published_layouts_and_counts(name, model, names, channels):
    arrays = golden.layout(name)
    ours = golden.shapes(model, 1, 64, 64, channels)
    assert jax.tree.map(jnp.shape, ours) == jax.tree.map(jnp.shape, golden.variables(arrays, "", names))
    counts = sum(key.endswith("num_batches_tracked") for key in arrays)  # which torch counts among its buffers
    record = json.loads((settings.ROOT / f"tests/golden/layout_{name}.json").read_text(encoding="utf-8"))
    assert sum(leaf.size for leaf in jax.tree.leaves(ours)) + counts == record["n_params"]


def test_a_layer_sees_the_whole_picture():
    """One pixel moves every other one through the global channels, and only its neighbourhood without them."""
    for share, everywhere in ((0.75, True), (0.0, False)):
        model = lama.Generator(width=4, halvings=1, blocks=1, share=share, channels=1)
        x = jnp.zeros((1, 64, 64, 2)).at[..., 0].set(0.5)
        variables = jax.jit(partial(model.init, train=True))(jax.random.key(0), x)
        play = jax.jit(partial(model.apply, train=False))
        moved = play(variables, x.at[0, 0, 0, 0].set(1.0)) != play(variables, x)
        assert bool(moved[0, 40:, 40:].any()) == everywhere


@pytest.mark.parametrize("model", [lama.Generator(blocks=1, local_unit=True), lama.Discriminator()])
def test_bfloat16_and_any_sides(model):
    """Parameters stay float32, and so does what comes out."""
    net = model.clone(dtype=jnp.bfloat16)
    x = jax.ShapeDtypeStruct((2, 32, 64, 4), jnp.float32)
    y, variables = jax.eval_shape(lambda x: net.init_with_output(jax.random.key(0), x, train=True), x)
    assert y.dtype == jnp.float32 and {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    if isinstance(model, lama.Generator):
        assert y.shape == (2, 32, 64, 3)


def test_outputs_lie_between_0_and_1():
    x = jnp.linspace(-9, 9, 7)
    np.testing.assert_allclose(lama.OUTPUTS["sigmoid"](x), 1 / (1 + np.exp(-x)), rtol=1e-5)
    np.testing.assert_allclose(lama.OUTPUTS["tanh"](x), (np.tanh(x) + 1) / 2, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("model", "options", "message"), [
    (lama.Generator, {"blocks": 0}, "blocks=0: expected 1 or more"),
    (lama.Generator, {"share": 1.0}, "share=1.0: expected 0 or more and below 1"),
    (lama.Generator, {"output": "relu"}, "output 'relu' is unknown; expected one of sigmoid, tanh, none"),
    (lama.Discriminator, {"layers": 0}, "layers=0: expected 1 or more"),
])  # fmt: skip
def test_fields_out_of_range_are_refused(model, options, message):
    with pytest.raises(UserError, match=message):
        model(**options)


def test_sides_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="pictures of 20x16: expected sides that are multiples of 8, from 16 on"):
        golden.shapes(lama.Generator(), 1, 20, 16, 4)
