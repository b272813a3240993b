"""Whether samples show what they were to show: several labels of a picture, and a judge that is fitted on them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import cli, evaluate, runs
from gan_jax.data import open_dataset
from gan_jax.errors import UserError
from gan_jax.evaluate import judges, protocols
from gan_jax.features import digits_classifier
from gan_jax.features.networks import FeatureNet
from tests import caption_game, settings
from tests.test_sample_captions import templates


def test_shares_of_labels_that_are_right():
    """Of two labels with 2 and 3 classes; the logits of one stand behind those of the other."""
    logits = np.float32([[1, 0, 0, 0, 9], [0, 1, 5, 0, 0], [3, 2, 0, 1, 0]])  # 0 and 2; 1 and 0; 0 and 1
    np.testing.assert_array_equal(digits_classifier.answers(logits, (2, 3)), [[0, 2], [1, 0], [0, 1]])
    shares = judges.shares(logits, np.int32([[0, 2], [0, 0], [0, 0]]), {"side": 2, "size": 3})
    assert shares == {"": pytest.approx(1 / 3), "side": pytest.approx(2 / 3), "size": pytest.approx(2 / 3)}


def test_samples_begin_anew_after_the_last_example_and_mirrored_reals_are_left_out():
    asked = judges.Asked({"side": 2, "size": 2}, np.int32([[0, 0], [1, 1]]), np.array([1, 3, 0, 2]))
    logits = np.float32([[1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]])  # 0, 0; 1, 1; 0, 0
    assert asked.of_samples(logits)[""] == 1.0
    assert asked.of_reals(logits[[1, 0, 0]])[""] == 1.0  # the second is a copy of example 1


def _halves(count, seed):
    """Pictures 8x16 whose halves are each dark, grey or white, with noise; and what they are, (N, 2)."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, (count, 2))
    levels = np.repeat(np.array([20, 120, 220])[labels], 8, axis=1)[:, None, :]
    images = np.clip(levels + rng.normal(0, 12, (count, 8, 16)), 0, 255).astype(np.uint8)
    return images[..., None], labels


