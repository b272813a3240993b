"""One pass for all metrics: equal to each metric by itself, on any devices; reals cached, imported, exported."""

import json

import jax
import numpy as np
import pytest

from gan_jax import evaluate, folders, metrics, painter, parallel, provenance, run_data, runs
from gan_jax.errors import MissingPathError, UserError
from gan_jax.evaluate import collect, plans
from gan_jax.evaluate import reals as real_side
from gan_jax.features import networks
from gan_jax.metrics import sliced_wasserstein
from gan_jax.train import train
from tests import settings, tiny_network

NAMES = ("fid21_full", "fid13", "kid21_full", "prdc21_full", "is20", "swd16", "msssim8", "fid21_full_interval")


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """Inception is the stand-in, with published weights of its own unless features are random."""
    monkeypatch.setitem(networks.KINDS, "inception", tiny_network.KIND)
    monkeypatch.setattr(networks.store, "load", lambda name, **_: tiny_network.weights(published=True))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder, run) of an untrained generator of 32x32 grey images; its reals are 40 synthetic ones."""
    folder = tmp_path_factory.mktemp("pass") / "run"
    config = settings.digits(data__name="synthetic:40", evaluation__metrics=str(NAMES), evaluation__samples=21)
    return folder, settings.fresh_folder(config, folder)


def images_of(made, count: int, purpose: str = "evaluation") -> np.ndarray:
    folder, run = made
    ema = folders.restore(run, folder, parallel.make_mesh()).state.ema
    keys = painter.keys_from(run.config.seed, purpose, np.arange(count))
    return painter.sampler(run)(ema, keys, {})


def reals_of(run) -> np.ndarray:
    """In the order in which reals are taken."""
    dataset = run_data.open_data(run.config)
    return dataset.examples(np.random.RandomState(0).permutation(dataset.size))["image"]


def by_name(rows) -> dict[str, float]:
    return {row["metric"]: row["value"] for row in rows}


@pytest.fixture(scope="module")
def rows(made):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(networks.KINDS, "inception", tiny_network.KIND)
        patch.setattr(networks.store, "load", lambda name, **_: tiny_network.weights(published=True))
        return evaluate.evaluate(made[0])


def test_every_value_is_that_of_the_metric_alone(made, rows):
    """From images that are drawn and features that are taken apart from the pass."""
    fakes, reals, state = images_of(made, 21), reals_of(made[1]), tiny_network.weights(True).state
    own, theirs = tiny_network.features(fakes, state), tiny_network.features(reals, state)

    def frechet(a, b):
        a, b = metrics.moments(a), metrics.moments(b)
        return metrics.frechet_distance(a.mean, a.covariance, b.mean, b.covariance)

    near = metrics.neighbourhoods(theirs, own, k=5)
    kid = metrics.kernel_distance(theirs, own, subsets=100, subset_size=1000, seed=2020)
    score = metrics.inception_score(tiny_network.features(fakes[:20], state, "logits"), splits=10, seed=None)
    swd = sliced_wasserstein.sliced_wasserstein([reals[:16]], [fakes[:16]], seed=0)
    expected = {
        "fid21_full": frechet(own, theirs), "fid13": frechet(own[:13], theirs[:13]), "kid21_full": kid[0],
        **{f"prdc21_full_{name}": value for name, value in near._asdict().items()}, "is20": score[0],
        "swd16": swd["mean"], "swd16_32": swd["32"], "swd16_16": swd["16"],
        "msssim8": metrics.variation(fakes[:16]).mean(), "fid21_full_interval": frechet(own, theirs),
    }
    values = by_name(rows)
    assert list(values) == list(expected)
    for name, value in expected.items():
        assert values[name] == pytest.approx(value, rel=1e-5, abs=1e-9), name


def test_rows_say_how_they_came_about(made, rows):
    named = {row["metric"]: row for row in rows}
    fid = named["fid21_full"]
    dataset = run_data.open_data(made[1].config)
    expected = {
        "features": "inception/2048", "features_sha256": "ab" * 32, "samples": 21, "reals": 40, "data": "synthetic:40",
        "split": "train", "flip": False, "data_fingerprint": dataset.fingerprint, "seed": 0, "better": "lower",
        "preprocessing": "bilinear 299x299 as TensorFlow 1, (x-128)/128", "resolution": "[32, 32]", "step": 0,
    }
    assert {key: fid[key] for key in expected} == expected
    assert len(fid["code_sha256"]) == 64 and fid["version"] and fid["filter"] == "lanczos"
    assert named["fid13"]["reals"] == 13 and named["fid13"]["samples"] == 13
    assert "reals" not in named["is20"] and "data" not in named["is20"] and "features" not in named["swd16"]
    assert (named["kid21_full"]["subsets"], named["kid21_full"]["subset_size"]) == (100, 21)
    assert named["prdc21_full_recall"]["neighbours"] == 5 and named["msssim8"]["pairs"] == 8
    interval = named["fid21_full_interval"]
    assert interval["low"] <= interval["value"] <= interval["high"] and interval["level"] == 0.95
    assert all("group" not in row and "kind" not in row for row in rows)
    assert [json.loads(line) for line in (made[0] / "evaluations.jsonl").read_text().splitlines()][: len(rows)] == rows


def test_one_device_and_eight_and_any_batch_measure_alike(made, rows, monkeypatch):
    make_mesh = parallel.make_mesh
    monkeypatch.setattr(parallel, "make_mesh", lambda devices=None: make_mesh(jax.devices()[:1]))
    for batch in ("1", "6", "64"):  # 21 and 13 are no multiples
        again = by_name(evaluate.evaluate(made[0], metrics="fid21_full,fid13,kid21_full,is20,swd16,msssim8",
                                          settings={"batch_size": batch}))
        for name, value in again.items():
            assert value == pytest.approx(by_name(rows)[name], rel=1e-5), (batch, name)


def test_reals_come_from_the_cache_the_second_time(made, rows, monkeypatch):
    def no_pass(*_):
        raise AssertionError("a pass over the reals")

    monkeypatch.setattr(real_side, "passing", lambda *_: no_pass)
    assert by_name(evaluate.evaluate(made[0], metrics="fid21_full"))["fid21_full"] == by_name(rows)["fid21_full"]
    for settings_ in ({"flip_reals": "True"}, {"preprocessing": "clean"}, {"split": "test"}):
        with pytest.raises(AssertionError, match="a pass over the reals"):
            evaluate.evaluate(made[0], metrics="fid21_full", settings=settings_)


def test_a_damaged_cache_is_made_anew(made, rows, tmp_path, monkeypatch):
    monkeypatch.setenv("GAN_JAX_CACHE_DIR", str(tmp_path))  # others use the shared one at the same time
    for _ in range(2):
        found = by_name(evaluate.evaluate(made[0], metrics="fid21_full"))["fid21_full"]
        assert found == by_name(rows)["fid21_full"]
        (file,) = real_side.cache_dir("statistics").iterdir()
        file.write_bytes(b"damaged")


def test_mirrored_reals(made):
    """Every real and its mirror image once."""
    dataset = run_data.open_data(made[1].config)
    whole = dataset.examples(np.arange(40))["image"]
    reals = real_side.of(dataset, flip=True)
    found = reals.images(np.arange(80))
    expected = np.concatenate([whole, whole[:, :, ::-1]])
    as_bytes = [sorted(image.tobytes() for image in images) for images in (found, expected)]
    assert as_bytes[0] == as_bytes[1] and reals.size == 80 and reals.protocol()["flip"] is True


def test_statistics_of_other_programs(made, rows, tmp_path, capsys):
    """Written, read again, and as pytorch-fid has them: without a count."""
    path = tmp_path / "reals.npz"
    evaluate.evaluate(made[0], metrics="fid21_full", save_statistics=str(path))
    assert f"wrote {path}: inception/2048 of 40 reals" in capsys.readouterr().out
    with np.load(path) as file:
        reals = metrics.moments(tiny_network.features(reals_of(made[1]), tiny_network.weights(True).state))
        np.testing.assert_allclose(file["mu"], reals.mean, rtol=1e-5)
        np.testing.assert_allclose(file["sigma"], reals.covariance, rtol=1e-4, atol=1e-8)
        np.savez(tmp_path / "plain.npz", mu=file["mu"], sigma=file["sigma"])
    for name, count in (("reals", 40), ("plain", "unknown")):
        file = str(tmp_path / f"{name}.npz")
        row = evaluate.evaluate(made[0], metrics="fid21_full", settings={"statistics": file})[0]
        assert row["value"] == pytest.approx(by_name(rows)["fid21_full"], rel=1e-9)
        assert (row["reals"], row["data"], len(row["data_fingerprint"])) == (count, f"file:{file}", 64)
    np.savez(tmp_path / "other.npz", mu=np.zeros(7), sigma=np.eye(7))
    with pytest.raises(UserError, match="moments of 7 features, and inception/2048 has 6"):
        evaluate.evaluate(made[0], metrics="fid21_full", settings={"statistics": str(tmp_path / "other.npz")})
    with pytest.raises(MissingPathError, match="nowhere.npz"):
        evaluate.evaluate(made[0], metrics="fid21_full", settings={"statistics": str(tmp_path / "nowhere.npz")})
    with pytest.raises(UserError, match="none of the metrics has moments"):
        evaluate.evaluate(made[0], metrics="is20", save_statistics=str(path))


def test_random_weights_have_names_of_their_own(made):
    rows = evaluate.evaluate(made[0], metrics="fid21_full,kid13,fd", settings={"features": "random_inception"})
    assert [row["metric"] for row in rows] == ["fd21_full_random_inception", "kd13_random_inception",
                                               "fd_random_inception"]
    assert rows[0]["value"] == rows[2]["value"] and rows[0]["features"] == "random_inception/2048"


def test_too_few_images_are_told_with_the_bias(made, capsys):
    """The bias is what two sets of independent samples of the reals' Gaussian score on average, 8 and 40 of them."""
    row = evaluate.evaluate(made[0], metrics="fid8_full")[0]
    assert "8 images for 6 features" in row["warning"] and f"fid8_full: {row['warning']}" in capsys.readouterr().err
    reals = metrics.moments(tiny_network.features(reals_of(made[1]), tiny_network.weights(True).state))
    rng, drawn = np.random.default_rng(1), []
    for _ in range(400):
        a, b = (metrics.moments(rng.multivariate_normal(reals.mean, reals.covariance, n)) for n in (8, 40))
        drawn.append(metrics.frechet_distance(a.mean, a.covariance, b.mean, b.covariance))
    told = float(row["warning"].partition("about ")[2].partition(";")[0])
    assert np.quantile(drawn, 0.02) < told < np.quantile(drawn, 0.98)
    assert "warning" not in evaluate.evaluate(made[0], metrics="fid30_full")[0]
    few = evaluate.evaluate(made[0], metrics="fid5_full")[0]
    assert "their covariance is singular" in few["warning"] and "score about" in few["warning"]
    assert "score at least about" in evaluate.evaluate(made[0], metrics="fid8")[0]["warning"]  # of few reals, too


