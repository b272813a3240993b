"""Modules by name: the files of a package of ours, and modules of the user's own by a dotted path in a config."""

import importlib
import pkgutil
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


def members(package: str, attributes: tuple[str, ...]) -> tuple[str, ...]:
    """The files of a package, by name and sorted, that define all of these."""
    folder = importlib.import_module(package).__path__
    names = sorted(file.name for file in pkgutil.iter_modules(folder))
    return tuple(name for name in names if member(package, name, attributes))


def member(package: str, name: str, attributes: tuple[str, ...]) -> ModuleType | None:
    """The file of that name in a package, which defines all of these; None where there is none such."""
    folder = importlib.import_module(package).__path__
    if name not in [file.name for file in pkgutil.iter_modules(folder)]:
        return None
    module = importlib.import_module(f"{package}.{name}")
    return module if all(hasattr(module, attribute) for attribute in attributes) else None
