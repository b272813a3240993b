"""A folder or a zip of images, with the first level of sub-folders as labels."""

import functools
import hashlib
import io
import os
import pathlib
import zipfile
import zlib
from collections.abc import Callable

import numpy as np

from gan_jax.data.fit import Fit, decode, unusable
from gan_jax.data.source import Example, Source
from gan_jax.errors import MissingPathError, UserError
from gan_jax.specs import labelled

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
ORIENTATION = 0x0112  # EXIF's tag; from 5 on, height and width are exchanged
OVERVIEW = "grid.png"  # beside the images that `sample` writes
SPLIT_FOLDERS = ("train", "test", "val", "valid", "validation")


def _is_image(parts: tuple[str, ...]) -> bool:
    """Whether a relative path is an image: not hidden, not above (`..`), not macOS's junk in zips."""
    junk = any(not part or part.startswith(".") or part == "__MACOSX" for part in parts)
    return not junk and parts[-1].lower().endswith(SUFFIXES)


def _list_folder(root: pathlib.Path) -> dict[str, tuple]:
    """Relative posix path -> (size, mtime in ns) of each image below `root`."""
    files = {}
    for folder, subfolders, names in os.walk(root, followlinks=True):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        base = pathlib.Path(folder).relative_to(root)
        for name in names:
            if _is_image((*base.parts, name)):
                status = os.stat(os.path.join(folder, name))
                files[(base / name).as_posix()] = (status.st_size, status.st_mtime_ns)
    return files


