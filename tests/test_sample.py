"""Images of a trained run: by seed, by label, between seeds."""

import csv
import json
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import stats

from gan_jax import cli, folders, images, painter, parallel, runs, sample, specs
from gan_jax.errors import MissingPathError, UserError
from gan_jax.games import players
from gan_jax.layers import pixels, random
from tests import settings, test_images


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
    ema = folders.restore(run, folder, parallel.make_mesh(jax.devices()[:1])).state.ema["generator"]
    z = random.normal(random.fold(jax.random.key(seed)[None], 0), (100,))
    labels = np.array([label]) if specs.classes(run.spec) else None
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


@pytest.mark.parametrize("threshold", [0.5, 2.0])
def test_truncated_latents_are_those_of_a_truncated_normal(threshold):
    """At the share of the distribution at which a seed's own entry is; scipy has the truncated normal's values."""
    z = random.normal(random.fold(painter.keys_of(np.arange(4)), 0), (100,))
    shares = stats.norm.cdf(np.asarray(z, np.float64))
    expected = stats.truncnorm(-threshold, threshold).ppf(shares)
    np.testing.assert_allclose(players.truncated(z, threshold), expected, atol=2e-6)


def test_a_truncated_image_is_the_generators_of_a_truncated_latent(plain, tmp_path):
    folder, run = plain
    state = folders.restore(run, folder, parallel.make_mesh(jax.devices()[:1])).state
    z = run.game.latents(run.nets["generator"], painter.keys_of(np.arange(3)))
    inside = jnp.float32(stats.truncnorm(-0.5, 0.5).ppf(stats.norm.cdf(np.asarray(z, np.float64))))
    drawn = run.game.sample(run.nets, state.ema, painter.keys_of(np.arange(3)), {}, threshold=0.5)["image"]
    images = run.nets["generator"].apply(state.ema["generator"], inside, train=False)
    np.testing.assert_allclose(drawn, images, atol=1e-4 * float(jnp.abs(images).max()))
    files = {text: sample.sample(folder, tmp_path / text, seeds="0-2", truncation=text) for text in ("", "0.5")}
    by_hand = pixels.quantise(images)
    for still, plain_file, file in zip(by_hand, files[""], files["0.5"], strict=False):
        assert np.abs(read(file).astype(int) - still[:, :, 0]).max() <= 1
        assert (read(file) != read(plain_file)).any()


def test_truncated_latents_stay_within_their_threshold_and_in_their_order():
    z = np.float32([-9.0, -2.0, -0.5, 0.0, 0.5, 2.0, 9.0])
    for threshold in (1e-3, 1.0, 8.0):
        x = np.asarray(players.truncated(z, threshold))
        assert np.abs(x).max() <= np.float32(threshold) and (np.diff(x) >= 0).all() and x[3] == 0
        np.testing.assert_allclose(x, -x[::-1])
    np.testing.assert_allclose(players.truncated(z, 40.0)[1:-1], z[1:-1], rtol=1e-5)
    assert players.truncated(z, None) is z


def test_uniform_latents_have_no_threshold(tmp_path):
    settings.fresh_folder(settings.digits(generator__latent="uniform"), tmp_path / "run")
    with pytest.raises(UserError, match="--truncation=0.5: this generator's latents are uniform, within"):
        sample.sample(tmp_path / "run", tmp_path / "out", truncation="0.5")


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


def test_labels_are_repeated_over_the_seeds(labelled, tmp_path, capsys):
    folder, run = labelled
    files = sample.sample(folder, tmp_path / "out", seeds="0-4", labels="3,8")
    assert [file.name for file in files[:-1]] == [
        f"seed{seed:06}_label{label}.png" for seed, label in zip(range(5), (3, 8, 3, 8, 3), strict=True)
    ]
    for seed, label in ((0, 3), (1, 8)):
        assert np.abs(read(files[seed]) - expected(folder, run, seed, label)).max() < 0.51
    stills = [read(file)[:, :, None] for file in files[:-1]]
    blank = np.full_like(stills[0], images.BLANK)
    laid = [stills[i] for i in (0, 2, 4, 1, 3)] + [blank]
    np.testing.assert_array_equal(read(files[-1])[:, :, None], images.grid(np.stack(laid), 3))
    assert "grid.png, from the top: 1 row of label 3, 1 row of label 8" in capsys.readouterr().out
    cycling = sample.sample(folder, tmp_path / "all", seeds="0-11")
    assert [int(file.stem[-1]) for file in cycling[:-1]] == [*range(10), 0, 1]


