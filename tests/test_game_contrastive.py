"""Translation by contrast of patches: recorded steps of CUT and FastCUT, devices, what is seen, what is drawn."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.tree
import pytest

from gan_jax import runs, specs
from gan_jax.errors import UserError
from gan_jax.games import contrastive
from gan_jax.layers import pixels
from gan_jax.models import cut
from tests import golden_cut as golden
from tests import settings

PLACES = {"generator": ("G", golden.generator_places(6)), "discriminator": ("D", golden.DISCRIMINATOR)}
SGD = {f"optim__{player}__{key}": value for player in ("generator", "discriminator")
       for key, value in (("name", "sgd"), ("learning_rate", 0.02))}  # fmt: skip


def _config(**overrides):
    """The digits' translation, shrunk; keys with `__` for dots."""
    overrides = {"loss__nce_a": 3.0, "loss__nce_b": 3.0} | overrides
    pairs = [(key.replace("__", "."), str(value)) for key, value in overrides.items()]
    return runs.load_config(f"{settings.EXPERIMENTS / 'digits_cut.py'}:smoke", pairs)


def _build(config, a=(8, 8, 3), b=None):
    """Its run, for pictures of these shapes."""
    return runs.build(config, {"a": specs.Field("image", a), "b": specs.Field("image", a if b is None else b)})


# The contrast of patches.


@pytest.mark.parametrize("kind", ["mlp_sample", "sample"])
def test_contrast_follows_the_recorded_one(kind):
    """With heads, and of the features as they are: vectors, losses of each patch, and gradients."""
    arrays, layers = golden.load("cut_patchnce"), ("0", "1", "2")
    maps = [{n: golden.images(arrays[f"in/{side}{n}"]) for n in layers} for side in "qk"]
    places = {n: arrays[f"in/patch_ids{n}"] for n in layers}
    params = golden.heads(arrays, "params/F/", layers)

    def embedded(params, features):
        sampled = contrastive.patches(features, places)
        if kind == "sample":
            return {n: cut.unit(x) for n, x in sampled.items()}
        return cut.Heads(width=8).apply({"params": params}, sampled)

    @functools.partial(jax.value_and_grad, argnums=(0, 1, 2), has_aux=True)
    def loss(params, *maps):
        vectors = [embedded(params, features) for features in maps]
        each = {n: contrastive.patch_nce(vectors[0][n], vectors[1][n], 0.07) for n in layers}
        return sum(one.mean() for one in each.values()) / len(layers), (vectors, each)

    (total, (vectors, each)), (of_heads, of_queries, of_keys) = jax.jit(loss)(params, *maps)
    assert float(total) == pytest.approx(float(arrays[f"out/{kind}/nce_total"]), rel=1e-5)
    for n in layers:
        for side, vector in zip("qk", vectors, strict=True):
            np.testing.assert_allclose(vector[n].reshape(24, -1), arrays[f"out/{kind}/sampled_{side}{n}"], atol=1e-5)
        np.testing.assert_allclose(each[n].reshape(-1), arrays[f"out/{kind}/nce{n}"], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(of_queries[n], golden.images(arrays[f"grad/{kind}/q{n}"]), rtol=1e-3, atol=1e-6)
        assert not np.asarray(of_keys[n]).any()
    if kind == "mlp_sample":
        recorded = golden.heads(arrays, "grad/F/", layers)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5), of_heads, recorded)


# Steps of the published program.


def _recorded_run(**overrides):
    """CUT of six blocks and narrow layers, as it was recorded."""
    return _build(_config(
        batch_size=1, generator__blocks=6, generator__halvings=2, discriminator__layers=3, contrastive__patches=16,
        contrastive__layers=tuple(golden.LAYERS.values()), optim__generator__learning_rate=2e-4,
        optim__discriminator__learning_rate=2e-4, **overrides,
    ), (32, 32, 3))  # fmt: skip


def _trees(arrays, when):
    """net -> its parameters, or gradients, of the three."""
    trees = {net: golden.variables(arrays, f"{when}/{name}/", places)["params"]
             for net, (name, places) in PLACES.items()}  # fmt: skip
    return trees | {"heads": golden.heads(arrays, f"{when}/F/", tuple(golden.LAYERS.values()))}


def _batch(arrays, number, domains="AB"):
    """The pictures, and the places of the patches of a step."""
    batch = {name.lower(): golden.images(arrays[f"in/real_{name}"]) for name in "AB"}
    for name in domains:
        places = [arrays[f"in/step{number}/patch_ids_{name}/layer{layer}"] for layer in golden.LAYERS]
        batch[f"places_{name.lower()}"] = np.stack(places)[None]
    return batch


def _check_gradients(state, expected):
    """Those of the first step, net -> tree, read from Adam's first moment, a half of them."""
    moments = {}
    for player in ("generator", "discriminator"):
        moments |= optax.tree.get(state.opt[player], "mu")
    for net, tree in expected.items():
        errors = jax.tree.map(lambda x, y: 2 * x - y, moments[net], tree)
        assert optax.global_norm(errors) < 1e-4 * optax.global_norm(tree), net


