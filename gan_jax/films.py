"""New films of what a function makes of the frames of old ones, with their sound and rate, through ffmpeg.

What is made lies in segments beside the film to be, so that a run that was interrupted goes on with the next one. Each
segment is encoded by itself in any case: the film is the same, interrupted or not.
"""

import contextlib
import itertools
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np

from gan_jax.errors import UserError
from gan_jax.ffmpeg import Film, frames, last_words, program, source

ENDING = ".mp4"
SEGMENT_PIXELS, SEGMENT_FRAMES = 2**28, 250  # the most that a segment has
COLOURS = ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv"]


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
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{first.shape[1]}x{first.shape[0]}", "-r", str(film.rate)]
    filters = f"scale=out_color_matrix=bt709:out_range=tv,setsar={film.aspect.replace(':', '/')}"
    command = [program(), "-y", "-v", "error", *raw, "-i", "-", "-vf", filters, *COLOURS, "-pix_fmt", "yuv420p"]
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
            raise OSError(f"ffmpeg: {last_words(words.read())}")
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
    command = [program(), "-y", "-v", "error", "-f", "concat", "-safe", "0", "-i", str(listing), *source(film.path)]
    command += ["-map", "0:v:0", "-map", "1:a?", "-map_metadata", "1", "-c:v", "copy"]
    ends = ["-movflags", "+faststart", "-f", "mp4", str(part)]
    try:
        for sound in (["-c:a", "copy"], ["-c:a", "aac"]):
            done = subprocess.run([*command, *sound, *ends], capture_output=True, stdin=subprocess.DEVNULL)
            if not done.returncode:
                os.replace(part, out)
                return
        raise OSError(f"ffmpeg: {last_words(done.stderr)}")
    finally:
        part.unlink(missing_ok=True)