def test_labels_by_the_names_that_the_data_has(labelled, tmp_path):
    folder = tmp_path / "named"
    shutil.copytree(labelled[0], folder)
    summary = json.loads((folder / "data.json").read_text())
    assert list(summary["classes"]) == [str(digit) for digit in range(10)]
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    summary["classes"] = dict.fromkeys(names, 9)
    (folder / "data.json").write_text(json.dumps(summary))
    files = sample.sample(folder, tmp_path / "out", seeds="0-3", labels="three, eight,2")
    assert [int(file.stem[-1]) for file in files[:-1]] == [3, 8, 2, 3]
    summary["classes"] = dict.fromkeys(["0-9", *map(str, range(10, 19))], 9)
    (folder / "data.json").write_text(json.dumps(summary))
    files = sample.sample(folder, tmp_path / "ranges", seeds="0-3", labels="0-9,18,#3,10")
    assert [int(file.stem[-1]) for file in files[:-1]] == [0, 9, 3, 1]  # names come first, #3 is a number
    with pytest.raises(UserError, match="--labels=3: this run's classes are 0-9, 10"):
        sample.sample(folder, tmp_path / "out", labels="3")
    summary["classes"] = dict.fromkeys(names, 9)
    (folder / "data.json").write_text(json.dumps(summary))
    with pytest.raises(UserError, match="--labels=thre: this run's classes are zero, .*; did you mean three?"):
        sample.sample(folder, tmp_path / "out", labels="thre")


@pytest.mark.parametrize("labels", ["10", "0-10", "3,11"])
def test_a_label_out_of_range(labelled, tmp_path, labels):
    with pytest.raises(UserError, match=f"--labels={labels}: 1. is out of range; this run knows the labels 0 to 9"):
        sample.sample(labelled[0], tmp_path / "out", labels=labels)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("flags", "message"), [
    ({"labels": "1"}, "--labels=1: this run is unconditional"),
    ({"truncation": "0.5,3"}, "--truncation=0.5,3: expected one number above 0, the largest entry of a latent"),
    ({"truncation": "0"}, "--truncation=0.0: expected one number above 0"),
    ({"direction": "ab"}, "--direction=ab: the game 'unconditional' has no direction; leave it out"),
    ({"seeds": "a"}, "--seeds=a: expected whole numbers such as 0-63"),
    ({"seeds": "5-3"}, "--seeds=5-3: expected"),
    ({"seeds": "-1"}, "--seeds=-1: expected"),
    ({"seeds": "4294967296"}, "expected whole numbers"),
    ({"seeds": "0-4000000000"}, "--seeds=0-4000000000: .* at most"),
    ({"seeds": "1", "interpolate": 4}, "--interpolate=4: needs two seeds"),
    ({"interpolate": -1}, "--interpolate=-1: needs two seeds or more, one frame or more"),
    ({"interpolate_in": "w", "interpolate": 4}, "--interpolate_in=w: 'dcgan' has no styles"),
    ({"style_mixing": "0:1"}, "--style_mixing=0:1: 'dcgan' has no styles; .* take a run of stylegan1"),
    ({"dlatents": "w.npz"}, "--dlatents=w.npz: 'dcgan' has no styles"),
    ({"save_dlatents": True}, "--save_dlatents: 'dcgan' has no styles"),
    ({"noise": "none"}, "--noise=none: 'dcgan' has no noise inputs in this run; leave the flag out"),
    ({"noise": "off"}, "--noise=off: expected one of const, random, none"),
    ({"interpolate_in": "z"}, "--interpolate_in=z: needs --interpolate=FRAMES too"),
    ({"animation": "mp4"}, "--animation=mp4: needs --interpolate=FRAMES too"),
    ({"fps": 25}, "--fps=25: needs --interpolate=FRAMES too"),
    ({"animation": "avi", "interpolate": 4}, "--animation=avi: expected one of gif, apng, mp4"),
    ({"fps": 60, "interpolate": 4}, "--fps=60: expected 1 to 50; --animation=mp4 takes up to 240"),
    ({"fps": 0, "animation": "mp4", "interpolate": 4}, "--fps=0: expected 1 to 240$"),
    ({"interpolate_in": "x", "interpolate": 4}, "--interpolate_in=x: expected z or w"),
    ({"style_mixing": "0:1", "seeds": "0"}, "--style_mixing=0:1 with --seeds=0: it names its own seeds; leave one"),
    ({"dlatents": "a", "truncation": "0.5"}, "--dlatents=a with --truncation=0.5: its styles are taken as they are"),
    ({"interpolate": 2, "save_dlatents": True}, "--interpolate=2 with --save_dlatents: "),
    ({"dlatents": "a", "interpolate_in": "z", "interpolate": 2}, "--interpolate_in=z: a file of styles has no z"),
    ({"step": 5}, "no checkpoint of step 5; there are 0"),
])  # fmt: skip
def test_a_flag_that_makes_no_sense(plain, tmp_path, flags, message):
    with pytest.raises(UserError, match=message):
        sample.sample(plain[0], tmp_path / "out", **flags)
    assert not (tmp_path / "out").exists()


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


