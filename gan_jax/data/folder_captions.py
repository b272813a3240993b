"""Captions of pictures of a folder or a zip: text files by the pictures' names, or lines of JSON that name these."""

import codecs
import io
import json
import pathlib
from collections.abc import Iterator, Sequence

from gan_jax.data import captions
from gan_jax.data.captions import Settings
from gan_jax.data.files import CAPTION_BYTES, SUFFIXES, Files, list_files, list_texts
from gan_jax.data.fit import Fit
from gan_jax.data.folder import of_selection
from gan_jax.data.folder_labels import select
from gan_jax.data.source import Source
from gan_jax.errors import UserError, plain

TEXT, LINES = CAPTION_BYTES  # endings: a caption a line; a picture a line, in JSON
FILE, CAPTIONS = ("file", "file_name"), ("captions", "caption", "text")  # keys of such a line, any one of each
LINE_BYTES = 1 << 20  # of such a line
EXAMPLE = '{"file": "a.png", "captions": ["...", "..."]}'

Texts = dict[str, tuple[str, ...]]  # a picture's path without its ending -> its captions


def open_captioned(path: str, *, split: str, fit: Fit, settings: Settings) -> Source:
    """`folder:PATH` whose examples have captions.

    Words are those of the training split, of all pictures where there is none, so that all splits share them.

    Args:
      path: see `folder.open_folder`.
      split, fit: as there.
      settings: K, L, the tokenizer, and where captions lie that are not beside the pictures.
    Raises:
      MissingPathError, UserError: as there; a picture without captions, captions without a picture, a file of captions
        that cannot be read.
    """
    files = list_files(path, used=() if settings.place else tuple(CAPTION_BYTES))
    chosen = select(files, split)
    texts = read_texts(list_texts(settings.place)) if settings.place else _beside(files)
    place = settings.place or str(files.root)

    def of(names: Sequence[str]) -> list[tuple[str, ...]]:
        return lookup(texts, names, place, by_name=bool(settings.place))

    own = of(chosen.paths)
    tokenizer = captions.open_tokenizer(
        settings.tokenizer, lambda: captions.vocabulary(text for row in of(_training(files)) for text in row)
    )
    return captions.with_captions(of_selection(files, chosen, fit), own, tokenizer, settings)


def _training(files: Files) -> tuple[str, ...]:
    """The pictures of the training split; of all where there is none."""
    try:
        return select(files, "train").paths
    except UserError:
        return tuple(sorted(files.pictures))


def lookup(texts: Texts, names: Sequence[str], place: str, *, by_name: bool) -> list[tuple[str, ...]]:
    """The captions of each picture.

    Args:
      texts: of a place.
      names: of the pictures.
      place: what to call it in errors.
      by_name: whether a file of a picture's name in another sub-folder is its own, too.
    Raises:
      UserError: a picture has none, or several files are of its name.
    """
    by_base: dict[str, list[str]] = {}
    for key in texts if by_name else ():
        by_base.setdefault(key.rpartition("/")[2], []).append(key)
    rows, lacking = [], []
    for name in names:
        key = _stem(name)
        others = by_base.get(key.rpartition("/")[2], [])
        if key not in texts and len(others) > 1:
            raise UserError(f"{place}: captions of {name!r} are in {others[0]} and {others[1]}: take one of them away.")
        if key in texts or others:
            rows.append(texts[key if key in texts else others[0]])
        else:
            lacking.append(name)
    if lacking:
        raise UserError(
            f"{place}: the picture {lacking[0]!r} has no caption ({len(lacking)} of {len(names)} without). Write it "
            f"into {_stem(lacking[0])}{TEXT}, a caption a line, or into a {LINES}; or take the picture away."
        )
    return rows


def _beside(files: Files) -> Texts:
    """The captions that lie beside pictures. Raises UserError for captions without a picture."""
    texts, stems = read_texts(files), {_stem(name) for name in files.pictures}
    lone = sorted(set(texts) - stems)
    if lone:
        raise UserError(
            f"{files.root}: there are captions of {lone[0]!r}, and no picture of that name ({len(lone)} without one). "
            "Put it there, or take the captions away."
        )
    return texts


def read_texts(files: Files) -> Texts:
    """All captions of a place: those of its `.jsonl` files where it has such, else those of its `.txt` files.

    Names in a `.jsonl` are relative to its folder.

    Raises:
      UserError: a file that is too large, no UTF-8, empty or not as `EXAMPLE`; or there is none.
    """
    lines = [name for name in files.others if name.lower().endswith(LINES)]
    names = lines or [name for name in files.others if name.lower().endswith(TEXT)]
    texts: dict[str, list[str]] = {}
    characters = count = 0
    for name in sorted(names):
        full = f"{files.root}/{name}"
        data = _loaded(files, name, full)
        for key, row in _of_lines(data, name, full) if lines else ((_stem(name), _of_text(data, full)),):
            texts.setdefault(key, []).extend(row)
            characters, count = characters + len(key) + sum(map(len, row)), count + len(row)
            captions.check_amount(characters, count, str(files.root))
    if not texts:
        raise UserError(
            f"{files.root} holds no captions: expected a {TEXT} for each picture, of its name and with a caption a "
            f"line, or a {LINES} with lines such as {EXAMPLE}."
        )
    return {key: tuple(row) for key, row in texts.items()}


def _loaded(files: Files, name: str, full: str) -> bytes:
    try:
        return files.load(name).removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise UserError(f"{full} cannot be read: {plain(error)}. Mend it, or take it away.") from error


def _decoded(data: bytes, where: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is no UTF-8 (byte {error.start}): save it as such, or take it away.") from error


def _of_text(data: bytes, full: str) -> list[str]:
    row = [captions.check_text(line, full) for line in _decoded(data, full).split("\n") if line.strip()]
    if not row:
        raise UserError(f"{full} is empty: write a caption a line, or take it away with its picture.")
    return row


def _of_lines(data: bytes, name: str, full: str) -> Iterator[tuple[str, list[str]]]:
    """(picture without its ending, captions) of each line, one in memory at a time: what JSON becomes may be larger."""
    folder = name.rpartition("/")[0]
    for number, raw in enumerate(io.BytesIO(data), 1):
        where = f"{full}, line {number}"
        if len(raw) > LINE_BYTES:
            raise UserError(f"{where}: {len(raw):,} bytes; expected a picture a line, of up to {LINE_BYTES:,}.")
        line = _decoded(raw, where)
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: no JSON ({plain(error, 80)}); expected a line such as {EXAMPLE}.") from error
        file, row = (_first(record, keys) for keys in (FILE, CAPTIONS))
        row = [row] if isinstance(row, str) else row
        if not isinstance(file, str) or not isinstance(row, list) or not all(isinstance(text, str) for text in row):
            raise UserError(f"{where}: expected a picture and its captions, such as {EXAMPLE}.")
        if not row:
            raise UserError(f"{where}: {file!r} has no caption. Write one, or take the line and the picture away.")
        file = file.replace("\\", "/").removeprefix("./")
        yield _stem(f"{folder}/{file}" if folder else file), [captions.check_text(text, where) for text in row]


def _first(record: object, keys: Sequence[str]) -> object:
    return next((record[key] for key in keys if key in record), None) if isinstance(record, dict) else None


def _stem(name: str) -> str:
    """A path without the ending of a picture or of captions."""
    ending = pathlib.PurePosixPath(name).suffix
    return name[: len(name) - len(ending)] if ending.lower() in (*SUFFIXES, *CAPTION_BYTES) else name
