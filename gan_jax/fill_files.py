"""The user's picture files, their holes filled one by one: a mask for each, white in the hole.

What is outside the hole comes back bit for bit, so files are written without loss: PNG, or TIFF where the picture is
one. A colour picture is shown to a network of greys channel by channel, a grey one to a network of colours as three
equal channels, whose mean comes back. Alpha stays, but that what is filled is opaque.
"""

import pathlib
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from gan_jax import games, parallel, runs
from gan_jax.data import pictures
from gan_jax.data.files import Files, list_inputs, read_bytes, targets
from gan_jax.data.fit import MEND
from gan_jax.errors import UserError
from gan_jax.picture_files import Failures, Progress, check_place, in_memory

LOSSLESS = {".tif": ".tif", ".tiff": ".tiff"}  # else .png


class Job(NamedTuple):
    """A picture and its mask."""

    name: str  # of the picture, relative to its folder
    mask: str  # of the mask
    target: pathlib.Path
    pixels: int


def fills(run: runs.Run) -> bool:
    """Whether the run's game fills holes of pictures of any size."""
    return bool(games.mask(run.game))


def fill(run: runs.Run, ema: dict, path: str, masks: str, out: pathlib.Path) -> list[pathlib.Path]:
    """Fills the hole of a picture, or those of all of a folder or .zip, into `out`, by their names.

    A mask that is given as a file serves all pictures; masks of a folder go by the pictures' names, whatever their
    endings. A picture that cannot be filled is one message, before any work where that can be seen; the others are
    filled all the same.

    Args:
      run, ema: of the network.
      path, masks: of the user.
    Returns:
      The files, in the order of the inputs' names.
    Raises:
      MissingPathError, UserError: nothing to fill, or some that failed, in the end, with a count.
      OSError: a file that cannot be written.
    """
    if run.spec["image"].shape[2] in (2, 4):
        raise UserError(f"--inputs={path}: this run's data have alpha; take a run of grey or colour pictures")
    of_pictures, of_masks = list_inputs(path), list_inputs(masks, "--masks")
    for note in (*of_pictures.notes, *of_masks.notes):
        print(note, flush=True)
    failures, jobs = Failures(len(of_pictures.pictures)), []
    endings = {name: LOSSLESS.get(pathlib.PurePath(name).suffix.lower(), ".png") for name in of_pictures.pictures}
    for name, target in targets(endings).items():  # all is looked at before any work
        try:
            jobs.append(_looked(of_pictures, of_masks, name, masks, out / target))
        except UserError as error:
            failures.add(error)
    filler, paths, progress = Filler(run, ema), [], Progress(sum(job.pixels for job in jobs))
    try:
        for job in jobs:
            progress.begin(job.name)
            try:
                for note in _fill_one(filler, of_pictures, of_masks, job):
                    progress.say(f"{job.name}: {note}")
                paths.append(job.target)
            except UserError as error:
                failures.add(error)
            progress.advance(job.pixels)
    finally:
        progress.close()
    failures.raise_any(out)
    return paths


def _looked(of_pictures: Files, of_masks: Files, name: str, masks: str, target: pathlib.Path) -> Job:
    """A picture with its mask. Raises UserError where there is none, of another size, or without a hole."""
    mask, full = _mask_of(of_masks, name, masks), of_pictures.root / name
    look = pictures.look(read_bytes(str(full), name, of_pictures.load, MEND), str(full))
    hole = read_mask(of_masks, mask)
    if hole.shape != (look.height, look.width):
        raise UserError(f"--masks={masks}: {mask} has {hole.shape[1]}x{hole.shape[0]} pixels, and {full} "
                        f"{look.width}x{look.height}; give a mask of the picture's size, white in the hole")
    if not hole.any():
        raise UserError(f"--masks={masks}: {mask} is black all over: there is nothing to fill; paint the hole white")
    check_place(full, target)
    return Job(name, mask, target, look.height * look.width)


def _mask_of(of_masks: Files, name: str, masks: str) -> str:
    if tuple(of_masks.pictures.values()) == ((),):  # a file, neither folder nor .zip, see `list_inputs`
        return next(iter(of_masks.pictures))
    stem = pathlib.PurePosixPath(name).with_suffix("")
    names = [mask for mask in of_masks.pictures if pathlib.PurePosixPath(mask).with_suffix("") == stem]
    if len(names) != 1:
        what = f"{', '.join(names)} are all called like it" if names else "none is called like it"
        raise UserError(f"--masks={masks}: no mask for {name}: {what}; give one of its name, such as {stem}.png")
    return names[0]


def read_mask(files: Files, name: str) -> np.ndarray:
    """bool (H, W): where a mask is white, not black or transparent; greys go to the nearer of both."""
    full = str(files.root / name)
    mask = pictures.read(read_bytes(full, name, files.load, MEND), full)
    values = mask.pixels.mean(2)
    return (values if mask.alpha is None else values * mask.alpha) > 0.5


def _fill_one(filler: "Filler", of_pictures: Files, of_masks: Files, job: Job) -> tuple[str, ...]:
    """Reads, fills and writes a file; what is not as in it."""
    full = str(of_pictures.root / job.name)
    picture = pictures.read(read_bytes(full, job.name, of_pictures.load, MEND), full)
    call = partial(filler, picture, read_mask(of_masks, job.mask))
    values = in_memory(call, full, picture.pixels.shape, "make the picture and its mask smaller")
    job.target.parent.mkdir(parents=True, exist_ok=True)
    pictures.write(job.target, values, picture.keep)
    return picture.notes


class Filler:
    """A run's network for pictures of any size, on one device of this process; compiled once for each size."""

    def __init__(self, run: runs.Run, ema: dict):
        (self._field,), self._mask = runs.sources(run), games.mask(run.game)
        self._channels = run.spec["image"].shape[2]
        mesh = parallel.make_mesh(jax.local_devices()[:1])
        self._ema = parallel.local_copy(ema, mesh)

        @jax.jit
        def network(ema, x, mask):
            keys = jax.vmap(jax.random.key)(np.zeros(len(x), np.uint32))
            images = run.game.sample(run.nets, ema, keys, {self._field: 2 * x - 1, self._mask: mask})
            return (next(iter(images.values())) + 1) / 2

        self._network = network

    def __call__(self, picture: pictures.Picture, hole: np.ndarray) -> np.ndarray:
        """uint8 or uint16 (H, W, C), by the picture's depth and channels, with its hole (H, W) filled."""
        most, x = 2**picture.depth - 1, picture.pixels
        alpha = None if picture.alpha is None else np.where(hole, 1, picture.alpha)[..., None]
        if self._channels == 1:
            shown = np.moveaxis(x, 2, 0)[..., None]  # each channel is a picture
        else:
            shown = np.broadcast_to(x, (*x.shape[:2], 3))[None]
        masks = np.broadcast_to(np.where(hole, np.uint8(255), np.uint8(0))[None, ..., None], (*shown.shape[:3], 1))
        filled = np.asarray(self._network(self._ema, shown, masks))
        filled = np.moveaxis(filled[..., 0], 0, 2) if self._channels == 1 else filled[0]
        filled = filled.mean(2, keepdims=True) if x.shape[2] < filled.shape[2] else filled
        values = np.where(hole[..., None], np.clip(filled, 0, 1), x)
        values = values if alpha is None else np.concatenate([values, alpha], 2)
        return np.round(values * most).astype(np.uint8 if picture.depth == 8 else np.uint16)
