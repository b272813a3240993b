"""Paired translation: two steps against recorded ones, devices, what moves together, what is drawn and compared."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.tree
import pytest
from ml_collections import ConfigDict

from gan_jax import config as configs
from gan_jax import data, painter, parallel, run_data, runs, sample, specs
from gan_jax.errors import UserError
from gan_jax.games import paired
from gan_jax.layers import pixels
from tests import golden_cyclegan as golden
from tests import settings

PLACES = {"generator": ("G", golden.unet_places(4)), "discriminator": ("D", golden.discriminator_places(1))}


def _config(**overrides):
    """The digits' outlines, shrunk; keys with `__` for dots."""
    config = runs.load_config(f"{settings.EXPERIMENTS / 'digits_pix2pix.py'}:smoke")
    for key, value in overrides.items():
        configs.override(config, key.replace("__", "."), str(value))
    return config


def _build(config, source=(16, 16, 3), image=(16, 16, 3)):
    return runs.build(config, specs.paired(source, image))


# Two steps of PyTorch's.


@pytest.fixture(scope="module", params=[("batch", 1), ("batch", 2), ("instance", 1)], ids=str)
def recorded(request):
    """Arrays of one recording, States after steps 0 to 2, metrics of both steps; with a batch of two on two devices."""
    norm, devices = request.param
    everything = golden.load("pix2pix_step")
    arrays = {k.removeprefix(f"{norm}/"): v for k, v in everything.items() if k.startswith(f"{norm}/")}
    loss = {"batch": "non_saturating", "instance": "least_squares"}[norm]
    run = _build(_config(
        batch_size=len(arrays["in1/A"]), generator__norm=norm, discriminator__norm=norm, generator__width=2,
        generator__depth=4, generator__dropout=0.0, discriminator__width=2, loss__name=loss,
        optim__generator__learning_rate=2e-4, optim__discriminator__learning_rate=2e-4,
    ))  # fmt: skip
    params, variables = _collections(arrays, "before")
    states, measured = [runs.fresh_state(run)._replace(params=params, variables=variables)], []
    options = {"count": 1, "devices": devices, "programs": {}}
    for number in (1, 2):
        images = {"source": golden.images(arrays[f"in{number}/A"]), "image": golden.images(arrays[f"in{number}/B"])}
        state, metrics = settings.play(run, batches=[images], state=states[-1], **options)
        states.append(state)
        measured += metrics
    return arrays, states, measured


def _trees(arrays, when):
    return {net: golden.variables(arrays, f"{when}/{name}/", places) for net, (name, places) in PLACES.items()}


def _collections(arrays, when):
    """(params, variables) by net."""
    trees = _trees(arrays, when)
    return tuple({net: pick(tree) for net, tree in trees.items()} for pick in (
        lambda tree: tree["params"], lambda tree: {k: v for k, v in tree.items() if k != "params"}))  # fmt: skip


def test_losses_of_two_steps(recorded):
    arrays, _, measured = recorded
    names = {"D_real": "discriminator/loss_real", "D_fake": "discriminator/loss_fake", "G": "generator/loss",
             "G_GAN": "generator/adversarial", "G_L1": "generator/l1"}  # fmt: skip
    for number, metrics in enumerate(measured, 1):
        for theirs, ours in names.items():
            assert metrics[ours] == pytest.approx(arrays[f"loss{number}/{theirs}"], rel=1e-5), (number, ours)
        half = (arrays[f"loss{number}/D_real"] + arrays[f"loss{number}/D_fake"]) / 2
        assert metrics["discriminator/loss"] == pytest.approx(half, rel=1e-5)


def test_gradients_of_the_first_step(recorded):
    """Read from Adam's first moment, a half of them."""
    arrays, states, _ = recorded
    for net, expected in _trees(arrays, "grad").items():
        moments = optax.tree.get(states[1].opt[net], "mu")[net]
        errors = jax.tree.map(lambda x, y: 2 * x - y, moments, expected["params"])
        assert optax.global_norm(errors) < 3e-5 * optax.global_norm(expected["params"]), net


