"""Reads pickles as data: tensors, containers and inert records of everything else. No code of the file ever runs.

A pickle is a program that may call whatever it can name. Here every name that it asks for is looked up in a table of
this file, which holds stand-ins alone: a name that stands for a class becomes a `Record` of its name, arguments and
state; the few functions that rebuild tensors become functions of this file that check what they are given. A name that
is not in the table is refused, and told.
"""

import io
import pickle
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from gan_jax.errors import UserError
from gan_jax.weights import opcodes
from gan_jax.weights.opcodes import Damaged

_MODULES = ("copy_reg", "copyreg"), ("__builtin__", "builtins"), ("numpy.core.multiarray", "numpy._core.multiarray")
DTYPES = {
    "Float": np.float32, "Double": np.float64, "Half": np.float16, "BFloat16": ml_dtypes.bfloat16, "Long": np.int64,
    "Int": np.int32, "Short": np.int16, "Char": np.int8, "Byte": np.uint8, "Bool": np.bool_,
}  # fmt: skip

_SHARED, _NAMES = 4, 1000  # times its length that a file may have copied; names that it may ask for

# Classes whose objects become records. They are named, never looked up: a longer list lets nothing more happen.
_RECORDS = re.compile(
    r"torch\.nn\.modules\.[a-z_]+ \w+"
    r"|(training|torch_utils|R3GAN|metrics)(\.\w+)* [A-Za-z_]\w*"
    r"|torch (device|contiguous_format|channels_last|preserve_format|strided)"
    r"|torch (float|double|half|bfloat|int|long|short|uint|bool|complex)\d*"
    r"|torch\.serialization _get_layout"
    r"|numpy (ndarray|dtype)|numpy\._core\.multiarray (_reconstruct|scalar)|builtins object"
    r"|argparse Namespace|pathlib \w*Path"
    # Of checkpoints of Lightning, which name their callbacks and settings.
    r"|(pytorch_lightning|lightning|lightning_fabric|omegaconf)(\.\w+)* [A-Za-z_]\w*"
    r"|__torch__(\.\w+)* \w+"  # of TorchScript: classes whose code lies beside the pickle, and is not read
    r"|typing \w+|collections defaultdict|builtins (bool|int|float|str|list|tuple)"
)


def brief(value: Any) -> str:
    """A value of a file for a message: in full where it is short, else its type; what it holds may be without end."""
    if isinstance(value, int) and value.bit_length() > 64:
        return f"a number of {value.bit_length()} bits"  # to write it down takes the square of that
    if isinstance(value, str | int | float | bytes | None):
        return f"{value!r:.60}"
    if isinstance(value, tuple) and len(value) < 8 and all(type(item) is int for item in value):
        return f"{value!r:.60}"
    return f"a {type(value).__name__}"


class Record:
    """What a file says of an object of some class: its name, what it was made with, its state, its items."""

    __slots__ = ("args", "state", "items")
    origin = ""  # 'module name', of the subclass that stands for it

    def __new__(cls, *args, **kwargs):
        """An empty record."""
        record = object.__new__(cls)
        record.args, record.state, record.items = args, None, []
        return record

    def __init__(self, *args, **kwargs):
        pass

    def __setstate__(self, state):
        self.state = state

    def __setitem__(self, key, value):
        self.items.append((key, value))

    def __repr__(self) -> str:
        return f"<{self.origin or 'record'}>"


class PlainDict(dict):
    """Any dict-like class; what else its objects carry is dropped.

    It is made empty, or of a list of pairs, as Python 2 has pickled an OrderedDict.
    """

    __slots__ = ()
    spend: Callable[[tuple], None] = staticmethod(lambda args: None)  # of a reader's own subclass, see `Reader`

    def __init__(self, pairs=()):
        self.spend((pairs,))
        if not isinstance(pairs, list | tuple) or not all(map(_is_pair, pairs)):
            raise Damaged("a dict of something else than names and their values")
        super().__init__(map(tuple, pairs))

    def __setstate__(self, state):
        pass


