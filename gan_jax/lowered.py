"""Lowered programs kept on disk: a second start of the same run on the same code does not trace its networks again.

What is kept is StableHLO, made by `jax.export`; the compiled form of it lies in JAX's own compilation cache. Both
starts go the same way, over the kept form, so that they play the very same program.
"""

import contextlib
import functools
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
import numpy as np

from gan_jax import cache


def keep_compiled() -> None:
    """A folder of compiled programs shared by all runs, unless the user has set one; see the top."""
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(cache.cache_dir("xla")))
        if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:  # a first save compiles many small programs
            jax.config.update("jax_persistent_cache_min_compile_time_secs", KEPT_SECONDS)


def compile_ahead(function: Callable, arguments: tuple, *, key: str, donate: int = 0) -> Callable:
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

    exported = _kept_form(of_leaves, leaves, key) if key else None

    def program(*leaves):
        return of_leaves(*leaves) if exported is None else exported.call(*leaves)

    program.__name__ = function.__name__  # a profile shows it
    count = sum(len(jax.tree.leaves(argument)) for argument in arguments[:donate])
    compiled = jax.jit(program, donate_argnums=tuple(range(count))).lower(*leaves).compile()

    def call(*arguments):
        first, rest = compiled(*jax.tree.leaves(arguments))
        return jax.tree.unflatten(successor, first), rest

    call.compiled, call.seconds = compiled, time.monotonic() - began
    return call


def _kept_form(of_leaves: Callable, leaves: list, key: str):
    """The lowered form, from disk or made now; None where a program cannot be kept, as with callbacks to the host."""
    exported = _read(key)
    if exported is None:
        try:
            exported = jax.export.export(jax.jit(of_leaves))(*leaves)
            data = exported.serialize()
        except (NotImplementedError, ValueError):
            return None
        _write(key, data)
    return exported


def _path(key: str) -> pathlib.Path:
    return cache.cache_dir("programs") / f"{key}.stablehlo"


def _read(key: str):
    """The kept form, or None where there is none, or none that is whole and that this JAX can read."""
    with contextlib.suppress(Exception):  # a file cut short, or of a JAX that wrote otherwise: it is made anew
        path = _path(key)
        data = path.read_bytes()
        if data[:_DIGEST] == hashlib.sha256(data[_DIGEST:]).digest():
            os.utime(path)
            return jax.export.deserialize(bytearray(data[_DIGEST:]))
    return None


def _write(key: str, data: bytes) -> None:
    """Keeps it behind its digest, where the disk takes it; another process may be writing the same."""
    with contextlib.suppress(OSError):
        path = _path(key)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            part.write_bytes(hashlib.sha256(data).digest() + data)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
        by_use = sorted(path.parent.glob("*.stablehlo"), key=lambda file: file.stat().st_mtime)
        for file in by_use[:-MOST_FILES]:
            file.unlink(missing_ok=True)


def key_of(*parts: Any, modules: Iterable[str]) -> str:
    """A name for what is lowered from these parts by the code of these modules, on these devices, by this JAX.

    Args:
      parts: functions, plain values, or trees of ShapeDtypeStruct, whose shardings count.
      modules: names of modules or packages; every loaded module of them counts by its source and as it is now, patched
        ones too.
    """
    import flax
    import jaxlib
    import optax

    devices, config = jax.devices(), jax.config
    about = {
        "versions": [m.__version__ for m in (jax, jaxlib, flax, optax)],
        "devices": [devices[0].platform, devices[0].device_kind, len(devices), jax.process_count()],
        "settings": [str(getattr(config, name)) for name in _SETTINGS],
    }
    sha = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for part in parts:
        _add_part(sha, part)
    for name in sorted(sys.modules):
        if any(name == module or name.startswith(module + ".") for module in modules):
            sha.update(name.encode())
            _add_module(sha, sys.modules[name])
    return sha.hexdigest()


_DIGEST = hashlib.sha256().digest_size
KEPT_SECONDS = 0.02  # programs that take the compiler longer are kept for the next process
MOST_FILES = 512  # that are kept; the least used go first
_SETTINGS = ("jax_enable_x64", "jax_default_matmul_precision", "jax_threefry_partitionable", "jax_default_prng_impl",
             "jax_numpy_dtype_promotion")  # fmt: skip


def _add_part(sha, part: Any) -> None:
    leaves = jax.tree_util.tree_leaves_with_path(part)
    if all(isinstance(leaf, jax.ShapeDtypeStruct) for _, leaf in leaves):
        for path, x in leaves:
            devices = sorted(device.id for device in x.sharding.device_set) if x.sharding else ""
            sha.update(f"{jax.tree_util.keystr(path)} {x.shape} {x.dtype} {x.sharding} {devices}".encode())
    else:
        _add_value(sha, part)


def _add_module(sha, module: types.ModuleType) -> None:
    """Adds a module's source, and its functions, classes and plain values as they are now, to a hash."""
    with contextlib.suppress(OSError, TypeError, AttributeError):  # made in memory
        sha.update(pathlib.Path(module.__file__).read_bytes())
    for name, value in sorted(vars(module).items()):
        if name.startswith("__"):
            continue
        sha.update(name.encode())
        if isinstance(value, type) and value.__module__ == module.__name__:
            for member, content in sorted(vars(value).items()):
                if member != "__doc__":  # a dataclass's own tells where its defaults lie in memory
                    sha.update(member.encode())
                    _add_value(sha, content)
        else:
            _add_value(sha, value)


def _add_value(sha, value: Any, depth: int = 0) -> None:
    """Adds what a value says to a hash, in the same words in every process; of other objects their type."""
    deeper = depth + 1
    if deeper > 8:  # functions that hold each other
        return
    for wrapped in ("__wrapped__", "__func__", "fget", "fun"):  # jitted functions, methods, properties, custom_vjp
        value = getattr(value, wrapped, value)
    if isinstance(value, functools.partial):
        _add_value(sha, (value.func, value.args, value.keywords), deeper)
    elif isinstance(value, types.FunctionType):
        _add_code(sha, value.__code__)
        cells = [cell.cell_contents for cell in value.__closure__ or () if _filled(cell)]
        _add_value(sha, (value.__defaults__, value.__kwdefaults__, cells), deeper)
    elif isinstance(value, dict):
        for key, content in value.items():
            sha.update(repr(key).encode() if isinstance(key, str) else type(key).__name__.encode())
            _add_value(sha, content, deeper)
    elif isinstance(value, tuple | list):
        sha.update(f"{type(value).__name__}{len(value)}".encode())
        for content in value:
            _add_value(sha, content, deeper)
    elif isinstance(value, frozenset | set):
        sha.update(",".join(sorted(map(repr, value))).encode())
    elif isinstance(value, np.ndarray):
        sha.update(f"{value.shape}{value.dtype}".encode() + value.tobytes())
    else:
        plain = value is None or isinstance(value, str | int | float | complex | bool | bytes | np.generic)
        sha.update((repr(value) if plain else type(value).__name__).encode())


def _filled(cell) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # a function that refers to itself, while it is made
        return False


def _add_code(sha, code: types.CodeType) -> None:
    sha.update(code.co_code)
    sha.update(" ".join((*code.co_names, *code.co_varnames)).encode())
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            _add_code(sha, constant)
        else:
            _add_value(sha, constant)
