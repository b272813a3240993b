"""Films of TFDS sets, such as `moving_mnist` and `ucf101`: frames encoded one by one, cut into clips."""

import contextlib
import functools
import hashlib
import json
import os
import types
from collections.abc import Iterator

import numpy as np

from gan_jax.cache import cache_dir
from gan_jax.data.fit import SKIP, CorruptImageError, Fit, decode
from gan_jax.data.source import Example, Source
from gan_jax.data.windows import Windows
from gan_jax.errors import UserError
from gan_jax.specs import films


@contextlib.contextmanager
def readable() -> Iterator[None]:
    """Lets TFDS read the features of a set with films where there is no TensorFlow.

    Its `Video` (4.9.10) asks TensorFlow for nothing but the name of a type. A release whose `Video` does without makes
    this needless.
    """
    import tensorflow_datasets.video  # noqa: F401, its sets are known by name once it is imported
    from tensorflow_datasets.core.features import video_feature

    try:
        import tensorflow  # noqa: F401
    except ImportError:
        pass
    else:
        yield
        return
    before = video_feature.tf
    video_feature.tf = types.SimpleNamespace(dtypes=types.SimpleNamespace(as_dtype=lambda dtype: dtype))
    try:
        yield
    finally:
        video_feature.tf = before


def encoded():
    """A decoder for `as_data_source` that leaves frames encoded, as TFDS's own does outside of sequences alone."""
    import tensorflow_datasets as tfds

    class Encoded(tfds.decode.SkipDecoding):
        def decode_batch_example_np(self, frames):
            return frames

    return Encoded()


def feature_of(builder, name: str) -> str:
    """The name of the feature that is a film. Raises UserError where the set has none."""
    import tensorflow_datasets as tfds

    features = dict(builder.info.features.items())
    names = [key for key, feature in features.items() if isinstance(feature, tfds.features.Video)]
    if not names:
        raise UserError(f"data.name={name!r} has no feature that is a film; it has: {', '.join(sorted(features))}. Set "
                        "data.frames=0 for pictures.")
    return "video" if "video" in names else names[0]


def of_rows(builder, name: str, rows, content: dict, *, fit: Fit, windows: Windows) -> Source:
    """The films of a split, cut into clips.

    Args:
      builder: prepared.
      name: `data.name` and split, for messages.
      rows: examples by index, frames encoded.
      content: what tells the content of the split; JSON-able.
      fit: what to do to each frame.
      windows: how films are cut.
    Raises:
      UserError: a damaged set.
    """
    import tensorflow_datasets as tfds

    feature, label = feature_of(builder, name), dict(builder.info.features.items()).get("label")
    classes = tuple(label.names) if isinstance(label, tfds.features.ClassLabel) else ()
    length = builder.info.features[feature].shape[0]
    counts = [length] * len(rows) if length else _counts(rows, feature, name, content)
    clips = [(number, start) for number, count in enumerate(counts) for start in windows.starts(count) or (-1,)]
    return Source(
        identity={"kind": "tfds films", "feature": feature, "windows": list(windows), **content, **fit._asdict()},
        count=len(clips),
        spec=films((windows.frames, *fit.shape), len(classes)),
        class_names=classes,
        read=functools.partial(
            _read, rows=rows, clips=clips, counts=counts, feature=feature, labelled=bool(classes), name=name, fit=fit,
            windows=windows,
        ),
        notes=(f"{name}: {len(rows)} films",),
    )  # fmt: skip


def _counts(rows, feature: str, name: str, content: dict) -> list[int]:
    """Frames of each film, from the cache or by reading the split once."""
    key = hashlib.sha256(json.dumps([feature, content], sort_keys=True).encode()).hexdigest()
    file = cache_dir("films") / f"{key}.json"
    try:
        counts = json.loads(file.read_text())
        if len(counts) == len(rows):
            return counts
    except (OSError, ValueError, TypeError):
        pass
    counts = [len(_row(rows, index, name)[feature]) for index in range(len(rows))]
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    part.write_text(json.dumps(counts))
    os.replace(part, file)
    return counts


def _row(rows, index: int, name: str) -> dict:
    try:
        return rows[index]
    except Exception as error:  # array_record raises its own types on a damaged file
        raise CorruptImageError(f"{name}, example {index} cannot be read: {error}. Prepare it again.") from error


def _read(index: int, *, rows, clips, counts, feature: str, labelled: bool, name: str, fit: Fit, windows) -> Example:
    number, start = clips[index]
    place = f"{name}, example {number}"
    if start < 0:
        raise windows.too_short(place, counts[number], SKIP)
    row = _row(rows, number, name)
    frames = [decode(bytes(row[feature][time]), fit, f"{place}, frame {time}") for time in windows.places(start)]
    example = {"video": np.stack(frames)}
    return {**example, "label": np.int32(row["label"])} if labelled else example
