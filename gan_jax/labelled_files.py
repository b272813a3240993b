"""A labelled set of generated images that any trainer reads: a folder of class folders, or a TFDS set.

It is written part by part into a hidden folder beside its place, and is there whole or not at all.
"""

import os
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator

import numpy as np

from gan_jax import images
from gan_jax.errors import UserError

FORMS = ("folder", "tfds")
AT_ONCE = 256  # images that are drawn and written together
CHANNELS = (1, 3, 4)  # that PNG has, and TFDS takes
_UNSAFE = re.compile(r"[\x00-\x1f/\\]")

Draw = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (seeds (n,), labels (n,)) -> uint8 (n, H, W, C)


def seeds_and_labels(classes: int, per_class: int) -> tuple[np.ndarray, np.ndarray]:
    """Of a whole set, class by class, each (classes * per_class,): image i of class c is drawn from the seed
    c * per_class + i, so that no two images share one."""
    return np.arange(classes * per_class), np.repeat(np.arange(classes), per_class)


def write(
    draw: Draw, seeds: np.ndarray, labels: np.ndarray, folder: pathlib.Path, *,
    form: str, class_names: tuple[str, ...], shape: tuple[int, ...], about: str,
) -> list[pathlib.Path]:
    """Writes a labelled set.

    Args:
      draw: what makes the images.
      seeds, labels: (N,) of the images, see `seeds_and_labels`.
      folder: where the set goes; not there yet, or empty.
      form: one of `FORMS`. `folder` has `CLASS/seed000000.png`; `tfds` has `generated/1.0.0/`, to be opened by
        `tfds.builder_from_directory`, or by `tfds.builder("generated", data_dir=folder)`.
      class_names: of all labels.
      shape: (H, W, C) of an image.
      about: what a TFDS set says of itself.
    Returns:
      The images' files; of `tfds` the folder of the set.
    Raises:
      UserError: the folder holds something, or images are of another kind.
      OSError: it cannot be written.
    """
    check_empty(folder)
    if len(shape) != 3 or shape[2] not in CHANNELS:
        raise UserError(f"--as={form}: the run draws samples of the shape {tuple(shape)}; a labelled set takes images "
                        "of 1, 3 or 4 channels")
    whole = folder.absolute()
    part = whole.with_name(f".{whole.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of a command that was stopped
    part.mkdir(parents=True)
    try:
        if form == "tfds":
            from gan_jax.data import generated  # with TFDS, which takes a second

            files = [generated.write(_drawn(draw, seeds, labels), part, class_names, shape, about)]
        else:
            files = _write_folder(_drawn(draw, seeds, labels), part, folder_names(class_names))
        if folder.is_dir():
            folder.rmdir()
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return [folder / file.relative_to(part) for file in files]


def check_empty(folder: pathlib.Path) -> None:
    """Raises UserError where something is in the place already."""
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"--out={folder}: holds files already, and a labelled set is a folder of its own; name another")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out={folder}: is a file; a labelled set is a folder of its own, name another")


def folder_names(class_names: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the classes' folders: their own, but for what a folder's name cannot have, and all different.

    A name that begins with a dot would be hidden.
    """
    names: list[str] = []
    for label, name in enumerate(class_names):
        name = _UNSAFE.sub("_", name).lstrip(".").strip() or f"class{label}"
        while name in names:
            name = f"{name}_{label}"
        names.append(name)
    return tuple(names)


def _drawn(draw: Draw, seeds: np.ndarray, labels: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
    """(seed, label, uint8 (H, W, C)) of each image, `AT_ONCE` drawn together."""
    for start in range(0, len(seeds), AT_ONCE):
        some = slice(start, start + AT_ONCE)
        yield from zip(seeds[some].tolist(), labels[some].tolist(), draw(seeds[some], labels[some]), strict=True)


def _write_folder(drawn: Iterator, place: pathlib.Path, names: tuple[str, ...]) -> list[pathlib.Path]:
    for name in names:
        (place / name).mkdir()
    files = []
    for seed, label, image in drawn:
        files.append(place / names[label] / f"seed{seed:06}.png")
        images.save(files[-1], image)
    return files
