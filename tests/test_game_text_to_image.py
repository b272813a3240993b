"""Text to image: recorded steps of DF-GAN, its stages, devices, captions that are drawn, what is refused."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax.tree
import pytest

from gan_jax import config as configs
from gan_jax import folders, games, painter, parallel, run_data, runs, specs
from gan_jax.errors import UserError
from gan_jax.evaluate import protocols
from gan_jax.features import clip_text
from gan_jax.games import text_to_image
from gan_jax.models import dfgan
from tests import golden_dfgan as golden
from tests import settings

SGD = {f"optim__{player}__{key}": value for player in ("generator", "discriminator", "encoders")
       for key, value in (("name", "sgd"), ("learning_rate", 0.02))}  # fmt: skip


def _config(**overrides):
    """The captioned digits' experiment, shrunk; keys with `__` for dots."""
    config = runs.load_config(f"{settings.EXPERIMENTS / 'digits_captions.py'}:smoke")
    for key, value in overrides.items():
        configs.override(config, key.replace("__", "."), str(value))
    return config


def _build(config, table="", shape=(8, 16, 1), captions=(2, 5), vocabulary=9):
    """Its run in the stage of that table, for data of these shapes."""
    image = specs.Field("image" if len(shape) == 3 else "points", shape)
    spec = {"image": image, "caption": specs.Field("tokens", captions, vocabulary)}
    stages = {stage.table: stage for stage in games.stages(text_to_image, config, spec)}
    return runs.build(config, spec, stages[table] if table else None)


# Two steps of the published program.


@pytest.fixture(scope="module")
def steps():
    """(arrays, States after one and after two steps, metrics of both)."""
    arrays = golden.load("dfgan_train_step")
    adam = {f"optim__{player}__{key}": value for player, rate in (("generator", 1e-4), ("discriminator", 4e-4))
            for key, value in (("learning_rate", rate), ("b1", 0.0), ("b2", 0.9))}  # fmt: skip
    config = _config(batch_size=4, generator__latent_size=6, text__size=6, **adam)
    run = _build(config, "play", (32, 32, 3))
    state = runs.fresh_state(run)
    state = state._replace(params={**state.params, **golden.trees(arrays, "params")})
    state = state._replace(  # as sentences have 5 entries there, an odd number
        opt=runs.steps.init_optimizers(run.all_phases, run.optimizers, state.params),
        ema=runs.steps.init_ema(run.ema.nets, state.params, {}),
    )
    states, measured, programs = [], [], {}
    for number in (1, 2):
        batch = {name: arrays[f"in/step{number}/{key}"] for name, key in
                 (("image", "images"), ("sentence", "sent_emb"), ("z", "noise"))}  # fmt: skip
        batch["image"] = golden.images(batch["image"])
        batch["caption"] = np.ones((4, 2, 5), np.int32)
        state, (metrics,) = settings.play(run, count=1, batches=[batch], state=state, programs=programs)
        states.append(state)
        measured.append(metrics)
    return arrays, states, measured


TERMS = {"errD_real": ("loss_real", 1), "errD_fake": ("loss_fake", 2), "errD_mis": ("loss_mismatched", 2),
         "errD_MAGP": ("matching_aware", 1), "errD": ("loss", 1)}  # fmt: skip


def test_recorded_losses_of_two_steps(steps):
    """The generator's is that of the discriminator after its move, for the same images."""
    arrays, _, measured = steps
    for number, metrics in enumerate(measured, 1):
        for theirs, (ours, factor) in TERMS.items():
            expected = float(arrays[f"out/step{number}/{theirs}"])
            assert factor * metrics[f"discriminator/{ours}"] == pytest.approx(expected, rel=2e-4), (number, ours)
        assert metrics["generator/loss"] == pytest.approx(float(arrays[f"out/step{number}/errG"]), rel=3e-4)
        norm = float(arrays[f"out/step{number}/gradnorm_G"])
        assert metrics["generator/grad_norm"] == pytest.approx(norm, rel=1e-3)


def test_recorded_gradients_and_parameters_of_the_first_step(steps):
    """Read from Adam's second moment, a tenth of the square; a first step is lr g / (|g| + 1e-8)."""
    arrays, states, _ = steps
    gradients, after = golden.trees(arrays, "grad"), golden.trees(arrays, "after1")
    rates = {"generator": 1e-4, "discriminator": 4e-4}
    for net, tree in gradients.items():
        moments = optax.tree.get(states[0].opt[net], "nu")[net]
        jax.tree.map(
            lambda nu, g: golden.close(np.sqrt(10 * nu), np.abs(g), 2e-3), moments, tree
        )
        for ours, theirs, gradient in zip(
            *map(jax.tree.leaves, (states[0].params[net], after[net], tree)), strict=True
        ):
            clear = np.abs(gradient) > 1e-3 * np.abs(gradient).max()  # the others' sign may be rounding's
            assert np.abs(ours - theirs)[clear].max() < 0.02 * rates[net], net


