"""Measuring a run: rows with their protocol, and values that are known beforehand."""

import functools
import json

import jax
import numpy as np
import pytest

from gan_jax import evaluate, folders, logs, metrics, painter, parallel, run_data, runs
from gan_jax import help as help_texts
from gan_jax.data import mixture
from gan_jax.errors import MissingPathError, UserError
from gan_jax.evaluate import equivariance as equivariance_rows
from gan_jax.evaluate import judges, plans, protocols
from gan_jax.evaluate import run as measuring
from gan_jax.metrics import equivariance
from tests import settings

ALL = "('fd','kd','prdc','classes')"


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate") / "digits"
    config = settings.digits(evaluation__metrics=ALL, evaluation__samples=96)
    return folder, settings.fresh_folder(config, folder)


@pytest.fixture(scope="module")
def rows(digits):
    """Every metric of an untrained generator, through the command's function."""
    return evaluate.evaluate(digits[0])


@pytest.fixture(scope="module")
def reals(digits):
    dataset = run_data.open_data(digits[1].config)
    return dataset.examples(np.arange(dataset.size))


def by_name(rows) -> dict[str, float]:
    return {row["metric"]: row["value"] for row in rows}


def values_of(run, images, labels=None) -> dict[str, float]:
    """What the classifier says of images in the generator's place."""
    section = run.config.evaluation
    planned = plans.ready(
        protocols.listed_protocols(section, section.metrics), section, shape=images.shape[1:], seed=0,
        open_reals=lambda: run_data.open_data(run.config), fit_judge=functools.partial(judges.fitted, run, "image", ()),
    )  # fmt: skip
    return by_name(planned.measure(planned.of_images(images)[1], None, labels))


def test_rows_have_the_whole_protocol(digits, rows):
    names = [row["metric"] for row in rows]
    assert names[:5] == ["fd_digits_classifier", *(f"fd_digits_classifier/{name}" for name in (
        "floor_train_vs_held_out", "pixel_gaussian", "untrained_generator")), "kd_digits_classifier"]  # fmt: skip
    assert names[5:9] == [f"prdc_digits_classifier_{name}" for name in ("precision", "recall", "density", "coverage")]
    assert set(names[9:]) == {"confidence", "class_share_min", *(f"class_share/{i}" for i in range(10))}
    for row in rows:
        classes = row["metric"] in names[9:]
        assert row["features"] == f"digits_classifier/{'logits' if classes else 'features'}"
        assert len(row["features_sha256"]) == 64
        assert row["features_accuracy"] >= 0.97 and "16x16" in row["preprocessing"]
        assert (row["step"], row["images"], row["seed"]) == (0, 0, 0)
        assert row["samples"] == (360 if "held_out" in row["metric"] else 96)
        assert row["version"] and np.isfinite(row["value"]) and "group" not in row
        if not classes:  # which look at no reals
            assert (row["data"], row["split"], row["reals"], row["flip"]) == ("digits", "train", 1437, False)
            assert len(row["data_fingerprint"]) == 64 and row["filter"]
    assert {row["metric"] for row in rows if row["better"] == "lower"} == {*names[:5]}


def test_rows_are_appended_to_the_runs_file(digits, rows):
    path = digits[0] / "evaluations.jsonl"
    before = path.read_text().splitlines()
    assert [json.loads(line) for line in before[: len(rows)]] == rows
    more = evaluate.evaluate(digits[0], metrics="classes")
    assert evaluate.read(digits[0])[len(before) :] == more
    assert {k: v for k, v in by_name(more).items()} == {k: by_name(rows)[k] for k in by_name(more)}


