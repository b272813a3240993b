"""Errors about settings of the data section."""

import difflib
from collections.abc import Iterable

from gan_jax.errors import UserError


def unknown(what: str, value: object, choices: Iterable[str]) -> UserError:
    """The error for a value outside a fixed set; names the nearest choice and all of them.

    Args:
      what: the setting, such as `data.crop`.
      value: what was given.
      choices: what is accepted.
    """
    choices = [str(choice) for choice in choices]
    near = difflib.get_close_matches(str(value), choices, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UserError(f"{what}={value!r} is not known.{hint} Choose one of: {', '.join(choices)}.")


def natural(what: str, value: object, *, least: int) -> int:
    """`value` as an int of at least `least`; a UserError for anything else, booleans and fractions too."""
    integral = not isinstance(value, bool) and hasattr(value, "__index__")
    if not integral or int(value) < least:
        raise UserError(f"{what}={value!r}: expected a whole number of at least {least}.")
    return int(value)
