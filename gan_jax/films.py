"""Films frame by frame through ffmpeg: frames in, a new film of frames with the old one's sound and rate out.

What is made lies in segments beside the film to be, so that a run that was interrupted goes on with the next one. Each
segment is encoded by itself in any case: the film is the same, interrupted or not.
"""

import contextlib
import itertools
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from gan_jax import images
from gan_jax.errors import UserError

SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv", ".ts", ".3gp")
DEMUXERS = "mov,matroska,avi,mpeg,mpegvideo,mpegts,asf,flv,ogg"  # ffmpeg's for these; no list of other files
MOST_PIXELS = 178_956_970  # of a frame, as Pillow has it for pictures
ENDING = ".mp4"
SEGMENT_PIXELS, SEGMENT_FRAMES = 2**28, 250  # the most that a segment has
COLOURS = ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv"]
RATE = re.compile(r"([\d.]+)(k?) fps")
BASE_RATE = re.compile(r"([\d.]+)(k?) tbr")


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
    done = subprocess.run([_program(), "-hide_banner", *_input(path)], capture_output=True, stdin=subprocess.DEVNULL)
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


def _program() -> str:
    return images.find_ffmpeg("a film needs ffmpeg", "")


def _input(path: pathlib.Path) -> list[str]:
    """The arguments that name a film to ffmpeg: a file that holds all of itself, and asks for no other one."""
    limits = ["-protocol_whitelist", "file", "-format_whitelist", DEMUXERS, "-max_pixels", str(MOST_PIXELS)]
    return [*limits, "-i", f"file:{path}"]


def _first_frame(path: pathlib.Path) -> tuple[int, int]:
    """(H, W) of the frames as ffmpeg gives them, upright."""
    command = [_program(), "-v", "error", *_input(path), "-map", "0:V:0", "-frames:v", "1", "-c:v", "ppm"]
    done = subprocess.run([*command, "-f", "image2pipe", "-"], capture_output=True, stdin=subprocess.DEVNULL)
    match = re.match(rb"P6\s+(\d+)\s+(\d+)\s", done.stdout)
    if not match:
        raise UserError(f"{path}: ffmpeg reads no frame of it: {_last(done.stderr)}")
    return int(match[2]), int(match[1])


def _last(words: bytes) -> str:
    return words.decode(errors="replace").strip()[-300:]


def frames(film: Film, first: int = 0) -> Iterator[np.ndarray]:
    """The frames uint8 (H, W, 3) from number `first` on, at a constant rate.

    All before are decoded too: to seek would not find the same frames in every film.

    Raises:
      UserError: after the last frame, of a film that is damaged or cut off.
    """
    command = [_program(), "-v", "error", *_input(film.path), "-map", "0:V:0", "-fps_mode", "cfr", "-r"]
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
        why = (_last(words).splitlines() or ["ffmpeg breaks off"])[-1]
        raise UserError(f"{film.path}: damaged: {count} of about {film.frames} frames can be read: {why}; copy it anew")
    if is_short:
        print(f"{film.path}: its pictures end after {count} of about {film.frames} frames", flush=True)


