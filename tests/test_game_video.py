"""Games of clips: what each net sees, terms of the losses, devices, prediction, what cannot be played."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from gan_jax import config as configs
from gan_jax import runs, specs
from gan_jax.errors import UserError
from gan_jax.games import clips, video, video_prediction
from gan_jax.models import mocogan
from gan_jax.step import Rng
from tests import settings

MOCOGAN = {
    "generator": {"name": "mocogan", "width": 2, "content": 3, "motion": 2},
    "discriminator_frames": {"name": "mocogan", "width": 2, "layers": 1},
    "discriminator_clips": {"name": "mocogan", "width": 2, "layers": 1, "window": 2},
}
DVDGAN = {
    "generator": {"name": "dvdgan", "widths": (3, 2), "still": 1, "blocks": 1, "latent_size": 3, "embed_size": 2},
    "discriminator_frames": {"name": "dvdgan", "widths": (2, 2), "halvings": 1},
    "discriminator_clips": {"name": "dvdgan", "widths": (2, 2), "halvings": 1, "volumes": 1},
}
PLAYER = {"name": "sgd", "learning_rate": 1e-2}
SHAPE = (6, 8, 8, 1)


def _config(game, nets, **overrides):
    """Complete; keys with `__` for dots."""
    stated = {"game": game, "batch_size": 8, "data": {"name": "digits:moving", "frames": SHAPE[0]}, **nets}
    stated |= {"optim": {"generator": dict(PLAYER), "discriminator": dict(PLAYER)}}
    config = configs.complete(ConfigDict(stated), runs.defaults)
    for key, value in overrides.items():
        configs.override(config, key.replace("__", "."), str(value))
    return config


def _build(game, nets, shape=SHAPE, **overrides):
    config = _config(game, nets, **overrides)
    return runs.build(config, specs.films(shape, 3 if config.conditional else 0))


@pytest.fixture
def small():
    """Makes a run, and what its phases see in a first step: (run, State, batch, Rng, rules)."""

    def make(game, nets, **overrides):
        run = _build(game, nets, **overrides)
        state = runs.fresh_state(run)
        rules = run.phases[0].loss.keywords["rules"]  # of one device's shard: here without a mesh
        rules = rules._replace(nets={name: net.clone(axis_name=None) for name, net in rules.nets.items()})
        batch = settings.random_batch(run, 0)
        rng = Rng(jax.random.key(0), jax.random.split(jax.random.key(1), 8))
        return run, state, batch, rng, rules

    return make


# What the nets see.


def test_frames_are_drawn_from_those_that_are_made_and_clips_are_made_small(small):
    """Of clips whose frames are their own numbers: different ones, in order, others for other samples."""
    overrides = {"video__context": 2, "video__frames": 3, "video__shrink": 2}
    _, state, batch, rng, rules = small("video_prediction", DVDGAN, **overrides)
    batch["video"] = np.broadcast_to(np.arange(6, dtype=np.uint8)[:, None, None, None], (8, *SHAPE)).copy()
    batch["video"][:, :, ::2] += 2
    _, drawn = clips.begin(state.params, state, batch, rng, rules)
    seen = clips.views(drawn.real, drawn, rules)
    frames, whole = seen["discriminator_frames"], seen["discriminator_clips"]
    assert frames.shape == (8, 3, 8, 8, 1) and whole.shape == (8, 6, 4, 4, 1)
    numbers = np.round((frames[:, :, 1, 0, 0] + 1) * 127.5).astype(int)
    assert (np.diff(numbers) > 0).all() and numbers.min() == 2 and numbers.max() == 5
    assert len({tuple(row) for row in np.asarray(numbers).tolist()}) > 2
    np.testing.assert_allclose((whole[0, :, 0, 0, 0] + 1) * 127.5, np.arange(6) + 1, atol=1e-4)


def test_the_discriminator_of_clips_sees_the_context_in_front_of_what_is_made(small):
    _, state, batch, rng, rules = small("video_prediction", DVDGAN, video__context=4)
    play, drawn = clips.begin(state.params, state, batch, rng, rules)
    fake = clips.generated(play, drawn, rules)
    assert fake.shape == (8, *SHAPE)
    np.testing.assert_array_equal(fake[:, :4], batch["video"][:, :4] / np.float32(127.5) - 1)
    assert clips.views(fake, drawn, rules)["discriminator_frames"].shape == (8, 2, 8, 8, 1)


def test_a_clip_is_mirrored_as_a_whole(small):
    _, state, batch, rng, rules = small("video", MOCOGAN, data__flip=True)
    _, drawn = clips.begin(state.params, state, batch, rng, rules)
    plain = batch["video"] / np.float32(127.5) - 1
    mirrored = [np.array_equal(ours, theirs[:, :, ::-1]) for ours, theirs in zip(drawn.real, plain, strict=True)]
    same = [np.array_equal(ours, theirs) for ours, theirs in zip(drawn.real, plain, strict=True)]
    assert any(mirrored) and any(same) and np.logical_xor(mirrored, same).all()


# Terms of the losses.


@pytest.mark.parametrize("labels", (False, True), ids=("categories", "labels"))
def test_categories_are_told_from_real_clips_where_they_have_labels(small, labels):
    """Class logits of a head that favours one class everywhere, by 2: of real labels, or of drawn categories."""
    nets = {net: {**fields, "categories": 3} for net, fields in MOCOGAN.items()}
    _, state, batch, rng, rules = small("video", nets, conditional=labels, loss__classes=0.5)
    heads, classes = clips.judged, np.array([0.0, 2.0, 0.0])

    def favoured(play, judge, view, drawn, noise):
        logits, answers = heads(play, judge, view, drawn, noise)
        is_read = noise == clips.NOISE_REAL or not labels
        return logits, answers if answers is None else 0 * answers + (classes if is_read else -99)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clips, "judged", favoured)
        loss, out = clips._discriminator_loss(state.params, state, batch, rng, rules=rules, weights={"classes": 0.5})
        _, of_generator = clips._generator_loss(state.params, state, batch, rng, rules=rules, weights={"classes": 0.5})
    _, drawn = clips.begin(state.params, state, batch, rng, rules)
    right = batch["label"] if labels else np.argmax(drawn.z[:, 3:6], -1)
    expected = (np.log(2 + np.exp(2)) - classes[right]).mean()
    assert out.metrics["classes"] == pytest.approx(expected, rel=1e-5)
    terms = [out.metrics[f"{view}_{side}"] for view in ("frames", "clips") for side in ("real", "fake")]
    assert loss == pytest.approx(float(sum(terms) + 0.5 * expected), rel=1e-5)
    if not labels:
        assert of_generator.metrics["classes"] == pytest.approx(expected, rel=1e-5)


def test_the_generator_is_pulled_towards_the_frames_that_come(small):
    _, state, batch, rng, rules = small("video_prediction", DVDGAN, video__context=4)
    loss, out = clips._generator_loss(state.params, state, batch, rng, rules=rules, weights={"l1": 10.0})
    play, drawn = clips.begin(state.params, state, batch, rng, rules)
    future = clips.generated(play, drawn, rules)[:, 4:]
    right = batch["video"][:, 4:] / 127.5 - 1
    assert out.metrics["l1"] == pytest.approx(np.abs(future - right).mean(), rel=1e-5)
    total = out.metrics["frames"] + out.metrics["clips"] + 10 * out.metrics["l1"]
    assert loss == pytest.approx(float(total), rel=1e-6)


def test_a_lazy_penalty_is_as_many_times_as_strong(small):
    run, state, batch, rng, rules = small("video", DVDGAN, loss__r1_gamma=2.0, every__penalty_steps=4)
    periods = [(phase.name, phase.every) for phase in run.phases]
    assert periods == [("discriminator", 1), ("penalty", 4), ("generator", 1)]
    assert not dict(run.phases[0].weights) and dict(run.phases[1].weights) == {"r1_gamma": 2.0}
    value, out = clips._lazy_penalty(state.params, state, batch, rng, rules=rules, weights={"r1_gamma": 2.0})
    at_once, terms = clips._discriminator_loss(
        state.params, state, batch, rng, rules=rules._replace(penalty_steps=1), weights={"r1_gamma": 2.0}
    )
    assert value == pytest.approx(4 * float(terms.metrics["r1"]), rel=1e-5) and out.variables == {}
    sides = [terms.metrics[f"{view}_{side}"] for view in ("frames", "clips") for side in ("real", "fake")]
    assert at_once == pytest.approx(float(sum(sides) + terms.metrics["r1"]), rel=1e-6)


# Devices, samples.


@pytest.mark.parametrize(("game", "nets", "overrides"), [
    ("video", MOCOGAN, dict(conditional=True, video__frames=1, discriminator_clips__noise=0.1, data__flip=True)),
    ("video_prediction", DVDGAN, dict(video__frames=1, loss__r1_gamma=1.0)),
], ids=("mocogan", "prediction"))  # fmt: skip
def test_one_and_eight_devices_agree(game, nets, overrides):
    run = _build(game, nets, **overrides)
    (one, metrics), (eight, measured) = (settings.play(run, count=2, devices=devices) for devices in (1, 8))
    for part in ("params", "variables", "ema"):
        assert settings.largest_difference(getattr(one, part), getattr(eight, part), floor=0.01) < 1e-4, part
    for ours, theirs in zip(metrics, measured, strict=True):
        np.testing.assert_allclose(list(ours.values()), list(theirs.values()), rtol=1e-3, atol=1e-5)


def test_a_sample_is_a_function_of_its_own_key_and_of_what_it_is_given(small):
    run, state, batch, *_ = small("video_prediction", DVDGAN, video__context=2)
    context = video_prediction.derive(run.config, batch)["context"]
    keys = jax.random.split(jax.random.key(5), 8)
    future = video_prediction.sample(run.nets, state.ema, keys, {"context": context})["future"]
    assert future.shape == (8, 4, 8, 8, 1)
    alone = video_prediction.sample(run.nets, state.ema, keys[3:4], {"context": context[3:4]})["future"]
    np.testing.assert_allclose(future[3:4], alone, atol=1e-5)
    other = video_prediction.sample(run.nets, state.ema, keys[3:4], {"context": context[3:4, ::-1]})["future"]
    assert np.abs(other - alone).max() > 1e-4  # the order of the given frames matters
    run, state, *_ = small("video", MOCOGAN)
    drawn = video.sample(run.nets, state.ema, keys, {})["video"]
    assert drawn.shape == (8, *SHAPE) and video.drawn(run.config) == "video"
    np.testing.assert_allclose(video.sample(run.nets, state.ema, keys[5:6], {})["video"], drawn[5:6], atol=1e-5)


# Prediction's fields.


def test_a_clip_is_cut_into_what_is_given_and_what_comes():
    config = _config("video_prediction", DVDGAN, video__context=4)
    fields = video_prediction.derived(config, specs.films(SHAPE))
    assert {name: field.shape for name, field in fields.items()} == {"context": (4, 8, 8, 1), "future": (2, 8, 8, 1)}
    examples = np.arange(2 * 6 * 64).reshape(2, *SHAPE)
    parts = video_prediction.derive(config, {"video": examples})
    np.testing.assert_array_equal(parts["context"], examples[:, :4])
    np.testing.assert_array_equal(parts["future"], examples[:, 4:])
    assert video_prediction.asks(config) == ("context",) and video_prediction.target(config) == "future"


def test_baselines_repeat_the_last_frame_and_go_on_in_a_line():
    config = _config("video_prediction", DVDGAN, video__context=4)
    train = type("Train", (), {"spec": specs.films((7, 1, 2, 1))})
    methods = video_prediction.baselines(config, train)
    context = np.uint8([[[100, 9], [0, 0], [20, 250], [30, 240]]]).reshape(1, 4, 1, 2, 1)
    assert list(methods) == ["copy_last", "linear"]
    last = methods["copy_last"]({"context": context})
    assert last.dtype == np.uint8
    np.testing.assert_array_equal(last.reshape(3, 2), [[30, 240]] * 3)
    line = methods["linear"]({"context": context * np.uint8([1, 1]).reshape(1, 1, 1, 2, 1)})
    np.testing.assert_array_equal(line.reshape(3, 2), [[40, 230], [50, 220], [60, 210]])
    ends = methods["linear"]({"context": np.uint8([0, 0, 10, 250]).reshape(1, 2, 1, 2, 1)})
    np.testing.assert_array_equal(ends.reshape(3, 2)[:, 1], [255, 255, 255])


# What cannot be played.


@pytest.mark.parametrize(("game", "nets", "overrides", "message"), [
    ("video", MOCOGAN, {"video__frames": 7}, "config.video.frames=7: expected 1 to 6"),
    ("video_prediction", DVDGAN, {"video__context": 4, "video__frames": 3}, "config.video.frames=3: expected 1 to 2"),
    ("video", DVDGAN, {"video__shrink": 3}, "config.video.shrink=3: expected a divisor of 8 and 8"),
    ("video_prediction", DVDGAN, {"video__context": 6}, "config.video.context=6: expected 1 to 5, for clips of 6 fra"),
    ("video", DVDGAN, {"loss__r1_gamma": -1}, "config.loss.r1_gamma=-1"),
    ("video_prediction", MOCOGAN, {}, "needs clips, predicts of 'generator', and 'mocogan' has no predicts; take a "
     "model that has: dvdgan"),
    ("video", {**MOCOGAN, "discriminator_clips": {**MOCOGAN["discriminator_clips"], "categories": 3}}, {},
     "config.discriminator_clips: it tells 3 categories, and the generator draws clips of 0; give both as many"),
    ("video", {**MOCOGAN, "generator": DVDGAN["generator"]}, {"conditional": True},
     "it tells 3 categories, and the generator draws clips of 0; give both as many categories, or set"),
    ("video", {**MOCOGAN, "discriminator_frames": {"name": "dcgan"}}, {}, "needs clips of 'discriminator_frames', and "
     "'dcgan' has no clips"),
])  # fmt: skip
def test_what_cannot_be_played_is_named(game, nets, overrides, message):
    with pytest.raises(UserError, match=re.escape(message)):
        _build(game, nets, **overrides)


def test_pictures_are_no_clips():
    config = _config("video", MOCOGAN)
    with pytest.raises(UserError, match=r"the game 'video' needs clips, not image of the shape \(8, 8, 1\)"):
        runs.build(config, {"video": specs.Field("image", (8, 8, 1))})
    with pytest.raises(UserError, match="'mocogan' makes clips"):
        mocogan.Discriminator(shape=(8, 8, 1))


def test_frames_of_clips_keep_their_gradient():
    """Of the frames that are drawn alone."""
    rules = clips.Rules({}, None, False, 2, 1, 1)
    draws = {clips.FRAMES: jnp.asarray([[0.9, 0.1, 0.5, 0.2]])}
    drawn = clips.Clips(None, None, None, draws)

    def total(x):
        return clips.views(x, drawn, rules)["discriminator_frames"].sum()

    slope = jax.grad(total)(jnp.zeros((1, 4, 2, 2, 1)))
    np.testing.assert_array_equal(slope[0, :, 0, 0, 0], [0, 1, 0, 1])
