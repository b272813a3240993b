"""The Python interface: what it draws and measures is what the commands write, and its page is true."""

import ast
import contextlib
import csv
import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from PIL import Image

import gan_jax
from gan_jax import cli, evaluate, metrics, parallel, runs, sample
from gan_jax.features import digits_classifier, networks
from tests import settings, test_evaluate_folders, test_sample_styles, tiny_network

PAGE = settings.ROOT / "docs" / "python.md"
SHALLOW = {"generator__features": "(4,)", "generator__strides": "(8,)", "discriminator__features": "(4,)",
           "discriminator__strides": "(8,)"}  # fmt: skip


@pytest.fixture(scope="module")
def tiny():
    """A small network in the place of Inception, and a digits' classifier that is fitted in a few steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(networks.KINDS, "inception", tiny_network.KIND)
        patch.setattr(networks.store, "load", lambda name, **_: tiny_network.weights(published=True))
        patch.setattr(digits_classifier, "STEPS", 8)
        patch.setattr(digits_classifier, "RECIPE", "of test_api")  # it names the fit in the cache, which others share
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with runs before their first step: with labels, with styles, of a translation, of points."""
    place = tmp_path_factory.mktemp("api")
    settings.fresh_folder(settings.digits(**SHALLOW, conditional=True), place / "runs" / "digits_dcgan_conditional")
    settings.fresh_folder(test_sample_styles.style_config(), place / "runs" / "digits_stylegan2",
                          test_sample_styles.lively)  # fmt: skip
    for name, changes in (("digits_cyclegan", {"generator.halvings": 1}), ("digits_captions", {}), ("mixture_gan", {})):
        settings.fresh_folder(gan_jax.load_config(f"{name}:smoke", changes), place / "runs" / name)
    return place


@pytest.fixture(scope="module")
def page(place, tiny):
    """The names that the page's blocks leave behind, and pairs of what it says of a line, and what is."""
    names, pairs = {}, []
    with contextlib.chdir(place):
        for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S):
            lines = block.splitlines()
            for statement in ast.parse(block).body:
                said = [comment for line in lines[statement.lineno - 1 : statement.end_lineno]
                        if (comment := line.partition("  # ")[2])]  # fmt: skip
                source = ast.unparse(statement)
                if said and isinstance(statement, ast.Expr):
                    pairs.append((said, [repr(eval(source, names))]))
                    continue
                with contextlib.redirect_stdout(io.StringIO()) as printed:
                    exec(source, names)
                if said:
                    pairs.append((said, printed.getvalue().splitlines()))
    return names, pairs


@pytest.fixture(scope="module")
def trained(page, place):
    """The run that the page trains."""
    return gan_jax.open_run(place / "runs" / "smoke")


def pngs(folder, **flags) -> np.ndarray:
    """What the command `sample` writes for each seed."""
    with tempfile.TemporaryDirectory() as out:
        *files, _ = sample.sample(str(folder), out, **flags)
        images = np.stack([np.asarray(Image.open(file)) for file in files])
    return images if images.ndim == 4 else images[..., None]


def test_what_the_page_says_is_so(page, place):
    names, pairs = page
    assert len(pairs) > 10 and [text for text, _ in pairs] == [value for _, value in pairs]
    assert names["both"].shape == (8, 32, 32, 1) and names["there"].shape == (4, 16, 16, 3)
    assert names["distance"] > 0 and (place / "grid.png").exists() and not (place / "runs" / "slow").exists()
    one, two = names["digits"], names["threes"]
    np.testing.assert_array_equal(two[0], one.sample([0], labels="3")[0])


def test_images_are_those_of_the_command(trained):
    images = trained.sample([3, 0, 7])
    assert images.dtype == np.uint8 and images.shape == (3, 32, 32, 1)
    np.testing.assert_array_equal(images, pngs(trained.workdir, seeds="3,0,7"))
    np.testing.assert_array_equal(trained.sample(np.arange(64)), trained.sample())
    z = trained.latents([3, 0, 7])
    assert z.shape == (3, 100) and z.dtype == np.float32
    assert np.abs(trained.decode(z).astype(int) - images).max() <= 1, "at most a rounding apart"
    older = gan_jax.open_run(trained.workdir, 2)
    assert (older.step, older.images_seen) == (2, 16)
    np.testing.assert_array_equal(older.sample([3]), pngs(trained.workdir, seeds="3", step=2))
    assert gan_jax.open_run(trained.workdir, "best").step in (2, 3)


