"""Films of folders, files and arrays: their clips by hand, their labels, and what is wrong with some of them."""

import os
import subprocess
import zipfile

import numpy as np
import pytest
from PIL import Image

from gan_jax.data import files, film_files, open_dataset, pack
from gan_jax.errors import UserError

LOOK = {"resolution": 6, "channels": 1, "frames": 3}


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GAN_JAX_CACHE_DIR", str(tmp_path / "cache"))


def _film(count, seed=0, size=(6, 6)):
    """uint8 (count, H, W)."""
    return np.random.default_rng(seed).integers(0, 256, (count, *size), np.uint8)


def _frames(folder, film, first=1):
    folder.mkdir(parents=True)
    for number, frame in enumerate(film, first):
        Image.fromarray(frame).save(folder / f"{number}.png")


def _animation(path, film):
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = [Image.fromarray(frame) for frame in film]
    form = {".gif": "GIF", ".apng": "PNG"}[path.suffix]
    frames[0].save(path, format=form, save_all=True, append_images=frames[1:])


def _mp4(path, film, size=16):
    """Grey frames, each of one level, which H.264 keeps."""
    pytest.importorskip("imageio_ffmpeg")
    from imageio_ffmpeg import get_ffmpeg_exe

    raw = np.broadcast_to(np.asarray(film, np.uint8)[:, None, None, None], (len(film), size, size, 3))
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{size}x{size}", "-r", "10", "-i", "-"]
    command = [get_ffmpeg_exe(), "-v", "error", "-y", *source, "-pix_fmt", "yuv444p", "-c:v", "libx264", "-qp", "0"]
    subprocess.run([*command, str(path)], input=raw.tobytes(), check=True)


def _opened(path, **settings):
    return open_dataset(name=f"folder:{path}", **{**LOOK, **settings})


def _all(data):
    return data.examples(np.arange(data.size))


def test_folders_of_frames_are_cut_into_clips_that_share_no_frame(tmp_path):
    """12 frames, named 1 to 12, so that 10 stands behind 9; and 7."""
    films = {"a": _film(12), "b": _film(7, 1)}
    for name, film in films.items():
        _frames(tmp_path / "set" / name, film)
    data = _opened(tmp_path / "set")
    expected = [*films["a"].reshape(4, 3, 6, 6), films["b"][:3], films["b"][3:6]]
    np.testing.assert_array_equal(_all(data)["video"][..., 0], expected)
    assert data.notes == (f"{tmp_path / 'set'}: 2 films",) and not data.class_names

    every_second = _opened(tmp_path / "set", frame_step=2)
    expected = [films["a"][[0, 2, 4]], films["a"][[6, 8, 10]], films["b"][[0, 2, 4]]]
    np.testing.assert_array_equal(_all(every_second)["video"][..., 0], expected)
    assert every_second.fingerprint != data.fingerprint


def test_folders_above_films_are_splits_and_labels(tmp_path):
    for number, name in enumerate(("train/run/x", "train/walk/y", "train/walk/z", "test/walk/x")):
        _frames(tmp_path / name, _film(6, number))
    train, test = (_opened(tmp_path, split=split) for split in ("train", "test"))
    assert train.class_names == test.class_names == ("run", "walk")
    np.testing.assert_array_equal(_all(train)["label"], [0, 0, 1, 1, 1, 1])
    np.testing.assert_array_equal(_all(test)["label"], [1, 1])
    np.testing.assert_array_equal(_all(test)["video"][..., 0], _film(6, 3).reshape(2, 3, 6, 6))


@pytest.mark.parametrize("ending", [".gif", ".apng"])
def test_animations_are_films(tmp_path, ending):
    film = _film(7)
    _animation(tmp_path / "set" / f"x{ending}", film)
    np.testing.assert_array_equal(_all(_opened(tmp_path / "set"))["video"][..., 0], film[:6].reshape(2, 3, 6, 6))
    one = _opened(tmp_path / "set" / f"x{ending}")  # a file alone is a set
    np.testing.assert_array_equal(_all(one)["video"], _all(_opened(tmp_path / "set"))["video"])


def test_film_files_are_decoded_once(tmp_path, monkeypatch):
    levels = [10, 60, 110, 160, 210, 250, 30]
    (tmp_path / "set").mkdir()
    _mp4(tmp_path / "set" / "x.mp4", levels)
    data = _opened(tmp_path / "set")
    assert data.shape == (3, 6, 6, 1)
    clips = _all(data)["video"][..., 0].astype(int)
    assert np.abs(clips - np.array(levels[:6]).reshape(2, 3, 1, 1)).max() <= 3
    monkeypatch.setattr(film_files.ffmpeg, "frames", lambda film: pytest.fail("decoded again"))
    assert _opened(tmp_path / "set", frames=2).size == 3


