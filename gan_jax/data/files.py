"""The picture files of a folder or a zip: their names, what tells their content, and how the bytes of one are read."""

import os
import pathlib
import stat
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

from gan_jax import archives, paths
from gan_jax.data.fit import SKIP, unusable
from gan_jax.errors import MissingPathError, UserError, plain, shown

SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jfif", ".jpe", ".apng",
    ".avif", ".dib", ".pbm", ".pnm", ".pfm", ".tga", ".jp2", ".j2k", ".jpx", ".dds", ".ico", ".icns", ".pcx", ".psd",
    ".sgi", ".qoi", ".xbm", ".xpm",
)  # fmt: skip
MOST_BYTES = 1 << 29  # of one picture's file, unpacked: Pillow's largest picture takes less
LABEL_BYTES = 1 << 14  # of a `dataset.json`, for each picture; and one MiB
LONGEST, DEEPEST = 1024, 32  # characters of a name in a zip, and its parts: each of its folders is remembered
ELSEWHERE = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device",
             stat.S_IFBLK: "a device"}  # fmt: skip


class NotAFile(OSError):
    """What is called as a picture is, and is none: a link to nothing, a pipe, a folder, a file too large."""


class Files(NamedTuple):
    """What lies in a place. Paths are relative to it, with `/` between their parts."""

    root: pathlib.Path
    pictures: dict[str, tuple]  # path -> what tells its content: (size, time in ns) or, in a zip, (size, CRC-32)
    others: tuple[str, ...]  # paths of files that are no pictures
    folders: tuple[str, ...]  # paths of all sub-folders, of those without files too
    load: Callable[[str], bytes]  # of one path; raises OSError where it is no file that can be read
    notes: tuple[str, ...] = ()  # what a person should know of it, a line each


def list_files(path: str, films: tuple[str, ...] = ()) -> Files:
    """What lies in a folder or .zip. Hidden files and what macOS leaves in zips are passed over.

    A folder that several links lead to is visited once.

    Args:
      path: of the user.
      films: endings of files that are listed as pictures are, whatever their size.
    Raises:
      MissingPathError: no such path.
      UserError: neither folder nor zip, a sub-folder that cannot be read, or no pictures.
    """
    root = pathlib.Path(paths.expanded(path, "folder"))
    if not path or not root.exists():
        raise MissingPathError(f"folder:{path}: there is no folder or .zip at {root.absolute()}.")
    files = _of_folder(root, films) if root.is_dir() else _of_zip(root, films)
    if not files.pictures:
        endings = f"; it has {_endings(files.others)}" if files.others else ""
        what, expected = ("films", f"{', '.join(films)}, or folders of frames") if films else ("images", "")
        expected = expected or ", ".join(SUFFIXES)
        raise UserError(f"{root} holds no {what}: expected files that end in {expected}{endings}.")
    return files._replace(notes=(*files.notes, *_passed_over(root, files.others)))


def list_inputs(path: str, flag: str = "--inputs") -> Files:
    """One picture, whatever its ending, or what lies in a folder or .zip, in the order of the names.

    Args:
      path: of the user.
      flag: what gave it, for errors.
    Raises:
      MissingPathError, UserError: as `list_files`.
    """
    place = pathlib.Path(paths.expanded(path, flag))
    if not place.exists():
        raise MissingPathError(f"{flag}={path}: there is no picture, folder or .zip at {place.absolute()}")
    if place.is_file() and not archives.is_zip(place):  # asked in this order: a pipe would never answer
        return Files(place.parent, {place.name: ()}, (), (), lambda name: _read(place, MOST_BYTES))
    files = list_files(path)
    return files._replace(pictures=dict(sorted(files.pictures.items())))


def read_bytes(full: str, name: str, load: Callable[[str], bytes], way_out: str = SKIP) -> bytes:
    """The bytes of the picture `name`, called `full` in errors; see `unusable`. Raises CorruptImageError."""
    try:
        return load(name)
    except OSError as error:
        raise unusable(full, error, way_out) from error