def test_parameters_and_statistics_after_two_steps(recorded):
    """A bias in front of an instance normalisation has no gradient, and Adam makes a step of the rounding of none."""
    arrays, states, _ = recorded
    gradients = {net: tree["params"] for net, tree in _trees(arrays, "grad").items()}
    for number in (1, 2):
        params, variables = _collections(arrays, f"after{number}")
        for (path, ours), theirs, gradient in zip(
            jax.tree_util.tree_leaves_with_path(states[number].params), jax.tree.leaves(params),
            jax.tree.leaves(gradients), strict=True,
        ):  # fmt: skip
            assert np.abs(gradient).max() < 1e-12 or np.abs(ours - theirs).max() < 2e-6, (number, path)
        assert settings.largest_difference(variables, states[number].variables) < 3e-5, number


# Devices, randomness.


SGD = {f"optim__{player}__{key}": value for player in ("generator", "discriminator")
       for key, value in (("name", "sgd"), ("learning_rate", 1e-3))}  # fmt: skip


def test_one_and_eight_devices_agree():
    run = _build(_config(batch_size=16, paired__jitter=2, data__flip=True, generator__dropout=0.2, **SGD))
    (one, metrics), (eight, measured) = (settings.play(run, count=2, devices=devices) for devices in (1, 8))
    for part in ("params", "variables", "ema"):
        # Biases have moved from nought by 1e-5 alone, a sum of what nearly cancels.
        assert settings.largest_difference(getattr(one, part), getattr(eight, part), floor=0.01) < 3e-5, part
    for ours, theirs in zip(metrics, measured, strict=True):
        np.testing.assert_allclose(list(ours.values()), list(theirs.values()), rtol=1e-3, atol=1e-6)


def test_both_pictures_of_a_pair_move_alike():
    """A pair of one picture twice stays one, mirrored for some and not for others; the jitter is that of `pixels`."""
    images = np.random.default_rng(0).integers(0, 256, (32, 8, 8, 3), dtype=np.uint8)
    rules = paired.Rules({}, None, True, 2)
    draws = {paired.FLIP: jnp.linspace(0, 0.99, 32), paired.JITTER: jnp.linspace(0, 0.99, 64).reshape(32, 2)}
    source, image = paired._pair(rules, {"source": images, "image": images}, draws)
    np.testing.assert_array_equal(source, image)
    plain = pixels.jittered(pixels.normalise(jnp.asarray(images)), jnp.floor(draws[paired.JITTER] * 3), 2)
    np.testing.assert_allclose(source[:16], plain[:16, :, ::-1], atol=1e-6)
    np.testing.assert_allclose(source[16:], plain[16:], atol=1e-6)
    still = paired._pair(rules._replace(flip=False, jitter=0), {"source": images, "image": images[::-1]}, draws)
    np.testing.assert_array_equal(still, pixels.normalise(np.stack([images, images[::-1]])))


def test_the_generator_is_judged_by_the_new_discriminator_with_the_same_noise():
    """Of the step itself: the logit of the fake that the discriminator has seen, by its parameters after its move."""
    run = _build(_config(
        batch_size=4, generator__norm="instance", discriminator__norm="instance",
        **{**SGD, "optim__discriminator__learning_rate": 1.0, "optim__generator__learning_rate": 0.0},
    ))  # fmt: skip
    before, batch = runs.fresh_state(run), settings.random_batch(run, 0)
    options = {"count": 1, "batches": [batch], "programs": {}}
    after, (metrics,) = settings.play(run, state=before, **options)
    again, (second,) = settings.play(run, state=after._replace(step=before.step), **options)
    logit = second["discriminator/fake_logit"]  # of the same fakes, by the discriminator after the first step
    assert metrics["generator/adversarial"] == pytest.approx(np.log1p(np.exp(-logit)), rel=1e-2)
    assert abs(logit - metrics["discriminator/fake_logit"]) > 0.1


# Samples.


def test_a_sample_is_a_function_of_its_source_and_key_alone():
    run = _build(_config(), image=(16, 16, 1))
    assert runs.sources(run) == ("source",) and runs.shown(run) == ("source", "image")
    ema, keys = runs.fresh_state(run).ema, jax.random.split(jax.random.key(0), 3)
    sources = settings.random_batch(run, 0)["source"][:3]
    draw = jax.jit(functools.partial(run.game.sample, run.nets))
    drawn = draw(ema, keys, {"source": sources})
    assert list(drawn) == ["image"] and drawn["image"].shape == (3, 16, 16, 1)
    alone = draw(ema, keys[1:2], {"source": sources[1:2]})["image"]
    np.testing.assert_allclose(alone, drawn["image"][1:2], atol=1e-6)
    others = draw(ema, keys[::-1], {"source": sources})["image"]
    assert np.abs(others - drawn["image"])[0].max() > 1e-6  # the paper's noise
    np.testing.assert_allclose(others[1], drawn["image"][1], atol=1e-6)