@pytest.fixture
def short_fit(monkeypatch, tmp_path):
    monkeypatch.setenv("GAN_JAX_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(digits_classifier, "STEPS_OF_SEVERAL", 40)


def test_a_judge_of_several_labels(short_fit, monkeypatch):
    """It sees pictures twice as wide as high in their shape, and says each label."""
    train, test = _halves(256, 0), _halves(64, 1)
    net = digits_classifier.fit(*train, *test, noise=0.1, classes=(3, 3))
    assert net.outputs == {"features": 96, "logits": 6} and net.preprocessing.startswith("box to 16x32")
    logits = np.asarray(net.apply(net.variables, test[0], ("logits",))["logits"])
    right = np.stack([logits[:, :3].argmax(1), logits[:, 3:].argmax(1)], 1) == test[1]
    assert net.accuracy == pytest.approx(right.all(1).mean()) and net.accuracy > 0.9
    monkeypatch.setattr(digits_classifier, "_train", lambda *_: pytest.fail("it was fitted again"))
    wrong = test[0][:1], (test[1][:1] + 1) % 3
    again = digits_classifier.fit(*train, *wrong, noise=0.1, classes=(3, 3))  # tried on others, without a fit
    assert again.sha256 == net.sha256 and again.accuracy == 0.0


def _exact(*arrays, noise, classes):
    """A judge that knows the pictures of `templates`: the nearest of each half, and bright where a level is high."""
    pictures = jnp.asarray(np.round((templates() + 1) * 127.5))

    def apply(variables, images, outputs):
        x = images[..., 0].astype(jnp.float32)
        level = jnp.where(x.max((1, 2)) > 160, 1.0, 0.4)
        halves = (x[:, None, :, :8], x[:, None, :, 8:])
        distances = [-jnp.abs(half - level[:, None, None, None] * pictures).mean((2, 3)) for half in halves]
        return {"logits": jnp.concatenate([*distances, jnp.stack([1 - level, level], 1)], 1)}

    assert classes == (11, 11, 2) and [array.shape[0] for array in arrays] == [4_000, 4_000, 1_000, 1_000]
    return FeatureNet("exact", "0" * 64, True, "none", {"logits": 24}, {"none": np.zeros(1, np.float32)}, apply, 0.5)


@pytest.fixture
def exact(monkeypatch):
    monkeypatch.setattr(digits_classifier, "fit", _exact)
    monkeypatch.setattr(digits_classifier, "of_weights", lambda variables, net: net)


def _run(folder, **overrides):
    config = runs.load_config(caption_game.__file__, [(key.replace("__", "."), str(v)) for key, v in overrides.items()])
    return settings.fresh_folder(config, folder, lambda state: state._replace(
        ema=jax.tree.map(lambda x: templates() if x.shape == (11, 8, 8) else x, state.ema)))  # fmt: skip


@pytest.mark.parametrize("split", ["test", "unseen"])
def test_what_is_drawn_as_it_is_said_is_obeyed(exact, tmp_path, split):
    """Of every split, by the labels that no game reads."""
    _run(tmp_path / "run")
    rows = evaluate.evaluate(str(tmp_path / "run"), metrics="obeyed", settings={"split": split, "samples": "1200"})
    assert [row["metric"] for row in rows] == ["obeyed", "obeyed_left", "obeyed_right", "obeyed_brightness"]
    assert [row["value"] for row in rows] == [1.0] * 4
    assert {row["better"] for row in rows} == {"higher"} and rows[0]["features_accuracy"] == 0.5
    assert (rows[0]["split"], rows[0]["data"], rows[0]["reals"]) == (split, "digits:captions", 1_000)
    reals = open_dataset(name="digits:captions", resolution=(8, 16), split=split).examples(np.arange(1_000))
    seen = np.asarray(_exact(*[np.zeros(n) for n in (4_000, 4_000, 1_000, 1_000)], noise=0, classes=(11, 11, 2)).apply(
        {}, jnp.asarray(reals["image"]), ("logits",))["logits"])  # fmt: skip
    right = {"left": seen[:, :11].argmax(1) == reals["left"], "right": seen[:, 11:22].argmax(1) == reals["right"],
             "brightness": seen[:, 22:].argmax(1) == reals["brightness"]}  # fmt: skip
    assert rows[0]["value_of_reals"] == pytest.approx(np.all(list(right.values()), axis=0).mean())
    for row in rows[1:]:
        assert row["value_of_reals"] == pytest.approx(right[row["metric"].removeprefix("obeyed_")].mean())


def test_what_is_always_dim_is_obeyed_where_that_was_said(exact, tmp_path, capsys):
    _run(tmp_path / "run", generator__always_dim=True)
    assert cli.main(["evaluate", f"--workdir={tmp_path / 'run'}", "--metrics=obeyed", "--samples=500"]) == 0
    table = capsys.readouterr().out
    examples = open_dataset(name="digits:captions", resolution=(8, 16), split="test").examples(np.arange(500))
    share = 1 - examples["brightness"].mean()
    assert f"obeyed             {share:.4f} (reals 0." in table
    assert f"obeyed_brightness  {share:.4f}" in table and "obeyed_left        1.0000" in table


def test_it_can_rank_checkpoints():
    config = runs.load_config(caption_game.__file__, [("evaluation.metrics", "obeyed")])
    ranking = evaluate.ranking(config)
    assert ranking["metric"].startswith("obeyed ") and not ranking["lower_is_better"]
    config.evaluation.judge_split = "every"
    assert evaluate.ranking(config)["metric"] != ranking["metric"]
    assert protocols.direction("obeyed_left") == "higher"


def test_games_without_examples_and_data_without_labels_are_named(tmp_path):
    config = settings.digits(evaluation__metrics="('obeyed',)")
    with pytest.raises(UserError, match=r"metrics=obeyed: samples of the game 'unconditional' are of no examples"):
        evaluate.measurer(settings.build(config))
    from tests.test_data_captions import _fill

    _fill(tmp_path, {"train/1.png": 1, "train/1.txt": "a", "test/2.png": 2, "test/2.txt": "a"})
    overrides = {"data.name": f"folder:{tmp_path}", "evaluation.metrics": "obeyed"}
    config = runs.load_config(caption_game.__file__, overrides.items())
    run = runs.build(config, runs.data_spec(config, runs.open_data(config)))
    with pytest.raises(UserError, match=r"metrics=obeyed: 'folder:.*' has no labels, by which a judge could be fitted"):
        evaluate.measurer(run)


def test_shares_of_classes_are_of_one_label():
    features = {"evaluation.features": "digits_classifier", "evaluation.metrics": "classes"}
    config = runs.load_config(caption_game.__file__, features.items())
    run = runs.build(config, runs.data_spec(config, runs.open_data(config)))
    with pytest.raises(UserError, match=r"metrics=classes: 'digits:captions' has the labels left, right, brightness"):
        evaluate.measurer(run)