def test_arrays_are_films_of_one_length_or_one(tmp_path):
    clips = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 6, 1), np.uint8)
    np.savez(tmp_path / "many.npz", videos=clips)
    np.testing.assert_array_equal(_all(_opened(tmp_path / "many.npz"))["video"], clips[:, :3])
    (tmp_path / "set" / "a").mkdir(parents=True)
    (tmp_path / "set" / "b").mkdir(parents=True)
    np.savez_compressed(tmp_path / "set" / "a" / "one.npz", video=clips[0], other=np.zeros(3))
    np.savez(tmp_path / "set" / "b" / "one.npz", videos=clips)
    data = _opened(tmp_path / "set", frames=2)
    np.testing.assert_array_equal(_all(data)["video"], np.concatenate([clips[:1], clips]).reshape(-1, 2, 6, 6, 1))
    np.testing.assert_array_equal(_all(data)["label"], [0, 0, 1, 1, 1, 1])


def test_frames_of_any_size_are_made_to_fit_as_pictures_are(tmp_path):
    """A film of 12x12 and one of 18x24: cut to a square, and means of 2x2 and 3x3 pixels."""
    small, large = _film(3, 0, (12, 12)), _film(3, 1, (18, 24))
    _frames(tmp_path / "a", small)
    np.savez(tmp_path / "b.npz", video=large[..., None])
    clips = _all(_opened(tmp_path, filter="box"))["video"][..., 0].astype(float)
    np.testing.assert_allclose(clips[0], small.reshape(3, 6, 2, 6, 2).mean((2, 4)), atol=1)
    np.testing.assert_allclose(clips[1], large[:, :, 3:-3].reshape(3, 6, 3, 6, 3).mean((2, 4)), atol=1)


def test_a_zip_of_frames_and_animations_is_a_set(tmp_path):
    _frames(tmp_path / "set" / "a", _film(3))
    _animation(tmp_path / "set" / "b.gif", _film(3, 1))
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for file in sorted((tmp_path / "set").rglob("*.*")):
            archive.write(file, file.relative_to(tmp_path / "set"))
    of_folder, of_zip = (_all(_opened(tmp_path / name))["video"] for name in ("set", "set.zip"))
    np.testing.assert_array_equal(of_zip, of_folder)


def test_one_folder_of_frames_is_a_film(tmp_path):
    _frames(tmp_path / "walk", _film(6))
    assert _opened(tmp_path / "walk").size == 2


@pytest.mark.parametrize("ending", ["a", ".gif", ".mp4"])
def test_a_film_that_is_too_short_is_named_or_skipped(tmp_path, ending):
    _frames(tmp_path / "set" / "long", _film(6))
    if ending == "a":
        _frames(tmp_path / "set" / "a", _film(4))
    elif ending == ".gif":
        _animation(tmp_path / "set" / "a.gif", _film(4))
    else:
        _mp4(tmp_path / "set" / "a.mp4", [0, 90, 180, 250])
    name = "a" if ending == "a" else f"a{ending}"
    with pytest.raises(UserError, match=rf"set/{name} cannot be used: it has 4 frames, and clips of data.frames=3 with "
                                        r"data.frame_step=2 reach over 5\. .*skip_corrupt=True"):
        _opened(tmp_path / "set", frame_step=2)
    data = _opened(tmp_path / "set", frame_step=2, skip_corrupt=True)
    assert (data.size, data.skipped) == (1, 1) and "1 that cannot be used left out" in data.contents


@pytest.mark.parametrize(("ending", "reason"), [
    (".mp4", "a film without a stream of pictures"), (".gif", "not an animation that PIL can read"),
    (".apng", "not an animation that PIL can read"),
])  # fmt: skip
def test_a_film_that_cannot_be_decoded_is_named_or_skipped(tmp_path, ending, reason):
    _frames(tmp_path / "set" / "good", _film(3))
    (tmp_path / "set" / f"bad{ending}").write_bytes(b"no film" * 9)
    with pytest.raises(UserError, match=rf"bad{ending} cannot be used: .*{reason}") as caught:
        _opened(tmp_path / "set")
    assert "\n" not in str(caught.value)
    assert _opened(tmp_path / "set", skip_corrupt=True).skipped == 1


