"""The files that hold weights: pickles, torch's zip and legacy files, safetensors. Read without torch, as data."""

import io
import os
import pathlib
import struct
from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from gan_jax import archives
from gan_jax.errors import MissingPathError, UserError, plain
from gan_jax.weights import pickles
from gan_jax.weights.pickles import Damaged, Storage, Tensor

_SHARED = 8  # times that the tensors may be as large as their file, where several are one
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # with which torch's legacy files begin


class Contents:
    """What a file of `size` bytes holds: `value`, containers with tensors, and the `metadata` of a safetensors file."""

    def __init__(self, value: Any, size: int, metadata: dict[str, str] | None = None):
        self.value, self.size, self.metadata = value, size, metadata or {}


def read_file(path: os.PathLike | str, prefix: str = "") -> Contents:
    """Reads a file of any kind that is known, told by its first bytes.

    Args:
      path: the file.
      prefix: what stands before its path in an error, such as the flag that gave it.
    Raises:
      MissingPathError: no such file.
      UserError: a file that cannot be read, is damaged, or asks for more than data.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise MissingPathError(f"{prefix}{path}: no such file")
    try:
        with path.open("rb") as file:
            start = file.read(9)
            lengthy = start[4:] == b"\x00\x00\x00\x00{"  # of safetensors: the header's length, and the header
            is_torch = not lengthy and start.startswith((b"PK\x03\x04", b"\x80"))  # the length may begin as a pickle
        data = path.read_bytes() if is_torch else b""
    except OSError as error:
        raise UserError(f"{prefix}{path}: cannot be read: {error.strerror}") from error
    try:
        if lengthy:
            return _safetensors(path)
        if is_torch:
            return Contents(_read_torch(data, nested=_read_nested), len(data))
    except UserError as error:
        raise UserError(f"{prefix}{path}: refused: {plain(error)}") from error
    except Exception as error:  # Damaged, and whatever else a broken file makes of its readers
        reason = plain(error, 200) if isinstance(error, Damaged) else f"{type(error).__name__}: {plain(error, 200)}"
        raise UserError(f"{prefix}{path}: the file is damaged: {reason}; fetch it again") from error
    raise UserError(f"{prefix}{path}: expected a .pkl, .pth or .safetensors file, and this begins with {start[:8]!r}")


def _read_torch(data: bytes, **options) -> Any:
    """The value of a pickle, or of a file that torch has saved in either of its formats."""
    if data[:4] == b"PK\x03\x04":
        return _zipped(data)
    file = io.BytesIO(data)
    value = pickles.read(file, **options)
    return _legacy(file) if type(value) is int and value == _MAGIC else value


def _read_nested(data: Any, *rest) -> Storage:
    """A storage that torch has saved for itself inside of a pickle; there may be no further one in it."""
    if not isinstance(data, bytes):
        raise Damaged("a saved storage that is not bytes")
    value = _read_torch(data)
    if not isinstance(value, Storage):
        raise Damaged("something else where a saved storage was expected")
    return value


def _legacy(file: io.BytesIO) -> Any:
    """The rest of torch's legacy format: a pickle that refers to storages, their keys, their numbers."""
    if pickles.read(file) != _PROTOCOL:
        raise Damaged("an unknown protocol of torch's legacy format")
    pickles.read(file)  # of the machine that wrote it
    storages: dict[str, Storage] = {}

    def storage(pid: Any) -> Storage:
        key, current = pickles.storage_of(pid)
        first = storages.setdefault(key, current)
        if (first.dtype, first.count) != (current.dtype, current.count) or any(part is not None for part in pid[5:]):
            raise Damaged(f"storage {key!r} in two forms")
        return first

    value = pickles.read(file, storage=storage)
    for key in pickles.read(file):
        if not isinstance(key, str) or key not in storages:
            raise Damaged(f"storage {pickles.brief(key)}, to which nothing refers")
        (count,) = struct.unpack("<q", file.read(8))
        if count != storages[key].count:
            raise Damaged(f"storage {key!r} of {count} numbers, announced as {storages[key].count}")
        storages[key].fill(file.read(count * storages[key].dtype.itemsize))
    return value


def _zipped(data: bytes) -> Any:
    """torch's zip format: `data.pkl` refers to the members `data/<key>`."""
    with archives.open_zip(io.BytesIO(data)) as archive:
        # TorchScript has its code beside the numbers, packed smaller than it is, and it is not read
        members = {info.filename: info for info in archive.infolist() if info.filename.split("/")[1:2] != ["code"]}
        if sum(info.file_size for info in members.values()) > len(data):
            raise Damaged("its parts are larger than itself")
        return _unzipped(members, lambda name: archives.read(archive, members[name], len(data)))


def _unzipped(members: Collection[str], load: Callable[[str], bytes]) -> Any:
    roots = [name.removesuffix("data.pkl") for name in members if name.rpartition("/")[2] == "data.pkl"]
    if len(roots) != 1:
        raise UserError("this zip file holds no weights that torch has saved")
    (root,) = roots
    if f"{root}byteorder" in members and load(f"{root}byteorder") != b"little":
        raise UserError("its numbers are stored with the highest byte first, which is not supported")
    storages: dict[str, Storage] = {}

    def storage(pid: Any) -> Storage:
        key, entry = pickles.storage_of(pid)
        if key not in storages:
            entry.fill(load(f"{root}data/{key}"))
            storages[key] = entry
        return storages[key]

    return pickles.read_bytes(load(f"{root}data.pkl"), storage=storage)


def _safetensors(path: pathlib.Path) -> Contents:
    """The tensors by name, float16 and bfloat16 as they are."""
    import safetensors

    with safetensors.safe_open(path, framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        return Contents(tensors, path.stat().st_size, file.metadata())


def is_array(value: Any) -> bool:
    """Whether a value of any of these files is a tensor, for `array`."""
    return isinstance(value, np.ndarray | Tensor)


def array(value: Any) -> np.ndarray:
    """The numbers of a tensor of any of these files; raises Damaged where they are not all there."""
    return value if isinstance(value, np.ndarray) else value.array()


def reader(size: int) -> Callable[[Tensor | np.ndarray], np.ndarray]:
    """Tensor -> its numbers, for the tensors of one file of so many bytes.

    It raises Damaged for one without numbers, and where a short file's tensors are far larger than itself.
    """
    bytes_left = _SHARED * size

    def numbers(tensor: Tensor | np.ndarray) -> np.ndarray:
        nonlocal bytes_left
        numbers = array(tensor)
        if not numbers.size:  # its other sizes may be anything
            raise Damaged(f"a tensor of shape {numbers.shape}, which holds no number")
        bytes_left -= numbers.nbytes
        if bytes_left < 0:
            raise Damaged("many tensors of the same numbers")
        return numbers

    return numbers
