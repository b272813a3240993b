"""One pass over images: what every metric needs of them is kept, and nothing else.

Images go through in chunks of one fixed size, of which every process has its share and every device its own. The next
chunk is on its way before the last is fetched. Rows are gathered chunk by chunk, so that their order, and with it every
statistic, is the same for any number of devices and processes.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from gan_jax import parallel
from gan_jax.features.networks import FeatureNet
from gan_jax.metrics import frechet

FEED = 64  # images that a consumer gets at a time, whatever the chunks are


class Want(NamedTuple):
    """An output of a network, of the first `count` images."""

    network: str
    output: str
    count: int

    @property
    def key(self) -> str:
        """Of the output among what a chunk gives."""
        return f"{self.network}/{self.output}"


class Needs(NamedTuple):
    """What is to be kept of a pass."""

    moments: tuple[Want, ...] = ()
    rows: tuple[Want, ...] = ()
    consumers: tuple[tuple[int, Callable[[np.ndarray], None]], ...] = ()  # (count, called with uint8 images in order)

    def outputs(self) -> dict[str, tuple[str, ...]]:
        """Network -> its outputs that are wanted, sorted."""
        by_network: dict[str, set[str]] = {}
        for want in (*self.moments, *self.rows):
            by_network.setdefault(want.network, set()).add(want.output)
        return {network: tuple(sorted(outputs)) for network, outputs in sorted(by_network.items())}

    def total(self) -> int:
        """Images of the pass."""
        return max([*(want.count for want in (*self.moments, *self.rows)), *(count for count, _ in self.consumers)],
                   default=0)


class Collected(NamedTuple):
    """What was kept."""

    moments: dict[Want, frechet.Moments]
    rows: dict[Want, np.ndarray]  # float32 (count, D)


def union(needs: Iterable[Needs]) -> Needs:
    """All that any of them needs, each once."""
    needs = list(needs)
    moments, rows = ({want: None for one in needs for want in getattr(one, field)} for field in ("moments", "rows"))
    return Needs(tuple(moments), tuple(rows), tuple(c for one in needs for c in one.consumers))


def chunks(total: int, batch: int) -> Iterator[tuple[int, np.ndarray]]:
    """(first image, this process's indices (batch,)) of each chunk; those beyond the last image are the last one's."""
    share = jax.process_index() * batch + np.arange(batch)
    for start in range(0, total, batch * jax.process_count()):
        yield start, np.minimum(start + share, total - 1)


def collect(
    needs: Needs, dispatch: Callable[[np.ndarray], dict[str, Any]], batch: int, check: Callable[[], None] = lambda: None
) -> Collected:
    """Runs a pass.

    Args:
      needs: what to keep.
      dispatch: indices (batch,) of images -> {`Want.key`: rows on the devices of this process} and, where there are
        consumers, {"images": uint8 rows}; it does not wait for the devices.
      batch: images of this process in one chunk.
      check: called before each chunk; what it raises ends the pass.
    """
    keep, pending = _Keeper(needs), None
    for start, indices in chunks(needs.total(), batch):
        check()
        result = dispatch(indices)
        if pending is not None:
            keep.take(*pending)
        pending = (start, len(indices) * jax.process_count(), result)
    if pending is not None:
        keep.take(*pending)
    return keep.finish()


class _Keeper:
    """Accumulators, rows and consumers of one pass."""

    def __init__(self, needs: Needs):
        self._needs = needs
        self._accumulators: dict[Want, frechet.Accumulator] = {}
        self._rows: dict[str, list[np.ndarray]] = {want.key: [] for want in needs.rows}
        self._most = {key: max(want.count for want in needs.rows if want.key == key) for key in self._rows}
        self._feeds = [_Feed(*consumer) for consumer in needs.consumers]
        self._images = max((count for count, _ in needs.consumers), default=0)

    def take(self, start: int, images: int, result: dict) -> None:
        """Rows of so many images from `start` on, of every process; of a network of patches several an image."""
        if start >= self._images:
            result = {key: rows for key, rows in result.items() if key != "images"}
        result = {key: parallel.from_all_processes(np.asarray(rows)) for key, rows in jax.device_get(result).items()}
        for want in self._needs.moments:
            rows = result[want.key]
            rows = rows[: max(want.count - start, 0) * (len(rows) // images)]
            if len(rows):
                before = self._accumulators.get(want) or frechet.empty(rows.shape[1])
                self._accumulators[want] = frechet.update(before, rows)
        for key, parts in self._rows.items():
            parts.append(result[key][: max(self._most[key] - start, 0)])
        for feed in self._feeds:
            feed.take(start, result.get("images"))

    def finish(self) -> Collected:
        for feed in self._feeds:
            feed.finish()
        whole = {key: np.concatenate(parts) for key, parts in self._rows.items()}
        rows = {want: whole[want.key][: want.count] for want in self._needs.rows}
        return Collected({want: frechet.finish(a) for want, a in self._accumulators.items()}, rows)


class _Feed:
    """Hands a consumer its images, `FEED` at a time."""

    def __init__(self, count: int, consume: Callable[[np.ndarray], None]):
        self._count, self._consume, self._waiting = count, consume, []

    def take(self, start: int, images: np.ndarray | None) -> None:
        if images is None or start >= self._count:
            return
        self._waiting.append(images[: self._count - start])
        if sum(map(len, self._waiting)) >= FEED:
            whole = np.concatenate(self._waiting)
            cut = len(whole) // FEED * FEED
            for first in range(0, cut, FEED):
                self._consume(whole[first : first + FEED])
            self._waiting = [whole[cut:]]

    def finish(self) -> None:
        rest = np.concatenate(self._waiting) if self._waiting else ()
        if len(rest):
            self._consume(rest)


def program(source: Callable, nets: dict[str, FeatureNet], needs: Needs, mesh) -> Callable:
    """Compiles a source of images and the networks into one program over the devices of this process.

    Args:
      source: (shared, *per-sample arrays) -> uint8 (B, H, W, C), per sample.
      nets: by network, all that `needs` names.
      needs: which outputs, and whether the images are fetched as well.
      mesh: of this process's devices.
    Returns:
      (shared, variables by network, *arrays (N, ...)) -> what `collect` expects of `dispatch`; N is a multiple of the
      devices.
    """
    wanted, with_images = needs.outputs(), bool(needs.consumers)

    def run(shared, *arrays):
        source_shared, variables = shared
        images = source(source_shared, *arrays)
        results = {"images": images} if with_images else {}
        for network, outputs in wanted.items():
            features = nets[network].apply(variables[network], images, outputs)
            results |= {f"{network}/{output}": features[output] for output in outputs}
        return results

    compiled = parallel.over_samples(run, mesh)

    def dispatch(shared, variables, *arrays):
        return compiled((shared, {network: variables[network] for network in wanted}), *arrays)

    return dispatch


def largest_batch(attempt: Callable[[int], Any], first: int, devices: int) -> int:
    """The largest batch, `first` halved again and again, with which every process has the memory for a chunk.

    Args:
      attempt: batch -> runs a chunk of it to its end.
      first: images of one process to begin with.
      devices: of this process; the batch is a multiple of them.
    """
    batch = math.ceil(first / devices) * devices
    while True:
        fits = _fits(partial(attempt, batch))
        if parallel.from_all_processes(np.array([fits])).all():
            return batch
        if batch == devices:
            attempt(batch)  # raises what it lacks, here or in another process
            return batch
        batch = math.ceil(batch // 2 / devices) * devices


def _fits(attempt: Callable[[], Any]) -> bool:
    try:
        jax.block_until_ready(attempt())
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return False
    return True
