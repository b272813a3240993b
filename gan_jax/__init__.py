"""gan_jax: train, evaluate and use generative adversarial networks in JAX.

The names of `__all__` are the Python interface, see `gan_jax.api`. They are loaded when they are first used, so that
`import gan_jax` imports neither JAX nor numpy.
"""

import importlib
import sys
import types
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for editors
    from gan_jax.api import TrainedRun, fid, load_config, measure, open_run, train
    from gan_jax.errors import DivergedError, MissingPathError, UserError

__version__ = "0.2.0"
__all__ = ["DivergedError", "MissingPathError", "TrainedRun", "UserError", "fid", "load_config", "measure", "open_run",
           "train"]  # fmt: skip


class _Package(types.ModuleType):
    """Python sets each module that is imported as an attribute of its package; `train` stays the function here."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in __all__ and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    room = "errors" if name.endswith("Error") else "api"
    value = getattr(importlib.import_module(f"{__name__}.{room}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
