"""Modules of the user's own, named by a dotted path in a config."""

import importlib
import sys
from types import ModuleType

from gan_jax.errors import UserError


def import_path(name: str, key: str) -> ModuleType:
    """The module `name`, looked for where Python looks and in the current folder.

    Args:
      name: such as `my_package.my_game`.
      key: of the config, for the message.
    Raises:
      UserError: it cannot be imported; the message has the reason.
    """
    sys.path.append("")
    try:
        return importlib.import_module(name)
    except Exception as error:  # whatever the user's module raises is about that module
        raise UserError(f"{key}={name!r}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove("")