def segment_length(height: int, width: int) -> int:
    """Frames of a segment, of films of this size."""
    return min(max(SEGMENT_PIXELS // (height * width), 1), SEGMENT_FRAMES)


def convert(
    film: Film, out: pathlib.Path, function: Callable, *, length: int, identity: dict, begin: Callable = lambda _: None
) -> None:
    """Writes a film of what a function makes of each frame, with the sound of the old one; goes on where one stopped.

    Args:
      film: the old one.
      out: the new one, an .mp4 (H.264); its segments lie in a hidden folder beside it until it is done.
      function: uint8 frame (H, W, 3) -> uint8 (h, w, 3), of one size for all.
      length: frames of a segment.
      identity: what the frames depend on, as JSON has it; segments of another one are thrown away.
      begin: called with the number of frames that an earlier run has made.
    Raises:
      UserError: no frame could be read, or the film is damaged or cut off.
      OSError: ffmpeg does not write it; the message has its words.
    """
    folder = out.with_name(f".{out.name}.parts")
    status = film.path.stat()
    identity = identity | {"film": [status.st_size, status.st_mtime_ns], "length": length, "rate": str(film.rate)}
    ready = _ready(folder, identity)
    begin(ready * length)
    stream = frames(film, ready * length)
    segments = [folder / f"{number:06}.mp4" for number in range(ready)]
    with contextlib.closing(stream):
        while batch := list(itertools.islice(stream, length)):
            segments.append(folder / f"{len(segments):06}.mp4")
            _encode(segments[-1], map(function, batch), film)
    if not segments:
        raise UserError(f"{film.path}: ffmpeg reads no frame of it")
    _join(folder, segments, length / film.rate, film, out)
    shutil.rmtree(folder)


def _ready(folder: pathlib.Path, identity: dict) -> int:
    """How many segments, from the first one on, an earlier run has made; the folder stands afterwards."""
    note = folder / "identity.json"
    try:
        is_same = json.loads(note.read_text()) == identity
    except (OSError, ValueError, RecursionError):
        is_same = False
    if not is_same:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        note.write_text(json.dumps(identity))
    return next(n for n in itertools.count() if not (folder / f"{n:06}.mp4").exists())


def _encode(path: pathlib.Path, pictures: Iterator[np.ndarray], film: Film) -> None:
    """Frames as H.264, whole or not at all; odd sides have their last row or column twice, see `images.save_video`.

    Without frames that depend on later ones: where segments are joined, their times would leave gaps.
    """
    part, first = path.with_name(f"{path.name}.part"), _even(next(pictures))
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{first.shape[1]}x{first.shape[0]}", "-r", str(film.rate)]
    filters = f"scale=out_color_matrix=bt709:out_range=tv,setsar={film.aspect.replace(':', '/')}"
    command = [_program(), "-y", "-v", "error", *source, "-i", "-", "-vf", filters, *COLOURS, "-pix_fmt", "yuv420p"]
    command += ["-c:v", "libx264", "-crf", "16", "-bf", "0", "-video_track_timescale", "90000", "-f", "mp4", str(part)]
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=words)
        try:
            for picture in itertools.chain([first], map(_even, pictures)):
                process.stdin.write(np.ascontiguousarray(picture).data)
            process.stdin.close()
        except BrokenPipeError:
            pass  # its words say why
        except BaseException:
            process.kill()
            raise
        code = process.wait()
        words.seek(0)
        if code:
            raise OSError(f"ffmpeg: {_last(words.read())}")
    os.replace(part, path)


def _even(picture: np.ndarray) -> np.ndarray:
    rows, columns = (side % 2 for side in picture.shape[:2])
    return np.pad(picture, ((0, rows), (0, columns), (0, 0)), "edge") if rows or columns else picture


def _join(
    folder: pathlib.Path, segments: list[pathlib.Path], seconds: Fraction, film: Film, out: pathlib.Path
) -> None:
    """The segments, each of so many seconds, as one film, with its sound, or that as AAC where an .mp4 cannot hold it.
    """
    listing, part = folder / "segments.txt", out.with_name(f".{out.name}.part")
    listing.write_text("".join(f"file '{segment.name}'\nduration {float(seconds):.9f}\n" for segment in segments))
    command = [_program(), "-y", "-v", "error", "-f", "concat", "-safe", "0", "-i", str(listing), *_input(film.path)]
    command += ["-map", "0:v:0", "-map", "1:a?", "-map_metadata", "1", "-c:v", "copy"]
    ends = ["-movflags", "+faststart", "-f", "mp4", str(part)]
    try:
        for sound in (["-c:a", "copy"], ["-c:a", "aac"]):
            done = subprocess.run([*command, *sound, *ends], capture_output=True, stdin=subprocess.DEVNULL)
            if not done.returncode:
                os.replace(part, out)
                return
        raise OSError(f"ffmpeg: {_last(done.stderr)}")
    finally:
        part.unlink(missing_ok=True)
