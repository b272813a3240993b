"""What every kind of data set offers to the cache and to the stream."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gan_jax.specs import Spec

Example = dict[str, np.ndarray]  # a field's name -> its array, of the field's shape and type


class Source(NamedTuple):
    """A finite data set before decoding."""

    identity: dict  # JSON-able; changes whenever the content may have changed
    count: int  # number of examples
    spec: Spec  # the fields of an example
    class_names: tuple[str, ...]  # of the field `label`; empty where there is none
    read: Callable[[int], Example]  # i -> the example, or CorruptImageError
    place: str = ""  # where it lies, if `identity` alone could be that of other content in another place
    notes: tuple[str, ...] = ()  # what a person should know of it before it is used, a line each
    digest: Callable[[], str] | None = None  # SHA-256 (hex) of its files, read whole, where `identity` has their times
    labels: tuple[int, ...] | None = None  # (count,), where they are known without reading an example
    words: tuple[str, ...] = ()  # what each token of the field `caption` stands for; empty where there is none
