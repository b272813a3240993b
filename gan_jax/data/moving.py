"""Clips of a bundled digit that bounces through a black frame: films whose motion is known, without a download.

Each is a real digit of 8x8 pixels, of the digits of its split, that moves along one axis by one pixel a frame and
turns back where it touches an edge. Digit, place, axis and direction are a function of the clip's index.
"""

import hashlib

import numpy as np

from gan_jax.data.checks import unknown
from gan_jax.data.fit import Fit
from gan_jax.data.order import bits, uniform
from gan_jax.data.scikit_digits import SIDE, digits
from gan_jax.data.source import Example, Source
from gan_jax.data.windows import Windows
from gan_jax.errors import UserError
from gan_jax.specs import films

LOOK = "moving"  # of `digits:LOOK`
COUNTS = {"train": 4000, "test": 500}
CLASSES = 10
DIGIT, AXIS, DIRECTION, ROW, COLUMN = range(5)  # words of the key, of independent draws
KEYS = {"train": 0, "test": 1}


def of_windows(split: str, fit: Fit, windows: Windows | None) -> Source:
    """`digits:moving`, 4,000 clips for `train` and 500 for `test`; a label is the digit's.

    Raises:
      UserError: an unknown split, no number of frames, channels but one, or frames in which a digit cannot move.
    """
    if split not in COUNTS:
        raise unknown("data.split", split, COUNTS)
    name = f"data.name='digits:{LOOK}'"
    if windows is None:
        raise UserError(f"{name}: are clips; set data.frames to how many frames one has, such as 8")
    if fit.channels != 1:
        raise UserError(f"{name} is grey: set data.channels=1, not {fit.channels}")
    if min(fit.height, fit.width) <= SIDE:
        raise UserError(f"{name}: a digit of {SIDE}x{SIDE} pixels does not move in {fit.height}x{fit.width}; set "
                        f"data.resolution to {SIDE + 1} or more, such as 16")
    sha256 = hashlib.sha256(digits(split).images).hexdigest()
    shape, sides = (windows.frames, *fit.shape), (fit.height, fit.width)
    return Source(
        identity={"kind": LOOK, "split": split, "shape": shape, "step": windows.step, "digits": sha256},
        count=COUNTS[split],
        spec=films(shape, CLASSES),
        class_names=tuple(map(str, range(CLASSES))),
        read=lambda index: clip(split, index, windows.step * np.arange(windows.frames), sides),
    )


def clip(split: str, index: int, times: np.ndarray, sides: tuple[int, int]) -> Example:
    """Clip `index` of a split.

    Args:
      split: train or test.
      index: from 0 on.
      times: int (T,), the frames that are asked for, 0 being the first.
      sides: (H, W) of a frame.
    Returns:
      `video` uint8 (T, H, W, 1) and `label`.
    """
    at, key = np.array([index]), KEYS[split]
    images, labels = digits(split)
    digit = int(bits(at, key, DIGIT)[0] % np.uint64(len(images)))
    axis, direction = (int(bits(at, key, word)[0] & np.uint64(1)) for word in (AXIS, DIRECTION))
    rooms = np.array(sides) - SIDE
    first = [int(uniform(at, key, word)[0] * (room + 1)) for word, room in zip((ROW, COLUMN), rooms, strict=True)]
    corners = np.repeat([first], len(times), axis=0)
    corners[:, axis] = bounced(first[axis] + (2 * direction - 1) * times, int(rooms[axis]))
    video = np.zeros((len(times), *sides, 1), np.uint8)
    for frame, (top, left) in zip(video, corners, strict=True):
        frame[top : top + SIDE, left : left + SIDE, 0] = images[digit]
    return {"video": video, "label": labels[digit]}


def bounced(places: np.ndarray, room: int) -> np.ndarray:
    """Places on an endless line, folded into 0 to `room`: what moves evenly there turns back at both ends here."""
    return room - np.abs(places % (2 * room) - room)
