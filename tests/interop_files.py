"""Files as torch writes them and pickles as NVIDIA's, put together opcode by opcode: no torch, no class of theirs."""

import io
import struct
import zipfile
from typing import Any, NamedTuple

import numpy as np

TEXT = "raise SystemExit('the text of a class is not to be run')\n"  # in place of the source of NVIDIA's classes


class Global(NamedTuple):
    """A name that the reader is to look up."""

    module: str
    name: str


class Call(NamedTuple):
    """What the reader is to call, and the state that it is to set on the result."""

    function: Any
    args: tuple
    state: Any = None
    items: dict | None = None


class Reference(NamedTuple):
    """A persistent id."""

    pid: Any


def opcodes(value: Any) -> bytes:
    """Opcodes of protocol 3 that leave the value on the reader's stack."""

    def each(values) -> bytes:
        return b"(" + b"".join(map(opcodes, values))

    if isinstance(value, Global):
        return b"c%s\n%s\n" % (value.module.encode(), value.name.encode())
    if isinstance(value, Call):
        code = opcodes(value.function) + opcodes(value.args) + b"R"
        if value.items is not None:
            code += each(part for item in value.items.items() for part in item) + b"u"
        return code if value.state is None else code + opcodes(value.state) + b"b"
    if isinstance(value, Reference):
        return opcodes(value.pid) + b"Q"
    if value is None or isinstance(value, bool):
        return {None: b"N", True: b"\x88", False: b"\x89"}[value]
    if isinstance(value, int):
        data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        return b"\x8a" + bytes([len(data)]) + data
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, str | bytes):
        data = value.encode() if isinstance(value, str) else value
        return (b"X" if isinstance(value, str) else b"B") + struct.pack("<I", len(data)) + data
    if isinstance(value, dict):
        return b"}" + each(part for item in value.items() for part in item) + b"u"
    assert isinstance(value, list | tuple), type(value)
    return b"]" + each(value) + b"e" if isinstance(value, list) else each(value) + b"t"


def pickled(value: Any) -> bytes:
    """A pickle."""
    return b"\x80\x03" + opcodes(value) + b"."


def _reference(array: np.ndarray, key: str, *rest) -> Reference:
    return Reference(("storage", Global("torch", "FloatStorage"), key, "cpu", array.size, *rest))


def _tensor(array: np.ndarray, storage: Any) -> Call:
    strides = tuple(n // array.itemsize for n in np.ascontiguousarray(array).strides) if array.ndim else ()
    function = Global("torch._utils", "_rebuild_tensor_v2")
    return Call(function, (storage, 0, array.shape, strides, False, Call(Global("collections", "OrderedDict"), ())))


def _data(array: np.ndarray) -> bytes:
    return np.ascontiguousarray(array, np.float32).tobytes()


def legacy(value: Any, arrays: dict[str, np.ndarray]) -> bytes:
    """torch's older format: the value refers to the arrays by key."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    head = b"".join(map(pickled, (0x1950A86A20F9469CFC6C, 1001, system, value, list(arrays))))
    return head + b"".join(struct.pack("<q", array.size) + _data(array) for array in arrays.values())


def legacy_state_dict(arrays: dict[str, np.ndarray]) -> bytes:
    """A state dict in torch's older format."""
    items = {name: _tensor(array, _reference(array, name, None)) for name, array in arrays.items()}
    return legacy(Call(Global("collections", "OrderedDict"), (), {"_metadata": {}}, items), arrays)


def zipped(value: Any, arrays: dict[str, np.ndarray]) -> bytes:
    """torch's zip format."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickled(value))
        for key, array in arrays.items():
            archive.writestr(f"archive/data/{key}", _data(array))
        archive.writestr("archive/version", "3\n")
    return file.getvalue()


def zipped_state_dict(arrays: dict[str, np.ndarray]) -> bytes:
    """A state dict in torch's zip format."""
    items = {name: _tensor(array, _reference(array, name)) for name, array in arrays.items()}
    return zipped(Call(Global("collections", "OrderedDict"), (), None, items), arrays)


def tensor(array: np.ndarray) -> Call:
    """A tensor in a plain pickle: its storage is a legacy file of its own."""
    data = legacy(_reference(array, "0", None), {"0": array})
    return _tensor(array, Call(Global("torch.storage", "_load_from_bytes"), (data,)))


def _network(name: str, state: dict) -> Call:
    meta = {"type": "class", "version": 6, "module_src": TEXT, "class_name": name, "state": state}
    meta = Call(Global("dnnlib.util", "EasyDict"), (), None, meta)
    return Call(Global("torch_utils.persistence", "_reconstruct_persistent_obj"), (meta,))


def network(name: str, arrays: dict[str, np.ndarray], kwargs: dict | None = None, buffers=(), plain=False) -> Call:
    """A network of NVIDIA's, or a plain one of torch, with its parts; `buffers` are names of no parameters."""
    own = {key: value for key, value in arrays.items() if "." not in key}
    parts: dict[str, dict] = {}
    for key, value in arrays.items():
        part, dot, rest = key.partition(".")
        if dot:
            parts.setdefault(part, {})[rest] = value
    parameter = Global("torch._utils", "_rebuild_parameter")
    state = {
        "training": False,
        "_parameters": {k: Call(parameter, (tensor(v), True, {})) for k, v in own.items() if k not in buffers},
        "_buffers": {k: tensor(v) for k, v in own.items() if k in buffers},
        "_modules": {key: network(f"Part{key}", part, None, buffers, plain) for key, part in parts.items()},
        "_forward_hooks": Call(Global("collections", "OrderedDict"), ()),
        "unused": None,
    }
    if kwargs is not None:
        state |= {"_init_args": (), "_init_kwargs": kwargs}
    if not plain or kwargs is not None:
        return _network(name, state)
    args = Global("copyreg", "_reconstructor"), (Global("R3GAN.Networks", name), Global("builtins", "object"), None)
    return Call(*args, state)