def test_labels_by_number_and_name(place, tmp_path):
    folder = tmp_path / "named"
    shutil.copytree(place / "runs" / "digits_dcgan_conditional", folder)
    summary = json.loads((folder / "data.json").read_text())
    summary["classes"] = dict.fromkeys(["zero", "one, or so", *"abcdefgh"], 9)
    (folder / "data.json").write_text(json.dumps(summary))
    run = gan_jax.open_run(folder)
    assert run.class_names[:2] == ("zero", "one, or so")
    expected = pngs(folder, seeds="0-3", labels="1,2")
    for labels in ([1, 2], np.array([1, 2]), ["one, or so", "a"], ["one, or so", 2, "1", "a"]):
        np.testing.assert_array_equal(run.sample(range(4), labels=labels), expected)
    np.testing.assert_array_equal(run.sample(range(2), labels="a"), run.sample(range(2), labels=2))
    np.testing.assert_array_equal(run.sample(range(12)), pngs(folder, seeds="0-11"))
    decoded = run.decode(run.latents(range(4)), labels=[1, 2])
    assert np.abs(decoded.astype(int) - expected).max() <= 1
    with pytest.raises(gan_jax.UserError, match="^labels=zer: this run's classes are .*; did you mean zero?"):
        run.sample([0], labels=["zer"])
    with pytest.raises(gan_jax.UserError, match="^labels=10: 10 is out of range"):
        run.sample([0], labels=10)


def test_styles_truncation_and_noise(place):
    run = gan_jax.open_run(place / "runs" / "digits_stylegan2")
    flags = {"seeds": "0-2", "labels": "4"}
    for truncation, text, noise in ((1.0, "", "none"), ((0.7, 2), "0.7,2", "random")):
        expected = pngs(run.workdir, truncation=text, noise=noise, **flags)
        np.testing.assert_array_equal(run.sample(range(3), labels=4, truncation=truncation, noise=noise), expected)
    sample.sample(run.workdir, place / "w", truncation="0.5", save_dlatents=True, **flags)
    w = run.styles(run.latents(range(3)), labels=4, truncation=0.5)
    with np.load(place / "w" / "dlatents.npz") as file:
        np.testing.assert_array_equal(w, file["w"])
    expected = run.sample(range(3), labels=4, truncation=0.5)
    np.testing.assert_array_equal(run.decode(w), expected)
    np.testing.assert_array_equal(run.decode(run.latents(range(3)), labels=4, truncation=0.5), expected)
    for wrong, message in ((w[:, :2], r"expected z \(N, 8\) or w \(N, 4, 8\)"), (None, "of object"), ([], "shape")):
        with pytest.raises(gan_jax.UserError, match=message):
            run.decode(wrong)
    with pytest.raises(gan_jax.UserError, match="labels and truncation are in styles w already"):
        run.decode(w, truncation=0.5)
    with pytest.raises(gan_jax.UserError, match="noise='random' is of seeds, and latents have none"):
        run.decode(w, noise="random")


def test_pictures_are_translated(place, tmp_path):
    run = gan_jax.open_run(place / "runs" / "digits_cyclegan")
    pictures = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    expected = pngs(run.workdir, inputs=str(tmp_path), direction="ba")
    for inputs in (pictures, tmp_path, str(tmp_path)):
        np.testing.assert_array_equal(run.sample(inputs=inputs, direction="ba"), expected)
    assert (run.sample(inputs=pictures) != expected).any()
    np.testing.assert_array_equal(run.sample([2, 359]), pngs(run.workdir, seeds="2,359"))
    for arguments, message in (
        ({"inputs": pictures[:, :8]}, r"^inputs: .* uint8 and the shape \(3, 8, 16, 3\); expected uint8 \(N, 16, 16"),
        ({"inputs": pictures, "seeds": [0]}, "it draws from inputs alone"),
        ({"inputs": pictures, "noise": "none"}, "^noise=none: 'cyclegan' has no noise inputs"),
        ({"inputs": pictures, "truncation": 0.5}, "^truncation=0.5: 'cyclegan' has no styles"),
        ({"inputs": pictures, "masks": pictures[..., :1]}, "^masks: the game 'translation' fills no holes"),
        ({}, "^the game 'translation' draws from pictures: give inputs=PATH"),
        ({"direction": "c", "seeds": [0]}, "direction"),
    ):
        with pytest.raises(gan_jax.UserError, match=message):
            run.sample(**arguments)
    with pytest.raises(gan_jax.UserError, match="draws from pictures, not from latents"):
        run.latents([0])