def test_fewer_reals_than_the_name_says(made):
    row = evaluate.evaluate(made[0], metrics="kid60")[0]
    assert row["reals"] == 40 and row["warning"] == "40 reals, all there are, where the name means 60"
    assert "warning" not in evaluate.evaluate(made[0], metrics="kid60_full")[0]


@pytest.mark.parametrize(("names", "message"), [
    ("swd64", "synthetic:40/train has 40 images, and it compares 64 with as many: list swd40"),
    ("prdc1k60_full", "against 40 reals of synthetic:40/train; expected 61 or more"),
])  # fmt: skip
def test_reals_that_are_too_few(made, names, message):
    with pytest.raises(UserError, match=message):
        evaluate.evaluate(made[0], metrics=names)


def test_what_a_pass_needs():
    a = collect.Needs(moments=(collect.Want("n", "x", 5),), rows=(collect.Want("n", "y", 3),))
    b = collect.Needs(moments=(collect.Want("n", "x", 5), collect.Want("m", "x", 9)))
    both = collect.union([a, b])
    assert len(both.moments) == 2 and both.total() == 9 and both.outputs() == {"m": ("x",), "n": ("x", "y")}
    assert collect.Needs().total() == 0


def test_a_pass_that_divides_nothing():
    """Rows in order, accumulators at their counts, consumers fed in chunks of one size."""
    data = np.random.default_rng(0).standard_normal((150, 3)).astype(np.float32)
    fed = []
    pictures = np.arange(150, dtype=np.uint8)
    needs = collect.Needs(
        moments=(collect.Want("n", "x", 150), collect.Want("n", "x", 7)), rows=(collect.Want("n", "x", 11),),
        consumers=((130, fed.append),),
    )
    found = collect.collect(needs, lambda i: {"n/x": data[i], "images": pictures[i]}, 16)
    np.testing.assert_array_equal(found.rows[collect.Want("n", "x", 11)], data[:11])
    for count in (7, 150):
        moments = found.moments[collect.Want("n", "x", count)]
        np.testing.assert_allclose(moments.mean, data[:count].mean(0, dtype=np.float64), rtol=1e-12)
        np.testing.assert_allclose(moments.covariance, np.cov(data[:count].astype(np.float64).T), rtol=1e-10)
        assert moments.count == count
    assert [len(part) for part in fed] == [64, 64, 2]
    np.testing.assert_array_equal(np.concatenate(fed), pictures[:130])