# Stages: encoders, then players.


def test_encoders_move_first_and_rest_afterwards():
    """One State serves both stages; samples see the encoder as it is, and the average of the generator."""
    config = _config(**SGD, ema__half_life_images=1000.0)
    first = _build(config)
    assert [(phase.name, phase.nets) for phase in first.phases] == [("matching", text_to_image.ENCODERS)]
    before = runs.fresh_state(first)
    between, _ = settings.play(first, count=1, state=before)
    assert set(between.opt) == {"encoders", "discriminator", "generator"}
    second = _build(config, "play")
    after, (metrics,) = settings.play(second, count=1, state=between)
    assert set(metrics) >= {"discriminator/matching_aware", "discriminator/loss_mismatched", "generator/fake_logit"}
    for net in before.params:
        moves = [settings.largest_difference(a.params[net], b.params[net]) > 1e-7
                 for a, b in ((before, between), (between, after))]  # fmt: skip
        assert moves == ([True, False] if net in text_to_image.ENCODERS else [False, True]), net
    for net in text_to_image.ENCODERS:
        jax.tree.map(np.testing.assert_array_equal, after.ema[net]["params"], after.params[net])
    assert settings.largest_difference(after.ema["generator"]["params"], after.params["generator"]) > 1e-7


def test_an_encoder_that_is_not_trained_is_taken_over_whole(tmp_path):
    """One of another size would stay as it was drawn."""
    settings.fresh_folder(_config(), tmp_path / "run")
    mesh = parallel.make_mesh()
    for embedding in (8, 6):
        config = _config(matching__images=0, text__embedding=embedding, transfer__workdir=tmp_path / "run")
        dataset = run_data.open_data(config)
        run = runs.build(config, run_data.data_spec(config, dataset))
        state = parallel.replicate(runs.fresh_state(run), mesh)
        if embedding == 8:
            _, line = folders.transfer(run, state, config.transfer.workdir, mesh)
            assert "fresh" not in line
            continue
        with pytest.raises(UserError, match="arrays of networks that this run does not train .* as text_encoder/embed"):
            folders.transfer(run, state, config.transfer.workdir, mesh)


def test_stages_are_those_of_the_config():
    config = _config(matching__images=16, matching__batch_size=4)
    spec = _build(config).spec
    first, second = games.stages(text_to_image, config, spec)
    assert (first.batch_size, first.start_images, first.end_images) == (4, 0, 16)
    assert (second.batch_size, second.start_images) == (8, 16) and second.table != first.table
    config = _config(matching__images=0)
    config.transfer.workdir = "elsewhere"
    (only,) = games.stages(text_to_image, config, spec)
    assert only.table == "play" and only.start_images == 0


@pytest.mark.parametrize(("table", "modes"), [("matching", ("shard_map", "pmap")), ("play", ("shard_map",))])
def test_one_and_eight_devices_agree(table, modes):
    """Contrast over all pairs, and neighbours in the whole batch; moved and mirrored images, dropout of words."""
    run = _build(_config(
        **SGD, batch_size=16, text__dropout=0.3, text_to_image__jitter=2, data__flip=True, loss__matching_aware=0.1,
    ), table)  # fmt: skip
    state = runs.fresh_state(run)
    rng = np.random.default_rng(0)  # factors of blocks that begin at 0, and constant scales, would hide parts
    params = jax.tree.map(lambda x: x + rng.normal(0, 0.1, x.shape).astype(np.float32), state.params)
    state = state._replace(params=params)
    one, metrics = settings.play(run, count=2, state=state)
    for mode in modes:
        eight, measured = settings.play(run, count=2, devices=8, mode=mode, state=state)
        assert settings.largest_difference(one.params, eight.params, floor=0.01) < 2e-5, mode
        for ours, theirs in zip(metrics, measured, strict=True):
            np.testing.assert_allclose(list(ours.values()), list(theirs.values()), rtol=2e-4, atol=1e-6)


# What is drawn.


