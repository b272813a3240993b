"""Unpaired translation: two steps and the image pool against recorded ones, devices, what is seen, what is drawn."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax.tree
import pytest

from gan_jax import runs, specs
from gan_jax.errors import UserError
from gan_jax.games import translation
from gan_jax.layers import pixels
from tests import golden_cyclegan as golden
from tests import settings

NETS = {"G_A": "generator_ab", "G_B": "generator_ba", "D_A": "discriminator_b", "D_B": "discriminator_a"}
# Recorded losses -> metrics; D_A judges B
LOSSES = {
    "G": "generators/loss",
    "G_A": "generators/adversarial_b",
    "G_B": "generators/adversarial_a",
    "cycle_A": "generators/cycle_a",
    "cycle_B": "generators/cycle_b",
    "identity_A": "generators/identity_b",
    "identity_B": "generators/identity_a",
}
SGD = {
    f"optim__{player}__{key}": value
    for player in ("generators", "discriminators")
    for key, value in (("name", "sgd"), ("learning_rate", 0.02))
}


def _config(**overrides):
    """The digits' translation, shrunk; keys with `__` for dots."""
    pairs = [(key.replace("__", "."), str(value)) for key, value in overrides.items()]
    return runs.load_config(f"{settings.EXPERIMENTS / 'digits_cyclegan.py'}:smoke", pairs)


def _build(config, a=(8, 8, 3), b=None):
    """Its run, for pictures of these shapes."""
    return runs.build(config, {"a": specs.Field("image", a), "b": specs.Field("image", a if b is None else b)})


# Two steps of the published program's order.


def _trees(arrays, prefix):
    """net -> its collections, or gradients, of the four."""
    places = {"G": golden.generator_places(1), "D": golden.discriminator_places(2)}
    return {net: golden.variables(arrays, f"{prefix}/{name}/", places[name[0]]) for name, net in NETS.items()}


def _collections(trees):
    """The State's fields `params` and `variables` of what `_trees` returns."""
    params = {net: tree["params"] for net, tree in trees.items()}
    return params, {net: {k: v for k, v in tree.items() if k != "params"} for net, tree in trees.items()}


@pytest.fixture(scope="module", params=[("instance", 1), ("batch", 2)], ids=["instance", "batch"])
def recorded(request):
    """Arrays of one recording, States after steps 0 to 2, metrics of both steps; with a batch of two on two devices."""
    norm, devices = request.param
    everything = golden.load("cyclegan_step")
    arrays = {k.removeprefix(f"{norm}/"): v for k, v in everything.items() if k.startswith(f"{norm}/")}
    size = len(arrays["in1/A"])
    optimizers = {f"optim__{player}__learning_rate": 2e-4 for player in ("generators", "discriminators")}
    config = _config(
        batch_size=size, generator__norm=norm, discriminator__norm=norm, generator__width=2, discriminator__width=2,
        discriminator__layers=2, loss__cycle_b=8.0, loss__identity=0.5, loss__pool=50, **optimizers,
    )  # fmt: skip
    run = _build(config, (16, 16, 3))
    params, variables = _collections(_trees(arrays, "before"))
    states, measured = [runs.fresh_state(run)._replace(params=params, variables=variables)], []
    options = {"count": 1, "devices": devices, "programs": {}}
    for number in (1, 2):
        batch = {name.lower(): golden.images(arrays[f"in{number}/{name}"]) for name in "AB"}
        state, metrics = settings.play(run, batches=[batch], state=states[-1], **options)
        states.append(state)
        measured += metrics
    return arrays, states, measured


def test_losses_of_two_steps(recorded):
    arrays, _, measured = recorded
    for number, metrics in enumerate(measured, 1):
        expected = {ours: arrays[f"loss{number}/{theirs}"] for theirs, ours in LOSSES.items()}
        expected["discriminators/loss"] = arrays[f"loss{number}/D_A"] + arrays[f"loss{number}/D_B"]
        for name, value in expected.items():
            assert metrics[name] == pytest.approx(value, rel=1e-5), (number, name)


def test_gradients_of_the_first_step(recorded):
    """Read from Adam's first moment, a half of them."""
    arrays, states, _ = recorded
    moments = {}
    for player in ("generators", "discriminators"):
        moments |= optax.tree.get(states[1].opt[player], "mu")
    for net, expected in _trees(arrays, "grad").items():
        whole = optax.global_norm(expected["params"])
        errors = jax.tree.map(lambda x, y: 2 * x - y, moments[net], expected["params"])
        assert optax.global_norm(errors) < 3e-5 * whole, net


def test_parameters_and_statistics_after_two_steps(recorded):
    """A bias in front of an instance normalisation has no gradient, and Adam makes a step of the rounding of none."""
    arrays, states, _ = recorded
    gradients = {net: tree["params"] for net, tree in _trees(arrays, "grad").items()}
    still = {path for path, gradient in _paths(gradients).items() if np.abs(gradient).max() < 1e-12}
    instance = not jax.tree.leaves(states[0].variables)
    assert len(still) == (18 if instance else 0) and all(path.endswith("bias") for path in still)
    for number in (1, 2):
        params, variables = _collections(_trees(arrays, f"after{number}"))
        errors = jax.tree.map(lambda x, y: np.abs(x - y).max(), states[number].params, params)
        for path, error in _paths(errors).items():
            assert path in still or error < 2e-6, (number, path)
        assert settings.largest_difference(variables, states[number].variables) < 3e-5, number