def test_the_grid_shows_source_sample_and_target():
    config = _config(grid=3, data__split="test")
    dataset = run_data.open_data(config)
    run = runs.build(config, run_data.data_spec(config, dataset))
    pictures = sample.grid_given(run)
    ends = dataset.examples(np.array([0, dataset.size - 1]))
    for name in ("source", "image"):
        np.testing.assert_array_equal(pictures[name][[0, 2]], ends[name])
    ema = parallel.replicate(runs.fresh_state(run).ema, parallel.make_mesh())
    drawn = sample.fixed_grid(run, painter.sampler(run, whole=True), ema, pictures)
    picture = sample.grid(run, drawn, pictures).picture
    for array in (pictures["source"], drawn[0], pictures["image"]):
        row = picture[:, :, 0]
        windows = np.lib.stride_tricks.sliding_window_view(row, (16, 16)).reshape(-1, 16, 16)
        assert (windows == array[0, ..., 0]).all((1, 2)).any()
    without = sample.grid(run, drawn, {"source": pictures["source"]}).picture  # as for pictures of the user's own
    assert without.size < picture.size


# What it is compared with, and errors.


def test_baselines_are_the_source_and_a_linear_map():
    """Targets that are a linear function of their sources are predicted; those of another shape are no copy."""
    rng = np.random.default_rng(0)
    sources = rng.integers(0, 100, (200, 4, 4, 1), dtype=np.uint8)

    class Train:
        spec, size = specs.paired((4, 4, 1), (4, 4, 1)), 200

        @staticmethod
        def examples(indices):
            return {"source": sources[indices], "image": 250 - 2 * sources[indices][:, :, ::-1]}

    methods = paired.baselines(None, Train)
    assert set(methods) == {"copy", "ridge"}
    pictures = {"source": rng.integers(0, 100, (5, 4, 4, 1), dtype=np.uint8)}
    np.testing.assert_array_equal(methods["copy"](pictures), pictures["source"])
    np.testing.assert_array_equal(methods["ridge"](pictures), 250 - 2 * pictures["source"][:, :, ::-1])
    Train.spec = specs.paired((4, 4, 1), (4, 4, 3))
    assert set(paired.baselines(None, Train)) == {"ridge"}
    Train.spec = specs.paired((256, 256, 1), (256, 256, 1))
    assert set(paired.baselines(None, Train)) == {"copy"}


@pytest.mark.parametrize(("overrides", "source", "message"), [
    ({}, (8, 8, 3), "needs images of one size"),
    ({"loss__l1": -1.0}, (16, 16, 3), "loss.l1=-1.0: expected a finite number, 0 or more"),
    ({"paired__jitter": -1}, (16, 16, 3), "paired.jitter=-1"),
    ({"loss__name": "bce"}, (16, 16, 3), "unknown adversarial loss 'bce'"),
])  # fmt: skip
def test_errors(overrides, source, message):
    with pytest.raises(UserError, match=message):
        _build(_config(**overrides), source)


def test_independent_sets_are_no_pairs():
    stated = _config().to_dict()
    part = {"name": "digits", "resolution": 16}
    config = configs.complete(ConfigDict({**stated, "data": {"parts": {"source": part, "image": part}}}), runs.defaults)
    with pytest.raises(UserError, match="config.data.parts are independent sets: give one set of pairs"):
        _build(config)


def test_terms_of_weight_zero_are_left_out_of_the_program():
    phases = _build(_config(loss__l1=0.0)).phases
    assert [(phase.name, dict(phase.weights)) for phase in phases] == [
        ("discriminator", {"discriminator": 0.5}), ("generator", {})
    ]  # fmt: skip


def test_data_without_pairs_are_an_error_that_names_the_field():
    config = _config(data__name="digits")
    with pytest.raises(UserError, match="reads the field 'source', and the data 'digits' has image, label alone"):
        run_data.data_spec(config, data.open_dataset(name="digits", resolution=16))