def targets(endings: dict[str, str], taken: Iterable[str] = ()) -> dict[str, str]:
    """The file that is written for each input, in its sub-folder and by its name, none of them twice.

    Where names clash, on disks that do not tell A from a either, each has its input's ending too, such as a_jpg.png;
    and a number behind that, where such a file is another input's.

    Args:
      endings: of the files that are written, such as .png, by the inputs' names.
      taken: names that no file may have, in small letters.
    """
    inputs = {name: pathlib.PurePosixPath(name) for name in endings}
    plain = {name: str(path.with_name(path.stem + endings[name])) for name, path in inputs.items()}
    counts = Counter(target.lower() for target in plain.values()) + Counter(taken)
    used, unique = {*counts}, {}
    for name, path in inputs.items():
        target, number = plain[name], 1
        if counts[target.lower()] > 1:
            stem = path.stem + path.suffix.replace(".", "_")
            target = str(path.with_name(stem + endings[name]))
            while target.lower() in used:
                number += 1
                target = str(path.with_name(f"{stem}_{number}{endings[name]}"))
            used.add(target.lower())
        unique[name] = target
    return unique


def _is_junk(parts: Iterable[str]) -> bool:
    """Whether a relative path is hidden, leads out (`..`), or is what macOS puts into zips."""
    return any(not part or part.startswith(".") or part == "__MACOSX" for part in parts)


def _is_picture(name: str, others: tuple[str, ...] = ()) -> bool:
    return name.lower().endswith((*SUFFIXES, *others))


def _endings(names: Iterable[str]) -> str:
    """`.txt 3, .json 1`: how many files of each ending."""
    counts = Counter(pathlib.PurePosixPath(name).suffix.lower() or "without ending" for name in names)
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{ending} {count}" for ending, count in ranked[:6])


def _passed_over(root: pathlib.Path, others: Iterable[str]) -> list[str]:
    others = [name for name in others if name.rpartition("/")[2] != "dataset.json"]
    if not others:
        return []
    return [f"{root}: {len(others)} file{'s' * (len(others) > 1)} passed over, no pictures: {_endings(others)}"]


def _of_folder(root: pathlib.Path, films: tuple[str, ...] = ()) -> Files:
    pictures, others, folders, reasons = {}, [], [], {}
    top, visited, repeated = os.path.realpath(root), {_identity(root)}, 0
    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=_refuse):
        base = pathlib.PurePath(folder).relative_to(root).as_posix()
        base = "" if base == "." else f"{base}/"
        names = [*names, *(name for name in subfolders if _is_picture(name, films))]
        inner = [name for name in subfolders if not (_is_junk([name]) or _is_picture(name, films))]
        subfolders[:] = [name for name in sorted(inner) if _is_new(os.path.join(folder, name), top, visited)]
        repeated += len(inner) - len(subfolders)
        folders += [base + name for name in subfolders]
        for name in names:
            if _is_junk([name]):
                continue
            if _is_picture(name, films):
                pictures[base + name], reason = content(os.path.join(folder, name))
                reasons |= {base + name: reason} if reason else {}
            else:
                others.append(base + name)

    def load(name: str) -> bytes:
        if name in reasons:
            raise NotAFile(reasons[name])
        return _read(root / name, _most(name, pictures))

    notes = [f"{root}: {repeated} link(s) to folders that are read already, passed over"] if repeated else []
    return Files(root, pictures, tuple(others), tuple(folders), load, tuple(notes))


def _refuse(error: OSError) -> None:
    raise UserError(
        f"{error.filename}: this folder cannot be read: {error.strerror}. Its images would be missing, and classes "
        "numbered without it: give yourself the right to read it, or move it away"
    ) from error


def _is_new(path: str, top: str, visited: set) -> bool:
    """Whether the walk below `top` meets this folder here alone; it is then among the `visited`."""
    identity, real = _identity(path), os.path.realpath(path)
    if os.path.islink(path):
        common = os.path.commonpath([real, top])
        is_met = common == top and not _is_junk(pathlib.PurePath(real).relative_to(top).parts)  # without the link
        if is_met or common == real:  # or it leads up, to all that lies beside the set
            return False
    if identity in visited:
        return False
    visited.add(identity)
    return True


