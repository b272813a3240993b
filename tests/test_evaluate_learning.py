"""Scores of classifiers that learn generated images, and distances from the nearest training image."""

import functools
import itertools

import jax
import numpy as np
import pytest

from gan_jax import evaluate, metrics, run_data
from gan_jax.errors import UserError
from gan_jax.evaluate import judges, learning, plans, protocols
from gan_jax.evaluate import run as measuring
from gan_jax.features import digits_classifier, small_classifier
from gan_jax.metrics import nearest
from tests import settings

OPTIONS = {"conditional": True, "data__split": "train[:200]", "evaluation__split": "test", "evaluation__samples": 200}


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(small_classifier, "STEPS", 30)
    monkeypatch.setattr(small_classifier, "BATCH", 32)
    monkeypatch.setattr(learning, "SEEDS", 2)
    monkeypatch.setattr(digits_classifier, "STEPS", 8)
    monkeypatch.setattr(digits_classifier, "RECIPE", "of test_evaluate_learning")  # its name in the cache


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("learning") / "digits"
    return folder, settings.fresh_folder(settings.digits(**OPTIONS), folder)


def measured(run, names, images, labels, training=None) -> dict[str, dict]:
    """Rows by name of images in the generator's place; `training` is what the run was trained on, where it is open."""
    section = run.config.copy_and_resolve_references().unlock().evaluation
    section.samples = len(images)
    listed = protocols.wanted(run.config, names)
    planned = plans.ready(
        protocols.listed_protocols(section, listed), section, shape=images.shape[1:], seed=0,
        open_reals=lambda: run_data.open_field(run.config, "image", "test"),
        fit_judge=functools.partial(judges.fitted, run, "image", listed),
        open_training=lambda reals: training or measuring._training(run, "image", listed, reals),
    )  # fmt: skip
    return {row["metric"]: row for row in planned.measure(planned.of_images(images)[1], None, labels)}


def opened(run, split="train[:200]") -> tuple[np.ndarray, np.ndarray]:
    dataset = run_data.open_field(run.config, "image", split)
    examples = dataset.examples(np.arange(dataset.size))
    return examples["image"], examples["label"]


def test_copies_of_the_training_images_teach_what_these_do(digits):
    """Those of the right labels alone: others teach nothing. With the training images nothing is lost."""
    _, run = digits
    images, labels = opened(run)
    sets = (run_data.open_field(run.config, "image", split) for split in ("", "test"))
    training = learning.Training(*sets, mirrored=False)
    rows = measured(run, ("cas", "nas"), images, labels, training)
    assert list(rows) == ["cas", "cas/real", "cas/real_augmented", "nas"]
    for key in ("value", "low", "high", "accuracy_by_class"):
        assert rows["cas"][key] == rows["cas/real"][key]
    assert rows["cas"]["value"] > 0.6 and rows["cas/real_augmented"]["value"] != rows["cas/real"]["value"]
    assert rows["nas"]["value_of_reals"] == rows["cas/real"]["value"]
    assert rows["nas"]["value"] > 0.6
    by_class = rows["cas"]["accuracy_by_class"]
    _, held_out = opened(run, "test")
    weighted = sum(by_class[str(label)] for label in held_out) / len(held_out)
    assert list(by_class) == [str(label) for label in range(10)] and weighted == pytest.approx(rows["cas"]["value"])

    wrong = measured(run, ("cas",), images, (labels + 1) % 10, training)
    assert wrong["cas"]["value"] < 0.15 and wrong["cas/real"]["value"] == rows["cas"]["value"]


def test_copies_are_at_no_distance_and_held_out_images_at_theirs(digits):
    _, run = digits
    images, labels = opened(run)
    held_out, _ = opened(run, "test")
    copied = measured(run, ("nearest",), images[:50], None)
    fresh = measured(run, ("nearest",), held_out, None)
    assert list(copied) == ["nearest", "nearest_share", "nearest_digits_classifier", "nearest_digits_classifier_share"]
    a, b = (np.float64(x).reshape(len(x), -1) / 127.5 - 1 for x in (held_out, images))
    distances = np.array([np.sqrt(((row - b) ** 2).sum(axis=1)).min() for row in a])
    assert copied["nearest"]["value"] == 0 and copied["nearest_share"]["value"] == 1
    assert copied["nearest_digits_classifier"]["value"] < 1e-3
    for name in ("nearest", "nearest_share"):
        assert copied[name]["value_of_reals"] == fresh[name]["value_of_reals"]
    assert copied["nearest"]["value_of_reals"] == pytest.approx(distances.mean(), rel=1e-12)
    assert fresh["nearest"]["value"] == pytest.approx(distances.mean(), rel=1e-12)
    share = np.mean(distances <= np.quantile(distances, 0.05))
    assert fresh["nearest_share"]["value"] == fresh["nearest_share"]["value_of_reals"] == share
    assert copied["nearest"]["training"] == "digits/train[:200]" and copied["nearest"]["training_images"] == 200


