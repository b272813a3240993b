"""Arguments of Python as the commands have them, and messages the other way round."""

import contextlib
import operator
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gan_jax import parallel, paths
from gan_jax.errors import UserError

Path = str | os.PathLike
Labels = int | str | Sequence[int | str]  # a class for all, or classes that are repeated; numbers or names
Truncation = float | tuple[float, int]  # PSI, of all layers or of latents; or PSI, CUTOFF of the first layers
Images = Path | np.ndarray  # a folder or .zip; or uint8 (N, H, W, 3), or (N, H, W, 1)

_FLAG = re.compile(r"(?<![\w/.-])--(?=[a-z])")
_PATHS = ("weights", "statistics")  # keys of config.evaluation


@contextlib.contextmanager
def spoken() -> Iterator[None]:
    """Messages name the flags of the commands; here these are arguments of the same names. Libraries stay quiet."""
    try:
        with parallel.quiet():
            yield
    except UserError as error:
        error.args = (_FLAG.sub("", str(error)).replace("the flag", "it"),)
        raise


def path(value: Path, name: str, *, optional: bool = False) -> str:
    """A path with `~` and `$NAME` expanded; only an `optional` one may be empty. Raises UserError."""
    if not isinstance(value, Path) or not (value or optional):
        raise UserError(f"{name}={value!r}: expected a path")
    return paths.expanded(os.fspath(value), name)


def names(metrics: str | Sequence[str]) -> str:
    """Names with commas between."""
    return metrics if isinstance(metrics, str) else ",".join(metrics)


def settings(values: Mapping[str, Any]) -> dict[str, str]:
    """Keys of config.evaluation as the command has them, but for those that are None."""
    values = {key: value for key, value in values.items() if value is not None}
    return {key: path(value, key) if key in _PATHS else text(value) for key, value in values.items()}


def texts(overrides: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Overrides of a config as (dotted key, text)."""
    return [(key.removeprefix("config."), text(value)) for key, value in (overrides or {}).items()]


def text(value: Any) -> str:
    """A value of a config as the command line has it."""
    if isinstance(value, list | tuple):
        return repr(tuple(value))
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)


def listed(name: str, values: Iterable | None) -> str:
    """Numbers or names with commas between; empty for None. Raises UserError for a single one, or none."""
    if values is None:
        return ""
    try:
        texts = [] if isinstance(values, str) else [str(value) for value in values]
        is_one = isinstance(values, str)
    except TypeError:  # a number, or an array of one
        is_one = True
    if is_one:
        raise UserError(f"{name}={values!r}: expected numbers in a row, such as range(8) or [5]")
    if not texts:
        raise UserError(f"{name}: expected one or more, such as range(8) or [5]")
    return ",".join(texts)


def captions(values: str | Sequence[str] | None) -> str | tuple[str, ...]:
    """A caption or the path of a file of such, or several captions; empty for None. Raises UserError for others."""
    if values is None or isinstance(values, str):
        return values or ""
    texts = tuple(values) if isinstance(values, Sequence | np.ndarray) else ()
    if not texts or not all(isinstance(text, str) for text in texts):
        raise UserError(f"captions={values!r}: expected a text, or several texts in a list")
    return tuple(map(str, texts))


def whole(name: str, value: Any, expected: str) -> int:
    """A whole number. Raises UserError, which tells what was expected."""
    try:
        return operator.index(value)
    except TypeError:
        raise UserError(f"{name}={value!r}: expected {expected}") from None
