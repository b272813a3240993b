"""A folder or a zip of films, cut into clips; sub-folders above them are labels, as they are of pictures."""

import functools
import hashlib
import os
from collections.abc import Sequence

import numpy as np

from gan_jax.data.film_files import OVERVIEW, Film, list_films
from gan_jax.data.fit import MEND, SKIP, CorruptImageError, Fit
from gan_jax.data.folder_labels import select
from gan_jax.data.live import decoded
from gan_jax.data.source import Example, Source
from gan_jax.data.windows import Windows
from gan_jax.errors import UserError
from gan_jax.specs import films as films_spec

NO_CLIP = -1  # the first frame of a film that has none, which is an example that cannot be used


def open_films(path: str, *, split: str, fit: Fit, windows: Windows) -> Source:
    """`folder:PATH` of films: folders of frames, film files, animations, arrays; see `film_files.list_films`.

    Each film is cut into clips that have no frame in common; they follow each other as examples. One that is too short
    for a clip, or cannot be read, is an example that cannot be used.

    Args:
      path: a folder or .zip, or one file.
      split: see `folder_labels.select`.
      fit: what to do to each frame, which may be of any size.
      windows: how films are cut.
    Raises:
      MissingPathError, UserError: as `list_films`; no such split, or labels that are not clear.
    """
    files, films = list_films(path, fit, SKIP)
    chosen = select(files, split)
    clips, labels = [], []

    def starts_of(number: int) -> Sequence[int]:
        try:
            return windows.starts(films[chosen.paths[number]].count()) or (NO_CLIP,)
        except CorruptImageError:
            return (NO_CLIP,)

    for number, starts in enumerate(decoded(starts_of, range(len(chosen.paths)))):
        clips += [(number, start) for start in starts]
        labels += [chosen.labels[number] if chosen.labels else 0] * len(starts)
    listing = [(name, *files.pictures[name]) for name in chosen.paths]
    described = {"labels": chosen.labels} if chosen.is_described else {}
    labels = tuple(labels) if chosen.labels is not None else None
    of_films = tuple(films[name] for name in chosen.paths)
    names = tuple(f"{files.root}/{name}" for name in chosen.paths)
    count = f"{files.root}: {len(names)} film{'s' * (len(names) != 1)}"
    return Source(
        identity={"kind": "films", "files": listing, "inner": chosen.inner, "windows": list(windows), **described,
                  **fit._asdict()},
        count=len(clips),
        spec=films_spec((windows.frames, *fit.shape), len(chosen.class_names)),
        class_names=chosen.class_names,
        read=functools.partial(_read, clips=clips, films=of_films, names=names, labels=labels, windows=windows),
        place=str(files.root.absolute()) if files.root.is_dir() else "",
        notes=(*files.notes, *chosen.notes, count),
        labels=labels,
        digest=functools.partial(_digest, of_films, chosen.inner, described) if files.root.is_dir() else None,
    )  # fmt: skip


def _read(
    index: int, *, clips: Sequence[tuple[int, int]], films: Sequence[Film], names: Sequence[str],
    labels: Sequence[int] | None, windows: Windows,
) -> Example:
    number, start = clips[index]
    film = films[number]
    if start == NO_CLIP:
        raise windows.too_short(names[number], film.count(), SKIP)
    example = {"video": film.read(windows.places(start))}
    return example if labels is None else {**example, "label": np.int32(labels[index])}


def _digest(films: Sequence[Film], inner: Sequence[str], described: dict) -> str:
    """SHA-256 of the films' names within the split and of their files, and of labels of a file."""
    digest = hashlib.sha256()
    for film, name in zip(films, inner, strict=True):
        digest.update(os.fsencode(name) + f"\0{film.sha256()}\n".encode())
    digest.update(str(described).encode())
    return digest.hexdigest()


def open_inputs(path: str, fit: Fit, windows: Windows) -> tuple[Source, tuple[str, ...]]:
    """The first clip of each film of a user, in the order of their names; sub-folders mean nothing.

    Args:
      path: a folder of frames, or of films, or one film.
      fit: what is done to each frame.
      windows: how many frames are taken of each, and which.
    Returns:
      The source, without labels, and the films' names relative to the path.
    Raises:
      MissingPathError, UserError: no such path, no films, or one that is too short or cannot be read.
    """
    files, films = list_films(path, fit, MEND)
    names = tuple(sorted(name for name in films if name.rpartition(".")[0] != OVERVIEW or len(films) == 1))
    for name in names:
        if not windows.starts(count := films[name].count()):
            raise UserError(str(windows.too_short(f"{files.root}/{name}", count, "Give a longer one.")))
    source = Source(
        identity={"kind": "inputs", "films": names, "windows": list(windows), **fit._asdict()},
        count=len(names),
        spec=films_spec((windows.frames, *fit.shape)),
        class_names=(),
        read=lambda index: {"video": films[names[index]].read(windows.places(0))},
        notes=files.notes,
    )
    return source, names