def test_the_largest_batch_that_fits():
    tried = []

    def attempt(batch):
        tried.append(batch)
        if batch > 20:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return np.zeros(batch)

    assert collect.largest_batch(attempt, 100, 4) == 16 and tried == [100, 52, 28, 16]
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        collect.largest_batch(lambda _: (_ for _ in ()).throw(jax.errors.JaxRuntimeError("INTERNAL")), 8, 4)


def test_labels_of_a_conditional_run_are_drawn_from_the_data():
    labels = np.array([0, 0, 0, 1])
    drawn = real_side.draw_labels(labels, 20_000, 3)
    assert drawn.mean() == pytest.approx(0.25, abs=0.02)
    np.testing.assert_array_equal(real_side.draw_labels(labels, 50, 3), drawn[:50])
    config = settings.digits(conditional=True, evaluation__metrics="('fid12_full',)")
    run = settings.build(config, num_classes=10)
    dataset = run_data.open_data(config)
    asked = real_side.of(dataset).labels()
    np.testing.assert_array_equal(asked, dataset.examples(np.arange(dataset.size))["label"])
    ema = jax.jit(lambda: runs.init_state(run).ema)()
    row = evaluate.measurer(run)(ema, step=0, images=0)[0]
    assert row["labels"] == "drawn from the data" and np.isfinite(row["value"])