def test_style_entropy_stands_beside_that_of_the_reals(digits, reals):
    """The classifier's posteriors of the reals themselves, by numpy."""
    (row,) = evaluate.evaluate(digits[0], metrics="style_entropy", append=False)
    net = judges.fitted(digits[1], "image", (), "digits_classifier")
    logits = np.float64(net.apply(net.variables, reals["image"], ("logits",))["logits"])
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    assert row["metric"] == "style_entropy" and row["features"] == "digits_classifier/logits"
    assert (row["better"], row["samples"], row["reals"]) == ("higher", 96, 1437)
    assert row["value_of_reals"] == pytest.approx(-(p * np.log(np.maximum(p, 1e-300))).sum(1).mean(), rel=1e-3)
    assert row["value_of_reals"] < row["value"] < np.log(10)  # an untrained generator's images are no digits


def test_a_folder_that_takes_nothing_loses_no_value(digits, monkeypatch, capsys):
    """Values are printed before the error says that they could not be kept."""

    def full(path, row):
        raise UserError(f"{path}: cannot be written")

    monkeypatch.setattr(logs, "append_line", full)
    with pytest.raises(UserError, match="evaluations.jsonl: cannot be written"):
        evaluate.evaluate(digits[0], metrics="classes")
    assert "class_share_min" in capsys.readouterr().out


def test_values_that_are_known_beforehand(rows):
    """An untrained generator is as far as an untrained generator; reals are nearer to reals; shares sum to one."""
    values = by_name(rows)
    name = "fd_digits_classifier"
    assert values[name] == values[f"{name}/untrained_generator"]
    assert 0 < values[f"{name}/floor_train_vs_held_out"] < 0.05 * values[name]
    assert values[f"{name}/floor_train_vs_held_out"] < values[f"{name}/pixel_gaussian"]
    shares = [value for key, value in values.items() if key.startswith("class_share/")]
    assert sum(shares) == pytest.approx(1) and min(shares) == values["class_share_min"]
    assert 0.1 <= values["confidence"] <= 1 and values["prdc_digits_classifier_coverage"] <= 0.2


def test_reals_against_themselves(digits, reals, rows):
    """Drawn in the generator's place, the reals are at distance nought and as good as real.

    The kernel distance is unbiased for independent samples; of one set with itself it is a little below nought.
    """
    _, run = digits
    run = run._replace(config=run.config.copy_and_resolve_references().unlock())
    run.config.evaluation.samples = len(reals["image"])

    values = values_of(run, reals["image"])
    assert abs(values["fd_digits_classifier"]) < 1e-6
    assert -0.03 * by_name(rows)["kd_digits_classifier"] < values["kd_digits_classifier"] <= 0
    assert all(values[f"prdc_digits_classifier_{name}"] == 1.0 for name in ("precision", "recall", "coverage"))
    counts = np.bincount(reals["label"], minlength=10) / len(reals["label"])
    found = [values[f"class_share/{label}"] for label in range(10)]
    np.testing.assert_allclose(found, counts, atol=0.01)
    assert values["confidence"] > 0.97


def test_fid_is_an_alias_that_is_never_reported(digits):
    rows = evaluate.evaluate(digits[0], metrics="kid,fid")
    names = [row["metric"] for row in rows]
    assert names[0] == "kd_digits_classifier" and "fd_digits_classifier" in names
    assert not any(name.startswith(("fid", "kid")) for name in names)
    assert "fid and kid" in help_texts.of("evaluate")


def test_labels_agree_with_the_judge_where_the_classes_are_right(reals):
    config = settings.digits(conditional=True, evaluation__metrics="('classes',)", evaluation__samples=200)
    run, first = settings.build(config, num_classes=10), slice(0, 200)
    right = values_of(run, reals["image"][first], reals["label"][first])
    wrong = values_of(run, reals["image"][first], (reals["label"][first] + 1) % 10)
    assert right["label_agreement"] > 0.97 and wrong["label_agreement"] < 0.03
    shares = np.bincount(reals["label"][first], minlength=10) / 200
    np.testing.assert_allclose([right[f"class_share/{label}"] for label in range(10)], shares, atol=0.011)