class Module(NamedTuple):
    """A network that a file holds: the class's own name, and its attributes."""

    name: str
    state: dict[str, Any]


class Storage:
    """A stretch of numbers, which may come after what refers to it."""

    __slots__ = ("dtype", "count", "data")

    def __init__(self, dtype: np.dtype, count: int):
        self.dtype, self.count = np.dtype(dtype), count
        self.data: bytes | None = None

    def __setstate__(self, state):
        raise Damaged("a storage with a state")

    def fill(self, data) -> None:
        """Takes the bytes; raises Damaged where they are not as many as promised."""
        if len(data) != self.count * self.dtype.itemsize:
            raise Damaged(f"{len(data)} bytes for {self.count} numbers of {self.dtype}")
        self.data = data


class Tensor(NamedTuple):
    """A view of a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self) -> np.ndarray:
        """A copy of its numbers; raises Damaged where they are not all within the storage."""
        storage = self.storage
        if storage.data is None:
            raise Damaged("a tensor without its numbers")
        count, last = 1, self.offset
        for n, step in zip(self.shape, self.strides, strict=True):
            count, last = count * n, last + max(n - 1, 0) * step
        if count and (last >= storage.count or count > storage.count):
            raise Damaged(f"a tensor of shape {self.shape} that goes beyond its {storage.count} numbers")
        if not count:
            return np.zeros(self.shape, storage.dtype)
        size = storage.dtype.itemsize
        steps = tuple(step * size for step in self.strides)
        return np.ndarray(self.shape, storage.dtype, storage.data, self.offset * size, steps).copy()


class _Call:
    """A function of this file for the pickle to call; it cannot be changed."""

    __slots__ = ("_function", "_spend")

    def __init__(self, function: Callable, spend: Callable[[tuple], None]):
        self._function, self._spend = function, spend

    def __call__(self, *args):
        self._spend(args)
        return self._function(*args)

    def __setstate__(self, state):
        raise Damaged("a function with a state")


def _naturals(values: Any) -> tuple[int, ...]:
    if not isinstance(values, tuple | list) or not all(type(n) is int and 0 <= n < 2**48 for n in values):
        raise Damaged(f"{brief(values)} where sizes were expected")
    return tuple(values)


def _tensor(storage, offset, shape, strides, *rest) -> Tensor:
    if not isinstance(storage, Storage):
        raise Damaged("a tensor without a storage")
    (offset,), shape, strides = _naturals([offset]), _naturals(shape), _naturals(strides)
    if len(shape) != len(strides) or len(shape) > 32:
        raise Damaged(f"a tensor of shape {shape[:8]} with {len(strides)} strides")
    return Tensor(storage, offset, shape, strides)


def _parameter(tensor, *rest) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise Damaged("a parameter that is no tensor")
    return tensor


def _module(meta, *rest) -> Module:
    """NVIDIA's networks carry the text of their class beside their attributes; the text is not looked at."""
    if not isinstance(meta, dict) or not isinstance(meta.get("state"), dict):
        raise Damaged("a network without its attributes")
    return Module(brief(meta.get("class_name")), meta["state"])


def _object(cls, base=None, state=None) -> Record | PlainDict:
    if not isinstance(cls, type) or not issubclass(cls, Record | PlainDict):
        raise Damaged("an object without a class")
    return cls.__new__(cls)


def _is_key(value: Any) -> bool:
    return isinstance(value, str) or (type(value) is int and value.bit_length() <= 64)