def _paths(tree):
    """path -> leaf."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def test_pools_hold_and_show_the_first_step_s_fakes(recorded):
    """Of the generators before their update, though the discriminators move after them."""
    arrays, states, _ = recorded
    for name in "AB":
        pool, fakes = states[1].memory[name.lower()], golden.images(arrays[f"fake1/{name}"])
        assert pool.filled == len(fakes)
        for images in (pool.shown, pool.images[: len(fakes)]):
            np.testing.assert_allclose(images, fakes, atol=1e-6)


@pytest.mark.parametrize("case", ["size4_batch1", "size5_batch3", "size0_batch2", "size50_batch1"])
def test_pool_follows_the_recorded_trace(case):
    """Images are their running numbers; the draws are those that the reference implementation consumed."""
    arrays = golden.load("cyclegan_losses_pool")
    uniform, slots = (arrays[f"in/pool_{case}_{name}"] for name in ("uniform", "randint"))
    returned, after = (arrays[f"out/pool_{case}_{name}"] for name in ("returned", "state_after"))
    ids = np.arange(uniform.size, dtype=np.float32).reshape(uniform.shape)
    pool = translation.Pool(np.full(after.shape[1], -1, np.float32), np.int32(0), np.full(ids.shape[1], -1, np.float32))
    query = jax.jit(translation.query)
    for row in range(len(ids)):
        pool = query(pool, ids[row], uniform[row], slots[row])
        np.testing.assert_array_equal(pool.shown, returned[row])
        np.testing.assert_array_equal(pool.images, after[row])


# Devices, and what is seen.


@pytest.fixture(scope="module")
def sixteen():
    """A run and three steps on one device: mirrored pictures, dropout, pools that are full after the first step.

    With batch normalisation, whose statistics are of the whole batch, for an instance normalisation of the few pixels
    of small pictures makes a large step of rounding.
    """
    run = _build(_config(
        batch_size=16, generator__norm="batch", discriminator__norm="batch", generator__dropout=0.2, loss__pool=6,
        loss__identity=0.5, data__parts__a__flip=True, **{**SGD, "optim__generators__learning_rate": 1e-3},
    ))  # fmt: skip
    return run, *settings.play(run, count=3)


@pytest.mark.parametrize("mode", ["shard_map", "pmap"])
def test_one_and_eight_devices_agree(sixteen, mode):
    run, one, metrics = sixteen
    eight, measured = settings.play(run, count=3, devices=8, mode=mode)
    for part in ("params", "variables", "ema", "memory"):
        assert settings.largest_difference(getattr(one, part), getattr(eight, part)) < 3e-5, part
    assert int(one.images) == int(eight.images) == 48
    for ours, theirs in zip(metrics, measured, strict=True):
        np.testing.assert_allclose(list(ours.values()), list(theirs.values()), rtol=1e-4, atol=1e-6)


def test_pools_swap_and_differ_between_domains(sixteen):
    _, state, _ = sixteen
    for pool in state.memory.values():
        assert int(pool.filled) == 6
        stored, shown = ([image.tobytes() for image in np.asarray(images)] for images in (pool.images, pool.shown))
        assert len(set(stored)) == 6 and len(set(shown)) == 16  # one that is swapped is shown once
        assert set(stored) & set(shown) == set()
    assert not np.array_equal(state.memory["a"].images, state.memory["b"].images)


def test_discriminators_see_fakes_of_before_the_generators_update():
    """Those of the step itself, which `shown` holds, and logits of theirs."""
    run = _build(_config(batch_size=2, loss__pool=0, **{**SGD, "optim__generators__learning_rate": 1.0}))
    before, batch = runs.fresh_state(run), settings.random_batch(run, 0)
    after, (metrics,) = settings.play(run, count=1, batches=[batch], state=before)
    # networks of both directions are of one shape
    there, logits = (jax.jit(functools.partial(run.nets[net].apply, train=True))
                     for net in ("generator_ab", "discriminator_a"))  # fmt: skip
    assert run.nets["generator_ab"] == run.nets["generator_ba"]
    assert run.nets["discriminator_a"] == run.nets["discriminator_b"]
    for source, target in ("ab", "ba"):
        name, judge = f"generator_{source}{target}", f"discriminator_{target}"
        images = pixels.normalise(jax.numpy.asarray(batch[source]))
        fakes, moved = (there({"params": state.params[name]}, images) for state in (before, after))
        assert np.abs(fakes - moved).max() > 0.1
        np.testing.assert_allclose(after.memory[target].shown, fakes, atol=1e-5)
        expected = float(logits({"params": before.params[judge]}, fakes).mean())
        assert metrics[f"discriminators/fake_logit_{target}"] == pytest.approx(expected, rel=1e-4, abs=1e-6)
        assert after.memory[target].images.shape[0] == 0


# Samples.


@pytest.mark.parametrize("direction", ["ab", "ba"])
def test_samples_are_given_pictures_there_and_back(direction):
    """Each is a function of its own picture alone, under instance normalisation."""
    source, target = direction
    run = _build(_config(translation__direction=direction))
    assert runs.sources(run) == (source,) == run.game.asks(run.config)
    assert run.game.drawn(run.config) == target
    state, keys = runs.fresh_state(run), jax.random.split(jax.random.key(0), 3)
    images = settings.random_batch(run, 0)[source][:3]
    draw = jax.jit(functools.partial(run.game.sample, run.nets))
    drawn = draw(state.ema, keys, {source: images})
    assert set(drawn) == {target, f"{source}_again"}
    there, back = f"generator_{source}{target}", f"generator_{target}{source}"
    assert run.nets[there] == run.nets[back]
    translate = jax.jit(functools.partial(run.nets[there].apply, train=False))
    expected = translate(state.ema[there], pixels.normalise(jax.numpy.asarray(images)))
    np.testing.assert_allclose(drawn[target], expected, atol=1e-5)
    np.testing.assert_allclose(drawn[f"{source}_again"], translate(state.ema[back], expected), atol=1e-4)
    others = draw(state.ema, keys[::-1], {source: np.concatenate([images[:1], 255 - images[1:]])})
    for name in drawn:
        np.testing.assert_allclose(others[name][0], drawn[name][0], atol=1e-6)
        assert np.abs(others[name][1:] - drawn[name][1:]).max() > 0.1


def test_first_sample_is_the_translation_and_domains_may_have_channels_of_their_own():
    """The identity term needs equal ones, and is off here."""
    run = _build(_config(loss__identity=0.0), (8, 8, 1), (8, 8, 3))
    state = runs.fresh_state(run)
    shapes = {
        net: (state.params[net]["stem"]["kernel"].shape[2], state.params[net]["image"]["kernel"].shape[3])
        for net in translation.EMA_NETS
    }
    assert shapes == {"generator_ab": (1, 3), "generator_ba": (3, 1)}
    images = np.zeros((2, 8, 8, 1), np.uint8)
    order = []

    def draw(ema):
        drawn = translation.sample(run.nets, ema, None, {"a": images})
        order.extend((name, array.shape) for name, array in drawn.items())
        return drawn

    jax.eval_shape(draw, state.ema)  # its result's names are sorted
    assert order == [("b", (2, 8, 8, 3)), ("a_again", (2, 8, 8, 1))]
    assert state.memory["b"].images.shape == (4, 8, 8, 3)


# Errors.


@pytest.mark.parametrize(
    ("overrides", "a", "b", "message"),
    [
        ({"translation__direction": "aa"}, (8, 8, 3), (8, 8, 3), "translation.direction='aa': expected ab or ba"),
        ({"accumulate": 2}, (8, 8, 3), (8, 8, 3), "accumulate=2.*expected 1"),
        ({"loss__identity": 0.5}, (8, 8, 1), (8, 8, 3), r"loss.identity=0.5.*\(8, 8, 1\).*set it to 0"),
        ({}, (8, 8, 3), (12, 8, 3), "needs images of one size"),
        ({"loss__cycle_a": -1.0}, (8, 8, 3), (8, 8, 3), "loss.cycle_a=-1.0: expected a finite number, 0 or more"),
        ({"loss__pool": -1}, (8, 8, 3), (8, 8, 3), "loss.pool=-1: expected a finite number, 0 or more"),
    ],
)
def test_errors(overrides, a, b, message):
    with pytest.raises(UserError, match=message):
        _build(_config(**overrides), a, b)


def test_domains_of_points_are_an_error():
    with pytest.raises(UserError, match="needs images of one size"):
        runs.build(_config(), {"a": specs.Field("points", (2,)), "b": specs.Field("points", (2,))})


def test_terms_of_weight_zero_are_left_out_of_the_program():
    phases = _build(_config(loss__cycle_b=0.0)).phases
    assert [phase.name for phase in phases] == ["generators", "discriminators"]
    assert dict(phases[0].weights) == {"cycle_a": 10.0} and phases[1].weights == ()


def test_jitter_enlarges_and_cuts():
    """As a cubic resampling of the whole followed by a cut, corner by corner; nothing moves where it adds nothing."""
    images = np.random.default_rng(0).uniform(-1, 1, (3, 10, 8, 2)).astype(np.float32)
    corners = np.array([[0, 0], [3, 1], [2, 3]], np.float32)
    large = np.asarray(jax.image.resize(images, (3, 13, 11, 2), "cubic", antialias=False))
    ours = jax.jit(pixels.jittered, static_argnums=2)(images, corners, 3)
    for image, (top, left), whole in zip(ours, corners.astype(int), large, strict=True):
        np.testing.assert_allclose(image, whole[top : top + 10, left : left + 8], atol=1e-5)
    np.testing.assert_allclose(pixels.jittered(jnp.asarray(images), jnp.zeros((3, 2)), 0), images, atol=1e-6)
