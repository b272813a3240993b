"""What takes the images of a pass as they come, where a metric is of pixels and not of features."""

from collections.abc import Callable
from functools import partial

import numpy as np

from gan_jax import metrics
from gan_jax.evaluate import protocols
from gan_jax.evaluate.protocols import Protocol
from gan_jax.metrics import sliced_wasserstein


class Patches:
    """The sliced Wasserstein distance's two sides, in the order of the official code: the reals first."""

    def __init__(self, seed: int):
        self._rng = np.random.RandomState(seed)
        self._sets = []
        self._open = sliced_wasserstein.Descriptors(self._rng)

    def update(self, images: np.ndarray) -> None:
        """Images of the side that is open."""
        self._open.update(images)

    def turn(self) -> None:
        """Ends the reals; directions are drawn as often as the official code does in between."""
        reals = self._open.finish()
        for level in reals.values():
            for _ in range(sliced_wasserstein.REPEATS):
                sliced_wasserstein.draw_directions(self._rng, level.shape[1], sliced_wasserstein.DIRECTIONS)
        self._sets = [reals]
        self._open = sliced_wasserstein.Descriptors(self._rng)

    def values(self) -> dict[str, float]:
        """See `sliced_wasserstein.distances`."""
        return sliced_wasserstein.distances(*self._sets, self._open.finish(), self._rng)


class Variation:
    """MS-SSIM of successive pairs."""

    def __init__(self):
        self.values: list[np.ndarray] = []

    def update(self, images: np.ndarray) -> None:
        """An even number of images."""
        self.values.append(metrics.variation(images))


class OfImages:
    """A value of each image, or clip, of two sets, of the reals and of those that are measured."""

    def __init__(self, measure: Callable[[np.ndarray], np.ndarray]):
        self._measure = measure
        self.sides: tuple[list[np.ndarray], list[np.ndarray]] = [], []

    def update(self, side: int, images: np.ndarray) -> None:
        """More images of a side, 0 of the reals or 1."""
        self.sides[side].append(self._measure(images))

    def finish(self) -> tuple[float, dict]:
        """(the mean, and beside it that of the reals)."""
        reals, own = self._means()
        return own, {"value_of_reals": reals}

    def _means(self) -> tuple[float, float]:
        return tuple(float(np.concatenate(side).mean()) for side in self.sides)


class Ratio(OfImages):
    """The mean of those that are measured, as a multiple of the reals'."""

    def finish(self) -> tuple[float | None, dict]:
        """(the ratio, and beside it both means); None where the reals' is 0."""
        reals, own = self._means()
        return own / reals if reals else None, {"mean": own, "mean_of_reals": reals}


def of_frames(measure: Callable[..., np.ndarray], *sets: np.ndarray) -> np.ndarray:
    """What a measure of images says of these, (B,), or of each frame of clips (B, T, H, W, C), (B, T).

    Args:
      measure: arrays uint8 (n, H, W, C) -> (n,).
      *sets: that many arrays, of images or of clips.
    """
    if sets[0].ndim == 4:
        return measure(*sets)
    b, t = sets[0].shape[:2]
    frames = [clips.reshape(b * t, *clips.shape[2:]) for clips in sets]
    return measure(*frames).reshape(b, t)


def of(protocol: Protocol, seed: int) -> Patches | Variation | OfImages | Ratio | None:
    """What takes the images of a protocol's pass; None where networks do."""
    if protocol.kind in protocols.OF_CLIPS:
        return Ratio(getattr(metrics, protocol.kind))
    if protocol.kind in protocols.OF_IMAGES:
        return OfImages(partial(of_frames, getattr(metrics, protocol.kind)))
    if protocol.kind == "swd":
        return Patches(seed)
    return Variation() if protocol.kind == "msssim" else None