def test_the_generator_is_given_the_labels_that_it_is_judged_by(reals, monkeypatch):
    """Those of the data, drawn with replacement by numpy's generator of the run's seed, in every metric alike.

    A generator that draws a real digit of its label is right nearly always.
    """
    config = settings.digits(conditional=True, evaluation__metrics="('classes',)", evaluation__samples=150, seed=7)
    run = settings.build(config, num_classes=10)
    digit = jax.numpy.stack([reals["image"][np.flatnonzero(reals["label"] == label)[3]] for label in range(10)])
    monkeypatch.setattr(measuring.painter, "generator", lambda run: lambda ema, keys, given: digit[given["label"]])
    rows = evaluate.measurer(run)({}, step=0, images=0)
    values = by_name(rows)
    assert values["label_agreement"] > 0.97 and all(row["labels"] == "drawn from the data" for row in rows)
    drawn = reals["label"][(np.random.default_rng([7, 1]).random(150) * len(reals["label"])).astype(int)]
    shares = np.bincount(drawn, minlength=10) / 150
    np.testing.assert_allclose([values[f"class_share/{label}"] for label in range(10)], shares, atol=0.011)

    labels_of = {}
    monkeypatch.setattr(measuring, "EQUIVARIANCE", {"eqt": "eqt_int"})
    monkeypatch.setattr(measuring.protocols, "wanted", lambda config, names: ("eqt", "ppl2_wend_20"))
    rows = lambda run, ema, names, labels, check: labels_of.update(eqt=labels) or []  # noqa: E731
    monkeypatch.setattr(measuring.equivariance, "rows", rows)
    walk = lambda ema, labels: labels_of.update(ppl=labels) or 0.0  # noqa: E731
    monkeypatch.setattr(measuring.path_lengths, "measurer", lambda *_: walk)
    with monkeypatch.context() as patch:
        patch.setitem(config.evaluation, "features", "random_vgg16")
        evaluate.measurer(run)({}, step=0, images=0)
    for labels in labels_of.values():
        np.testing.assert_array_equal(labels[:150], drawn)
    assert set(labels_of) == {"eqt", "ppl"}


def test_floors_are_of_the_other_split(digits):
    """None where the reals are of both; of a part of a split, the whole other one."""
    counts = {}
    for split in ("test[:50%]", "all"):
        rows = evaluate.evaluate(digits[0], metrics="fd", settings={"split": split})
        counts[split] = {row["metric"].rpartition("/")[2]: row["samples"] for row in rows}
    assert counts["test[:50%]"]["floor_train_vs_held_out"] == 1437
    assert "floor_train_vs_held_out" not in counts["all"] and counts["all"]["untrained_generator"] == 96


def test_one_device_and_eight_measure_alike(digits, monkeypatch):
    folder, _ = digits
    make_mesh = parallel.make_mesh
    eight = by_name(evaluate.evaluate(folder, metrics="fd,kd,classes"))
    monkeypatch.setattr(parallel, "make_mesh", lambda devices=None: make_mesh(jax.devices()[:1]))
    one = by_name(evaluate.evaluate(folder, metrics="fd,kd,classes"))
    assert one.keys() == eight.keys()
    for name, value in one.items():
        assert value == pytest.approx(eight[name], rel=1e-3, abs=1e-3), name


def test_modes_of_a_mixture(tmp_path):
    """Equal to the metric itself on the same samples."""
    measured = [("evaluation.metrics", "modes"), ("evaluation.samples", "500")]
    config = runs.load_config(f"{settings.EXPERIMENTS / 'mixture_gan.py'}:smoke", measured)
    run = settings.fresh_folder(config, tmp_path / "run")
    rows = evaluate.evaluate(tmp_path / "run")
    ema = folders.restore(run, tmp_path / "run", parallel.make_mesh()).state.ema
    keys = painter.keys_from(config.seed, "evaluation", np.arange(500))
    points = painter.sampler(run)(ema, keys, {})
    centres, std = mixture.mixture(config.data.name.removeprefix("mixture:"))
    quality = metrics.mixture_quality(points, centres, std)
    assert by_name(rows) == {"modes_covered": quality.modes_covered, "high_quality_share": quality.high_quality_share,
                             "mode_kl": quality.reverse_kl}  # fmt: skip
    assert rows[0]["modes"] == len(centres) and rows[0]["within_sigmas"] == 3.0 and rows[0]["samples"] == 500

    points, _ = mixture.points("ring8", 0, np.arange(500))
    values = by_name(measuring._modes(run, points))
    assert values["modes_covered"] == len(centres) and values["high_quality_share"] > 0.96


