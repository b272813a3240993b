"""The user's picture files, or a film, enlarged: in which form, under which names."""

import pathlib
from functools import partial
from typing import NamedTuple

import numpy as np

from gan_jax import ffmpeg, films, images, runs
from gan_jax.data import pictures
from gan_jax.data.files import Files, list_inputs, read_bytes, targets
from gan_jax.data.fit import MEND
from gan_jax.enlarge import Enlarger, Settings, picture_of
from gan_jax.errors import UserError
from gan_jax.picture_files import Failures, Progress, check_place, in_memory

OVERVIEW = "grid.png"
OVERVIEW_SIDE, OVERVIEW_COUNT = 128, 64  # the largest and the most pictures that an overview is made of
SMALLER = "make tiles smaller, such as --tile=128"
FORMATS = {"png": ".png", "jpg": ".jpg", "jpeg": ".jpg", "webp": ".webp", "tif": ".tif", "tiff": ".tiff"}


class Output(NamedTuple):
    """How files are written."""

    format: str = ""  # one of FORMATS; empty for that of each input, and PNG where that cannot be written
    quality: int | None = None  # 1 to 100


def enlarge(
    run: runs.Run, ema: dict, path: str, out: pathlib.Path, settings: Settings, encoding: Output
) -> list[pathlib.Path]:
    """Enlarges a picture, or all of a folder or .zip, into `out`, by their names and in their sub-folders; or a film.

    A file that cannot be read, or whose result cannot be written, is one message; the others are made all the same.

    Args:
      run, ema: of the network.
      path: of the user.
      settings: how they are enlarged.
      encoding: in what form.
    Returns:
      The files, in the order of the inputs' names; the overview comes last, of a few small pictures of one size.
    Raises:
      MissingPathError, UserError: nothing to enlarge, or some that failed, in the end, with a count.
      OSError: a file that cannot be written.
    """
    if ffmpeg.is_film(path) and pathlib.Path(path).is_file():
        return [_enlarge_film(pathlib.Path(path), out, Enlarger(run, ema, settings), encoding)]
    files = list_inputs(path)
    for note in files.notes:
        print(note, flush=True)
    names = [name for name in files.pictures if name != OVERVIEW or len(files.pictures) == 1]
    if len(names) < len(files.pictures):
        print(f"{files.root / OVERVIEW}: passed over, as the overview of a folder that was written here; a picture of "
              "your own needs another name", flush=True)  # fmt: skip
    failures, enlarger = Failures(len(names)), Enlarger(run, ema, settings)
    places = _targets(names, out, encoding.format)
    looks = {}
    for name in names:  # all that can be seen beforehand is said before any work
        try:
            looks[name] = _look(files, name, places[name], enlarger)
        except UserError as error:
            failures.add(error)
    enlarger.prepare([(look.height, look.width) for look in looks.values()])
    progress = Progress(sum(look.height * look.width for look in looks.values()))
    for note in enlarger.notes:
        progress.say(note)
    overview, paths = _overview(looks), []
    try:
        out.mkdir(parents=True, exist_ok=True) if looks else None
        for name in looks:
            progress.begin(name)
            try:
                pair = _enlarge_one(files, name, places[name], enlarger, encoding, progress)
                paths.append(places[name])
                if overview is not None:
                    overview.append([_rgb(values) for values in pair])
            except UserError as error:
                failures.add(error)
    finally:
        progress.close()
    if overview:
        sides = [np.stack(side) for side in zip(*overview, strict=True)]
        images.save(out / OVERVIEW, images.grid(images.beside(sides)))
        paths.append(out / OVERVIEW)
    failures.raise_any(out)
    return paths


