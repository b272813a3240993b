"""Captioned pictures of the bundled digits: one or two of them, dim or bright, and words that say which and where.

A fifth of all that can be said is never in the training split, and makes the split `unseen`. The split `every` is for
judges of both. Each example is a function of its split and number.
"""

import functools

import numpy as np

from gan_jax.data import captions
from gan_jax.data.captions import Settings
from gan_jax.data.checks import unknown
from gan_jax.data.fit import Fit, fit_image
from gan_jax.data.order import bits, shuffled
from gan_jax.data.source import Example, Source
from gan_jax.errors import UserError
from gan_jax.specs import Field

LOOK = "captions"  # of `digits:LOOK`
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SIDES, BRIGHTNESSES = ("left", "right"), ("dim", "bright")
LEVELS = (0.4, 1.0)  # factors of a digit's levels, of dim and bright ones
BLANK = len(WORDS)  # the class of a side without a digit
SIDE = 8  # pixels of a digit's; a picture has two of them side by side
EVERY = "every"  # of the splits: with all that can be said, for judges
SPLITS = {  # whose digits, how many
    "train": ("train", 4_000), "test": ("test", 1_000), "unseen": ("test", 1_000), EVERY: ("train", 5_000),
}  # fmt: skip

Meaning = tuple[int, int, int]  # classes of the left and of the right side, and of the brightness


def meanings(*, unseen: bool) -> list[Meaning]:
    """What pictures of a split can show: four fifths of all, or the `unseen` fifth.

    A word that is unseen in one combination is seen in others, in the same place and brightness.
    """
    single = [(number, side, dim) for dim in (0, 1) for side in (0, 1) for number in range(BLANK)
              if ((number + side + 2 * dim) % 5 == 0) == unseen]  # fmt: skip
    double = [(left, right, dim) for dim in (0, 1) for left in range(BLANK) for right in range(BLANK)
              if ((left + 2 * right + dim) % 5 == 0) == unseen]  # fmt: skip
    of_single = [((number, BLANK) if side == 0 else (BLANK, number)) + (dim,) for number, side, dim in single]
    return of_single * (len(double) // len(single)) + double  # as many pictures of one digit as of two


def caption(meaning: Meaning) -> str:
    """What is said of a picture."""
    left, right, dim = meaning
    if BLANK in (left, right):
        side, number = (1, right) if left == BLANK else (0, left)
        return f"a {BRIGHTNESSES[dim]} {WORDS[number]} on the {SIDES[side]}"
    return f"two {BRIGHTNESSES[dim]} digits: {WORDS[left]} left, {WORDS[right]} right"


def open_captions(*, split: str, fit: Fit, folder: str, flip: bool, settings: Settings) -> Source:
    """`digits:captions`: `image`, `caption`, and what is shown: `left`, `right` and `brightness`.

    Args:
      split: train, 4,000 of the training digits; test, 1,000 of the others; unseen, as many of these in combinations of
        words that train and test do not have; every, 5,000 of the training digits in all combinations.
      fit: pictures twice as wide as high, grey; what is drawn has 8x16 pixels.
      folder: `data.dir`.
      flip: `data.flip`, which must be False.
      settings: of the captions.
    Raises:
      UserError: an unknown split, another shape, pictures that are to be mirrored.
    """
    from gan_jax.data.tfds_source import open_digits

    if split not in SPLITS:
        raise unknown("data.split", split, SPLITS)
    name = f"data.name='digits:{LOOK}'"
    if fit.width != 2 * fit.height or fit.channels != 1:
        raise UserError(f"{name} is grey, and twice as wide as high: set data.channels=1 and data.resolution=(8, 16), "
                        f"not {fit.channels} and ({fit.height}, {fit.width})")
    if flip:
        raise UserError(f"{name} says what is left and what is right: leave data.flip=False")
    of, count = SPLITS[split]
    digits = open_digits(split=of, fit=Fit(SIDE, SIDE, 1, "none", 0, fit.filter), folder=folder)
    examples = [digits.read(index) for index in range(digits.count)]
    by_class = [[one["image"] for one in examples if one["label"] == label] for label in range(BLANK)]
    choices = meanings(unseen=split == "unseen") + (meanings(unseen=True) if split == EVERY else [])
    chosen = [choices[place] for place in shuffled(len(choices), list(SPLITS).index(split))(np.arange(count))]
    labels = {side: Field("label", (), BLANK + 1) for side in SIDES} | {"brightness": Field("label", (), 2)}
    identity = {**digits.identity, **fit._asdict(), "look": [LOOK, split, count, LEVELS]}
    read = functools.partial(_read, chosen=chosen, by_class=by_class, key=list(SPLITS).index(split), fit=fit)
    source = Source(identity, count, {"image": Field("image", fit.shape), **labels}, (), read)
    words = captions.vocabulary(map(caption, meanings(unseen=False)))
    tokenizer = captions.open_tokenizer(settings.tokenizer, lambda: words)
    return captions.with_captions(source, [(caption(meaning),) for meaning in chosen], tokenizer, settings)


def _read(index: int, *, chosen: list[Meaning], by_class: list[list[np.ndarray]], key: int, fit: Fit) -> Example:
    from PIL import Image

    left, right, dim = chosen[index]
    canvas = np.zeros((SIDE, 2 * SIDE), np.float64)
    for side, number in enumerate((left, right)):
        if number != BLANK:
            digits = by_class[number]
            place = int(bits(np.array([index]), key, side)[0] % np.uint64(len(digits)))
            canvas[:, side * SIDE : (side + 1) * SIDE] = LEVELS[dim] * digits[place][..., 0]
    picture = fit_image(Image.fromarray(np.round(canvas).astype(np.uint8)), fit)
    labels = dict(zip((*SIDES, "brightness"), map(np.int32, (left, right, dim)), strict=True))
    return {"image": picture, **labels}
