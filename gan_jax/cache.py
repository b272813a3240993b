"""Where derived files live: packed data, trained judges, compiled programs. Deleting it costs time, never results."""

import atexit
import functools
import os
import pathlib
import shutil
import sys
import tempfile

from gan_jax import paths
from gan_jax.errors import UserError

VARIABLE = "GAN_JAX_CACHE_DIR"
DEFAULT = "~/.cache/gan_jax"


def cache_dir(kind: str) -> pathlib.Path:
    """The folder for one kind of derived file, made on demand.

    Args:
      kind: sub-folder, such as `packed` or `xla`.
    Returns:
      `$GAN_JAX_CACHE_DIR/kind`, or `~/.cache/gan_jax/kind` where the variable is not set. Where it cannot be written, a
      folder that this process takes along when it ends, and a line on stderr.
    Raises:
      UserError: the variable names a place on another machine.
    """
    if root := os.environ.get(VARIABLE):
        path = pathlib.Path(paths.expanded(root, VARIABLE)) / kind
    else:
        path = pathlib.Path(os.path.expanduser(DEFAULT)) / kind
    reason = _unwritable(path)
    return path if not reason else _temporary(str(path.parent), reason, kind)


def _unwritable(path: pathlib.Path) -> str:
    """Makes a folder; why nothing can be written there, or ''."""
    if str(path).startswith("~"):
        return "no folder of the user is known"
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return error.strerror or str(error)
    return "" if os.access(path, os.W_OK | os.X_OK) else "no permission"


def _temporary(root: str, reason: str, kind: str) -> pathlib.Path:
    try:
        path = _folder_of_this_process() / kind
    except OSError as error:
        raise UserError(f"the cache folder {root} cannot be written ({reason}), nor can a temporary one: set "
                        f"${VARIABLE} to a folder that can") from error
    path.mkdir(exist_ok=True)
    _warn(root)
    return path


@functools.cache  # once a process
def _folder_of_this_process() -> pathlib.Path:
    folder = tempfile.mkdtemp(prefix="gan_jax_cache-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return pathlib.Path(folder)


@functools.cache  # once a process
def _warn(root: str) -> None:
    print(f"warning: the cache folder {root} cannot be written; decoded data and compiled programs are kept for this "
          f"process alone: set ${VARIABLE} to a folder that can be written", file=sys.stderr, flush=True)
