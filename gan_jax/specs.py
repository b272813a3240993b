"""Named fields: what an example of the data holds, and what games, samples and evaluation call it."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from gan_jax.errors import UserError

DTYPES = {  # kind -> type of its arrays on the host
    "image": np.uint8, "video": np.uint8, "mask": np.uint8, "points": np.float32, "label": np.int32, "tokens": np.int32,
}  # fmt: skip
KINDS = tuple(DTYPES)


class Field(NamedTuple):
    """One array of an example."""

    kind: str  # see KINDS
    shape: tuple[int, ...]  # of one example: image (H, W, C), video (T, H, W, C), points (D,), label ()
    classes: int = 0  # of a label, or the vocabulary of tokens

    @property
    def dtype(self) -> np.dtype:
        """Of its arrays on the host."""
        return np.dtype(DTYPES[self.kind])

    @property
    def nbytes(self) -> int:
        """Bytes of one example."""
        return math.prod(self.shape) * self.dtype.itemsize


Spec = dict[str, Field]  # by name, in the order of the data


def labelled(shape: tuple[int, ...], classes: int = 0) -> Spec:
    """`image` of this shape, points where it has one axis, and `label` where there are classes."""
    spec = {"image": Field("image" if len(shape) == 3 else "points", tuple(shape))}
    return spec | ({"label": Field("label", (), classes)} if classes else {})


def paired(source: tuple[int, ...], image: tuple[int, ...], classes: int = 0) -> Spec:
    """`image`, the `source` that it is to be made of, and `label` where there are classes."""
    (name, field), *label = labelled(image, classes).items()
    return {name: field, "source": Field("image", tuple(source)), **dict(label)}


def films(shape: tuple[int, ...], classes: int = 0) -> Spec:
    """`video` of the shape (T, H, W, C), and `label` where there are classes."""
    spec = {"video": Field("video", tuple(shape))}
    return spec | ({"label": Field("label", (), classes)} if classes else {})


def classes(spec: Mapping[str, Field], name: str = "label") -> int:
    """Number of classes of a label; 0 where the data has no such field, or nobody reads it."""
    return spec[name].classes if name in spec else 0


def chosen(spec: Mapping[str, Field], names: tuple[str, ...], data: str) -> Spec:
    """The fields of these names. Raises UserError where the data, of that name, lacks one."""
    for name in names:
        if name not in spec:
            raise UserError(f"the game reads the field {name!r}, and the data {data!r} has {', '.join(spec)} alone")
    return {name: spec[name] for name in names}


def check_classes(spec: Mapping[str, Field], dataset, reader: str, *, every: bool) -> None:
    """Raises UserError where the labels that `reader` reads are of one class, or one of their classes has no example.

    Args:
      spec: of the fields that are read.
      dataset: `class_counts` of its field `label`, where they are known; `class_names`, `name`, `split`.
      reader: for the message.
      every: whether each class must have an example.
    """
    for name, field in spec.items():
        if field.kind == "label" and field.classes < 2:
            raise UserError(
                f"{reader} reads the field {name!r}, and all images of {dataset.name!r} are of one class: give data "
                "with two classes or more, or an experiment without labels"
            )
    counts = getattr(dataset, "class_counts", ())  # a set of parts has none of its own
    if every and "label" in spec and 0 in counts:
        raise UserError(
            f"{reader} reads the field 'label', and the class {dataset.class_names[counts.index(0)]!r} of "
            f"{dataset.name!r} has no example in the split {dataset.split!r}: add some, or take it out of the labels"
        )


def to_json(spec: Mapping[str, Field]) -> dict:
    """Plain values, for `data.json`."""
    return {name: field._asdict() for name, field in spec.items()}


def from_json(value: dict) -> Spec:
    """A Spec of plain values; those of runs before fields had names were a shape and a number of classes.

    Raises:
      KeyError, TypeError, ValueError: it is neither.
    """
    if "num_classes" in value:
        return labelled(tuple(value["shape"]), value["num_classes"])
    spec = {name: Field(field["kind"], tuple(field["shape"]), field["classes"]) for name, field in value.items()}
    if not spec or any(field.kind not in KINDS for field in spec.values()):
        raise ValueError(f"no fields of known kinds: {value}")
    return spec