def test_measured_while_training(tmp_path):
    """Every so many images and at the end, each time of the generator of that moment; the data go on as without."""
    plain = settings.digits(data__name="synthetic:24", evaluation__metrics="()", total_images=32)
    config = settings.digits(data__name="synthetic:24", evaluation__metrics="('fid9_full','swd16')", total_images=32,
                             every__evaluate_images=16)
    train(config, tmp_path / "run")
    train(plain, tmp_path / "plain")
    rows = evaluate.read(tmp_path / "run")
    assert [(row["metric"], row["images"]) for row in rows if row["metric"] in ("fid9_full", "swd16")] == [
        ("fid9_full", 16), ("swd16", 16), ("fid9_full", 32), ("swd16", 32)]
    again = evaluate.evaluate(tmp_path / "run")
    assert by_name(again) == pytest.approx(by_name(row for row in rows if row["images"] == 32), rel=1e-5)
    states = [folders.restore(settings.build(config), tmp_path / name, parallel.make_mesh()).state.params
              for name in ("run", "plain")]
    assert settings.largest_difference(*states) == 0


def test_channels_that_networks_do_not_take():
    config = settings.digits(data__name="synthetic:8", data__channels=2, evaluation__metrics="('fid4_full',)")
    run = settings.build(config, shape=(32, 32, 2))
    with pytest.raises(UserError, match="take 1 or 3 channels"):
        evaluate.measurer(run)