@pytest.fixture(scope="module")
def movable(tmp_path_factory):
    """A tiny StyleGAN3 of 18 images, the last two in a group of their own, and its rows."""
    folder = tmp_path_factory.mktemp("equivariance") / "run"
    measured = [("evaluation.metrics", "('eqt','eqr')"), ("evaluation.samples", "18"), ("seed", "3"),
                ("data.resolution", "16")]
    config = runs.load_config(f"{settings.EXPERIMENTS / 'stylegan3.py'}:smoke", measured)
    run = settings.fresh_folder(config, folder)
    return run, folder, evaluate.evaluate(folder, metrics="eqr,eqt,eqt_frac")


def test_equivariance_of_a_run(movable):
    """Equal to the metric of the groups of four, drawn one after another on one device."""
    run, folder, rows = movable
    ema = folders.restore(run, folder, parallel.make_mesh(jax.devices()[:1])).state.ema["generator"]
    keys = painter.keys_from(3, "evaluation", np.arange(18))
    z = np.asarray(run.game.latents(run.nets["generator"], keys))
    apply = jax.jit(lambda z, transform: run.nets["generator"].apply(ema, z, train=False, transform=transform))

    def render(group, transform):
        return apply(z[4 * group : 4 * group + 4], np.float32(transform))

    names = ("eqr", "eqr"), ("eqt", "eqt_int"), ("eqt_frac", "eqt_frac")
    assert [row["metric"] for row in rows] == [name for name, _ in names]
    for row, (name, metric) in zip(rows, names, strict=True):
        draws = equivariance.draw(metric, 5, seed=3)
        assert row["value"] == pytest.approx(equivariance.equivariance(render, draws, metric=metric), abs=0.01)
        still = equivariance.equivariance(lambda group, _: render(group, np.eye(3)), draws, metric=metric)
        assert row["value"] > still + 6, name  # a picture that stays where it is


def test_rows_of_equivariance_have_their_protocol(movable, monkeypatch):
    run, folder, rows = movable
    for row in rows:
        assert (row["samples"], row["seed"], row["better"], row["unit"]) == (18, 3, "higher", "dB")
        assert (row["psnr_range"], row["images_per_motion"]) == (2.0, 4)
        assert row.get("translate_max") == (None if row["metric"] == "eqr" else 0.125)
        assert row.get("rotate_max") == (1.0 if row["metric"] == "eqr" else None)
    assert evaluate.read(folder) == rows and f"{rows[0]['value']:.4f} dB" in evaluate.table(rows)
    ranking = evaluate.ranking(run.config)
    assert ranking["metric"].startswith("eqt features=none,") and not ranking["lower_is_better"]

    monkeypatch.setattr(equivariance_rows, "moved_errors", lambda *_: np.array([[1.0, 400.0]] * 3))
    run = run._replace(config=run.config.copy_and_resolve_references().unlock())
    run.config.evaluation.samples = 50_000
    names = ("eqt", "eqt_frac", "eqr")
    values = by_name(evaluate.measurer(run, names=names)({}, step=0, images=0))
    assert values == pytest.approx({"eqt50k_int": 32.0412, "eqt50k_frac": 32.0412, "eqr50k": 32.0412})  # 20 log10 40


