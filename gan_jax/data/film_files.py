"""Films of a place: folders of frames, film files and arrays; how many frames each has, and those that are asked for.

Films are decoded once, from their beginning, their frames made to fit and kept in the cache: to seek would not find the
same frames in every film.
"""

import functools
import hashlib
import json
import os
import pathlib
import re
import tempfile
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from gan_jax import archives, ffmpeg, paths
from gan_jax.cache import cache_dir
from gan_jax.data.files import Files, NotAFile, content, list_files, read_bytes
from gan_jax.data.fit import MODES, CorruptImageError, Fit, decode, fit_image, open_image, unusable
from gan_jax.errors import UserError, plain

ANIMATIONS = (".gif", ".apng")  # read by Pillow
ARRAYS = ".npz"
SUFFIXES = (*ffmpeg.SUFFIXES, *ANIMATIONS, ARRAYS)
NAMES = ("video", "videos")  # of an array in an .npz file
MOST_FRAMES, MOST_PIXELS = 50_000, 1 << 33  # of an animation, in all: a small file may hold any number of them
MOST_OF_FILM = 1 << 20  # frames of a film file: times that are far apart make any number of them out of two
OVERVIEW = "grid"  # what `sample` calls its picture of all


class Film(NamedTuple):
    """A film of a place; its frames are read when they are asked for."""

    count: Callable[[], int]  # () -> its frames; raises CorruptImageError
    read: Callable[[np.ndarray], np.ndarray]  # places (T,) -> uint8 (T, H, W, C); raises CorruptImageError
    sha256: Callable[[], str]  # () -> of its files; raises OSError


class Films(NamedTuple):
    """The films of a place, and its files as they are listed of pictures: the films stand for these."""

    files: Files
    films: dict[str, Film]  # by the names of `files.pictures`


def list_films(path: str, fit: Fit, way_out: str) -> Films:
    """The films of a folder or .zip, or one file.

    A folder that holds pictures is a film, of frames in the order of the numbers in their names. A file is a film, or
    several where it is an .npz file with the array `video` or `videos`, uint8 (N, T, H, W, C).

    Args:
      path: of the user.
      fit: what is done to each frame.
      way_out: see `fit.unusable`.
    Raises:
      MissingPathError, UserError: no such path, no films, no ffmpeg, or an .npz file of other arrays.
    """
    root = pathlib.Path(paths.expanded(path, "folder"))
    if root.is_file() and root.suffix.lower() in SUFFIXES:
        files = Files(root.parent, {root.name: content(str(root))[0]}, (), (), lambda name: root.read_bytes())
    else:
        files = list_files(path, SUFFIXES)
    if any(name.lower().endswith(ffmpeg.SUFFIXES) for name in files.pictures):
        ffmpeg.program()
    is_zip = files.root.is_file()
    listed: dict[str, tuple[tuple, Film]] = {}
    passed_over = 0
    for folder, names in _by_folder(files).items():
        of_films = [name for name in names if name.lower().endswith(SUFFIXES)]
        passed_over += len(names) - len(of_films) if of_films else 0
        for name in of_films:
            if is_zip and not name.lower().endswith(ANIMATIONS):
                raise UserError(f"{files.root} holds {name}: film files and arrays are read from folders; unpack it")
            listed |= _of_file(files, name, fit, way_out)
        if not of_films:
            listed[folder or files.root.stem] = _of_frames(files, names, fit, way_out)
    notes = [f"{files.root}: {passed_over} pictures beside films, passed over"] if passed_over else []
    pictures = {name: identity for name, (identity, _) in listed.items()}
    files = files._replace(pictures=pictures, notes=(*files.notes, *notes))
    return Films(files, {name: film for name, (_, film) in listed.items()})


def _by_folder(files: Files) -> dict[str, list[str]]:
    """Folder -> paths in it."""
    folders: dict[str, list[str]] = {}
    for name in sorted(files.pictures):
        folders.setdefault(name.rpartition("/")[0], []).append(name)
    return folders