def _identity(path: os.PathLike | str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def content(path: str) -> tuple[tuple, str]:
    """(size, time in ns) of a file and '', or why it cannot be read, twice."""
    reason, status = "", None
    try:
        status = os.stat(path)
        kind = stat.S_IFMT(status.st_mode)
        if kind != stat.S_IFREG:
            reason = f"it is {ELSEWHERE.get(kind, 'no file')}, not a file"
        elif status.st_size > MOST_BYTES and _is_picture(path):
            reason = _too_large(status.st_size, MOST_BYTES)
    except OSError as error:
        reason = f"it is a link to nothing ({os.readlink(path)})" if os.path.islink(path) else str(error.strerror)
    return ((reason,), reason) if reason else ((status.st_size, status.st_mtime_ns), "")


def _read(path: pathlib.Path, most: int) -> bytes:
    if (size := path.stat().st_size) > most:
        raise NotAFile(_too_large(size, most))
    return path.read_bytes()


def _most(name: str, pictures: dict) -> int:
    """Bytes that a file may have: a picture, or the labels of so many pictures."""
    return MOST_BYTES if _is_picture(name) else min((1 << 20) + LABEL_BYTES * len(pictures), MOST_BYTES)


def _too_large(size: int, most: int) -> str:
    if most == MOST_BYTES:
        return f"it unpacks to {size / 2**30:.1f} GiB, and no picture takes more than {most / 2**30:.1f}"
    return f"it unpacks to {size / 2**20:.1f} MiB, and labels of so many pictures take at most {most / 2**20:.1f}"


def _of_zip(path: pathlib.Path, films: tuple[str, ...] = ()) -> Files:
    archive = _open_zip(path)
    entries, folders = {}, set()
    for info in archive.infolist():  # the names are only ever keys, nothing is extracted
        name = info.filename.replace("\\", "/")  # as some programs of Windows write them
        name = name.removeprefix("./")
        parts = name.rstrip("/").split("/")
        if _is_junk(parts):
            continue
        if "\n" in name or shown(name) != name or len(name) > LONGEST or len(parts) > DEEPEST:
            raise UserError(
                f"{path} holds a file with the name {plain(name, 60)}: expected up to {LONGEST} characters, none of "
                f"them for control, in up to {DEEPEST} folders. Pack it anew."
            )
        is_folder = name.endswith("/")
        folders |= {"/".join(parts[:depth]) for depth in range(1, len(parts) + is_folder)}
        if not is_folder:
            entries[name] = info

    def load(name: str) -> bytes:
        most = _most(name, pictures)
        if entries[name].file_size > most:
            raise NotAFile(_too_large(entries[name].file_size, most))
        return archives.read(archive, entries[name], most)

    pictures = {name: (info.file_size, info.CRC) for name, info in entries.items() if _is_picture(name, films)}
    others = tuple(name for name in entries if name not in pictures)
    return Files(path, pictures, others, tuple(sorted(folders)), load)


def _open_zip(path: pathlib.Path):
    if not stat.S_ISREG(path.stat().st_mode):
        raise UserError(f"{path} is neither a folder nor a file: give a folder or a .zip of images.")
    try:
        return archives.open_zip(path)
    except OSError as error:
        if _is_picture(path.name):
            raise UserError(f"{path} is one picture: expected a folder or a .zip of images.") from error
        if _is_tar(path):
            raise UserError(
                f"{path} is a tar archive, which cannot be read picture by picture: unpack it "
                f"(tar -xf {path.name}) and give the folder, or pack it as a .zip."
            ) from error
        raise UserError(f"{path} cannot be read as a zip: {error}. Make it again or give a folder.") from error


def _is_tar(path: pathlib.Path) -> bool:
    try:
        return tarfile.is_tarfile(path)
    except (OSError, EOFError):
        return False
