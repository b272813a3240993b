"""Examples decoded while they are used, by threads, through Grain."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

_AHEAD = 64  # examples decoded before they are asked for


class Endless(Sequence):
    """0, 1, 2, ... mapped through a function: a sequence without an end for Grain."""

    def __init__(self, item: Callable[[int], Any]):
        self._item = item

    def __len__(self) -> int:
        return 1 << 62

    def __getitem__(self, position: int) -> Any:
        return self._item(position)


def decoded(read: Callable[[int], Any], indices: Sequence[int]) -> Iterator[Any]:
    """`read(i)` for each of `indices`, in their order, by as many threads as this process has cores.

    Closing the iterator stops the threads; what `read` raises is raised here, at its place in the order.
    """
    import grain

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = min(16, cores)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=_AHEAD)
    boxes = grain.MapDataset.source(indices).map(lambda index: _Box(read(int(index))))
    iterator = iter(boxes.to_iter_dataset(options))
    try:
        for box in iterator:
            yield box.value
    finally:
        iterator.close()


class _Box:
    """Keeps Grain from looking into a value: it would drop None and take tuples apart as trees."""

    def __init__(self, value: Any):
        self.value = value