def in_order(name: str) -> list:
    """A key by which 10 comes after 9."""
    return [(int(part), part) if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name.lower())]


def _of_frames(files: Files, names: list[str], fit: Fit, way_out: str) -> tuple[tuple, Film]:
    """A folder of pictures as (what tells its content, film)."""
    names = sorted(names, key=in_order)

    def read(places: np.ndarray) -> np.ndarray:
        frames = []
        for name in (names[place] for place in places):
            full = f"{files.root}/{name}"
            frames.append(decode(read_bytes(full, name, files.load, way_out), fit, full, upright=True, way_out=way_out))
        return np.stack(frames)

    def sha256() -> str:
        return _digest([_of_picture(files, name) for name in names])

    listing = [(name.rpartition("/")[2], *files.pictures[name]) for name in names]
    return (len(names), _digest(listing)), Film(lambda: len(names), read, sha256)


def _of_picture(files: Files, name: str) -> str:
    """SHA-256 of a frame's file, as `folder.digest` has it. Raises OSError."""
    try:
        return hashlib.sha256(files.load(name)).hexdigest()
    except NotAFile:
        return "no file"


def _of_file(files: Files, name: str, fit: Fit, way_out: str) -> dict[str, tuple[tuple, Film]]:
    """The films of a file, each as (what tells its content, film)."""
    identity, full = files.pictures[name], f"{files.root}/{name}"
    if isinstance(identity[0], str):  # a pipe, say, which would never end

        def refuse(*_):
            raise unusable(full, identity[0], way_out)

        return {name: (identity, Film(refuse, refuse, lambda: "no file"))}
    if name.lower().endswith(ARRAYS):
        return _of_arrays(pathlib.Path(full), name, identity, fit)

    def frames() -> Iterator[np.ndarray]:
        if name.lower().endswith(ANIMATIONS):
            yield from _animation(read_bytes(full, name, files.load, way_out), fit, full, way_out)
        else:
            yield from _through_ffmpeg(pathlib.Path(full), fit, full, way_out)

    key = {"film": os.path.abspath(full), "content": identity, **fit._asdict()}
    film = functools.partial(_decoded, key, frames, fit)
    sha256 = functools.partial(_sha256, files, name)
    return {name: (identity, Film(lambda: len(film()), lambda places: np.array(film()[places]), sha256))}


def _sha256(files: Files, name: str) -> str:
    """Of a film's file, which may be larger than memory. Raises OSError."""
    if files.root.is_file():
        return hashlib.sha256(files.load(name)).hexdigest()
    with open(files.root / name, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _through_ffmpeg(path: pathlib.Path, fit: Fit, name: str, way_out: str) -> Iterator[np.ndarray]:
    from PIL import Image

    ffmpeg.program()  # where that is missing, the film is all right
    try:
        film = ffmpeg.open_film(path)
        for number, frame in enumerate(ffmpeg.frames(film), 1):
            if max(number, film.frames) > MOST_OF_FILM:
                raise unusable(name, f"it has more than {MOST_OF_FILM:,} frames", way_out)
            yield fit_image(Image.fromarray(frame), fit)
    except CorruptImageError:
        raise
    except (UserError, OSError) as error:
        raise unusable(name, str(error).removeprefix(f"{path}: "), way_out) from error


def _animation(data: bytes, fit: Fit, name: str, way_out: str) -> Iterator[np.ndarray]:
    """The frames of a GIF or APNG. Raises CorruptImageError for a damaged one, and one that would take too long."""
    try:
        with open_image(data) as image:
            frames, pixels = getattr(image, "n_frames", 1), image.width * image.height
            if frames > MOST_FRAMES or frames * pixels > MOST_PIXELS:
                raise CorruptImageError(
                    f"it has {frames:,} frames of {image.width}x{image.height} pixels; expected up to {MOST_FRAMES:,} "
                    f"frames, and {MOST_PIXELS:,} pixels in all of them"
                )
            for number in range(frames):
                image.seek(number)
                yield fit_image(image, fit)
    except Exception as error:  # Pillow's plugins raise nearly everything on a damaged file
        reason = str(error) if isinstance(error, CorruptImageError) else f"{type(error).__name__}: {error}"
        if "cannot identify image file" in reason:
            reason = f"not an animation that PIL can read ({len(data):,} bytes)"
        raise unusable(name, reason, way_out) from error


def _decoded(key: dict, frames: Callable[[], Iterator[np.ndarray]], fit: Fit) -> np.ndarray:
    """uint8 (F, H, W, C), memory-mapped, of the cache; made there at first.

    Raises:
      CorruptImageError: what `frames` raises.
      UserError: the cache cannot be written.
    """
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    try:
        path = cache_dir("films") / f"{digest}.raw"
        if not path.is_file():
            _write(path, frames())
        size = path.stat().st_size
    except OSError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"The frames of films cannot be kept in the cache: {error}. Free some space, or set "
                        "$GAN_JAX_CACHE_DIR to another folder.") from error
    count = size // int(np.prod(fit.shape))
    return np.memmap(path, np.uint8, "r", shape=(count, *fit.shape)) if count else np.zeros((0, *fit.shape), np.uint8)