def test_bias_of_many_and_of_few():
    """First order far above the number of features; drawn below. Both near the mean of many draws."""
    reals = metrics.moments(np.random.default_rng(0).standard_normal((4000, 8)) * np.arange(1, 9))
    for count in (12, 2000):
        for known in (reals.count, 20, 0):  # images behind the reals' moments; 0: not known, taken as exact
            rng, drawn = np.random.default_rng(2), []
            for _ in range(100):
                two = [metrics.moments(rng.multivariate_normal(reals.mean, reals.covariance, n)) if n else reals
                       for n in (known, count)]
                drawn.append(metrics.frechet_distance(two[0].mean, two[0].covariance, two[1].mean, two[1].covariance))
            few = min(count, known or count) < 32
            bias = plans._bias(reals._replace(count=known), count)
            assert bias == pytest.approx(np.mean(drawn), rel=0.7 if few else 0.1), (count, known)


def test_bias_of_fewer_images_than_features(monkeypatch):
    """Of 9 reals and 7 images with 30 features: near the mean of many draws, by matrices of their number alone."""
    reals, rng, drawn = metrics.moments(np.random.default_rng(0).standard_normal((9, 30))), np.random.default_rng(3), []
    for _ in range(60):
        one, two = (metrics.moments(rng.multivariate_normal(reals.mean, reals.covariance, n)) for n in (9, 7))
        drawn.append(metrics.frechet_distance(one.mean, one.covariance, two.mean, two.covariance))
    solved = []
    for name in ("eigh", "eigvalsh"):
        plain = getattr(np.linalg, name)
        monkeypatch.setattr(np.linalg, name, lambda c, plain=plain: (solved.append(len(c)), plain(c))[1])
    assert np.quantile(drawn, 0.02) < plans._bias(reals, 7) < np.quantile(drawn, 0.98) and max(solved) <= 8
    same = metrics.moments(np.ones((9, 30)))
    assert plans._bias(same, 7) == 0


def test_lines_that_do_not_compare(rows, tmp_path):
    one = rows[0]
    assert provenance.unlike(one, {**one, "value": 3.0, "seed": 5, "step": 9, "seconds": 1, "code_sha256": "x"}) == []
    assert provenance.unlike(one, {**one, "samples": 5, "features_sha256": "cd" * 32}) == [
        "samples 21, not 5", "features_sha256 abababababab, not cdcdcdcdcdcd"]
    assert provenance.unlike(one, {**one, "data": "folder:/elsewhere"}) == []  # the fingerprint is what counts
    without = {key: value for key, value in one.items() if key != "reals"}
    assert provenance.unlike(one, without) == ["reals 40, not none"]
    for name, line in (("a", one), ("b", {**one, "value": 7.0}), ("c", {**one, "reals": 13})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "evaluations.jsonl").write_text(json.dumps(line) + "\n")
    (tmp_path / "e.jsonl").write_text(json.dumps({**one, "code_sha256": "x", "value": 8.0}) + "\n")
    assert "8.0000" in evaluate.comparison([str(tmp_path / "a"), str(tmp_path / "e.jsonl")]).split("(other code)")[0]
    text = evaluate.comparison([str(tmp_path / name) for name in "abc"])
    marked = [line for line in text.splitlines() if line.endswith("not comparable")]
    assert len(marked) == 1 and "/c" in marked[0] and "reals 13, not 40" in text and "7.0000" in text
    (tmp_path / "d").mkdir()
    assert evaluate.comparison([str(tmp_path / "d")]) == "none of the runs has been measured"
