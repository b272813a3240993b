"""Images of a trained run: by seed, by label, between seeds."""

import csv
import json

import jax
import numpy as np
import pytest
from PIL import Image

from gan_jax import images, parallel, runs, sample
from gan_jax.errors import MissingPathError, UserError
from gan_jax.layers import random
from tests import settings


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample") / "plain"
    return folder, settings.fresh_folder(settings.digits(), folder)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample") / "labelled"
    return folder, settings.fresh_folder(settings.digits(conditional=True), folder)


def read(path) -> np.ndarray:
    with Image.open(path) as file:
        return np.asarray(file)


def expected(folder, run, seed: int, label: int = 0) -> np.ndarray:
    """The averaged generator, applied to one latent of one key, quantised by numpy. Float (32, 32)."""
    ema = runs.restore(run, folder, parallel.make_mesh(jax.devices()[:1])).state.ema["generator"]
    z = random.normal(random.fold(jax.random.key(seed)[None], 0), (100,))
    labels = np.array([label]) if run.spec.num_classes else None
    image = np.asarray(run.nets["generator"].apply(ema, z, labels, train=False), np.float64)
    return np.clip((image[0, :, :, 0] + 1) * 127.5, 0, 255)


def test_a_png_is_the_generators_output(plain, tmp_path):
    folder, run = plain
    files = sample.sample(folder, tmp_path / "out", seeds="0-2,7")
    assert [file.name for file in files] == [f"seed{seed:06}.png" for seed in (0, 1, 2, 7)] + ["grid.png"]
    for seed, file in zip((0, 1, 2, 7), files, strict=False):
        difference = np.abs(read(file) - expected(folder, run, seed))
        assert difference.max() < 0.51, "rounded to the nearest"
    stills = np.stack([read(file)[:, :, None] for file in files[:-1]])
    np.testing.assert_array_equal(read(files[-1])[:, :, None], images.grid(stills))
    assert len({still.tobytes() for still in stills}) == 4


def test_a_seed_is_an_image_whatever_its_company(plain, tmp_path):
    folder, _ = plain
    for number, seeds in enumerate(("5", "0-6", "9,5,3", "0-299")):
        sample.sample(folder, tmp_path / str(number), seeds=seeds)
    found = {(tmp_path / str(number) / "seed000005.png").read_bytes() for number in range(4)}
    assert len(found) == 1


def test_one_device_and_eight_agree(plain, tmp_path, monkeypatch):
    folder, _ = plain
    make_mesh = parallel.make_mesh
    sample.sample(folder, tmp_path / "eight", seeds="0-9")
    monkeypatch.setattr(parallel, "make_mesh", lambda devices=None: make_mesh(jax.devices()[:1]))
    sample.sample(folder, tmp_path / "one", seeds="0-9")
    one, eight = (read(tmp_path / name / "grid.png").astype(int) for name in ("one", "eight"))
    assert np.abs(one - eight).max() <= 1, "at most a rounding apart"


def test_labels_are_repeated_over_the_seeds(labelled, tmp_path):
    folder, run = labelled
    files = sample.sample(folder, tmp_path / "out", seeds="0-4", labels="3,8")
    assert [file.name for file in files[:-1]] == [
        f"seed{seed:06}_label{label}.png" for seed, label in zip(range(5), (3, 8, 3, 8, 3), strict=True)
    ]
    for seed, label in ((0, 3), (1, 8)):
        assert np.abs(read(files[seed]) - expected(folder, run, seed, label)).max() < 0.51
    cycling = sample.sample(folder, tmp_path / "all", seeds="0-11")
    assert [int(file.stem[-1]) for file in cycling[:-1]] == [*range(10), 0, 1]


@pytest.mark.parametrize("labels", ["10", "0-10", "3,11"])
def test_a_label_out_of_range(labelled, tmp_path, labels):
    with pytest.raises(UserError, match=f"--labels={labels}: 1. is out of range; this run knows the labels 0 to 9"):
        sample.sample(labelled[0], tmp_path / "out", labels=labels)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("flags", "message"), [
    ({"labels": "1"}, "--labels=1: this run is unconditional"),
    ({"truncation": "0.5"}, "--truncation=0.5: 'dcgan' has no styles; leave the flag out"),
    ({"seeds": "a"}, "--seeds=a: expected whole numbers such as 0-63"),
    ({"seeds": "5-3"}, "--seeds=5-3: expected"),
    ({"seeds": "-1"}, "--seeds=-1: expected"),
    ({"seeds": "4294967296"}, "expected whole numbers"),
    ({"seeds": "0-4000000000"}, "--seeds=0-4000000000: .* at most"),
    ({"seeds": "1", "interpolate": 4}, "--interpolate=4: needs two seeds"),
    ({"interpolate": -1}, "--interpolate=-1: needs two seeds or more, one frame or more"),
    ({"step": 5}, "no checkpoint of step 5; there are 0"),
])  # fmt: skip
def test_a_flag_that_makes_no_sense(plain, tmp_path, flags, message):
    with pytest.raises(UserError, match=message):
        sample.sample(plain[0], tmp_path / "out", **flags)


