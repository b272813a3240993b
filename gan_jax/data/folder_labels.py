"""Which images of a folder a split has, and which class each is of: by sub-folders, or by a `dataset.json`."""

import json
import re
from typing import Any, NamedTuple

from gan_jax.data.files import Files
from gan_jax.errors import UserError, plain

MOST_CLASSES = 1 << 17
LABELS = "dataset.json"  # of stylegan2-ada's dataset tool
SPLITS = (("train", "training"), ("test", "testing"), ("val", "valid", "validation", "eval"))  # names of one meaning
_SPLIT = re.compile(rf"({'|'.join(name for names in SPLITS for name in names)})([-_]?[ab])?", re.IGNORECASE)


class Selection(NamedTuple):
    """The images of a split, in the order of their paths."""

    paths: tuple[str, ...]  # relative to the root
    inner: tuple[str, ...]  # relative to the split's folder
    labels: tuple[int, ...] | None  # a class each; None where there are no classes
    class_names: tuple[str, ...]
    notes: tuple[str, ...]  # what a person should know of them, a line each
    is_described: bool = False  # whether the labels are those of a `dataset.json`


def select(files: Files, split: str) -> Selection:
    """The images of a split and their classes.

    A single folder that holds all images is looked through. A sub-folder of the split's name, in any case, is the
    split; otherwise `train` and `all` mean everything. Classes are those of `dataset.json` where there is one, else the
    first-level sub-folders, those of the training split where there is one, so that a number means the same in each.

    Raises:
      UserError: no such split; images beside class folders; an empty class folder; a `dataset.json` that cannot be
        read, or that says nothing of some images.
    """
    names = sorted(files.pictures)
    top = _common_folder(names, files)
    local = [name[len(top) :] for name in names]
    splits = sorted({name.split("/")[0] for name in local if _SPLIT.fullmatch(name.split("/")[0]) and "/" in name})
    if split.lower() in top.lower().split("/")[:-1]:  # the folder that is looked through is asked for by its name
        split = "all"
    base = _split_folder(local, splits, split, files)
    is_joined = not base and bool(splits)
    chosen = [name for name in local if name.startswith(base)]
    inner = tuple(name.split("/", 1)[1] if is_joined else name[len(base) :] for name in chosen)
    paths = tuple(top + name for name in chosen)
    for place in dict.fromkeys((f"{top}{base}", top, "")):
        if f"{place}{LABELS}" in files.others and (labels := _of_file(files, place, paths)) is not None:
            return Selection(paths, inner, *labels, is_described=True)
    named_by = inner if is_joined else _naming(local, _siblings(base, splits)) or inner
    classes = _class_folders(inner, named_by, files, f"{top}{base}")
    labels, classes, notes = _numbered(inner, classes, f"{files.root}/{base}")
    return Selection(paths, inner, labels, classes, (*notes, *_left_out(local, base, splits, files)))


def _left_out(local: list[str], base: str, splits: list[str], files: Files) -> list[str]:
    """A line for images that lie beside a split and in no other."""
    others = sorted({name.split("/")[0] for name in local if not name.startswith(base)} - set(splits)) if base else []
    return [f"{files.root}: beside the split {base.rstrip('/')!r}, left out: {', '.join(others[:4])}"] if others else []


def _numbered(inner: tuple[str, ...], classes: tuple[str, ...], place: str) -> tuple:
    """(labels, class names, notes) of images by their folders. Raises UserError where some are of no class."""
    if not classes:
        return None, (), ()
    number = {name: label for label, name in enumerate(classes)}
    folders = [name.split("/")[0] for name in inner]
    strange = sorted(set(folders) - set(classes))
    if strange and number.keys().isdisjoint(folders):
        listed = ", ".join(strange[:4])
        return None, (), (f"{place}: its folders ({listed}) are no classes of the training split; it has no labels",)
    if strange:
        raise UserError(
            f"{place}: the class {strange[0]!r} is none of the training split ({', '.join(classes)}). Move its images "
            "away, or add some to the training split."
        )
    return tuple(number[folder] for folder in folders), classes, ()


def _common_folder(names: list[str], files: Files) -> str:
    """The folders, `a/b/`, that all images lie in and that are neither splits nor beside an empty folder."""
    top = ""
    while True:
        heads = {name[len(top) :].split("/")[0] for name in names}
        (head, *others) = heads
        is_folder = all("/" in name[len(top) :] for name in names)
        if others or not is_folder or _SPLIT.fullmatch(head) or _empty_folders(files, top):
            return top
        top = f"{top}{head}/"


def _empty_folders(files: Files, base: str) -> list[str]:
    """Names of the sub-folders of `base` that hold no file at all."""
    full = {f"{base}{name[len(base) :].split('/')[0]}/" for name in (*files.pictures, *files.others)
            if name.startswith(base)}  # fmt: skip
    inner = {name[len(base) :] for name in files.folders if name.startswith(base)}
    return sorted(name for name in inner if name and "/" not in name and f"{base}{name}/" not in full)


