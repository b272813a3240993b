"""Pairs of pictures from a folder or a zip: side by side in one file, or in two sub-folders under one name."""

import functools
from collections.abc import Sequence

import numpy as np

from gan_jax.data.checks import unknown
from gan_jax.data.files import Files, list_files
from gan_jax.data.fit import CorruptImageError, Fit, colour_notes, decode, fit_image, opened
from gan_jax.data.folder import digest, encoded
from gan_jax.data.folder_labels import select
from gan_jax.data.source import Example, Source
from gan_jax.errors import UserError
from gan_jax.specs import paired

PAIRS, DIRECTIONS = ("side_by_side", "folders"), ("ab", "ba")
LAYOUTS = ("{split}{side}/", "{split}/{side}/", "{side}/{split}/")  # of two sub-folders, in any case
WHOLE = "{side}/"  # the same of a set without splits
FIELDS = {"ab": ("source", "image"), "ba": ("image", "source")}  # that A and B are


def open_pairs(path: str, *, split: str, fit: Fit, pair: str, direction: str) -> Source:
    """`folder:PATH` whose examples are a `source` and an `image`, of one size.

    Args:
      path: see `folder.open_folder`.
      split: of pairs side by side as there; of two sub-folders one of `LAYOUTS`, such as `trainA` and `trainB`.
      fit: what to do to each picture of a pair.
      pair, direction: see `dataset.open_dataset`.
    Raises:
      MissingPathError, UserError: as there; an unknown `pair` or `direction`; a picture without a partner.
    """
    for key, value, choices in (("pair", pair, PAIRS), ("direction", direction, DIRECTIONS)):
        if value not in choices:
            raise unknown(f"data.{key}", value, choices)
    files, fields = list_files(path), FIELDS[direction]
    classes, labels, notes = (), None, ()
    if pair == "side_by_side":
        chosen = select(files, split)
        names, inner, notes = chosen.paths, chosen.inner, chosen.notes
        classes, labels, count = chosen.class_names, chosen.labels, len(names)
        read = functools.partial(_halves, files=files, names=names, labels=labels, fields=fields, fit=fit)
    else:
        sides = _sides(files, split)
        names, inner = (tuple(name for side in sides for name in side[i]) for i in (0, 1))
        count = len(names) // 2
        read = functools.partial(_partners, files=files, sides=(names[:count], names[count:]), fields=fields, fit=fit)
    listing = [(name, *files.pictures[name]) for name in names]
    is_folder = files.root.is_dir()
    return Source(
        identity={"kind": "pairs", "pair": [pair, direction], "files": listing, "inner": inner, **fit._asdict()},
        count=count,
        spec=paired(fit.shape, fit.shape, len(classes)),
        class_names=classes,
        read=read,
        place=str(files.root.absolute()) if is_folder else "",  # as in `folder.open_folder`
        notes=(*files.notes, *notes, *colour_notes(functools.partial(encoded, files), names, fit)),
        labels=labels,
        digest=functools.partial(digest, files, names, inner) if is_folder else None,
    )


def _halves(index: int, *, files: Files, names: Sequence[str], labels, fields: tuple, fit: Fit) -> Example:
    def use(image):
        width, height = image.size
        if width % 2:
            raise CorruptImageError(f"it is {width} pixels wide, and two pictures side by side have an even width")
        boxes = (0, 0, width // 2, height), (width // 2, 0, width, height)
        return [fit_image(image.crop(box), fit) for box in boxes]

    name = names[index]
    pictures = opened(encoded(files, name), use, f"{files.root}/{name}", upright=True)
    example = dict(zip(fields, pictures, strict=True))
    return example if labels is None else {**example, "label": np.int32(labels[index])}


def _partners(index: int, *, files: Files, sides: tuple, fields: tuple, fit: Fit) -> Example:
    names = [side[index] for side in sides]
    pictures = [decode(encoded(files, name), fit, f"{files.root}/{name}", upright=True) for name in names]
    return dict(zip(fields, pictures, strict=True))


def _sides(files: Files, split: str) -> tuple:
    """((paths of A, names within it), the same of B), in the order of their names. Raises UserError."""
    top, prefixes = _folders(files, split)
    sides = []
    for prefix in prefixes:
        place, by_stem = f"{top}{prefix}", {}
        for name in sorted(files.pictures):
            if name.lower().startswith(place.lower()):
                stem = name[len(place) :].rpartition(".")[0]
                if stem in by_stem:
                    raise UserError(f"{files.root} has {by_stem[stem]} and {name}, two pictures of one name: take one "
                                    "of them away.")
                by_stem[stem] = name
        sides.append(by_stem)
    lone = sorted(set(sides[0]) ^ set(sides[1]))
    if lone:
        has = 0 if lone[0] in sides[0] else 1
        raise UserError(
            f"data.pair='folders': {files.root}/{sides[has][lone[0]]} has no partner of its name in {top}"
            f"{prefixes[1 - has]} ({len(lone)} without in all). Put it there, or take the picture away."
        )
    stems = sorted(sides[0])
    return tuple((tuple(side[stem] for stem in stems), tuple(f"{prefix}{stem}" for stem in stems))
                 for side, prefix in zip(sides, "ab", strict=True))  # fmt: skip


def _folders(files: Files, split: str) -> tuple[str, tuple[str, ...]]:
    """(folders around both, `trainA/` and `trainB/`) of the first layout that is there. Raises UserError."""
    names, top = sorted(files.pictures), ""
    layouts = (*LAYOUTS, *((WHOLE,) if split in ("train", "all") else ()))
    while True:
        for layout in layouts:
            prefixes = tuple(layout.format(split=split, side=side) for side in "AB")
            if any(name[len(top) :].lower().startswith(prefix.lower()) for name in names for prefix in prefixes):
                return top, prefixes
        heads = {name[len(top) :].partition("/")[:2] for name in names}
        ((head, slash), *others) = heads
        if others or not slash:
            expected = ", ".join(" and ".join(layout.format(split=split, side=side) for side in "AB")
                                 for layout in layouts)  # fmt: skip
            raise UserError(f"data.split={split!r} with data.pair='folders': {files.root} has none of {expected}.")
        top = f"{top}{head}/"