def _write(path: pathlib.Path, frames: Iterator[np.ndarray]) -> None:
    """Writes frames one behind the other, whole or not at all."""
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            for frame in frames:
                file.write(np.ascontiguousarray(frame).data)
        os.replace(part, path)
    except BaseException:
        pathlib.Path(part).unlink(missing_ok=True)
        raise


def _of_arrays(path: pathlib.Path, name: str, identity: tuple, fit: Fit) -> dict[str, tuple[tuple, Film]]:
    """The films of an .npz file, `name#000000` each where there are several. Raises UserError for other arrays."""

    def film(number: int) -> Film:
        def read(places: np.ndarray) -> np.ndarray:
            return np.stack([_fitted(frame, fit) for frame in arrays_of(str(path))[number][places]])

        def sha256() -> str:
            return hashlib.sha256(np.ascontiguousarray(arrays_of(str(path))[number])).hexdigest()

        return Film(lambda: count, read, sha256)

    clips = arrays_of(str(path))
    count = clips.shape[1]
    names = [name] if len(clips) == 1 else [f"{name}#{number:06}" for number in range(len(clips))]
    return {name: ((*identity, number), film(number)) for number, name in enumerate(names)}


@functools.lru_cache(maxsize=2)
def arrays_of(path: str) -> np.ndarray:
    """The clips uint8 (N, T, H, W, C) of an .npz file. Raises UserError where it has none, or of another type."""
    expected = "expected one array 'video' or 'videos', uint8 (N, T, H, W, C) or (T, H, W, C), C from 1 to 4"
    try:
        arrays = archives.arrays(path, NAMES)
    except OSError as error:
        raise UserError(f"{path} cannot be used: {plain(error)}; {expected}") from error
    values = [array for name, array in arrays.items() if name in NAMES]
    if len(values) != 1:
        raise UserError(f"{path} has the arrays {plain(', '.join(arrays)) or 'of no name'}; {expected}")
    (array,) = values
    if array.dtype != np.uint8 or array.ndim not in (4, 5) or array.shape[-1] not in MODES or not array.size:
        raise UserError(f"{path} has an array of {array.dtype} and the shape {array.shape}; {expected}")
    return array if array.ndim == 5 else array[None]


def _fitted(frame: np.ndarray, fit: Fit) -> np.ndarray:
    """One frame uint8 (h, w, c) made to fit."""
    from PIL import Image

    if frame.shape == fit.shape:
        return frame
    return fit_image(Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame, MODES[frame.shape[-1]]), fit)


def _digest(values: list) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()