def test_points_and_their_evaluation(place):
    """What the command writes; rows go into the run's file unless they are told not to."""
    run = gan_jax.open_run(place / "runs" / "mixture_gan")
    points = run.sample(range(10))
    assert points.dtype == np.float32 and points.shape == (10, 2)
    table, _ = sample.sample(run.workdir, place / "points", seeds="0-9")
    with open(table) as file:
        written = [[float(row["x"]), float(row["y"])] for row in csv.DictReader(file)]
    np.testing.assert_allclose(points, written, rtol=1e-6)
    arguments = {"samples": 64}
    loose = run.evaluate("modes", append=False, **arguments)
    assert evaluate.read(run.workdir) == []
    rows = run.evaluate(["modes"], **arguments)
    assert evaluate.read(run.workdir) == rows and rows[0]["samples"] == 64
    assert cli.main(["evaluate", f"--workdir={run.workdir}", "--metrics=modes", "--samples=64"]) == 0
    commands = evaluate.read(run.workdir)[len(rows) :]
    values = [[(row["metric"], row["value"]) for row in one] for one in (loose, rows, commands)]
    assert values[0] == values[1] == values[2] and len(rows) == 3
    with pytest.raises(gan_jax.UserError, match="^config.evaluation.sampels: .*; did you mean .*.samples"):
        run.evaluate(sampels=3)


def test_a_program_is_compiled_once(place, monkeypatch):
    programs, over_samples = [], parallel.over_samples
    monkeypatch.setattr(parallel, "over_samples", lambda *args: programs.append(args) or over_samples(*args))
    run = gan_jax.open_run(place / "runs" / "mixture_gan")
    first = run.sample([1, 2])
    assert (run.sample([2]) == first[1:]).all() and len(programs) == 1
    run.decode(run.latents([1, 2]))
    run.decode(run.latents([5]))
    assert len(programs) == 2


def test_arrays_are_measured_as_their_files_are(tiny, tmp_path):
    ours, theirs = test_evaluate_folders.pictures(15, 0), test_evaluate_folders.pictures(12, 1)
    grey = theirs[..., :1]
    a, b = (test_evaluate_folders.save(tmp_path / name, images) for name, images in (("a", ours), ("b", theirs)))
    c = test_evaluate_folders.save(tmp_path / "c", grey[..., 0])
    for reference, folder, as_rgb in ((theirs, b, theirs), (grey, c, grey.repeat(3, 3))):
        rows = evaluate.compare_folders(a, reference=folder, metrics="fid,kid,prdc", settings={"features": "inception"})
        expected = [(row["metric"], pytest.approx(row["value"], rel=1e-9)) for row in rows]
        for one, other in ((ours, reference), (ours, folder), (tmp_path / "a", reference)):
            rows = gan_jax.measure(one, other, ["fid", "kid", "prdc"])
            assert [(row["metric"], row["value"]) for row in rows] == expected
        assert gan_jax.fid(ours, reference) == pytest.approx(test_evaluate_folders.frechet(ours, as_rgb), rel=1e-5)
    (row,) = gan_jax.measure(ours, ours.copy(), "psnr")
    assert row["value"] is None and row["equal_pairs"] == 15 and row["images_of"] == "array:images"
    (row,) = gan_jax.measure(ours[:12], theirs, "psnr")
    assert row["value"] == pytest.approx(metrics.psnr(ours[:12], theirs).mean(), rel=1e-12)


@pytest.mark.parametrize("wrong", [
    np.zeros((4, 8, 8, 3), np.float32), np.zeros((4, 8, 8), np.uint8), np.zeros((4, 3, 8, 8), np.uint8),
    np.zeros((0, 8, 8, 3), np.uint8), np.zeros((4, 8, 8, 4), np.uint8), None, 5,
], ids=repr)  # fmt: skip
def test_arrays_of_another_kind(wrong):
    right = np.zeros((4, 8, 8, 3), np.uint8)
    with pytest.raises(gan_jax.UserError, match=r"^images: an array of .* expected uint8, 0 to 255, and \(N,"):
        gan_jax.fid(wrong, right)
    with pytest.raises(gan_jax.UserError, match="^reference: an array of"):
        gan_jax.fid(right, wrong)


