"""What every kind of data set offers to the cache and to the stream."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Source(NamedTuple):
    """A finite data set before decoding."""

    identity: dict  # JSON-able; changes whenever the content may have changed
    count: int  # number of examples
    class_names: tuple[str, ...]  # empty: no labels
    read: Callable[[int], tuple[np.ndarray, int]]  # i -> (uint8 (H, W, C), label or -1), or CorruptImageError
    place: str = ""  # where it lies, if `identity` alone could be that of other content in another place
