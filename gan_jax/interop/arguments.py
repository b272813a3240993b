"""The arguments that a network was made with, as its file tells them, become fields of our models."""

from typing import Any, NamedTuple

from gan_jax.errors import UserError
from gan_jax.weights.pickles import brief


class _Number(NamedTuple):
    kind: type
    low: float
    high: float


# What a file may say: far wider than any published network, and small enough to be built.
_NUMBERS = {
    "channel_base": _Number(int, 1, 2**24),
    "channel_max": _Number(int, 1, 2**16),
    "conv_clamp": _Number(float, 0, 1e9),
    "filter_size": _Number(int, 1, 32),
    "first_cutoff": _Number(float, 1e-3, 1e4),
    "first_stopband": _Number(float, 1e-3, 1e4),
    "last_stopband": _Number(float, 1e-3, 1e4),
    "magnitude_ema_beta": _Number(float, 0, 1),
    "mapping_lr_multiplier": _Number(float, 1e-6, 1e3),
    "mbstd_group": _Number(int, 0, 2**16),
    "num_critical": _Number(int, 0, 100),
    "output_scale": _Number(float, 1e-6, 1e6),
    "upsampling": _Number(int, 1, 16),
    "w_avg_beta": _Number(float, 0, 1),
}
_NONE = {"conv_clamp": 0.0, "mbstd_group": 0}  # fields that have a number for None


def number(field: str, value: Any, name: str = "") -> int | float:
    """The value for a field, of its type. Raises UserError for one that is no number or out of the field's bounds."""
    kind, low, high = _NUMBERS[field]
    if value is None and field in _NONE:
        return _NONE[field]
    in_bounds = type(value) in (int, float) and low <= value <= high  # which NaN is not
    if not in_bounds or kind(value) != value:
        what = "whole number" if kind is int else "number"
        raise UserError(f"{name or field} is {brief(value)} in the file; expected a {what} from {low:g} to {high:g}")
    return kind(value)


def fields(kwargs: dict, names: dict[str, str], expected: dict[str, Any]) -> dict[str, int | float]:
    """Fields for arguments of known names.

    Args:
      kwargs: of the file.
      names: argument -> our field, a number.
      expected: argument -> the only value that our models have; None in the file means the same. `...`: any will do.
    Raises:
      UserError: another argument, or another value.
    """
    numbers = {}
    for key, value in kwargs.items():
        if key in names:
            numbers[names[key]] = number(names[key], value, key)
        elif key not in expected:
            name = brief(key).strip("'")
            raise UserError(f"the network was made with {name}={brief(value)}, which is not supported")
        elif value is not None and expected[key] is not ... and value != expected[key]:
            raise UserError(f"the network was made with {key}={brief(value)}; supported: {expected[key]!r}")
    return numbers


def taken(kwargs: dict, name: str) -> dict:
    """A copy of the arguments within an argument, which is taken out; {} where there are none."""
    inner = kwargs.pop(name, None)
    if inner is not None and not isinstance(inner, dict):
        raise UserError(f"{name} is {brief(inner)} in the file; expected arguments by name")
    return dict(inner or {})
