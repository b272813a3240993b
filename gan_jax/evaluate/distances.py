"""Each protocol's needs of the images, and its values from what was kept of them."""

from typing import Any, NamedTuple

import jax
import numpy as np

from gan_jax import metrics
from gan_jax.errors import UserError
from gan_jax.evaluate.collect import Collected, Needs, Want
from gan_jax.evaluate.networks import FeatureNet, check_channels
from gan_jax.evaluate.protocols import Protocol
from gan_jax.metrics import frechet, sliced_wasserstein

SUBSET_SEED = 2020  # of KID's subsets, torch-fidelity's default
FEW = 4  # times as many images as features: below, a distance says more of their number than of the images
BIAS_SEED = 0


class Value(NamedTuple):
    """A number: what its protocol's name ends in, and what is told beside it."""

    suffix: str
    value: float
    told: dict[str, Any]


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


def sides(protocol: Protocol, reals: int, state: Any = None) -> tuple[Needs, Needs]:
    """(needs of the reals, needs of the fakes), for so many reals; `state` is `Patches` or `Variation`."""
    theirs, own = (Want(protocol.network, protocol.output, count) for count in (reals, protocol.samples))
    if protocol.kind == "fd":
        kept = Needs(rows=(own,)) if "estimate" in protocol.options else Needs(moments=(own,))
        return Needs(moments=(theirs,)), kept
    if protocol.kind in ("kd", "pr", "prdc"):
        return Needs(rows=(theirs,)), Needs(rows=(own,))
    if protocol.kind == "is":
        return Needs(), Needs(rows=(own,))
    if protocol.kind == "swd":
        return Needs(consumers=((reals, state.update),)), Needs(consumers=((protocol.samples, state.update),))
    if protocol.kind == "msssim":
        return Needs(), Needs(consumers=((protocol.samples, state.update),))
    return Needs(), Needs()


def values(protocol: Protocol, reals: Collected, fakes: Collected, count: int, state: Any = None) -> list[Value]:
    """The protocol's numbers, the first the one that stands for it.

    Args:
      protocol: any but path lengths.
      reals, fakes: what `sides` asked for was kept.
      count: of the reals, as asked for.
      state: as given to `sides`.
    """
    theirs, own = (Want(protocol.network, protocol.output, n) for n in (count, protocol.samples))
    kind, options = protocol.kind, protocol.options
    if kind == "fd":
        return [_frechet(options.get("estimate"), reals.moments[theirs], fakes, own)]
    if kind == "kd":
        a, b = reals.rows[theirs], fakes.rows[own]
        mean, std = metrics.kernel_distance(a, b, seed=SUBSET_SEED, **options)
        told = {"subsets": options["subsets"], "subset_size": min(options["subset_size"], len(a), len(b))}
        return [Value("", mean, {"std": std, **told})]
    if kind in ("pr", "prdc"):
        return _neighbours(kind, reals.rows[theirs], fakes.rows[own], options["neighbours"])
    if kind == "is":
        mean, std = metrics.inception_score(fakes.rows[own], splits=options["splits"], seed=None)
        return [Value("", mean, {"std": std, "splits": options["splits"]})]
    if kind == "swd":
        found = state.values()
        return [Value("", found.pop("mean"), {}), *(Value(f"_{level}", value, {}) for level, value in found.items())]
    each = np.concatenate(state.values)
    return [Value("", float(each.mean()), {"pairs": len(each)})]


def _frechet(estimate: str | None, real: metrics.Moments, fakes: Collected, own: Want) -> Value:
    if estimate == "infinity":
        found = metrics.extrapolated_distance(fakes.rows[own], real)
        return Value("", found.value, {"slope": found.slope, "points": len(found.sizes), "least": int(found.sizes[0])})
    if estimate == "interval":
        found = metrics.bootstrap_interval(fakes.rows[own], real)
        return Value("", found.value, {"low": found.low, "high": found.high, "level": 0.95})
    fake = fakes.moments[own]
    return Value("", frechet.frechet_distance(real.mean, real.covariance, fake.mean, fake.covariance), {})


