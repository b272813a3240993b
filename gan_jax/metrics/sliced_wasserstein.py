"""Sliced Wasserstein distance between local neighbourhoods at each level of a Laplacian pyramid.

Karras et al. 2018 (arXiv 1710.10196), section 5 and appendix on metrics: 7x7 neighbourhoods, 128 an image, are
normalised per channel and projected on 4 x 128 random directions; the distance of a level is the mean difference
of sorted projections, times 1000. Draws come from numpy's legacy generator in the order of the official code, so
that a seed repeats its numbers, to float32 rounding.

Memory: 128 x 49 C float32 an image and level, for each set. The published 16,384 images of three channels take
1.2 GB a level, 8.6 GB from 1024 down to 16, twice that for reals and fakes; while a level is finished, once more
its own 1.2 GB.
"""

import math
from collections.abc import Iterable

import numpy as np

from gan_jax.errors import UserError

LOWEST = 16  # resolution of the last level
SIZE = 7  # pixels along a neighbourhood
PER_IMAGE = 128
REPEATS, DIRECTIONS = 4, 128
SCALE = 1000.0
BINOMIAL = np.array([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
_PROJECTIONS = 2**26  # held at once for each set: 256 MB


class Descriptors:
    """Neighbourhoods of a stream of images of one shape; fed with `update`, read once with `finish`."""

    def __init__(self, rng: np.random.RandomState, *, per_image: int = PER_IMAGE):
        """Starts empty.

        Args:
          rng: where the neighbourhoods' centres are drawn from; of two sets that share it, the first is fed whole.
          per_image: neighbourhoods of each image and level.
        """
        self._rng, self._per_image = rng, per_image
        self._shape: tuple[int, ...] | None = None
        self._parts: list[list[np.ndarray]] = []

    def update(self, images) -> None:
        """Adds images uint8 (B, H, H, C), H a power of two and at least 16, the same for all.

        Raises:
          UserError: other images than that.
        """
        images = np.asarray(images)
        levels = _levels(images)
        if self._shape is None:
            self._shape, self._parts = images.shape[1:], [[] for _ in levels]
        if images.shape[1:] != self._shape:
            raise UserError(f"sliced Wasserstein distance of images {images.shape[1:]} after {self._shape}; "
                            "expected one shape (H, W, C) for all.")
        for part, level in zip(self._parts, laplacian_pyramid(images, len(levels)), strict=True):
            x, y = draw_centres(self._rng, level.shape[1], len(images) * self._per_image)
            part.append(neighbourhoods(level, x, y))

    def finish(self) -> dict[int, np.ndarray]:
        """{resolution: float32 (N, 49 C)} from the full resolution to 16, normalised; empties this object.

        Raises:
          UserError: no images, or all pixels of a channel are equal on some level.
        """
        if self._shape is None:
            raise UserError("sliced Wasserstein distance of no images; expected at least one.")
        by_resolution = {}
        for number in range(len(self._parts)):
            descriptors = np.concatenate(self._parts[number])
            self._parts[number] = []
            by_resolution[self._shape[0] >> number] = normalised(descriptors)
        self._shape = None
        return by_resolution


def sliced_wasserstein(
    real: Iterable[np.ndarray], fake: Iterable[np.ndarray], *, seed: int, per_image: int = PER_IMAGE,
    repeats: int = REPEATS, directions: int = DIRECTIONS,
) -> dict[str, float]:
    """The distance of fakes from reals for each level, and the levels' mean, times 1000.

    The draws depend on the batches' sizes. As the official code compares the reals with themselves before it
    meets the fakes, so many directions are drawn and left unused in between.

    Args:
      real, fake: batches of uint8 (B, H, H, C) of one shape, as many images of each.
      seed: of numpy's legacy generator.
      per_image, repeats, directions: neighbourhoods of an image and level; sets of directions, and their sizes.
    Returns:
      {'64': ..., '32': ..., '16': ..., 'mean': ...} for images of 64 pixels.
    Raises:
      UserError: see `Descriptors` and `distances`.
    """
    rng = np.random.RandomState(seed)
    sets = []
    for number, batches in enumerate((real, fake)):
        descriptors = Descriptors(rng, per_image=per_image)
        for images in batches:
            descriptors.update(images)
        sets.append(descriptors.finish())
        if number == 0:
            for level in sets[0].values():
                for _ in range(repeats):
                    draw_directions(rng, level.shape[1], directions)
    return distances(*sets, rng, repeats=repeats, directions=directions)


def distances(
    real: dict[int, np.ndarray], fake: dict[int, np.ndarray], rng: np.random.RandomState, *,
    repeats: int = REPEATS, directions: int = DIRECTIONS,
) -> dict[str, float]:
    """`sliced_wasserstein` of two sets of finished descriptors, with directions drawn level by level.

    Raises:
      UserError: the sets' levels or numbers of neighbourhoods differ.
    """
    shapes = [{level: array.shape for level, array in one.items()} for one in (real, fake)]
    if shapes[0] != shapes[1]:
        raise UserError(f"sliced Wasserstein distance of descriptors {shapes[0]} and {shapes[1]}; "
                        "expected equally many images of one shape.")
    values = {}
    for level, a in real.items():
        direction_sets = [draw_directions(rng, a.shape[1], directions) for _ in range(repeats)]
        values[str(level)] = SCALE * float(np.mean([projected_distance(a, fake[level], one) for one in direction_sets]))
    return {**values, "mean": float(np.mean(list(values.values())))}


def laplacian_pyramid(images, levels: int) -> list[np.ndarray]:
    """Differences between successive resolutions, the last one as it is; (B, H, W, C) -> float32, full size first.

    A 5x5 binomial filter with borders mirrored about the outer pixels, as OpenCV's pyrDown and pyrUp have it.
    """
    pyramid = [np.asarray(images, np.float32)]
    for _ in range(levels - 1):
        pyramid.append(_down(pyramid[-1]))
        pyramid[-2] = pyramid[-2] - _up(pyramid[-1])
    return pyramid


def draw_centres(rng: np.random.RandomState, resolution: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """x, then y of `count` neighbourhoods that lie inside a square image."""
    half = SIZE // 2
    x = rng.randint(half, resolution - half, size=count)
    return x, rng.randint(half, resolution - half, size=count)


def neighbourhoods(images: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Squares of 7 pixels around centres x, y (N,), N / B successive ones an image; (B, H, W, C) -> (N, C, 7, 7).

    The last axes are x, then y: the order in which the official code meets its directions.
    """
    around = np.arange(SIZE) - SIZE // 2
    image = np.repeat(np.arange(len(images)), len(x) // len(images))
    squares = images[image[:, None, None], (y[:, None] + around)[:, None, :], (x[:, None] + around)[:, :, None]]
    return np.ascontiguousarray(squares.transpose(0, 3, 1, 2))


def normalised(descriptors: np.ndarray) -> np.ndarray:
    """Descriptors (N, C, 7, 7) of mean 0 and deviation 1 for each channel, flattened to (N, 49 C); changes them.

    Raises:
      UserError: a channel has one value throughout.
    """
    descriptors -= descriptors.mean(axis=(0, 2, 3), keepdims=True)  # in float32, as in the official code
    deviation = descriptors.std(axis=(0, 2, 3), keepdims=True)
    if not deviation.all():
        raise UserError("sliced Wasserstein distance: all neighbourhoods of a channel are constant and equal; "
                        "look at the images.")
    descriptors /= deviation
    return descriptors.reshape(len(descriptors), -1)


def draw_directions(rng: np.random.RandomState, dim: int, count: int) -> np.ndarray:
    """Unit vectors in columns, float64 (dim, count)."""
    vectors = rng.randn(dim, count)
    return vectors / np.sqrt(np.square(vectors).sum(axis=0))


def projected_distance(a: np.ndarray, b: np.ndarray, directions: np.ndarray) -> float:
    """Mean |sorted projections of a - those of b|; a, b (N, K), unit directions (K, P)."""
    directions = directions.astype(np.float32)
    total, step = 0.0, max(1, _PROJECTIONS // len(a))
    for start in range(0, directions.shape[1], step):
        chunk = directions[:, start:start + step]
        gap = np.sort(chunk.T @ a.T, axis=1) - np.sort(chunk.T @ b.T, axis=1)
        total += np.abs(gap, out=gap).sum(dtype=np.float64)
    return total / (len(a) * directions.shape[1])


def _levels(images: np.ndarray) -> list[int]:
    """Resolutions from the images' own down to 16."""
    fits = images.ndim == 4 and images.dtype == np.uint8 and len(images) and images.shape[1] == images.shape[2]
    side = images.shape[1] if fits else 0
    if side < LOWEST or side & (side - 1):
        raise UserError(f"sliced Wasserstein distance of images {images.dtype} {images.shape}; expected uint8 "
                        f"(B, H, H, C), H a power of two and at least {LOWEST}.")
    return [side >> level for level in range(int(math.log2(side // LOWEST)) + 1)]


def _down(x: np.ndarray) -> np.ndarray:
    """Filtered and halved; (B, H, W, C) -> (B, H / 2, W / 2, C)."""
    from scipy import ndimage  # half a second that only these metrics take

    x = ndimage.convolve1d(x, BINOMIAL, axis=1, mode="mirror", output=np.float64)[:, ::2]
    return ndimage.convolve1d(x, BINOMIAL, axis=2, mode="mirror", output=np.float32)[:, :, ::2]


def _up(x: np.ndarray) -> np.ndarray:
    """Doubled with zeros in between and filtered to the old brightness; (B, H, W, C) -> (B, 2 H, 2 W, C)."""
    from scipy import ndimage  # half a second that only these metrics take

    b, h, w, c = x.shape
    rows = np.zeros((b, 2 * h, w, c))
    rows[:, ::2] = x
    both = np.zeros((b, 2 * h, 2 * w, c))
    both[:, :, ::2] = ndimage.convolve1d(rows, 2 * BINOMIAL, axis=1, mode="mirror")
    return ndimage.convolve1d(both, 2 * BINOMIAL, axis=2, mode="mirror", output=np.float32)
