"""Clips through the commands: a game that draws them and one that goes on with them, trained, sampled and measured."""

import io
import json
import re

import numpy as np
import pytest
from PIL import Image, ImageSequence

import gan_jax
from gan_jax import cli
from gan_jax.data import open_dataset
from gan_jax.errors import UserError
from gan_jax.features import clips_classifier
from tests.test_logs import events_of

EXPERIMENT = '''
from ml_collections import ConfigDict


def get_config(variant=""):
    return ConfigDict({
        "game": "tests.film_prediction_game" if variant == "prediction" else "tests.film_game",
        "total_images": 24, "batch_size": 8, "grid": 3,
        "data": {"name": "digits:moving", "resolution": 16, "frames": 6},
        "generator": {"name": "tiny"},
        "optim": {"generator": {"name": "adam", "learning_rate": 1e-2}},
        "every": {"log_images": 8, "sample_images": 16, "checkpoint_images": 16},
        "evaluation": {"split": "test", "samples": 40, "features": "clips_classifier"},
    })
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with both experiments, trained: `drawn`, with labels and flips, and `predicted`."""
    place = tmp_path_factory.mktemp("clips")
    (place / "films.py").write_text(EXPERIMENT)
    train = ["train", f"--config={place / 'films.py'}"]
    options = ["--config.conditional=True", "--config.data.flip=True"]
    assert cli.main([*train, f"--workdir={place / 'drawn'}", *options]) == 0
    train[1] += ":prediction"
    assert cli.main([*train, f"--workdir={place / 'predicted'}"]) == 0
    return place


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """A judge of a few steps, and few clips, in a cache of its own."""
    monkeypatch.setattr(clips_classifier, "MOST", 64)
    monkeypatch.setattr(clips_classifier, "MOST_HELD_OUT", 16)
    monkeypatch.setattr(clips_classifier, "STEPS", 3)


def _animation(file):
    with Image.open(file) as image:
        return np.stack([np.asarray(frame.convert("L")) for frame in ImageSequence.Iterator(image)])


def _test_clips(count):
    places = np.linspace(0, 499, count).astype(int)
    return open_dataset(name="digits:moving", resolution=16, frames=6, split="test").examples(places)["video"]


def test_a_run_has_a_sheet_of_frames_and_the_same_moving(folder):
    samples = folder / "drawn" / "samples"
    assert {file.name for file in samples.iterdir()} == {
        f"{name}.{ending}" for name in ("reals", "fakes_000000016", "fakes_000000024") for ending in ("png", "gif")
    }
    sheet, moving = np.asarray(Image.open(samples / "reals.png")), _animation(samples / "reals.gif")
    clips = open_dataset(name="digits:moving", resolution=16, frames=6)
    clips = clips.examples(np.linspace(0, clips.size - 1, 3).astype(int))["video"][..., 0]
    assert sheet.shape == (3 * 18 - 2, 6 * 18 - 2) and moving.shape == (6, 34, 34)  # 2 pixels between
    for number, clip in enumerate(clips):
        for time, frame in enumerate(clip):
            np.testing.assert_array_equal(sheet[18 * number :, 18 * time :][:16, :16], frame)
            y, x = divmod(number, 2)
            np.testing.assert_array_equal(moving[time, 18 * y :, 18 * x :][:16, :16], frame)


def test_tensorboard_plays_them(folder):
    values = [value for event in events_of(folder / "drawn") for value in event.summary.value]
    by_tag = {value.tag: value.image for value in values if value.HasField("image")}
    assert set(by_tag) == {"reals", "reals_moving", "fakes", "fakes_moving"}
    with Image.open(io.BytesIO(by_tag["reals_moving"].encoded_image_string)) as image:
        assert (image.format, image.n_frames, image.size) == ("GIF", 6, (34, 34))
    assert (by_tag["reals_moving"].height, by_tag["reals_moving"].width) == (34, 34)


def test_going_on_is_shown_above_what_follows(folder):
    sheet = np.asarray(Image.open(folder / "predicted" / "samples" / "fakes_000000024.png"))
    moving = _animation(folder / "predicted" / "samples" / "fakes_000000024.gif")
    assert sheet.shape == (6 * 18 - 2, 2 * 18 - 2 + 8 + 4 * 18 - 2)  # two rows a clip, a wider gap behind the context
    assert moving.shape == (6, 2 * 18 - 2, 2 * 36 - 2)
    for number, clip in enumerate(_test_clips(3)[..., 0]):
        for row in (2 * number, 2 * number + 1):
            np.testing.assert_array_equal(sheet[18 * row :, 18:][:16, :16], clip[1])
        np.testing.assert_array_equal(sheet[18 * (2 * number + 1) :, 2 * 18 - 2 + 8 + 18 :][:16, :16], clip[3])
        y, x = divmod(number, 2)
        cell = moving[3, 18 * y :, 36 * x :][:16, :34]
        np.testing.assert_array_equal(cell[:, 18:], clip[3])
        assert np.abs(cell[:, :16].astype(int) - clip[3]).max() > 5


@pytest.mark.parametrize("ending", ["gif", "apng", "mp4"])
def test_clips_of_seeds_are_animations(folder, tmp_path, ending):
    if ending == "mp4":
        pytest.importorskip("imageio_ffmpeg")
    flags = [f"--out={tmp_path}", "--seeds=3,4", "--labels=1,7", f"--animation={ending}", "--fps=4"]
    assert cli.main(["sample", f"--workdir={folder / 'drawn'}", *flags]) == 0
    names = ("seed000003_label1", "seed000004_label7", "grid")
    assert {file.name for file in tmp_path.iterdir()} == {*(f"{name}.{ending}" for name in names), "grid.png"}
    run = gan_jax.open_run(folder / "drawn")
    clips = run.sample([3, 4], labels=[1, 7])
    assert clips.shape == (2, 6, 16, 16, 1) and clips.dtype == np.uint8 and not np.array_equal(clips[0], clips[1])
    if ending != "mp4":
        np.testing.assert_array_equal(_animation(tmp_path / f"{names[0]}.{ending}"), clips[0, ..., 0])
        with Image.open(tmp_path / f"{names[0]}.{ending}") as image:
            image.seek(1)
            assert image.info["duration"] == 250
    else:
        data = open_dataset(name=f"folder:{tmp_path / f'{names[0]}.mp4'}", frames=6, resolution=16)
        assert np.abs(data.examples(np.array([0]))["video"][0].astype(int) - clips[0]).mean() < 6


def test_films_of_the_user_go_on(folder, tmp_path):
    """The first frames of each: of a folder of frames and an animation, whatever their length and size."""
    clips = _test_clips(2)
    (tmp_path / "in" / "walk").mkdir(parents=True)
    for number, frame in enumerate(clips[0, :3, ..., 0]):
        Image.fromarray(frame).save(tmp_path / "in" / "walk" / f"{number}.png")
    large = [Image.fromarray(frame.repeat(2, 0).repeat(2, 1)) for frame in clips[1, ..., 0]]
    large[0].save(tmp_path / "in" / "run.gif", save_all=True, append_images=large[1:])
    flags = [f"--inputs={tmp_path / 'in'}", f"--out={tmp_path / 'out'}"]
    assert cli.main(["sample", f"--workdir={folder / 'predicted'}", *flags]) == 0
    names = ("walk.gif", "run.gif", "grid.gif", "grid.png")
    assert {file.name for file in (tmp_path / "out").iterdir()} == set(names)
    future = gan_jax.open_run(folder / "predicted").sample(inputs=clips[:, :2])
    assert future.shape == (2, 4, 16, 16, 1)
    np.testing.assert_array_equal(
        _animation(tmp_path / "out" / "walk.gif"), np.concatenate([clips[0, :2], future[0]])[..., 0]
    )
    run = gan_jax.open_run(folder / "predicted")
    by_path = run.sample(inputs=tmp_path / "in")  # run.gif, whose frames are made smaller, before walk
    np.testing.assert_array_equal(by_path[1], future[0])
    assert run.sample([0, 1]).shape == (2, 4, 16, 16, 1)


@pytest.mark.parametrize(("flags", "message"), [
    (["--inputs=nothing"], "there is no folder or .zip at"),
    (["--inputs=short"], "short cannot be used: it has 1 frames, and clips of data.frames=2 reach over 2. Give a long"),
    ([], "draws from films: give --inputs=PATH, a film, a folder or a .zip; or --seeds=0-7"),
    (["--inputs=short", "--labels=1"], "--labels=1: the game .* draws from --inputs; leave it out"),
])  # fmt: skip
def test_inputs_that_cannot_go_on_are_named(folder, tmp_path, monkeypatch, capsys, flags, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short").mkdir()
    Image.new("L", (16, 16)).save(tmp_path / "short" / "0.png")
    assert cli.main(["sample", f"--workdir={folder / 'predicted'}", "--out=out", *flags]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and error.count("\n") == 1


def test_pictures_do_not_go_where_clips_are_needed(folder):
    run = gan_jax.open_run(folder / "predicted")
    with pytest.raises(UserError, match=r"inputs: an array of uint8 and the shape \(2, 16, 16, 1\); expected uint8 "
                                        r"\(N, 2, 16, 16, 1\)"):
        run.sample(inputs=np.zeros((2, 16, 16, 1), np.uint8))


@pytest.mark.parametrize(("flags", "message"), [
    (["--seeds=1,2", "--interpolate=3"], "a model of images"), (["--truncation=0.5"], "has no styles"),
    (["--animation=png"], "expected one of gif, apng, mp4"), (["--inputs=x"], "draws from seeds"),
])  # fmt: skip
def test_flags_that_clips_have_no_use_for(folder, tmp_path, capsys, flags, message):
    assert cli.main(["sample", f"--workdir={folder / 'drawn'}", f"--out={tmp_path}", *flags]) == 2
    assert message in capsys.readouterr().err


def test_what_is_drawn_is_measured(folder, quick):
    run = gan_jax.open_run(folder / "drawn")
    rows = {row["metric"]: row for row in run.evaluate("fd,kd,classes,speed,sharpness", append=False)}
    of = "fd_clips_classifier"
    assert {of, f"{of}/floor_train_vs_held_out", f"{of}/shuffled_frames", f"{of}/still_frames",
            f"{of}/untrained_generator", "kd_clips_classifier", "label_agreement", "speed", "sharpness"} <= set(rows)
    assert rows[of]["frames"] == 6 and rows[of]["data"] == "digits:moving" and rows[of]["features_accuracy"] is not None
    assert rows["speed"]["mean_of_reals"] == pytest.approx(1.0)  # a pixel a frame
    assert rows["speed"]["value"] == pytest.approx(rows["speed"]["mean"])
    assert rows["speed"]["better"] == "nearer the reals"
    clips = run.sample(range(3), labels=[0])
    levels = clips.astype(float)
    by_hand = [(np.abs(np.diff(x, axis=1)).mean() + np.abs(np.diff(x, axis=2)).mean()) / 2 for x in levels]
    assert np.std(by_hand) < 20 and 0 < rows["sharpness"]["value"] < 128


def test_what_follows_is_measured_frame_by_frame_beside_the_last_frame(folder, quick):
    run = gan_jax.open_run(folder / "predicted")
    rows = {row["metric"]: row for row in run.evaluate("psnr,l1,ssim,fd,speed", append=False)}
    clips = open_dataset(name="digits:moving", resolution=16, frames=6, split="test").examples(np.arange(40))["video"]
    future = run.sample(inputs=clips[:, :2])
    for name, frames in (("", future), ("/copy_last", clips[:, 1:2].repeat(4, 1))):
        errors = frames.astype(float) - clips[:, 2:]
        l1, squares = (values.mean((2, 3, 4)) for values in (np.abs(errors) / 127.5, errors**2))
        row = rows[f"l1{name}"]
        np.testing.assert_allclose(row["by_frame"], l1.mean(0), rtol=1e-6)
        assert row["value"] == pytest.approx(l1.mean()) and row["pairs"] == 40
        row, db = rows[f"psnr{name}"], np.ma.masked_invalid(10 * np.log10(255**2 / np.where(squares, squares, np.nan)))
        np.testing.assert_allclose(row["by_frame"], db.mean(0), rtol=1e-6)
        assert row["value"] == pytest.approx(db.mean()) and row["unit"] == "dB"
        assert row.get("equal_frames", 0) == (squares == 0).sum()  # what turns back comes to where it was
    assert len(rows["ssim"]["by_frame"]) == 4
    assert rows["speed"]["mean_of_reals"] == pytest.approx(1.0) and rows["speed/copy_last"]["value"] == 0
    assert rows["fd_clips_classifier"]["field"] == "future"
    json.dumps(list(rows.values()))


@pytest.mark.parametrize(("names", "features", "message"), [
    ("fid10k", "random_inception", "metrics=fid10k: looks at images by inception, and these are clips of 6 frames"),
    ("fd", "digits_classifier", "metrics=fd: looks at images by digits_classifier, and these are clips of 6 frames"),
    ("swd16", "clips_classifier", "metrics=swd16: looks at images, and these are clips"),
    ("msssim16", "clips_classifier", "metrics=msssim16: looks at images, and these are clips"),
    ("psnr", "clips_classifier", "metrics=psnr: compares two folders"),
])  # fmt: skip
def test_metrics_of_images_are_refused_of_clips(folder, names, features, message):
    run = gan_jax.open_run(folder / "drawn")
    with pytest.raises(UserError, match=message):
        run.evaluate(names, features=features, append=False)