def _open_zip(path: pathlib.Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(
            f"{path} cannot be read as a zip: {error}. Make it again or give a folder."
        ) from error


def _list_zip(archive: zipfile.ZipFile) -> dict[str, tuple]:
    """Name -> (size, CRC-32) of each image; the names are only ever keys, nothing is extracted."""
    entries = (info for info in archive.infolist() if not info.is_dir())
    return {e.filename: (e.file_size, e.CRC) for e in entries if _is_image(tuple(e.filename.split("/")))}


def _select(names: list[str], split: str, root: pathlib.Path) -> dict[str, str]:
    """Path -> path within the split, for the images of one split.

    The sub-folder named like the split where there is one. Otherwise `train` and `all` are everything.
    """
    inside = {name: name[len(split) + 1 :] for name in names if name.startswith(split + "/")}
    if inside:
        return inside
    tops = {name.split("/")[0] for name in names if "/" in name}
    if split == "all":
        only_splits = tops <= set(SPLIT_FOLDERS) and all("/" in name for name in names)
        return {name: name.split("/", 1)[1] if only_splits else name for name in names}
    others = sorted(tops & set(SPLIT_FOLDERS))
    if split == "train" and not others:
        return {name: name for name in names}
    splits = f"it has {', '.join(others)}" if others else "without such sub-folders everything is 'train'"
    raise UserError(
        f"data.split={split!r}: {root} has no sub-folder {split!r} with images ({splits}). Make one,"
        " or set data.split to 'train', 'all' (everything) or the name of a sub-folder."
    )


def _classes(inner: list[str], root: pathlib.Path) -> tuple[str, ...]:
    """Names of the first-level sub-folders, sorted; empty if no image lies in one."""
    loose = [name for name in inner if "/" not in name]
    if loose and len(loose) < len(inner):
        raise UserError(
            f"{root}: {len(loose)} images, such as {loose[0]!r}, lie beside the class sub-folders, so"
            " they have no label. Move them into a sub-folder, or all images out of theirs."
        )
    return () if loose else tuple(sorted({name.split("/")[0] for name in inner}))


def _open(path: str) -> tuple[pathlib.Path, dict[str, tuple], Callable[[str], bytes]]:
    """The place, its images with what tells their content, and how the bytes of one are read."""
    root = pathlib.Path(path).expanduser()
    if not path or not root.exists():
        raise MissingPathError(f"folder:{path}: there is no folder or .zip at {root.absolute()}.")
    if root.is_dir():
        files, load = _list_folder(root), lambda name: (root / name).read_bytes()
    else:
        archive = _open_zip(root)
        files, load = _list_zip(archive), archive.read
    if not files:
        raise UserError(f"{root} holds no images: expected files that end in {', '.join(SUFFIXES)}.")
    return root, files, load


def open_folder(path: str, *, split: str, fit: Fit) -> Source:
    """`folder:PATH`, a folder or .zip of images of any size.

    Args:
      path: the folder or zip; `~` is expanded. Hidden files and files that are no images are passed over.
      split: a sub-folder of that name is used where it exists; otherwise `train` and `all` mean everything.
      fit: what to do to each picture; EXIF orientation is applied first.
    Raises:
      MissingPathError: no such path.
      UserError: neither folder nor zip, no images, no such split, images beside class folders.
    """
    root, files, load = _open(path)
    paths = _select(sorted(files), split, root)
    names, inner = list(paths), list(paths.values())
    classes = _classes(inner, root)
    number = {name: label for label, name in enumerate(classes)}
    labels = [number[name.split("/")[0]] for name in inner] if classes else None
    listing = [(name, *files[name]) for name in names]
    return Source(
        identity={"kind": "folder", "files": listing, "inner": inner, **fit._asdict()},
        count=len(names),
        spec=labelled(fit.shape, len(classes)),
        class_names=classes,
        read=functools.partial(_read, root=root, names=names, labels=labels, load=load, fit=fit),
        place=str(root.absolute()) if root.is_dir() else "",  # names, sizes and times may be those of another folder
    )


def open_images(path: str) -> tuple[Source, Fit, tuple[str, ...]]:
    """All images of a folder or .zip as they are, without labels, in the order of their names.

    Args:
      path: see `open_folder`; sub-folders mean nothing. `sample`'s overview of its images is left out.
    Returns:
      The source, RGB at the images' own size, its settings, and the images' names relative to the path.
    Raises:
      MissingPathError, UserError: as `open_folder`, or images of several sizes.
    """
    root, files, load = _open(path)
    names, sizes, digests = sorted(files), {}, []
    if OVERVIEW in names and len(names) > 1:
        names.remove(OVERVIEW)
    for name in names:
        data = _bytes(f"{root}/{name}", name, load)
        sizes.setdefault(_size(f"{root}/{name}", data), name)
        digests.append(hashlib.sha256(data).hexdigest())
    if len(sizes) > 1:
        examples = ", ".join(f"{w}x{h} ({name})" for (w, h), name in sorted(sizes.items())[:4])
        raise UserError(f"{root} holds images of {len(sizes)} sizes, such as {examples}: expected one size for all. "
                        "Resize them first, as whatever made them would have.")
    width, height = next(iter(sizes))
    fit = Fit(height, width, 3, "none", 0, "lanczos")
    source = Source(
        identity={"kind": "images", "files": list(zip(names, digests, strict=True)), **fit._asdict()},
        count=len(names),
        spec=labelled(fit.shape),
        class_names=(),
        read=functools.partial(_read, root=root, names=names, labels=None, load=load, fit=fit),
    )
    return source, fit, tuple(names)


def open_inputs(path: str, fit: Fit) -> tuple[Source, tuple[str, ...]]:
    """One picture, or all of a folder or .zip, in the order of their names; sub-folders mean nothing.

    Returns:
      The source, without labels, and the pictures' names relative to the path.
    Raises:
      MissingPathError, UserError: as `open_folder`.
    """
    place = pathlib.Path(path).expanduser()
    if not place.exists():
        raise MissingPathError(f"--inputs={path}: there is no picture, folder or .zip at {place.absolute()}")
    if place.is_file() and not zipfile.is_zipfile(place):
        root, files, load = place.parent, {place.name: ()}, lambda name: place.read_bytes()
    else:
        root, files, load = _open(path)
    names = sorted(files)
    read = functools.partial(_read, root=root, names=names, labels=None, load=load, fit=fit)
    identity = {"kind": "inputs", "files": names, **fit._asdict()}
    return Source(identity, len(names), labelled(fit.shape), (), read), tuple(names)


def _size(full: str, data: bytes) -> tuple[int, int]:
    """Width and height of one image, upright, from its header."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            sideways = image.getexif().get(ORIENTATION, 1) >= 5
    except Image.UnidentifiedImageError as error:  # whose own words name an object in memory
        raise unusable(full, "it is no image that can be read") from error
    except Exception as error:  # whatever a damaged file makes PIL raise
        raise unusable(full, error) from error
    return (height, width) if sideways else (width, height)


def _bytes(full: str, name: str, load: Callable[[str], bytes]) -> bytes:
    try:
        return load(name)
    except (OSError, RuntimeError, NotImplementedError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise unusable(full, error) from error


def _read(
    index: int, *, root, names: list[str], labels: list[int] | None, load: Callable[[str], bytes], fit: Fit
) -> Example:
    name = f"{root}/{names[index]}"
    example = {"image": decode(_bytes(name, names[index], load), fit, name, upright=True)}
    return example if labels is None else {**example, "label": np.int32(labels[index])}
