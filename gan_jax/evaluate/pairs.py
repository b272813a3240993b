"""Metrics of pairs: each image beside what it is to be, from a run's data or another folder."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from gan_jax import metrics, parallel
from gan_jax.evaluate import protocols
from gan_jax.evaluate.consumers import of_frames
from gan_jax.features.networks import FeatureNet
from gan_jax.metrics import structural_similarity

AT_ONCE = 16  # pairs, on one device
POOLED = "pooled_psnr"
CHANNELS = {1: "grey", 3: "RGB"}


class Targets(NamedTuple):
    """What images are to be, in their order."""

    size: int  # how many there are
    images: Callable[[np.ndarray], np.ndarray]  # numbers (n,) -> uint8 (n, H, W, C)
    protocol: dict[str, Any]  # what a row says of them
    masks: Callable[[np.ndarray], np.ndarray] | None = None  # as `images`, of the holes (n, H, W, 1), 255 there


class Pairs:
    """A metric of pairs, which takes the images of a pass as they come."""

    def __init__(self, name: str, net: FeatureNet | None, targets: Targets, border: int):
        """`name` is one of `protocols.PAIRED`; a LPIPS has its `net`; `border` is that of `protocols.BORDERED`."""
        self._name, self._border, self._channels = name, border, 0
        self._measure = _of_pixels(name, border) if net is None else _perceptual(net)
        self._in_holes = name in protocols.IN_HOLES
        self._targets, self._values, self._next = targets, [], 0

    @property
    def size(self) -> int:
        """How many images have a target."""
        return self._targets.size

    def update(self, images: np.ndarray) -> None:
        """The next images, uint8 (n, H, W, C), or clips (n, T, H, W, C), which are compared frame by frame."""
        at_once = AT_ONCE if images.ndim == 4 else max(AT_ONCE // images.shape[1], 1)
        for start in range(0, len(images), at_once):
            part = images[start : start + at_once]
            places = np.arange(self._next, self._next + len(part))
            holes = (self._targets.masks(places),) if self._in_holes else ()
            self._values.append(of_frames(self._measure, part, self._targets.images(places), *holes))
            self._channels = part.shape[-1]
            self._next += len(part)

    def finish(self) -> tuple[float | None, dict]:
        """(mean over pairs, what is told beside it): of PSNR, which is endless for equal images, over the others.

        A pooled PSNR is that of the squared differences of all pairs. Of clips the mean is over all frames, and beside
        it stands that of each frame, the first one first.
        """
        values, beside = np.concatenate(self._values), {**self._targets.protocol, "pairs": self._next}
        beside |= self._protocol()
        if values.ndim == 2:
            beside["by_frame"] = [self._mean(frame)[0] for frame in values.T]
        value, equal = self._mean(values.ravel())
        if not equal:
            return value, beside
        return value, {**beside, "equal_pairs" if values.ndim == 1 else "equal_frames": equal}

    def _mean(self, values: np.ndarray) -> tuple[float | None, int]:
        """Of finite values, None where there is none; and how many are not."""
        if self._name == POOLED:
            values = structural_similarity.decibels(values.mean(keepdims=True))
        is_equal = np.isinf(values)
        return None if is_equal.all() else float(values[~is_equal].mean()), int(is_equal.sum())

    def _protocol(self) -> dict:
        """What pixels were compared, and in which unit."""
        unit = {"unit": "dB"} if "psnr" in self._name else {}
        if self._name not in protocols.BORDERED:
            return unit
        channels = "Y of BT.601, 16 to 235" if self._name.endswith("_y") else CHANNELS.get(self._channels, "all")
        return unit | {"channels": channels, "border": self._border, "peak": int(structural_similarity.PEAK)}


def _of_pixels(name: str, border: int) -> Callable[..., np.ndarray]:
    """(a, b), of `protocols.IN_HOLES` (a, b, masks) -> values of the pairs; of `POOLED` the squared differences."""
    measures = {"l1": metrics.l1, "ms_ssim": metrics.ms_ssim, "psnr": metrics.psnr, "ssim": metrics.ssim,
                "masked_l1": metrics.masked_l1, POOLED: structural_similarity.squared_error}  # fmt: skip
    measure = measures[name.removesuffix("_y")]
    if name not in protocols.BORDERED:
        return measure
    return partial(measure, crop_border=border, luma=name.endswith("_y"))


def _perceptual(net: FeatureNet) -> Callable:
    """(a, b) -> LPIPS of the pairs, by a program of one batch size."""
    mesh = parallel.make_mesh(jax.local_devices())
    program = parallel.over_samples(net.apply, mesh)
    variables = jax.device_put(net.variables, parallel.replicated(mesh))
    batch = -(-AT_ONCE // mesh.size) * mesh.size

    def measure(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        values = []
        for start in range(0, len(a), batch):  # a clip may have more frames than a batch
            place = np.minimum(start + np.arange(batch), len(a) - 1)
            values.append(np.asarray(program(variables, a[place], b[place])))
        return np.concatenate(values)[: len(a)]

    return measure
