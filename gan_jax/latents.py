"""Paths between latents, styles of two sources in one image, and files of styles; arrays of the host."""

import math
import os
import pathlib
from collections.abc import Callable

import numpy as np

from gan_jax import archives
from gan_jax.errors import MissingPathError, UserError, plain


def slerp(a: np.ndarray, b: np.ndarray, t: float) -> np.ndarray:
    """Spherical interpolation from a (D,) at t = 0 to b (D,) at t = 1 (Shoemake 1985); linear where parallel."""
    cosine = np.clip(np.dot(a, b) / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12), -1.0, 1.0)
    angle = math.acos(cosine)
    if math.sin(angle) < 1e-6:
        return lerp(a, b, t)
    return ((math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)).astype(np.float32)


def lerp(a: np.ndarray, b: np.ndarray, t: float) -> np.ndarray:
    """(1 - t) a + t b, float32."""
    return ((1 - t) * a + t * b).astype(np.float32)


def loop(points: np.ndarray, frames: int, between: Callable) -> np.ndarray:
    """A path through points (N, ...) and back to the first: (N * frames, ...), point i at i * frames.

    `between(a, b, t)` is `slerp` or `lerp`.
    """
    following = np.roll(points, -1, axis=0)
    steps = np.arange(frames) / frames
    return np.stack([between(a, b, t) for a, b in zip(points, following, strict=True) for t in steps])


def mix(rows: np.ndarray, columns: np.ndarray, layers: np.ndarray) -> np.ndarray:
    """Style mixing (Karras et al. 2019, section 3.1): every row's styles, with every column's in the given layers.

    Args:
      rows: (R, num_ws, S).
      columns: (C, num_ws, S).
      layers: int (L,), which styles are the column's.
    Returns:
      (R, C, num_ws, S).
    """
    is_columns = np.isin(np.arange(rows.shape[1]), layers)[:, None]
    return np.where(is_columns, columns[None], rows[:, None])


def save(path: os.PathLike | str, arrays: dict[str, np.ndarray]) -> None:
    """Writes an .npz file, whole or not at all."""
    path = pathlib.Path(path)
    part = path.with_name(f".{path.name}.part")
    with open(part, "wb") as file:
        np.savez(file, **arrays)
    os.replace(part, path)


def load(path: str, num_ws: int, w_size: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Styles from an .npz file with the array `w`, (N, num_ws, w_size) or (N, w_size) for all layers alike.

    Nothing in the file is run: pickled objects are refused.

    Returns:
      ws float32 (N, num_ws, w_size), and the file's `seeds` int64 (N,) where it has such.
    Raises:
      MissingPathError: no such file.
      UserError: no .npz file, no `w` in it, or other shapes, types or values.
    """
    arrays = _read(path)
    if "w" not in arrays:
        held = plain(", ".join(sorted(arrays))) or "nothing"
        raise UserError(f"--dlatents={path}: holds {held}; expected an array named w, as --save_dlatents writes it")
    w, seeds = arrays["w"], arrays.get("seeds")
    expected = f"expected (N, {num_ws}, {w_size}), or (N, {w_size}) for all layers alike"
    if w.dtype.kind not in "fiu":
        raise UserError(f"--dlatents={path}: w is of type {w.dtype}; expected real numbers")
    if w.ndim not in (2, 3) or w.shape[1:] not in ((num_ws, w_size), (w_size,)) or not len(w):
        raise UserError(f"--dlatents={path}: w has the shape {w.shape}; this generator {expected}")
    with np.errstate(over="ignore"):
        w = w.astype(np.float32)
    broken = int((~np.isfinite(w.reshape(len(w), -1)).all(1)).sum())
    if broken:
        raise UserError(f"--dlatents={path}: w has values that are not finite, in {broken} of {len(w)} entries")
    if w.ndim == 2:
        w = np.broadcast_to(w[:, None], (len(w), num_ws, w_size))  # a view: the file says how large it is
    return w, _seeds(path, seeds, len(w))


def _read(path: str) -> dict[str, np.ndarray | None]:
    """The arrays `w` and `seeds` of an .npz file, and None for its others."""
    if not os.path.exists(path):
        raise MissingPathError(f"--dlatents={path}: no such file; `sample --save_dlatents` writes one")
    try:
        return archives.arrays(path, ("w", "seeds"))
    except OSError as error:
        raise UserError(f"--dlatents={path}: cannot be read as an .npz file of plain arrays: {error}") from error


def _seeds(path: str, seeds: np.ndarray | None, count: int) -> np.ndarray | None:
    if seeds is None:
        return None
    if seeds.shape != (count,) or seeds.dtype.kind not in "iu" or seeds.min() < 0 or seeds.max() >= 2**32:
        raise UserError(
            f"--dlatents={path}: seeds are of type {seeds.dtype} and shape {seeds.shape}; "
            f"expected {count} whole numbers from 0 to {2**32 - 1}, one for each w"
        )
    return seeds.astype(np.int64)