def _targets(names: list[str], out: pathlib.Path, form: str) -> dict[str, pathlib.Path]:
    """Where each goes, with the format's ending or its own; the overview's name stays free."""
    suffixes = {name: pathlib.PurePosixPath(name).suffix.lower() for name in names}
    own = {name: suffix if suffix in pictures.FORMATS else ".png" for name, suffix in suffixes.items()}
    endings = {name: FORMATS[form] for name in names} if form else own
    return {name: out / target for name, target in targets(endings, [OVERVIEW]).items()}


def _look(files: Files, name: str, target: pathlib.Path, enlarger: Enlarger) -> pictures.Look:
    full = files.root / name
    look = pictures.look(read_bytes(str(full), name, files.load, MEND), str(full))
    check_place(full, target)
    height, width = enlarger.size(look.height, look.width)
    pictures.writable(target, width, height)
    return look


def _overview(looks: dict[str, pictures.Look]) -> list | None:
    """A list to be filled with (picture, enlarged), or None where they are large, many or of several sizes."""
    sizes = {(look.height, look.width) for look in looks.values()}
    is_small = len(sizes) == 1 and max(map(max, sizes)) <= OVERVIEW_SIDE
    return [] if is_small and len(looks) <= OVERVIEW_COUNT else None


def _enlarge_one(
    files: Files, name: str, target: pathlib.Path, enlarger: Enlarger, encoding: Output, progress: Progress
) -> tuple[np.ndarray, np.ndarray]:
    """Reads, enlarges and writes a file: its pixels (H, W, C) before and after."""
    full = str(files.root / name)
    picture = pictures.read(read_bytes(full, name, files.load, MEND), full)
    height, width = picture.pixels.shape[:2]
    share = height * width / enlarger.tiles(height, width)
    call = partial(enlarger, picture, done=lambda: progress.advance(share))
    values, notes = in_memory(call, full, picture.pixels.shape, SMALLER)
    lost = pictures.losses(target, depth=picture.depth, has_alpha=values.shape[2] in (2, 4))
    for note in (*picture.notes, *notes, *lost):
        progress.say(f"{name}: {note}")
    target.parent.mkdir(parents=True, exist_ok=True)
    keep = {key: value for key, value in picture.keep.items() if key != "icc_profile" or not notes}
    options = {} if encoding.quality is None else {"quality": encoding.quality}
    pictures.write(target, values, keep, **options)
    return picture.pixels, values


def _enlarge_film(path: pathlib.Path, out: pathlib.Path, enlarger: Enlarger, encoding: Output) -> pathlib.Path:
    """A film of a film. The same command goes on where an earlier one stopped."""
    if encoding.format or encoding.quality is not None:
        raise UserError(f"{path}: a film becomes an {films.ENDING}; leave --format and --quality out")
    film, target = ffmpeg.open_film(path), out / f"{path.stem}{films.ENDING}"
    check_place(path, target)
    out.mkdir(parents=True, exist_ok=True)
    enlarger.prepare([(film.height, film.width)])
    progress, pieces = Progress(film.frames), enlarger.tiles(film.height, film.width)
    for note in (*film.notes, *enlarger.notes):
        progress.say(f"{path.name}: {note}")
    progress.begin(path.name)

    def frame(values: np.ndarray) -> np.ndarray:
        call = partial(enlarger, picture_of(values), done=lambda: progress.advance(1 / pieces))
        return in_memory(call, str(path), values.shape, SMALLER)[0]

    def begin(ready: int) -> None:
        if ready:
            progress.say(f"{path.name}: goes on after {ready} frames")
            progress.advance(ready)

    length = films.segment_length(*enlarger.size(film.height, film.width))
    try:
        films.convert(film, target, frame, length=length, identity=enlarger.identity(), begin=begin)
    finally:
        progress.close()
    return target


def _rgb(values: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3), without alpha, of levels or of floats in [0, 1]."""
    values = values[..., :1].repeat(3, 2) if values.shape[2] < 3 else values[..., :3]
    most = np.iinfo(values.dtype).max if values.dtype.kind == "u" else 1
    return np.round(values * np.float32(255 / most)).astype(np.uint8)
