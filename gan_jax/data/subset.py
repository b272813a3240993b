"""Small sets of a larger one: the first so many examples of each class."""

import dataclasses
import hashlib
import re
from typing import Any

import numpy as np

from gan_jax.data.readers import Live, Packed
from gan_jax.errors import UserError


def read_split(split: str) -> tuple[str, int]:
    """`train@10` as ('train', 10), ten of each class; other splits with 0, all of them."""
    match = re.fullmatch(r"(.+)@(\d+)", split)
    if "@" in split and not (match and int(match[2])):
        raise UserError(f"data.split={split!r}: expected a split, and a number of 1 or more behind its @, as in "
                        "train@10")  # fmt: skip
    return (match[1], int(match[2])) if match else (split, 0)


def of_each_class(dataset: Any, count: int) -> Any:
    """The first `count` examples of each class of a Dataset, in its own order; its name tells it by `@count`.

    Raises:
      UserError: no labels, fewer examples of a class, or labels that are not known before all is read.
    """
    labels, names = _labels(dataset), dataset.class_names
    counts = np.bincount(labels, minlength=len(names))
    if counts.min() < count:
        name = names[counts.argmin()]
        raise UserError(f"data.split={dataset.split!r}: the class {name!r} of {dataset.name!r} has {counts.min()} "
                        f"examples; expected {count} or more of each class")  # fmt: skip
    places = np.sort(np.concatenate([np.flatnonzero(labels == number)[:count] for number in range(len(names))]))
    reader = dataset.reader
    if isinstance(reader, Packed):
        fields = {name: np.ascontiguousarray(array[places]) for name, array in reader.fields.items()}
        reader = Packed(fields, len(places))
    else:
        reader = Live(reader.source, places if reader.usable is None else reader.usable[places])
    fingerprint = hashlib.sha256(f"{dataset.fingerprint} {places.tolist()}".encode()).hexdigest()
    return dataclasses.replace(
        dataset, reader=reader, size=len(places), fingerprint=fingerprint, class_counts=(count,) * len(names)
    )


def _labels(dataset: Any) -> np.ndarray:
    """The class of each example (N,), without decoding any. Raises UserError where that cannot be."""
    reader = dataset.reader
    if "label" not in dataset.spec:
        raise UserError(f"data.split={dataset.split!r}: {dataset.name!r} has no labels, of which to take some of each")
    if isinstance(reader, Packed):
        return np.asarray(reader.fields["label"])
    if reader.source.labels is None:
        raise UserError(f"data.split={dataset.split!r}: the labels of {dataset.name!r} are not known before all is "
                        "read, and the set is too large to be packed; take a smaller resolution")  # fmt: skip
    labels = np.asarray(reader.source.labels)
    return labels if reader.usable is None else labels[reader.usable]