@pytest.mark.parametrize("tile_bytes", [1, 8 * 7 * 5, 1 << 26])
def test_nearest_distances_are_those_of_all_pairs(monkeypatch, tile_bytes):
    monkeypatch.setattr(nearest, "TILE_BYTES", tile_bytes)
    rng = np.random.default_rng(0)
    rows, others = rng.integers(0, 256, (23, 7), dtype=np.uint8), rng.normal(100, 80, (31, 7))
    tile = nearest.tile_rows(7)
    distances = metrics.nearest_distances(rows, lambda: (others[i : i + tile] for i in range(0, 31, tile)))
    expected = [min(np.linalg.norm(row - other) for other in others) for row in np.float64(rows)]
    np.testing.assert_allclose(distances, expected, rtol=1e-12)
    assert (metrics.nearest_distances(rows, lambda: [rows[3:9]])[3:9] == 0).all(), "exact for whole numbers"


def test_generated_images_wait_within_bounds(digits, monkeypatch):
    """In many small goes the distances are the same, and mirrored copies count where the run has seen them."""
    _, run = digits
    config = run.config.copy_and_resolve_references().unlock()
    config.data.flip, config.evaluation.features = True, "none"
    monkeypatch.setattr(learning, "WAITING_BYTES", 3000)
    images, _ = opened(run)
    rows = measured(run._replace(config=config), ("nearest",), images[:90, :, ::-1], None)
    assert list(rows) == ["nearest", "nearest_share"] and rows["nearest"]["value"] == 0
    config.data.flip = False
    assert measured(run._replace(config=config), ("nearest",), images[:90, :, ::-1], None)["nearest"]["value"] > 1


def test_a_mean_and_the_interval_of_student():
    """t of 4 degrees of freedom is 2.776 at 97.5%."""
    values = np.array([0.80, 0.82, 0.79, 0.83, 0.81])
    spread = metrics.student_interval(values)
    reach = 2.7764 * np.sqrt(((values - 0.81) ** 2).sum() / 4 / 5)
    np.testing.assert_allclose(spread, [0.81, 0.81 - reach, 0.81 + reach], rtol=1e-5)


def test_accuracies_by_class():
    predicted = [[0, 0, 1, 2], [0, 1, 1, 1]]
    shares = metrics.class_accuracies(predicted, np.array([0, 0, 1, 2]), 4)
    np.testing.assert_array_equal(shares, [0.75, 1, 0.5, np.nan])