def _split_folder(local: list[str], splits: list[str], split: str, files: Files) -> str:
    """The split's folder, `train/`, or '' where everything belongs to it. Raises UserError."""
    heads = sorted({name.split("/")[0] for name in local if "/" in name})
    meanings = next((names for names in SPLITS if split.lower() in names), (split.lower(),))
    exact = [head for head in heads if head == split]
    same = [head for head in heads if head.lower() == split.lower()]
    alike = [head for head in heads if head.lower() in meanings]
    for matches in (exact, same, alike):
        if len(matches) > 1:
            several = ", ".join(matches)
            raise UserError(f"data.split={split!r}: {files.root} has {several}; set data.split to one of them.")
        if matches:
            if matches[0] in splits and matches[0] not in exact:
                _check_only_splits(heads, splits, split, files)
            return f"{matches[0]}/"
    if split == "all" and splits:
        _check_only_splits(sorted({name.split("/")[0] for name in local}), splits, split, files)
    if split == "all" or (split == "train" and not splits):
        return ""
    have = f"it has {', '.join(splits)}" if splits else "without such sub-folders everything is 'train'"
    raise UserError(
        f"data.split={split!r}: {files.root} has no sub-folder {split!r} with images ({have}). Make one,"
        " or set data.split to 'train', 'all' (everything) or the name of a sub-folder."
    )


def _check_only_splits(heads: list[str], splits: list[str], split: str, files: Files) -> None:
    """Raises UserError where folders called as splits lie beside others: they may be classes."""
    others = [head for head in heads if head not in splits]
    if others:
        raise UserError(
            f"data.split={split!r}: {files.root} has {', '.join(splits)}, called as a split is, beside "
            f"{', '.join(others[:4])}. Set data.split to the name of one of them, or move what is no split away."
        )


def _naming(local: list[str], siblings: list[str]) -> list[str]:
    """The images of the training split among these, else of all, whose folders are the classes of each of them."""
    training = [name for name in siblings if _SPLIT.fullmatch(name)[1].lower() in SPLITS[0]]
    return [name.split("/", 1)[1] for name in local if name.split("/")[0] in (training or siblings)]


def _siblings(base: str, splits: list[str]) -> list[str]:
    """The split folders of the same side as `base`, `trainA` and `testA`; none where that is no split."""
    match = _SPLIT.fullmatch(base.rstrip("/"))
    if match is None:
        return []
    side = (match[2] or "").lower()
    return [name for name in splits if (_SPLIT.fullmatch(name)[2] or "").lower() == side]


def _class_folders(inner: tuple[str, ...], universe, files: Files, base: str) -> tuple[str, ...]:
    """Names of the first-level sub-folders, sorted; empty where no image lies in one."""
    loose = [name for name in inner if "/" not in name]
    if loose and len(loose) < len(inner):
        raise UserError(
            f"{files.root}: {len(loose)} images, such as {loose[0]!r}, lie beside the class sub-folders, so"
            " they have no label. Move them into a sub-folder, or all images out of theirs."
        )
    if loose:
        return ()
    classes = {name.split("/")[0] for name in universe if "/" in name}
    empty = [name for name in _empty_folders(files, base) if name not in classes and not _SPLIT.fullmatch(name)]
    if empty:
        raise UserError(
            f"{files.root}: the sub-folder {empty[0]!r} is empty, and the numbers of the classes after it would be "
            "other ones without it. Put its images there, or take it away."
        )
    return tuple(sorted(classes))


def _of_file(files: Files, place: str, paths: tuple[str, ...]):
    """(labels, class names, notes) by the `dataset.json` in `place`; None where it is another kind of file."""
    file = f"{files.root}/{place}{LABELS}"
    try:
        content = json.loads(files.load(f"{place}{LABELS}"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} cannot be read: {plain(error)}. Make it again, or take it away.") from error
    if not isinstance(content, dict) or "labels" not in content:
        return None
    if content["labels"] is None:
        return None, (), ()
    by_name = _by_name(content["labels"], file)
    lacking = [path for path in paths if path[len(place) :] not in by_name]
    if lacking:
        raise UserError(
            f"{file} has no label for {len(lacking)} of {len(paths)} images, such as {lacking[0]!r}. Add them, or take "
            "these images away."
        )
    numbers, count = _classes(list(by_name.values()), file)
    number_of = dict(zip(by_name, numbers or (), strict=False))
    labels = tuple(number_of[path[len(place) :]] for path in paths) if numbers is not None else None
    absent = len(set(by_name) - {name[len(place) :] for name in files.pictures if name.startswith(place)})
    notes = [f"{file}: {absent} of its images are not there"] if absent else []
    if labels is None:
        notes.append(f"{file}: its labels are not one class an image; they are left out")
    return labels, tuple(map(str, range(count))), tuple(notes)


def _by_name(labels: Any, file: str) -> dict[str, Any]:
    """Image -> label, of a dict or a list of pairs."""
    try:
        pairs = labels.items() if isinstance(labels, dict) else [(name, label) for name, label in labels]
        return {name.replace("\\", "/").removeprefix("./"): label for name, label in pairs}
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{file}: expected 'labels' to be null, or a list of [image, label]. Make it again.") from error


def _classes(labels: list, file: str) -> tuple[tuple[int, ...] | None, int]:
    """A class each and their number, of whole numbers or one-hot rows; (None, 0) of rows that are neither."""
    if all(isinstance(label, int) and not isinstance(label, bool) and label >= 0 for label in labels):
        if max(labels) >= MOST_CLASSES:
            raise UserError(f"{file}: {max(labels)} is no number of a class: expected less than {MOST_CLASSES}.")
        return tuple(labels), max(labels) + 1
    rows = [label if isinstance(label, list) else [label] for label in labels]
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for row in rows for value in row)
    if any(isinstance(label, int) for label in labels) or not numeric or len({len(row) for row in rows}) != 1:
        raise UserError(
            f"{file}: expected every label to be a whole number from 0 on, or a list of numbers of one length. Make it "
            "again."
        )
    if all(set(row) <= {0, 1} and sum(row) == 1 and len(row) > 1 for row in rows):
        return tuple(row.index(1) for row in rows), len(rows[0])
    return None, 0
