"""Independent sets at one stream position, for games that learn from examples that belong to no pair."""

import dataclasses
import hashlib
import json
import zlib
from collections.abc import Iterator

import numpy as np

from gan_jax.data.dataset import Dataset
from gan_jax.data.order import bits
from gan_jax.data.readers import Batch
from gan_jax.specs import Spec


@dataclasses.dataclass(frozen=True)
class Joined:
    """Sets side by side: the image, or clip, of the part `a` is the field `a`, its label `a_label`.

    Each part has its own order and size, so that neighbours in a batch have nothing to do with each other.
    """

    parts: dict[str, Dataset]

    @property
    def name(self) -> str:
        """The parts' names."""
        return ", ".join(f"{name}={part.name}" for name, part in self.parts.items())

    @property
    def spec(self) -> Spec:
        """The fields of an example."""
        return {_field(name, field): kind for name, part in self.parts.items() for field, kind in part.spec.items()}

    @property
    def size(self) -> int:
        """That of the largest part; 0: endless."""
        sizes = [part.size for part in self.parts.values()]
        return max(sizes) if all(sizes) else 0

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the content of all parts."""
        prints = {name: part.fingerprint for name, part in self.parts.items()}
        return hashlib.sha256(json.dumps(prints, sort_keys=True).encode()).hexdigest()

    def content(self) -> str:
        """SHA-256 of the files of all parts, where a part's fingerprint changes with a copy; else ''."""
        contents = {name: part.content() for name, part in self.parts.items()}
        if not any(contents.values()):
            return ""
        whole = {name: contents[name] or part.fingerprint for name, part in self.parts.items()}
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()

    def protocol(self) -> dict:
        """What a result must state about its data; JSON-able."""
        parts = {name: part.protocol() for name, part in self.parts.items()}
        return {"name": self.name, "parts": parts, "fingerprint": self.fingerprint}

    @property
    def contents(self) -> str:
        """How many examples each part has, and of which classes; for a person."""
        return "; ".join(f"{name} {part.contents}" for name, part in self.parts.items())

    def summary(self) -> dict:
        """`protocol`, and the classes of each part; JSON-able."""
        parts = {name: part.summary() for name, part in self.parts.items()}
        return self.protocol() | {"parts": parts}

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know before the data are used, a line each."""
        return tuple(f"{name}: {note}" for name, part in self.parts.items() for note in part.notes)

    def examples(self, indices: np.ndarray) -> Batch:
        """Examples at these places of every part, which begins anew after its last one; see `Dataset.examples`."""
        indices = np.asarray(indices, np.int64)
        return _merged({
            name: part.examples(indices % part.size if part.size else indices) for name, part in self.parts.items()
        })  # fmt: skip

    def stream(self, *, seed: int, start: int, batch_size: int, rows: np.ndarray) -> Iterator[Batch]:
        """The endless shuffled stream of all parts, or this process's part of it; see `Dataset.stream`."""
        streams = {
            name: part.stream(seed=part_seed(seed, name), start=start, batch_size=batch_size, rows=rows)
            for name, part in self.parts.items()
        }
        return _merged_stream(streams)

    def packed(self) -> None:
        """None: the order of each part is its own."""
        return None


def part_seed(seed: int, name: str) -> int:
    """The seed of a part's order: sets of one size would else be in one order."""
    return int(bits(np.array([zlib.crc32(name.encode())]), seed)[0] >> np.uint64(1))


def _merged_stream(streams: dict[str, Iterator[Batch]]) -> Iterator[Batch]:
    try:
        while True:
            yield _merged({name: next(stream) for name, stream in streams.items()})
    finally:
        for stream in streams.values():
            stream.close()


def _merged(batches: dict[str, Batch]) -> Batch:
    return {_field(name, field): array for name, batch in batches.items() for field, array in batch.items()}


def _field(part: str, field: str) -> str:
    return part if field in ("image", "video") else f"{part}_{field}"
