"""Batches made ahead of time by one background thread."""

import queue
import sys
import threading
from collections.abc import Iterator
from typing import Any


def prefetch(batches: Iterator[Any], depth: int) -> Iterator[Any]:
    """The same batches, up to `depth` of them made ahead.

    What `batches` raises is raised here, after the batches before it. Closing this generator (or dropping it)
    closes `batches` and ends the thread.
    """
    ready: queue.Queue = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def put(kind: str, value: Any) -> None:
        while not stop.is_set():
            try:
                return ready.put((kind, value), timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for batch in batches:
                put("batch", batch)
                if stop.is_set():
                    return
            put("end", None)
        except BaseException as error:
            put("error", error)
        finally:
            if hasattr(batches, "close"):
                batches.close()

    thread = threading.Thread(target=work, name="gan_jax-data", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = ready.get()
            if kind == "error":
                raise value
            if kind == "end":
                return
            yield value
    finally:
        stop.set()
        if not sys.is_finalizing():  # daemon threads are frozen by then, and would never be joined
            thread.join()