def test_an_interpolation_as_a_video(plain, tmp_path):
    """The same frames as the GIF's, up to what the codec loses."""
    folder, _ = plain
    flags = {"seeds": "4,9", "interpolate": 5}
    (gif,) = sample.sample(folder, tmp_path, **flags)
    assert cli.main(["sample", f"--workdir={folder}", f"--out={tmp_path}", "--seeds=4,9", "--interpolate=5",
                     "--animation=mp4", "--fps=12"]) == 0  # fmt: skip
    video, about = test_images.decoded(tmp_path / "interpolation.mp4")
    with Image.open(gif) as animation:
        frames = []
        for number in range(animation.n_frames):
            animation.seek(number)
            frames.append(np.asarray(animation.convert("RGB"), int))
    assert video.shape == (10, 32, 32, 3) and " 12 fps" in about
    assert np.abs(video - np.stack(frames)).mean() < 2


def test_a_video_without_the_extra_is_one_line(plain, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(UserError, match="an MP4 needs ffmpeg.*pip install imageio-ffmpeg, .*`video`; or take a GIF$"):
        sample.sample(plain[0], tmp_path / "out", seeds="0,1", interpolate=2, animation="mp4")
    assert not (tmp_path / "out").exists()


def test_the_fixed_grid_is_fixed_and_depends_on_the_runs_seed(plain):
    _, run = plain
    draw = painter.sampler(run, batch_size=8)
    ema = jax.jit(lambda: runs.init_state(run))().ema
    one, two = (sample.fixed_grid(run, draw, ema, sample.grid_given(run)) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert one.shape == (4, 32, 32, 1) and one.dtype == np.uint8
    other = painter.keys_from(run.config.seed + 1, "grid", np.arange(4))
    assert (draw(ema, other, {}) != one).any()
    again = painter.keys_from(run.config.seed, "evaluation", np.arange(4))
    assert (draw(ema, again, {}) != one).any()


@pytest.mark.parametrize(("shape", "size"), [((32, 32, 1), 256), ((2,), 256), ((256, 256, 3), 32), ((1024, 2048, 1), 1),
                                             ((16, 256, 256, 3), 2)])  # fmt: skip
def test_large_images_pass_in_small_batches(plain, monkeypatch, shape, size):
    """On one device; a sample too much would not fit where one of 32 px does."""
    make_mesh = parallel.make_mesh
    monkeypatch.setattr(parallel, "make_mesh", lambda devices=None: make_mesh(jax.devices()[:1]))
    _, run = plain
    seen = []
    monkeypatch.setattr(parallel, "over_samples", lambda _, mesh: lambda ema, *x: seen.append(x[0].shape) or x[0])
    run = run._replace(spec=specs.labelled(shape, 0))
    drawn = painter.sampler(run)({}, np.arange(300), {})
    np.testing.assert_array_equal(drawn, np.arange(300))
    assert set(seen) == {(size,)} and len(seen) == -(-300 // size)


def test_points_of_a_mixture_are_a_table(tmp_path):
    config = runs.load_config(f"{settings.EXPERIMENTS / 'mixture_gan.py'}:smoke")
    settings.fresh_folder(config, tmp_path / "run")
    files = sample.sample(tmp_path / "run", tmp_path / "out", seeds="0-9")
    assert [file.name for file in files] == ["points.csv", "grid.png"]
    with open(files[0]) as file:
        table = list(csv.DictReader(file))
    assert len(table) == 10 and all(np.isfinite(float(row[axis])) for row in table for axis in "xy")
    assert json.loads((tmp_path / "run" / "data.json").read_text())["spec"]["image"]["shape"] == [2]
