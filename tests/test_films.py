"""Films of six frames that ffmpeg makes: size, rate, sound, turned and odd ones, some that go on or are none."""

import subprocess

import numpy as np
import pytest

from gan_jax import enlarge_files, ffmpeg, films
from gan_jax.errors import UserError
from gan_jax.layers.rescale import upscale
from tests import test_enlarge

imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")


def _ffmpeg(*arguments):
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error", *map(str, arguments)], check=True)


def _film(path, *options, size="34x21", rate="30000/1001", sound=True):
    """Six frames of smooth colours, and a tone."""
    tone = ["-f", "lavfi", "-i", "sine=frequency=440:duration=0.2", "-c:a", "aac"] if sound else []
    source = ["-f", "lavfi", "-i", f"gradients=size={size}:rate={rate}:seed=1:duration=9"]
    _ffmpeg(*source, *tone, "-frames:v", 6, "-c:v", "libx264", "-pix_fmt", "yuv444p", "-crf", 1, *options, path)
    return path


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return _film(tmp_path_factory.mktemp("films") / "old.mp4")


def _sound(path):
    """Samples of the sound."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", path, "-f", "s16le", "-ac", "1", "-"]
    return np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, np.int16)


def _pictures(path):
    opened = ffmpeg.open_film(path)
    return opened, np.stack(list(ffmpeg.frames(opened)))


def test_a_film_is_read(film):
    opened, pictures = _pictures(film)
    assert opened._replace(frames=0) == (film, 34, 21, ffmpeg.Fraction(30000, 1001), 0, "1:1", ())
    assert opened.frames == pytest.approx(6, abs=1)
    assert pictures.shape == (6, 21, 34, 3) and pictures.std() > 20
    np.testing.assert_array_equal(list(ffmpeg.frames(opened, 4)), pictures[4:])


def test_a_film_becomes_larger(film, tmp_path):
    """Twice, by a network that repeats pixels."""
    (ours,) = test_enlarge._files(film, tmp_path / "out")
    opened, pictures = _pictures(ours)
    assert (opened.width, opened.height) == (68, 42)
    _, before = _pictures(film)
    assert np.abs(pictures.astype(int) - before.repeat(2, 1).repeat(2, 2)).mean() < 5


@pytest.mark.parametrize("ending", ["mkv", "mp4"])
def test_a_film_that_is_cut_off_is_one_message(tmp_path, ending):
    """No short film comes of it."""
    tail = ["-movflags", "+faststart"] if ending == "mp4" else []
    whole = _film(tmp_path / f"whole.{ending}", "-frames:v", 90, "-g", 10, *tail, sound=False)
    assert len(_pictures(whole)[1]) == 90
    half = tmp_path / f"half.{ending}"
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(UserError, match=rf"half.{ending}: damaged: \d+ of about 9\d? frames can be read: .*copy it"):
        test_enlarge._files(half, tmp_path / "out")
    assert not (tmp_path / "out" / "half.mp4").exists()


def test_sound_that_goes_on_after_the_pictures_is_no_damage(tmp_path, capsys):
    path = tmp_path / "long.mp4"
    _ffmpeg("-f", "lavfi", "-i", "color=size=16x16:rate=10:duration=1", "-f", "lavfi", "-i", "sine=duration=4", path)
    assert len(_pictures(path)[1]) == 10
    assert "its pictures end after 10 of about 40 frames" in capsys.readouterr().out


def test_a_film_is_enlarged_with_its_sound_and_rate(film, tmp_path, monkeypatch):
    """At a scale of 1, of frames as large as the first one; a row and a column are added where sides would be odd."""
    monkeypatch.setattr(films, "segment_length", lambda *size: 4)
    (ours,) = enlarge_files.enlarge(test_enlarge._run(lambda x: upscale(x, 2)), {}, str(film), tmp_path / "out",
                                    test_enlarge.Settings(scale=1), enlarge_files.Output())  # fmt: skip
    assert ours == tmp_path / "out" / "old.mp4" and [file.name for file in ours.parent.iterdir()] == ["old.mp4"]
    opened, pictures = _pictures(ours)
    assert (opened.width, opened.height, opened.rate) == (34, 22, ffmpeg.Fraction(30000, 1001))
    _, before = _pictures(film)
    assert len(pictures) == 6  # two segments
    assert np.abs(pictures[:, :21].astype(int) - before).mean() < 5  # colours have half the resolution
    np.testing.assert_array_equal(_sound(ours), _sound(film))


def test_a_film_that_was_interrupted_goes_on(film, tmp_path):
    """Bytes are equal to those of one that was not; frames that an earlier run has made are not made again."""
    opened, seen, began = ffmpeg.open_film(film), [], []

    def convert(name, most):
        def frame(values):
            if len(seen) >= most:
                raise KeyboardInterrupt
            seen.append(values)
            return values[::-1]

        films.convert(opened, tmp_path / name, frame, length=2, identity={"scale": 1}, begin=began.append)

    convert("whole.mp4", 99)
    seen.clear()
    with pytest.raises(KeyboardInterrupt):
        convert("parts.mp4", 5)
    assert len(seen) == 5 and not (tmp_path / "parts.mp4").exists()
    convert("parts.mp4", 99)
    assert began == [0, 0, 4] and len(seen) == 5 + 2
    assert (tmp_path / "parts.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["parts.mp4", "whole.mp4"]


def test_segments_of_other_settings_are_not_taken(film, tmp_path):
    opened, began = ffmpeg.open_film(film), []

    def stop(values):
        raise KeyboardInterrupt

    def convert(scale, frame):
        films.convert(opened, tmp_path / "x.mp4", frame, length=3, identity={"scale": scale}, begin=began.append)

    with pytest.raises(KeyboardInterrupt):
        convert(1, stop)
    (tmp_path / ".x.mp4.parts" / "000000.mp4").write_bytes(b"of the other scale")
    convert(2, lambda values: values)
    assert began == [0, 0] and len(_pictures(tmp_path / "x.mp4")[1]) == 6


def test_a_film_that_lies_on_its_side_is_upright(film, tmp_path):
    turned = tmp_path / "turned.mp4"
    _ffmpeg("-display_rotation", 90, "-i", film, "-c", "copy", turned)
    opened, pictures = _pictures(turned)
    assert (opened.width, opened.height) == (21, 34)
    np.testing.assert_array_equal(pictures, np.rot90(_pictures(film)[1], 1, (1, 2)))


def test_varying_frame_rates_become_their_mean(tmp_path):
    path = tmp_path / "varying.mp4"
    _film(path, "-vf", "setpts='(N+2*N*gt(N,2))/30/TB'", "-fps_mode", "vfr", "-bf", 0, sound=False, rate=30)
    opened, pictures = _pictures(path)
    assert len(opened.notes) == 1 and "frames of varying length become" in opened.notes[0]
    assert len(pictures) / float(opened.rate) == pytest.approx(16 / 30, abs=1.5 / float(opened.rate))


def test_a_sound_that_an_mp4_cannot_hold_is_encoded_anew(film, tmp_path):
    path = tmp_path / "old.avi"
    _ffmpeg("-i", film, "-c:v", "copy", "-c:a", "adpcm_swf", "-ar", 22050, path)
    opened = ffmpeg.open_film(path)
    films.convert(opened, tmp_path / "new.mp4", lambda values: values, length=9, identity={})
    assert np.abs(_sound(tmp_path / "new.mp4").astype(float)).mean() > 500


@pytest.mark.parametrize(("name", "message"), [
    ("sound.mp4", r"sound.mp4: a film without a stream of pictures \(Audio: aac"),
    ("bad.mp4", r"bad.mp4: a film without a stream of pictures \(.*Invalid data"),
])  # fmt: skip
def test_files_that_are_no_films_are_one_message(film, tmp_path, name, message):
    _ffmpeg("-i", film, "-vn", "-c", "copy", tmp_path / "sound.mp4")
    (tmp_path / "bad.mp4").write_bytes(b"no film")
    with pytest.raises(UserError, match=message):
        test_enlarge._files(tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_film_never_takes_its_own_place(film):
    with pytest.raises(UserError, match="old.mp4: what is made of it would take its place"):
        test_enlarge._files(film, film.parent)
    with pytest.raises(UserError, match="a film becomes an .mp4; leave --format and --quality out"):
        test_enlarge._files(film, film.parent / "x", form="png")


@pytest.mark.parametrize(("words", "rate"), [
    ("29.97 fps", ffmpeg.Fraction(30000, 1001)), ("23.98 fps", ffmpeg.Fraction(24000, 1001)), ("25 fps", 25),
    ("12.50 fps", ffmpeg.Fraction(25, 2)), ("1k fps", 1000), ("59.94 fps", ffmpeg.Fraction(60000, 1001)),
])  # fmt: skip
def test_rates_are_read(words, rate):
    assert ffmpeg._rate(ffmpeg.RATE.search(words)) == rate


@pytest.mark.parametrize("text", [
    "ffconcat version 1.0\nfile old.mp4\n",
    "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nold.mp4\n#EXT-X-ENDLIST\n",
])  # fmt: skip
def test_a_list_of_other_files_that_is_called_a_film_is_refused(film, text):
    """ffmpeg alone goes by the content, and would open what the list names."""
    path = film.with_name("list.mp4")
    path.write_text(text)
    if text.startswith("ffconcat"):
        _ffmpeg("-i", path, film.with_name("opened.mp4"))
    with pytest.raises(UserError, match="list.mp4: a film without a stream of pictures"):
        ffmpeg.open_film(path)


def test_frames_of_more_pixels_than_any_picture_has_are_refused(film, monkeypatch):
    monkeypatch.setattr(ffmpeg, "MOST_PIXELS", 34 * 21 - 1)
    with pytest.raises(UserError, match="old.mp4: "):
        ffmpeg.open_film(film)


def test_a_film_whose_name_looks_like_an_address(film, tmp_path):
    path = tmp_path / "concat:a.mp4"
    path.write_bytes(film.read_bytes())
    assert ffmpeg.open_film(path).width == 34