def _is_pair(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and _is_key(value[0])


def _set(values=()) -> set:
    if not isinstance(values, list | tuple | set) or not all(map(_is_key, values)):
        raise Damaged("a set of something else than names")
    return set(values)


def _bytes(text="", encoding="latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise Damaged(f"bytes encoded as {brief(encoding)}")
    return text.encode("latin1")


def _size(values=()) -> tuple[int, ...]:
    return _naturals(values)


_FUNCTIONS = {
    "torch._utils _rebuild_tensor": _tensor,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_parameter": _parameter,
    "torch._utils _rebuild_parameter_with_state": _parameter,
    "torch_utils.persistence _reconstruct_persistent_obj": _module,
    "copyreg _reconstructor": _object,
    "builtins set": _set,
    "builtins frozenset": _set,
    "_codecs encode": _bytes,
    "torch Size": _size,
}
_DICTS = ("collections OrderedDict", "dnnlib.util EasyDict", "builtins dict")


class Reader(pickle.Unpickler):
    """Unpickles from a file object, see the module.

    Args:
      file: binary, at the start of a pickle that `opcodes.check` has passed.
      size: of the pickle, bytes.
      storage: (what the file says of a storage) -> Storage; None where there may be none.
      nested: bytes of a saved storage -> Storage; None where there may be none.
    """

    def __init__(self, file, size: int, *, storage: Callable | None = None, nested: Callable | None = None):
        super().__init__(file, encoding="latin1")
        self._budget = _SHARED * size
        self._storage, self._nested = storage, nested
        self._classes: dict[str, Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name; raises UserError for one that is not known."""
        for old, new in _MODULES:
            module = new if module == old else module
        key = f"{module} {name}"
        if key not in self._classes:
            if len(self._classes) == _NAMES:
                raise Damaged(f"more than {_NAMES} names")
            self._classes[key] = self._stand_in(key)
        return self._classes[key]

    def _spend(self, args: tuple) -> None:
        """Counts what functions are given to copy, which a short file may give again and again."""
        self._budget -= sum(len(arg) for arg in args if isinstance(arg, bytes | str | list | tuple | set | dict))
        if self._budget < 0:
            raise Damaged("the same values given again and again")

    def _stand_in(self, key: str) -> Any:
        if key in _FUNCTIONS:
            return _Call(_FUNCTIONS[key], self._spend)
        if key in _DICTS:
            return type("PlainDict", (PlainDict,), {"__slots__": (), "spend": staticmethod(self._spend)})
        if key == "torch.storage _load_from_bytes" and self._nested:
            return _Call(self._nested, self._spend)
        storage = re.fullmatch(r"torch(?:\.storage)? (\w+)Storage", key)
        if (storage and storage[1] in DTYPES) or _RECORDS.fullmatch(key):
            return type("Record", (Record,), {"__slots__": (), "origin": key})
        dotted = key.replace(" ", ".")
        if dotted.startswith("dnnlib.tflib."):
            raise UserError(f"it asks for {dotted}: a network of TensorFlow; take its conversion to PyTorch")
        raise UserError(
            f"it asks for {dotted:.200}, which is no part of a network's weights; nothing of the file was run. "
            "Do not open it with other programs unless you trust it"
        )

    def persistent_load(self, pid: Any) -> Storage:
        """The storage that the file refers to."""
        if self._storage is None:
            raise Damaged("a reference to something outside of the file")
        return self._storage(pid)


def storage_of(pid: Any) -> tuple[str, Storage]:
    """(key, empty Storage) of torch's reference ('storage', type, key, device, count, ...)."""
    if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage" or not isinstance(pid[2], str):
        raise Damaged(f"a reference {brief(pid)}")
    kind = getattr(pid[1], "origin", "").rpartition(" ")[2].removesuffix("Storage")
    if kind not in DTYPES:
        raise Damaged(f"a storage of {brief(pid[1])}")
    (count,) = _naturals([pid[4]])
    return pid[2], Storage(DTYPES[kind], count)


def read(file, **options) -> Any:
    """One pickle from a binary file, which is left behind it. Options are `Reader`'s.

    Raises:
      UserError: a name that is not known.
      Damaged: no pickle, or a broken one.
    """
    start = file.tell()
    try:
        opcodes.check(file)
        size = file.tell() - start
        file.seek(start)
        return Reader(file, size, **options).load()
    except (UserError, Damaged):
        raise
    except Exception as error:  # whatever a broken pickle makes of its reader
        raise Damaged(f"{type(error).__name__}: {str(error)[:200]}") from error


def read_bytes(data: bytes, **options) -> Any:
    """`read` of bytes."""
    return read(io.BytesIO(data), **options)
