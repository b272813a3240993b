"""Zip archives of others: what is in them, read within bounds of memory, and the plain arrays of an .npz file.

An archive says of each member how large it is, and may lie. No more of a member is ever unpacked than it says, and what
it says is checked first. Nothing is extracted to a disk: names of members are keys and no paths.
"""

import io
import math
import os
import zipfile
from collections.abc import Collection

import numpy as np

from gan_jax.errors import plain

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others unpack as much at once as they like
ROOM, TIMES = 1 << 26, 4  # the arrays of an .npz file take at most ROOM bytes and TIMES its length
_HEADER = 1000  # characters that tell an array's shape and type; Python's parser would try to read any text
_NUMBER = 8  # bytes that a number may take once it is read, whatever its type in the file


class Unreadable(OSError):
    """An archive or a member that is damaged, of a kind that is not read, or larger than it may be."""


def is_zip(path: os.PathLike | str) -> bool:
    """Whether a file ends as a zip does."""
    try:
        return zipfile.is_zipfile(path)
    except Exception:  # such as an end that points into other files
        return False


def open_zip(file) -> zipfile.ZipFile:
    """An archive, of a path or a binary file. Raises Unreadable, or the system's OSError."""
    try:
        return zipfile.ZipFile(file)
    except OSError:
        raise
    except Exception as error:  # BadZipFile, and whatever else a damaged list of members makes of its reader
        raise Unreadable(plain(error)) from error


def read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, most: int) -> bytes:
    """The bytes of a member, `most` of them or fewer. Raises Unreadable."""
    if member.compress_type not in METHODS:
        raise Unreadable("it is compressed in another way than deflate: pack the zip anew")
    if member.file_size > most:
        raise Unreadable(f"it unpacks to {member.file_size:,} bytes, and {most:,} are the most")
    try:
        with archive.open(member) as file:
            data = file.read(member.file_size + 1)  # without a number a short member might unpack to any length
    except Exception as error:  # as above
        raise Unreadable(plain(error)) from error
    if len(data) != member.file_size:
        raise Unreadable(f"{len(data):,} bytes instead of {member.file_size:,}")
    return data


def arrays(path: os.PathLike | str, names: Collection[str]) -> dict[str, np.ndarray | None]:
    """The arrays of an .npz file by name: those of `names`, which cannot be written to, and None for its others.

    Nothing in the file is run: pickled objects are refused.

    Raises:
      Unreadable: no .npz file, a damaged one, objects in place of numbers, or more numbers than memory is meant for.
      OSError: the file cannot be opened.
    """
    most = ROOM + TIMES * os.path.getsize(path)
    with open(path, "rb") as file, _open_npz(file) as archive:
        members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
        result: dict[str, np.ndarray | None] = dict.fromkeys(members)
        for name in members.keys() & set(names):
            array = _array(read(archive, members[name], most))
            most -= max(array.nbytes, array.size * _NUMBER)
            if most < 0:
                raise Unreadable(f"its arrays are far larger than itself: {name} has {array.size:,} numbers")
            result[name] = array
    return result


def _open_npz(file) -> zipfile.ZipFile:
    if file.read(6) == b"\x93NUMPY":
        raise Unreadable("it holds a single array without a name")
    return open_zip(file)


def _array(data: bytes) -> np.ndarray:
    """The array of an .npy file, a view of its bytes."""
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in headers:
            raise Unreadable(f"an array of the format {version[0]}.{version[1]}, which is not read")
        shape, is_fortran, dtype = headers[version](file, max_header_size=_HEADER)
        if dtype.hasobject:
            raise Unreadable("it holds pickled objects in place of numbers")
        start = file.tell()
        if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(data) - start:
            form = f"shape {plain(shape, 60)} and type {plain(dtype, 60)}"
            raise Unreadable(f"{len(data) - start:,} bytes for an array of {form}")
        values = np.frombuffer(data, dtype, offset=start)
        return values.reshape(shape[::-1]).T if is_fortran else values.reshape(shape)
    except Unreadable:
        raise
    except Exception as error:  # whatever a damaged header makes of its readers
        raise Unreadable(f"no array: {plain(error)}") from error
