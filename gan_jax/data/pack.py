"""Decoded sets in the cache: one memory-mapped array a field, keyed by the content they were made from."""

import hashlib
import json
import logging
import os
import pathlib
import shutil
import tempfile
import threading
from typing import NamedTuple

import numpy as np

from gan_jax.cache import cache_dir
from gan_jax.data.fit import CorruptImageError
from gan_jax.data.live import decoded
from gan_jax.data.source import Example, Source
from gan_jax.errors import UserError

LIMIT_BYTES = 8 << 30  # sets whose decoded images take more are decoded while they are used
FORMAT = 1  # raised when what a set holds changes meaning: runs of before are then refused on resuming
USABLE = "_usable.npy"  # which examples of the source; no field is called so
LAYOUT = "fields"  # of the files; another one is packed anew


class Pack(NamedTuple):
    """What is kept of a set."""

    fields: Example  # (N, ...) each, memory-mapped; empty where only the list of usable examples is kept
    usable: np.ndarray  # int64 (N,): indices into the source
    meta: dict  # count, skipped, fingerprint


def content_key(source: Source) -> str:
    """SHA-256 (hex) of all that decides a set's content."""
    return hashlib.sha256(json.dumps([FORMAT, *_look(source), source.identity], sort_keys=True).encode()).hexdigest()


def files_sha256(source: Source) -> str:
    """SHA-256 (hex) of a source's files, whatever their place and times, from the cache or read now; '' of others.

    Raises:
      OSError: they cannot be read.
    """
    if source.digest is None:
        return ""
    key = hashlib.sha256(f"{content_key(source)}{source.place}".encode()).hexdigest()
    file = cache_dir("contents") / f"{key}.txt"
    if not file.is_file():
        value = source.digest()
        part = file.with_name(f".{file.name}.{os.getpid()}.{threading.get_ident()}.part")
        part.write_text(value)
        os.replace(part, file)
    return file.read_text()


def _look(source: Source) -> list:
    """JSON-able: the first field's shape, the classes, what other fields there are beside a label, and the words."""
    (_, first), *rest = source.spec.items()
    others = {name: [field.kind, field.shape] for name, field in rest if name != "label"}
    return [first.shape, source.class_names, *([others] if others else []), *([source.words] if source.words else [])]


def fits(source: Source) -> bool:
    """Whether the decoded set, its labels apart, is small enough to be packed."""
    return source.count * sum(field.nbytes for name, field in source.spec.items() if name != "label") <= LIMIT_BYTES


def open_pack(source: Source, *, skip_corrupt: bool, with_fields: bool) -> Pack:
    """The pack of a source, from the cache or made now. Two processes may make the same one: the first wins.

    Args:
      source: the set.
      skip_corrupt: leave unusable images out and count them, instead of raising.
      with_fields: keep the arrays; without, only which examples can be used.
    Raises:
      CorruptImageError: an unusable image, and not `skip_corrupt`.
      UserError: no usable image at all, or the cache folder cannot be written.
    """
    key = hashlib.sha256(f"{content_key(source)}{source.place}{LAYOUT}".encode()).hexdigest()
    kind = f"{key}{'-skip' if skip_corrupt else ''}{'' if with_fields else '-list'}"
    fields = tuple(source.spec) if with_fields else ()
    try:
        folder = cache_dir("packed") / kind
        pack = _load(folder, fields)
        if pack is None:
            logging.getLogger(__name__).info("Packing %d images once into %s", source.count, folder)
            _make(source, folder, skip_corrupt=skip_corrupt, with_fields=with_fields)
            pack = _load(folder, fields)
    except OSError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"The decoded images cannot be kept in the cache: {error}. Free some space, or set"
            " $GAN_JAX_CACHE_DIR to another folder."
        ) from error
    assert pack is not None, folder
    return pack


def _load(folder: pathlib.Path, fields: tuple[str, ...]) -> Pack | None:
    """The pack in a folder; None, and the folder gone, if it is not there or damaged."""
    if not folder.exists():
        return None
    try:
        meta = json.loads((folder / "meta.json").read_text())
        arrays = {name: np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r")) for name in fields}
        return Pack(arrays, np.load(folder / USABLE), meta)
    except (OSError, ValueError, EOFError):
        shutil.rmtree(folder, ignore_errors=True)
        return None


def _make(source: Source, folder: pathlib.Path, *, skip_corrupt: bool, with_fields: bool) -> None:
    """Writes a pack beside its place and moves it there when it is whole."""
    work = pathlib.Path(tempfile.mkdtemp(prefix=folder.name[:16] + ".tmp-", dir=folder.parent))
    try:
        _write(source, work, skip_corrupt=skip_corrupt, with_fields=with_fields)
        try:
            os.replace(work, folder)
        except OSError:
            if not folder.exists():  # it does where another process was faster
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _write(source: Source, folder: pathlib.Path, *, skip_corrupt: bool, with_fields: bool) -> None:
    """Decodes a source into a folder, and writes beside its arrays how many examples there are and their fingerprint.

    That is SHA-256 of shapes and classes, of the examples one by one, and of the labels, -1 where there are none.
    """
    arrays, usable, labels = {}, [], []
    if with_fields:
        _check_room(folder, source.count * sum(field.nbytes for field in source.spec.values()))
        for name, field in source.spec.items():
            shape = (source.count, *field.shape)
            arrays[name] = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype=field.dtype, shape=shape)
    digest = hashlib.sha256(json.dumps(_look(source)).encode())
    for index, example in enumerate(decoded(_Tolerant(source, skip_corrupt), range(source.count))):
        if example is None:
            continue
        for name, field in source.spec.items():
            value = np.asarray(example[name])
            assert value.shape == field.shape and value.dtype == field.dtype, (name, value.shape, value.dtype)
            if name in arrays:
                arrays[name][len(usable)] = value
            if name != "label":
                digest.update(np.ascontiguousarray(value))
        labels.append(example.get("label", -1))
        usable.append(index)
    if not usable:
        raise UserError(f"None of the {source.count} images can be used; data.skip_corrupt=False tells why.")
    digest.update(np.asarray(labels, np.int32).tobytes())
    for name, array in arrays.items():
        array.flush()
        if len(usable) < source.count:
            np.save(folder / "shorter.npy", array[: len(usable)])
            os.replace(folder / "shorter.npy", folder / f"{name}.npy")
    np.save(folder / USABLE, np.asarray(usable, np.int64))
    meta = {"count": len(usable), "skipped": source.count - len(usable), "fingerprint": digest.hexdigest()}
    meta["class_names"] = source.class_names
    (folder / "meta.json").write_text(json.dumps(meta))


def _check_room(folder: pathlib.Path, size: int) -> None:
    """Raises UserError where the disk has no room: a mapped file on a full one would end the process by a signal."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise UserError(
            f"{folder.parent}: {size / 2**20:.0f} MiB of decoded images do not fit, {free / 2**20:.0f} MiB are free. "
            "Make room there, or set GAN_JAX_CACHE_DIR to a larger disk"
        )


class _Tolerant:
    """Reads examples; an unusable one is None if `skip`."""

    def __init__(self, source: Source, skip: bool):
        self.source, self.skip = source, skip

    def __call__(self, index: int):
        try:
            return self.source.read(index)
        except CorruptImageError:
            if not self.skip:
                raise
            return None