def test_a_film_that_breaks_off_is_named(tmp_path):
    (tmp_path / "set").mkdir()
    _animation(tmp_path / "set" / "a.gif", _film(5, 0, (40, 40)))
    data = (tmp_path / "set" / "a.gif").read_bytes()
    (tmp_path / "set" / "a.gif").write_bytes(data[: len(data) // 3])
    with pytest.raises(UserError, match=r"set/a\.gif cannot be used"):
        _opened(tmp_path / "set")


@pytest.mark.parametrize("most", ["MOST_FRAMES", "MOST_PIXELS"])
def test_an_animation_of_endlessly_many_frames_is_refused(tmp_path, monkeypatch, most):
    """A few bytes a frame make any number of them."""
    _animation(tmp_path / "set" / "a.gif", _film(9))
    monkeypatch.setattr(film_files, most, {"MOST_FRAMES": 8, "MOST_PIXELS": 9 * 36 - 1}[most])
    with pytest.raises(UserError, match=r"a\.gif cannot be used: it has 9 frames of 6x6 pixels; expected up to"):
        _opened(tmp_path / "set")


def test_a_film_file_of_endlessly_many_frames_is_refused(tmp_path, monkeypatch):
    (tmp_path / "set").mkdir()
    _mp4(tmp_path / "set" / "a.mp4", [0, 90, 180, 250, 90, 0])
    monkeypatch.setattr(film_files, "MOST_OF_FILM", 5)
    with pytest.raises(UserError, match=r"a\.mp4 cannot be used: it has more than 5 frames"):
        _opened(tmp_path / "set")


def test_a_copy_of_large_film_files_is_the_same_set(tmp_path, monkeypatch):
    """Sets that are not packed have the files' times in their fingerprint; their content is that of the bytes."""
    monkeypatch.setattr(pack, "LIMIT_BYTES", 0)
    for name, level in (("one", 0), ("copy", 0), ("other", 50)):
        (tmp_path / name).mkdir()
        _mp4(tmp_path / name / "a.mp4", [level, 90, 180])
        _frames(tmp_path / name / "b", _film(3))
        (tmp_path / name / "b" / "4.png").symlink_to(tmp_path / "nowhere")
    monkeypatch.setattr(files, "_most", lambda name, pictures: 100 if name.endswith(".mp4") else files.MOST_BYTES)
    one, copy, other = (_opened(tmp_path / name).content() for name in ("one", "copy", "other"))
    assert one == copy != other and len(one) == 64


@pytest.mark.parametrize(("arrays", "message"), [
    ({"video": np.zeros((3, 6, 6, 1), np.float32)}, "an array of float32 and the shape"),
    ({"video": np.zeros((3, 6, 6), np.uint8)}, r"uint8 and the shape \(3, 6, 6\); expected one array 'video'"),
    ({"video": np.zeros((3, 6, 6, 5), np.uint8)}, "C from 1 to 4"),
    ({"images": np.zeros((3, 6, 6, 1), np.uint8)}, "has the arrays images; expected"),
    ({"video": np.array([{}], object)}, "pickled objects"),
])  # fmt: skip
def test_arrays_of_another_type_are_named(tmp_path, arrays, message):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(UserError, match=rf"x\.npz .*{message}"):
        _opened(tmp_path)


def test_places_without_films_are_named(tmp_path):
    (tmp_path / "set").mkdir()
    with pytest.raises(UserError, match=r"set holds no films: expected files that end in \.mp4, .*folders of frames"):
        _opened(tmp_path / "set")
    (tmp_path / "set" / "x.txt").write_text("")
    with pytest.raises(UserError, match=r"holds no films.*it has \.txt 1"):
        _opened(tmp_path / "set")
    with pytest.raises(UserError, match="there is no folder"):
        _opened(tmp_path / "nothing")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("a.npz", b"")
    with pytest.raises(UserError, match=r"holds a\.npz: film files and arrays are read from folders; unpack it"):
        _opened(tmp_path / "set.zip")


def test_a_pipe_that_is_called_as_a_film_is_not_waited_for(tmp_path):
    _frames(tmp_path / "set" / "good", _film(3))
    os.mkfifo(tmp_path / "set" / "a.mp4")
    with pytest.raises(UserError, match=r"a\.mp4 cannot be used: it is a pipe, not a file"):
        _opened(tmp_path / "set")


def test_without_ffmpeg_films_are_named_and_other_sets_are_read(tmp_path, monkeypatch):
    import sys

    _frames(tmp_path / "set" / "good", _film(3))
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    assert _opened(tmp_path / "set").size == 1
    (tmp_path / "set" / "x.webm").write_bytes(b"")
    with pytest.raises(UserError, match="a film needs ffmpeg, and it is not installed: pip install imageio-ffmpeg"):
        _opened(tmp_path / "set", skip_corrupt=True)


def test_pictures_beside_films_are_passed_over(tmp_path):
    _animation(tmp_path / "set" / "a.gif", _film(3))
    Image.fromarray(_film(1)[0]).save(tmp_path / "set" / "thumbnail.png")
    data = _opened(tmp_path / "set")
    assert data.size == 1 and any("1 pictures beside films, passed over" in note for note in data.notes)