def test_recorded_step():
    """Losses; gradients and next parameters of discriminator and heads. The generator's are held to another recording
    below, see `golden_cut`; a bias in front of an instance normalisation has no gradient."""
    arrays, run = golden.load("cut_train_step"), _recorded_run(loss__nce_a=0.5, loss__nce_b=0.5)
    state = runs.fresh_state(run)._replace(params=_trees(arrays, "params"))
    state, (metrics,) = settings.play(run, count=1, batches=[_batch(arrays, 1)], state=state)
    names = {"G_GAN": "generator/adversarial", "NCE": "generator/nce_a", "NCE_Y": "generator/nce_b",
             "G": "generator/loss", "D": "discriminator/loss"}  # fmt: skip
    for theirs, ours in names.items():
        assert metrics[ours] == pytest.approx(arrays[f"out/step1/loss_{theirs}"], rel=1e-4), ours
    gradients, after = ({net: tree for net, tree in _trees(arrays, when).items() if net != "generator"}
                        for when in ("grad", "after1"))  # fmt: skip
    _check_gradients(state, gradients)
    for net, tree in after.items():
        largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradients[net]))
        for ours, theirs, gradient in zip(
            jax.tree.leaves(state.params[net]), jax.tree.leaves(tree), jax.tree.leaves(gradients[net]), strict=True
        ):
            assert np.abs(gradient).max() < 1e-5 * largest or np.abs(ours - theirs).max() < 2e-5, net


@functools.cache
def _fastcut():
    """The recorded run, and a dict for its program."""
    return _recorded_run(loss__nce_a=10.0, loss__nce_b=0.0, contrastive__mirror=True), {}


@pytest.mark.parametrize("draw", [0.25, 0.75], ids=["flipped", "unflipped"])
def test_recorded_step_of_fastcut(draw):
    """A mirrored picture, whose features are mirrored back; the recorded loss is weighted. All gradients."""
    case = "flipped" if draw < 0.5 else "unflipped"
    arrays = golden.load(f"fastcut_losses_{case}")
    run, programs = _fastcut()
    state = runs.fresh_state(run)._replace(params=_trees(arrays, "params"))
    batch = _batch(arrays, 1, "A") | {"mirror": np.float32([draw])}
    state, (metrics,) = settings.play(run, count=1, batches=[batch], state=state, programs=programs)
    expected = {name: arrays[f"out/step1/loss_{name}"] for name in ("G_GAN", "NCE", "G", "D")}
    assert metrics["generator/adversarial"] == pytest.approx(expected["G_GAN"], rel=1e-4)
    assert 10 * metrics["generator/nce_a"] == pytest.approx(expected["NCE"], rel=1e-4)
    assert metrics["generator/loss"] == pytest.approx(expected["G"], rel=1e-4)
    assert metrics["discriminator/loss"] == pytest.approx(expected["D"], rel=1e-4)
    generator = golden.variables(golden.load("fastcut_gradients"), f"{case}/grad/G/", PLACES["generator"][1])
    _check_gradients(state, _trees(arrays, "grad") | {"generator": generator["params"]})


# Devices, and what is seen.


def test_one_and_eight_devices_agree():
    """Mirrored pictures, dropout, moved pictures; batch normalisation, whose statistics are of the whole batch.

    The generator's first gradient has a length of a million here, as the vectors that heads make are nearly 0.
    """
    run = _build(_config(
        batch_size=16, generator__norm="batch", generator__kernels="normal", generator__dropout=0.2,
        discriminator__norm="none",
        data__parts__a__flip=True, contrastive__mirror=True, contrastive__jitter=2,
        **{**SGD, "optim__generator__learning_rate": 1e-7},
    ))  # fmt: skip
    (one, metrics), (eight, measured) = (settings.play(run, count=2, devices=devices) for devices in (1, 8))
    for part in ("params", "variables", "ema"):
        assert settings.largest_difference(getattr(one, part), getattr(eight, part), floor=0.01) < 1e-4, part
    for ours, theirs in zip(metrics, measured, strict=True):
        np.testing.assert_allclose(list(ours.values()), list(theirs.values()), rtol=1e-4, atol=1e-6)


def test_places_are_different_ones_and_new_in_each_step_and_domain():
    rules = contrastive.Rules({}, lambda batch, rng: {}, ("one", "two"), 6, 0.07, False)
    drawn = {}
    for step in range(2):
        rng = contrastive.Rng(jax.random.key(step), jax.random.split(jax.random.key(step), 2))
        passed = contrastive._Pass({}, runs.steps.State(0, 0, {}, {}, {}, {}, None), {}, rng, rules)
        for domain in "ab":
            for layer, places in passed._places(domain, {"one": 40, "two": 4}).items():
                drawn[step, domain, layer] = np.asarray(places)
    for (_, _, layer), places in drawn.items():
        size = 40 if layer == "one" else 4
        assert len(set(places.tolist())) == len(places) == min(6, size) and places.min() >= 0 and places.max() < size
    assert len({places.tobytes() for (_, _, layer), places in drawn.items() if layer == "one"}) == 4


