"""Where derived files live: packed data, trained judges, compiled programs. Deleting it costs time, never results."""

import os
import pathlib


def cache_dir(kind: str) -> pathlib.Path:
    """The folder for one kind of derived file, made on demand.

    Args:
      kind: sub-folder, such as `packed` or `xla`.
    Returns:
      `$GAN_JAX_CACHE_DIR/kind`, or `~/.cache/gan_jax/kind` where the variable is not set.
    Raises:
      OSError: the folder cannot be made.
    """
    root = os.environ.get("GAN_JAX_CACHE_DIR") or pathlib.Path.home() / ".cache" / "gan_jax"
    path = pathlib.Path(root) / kind
    path.mkdir(parents=True, exist_ok=True)
    return path
