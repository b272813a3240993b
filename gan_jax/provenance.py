"""Which results may be compared: what their lines say of how they came about, and the digest of the code."""

import hashlib
import pathlib
from collections.abc import Mapping

# Told beside a value, and no part of how it was measured: another seed is another draw of one quantity, labels and
# noise are the generator's own.
TOLD = ("value", "std", "low", "high", "slope", "better", "step", "images", "seed", "labels", "noise", "seconds",
        "by_frame", "equal_frames", "mean", "mean_of_reals",  # of clips: those of each frame; what a ratio is of
        "version", "code_sha256", "warning", "images_of", "images_fingerprint")  # fmt: skip


def unlike(a: Mapping, b: Mapping) -> list[str]:
    """What forbids comparing two lines of `evaluations.jsonl`, in words; empty where nothing does.

    Every field counts but those of `TOLD`: features, SHA-256 of weights and data, preprocessing, counts, split, flips.
    A field that one line alone has is a difference. Where both have the data's fingerprint, its name does not count.
    """
    keys = [key for key in dict.fromkeys([*a, *b]) if key not in TOLD]
    if a.get("data_fingerprint") and b.get("data_fingerprint"):
        keys = [key for key in keys if key != "data"]
    return [f"{key} {_word(a, key)}, not {_word(b, key)}" for key in keys if a.get(key) != b.get(key)]


def _word(line: Mapping, key: str) -> str:
    value = str(line.get(key, "none"))
    return value[:12] if key.endswith(("sha256", "fingerprint")) else value


def code_sha256(part: str = "") -> str:
    """SHA-256 of this package's sources, or of a folder or file of it: names and bytes in the order of the names.

    The experiments that an installed package carries along do not count, as those of a checkout do not.
    """
    root, digest = pathlib.Path(__file__).parent, hashlib.sha256()
    place = root / part
    for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
        name = file.relative_to(root)
        if name.parts[0] != "experiments":
            digest.update(f"{name.as_posix()}\n".encode() + file.read_bytes())
    return digest.hexdigest()
