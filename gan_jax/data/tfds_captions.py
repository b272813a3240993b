"""Captions of TFDS sets: those that examples have, or files that go by the pictures' names."""

import hashlib
import json
import os
import pathlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from gan_jax.cache import cache_dir
from gan_jax.data import captions
from gan_jax.data.captions import Settings
from gan_jax.data.files import list_texts
from gan_jax.data.folder_captions import lookup, read_texts
from gan_jax.data.source import Source
from gan_jax.errors import UserError

FEATURES = ("captions", "caption")  # that an example may have: text, several texts, or dicts with `text`
NAMES = ("image/filename", "file_name", "filename")  # of an example's picture

Split = tuple[Any, dict]  # (rows by number, what tells their content)


def captioned(
    source: Source, features: dict[str, Any], settings: Settings, name: str, split: Split, training: Callable[[], Split]
) -> Source:
    """A prepared set with the captions of its examples, or those of `settings.place` that are named as its pictures.

    To know them every example is read once, and the texts are kept in the cache.

    Args:
      source: of the pictures.
      features: of the set, by name.
      settings: of the captions.
      name: of the set, for errors.
      split: that is opened.
      training: () -> the one whose words count.
    Raises:
      UserError: the set has neither captions nor names of pictures; an example without a caption.
    """
    names = NAMES if settings.place else FEATURES
    feature = next((one for one in names if one in features), None)
    if feature is None:
        lacks = "names of its pictures, by which data.captions_from could be read"
        if not settings.place:
            lacks = "captions: give data.captions_from=FOLDER, with files that are named as its pictures"
        raise UserError(f"data.name={name!r} has no {lacks}. Looked for {', '.join(names)}; it has: "
                        f"{', '.join(sorted(features))}.")
    texts = read_texts(list_texts(settings.place)) if settings.place else {}

    def of(rows: Any, content: dict) -> list[tuple[str, ...]]:
        values = _cached_texts(rows, content, feature)
        if settings.place:
            return lookup(texts, [value[0] for value in values], settings.place, by_name=True)
        return [tuple(captions.check_text(text, f"{name}, example {index}") for text in value)
                for index, value in enumerate(values)]  # fmt: skip

    own = of(*split)
    if empty := [index for index, row in enumerate(own) if not row]:
        raise UserError(f"{name}, example {empty[0]} has no caption ({len(empty)} of {len(own)} without); prepare the "
                        "set again, or take another one.")
    tokenizer = captions.open_tokenizer(
        settings.tokenizer, lambda: captions.vocabulary(text for row in of(*training()) for text in row)
    )
    return captions.with_captions(source, own, tokenizer, settings)


def _cached_texts(rows: Any, content: dict, feature: str) -> list[list[str]]:
    """The texts of a feature of all rows, from the cache or read now."""
    key = hashlib.sha256(json.dumps([content, feature], sort_keys=True).encode()).hexdigest()
    file = cache_dir("captions") / f"{key}.json"
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not there yet, or damaged
        pass
    texts = list(_texts(rows, feature))
    part = file.with_name(f".{file.name}.{os.getpid()}.{threading.get_ident()}.part")
    _write(part, file, texts)
    return texts


def _write(part: pathlib.Path, file: pathlib.Path, texts: list[list[str]]) -> None:
    try:
        part.write_text(json.dumps(texts), encoding="utf-8")
        os.replace(part, file)
    except OSError as error:
        raise UserError(f"captions cannot be kept in the cache: {error}. Free some space, or set $GAN_JAX_CACHE_DIR "
                        "to another folder.") from error


def _texts(rows: Any, feature: str) -> Iterator[list[str]]:
    for index in range(len(rows)):
        value = rows[index][feature]
        value = value["text"] if isinstance(value, dict) else value
        values = [value] if isinstance(value, bytes | str) else list(value)
        yield [one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one) for one in values]
