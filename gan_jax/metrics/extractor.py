"""What every feature extractor offers to the metrics, and how a jitted one is fed any number of images."""

import hashlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from gan_jax.errors import UserError

Apply = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class Extractor(NamedTuple):
    """A fixed network that turns images into features; all but `apply` belong to every result's protocol."""

    name: str        # as the config names it
    sha256: str      # of the weights, see `weights_sha256`
    accuracy: float  # share of held-out images that it classifies rightly; NaN where that was not measured
    resize: str      # how images reach the network's own resolution, in words
    apply: Apply     # uint8 (B, H, W, C) -> features float32 (B, D), logits float32 (B, classes)


def batched(function: Callable, *, batch: int) -> Apply:
    """Feeds a jitted function in batches of one fixed size, so that it compiles once per image shape.

    Args:
      function: uint8 (batch, H, W, C) -> tuple of arrays of `batch` rows, none of which depends on another.
      batch: images per call; the last one is filled up with zeros, whose results are thrown away.
    Returns:
      A function of uint8 (B, H, W, C) with any B, which returns the tuple as numpy arrays of B rows.
    """

    def apply(images: np.ndarray) -> tuple[np.ndarray, ...]:
        images = np.asarray(images)
        if images.dtype != np.uint8 or images.ndim != 4:
            raise UserError(f"a feature extractor was given {images.dtype} {images.shape}; "
                            "it expects uint8 (B, H, W, C).")
        rows = []
        for start in range(0, max(len(images), 1), batch):
            part = images[start:start + batch]
            filled = np.concatenate([part, np.zeros((batch - len(part), *images.shape[1:]), np.uint8)])
            rows.append([np.asarray(out)[:len(part)] for out in function(filled)])
        return tuple(np.concatenate(column) for column in zip(*rows, strict=True))

    return apply


def weights_sha256(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of named arrays: names, types, shapes and little-endian bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
