"""The 1,797 handwritten digits that ship with scikit-learn, and which of them are held out."""

import functools
from typing import NamedTuple

import numpy as np

SIDE = 8  # pixels of a digit
LEVELS = 16  # the lightest one of scikit-learn's


class Digits(NamedTuple):
    """Digits of a split, in the order of scikit-learn."""

    images: np.ndarray  # uint8 (N, 8, 8), not to be written to
    labels: np.ndarray  # int32 (N,)


def split_indices() -> dict[str, np.ndarray]:
    """Stratified split: of the examples stably sorted by class every fifth is test. Ascending indices into
    `sklearn.datasets.load_digits`: 1,437 for `train`, 360 for `test`."""
    from sklearn.datasets import load_digits

    by_class = np.argsort(load_digits().target, kind="stable")
    test = np.arange(len(by_class)) % 5 == 0
    return {"train": np.sort(by_class[~test]), "test": np.sort(by_class[test])}


@functools.cache
def digits(split: str) -> Digits:
    """The digits of `train` or `test`, their levels spread over 0 to 255."""
    from sklearn.datasets import load_digits

    everything, indices = load_digits(), split_indices()[split]
    images = np.round(everything.images[indices] * (255 / LEVELS)).astype(np.uint8)
    images.flags.writeable = False
    return Digits(images, everything.target[indices].astype(np.int32))