@pytest.mark.parametrize(("names", "message"), [
    ("eqt,eqr", "metrics=eqt,eqr: they move the generator's input, and config.generator.name='dcgan'"),
    ("fdd", "metrics='fdd': expected some of fd, kd"),
    ("modes", "only mixtures have known modes, not 'digits'"),
])  # fmt: skip
def test_metrics_that_cannot_be_had(digits, names, message):
    with pytest.raises(UserError, match=message):
        evaluate.evaluate(digits[0], metrics=names)


def test_features_that_do_not_fit_the_data():
    config = settings.digits(evaluation__features="none", evaluation__metrics="fd")
    with pytest.raises(UserError, match="metrics=fd: they need features"):
        evaluate.wanted(config)
    with pytest.raises(UserError, match="features='inceptionn': expected one of digits_classifier"):
        evaluate.wanted(settings.digits(evaluation__features="inceptionn"))
    with pytest.raises(UserError, match="judges the data 'digits', not 'synthetic:64'"):
        evaluate.wanted(settings.digits(data__name="synthetic:64"))
    assert evaluate.wanted(settings.digits(), ()) == ()


def test_a_run_that_is_not_there(tmp_path):
    with pytest.raises(MissingPathError, match="give the folder of a run that has trained"):
        evaluate.evaluate(tmp_path)


def test_the_order_of_the_first_metric_decides_the_best():
    for listed, expected in (("('fd','prdc')", ("fd", True)), ("('prdc','fd')", ("prdc", False)), ("()", ("", True))):
        found = evaluate.ranking(settings.digits(evaluation__metrics=listed))
        assert (found["metric"].partition(" ")[0], found["lower_is_better"]) == expected


def test_the_classifier_takes_the_settings_of_all_features(digits, reals, tmp_path):
    """The split of the reals, mirrored ones, and moments to a file and back."""
    run, file = digits[1], str(tmp_path / "moments.npz")
    test = evaluate.evaluate(digits[0], metrics="fd", settings={"split": "test"})
    floor = {row["metric"].rpartition("/")[2]: row for row in test}["floor_train_vs_held_out"]
    assert (test[0]["split"], test[0]["reals"], floor["samples"]) == ("test", 360, 1437)
    flipped = evaluate.evaluate(digits[0], metrics="fd", settings={"flip_reals": "True"}, save_statistics=file)
    assert (flipped[0]["reals"], flipped[0]["flip"]) == (2874, True)
    judge = judges.fitted(run, "image", (), "digits_classifier")
    both = np.concatenate([reals["image"], reals["image"][:, :, ::-1]])
    features = jax.jit(lambda x: judge.apply(judge.variables, x, ("features",)))(both)["features"]
    np.testing.assert_allclose(metrics.load_moments(file).mean, np.mean(features, 0), rtol=1e-4, atol=1e-4)
    of_file = evaluate.evaluate(digits[0], metrics="fd", settings={"statistics": file})
    assert [row["metric"] for row in of_file] == ["fd_digits_classifier"]
    assert of_file[0]["value"] == pytest.approx(flipped[0]["value"], rel=1e-5) and of_file[0]["reals"] == 2874


def test_the_best_is_sought_among_values_of_one_protocol():
    """A setting that is changed on resuming makes other values."""
    of = functools.partial(settings.digits, evaluation__metrics="('fid12_full',)")
    plain = evaluate.ranking(of())
    for key, value in (("samples", 100), ("features", "random_inception"), ("flip_reals", True), ("split", "test")):
        assert evaluate.ranking(of(**{f"evaluation__{key}": value})) != plain, key
    assert evaluate.ranking(of(evaluation__batch_size=3)) == plain


def test_the_table_shows_values_and_protocol(rows):
    text = evaluate.table(rows)
    assert "step 0, 0 images, 96 samples" in text and f"{rows[0]['value']:.4f}" in text
    assert "features digits_classifier/features (test accuracy 9" in text and "1437 reals of digits/train" in text
    assert evaluate.table([]) == "no metrics are configured"
