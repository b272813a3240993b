"""Decoded sets in the cache: one memory-mapped uint8 array, keyed by the content it was made from."""

import hashlib
import json
import logging
import math
import os
import pathlib
import shutil
import tempfile
from typing import NamedTuple

import numpy as np

from gan_jax.cache import cache_dir
from gan_jax.data.fit import CorruptImageError
from gan_jax.data.live import decoded
from gan_jax.data.source import Source
from gan_jax.errors import UserError

LIMIT_BYTES = 8 << 30  # sets whose decoded images take more are decoded while they are used
FORMAT = 1  # raised when what a pack holds changes meaning


class Pack(NamedTuple):
    """What is kept of a set. `images` is None where only the list of usable examples is kept."""

    images: np.ndarray | None  # uint8 (N, H, W, C), memory-mapped
    labels: np.ndarray  # int32 (N,), -1 without labels
    usable: np.ndarray  # int64 (N,): indices into the source
    meta: dict  # count, skipped, fingerprint


def content_key(source: Source, shape: tuple[int, int, int]) -> str:
    """SHA-256 (hex) of all that decides a set's content."""
    text = json.dumps([FORMAT, shape, source.class_names, source.identity], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def fits(source: Source, shape: tuple[int, int, int]) -> bool:
    """Whether the decoded set is small enough to be packed."""
    return source.count * int(np.prod(shape)) <= LIMIT_BYTES


def open_pack(source: Source, shape: tuple[int, int, int], *, skip_corrupt: bool, with_images: bool) -> Pack:
    """The pack of a source, from the cache or made now. Two processes may make the same one: the first wins.

    Args:
      source: the set.
      shape: (H, W, C) of its images.
      skip_corrupt: leave unusable images out and count them, instead of raising.
      with_images: keep the pixels; without, only which examples can be used.
    Raises:
      CorruptImageError: an unusable image, and not `skip_corrupt`.
      UserError: no usable image at all, or the cache folder cannot be written.
    """
    key = hashlib.sha256(f"{content_key(source, shape)}{source.place}".encode()).hexdigest()
    kind = f"{key}{'-skip' if skip_corrupt else ''}{'' if with_images else '-list'}"
    try:
        folder = cache_dir("packed") / kind
        pack = _load(folder, with_images)
        if pack is None:
            logging.getLogger(__name__).info("Packing %d images once into %s", source.count, folder)
            _make(source, shape, folder, skip_corrupt=skip_corrupt, with_images=with_images)
            pack = _load(folder, with_images)
    except OSError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"The decoded images cannot be kept in the cache: {error}. Free some space, or set"
            " $GAN_JAX_CACHE_DIR to another folder."
        ) from error
    assert pack is not None, folder
    return pack


def _load(folder: pathlib.Path, with_images: bool) -> Pack | None:
    """The pack in a folder; None, and the folder gone, if it is not there or damaged."""
    if not folder.exists():
        return None
    try:
        meta = json.loads((folder / "meta.json").read_text())
        images = np.asarray(np.load(folder / "images.npy", mmap_mode="r")) if with_images else None
        return Pack(images, np.load(folder / "labels.npy"), np.load(folder / "kept.npy"), meta)
    except (OSError, ValueError, EOFError):
        shutil.rmtree(folder, ignore_errors=True)
        return None


def _make(source: Source, shape, folder: pathlib.Path, *, skip_corrupt: bool, with_images: bool) -> None:
    """Writes a pack beside its place and moves it there when it is whole."""
    work = pathlib.Path(tempfile.mkdtemp(prefix=folder.name[:16] + ".tmp-", dir=folder.parent))
    try:
        _write(source, shape, work, skip_corrupt=skip_corrupt, with_images=with_images)
        try:
            os.replace(work, folder)
        except OSError:
            if not folder.exists():  # it does where another process was faster
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _write(source: Source, shape, folder: pathlib.Path, *, skip_corrupt: bool, with_images: bool) -> None:
    """Decodes a source into a folder; the fingerprint is SHA-256 of shape, classes, pixels and labels."""
    images = None
    if with_images:
        path = folder / "images.npy"
        _check_room(folder, source.count * math.prod(shape))
        images = np.lib.format.open_memmap(path, "w+", dtype=np.uint8, shape=(source.count, *shape))
    digest = hashlib.sha256(json.dumps([shape, source.class_names]).encode())
    labels, usable = [], []
    for index, (image, label) in enumerate(decoded(_Tolerant(source, skip_corrupt), range(source.count))):
        if image is None:
            continue
        assert image.shape == tuple(shape) and image.dtype == np.uint8, (image.shape, image.dtype)
        if images is not None:
            images[len(usable)] = image
        digest.update(np.ascontiguousarray(image))
        labels.append(label)
        usable.append(index)
    if not usable:
        raise UserError(f"None of the {source.count} images can be used; data.skip_corrupt=False tells why.")
    labels = np.asarray(labels, np.int32)
    digest.update(labels.tobytes())
    if images is not None:
        images.flush()
        if len(usable) < source.count:
            np.save(folder / "shorter.npy", images[: len(usable)])
            os.replace(folder / "shorter.npy", path)
    np.save(folder / "labels.npy", labels)
    np.save(folder / "kept.npy", np.asarray(usable, np.int64))
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
    """Reads examples; an unusable one is (None, -1) if `skip`."""

    def __init__(self, source: Source, skip: bool):
        self.source, self.skip = source, skip

    def __call__(self, index: int):
        try:
            return self.source.read(index)
        except CorruptImageError:
            if not self.skip:
                raise
            return None, -1
