"""Arrays of a network by their names: checked against the architecture, drawn at random, told apart by a digest."""

import hashlib
import math
from collections.abc import Mapping

import numpy as np

from gan_jax.errors import UserError

Shapes = Mapping[str, tuple[int, ...]]


def check(state: Mapping[str, np.ndarray], shapes: Shapes, what: str) -> dict[str, np.ndarray]:
    """The arrays that a network needs, as float32; others of the file are passed over.

    Args:
      state: name -> array.
      shapes: name -> shape of all that the network has.
      what: file and network, for the message.
    Raises:
      UserError: an array is missing or has another shape.
    """
    missing = [name for name in shapes if name not in state]
    if missing:
        raise UserError(
            f"{what}: {len(missing)} of {len(shapes)} arrays are missing, such as {missing[0]!r}; "
            "the file is of another network: give the one that docs/metrics_weights.md names"
        )
    for name, shape in shapes.items():
        if np.shape(state[name]) != tuple(shape):
            raise UserError(
                f"{what}: {name} has the shape {np.shape(state[name])}, expected {tuple(shape)}; "
                "the file is of another network: give the one that docs/metrics_weights.md names"
            )
    return {name: np.asarray(state[name], np.float32) for name in shapes}


def random_state(shapes: Shapes, seed: int) -> dict[str, np.ndarray]:
    """Seeded random arrays whose features neither vanish nor explode; for tests and for runs without weights.

    In the order of the names: running means 0.1 N(0, 1), running variances U(0.5, 1.5), arrays of two or more
    dimensions N(0, 2 / fan-in), other weights 1 + 0.1 N(0, 1), the rest 0.1 N(0, 1).
    """
    rng = np.random.default_rng(seed)
    return {name: _draw(rng, name, shapes[name]) for name in sorted(shapes) if not name.endswith("num_batches_tracked")}


def _draw(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    drawn = rng.standard_normal(shape)
    if len(shape) >= 2 and not name.endswith("running_mean"):
        drawn = drawn * math.sqrt(2 / math.prod(shape[1:]))
    elif name.endswith("weight"):
        drawn = 1 + 0.1 * drawn
    else:
        drawn = 0.1 * drawn
    return drawn.astype(np.float32)


def weights_sha256(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of named arrays: names, types, shapes and little-endian bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
