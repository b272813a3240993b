"""Lowered programs kept on disk: a second start of the same run on the same code does not trace its networks again.

What is kept is StableHLO, made by `jax.export`; the compiled form of it lies in JAX's own compilation cache. Both
starts go the same way, over the kept form, so that they play the very same program.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import sys
import time
import types
from collections.abc import Callable, Iterable
from typing import Any

import jax

from gan_jax import cache


def compile(function: Callable, arguments: tuple, *, key: str, donate: int = 0) -> Callable:
    """Compiles a jitted function ahead of its first call.

    Args:
      function: jitted, (first, ...) -> (first's successor, dict of arrays or a tuple of such).
      arguments: pytrees of ShapeDtypeStruct with shardings.
      key: names the lowered form on disk, see `key_of`; empty to keep nothing.
      donate: how many leading arguments are donated.
    Returns:
      The compiled function of arguments of that form; it has the attributes `compiled`, JAX's own, and `seconds`.
    """
    began = time.monotonic()
    leaves, structure = jax.tree.flatten(arguments)
    successor = jax.tree.structure(arguments[0])

    def of_leaves(*leaves):
        first, rest = function(*jax.tree.unflatten(structure, leaves))
        return jax.tree.leaves(first), rest

    exported = _read(key)
    if exported is None:
        exported = jax.export.export(jax.jit(of_leaves))(*leaves)
        _write(key, exported)
    count = sum(len(jax.tree.leaves(argument)) for argument in arguments[:donate])
    of_leaves.__name__ = function.__name__  # a profile shows it
    compiled = jax.jit(exported.call, donate_argnums=tuple(range(count))).lower(*leaves).compile()

    def call(*arguments):
        first, rest = compiled(*jax.tree.leaves(arguments))
        return jax.tree.unflatten(successor, first), rest

    call.compiled, call.seconds = compiled, time.monotonic() - began
    return call


def _path(key: str) -> pathlib.Path:
    return cache.cache_dir("programs") / f"{key}.stablehlo"


def _read(key: str):
    """The kept form, or None where there is none that this JAX can read."""
    if not key:
        return None
    with contextlib.suppress(Exception):  # a file cut short, or of a JAX that wrote otherwise: it is made anew
        return jax.export.deserialize(bytearray(_path(key).read_bytes()))
    return None


def _write(key: str, exported) -> None:
    """Keeps it, where the disk takes it; another process may be writing the same."""
    if not key:
        return
    with contextlib.suppress(OSError):
        path = _path(key)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        part.write_bytes(exported.serialize())
        os.replace(part, path)


def key_of(*parts: Any, modules: Iterable[str]) -> str:
    """A name for what is lowered from these parts by the code of these modules, on these devices, by this JAX.

    Args:
      parts: JSON values, or trees of ShapeDtypeStruct.
      modules: names of modules or packages; every loaded module of them counts as it is now, patched ones too.
    """
    import flax
    import jaxlib
    import optax

    devices = jax.devices()
    about = {
        "versions": [m.__version__ for m in (jax, jaxlib, flax, optax)],
        "devices": [devices[0].platform, devices[0].device_kind, len(devices), jax.process_count()],
        "settings": [str(jax.config.jax_enable_x64), str(jax.config.jax_default_matmul_precision)],
        "parts": [_described(part) for part in parts],
    }
    sha = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name in sorted(sys.modules):
        if any(name == module or name.startswith(module + ".") for module in modules):
            sha.update(name.encode())
            _add_module(sha, sys.modules[name])
    return sha.hexdigest()


def _described(part: Any) -> Any:
    if isinstance(part, str | int | float | bool | None):
        return part
    leaves = jax.tree_util.tree_leaves_with_path(part)
    return [f"{jax.tree_util.keystr(path)} {getattr(x, 'shape', x)} {getattr(x, 'dtype', '')}" for path, x in leaves]


def _add_module(sha, module: types.ModuleType) -> None:
    """Adds a module's functions, classes and plain constants to a hash."""
    for name, value in sorted(vars(module).items()):
        if name.startswith("__"):
            continue
        sha.update(name.encode())
        if isinstance(value, type) and value.__module__ == module.__name__:
            for member, content in sorted(vars(value).items()):
                sha.update(member.encode())
                _add_value(sha, content)
        else:
            _add_value(sha, value)


def _add_value(sha, value: Any) -> None:
    while not hasattr(value, "__code__") and hasattr(value, "__wrapped__"):
        value = value.__wrapped__
    for wrapped in ("__func__", "fget", "fun", "func"):  # methods, properties, custom_vjp, partial
        value = getattr(value, wrapped, value)
    if hasattr(value, "__code__"):
        _add_code(sha, value.__code__)
        for default in (*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()):
            _add_value(sha, default)
    elif isinstance(value, str | int | float | bool | tuple | bytes | dict | frozenset | None):
        sha.update(_plain(value).encode())


def _add_code(sha, code: types.CodeType) -> None:
    sha.update(code.co_code)
    sha.update(" ".join((*code.co_names, *code.co_varnames)).encode())
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            _add_code(sha, constant)
        else:
            sha.update(_plain(constant).encode())


def _plain(value: Any) -> str:
    """A text of a value that is the same in every process; of objects, their type."""
    if isinstance(value, dict):
        return "{" + ",".join(sorted(f"{_plain(k)}:{_plain(v)}" for k, v in value.items())) + "}"
    if isinstance(value, tuple | list):
        return "(" + ",".join(map(_plain, value)) + ")"
    if isinstance(value, frozenset | set):
        return "<" + ",".join(sorted(map(_plain, value))) + ">"
    plain = value is None or isinstance(value, str | int | float | complex | bool | bytes)
    return repr(value) if plain else type(value).__name__