def test_the_generator_is_judged_by_the_new_discriminator():
    """Of the step itself: the logit of the fake that the discriminator has seen, by its parameters after its move."""
    run = _build(_config(batch_size=4, **{
        **SGD, "optim__discriminator__learning_rate": 1.0, "optim__generator__learning_rate": 0.0,
    }))  # fmt: skip
    before, batch = runs.fresh_state(run), settings.random_batch(run, 0)
    after, (metrics,) = settings.play(run, count=1, batches=[batch], state=before)
    draw = jax.jit(functools.partial(run.game.sample, run.nets))
    fakes = draw({"generator": {"params": before.params["generator"]}}, None, batch)["b"]
    judge = jax.jit(functools.partial(run.nets["discriminator"].apply, train=True))
    for when, state in (("before", before), ("after", after)):
        logits = judge({"params": state.params["discriminator"]}, fakes)
        if when == "before":
            assert metrics["discriminator/fake_logit"] == pytest.approx(float(logits.mean()), rel=1e-3, abs=1e-6)
        else:
            expected = float(jnp.square(logits - 1).mean())
            assert metrics["generator/adversarial"] == pytest.approx(expected, rel=1e-3)
            assert abs(expected - (metrics["discriminator/fake_logit"] - 1) ** 2) > 1e-3


def test_statistics_are_those_of_the_translation():
    """Neither of the pictures of b nor of what the heads look at."""
    run = _build(_config(batch_size=4, generator__norm="batch", **SGD))
    before, batch = runs.fresh_state(run), settings.random_batch(run, 0)
    batch["b"] = np.zeros_like(batch["b"])
    after, _ = settings.play(run, count=1, batches=[batch], state=before)
    variables = {"params": before.params["generator"], **before.variables["generator"]}
    alone, images = run.nets["generator"].clone(axis_name=None), pixels.normalise(jnp.asarray(batch["a"]))
    _, expected = jax.jit(functools.partial(alone.apply, train=True, mutable=["batch_stats"]))(variables, images)
    assert settings.largest_difference(dict(expected), after.variables["generator"]) < 1e-5


# Samples.


def test_samples_are_given_pictures_translated():
    """Each is a function of its own picture alone, under instance normalisation."""
    run = _build(_config())
    assert runs.sources(run) == ("a",) == run.game.asks(run.config) and run.game.drawn(run.config) == "b"
    state, images = runs.fresh_state(run), settings.random_batch(run, 0)["a"][:3]
    draw = jax.jit(functools.partial(run.game.sample, run.nets))
    drawn = draw(state.ema, jax.random.split(jax.random.key(0), 3), {"a": images})
    assert list(drawn) == ["b"] and drawn["b"].shape == images.shape
    others = draw(state.ema, None, {"a": np.concatenate([images[:1], 255 - images[1:]])})
    np.testing.assert_allclose(others["b"][0], drawn["b"][0], atol=1e-6)
    assert np.abs(others["b"][1:] - drawn["b"][1:]).max() > 1e-4


# Errors.


@pytest.mark.parametrize(
    ("overrides", "a", "b", "message"),
    [
        ({}, (8, 8, 3), (12, 8, 3), "the game 'contrastive' needs images of one size"),
        ({}, (8, 8, 1), (8, 8, 3), r"needs domains of as many channels, not \(8, 8, 1\) and \(8, 8, 3\)"),
        ({"contrastive__layers": ("block7",)}, (8, 8, 3), None, "layers=.*block7.*expected some of input, stem"),
        ({"contrastive__layers": ()}, (8, 8, 3), None, "layers=.*expected some of input, stem"),
        ({"contrastive__patches": 0}, (8, 8, 3), None, "contrastive.patches=0: expected a finite number, 1 or more"),
        ({"contrastive__temperature": 0.0}, (8, 8, 3), None, "temperature=0.0: expected more than 0"),
        ({"loss__nce_a": -1.0}, (8, 8, 3), None, "loss.nce_a=-1.0: expected a finite number, 0 or more"),
        ({"generator__name": "pix2pix"}, (8, 8, 3), None, "needs translates, encoder of 'generator'.*take a model"),
    ],
)
def test_errors(overrides, a, b, message):
    with pytest.raises(UserError, match=message):
        config = _config(**{key: value for key, value in overrides.items() if key != "generator__name"})
        if "generator__name" in overrides:
            stated = {**config.to_dict(), "generator": {"name": overrides["generator__name"]}}
            config = runs.configs.complete(type(config)(stated), runs.defaults)
        _build(config, a, b)


def test_terms_of_weight_zero_are_left_out_of_the_program():
    phases = _build(_config(loss__nce_a=0.5, loss__nce_b=0.0)).phases
    assert [(phase.name, phase.nets) for phase in phases] == [
        ("discriminator", ("discriminator",)), ("generator", ("generator", "heads"))
    ]  # fmt: skip
    assert dict(phases[1].weights) == {"nce_a": 0.5}