def test_mistakes_are_told_in_pythons_words(trained, tmp_path, monkeypatch):
    right = np.zeros((4, 8, 8, 3), np.uint8)
    for call, message, kind in (
        (lambda: trained.sample(5), r"^seeds=5: expected numbers in a row, such as range\(8\)", gan_jax.UserError),
        (lambda: trained.sample("0-5"), "^seeds='0-5': expected numbers in a row", gan_jax.UserError),
        (lambda: trained.sample([]), "^seeds: expected one or more", gan_jax.UserError),
        (lambda: trained.sample([0.5]), "^seeds=0.5: expected whole numbers", gan_jax.UserError),
        (lambda: trained.sample([0], noise="none"), "^noise=none: 'dcgan' has no noise inputs", gan_jax.UserError),
        (lambda: trained.sample([0], truncation="x"), "^truncation=x: expected a number", gan_jax.UserError),
        (lambda: trained.styles(trained.latents([0])), "'dcgan' has no styles; decode z instead", gan_jax.UserError),
        (lambda: gan_jax.open_run(trained.workdir, 9), "no checkpoint of step 9; there are 2, 3", gan_jax.UserError),
        (lambda: gan_jax.open_run(trained.workdir, "last"), "^step='last': expected a whole", gan_jax.UserError),
        (lambda: gan_jax.open_run(tmp_path / "none"), "^workdir=.*none: no .*none; give", gan_jax.MissingPathError),
        (lambda: gan_jax.open_run("gs://bucket/run"), "^workdir=gs://bucket/run: gs:// is not", gan_jax.UserError),
        (lambda: gan_jax.open_run(""), "^workdir='': expected a path", gan_jax.UserError),
        (lambda: gan_jax.train("digits_dcgan", None), "^workdir=None: expected a path", gan_jax.UserError),
        (lambda: gan_jax.load_config("digits_dcgam"), "did you mean digits_dcgan?", gan_jax.MissingPathError),
        (lambda: gan_jax.fid(tmp_path / "none", right), "no folder or .zip", gan_jax.MissingPathError),
    ):
        with pytest.raises(kind, match=message):
            call()
    monkeypatch.setenv("HOME", str(pathlib.Path(trained.workdir).parent))
    assert gan_jax.open_run("~/smoke").step == 3


def test_configs_and_their_overrides(tmp_path, capsys):
    overrides = {"optim.generator.learning_rate": 1e-4, "batch_size": np.int64(16), "config.conditional": True,
                 "evaluation.metrics": ["fd", "kd"], "data.name": "synthetic:32"}  # fmt: skip
    config = gan_jax.load_config("digits_dcgan:smoke", overrides)
    assert (config.optim.generator.learning_rate, config.batch_size, config.conditional) == (1e-4, 16, True)
    assert config.evaluation.metrics == ("fd", "kd") and config.is_locked and config.seed == 0
    same = runs.load_config(f"{settings.EXPERIMENTS / 'digits_dcgan.py'}:smoke", [
        ("optim.generator.learning_rate", "1e-4"), ("batch_size", "16"), ("conditional", "True"),
        ("evaluation.metrics", "fd,kd"), ("data.name", "synthetic:32")])  # fmt: skip
    assert config == same
    for overrides, message in (({"optim.generator.lr": 1}, "^config.optim.generator.lr: .* no key .*learning_rate"),
                               ({"batch_size": 1.5}, "^config.batch_size=1.5: expected int")):  # fmt: skip
        with pytest.raises(gan_jax.UserError, match=message):
            gan_jax.train(config, tmp_path / "run", overrides=overrides)
    assert not (tmp_path / "run").exists() and config.batch_size == 16


def test_the_functions_name_is_not_the_modules():
    code = "import gan_jax.train, gan_jax; from gan_jax.train import Position; print(gan_jax.train.__module__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=settings.ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout == "gan_jax.api.training\n", done.stderr


def test_training_within_an_event_loop_and_in_a_thread(trained, tmp_path):
    """After JAX was used: no line of a failure, signals as they were, and the program ends of itself."""
    shutil.copytree(trained.workdir, tmp_path / "run")
    code = """
import asyncio, signal, sys
import jax.numpy as jnp
assert jnp.arange(3).sum() == 3
import gan_jax

config, numbers = gan_jax.load_config("digits_dcgan:smoke"), (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
here, seen = {number: signal.getsignal(number) for number in numbers}, []

def train(images):
    changes = {"total_images": images, "evaluation.metrics": ()}
    seen.append(gan_jax.train(config, sys.argv[1], overrides=changes).images_seen)

async def within():
    before = {number: signal.getsignal(number) for number in numbers}
    train(32)
    await asyncio.to_thread(train, 40)
    assert before == {number: signal.getsignal(number) for number in numbers}

asyncio.run(within())
assert here == {number: signal.getsignal(number) for number in numbers}
print(seen)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    done = subprocess.run(command, cwd=settings.ROOT, env={**os.environ}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "[32, 40]", done.stdout + done.stderr
    assert done.stderr.strip() == "", done.stderr