def _neighbours(kind: str, real: np.ndarray, fake: np.ndarray, k: int) -> list[Value]:
    on_device = jax.local_devices()[0].platform != "cpu"
    found = metrics.neighbourhoods(real, fake, k=k, inclusive=kind == "pr", device=on_device)
    names = ("precision", "recall") if kind == "pr" else found._fields
    return [Value(f"_{name}", getattr(found, name), {"neighbours": k}) for name in names]


def too_few(protocol: Protocol, net: FeatureNet, real: metrics.Moments) -> str:
    """A warning where a Frechet distance is of too few images for its features, with the bias; else nothing.

    The bias is the distance between so many samples and as many as there are reals, both of a Gaussian of the reals'
    moments. Of few reals these moments vary too little, so that the true bias is larger.
    """
    dim, few = net.outputs[protocol.output], []
    if protocol.samples < FEW * dim:
        few.append(f"{protocol.samples} images")
    if real.count and real.count < FEW * dim:
        few.append(f"{real.count} reals")
    if protocol.kind != "fd" or not few:
        return ""
    known = _bias(real, protocol.samples)
    singular = "; their covariance is singular" if min(protocol.samples, real.count or dim + 1) <= dim else ""
    least = "at least " if any("reals" in part for part in few) else ""
    return (f"{' and '.join(few)} for {dim} features{singular}: even a perfect generator would score {least}about "
            f"{known:.4g}; values of other numbers of images do not compare")


def _bias(real: metrics.Moments, count: int) -> float:
    """The distance of two sets of one Gaussian, of `count` samples and of as many as the reals, where known."""
    counts = [n for n in (count, real.count) if n]
    if min(counts) > FEW * len(real.mean):
        return sum(frechet.bias(real.covariance, n) for n in counts)
    root, rng = frechet.root(real.covariance), np.random.default_rng(BIAS_SEED)
    own = _resampled(root, count, rng)
    theirs = _resampled(root, real.count, rng) if real.count else (np.zeros_like(real.mean), real.covariance)
    return frechet.frechet_distance(*theirs, *own)


def _resampled(root: np.ndarray, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of `count` samples of a Gaussian around 0 whose covariance is root root^T."""
    accumulator = frechet.empty(root.shape[1])
    for start in range(0, count, 1024):
        accumulator = frechet.update(accumulator, rng.standard_normal((min(1024, count - start), root.shape[1])))
    white = frechet.finish(accumulator)
    return root @ white.mean, root @ white.covariance @ root.T


def check_reals(protocol: Protocol, count: int, dataset, shape: tuple[int, ...]) -> None:
    """Raises UserError where a protocol cannot be had of so many reals, or of their shape beside the images' own."""
    of = f"{dataset.name}/{dataset.split}"
    if protocol.network:
        check_channels(dataset.shape, of)
    if protocol.kind == "swd" and tuple(dataset.shape) != tuple(shape):
        raise UserError(f"metrics={protocol.name}: of images {tuple(shape)} against reals {tuple(dataset.shape)} of "
                        f"{of}; expected one shape")
    least = max(protocol.options.get("neighbours", 0) + 1, 2)
    if count < least:
        raise UserError(f"metrics={protocol.name}: against {count} reals of {of}; expected {least} or more")
    if protocol.kind == "swd" and count != protocol.samples:
        raise UserError(f"metrics={protocol.name}: {of} has {count} images, and it compares {protocol.samples} with as "
                        f"many: list swd{count}")
    check_shape(protocol, dataset.shape)


def check_shape(protocol: Protocol, shape: tuple[int, ...]) -> None:
    """Raises UserError where a protocol cannot be had of images (H, W, C)."""
    lowest, (height, width) = sliced_wasserstein.LOWEST, shape[:2]
    if protocol.kind == "swd" and (height != width or height < lowest or height & (height - 1)):
        raise UserError(f"metrics={protocol.name}: of images {height}x{width}; expected squares, their side a power of "
                        f"two from {lowest} on")
    if protocol.kind == "msssim" and (height % 16 or width % 16):
        raise UserError(f"metrics={protocol.name}: of images {height}x{width}; expected sides of multiples of 16")