def test_one_caption_of_those_that_are_there_is_drawn():
    captions = np.zeros((3, 4, 2), np.int32)
    captions[0, :, 0] = (1, 2, 3, 4)
    captions[1, 1:3, 0] = (5, 6)  # the others are empty
    for draw, expected in ((0.0, (1, 5, 0)), (0.49, (2, 5, 0)), (0.5, (3, 6, 0)), (0.999999, (4, 6, 0))):
        row = text_to_image.chosen(captions, jnp.full(3, draw, jnp.float32))
        assert row.shape == (3, 2) and tuple(row[:, 0].tolist()) == expected


def test_samples_are_of_their_first_caption_and_their_own_noise():
    run = _build(_config())
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: x + rng.normal(0, 0.2, x.shape).astype(np.float32), runs.fresh_state(run).params)
    ema = {net: {"params": tree} for net, tree in params.items()}
    captions = np.array([[[2, 3, 0, 0, 0], [4, 4, 4, 0, 0]]] * 3, np.int32)
    assert runs.of_examples(run) == ("caption",) == run.game.asks(run.config)
    draw = jax.jit(functools.partial(run.game.sample, run.nets))
    keys = jax.random.split(jax.random.key(0), 3)
    images = draw(ema, keys, {"caption": captions})["image"]
    assert images.shape == (3, 8, 16, 1)
    other = captions.copy()
    other[:, 1] = 7  # the second caption says nothing
    np.testing.assert_array_equal(draw(ema, keys, {"caption": other})["image"], images)
    other[0, 0] = (5, 6, 7, 0, 0)
    changed = draw(ema, keys, {"caption": other})["image"]
    np.testing.assert_allclose(changed[1:], images[1:], atol=1e-6)
    assert np.abs(changed[0] - images[0]).max() > 1e-4 and np.abs(images[1] - images[2]).max() > 1e-4


def test_latents_of_samples_are_truncated_normal_numbers():
    """Their deviation is that of N(0, 1) within two deviations, 0.8796 by its closed form, times the truncation."""
    keys = jax.random.split(jax.random.key(0), 400)
    z = np.asarray(text_to_image.sample_latents(dfgan.Generator(latent_size=100, truncation=0.5), keys))
    density, inside = math.exp(-2) / math.sqrt(2 * math.pi), math.erf(math.sqrt(2))
    deviation = math.sqrt(1 - 4 * density / inside)
    assert np.abs(z).max() <= 1.0 + 1e-6 and z.std() == pytest.approx(0.5 * deviation, rel=0.01)
    assert np.mean(np.abs(z) < 0.25) == pytest.approx(math.erf(0.5 / math.sqrt(2)) / inside, abs=0.01)
    whole = np.asarray(text_to_image.sample_latents(dfgan.Generator(latent_size=100), keys))
    assert np.abs(whole).max() > 3 and whole.std() == pytest.approx(1, rel=0.01)


# CLIP's text tower in place of an encoder of its own.

TOWER = str(settings.ROOT / "tests" / "golden" / "clip_text_jit.pt")  # a small one: 64 tokens, sentences of 32 entries


def _with_clip(**overrides):
    stated = _config().to_dict() | {"text": {"name": "clip", "weights": TOWER}}
    stated["matching"]["images"] = 0
    config = configs.complete(type(_config())(stated), runs.defaults)
    for key, value in overrides.items():
        configs.override(config, key.replace("__", "."), str(value))
    return config


def test_players_hear_clip_which_is_in_no_state():
    """Sentences are those of the tower itself; losses and samples see them."""
    run = _build(_with_clip(**SGD), vocabulary=64)
    assert [phase.name for phase in run.phases] == ["discriminator", "generator"]
    state = runs.fresh_state(run)
    assert set(state.params) == set(state.opt) == {"generator", "discriminator"} and set(state.ema) == {"generator"}
    batch = settings.random_batch(run, 0)
    batch["caption"] = np.repeat(batch["caption"][:, :1], 2, 1)  # whichever is drawn
    batch["caption"][:, :, 3:] = (63, 0)  # the end, and padding
    tower = clip_text.load(TOWER)
    sentence = tower.apply(tower.arrays, batch["caption"][:, 0])[0]
    after, (metrics,) = settings.play(run, count=1, batches=[batch], state=state)
    own, (measured,) = settings.play(run, count=1, batches=[{**batch, "sentence": np.asarray(sentence)}], state=state)
    np.testing.assert_allclose(list(metrics.values()), list(measured.values()), rtol=1e-4, atol=1e-6)
    assert settings.largest_difference(after.params, own.params) < 1e-5
    params = jax.tree.map(lambda x: np.asarray(x) + 0.1, after.params["generator"])
    ema = {"generator": {"params": params}, **games.sampled(run.game, run.config)}
    keys = jax.random.split(jax.random.key(0), 8)
    z = text_to_image.sample_latents(run.nets["generator"], keys)
    expected = run.nets["generator"].apply({"params": params}, z, sentence, train=False)
    drawn = run.game.sample(run.nets, ema, keys, batch)["image"]
    np.testing.assert_allclose(drawn, expected, atol=1e-5)


