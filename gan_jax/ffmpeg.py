"""Films through ffmpeg, which is asked as a program: what a film is, and its frames one by one."""

import itertools
import os
import pathlib
import re
import subprocess
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from gan_jax.errors import UserError

SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv", ".ts", ".3gp")
DEMUXERS = "mov,matroska,avi,mpeg,mpegvideo,mpegts,asf,flv,ogg"  # ffmpeg's for these; no list of other files
MOST_PIXELS = 178_956_970  # of a frame, as Pillow has it for pictures
RATE = re.compile(r"([\d.]+)(k?) fps")
BASE_RATE = re.compile(r"([\d.]+)(k?) tbr")


def find(need: str = "an MP4 needs ffmpeg", otherwise: str = "; or take a GIF") -> str:
    """The program that reads and writes films.

    Args:
      need, otherwise: the beginning and the end of the message where it is missing.
    Raises:
      UserError: `imageio-ffmpeg`, the extra `video`, is not installed.
    """
    try:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):  # the package, or the program within it, is not there
        install = "pip install imageio-ffmpeg, which is gan_jax's extra `video`"
        raise UserError(f"{need}, and it is not installed: {install}{otherwise}") from None


class Film(NamedTuple):
    """A film whose pictures can be read."""

    path: pathlib.Path
    width: int  # of its frames, upright
    height: int
    rate: Fraction  # frames in a second
    frames: int  # about so many; 0 where the file does not tell
    aspect: str  # of a pixel, such as 1:1
    notes: tuple[str, ...]  # what is not as in the file


def is_film(path: str | os.PathLike) -> bool:
    """Whether a name ends as films' do."""
    return str(path).lower().endswith(SUFFIXES)


def open_film(path: pathlib.Path) -> Film:
    """What a film is.

    Raises:
      UserError: there is no ffmpeg, or it reads no pictures in the file.
    """
    done = subprocess.run([program(), "-hide_banner", *source(path)], capture_output=True, stdin=subprocess.DEVNULL)
    words = done.stderr.decode(errors="replace")
    streams = [line.strip() for line in words.splitlines() if line.strip().startswith("Stream #")]
    pictures = [line for line in streams if "Video:" in line and "(attached pic)" not in line]
    if not pictures:
        what = "; ".join(re.sub(r"^Stream #\S+ ", "", line)[:60] for line in streams) or words.strip().splitlines()[-1]
        raise UserError(f"{path}: a film without a stream of pictures ({what}); expected one that ffmpeg can read")
    rate, base = (_rate(pattern.search(pictures[0])) for pattern in (RATE, BASE_RATE))
    rate = rate or base or Fraction(25)
    notes = ()
    if base and abs(base / rate - 1) > 0.01:
        notes = (f"frames of varying length become {float(rate):.2f} in a second, their mean",)
    seconds = 0.0
    if match := re.search(r"Duration: (\d+):(\d+):([\d.]+)", words):
        seconds = 3600 * int(match[1]) + 60 * int(match[2]) + float(match[3])
    aspect = match[1] if (match := re.search(r"SAR (\d+:\d+)", pictures[0])) else "1:1"
    height, width = _first_frame(path)
    return Film(path, width, height, rate, round(seconds * rate), aspect, notes)


def _rate(match: re.Match | None) -> Fraction | None:
    """Of `29.97`, which is written shorter than it is, 30000/1001."""
    if match is None or not float(match[1]):
        return None
    rate = float(match[1]) * (1000 if match[2] else 1)
    ntsc = Fraction(round(rate * 1.001) * 1000, 1001)
    return ntsc if rate != round(rate) and abs(float(ntsc) - rate) < 0.006 else Fraction(match[1]) * round(
        rate / float(match[1]))  # fmt: skip


def program() -> str:
    """ffmpeg, for a film that is read. Raises UserError where it is not there."""
    return find("a film needs ffmpeg", "")


def source(path: pathlib.Path) -> list[str]:
    """The arguments that name a film to ffmpeg: a file that holds all of itself, and asks for no other one."""
    limits = ["-protocol_whitelist", "file", "-format_whitelist", DEMUXERS, "-max_pixels", str(MOST_PIXELS)]
    return [*limits, "-i", f"file:{path}"]


def _first_frame(path: pathlib.Path) -> tuple[int, int]:
    """(H, W) of the frames as ffmpeg gives them, upright."""
    command = [program(), "-v", "error", *source(path), "-map", "0:V:0", "-frames:v", "1", "-c:v", "ppm"]
    done = subprocess.run([*command, "-f", "image2pipe", "-"], capture_output=True, stdin=subprocess.DEVNULL)
    match = re.match(rb"P6\s+(\d+)\s+(\d+)\s", done.stdout)
    if not match:
        raise UserError(f"{path}: ffmpeg reads no frame of it: {last_words(done.stderr)}")
    return int(match[2]), int(match[1])


def last_words(words: bytes) -> str:
    """The end of what ffmpeg says."""
    return words.decode(errors="replace").strip()[-300:]


def frames(film: Film, first: int = 0) -> Iterator[np.ndarray]:
    """The frames uint8 (H, W, 3) from number `first` on, at a constant rate.

    All before are decoded too: to seek would not find the same frames in every film.

    Raises:
      UserError: after the last frame, of a film that is damaged or cut off.
    """
    command = [program(), "-v", "error", *source(film.path), "-map", "0:V:0", "-fps_mode", "cfr", "-r"]
    command += [str(film.rate), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    size = film.width * film.height * 3
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=words, stdin=subprocess.DEVNULL)
        try:
            for number in itertools.count():
                content = process.stdout.read(size)
                if len(content) < size:
                    break
                if number >= first:
                    yield np.frombuffer(content, np.uint8).reshape(film.height, film.width, 3)
            code = process.wait()
            words.seek(0)
            _check_end(film, number, bool(code or content), words.read())
        finally:
            process.stdout.close()
            process.kill()
            process.wait()


def _check_end(film: Film, count: int, is_broken: bool, words: bytes) -> None:
    """Raises UserError for a film that ends too early: ffmpeg breaks off, or complains and is clearly short of frames.

    Frames alone do not tell it: a film lasts as long as the longer of its pictures and its sound.
    """
    is_short = count < 0.9 * film.frames - 2
    if is_broken or (is_short and words.strip()):
        why = (last_words(words).splitlines() or ["ffmpeg breaks off"])[-1]
        raise UserError(f"{film.path}: damaged: {count} of about {film.frames} frames can be read: {why}; copy it anew")
    if is_short:
        print(f"{film.path}: its pictures end after {count} of about {film.frames} frames", flush=True)
