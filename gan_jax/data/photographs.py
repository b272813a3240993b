"""Photographs and faces that ship with scikit-image and scikit-learn: real pictures without a download.

`photographs:NAME+NAME` are squares cut out of these, whose class is the photograph. The lowest fifth of each one's rows
is the test split; no square of the training split touches it. `faces` are the 100 faces of `lfw_subset`, 25 pixels
wide and grey, from Labeled Faces in the Wild (Huang et al. 2007); every fifth is a test face.
"""

import functools
import hashlib
from collections.abc import Callable

import numpy as np

from gan_jax.data.checks import unknown
from gan_jax.data.fit import Fit, fit_image
from gan_jax.data.source import Example, Source
from gan_jax.errors import UserError
from gan_jax.specs import labelled

OF_SCIKIT_IMAGE = ("astronaut", "brick", "camera", "chelsea", "coffee", "grass", "gravel", "hubble_deep_field",
                   "immunohistochemistry", "moon", "retina", "rocket")  # fmt: skip
OF_SCIKIT_LEARN = ("china", "flower")
NAMES = (*OF_SCIKIT_IMAGE, *OF_SCIKIT_LEARN)
SPLITS = ("train", "test", "all")
HELD_OUT = 5  # every fifth face, and a fifth of a photograph's rows
FACES = 100  # the first ones of `lfw_subset`; the others are no faces


@functools.cache
def photograph(name: str) -> np.ndarray:
    """One of `NAMES`, uint8 (H, W, 3), grey ones with equal channels; not to be written to."""
    if name in OF_SCIKIT_LEARN:
        from sklearn.datasets import load_sample_image

        pixels = load_sample_image(f"{name}.jpg")
    else:
        from skimage import data

        pixels = getattr(data, name)()
    pixels = np.repeat(pixels[..., None], 3, 2) if pixels.ndim == 2 else pixels[..., :3]
    pixels = np.array(pixels, np.uint8)
    pixels.flags.writeable = False
    return pixels


def open_photographs(names: str, *, split: str, fit: Fit) -> Source:
    """`photographs:NAME+NAME`: squares of `fit.crop_size` pixels, else of the resolution.

    They are cut from the top left on, half a side apart in training and else a whole one.

    Raises:
      UserError: an unknown photograph or split, or one of fewer rows than a square.
    """
    chosen = tuple(names.split("+"))
    for name in chosen:
        if name not in NAMES:
            raise unknown("data.name", f"photographs:{name}", [f"photographs:{one}" for one in NAMES])
    _check_split(split)
    sides = (fit.crop_size, fit.crop_size) if fit.crop_size else (fit.height, fit.width)
    corners = [
        (label, top, left)
        for label, name in enumerate(chosen) for top, left in _corners(name, photograph(name).shape, sides, split)
    ]  # fmt: skip

    def read(index: int) -> Example:
        label, top, left = corners[index]
        square = photograph(chosen[label])[top : top + sides[0], left : left + sides[1]]
        return {"image": _fitted(square, fit._replace(crop_size=0)), "label": np.int32(label)}

    return Source(
        identity={"kind": "photographs", "names": list(chosen), "split": split, "sha256": _digest(chosen, photograph),
                  **fit._asdict()},
        count=len(corners),
        spec=labelled(fit.shape, len(chosen)),
        class_names=chosen,
        read=read,
        labels=tuple(label for label, _, _ in corners),
    )  # fmt: skip


def _corners(name: str, shape: tuple[int, ...], sides: tuple[int, int], split: str) -> list[tuple[int, int]]:
    """The top left corners of a photograph's squares. Raises UserError where there is none."""
    height, width = shape[:2]
    first = height - height // HELD_OUT  # row of the test split
    begin, end = {"train": (0, first), "test": (first, height), "all": (0, height)}[split]
    steps = [max(side // 2, 1) if split == "train" else side for side in sides]
    rows, columns = range(begin, end - sides[0] + 1, steps[0]), range(0, width - sides[1] + 1, steps[1])
    if not rows or not columns:
        raise UserError(
            f"data.name='photographs:{name}': the split {split!r} has {end - begin} rows of {width} pixels, fewer than "
            f"a square of {sides[0]}x{sides[1]}; set data.resolution, or data.crop_size, to less"
        )
    return [(top, left) for top in rows for left in columns]


@functools.cache
def _faces() -> np.ndarray:
    """uint8 (100, 25, 25)."""
    from skimage import data

    return np.round(255 * data.lfw_subset()[:FACES]).astype(np.uint8)


def open_faces(*, split: str, fit: Fit) -> Source:
    """`faces`: 80 for `train`, 20 for `test`. Raises UserError for an unknown split."""
    _check_split(split)
    numbers = np.arange(FACES)
    is_test = numbers % HELD_OUT == HELD_OUT - 1
    numbers = {"train": numbers[~is_test], "test": numbers[is_test], "all": numbers}[split]
    return Source(
        identity={"kind": "faces", "split": split, "sha256": _digest((0,), lambda _: _faces()), **fit._asdict()},
        count=len(numbers),
        spec=labelled(fit.shape),
        class_names=(),
        read=lambda index: {"image": _fitted(_faces()[numbers[index]], fit)},
    )


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise unknown("data.split", split, SPLITS)


def _fitted(pixels: np.ndarray, fit: Fit) -> np.ndarray:
    from PIL import Image

    return fit_image(Image.fromarray(pixels), fit)


def _digest(names: tuple, load: Callable) -> str:
    """SHA-256 (hex) of the pixels: another version of a package may have others."""
    digest = hashlib.sha256()
    for name in names:
        pixels = load(name)
        digest.update(repr(pixels.shape).encode() + pixels.tobytes())
    return digest.hexdigest()
