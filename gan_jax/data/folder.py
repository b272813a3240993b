"""A folder or a zip of images, with the first level of sub-folders, or a `dataset.json`, as labels."""

import functools
import hashlib
import os
from collections.abc import Callable, Sequence

import numpy as np

from gan_jax.data.files import Files, NotAFile, list_files, list_inputs, read_bytes
from gan_jax.data.fit import MEND, SKIP, Fit, colour_notes, decode, open_image, unusable
from gan_jax.data.folder_labels import Selection, select
from gan_jax.data.source import Example, Source
from gan_jax.errors import UserError
from gan_jax.specs import labelled

ORIENTATION = 0x0112  # EXIF's tag; from 5 on, height and width are exchanged
OVERVIEW = "grid.png"  # beside the images that `sample` writes


def open_folder(path: str, *, split: str, fit: Fit) -> Source:
    """`folder:PATH`, a folder or .zip of images of any size.

    Args:
      path: the folder or zip. Hidden files and files that are no images are passed over.
      split: see `folder_labels.select`.
      fit: what to do to each picture; EXIF orientation is applied first.
    Raises:
      MissingPathError: no such path.
      UserError: neither folder nor zip, no images, no such split, labels that are not clear.
    """
    files = list_files(path)
    return of_selection(files, select(files, split), fit)


def of_selection(files: Files, chosen: Selection, fit: Fit) -> Source:
    """The chosen pictures of a folder or zip."""
    root = files.root
    listing = [(name, *files.pictures[name]) for name in chosen.paths]
    labels = chosen.labels
    described = {"labels": labels} if chosen.is_described else {}  # those by folders follow from the names
    read = functools.partial(
        _read, root=root, names=chosen.paths, labels=labels, load=files.load, fit=fit, way_out=SKIP
    )
    return Source(
        identity={"kind": "folder", "files": listing, "inner": chosen.inner, **described, **fit._asdict()},
        count=len(chosen.paths),
        spec=labelled(fit.shape, len(chosen.class_names)),
        class_names=chosen.class_names,
        read=read,
        place=str(root.absolute()) if root.is_dir() else "",  # names, sizes and times may be those of another folder
        notes=(*files.notes, *chosen.notes, *colour_notes(functools.partial(encoded, files), chosen.paths, fit)),
        labels=labels,
        # A zip has checksums.
        digest=functools.partial(digest, files, chosen.paths, chosen.inner, **described) if root.is_dir() else None,
    )


def digest(files: Files, names: Sequence[str], inner: Sequence[str], labels: Sequence[int] | None = None) -> str:
    """SHA-256 of the pictures' names within the split (`inner`), of all their bytes, and of labels of a file."""
    digest = hashlib.sha256()
    for path, name in zip(names, inner, strict=True):
        try:
            content = hashlib.sha256(files.load(path)).hexdigest()
        except NotAFile:
            content = "no file"
        digest.update(os.fsencode(name) + f"\0{content}\n".encode())
    if labels is not None:
        digest.update(str(labels).encode())
    return digest.hexdigest()


def encoded(files: Files, name: str) -> bytes:
    """The bytes of a picture. Raises CorruptImageError."""
    return read_bytes(f"{files.root}/{name}", name, files.load)


def open_images(path: str, size: int = 0) -> tuple[Source, Fit, tuple[str, ...]]:
    """All images of a folder or .zip, without labels, in the order of their names.

    Args:
      path: see `open_folder`; sub-folders mean nothing. `sample`'s overview of its images is left out.
      size: side of squares that images are cropped and resized to; 0 for images as they are.
    Returns:
      The source, RGB, its settings, and the images' names relative to the path.
    Raises:
      MissingPathError, UserError: as `open_folder`, or images of several sizes.
    """
    files = list_files(path)
    root, load = files.root, files.load
    names, sizes, digests = sorted(files.pictures), {}, []
    if OVERVIEW in names and len(names) > 1:
        names.remove(OVERVIEW)
    for name in names:
        data = read_bytes(f"{root}/{name}", name, load, MEND)
        sizes.setdefault(_size(f"{root}/{name}", data), name)
        digests.append(hashlib.sha256(data).hexdigest())
    width, height = (size, size) if size else _only_size(str(root), sizes, ", or give --resize=SIZE.")
    crop = "none" if list(sizes) == [(width, height)] else "center"  # what need not be resized is the same data
    fit = Fit(height, width, 3, crop, 0, "lanczos")
    source = Source(
        identity={"kind": "images", "files": list(zip(names, digests, strict=True)), **fit._asdict()},
        count=len(names),
        spec=labelled(fit.shape),
        class_names=(),
        read=functools.partial(_read, root=root, names=names, labels=None, load=load, fit=fit),
        notes=files.notes,
    )
    return source, fit, tuple(names)


def _only_size(root: str, sizes: dict[tuple[int, int], str], advice: str = "") -> tuple[int, int]:
    """The width and height, of which there is one for all images; raises UserError with names where there are more."""
    if len(sizes) > 1:
        examples = ", ".join(f"{w}x{h} ({name})" for (w, h), name in sorted(sizes.items())[:4])
        raise UserError(f"{root} holds images of {len(sizes)} sizes, such as {examples}: expected one size for all. "
                        f"Resize them first, as whatever made them would have{advice or '.'}")
    return next(iter(sizes))


def open_inputs(path: str, fit: Fit, *, fitted: bool = True) -> tuple[Source, tuple[str, ...], Fit]:
    """One picture, or all of a folder or .zip, in the order of their names; sub-folders mean nothing.

    Args:
      path: of the user.
      fit: what is done to each picture.
      fitted: without, they keep their size.
    Returns:
      The source, without labels, the pictures' names relative to the path, and what was done to each.
    Raises:
      MissingPathError, UserError: as `open_folder`, or pictures of several sizes that keep theirs.
    """
    files = list_inputs(path)
    root, names, load, notes = files.root, list(files.pictures), files.load, files.notes
    if not fitted:
        sizes = {_size(f"{root}/{name}", read_bytes(f"{root}/{name}", name, load)): name for name in reversed(names)}
        width, height = _only_size(str(root), sizes)
        fit = Fit(height, width, fit.channels, "none", 0, fit.filter)
    read = functools.partial(_read, root=root, names=names, labels=None, load=load, fit=fit)
    identity = {"kind": "inputs", "files": names, **fit._asdict()}
    return Source(identity, len(names), labelled(fit.shape), (), read, notes=notes), tuple(names), fit


def _size(full: str, data: bytes) -> tuple[int, int]:
    """Width and height of one image, upright, from its header."""
    from PIL import Image

    try:
        with open_image(data) as image:
            width, height = image.size
            sideways = image.getexif().get(ORIENTATION, 1) >= 5
    except Image.UnidentifiedImageError as error:  # whose own words name an object in memory
        raise unusable(full, "it is no image that can be read", MEND) from error
    except Exception as error:  # whatever a damaged file makes PIL raise
        raise unusable(full, error, MEND) from error
    return (height, width) if sideways else (width, height)


def _read(
    index: int, *, root, names: Sequence[str], labels: Sequence[int] | None, load: Callable[[str], bytes], fit: Fit,
    way_out: str = MEND,
) -> Example:
    name = f"{root}/{names[index]}"
    data = read_bytes(name, names[index], load, way_out)
    example = {"image": decode(data, fit, name, upright=True, way_out=way_out)}
    return example if labels is None else {**example, "label": np.int32(labels[index])}