def test_the_classifier_is_a_function_of_its_seed_and_sees_augmented_images(digits, monkeypatch):
    _, run = digits
    monkeypatch.setattr(small_classifier, "STEPS", 6)
    (images, labels), (others, _) = opened(run), opened(run, "test")
    images, others = (small_classifier.shrunk(x, 16) for x in (images, others))
    first, again, other, shifted = (
        small_classifier.predictions(images, labels, others, classes=10, seed=seed, augmented=augmented)
        for seed, augmented in ((0, False), (0, False), (1, False), (0, True))
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any() and (first != shifted).any()
    assert {small_classifier.side_of(shape) for shape in ((8, 8, 1), (32, 32, 1), (31, 40, 3))} == {16}
    assert {small_classifier.side_of(shape) for shape in ((32, 32, 3), (256, 256, 3))} == {32}
    assert [small_classifier.steps_for(count) for count in (1, 3200, 10**6)] == [6, 1000, 4000]


def test_all_of_them_through_the_command(digits, capsys):
    """Of the pass that other metrics share; the labels are those that the generator is given."""
    folder, _ = digits
    rows = {row["metric"]: row for row in evaluate.evaluate(folder, metrics="cas,nas,nearest")}
    assert list(rows) == ["cas", "cas/real", "cas/real_augmented", "nas", "nearest", "nearest_share",
                          "nearest_digits_classifier", "nearest_digits_classifier_share"]  # fmt: skip
    for name in ("cas", "cas/real", "cas/real_augmented", "nas"):
        row = rows[name]
        assert row["better"] == "higher" and row["low"] <= row["value"] <= row["high"] and row["level"] == 0.95
        assert (row["training"], row["split"], row["reals"]) == ("digits/train[:200]", "test", 360)
        assert row["classifiers"] == 2 and len(row["classifier_sha256"]) == 64
    assert [rows[name]["samples"] for name in ("cas", "cas/real", "nas")] == [200, 0, 200]
    assert rows["cas"]["value"] < 0.5 < rows["cas/real"]["value"], "an untrained generator teaches nothing"
    assert rows["nas"]["gain_low"] <= rows["nas"]["gain"] <= rows["nas"]["gain_high"]
    assert rows["nas"]["gain"] == pytest.approx(rows["nas"]["value"] - rows["cas/real"]["value"])
    assert rows["nearest"]["better"] == "nearer the reals" and rows["nearest"]["value"] > 0
    assert "features" not in rows["nearest"] and rows["nearest_digits_classifier"]["features"]
    table = evaluate.table(list(rows.values()))
    assert "beside the 200 training images of digits/train[:200]" in table and "gain " in table and "(reals " in table


@pytest.mark.parametrize(("overrides", "message"), [
    ({"conditional": False}, "^metrics=cas,nas: .* of the game 'unconditional' is unconditional; train one with"),
    ({"evaluation__split": ""}, "^metrics=cas,nas,nearest,nearest_features: they compare with held-out .*--split=test"),
    ({"evaluation__split": "train[:200]"}, "config.evaluation.split='train.:200.' names those that are trained on"),
])  # fmt: skip
def test_runs_without_labels_or_held_out_images(overrides, message):
    with pytest.raises(UserError, match=message):
        protocols.wanted(settings.digits(**{**OPTIONS, **overrides}), ("cas", "nas", "nearest"))


@pytest.mark.parametrize(("split", "reals"), [("train[:5]", "test"), ("train", "test[:3]")])
def test_a_class_without_an_image(split, reals):
    config = settings.digits(**{**OPTIONS, "data__split": split, "evaluation__split": reals})
    run = settings.build(config, num_classes=10)
    lacking = split if split != "train" else reals
    with pytest.raises(UserError, match="^metrics=cas,nas: the class '.' has no image in digits/") as error:
        measuring._training(run, "image", ("cas",), run_data.open_field(config, "image", reals))
    assert f"digits/{lacking}; name a split" in str(error.value)
    measuring._training(run, "image", ("nearest",), run_data.open_field(config, "image", reals))


def test_points_have_no_nearest_images_and_checkpoints_no_order_by_them():
    config = settings.digits(**{**OPTIONS, "evaluation__metrics": "('nearest',)"})
    with pytest.raises(UserError, match="nearest is the better the nearer the reals"):
        evaluate.ranking(config)
    assert "neither the least" in protocols.unranked("nearest_digits_classifier_share")
    assert [protocols.direction(name) for name in ("cas", "cas/real", "nas", "discriminator/loss")] == [
        "higher", "higher", "higher", "lower"]  # fmt: skip


def test_augmented_images_are_shifted_and_mirrored_copies():
    """By numpy: each is one of the nine shifts by up to a pixel of its image, or of its mirror image."""
    images = np.random.default_rng(0).normal(size=(40, 16, 16, 3)).astype(np.float32)
    key = jax.random.key(0)
    np.testing.assert_array_equal(small_classifier._augmented(key, images, 0, 0.0), images)
    np.testing.assert_array_equal(small_classifier._augmented(key, images, 0, 1.0), images[:, :, ::-1])
    seen = set()
    for image, shifted in zip(images, np.asarray(small_classifier._augmented(key, images, 1, 0.5)), strict=True):
        ways = {}
        for mirrored in (False, True):
            padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), "edge")
            for down, right in itertools.product(range(3), range(3)):
                crop = padded[down : down + 16, right : right + 16]
                ways[down, right, mirrored] = crop[:, ::-1] if mirrored else crop
        (way,) = [way for way, crop in ways.items() if np.array_equal(crop, shifted)]
        seen.add(way)
    assert {down for down, _, _ in seen} == {right for _, right, _ in seen} == {0, 1, 2}
    assert {mirrored for _, _, mirrored in seen} == {False, True}
