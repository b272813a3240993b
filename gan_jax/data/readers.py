"""Three ways to read examples: gathered from a packed array, decoded while used, or drawn from a mixture.

Each has `examples(indices)` and `batches(seed, start, batch_size, rows)`, as `Dataset` documents them, and
returns batches: an array (B, ...) for each field of the data.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from gan_jax.data.live import Endless, decoded
from gan_jax.data.mixture import points
from gan_jax.data.order import shuffled
from gan_jax.data.source import Example, Source

EXAMPLES_SEED = 1 << 63  # of a mixture's `examples`, so that no ordinary training seed repeats them

Batch = dict[str, np.ndarray]


class Packed(NamedTuple):
    """One array a field, in memory or memory-mapped: a batch is one gather of each."""

    fields: Batch  # (N, ...) each
    count: int  # N

    def examples(self, indices: np.ndarray) -> Batch:
        """The examples at these places of the set."""
        return {name: array[indices] for name, array in self.fields.items()}

    def batches(self, seed: int, start: int, batch_size: int, rows: np.ndarray) -> Iterator[Batch]:
        """The endless shuffled stream, as `Dataset.stream` describes it."""
        for places in self.places(seed, start, batch_size, rows):
            yield self.examples(places)

    def places(self, seed: int, start: int, batch_size: int, rows: np.ndarray) -> Iterator[np.ndarray]:
        """The places int64 (R,) of the examples of each batch."""
        order = shuffled(self.count, seed)
        while True:
            yield order(start + rows)
            start += batch_size


class Live(NamedTuple):
    """Decoded while used: sets too large to pack."""

    source: Source
    usable: np.ndarray | None  # int64 (N,): usable examples of the source; None: all

    def _at(self, index: int) -> int:
        return int(index if self.usable is None else self.usable[index])

    def examples(self, indices: np.ndarray) -> Batch:
        """The examples at these places of the set; raises `CorruptImageError`."""
        return _stacked(list(decoded(self.source.read, [self._at(index) for index in indices])))

    def batches(self, seed: int, start: int, batch_size: int, rows: np.ndarray) -> Iterator[Batch]:
        """The endless shuffled stream, as `Dataset.stream` describes it."""
        order = shuffled(self.source.count if self.usable is None else len(self.usable), seed)

        def index(element: int) -> int:
            batch, row = divmod(element, len(rows))
            return self._at(order(start + batch * batch_size + rows[row : row + 1])[0])

        examples = decoded(self.source.read, Endless(index))
        try:
            while True:
                yield _stacked([next(examples) for _ in rows])
        finally:
            examples.close()


class Drawn(NamedTuple):
    """A mixture: position p is sample p of the seed's own sequence."""

    name: str

    def examples(self, indices: np.ndarray, seed: int = EXAMPLES_SEED) -> Batch:
        """The samples at these places of the sequence of `seed`."""
        image, label = points(self.name, seed, indices)
        return {"image": image, "label": label}

    def batches(self, seed: int, start: int, batch_size: int, rows: np.ndarray) -> Iterator[Batch]:
        """The endless stream, as `Dataset.stream` describes it."""
        while True:
            yield self.examples(start + rows, seed)
            start += batch_size


class Derived(NamedTuple):
    """Fields that are made of those of another reader, by index alone."""

    reader: Packed | Live | Drawn
    derive: Callable[[Batch], Batch]

    def examples(self, indices: np.ndarray) -> Batch:
        """The examples at these places of the set."""
        return self.derive(self.reader.examples(indices))


def _stacked(examples: list[Example]) -> Batch:
    return {name: np.stack([example[name] for example in examples]) for name in examples[0]}