def test_folders_that_are_not_there(plain, tmp_path):
    with pytest.raises(MissingPathError, match="--workdir=.*none.*give the folder of a run"):
        sample.sample(tmp_path / "none", tmp_path / "out")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--out=.*file: cannot be written"):
        sample.sample(plain[0], tmp_path / "file", seeds="0")


def test_an_interpolation_begins_at_the_first_seed(plain, tmp_path):
    folder, _ = plain
    (file,) = sample.sample(folder, tmp_path, seeds="4,9,2", interpolate=6)
    sample.sample(folder, tmp_path, seeds="4,9,2")
    with Image.open(file) as animation:
        assert file.name == "interpolation.gif" and animation.n_frames == 18
        frames = []
        for number in range(18):
            animation.seek(number)
            frames.append(np.asarray(animation.convert("L"), int))
    for seed, number in ((4, 0), (9, 6), (2, 12)):
        still = read(tmp_path / f"seed{seed:06}.png").astype(int)
        assert np.abs(frames[number] - still).max() <= (0 if number == 0 else 1)
    steps = [np.abs(a - b).mean() for a, b in zip(frames, frames[1:] + frames[:1], strict=True)]
    assert 0 < max(steps) < 0.7 * np.abs(frames[0] - frames[6]).mean(), "every step is a small one, the last too"


def test_slerp_follows_the_great_circle():
    """On the unit circle, a share t of the way from angle 0 to angle w is the angle t w."""
    w = 2.0
    a, b = np.array([1.0, 0.0]), np.array([np.cos(w), np.sin(w)])
    for t in np.linspace(0, 1, 7):
        np.testing.assert_allclose(sample.slerp(a, b, t), [np.cos(t * w), np.sin(t * w)], atol=1e-6)
    x, y = np.random.default_rng(0).normal(size=(2, 50))
    np.testing.assert_allclose(sample.slerp(x, y, 0.0), x, rtol=1e-6)
    np.testing.assert_allclose(sample.slerp(x, y, 1.0), y, rtol=1e-6)
    np.testing.assert_allclose(sample.slerp(x, x, 0.3), x, rtol=1e-6)
    np.testing.assert_allclose(sample.slerp(a, 2 * a, 0.5), 1.5 * a, rtol=1e-6)


def test_the_fixed_grid_is_fixed_and_depends_on_the_runs_seed(plain):
    _, run = plain
    draw = sample.sampler(run, batch_size=8)
    ema = jax.jit(lambda: runs.init_state(run))().ema
    one, two = sample.fixed_grid(run, draw, ema), sample.fixed_grid(run, draw, ema)
    np.testing.assert_array_equal(one, two)
    assert one.shape == (4, 32, 32, 1) and one.dtype == np.uint8
    other = sample.keys_from(run.config.seed + 1, "grid", np.arange(4))
    assert (draw(ema, other, np.zeros(4, int)) != one).any()
    again = sample.keys_from(run.config.seed, "evaluation", np.arange(4))
    assert (draw(ema, again, np.zeros(4, int)) != one).any()


def test_points_of_a_mixture_are_a_table(tmp_path):
    config = runs.load_config(f"{settings.EXPERIMENTS / 'mixture_gan.py'}:smoke")
    settings.fresh_folder(config, tmp_path / "run")
    files = sample.sample(tmp_path / "run", tmp_path / "out", seeds="0-9")
    assert [file.name for file in files] == ["points.csv", "grid.png"]
    with open(files[0]) as file:
        table = list(csv.DictReader(file))
    assert len(table) == 10 and all(np.isfinite(float(row[axis])) for row in table for axis in "xy")
    assert json.loads((tmp_path / "run" / "data.json").read_text())["spec"]["shape"] == [2]