def test_a_sampler_brings_fixed_networks_that_samples_need():
    run = _build(_with_clip(), vocabulary=64)
    state = parallel.replicate(runs.fresh_state(run), parallel.make_mesh())
    captions = np.full((3, 2, 5), 63, np.int32)
    images = painter.sampler(run)(state.ema, painter.keys_of(np.arange(3)), {"caption": captions})
    assert images.shape == (3, 8, 16, 1) and images.dtype == np.uint8


@pytest.mark.parametrize(("overrides", "message"), [
    ({"matching__images": 8}, "matching.images=8: the text encoder 'clip' is trained already; set it to 0"),
    ({"text__weights": "nowhere.pt"}, "config.text.weights='nowhere.pt': nowhere.pt: no such file, expected the weig"),
    ({}, "clip_text_jit.pt' is of 64 tokens, and the captions are of 9: set config.data.tokenizer='clip:PATH'"),
])  # fmt: skip
def test_errors_of_clip(overrides, message):
    with pytest.raises(UserError, match=message):
        _build(_with_clip(**overrides), vocabulary=64 if overrides else 9)


def test_whether_the_tower_is_fetched_may_change_in_a_run():
    assert configs.differences(_with_clip(), _with_clip(text__download=True)) == []


def test_captions_longer_than_clip_reads_are_refused():
    with pytest.raises(UserError, match="config.data.caption_length=9: CLIP's text tower reads up to 8 tokens"):
        _build(_with_clip(), vocabulary=64, captions=(2, 9))


def test_r_precision_is_of_runs_with_encoders_of_their_own():
    assert protocols.wanted(_config(), ("r_precision",)) == ("r_precision",)
    with pytest.raises(UserError, match="metrics=r_precision: the game 'text_to_image' has no encoders of captions"):
        protocols.wanted(_with_clip(), ("r_precision",))


# Errors.


@pytest.mark.parametrize(("overrides", "build", "message"), [
    ({"matching__images": 24}, {}, r"matching.images=24: the players have .*total_images=24; give fewer"),
    ({"matching__images": 0}, {}, "matching.images=0: then the text encoder stays as it was drawn"),
    ({"matching__images": -1}, {}, "matching.images=-1: expected a finite number, 0 or more"),
    ({"matching__contrast": 0.0}, {}, "matching.contrast=0.0: expected a finite number, above 0"),
    ({"matching__sentence_weight": 0.0, "matching__word_weight": 0.0}, {}, "config.matching has no term"),
    ({"loss__name": "relativistic"}, {}, "loss.name='relativistic': compares with other images"),
    ({"loss__power": 1.0}, {}, "loss.power=1.0: expected 2 or more"),
    ({"text__size": 7}, {}, "size=7: expected an even number"),
    ({"text__cell": "rnn"}, {}, "cell 'rnn' is unknown; expected one of lstm, gru"),
    ({"text__dropout": 1.0}, {}, "dropout=1.0: expected 0 or more and below 1"),
    ({}, {"shape": (2,)}, r"needs images, and captions of the kind tokens.*, not"),
    ({}, {"captions": (5,)}, r"needs images, and captions .*, not image .* and tokens \(5,\)"),
])  # fmt: skip
def test_errors(overrides, build, message):
    with pytest.raises(UserError, match=message):
        _build(_config(**overrides), **build)


def test_an_unknown_text_encoder_is_named():
    stated = _config().to_dict() | {"text": {"name": "bert"}}
    with pytest.raises(UserError, match="config.text.name='bert': expected one of recurrent, clip"):
        configs.complete(type(_config())(stated), runs.defaults)


def test_a_generator_that_hears_nothing_is_refused():
    stated = _config().to_dict() | {"generator": {"name": "dcgan"}}
    config = configs.complete(type(_config())(stated), runs.defaults)
    with pytest.raises(UserError, match="needs captioned, latent_size of 'generator'.*take a model that has: dfgan"):
        _build(config)
