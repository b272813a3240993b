"""Opens a data set by name and hands out its examples: by index to evaluate, as a stream to train."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator

import numpy as np

from gan_jax.data import mixture as mixtures
from gan_jax.data import pack, subset
from gan_jax.data.captions import FIELD, Settings, make_settings
from gan_jax.data.checks import natural, unknown
from gan_jax.data.fit import Fit, make_fit
from gan_jax.data.readers import Batch, Derived, Drawn, Live, Packed
from gan_jax.data.source import Source
from gan_jax.data.stream import prefetch
from gan_jax.data.windows import Windows, make_windows
from gan_jax.errors import UserError
from gan_jax.specs import Field, Spec, labelled

KINDS = ("digits", "digits:inverted", "digits:outlines", "digits:captions", "digits:moving", "faces",
         "photographs:NAME", "tfds:NAME", "folder:PATH", "mixture:ring8", "mixture:grid25",
         "synthetic:COUNT")  # fmt: skip
FIT = ("resolution", "channels", "crop", "crop_size", "filter")  # keys of what is done to each picture
BATCHES_AHEAD = 2
CLASSES_SHOWN = 10  # in the line for a person


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """An open data set. Images are uint8 (N, H, W, C), clips (N, T, H, W, C), points float32 (N, 2)."""

    name: str  # as in the config
    split: str
    spec: Spec  # the fields of an example; the first is what it is about
    class_names: tuple[str, ...]  # of the field `label`; empty where there is none
    size: int  # number of examples; 0: endless
    fingerprint: str  # SHA-256 (hex) of the content
    skipped: int  # corrupt images left out
    flip: bool  # mirror at random: applied on the device, kept here for the protocol
    settings: dict  # the other settings of the section, for the protocol
    reader: Packed | Live | Drawn | Derived = dataclasses.field(repr=False)
    class_counts: tuple[int, ...] = ()  # examples of each class; empty where they are not known without reading all
    notes: tuple[str, ...] = ()  # what a person should know before the data are used, a line each
    words: tuple[str, ...] = ()  # what each token of the field `caption` stands for; empty where there are no captions
    # () -> SHA-256 of the files, read whole, where `fingerprint` has their times and so changes with a copy; else ''.
    content: Callable[[], str] = dataclasses.field(default=str, repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one example's first field."""
        return next(iter(self.spec.values())).shape

    def protocol(self) -> dict:
        """What a result must state about its data; JSON-able."""
        settings = {"name": self.name, "split": self.split, **self.settings, "flip": self.flip}
        return {**settings, "count": self.size, "skipped": self.skipped, "fingerprint": self.fingerprint}

    @property
    def contents(self) -> str:
        """How many examples there are, and of which classes; for a person."""
        counts = self.class_counts or ("",) * len(self.class_names)
        pairs = [f"{name} {count}".strip() for name, count in zip(self.class_names, counts, strict=True)]
        listed = ", ".join(pairs if len(pairs) <= CLASSES_SHOWN else [*pairs[:CLASSES_SHOWN], "..."])
        classes = f" of {len(pairs)} class{'es' * (len(pairs) != 1)}: {listed}" if pairs else ""
        skipped = f", {self.skipped} that cannot be used left out" if self.skipped else ""
        words = f", captions of {len(self.words)} tokens" if self.words else ""
        return f"{self.size or 'endless'} samples{classes}{words}{skipped}"

    def summary(self) -> dict:
        """`protocol`, the classes' names and numbers of examples, None where not known, and the words; JSON-able."""
        counts = self.class_counts or (None,) * len(self.class_names)
        words = {"words": list(self.words)} if self.settings.get("tokenizer") == "words" else {}  # else of a file
        return self.protocol() | {"classes": dict(zip(self.class_names, counts, strict=True))} | words

    def examples(self, indices: np.ndarray) -> Batch:
        """Examples in the order of the set.

        Args:
          indices: int (B,), each in [0, size); any non-negative number for a mixture.
        Returns:
          an array (B, ...) for each field of `spec`.
        Raises:
          IndexError: an index outside the set.
          UserError: a corrupt image, where images are decoded while used.
        """
        indices = np.asarray(indices, np.int64).reshape(-1)
        if not len(indices):
            return {name: np.zeros((0, *field.shape), field.dtype) for name, field in self.spec.items()}
        if indices.min() < 0 or (self.size and indices.max() >= self.size):
            raise IndexError(f"indices {indices.min()}..{indices.max()} of a set of {self.size} examples")
        return self.reader.examples(indices)

    def stream(self, *, seed: int, start: int, batch_size: int, rows: np.ndarray) -> Iterator[Batch]:
        """The endless shuffled stream, or this process's part of it.

        Position p holds the same example for the same (seed, p), whatever the batch size and the number of
        processes; `size` positions from a multiple of `size` on hold every example once. Batch k has the
        positions start + k * batch_size + rows, so a run continues exactly with `start` = examples consumed.

        Args:
          seed: seed of the order.
          start: position of the first batch.
          batch_size: global batch, over all processes.
          rows: int (R,), the places in the global batch to load, each in [0, batch_size).
        Returns:
          an iterator of batches, an array (R, ...) for each field of `spec`; close it to end its thread.
        Raises:
          UserError: here for a wrong argument; from `next` for a corrupt image.
        """
        arguments = _stream_arguments(seed, start, batch_size, rows)
        return prefetch(self.reader.batches(*arguments), BATCHES_AHEAD)

    def packed(self) -> Batch | None:
        """All examples, where they lie decoded, an array (N, ...) for each field; None for other sets."""
        return self.reader.fields if isinstance(self.reader, Packed) else None

    def order(self, *, seed: int, start: int, batch_size: int, rows: np.ndarray) -> Iterator[Batch]:
        """The places in `packed` of the examples of `stream`, for the same arguments: `index` int32 (R,)."""
        arguments = _stream_arguments(seed, start, batch_size, rows)
        batches = ({"index": places.astype(np.int32)} for places in self.reader.places(*arguments))
        return prefetch(batches, BATCHES_AHEAD)


def _stream_arguments(seed: int, start: int, batch_size: int, rows: np.ndarray) -> tuple:
    """The same, checked. Raises UserError for a wrong one."""
    seed, start = natural("seed", seed, least=0), natural("start", start, least=0)
    batch_size = natural("batch_size", batch_size, least=1)
    rows = np.asarray(rows, np.int64).reshape(-1)
    if not len(rows) or rows.min() < 0 or rows.max() >= batch_size:
        raise UserError(f"rows={rows}: expected at least one place in [0, {batch_size}).")
    return seed, start, batch_size, rows


def open_dataset(
    *,
    name: str,  # a kind of `KINDS`, such as 'digits', 'folder:PATH' or 'tfds:NAME/CONFIG'
    split: str = "train",  # 'train', 'test', 'all'; of TFDS any, such as 'train[:90%]'; 'train@10': 10 of each class
    resolution: int | tuple[int, int] = 32,  # pixels, or (height, width)
    channels: int = 1,  # 1 gray, 2 gray + alpha, 3 RGB, 4 RGBA
    crop: str = "center",  # 'center': to the target's aspect ratio; 'box': about a TFDS set's `bbox`; 'none': stretch
    crop_size: int = 0,  # side of a central square cut first, pixels; 0: none
    filter: str = "lanczos",  # box, bilinear, lanczos, bicubic or nearest
    flip: bool = False,  # mirror at random; applied on the device
    skip_corrupt: bool = False,  # leave unusable images out and count them
    dir: str = "",  # folder of TFDS sets; empty: $GAN_JAX_DATA_DIR, $TFDS_DATA_DIR, ~/tensorflow_datasets
    download: bool = False,  # fetch and prepare a TFDS set that is not in the folder
    pair: str = "",  # of a folder of pairs: 'side_by_side' in each picture, or 'folders' A and B of equal names
    direction: str = "ab",  # of pairs: from the left picture, or that of A, to the other ('ab'), or back ('ba')
    captions: int = 0,  # that are read of each example, in turn where it has fewer; 0: none
    caption_length: int = 20,  # tokens of a caption; longer ones are cut, which a line tells
    captions_from: str = "",  # folder, .zip or .jsonl of captions; empty: beside the pictures, or in the TFDS set
    tokenizer: str = "words",  # 'words' of the training split, or a kind and its file
    frames: int = 0,  # of films: of each clip that they are cut into; 0: the data are pictures
    frame_step: int = 1,  # of films: a clip has every so many of their frames
) -> Dataset:
    """Opens a data set; its keywords are the keys of the config's `data` section.

    A set whose decoded images fit in `pack.LIMIT_BYTES` is decoded once into the cache; a larger one while it
    is used. A mixture has no images: `resolution`, `channels`, `crop`, `crop_size`, `filter` do not touch it.

    Raises:
      MissingPathError: the folder or zip does not exist.
      UserError: an unknown name or setting, a set that is not prepared, an empty folder, a corrupt image.
    """
    fit = make_fit(resolution=resolution, channels=channels, crop=crop, crop_size=crop_size, filter=filter)
    common = {"name": name, "split": split, "flip": bool(flip)}
    split, per_class = subset.read_split(str(split))
    texts = make_settings(
        captions=captions, caption_length=caption_length, captions_from=captions_from, tokenizer=tokenizer
    )
    _check_pairs_and_captions(str(name), pair, texts)
    windows = _windows(name, frames, frame_step, pair, texts)
    if crop == "box" and (windows or not str(name).startswith("tfds:")):
        of = "films" if windows else repr(name)
        raise UserError(f"data.crop='box': bounding boxes are of pictures of TFDS sets, not of {of}; take 'center'.")
    if str(name).startswith("mixture:"):
        return _open_mixture(str(name).partition(":")[2], common)
    source = _open_source(
        str(name), split, fit, folder=dir, flip=bool(flip), download=bool(download), pair=pair, direction=direction,
        texts=texts, windows=windows,
    )  # fmt: skip
    dataset = of_source(source, fit, common, skip_corrupt=bool(skip_corrupt))
    if per_class:
        dataset = subset.of_each_class(dataset, per_class)
    settings = {"pair": pair, "direction": direction} if pair else _of_captions(dataset, tokenizer)
    settings |= {"frames": frames, "frame_step": frame_step} if windows else {}
    return dataclasses.replace(dataset, settings={**dataset.settings, **settings})


def _open_source(
    name: str, split: str, fit: Fit, *, folder: str, flip: bool, download: bool, pair: str, direction: str,
    texts: Settings, windows: Windows | None,
) -> Source:
    """The examples of a set before they are decoded; arguments as of `open_dataset`. Raises UserError."""
    kind, colon, rest = name.partition(":")
    if kind == "digits":
        from gan_jax.data import digits_captions, inverted

        if rest == digits_captions.LOOK:
            return digits_captions.open_captions(split=split, fit=fit, folder=folder, flip=flip, settings=texts)
        return inverted.open_digits(rest, split=split, fit=fit, folder=folder, windows=windows)
    if (kind == "faces" and not colon) or (kind == "photographs" and colon):
        from gan_jax.data import photographs

        return photographs.open_photographs(rest, split=split, fit=fit) if colon else photographs.open_faces(
            split=split, fit=fit
        )
    if kind == "tfds" and colon:
        from gan_jax.data.tfds_source import open_tfds

        return open_tfds(
            rest, split=split, fit=fit, folder=folder, download=download, captions=texts, windows=windows
        )
    if kind == "folder" and colon and windows:
        from gan_jax.data import folder_films

        return folder_films.open_films(rest, split=split, fit=fit, windows=windows)
    if kind == "folder" and colon:
        from gan_jax.data import folder as folders
        from gan_jax.data import folder_captions, folder_pairs

        if pair:
            return folder_pairs.open_pairs(rest, split=split, fit=fit, pair=pair, direction=direction)
        if texts.count:
            return folder_captions.open_captioned(rest, split=split, fit=fit, settings=texts)
        return folders.open_folder(rest, split=split, fit=fit)
    if kind == "synthetic" and colon:
        from gan_jax.data.synthetic import open_synthetic

        return open_synthetic(rest, split=split, fit=fit)
    raise unknown("data.name", name, KINDS)


def _of_captions(dataset: Dataset, tokenizer: str) -> dict:
    """What a result must state about the captions of its data; empty where they have none."""
    if not dataset.words:
        return {}
    count, length = dataset.spec[FIELD].shape
    return {"captions": count, "caption_length": length, "tokenizer": tokenizer}


def _check_pairs_and_captions(name: str, pair: str, captions: Settings) -> None:
    """Raises UserError where the data of that name can have no pairs or captions, and these are asked for."""
    kind, colon, _ = name.partition(":")
    if pair and not (kind == "folder" and colon):
        raise UserError(f"data.pair={pair!r}: pairs are read from folders, 'folder:PATH', not from {name!r}.")
    if captions.count and (pair or name != "digits:captions" and not (kind in ("folder", "tfds") and colon)):
        what = f"pairs, data.pair={pair!r}" if pair else repr(name)
        raise UserError(f"data.captions={captions.count}: captions are of 'folder:PATH', 'tfds:NAME' and "
                        f"'digits:captions', not of {what}; leave it at 0.")
    if captions.place and (not captions.count or kind == "digits"):
        raise UserError(f"data.captions_from={captions.place!r}: set data.captions to how many of each example are to "
                        "be read, of 'folder:PATH' or 'tfds:NAME'; or leave it empty.")


def _windows(name: str, frames: int, step: int, pair: str, captions: Settings) -> Windows | None:
    """How the set's films are cut, None where it has pictures. Raises UserError where it cannot have films."""
    windows, (kind, colon, _) = make_windows(frames, step), str(name).partition(":")
    if windows and not (kind in ("folder", "tfds") and colon or name == "digits:moving"):
        raise UserError(f"data.frames={frames}: clips are cut out of the films of 'folder:PATH' or 'tfds:NAME', or are "
                        f"'digits:moving'; {name!r} has pictures, data.frames=0")
    if windows and pair:
        raise UserError(f"data.frames={frames} with data.pair={pair!r}: pairs are of pictures; leave one of them out")
    if windows and captions.count:
        raise UserError(f"data.frames={frames} with data.captions={captions.count}: captions are of pictures; leave "
                        "one of them out")
    return windows


def of_field(dataset: Dataset, name: str, field: Field, derive: Callable[[Batch], Batch]) -> Dataset:
    """A set whose examples are a field that is made of those of another, by index; and its labels where it has such.

    Args:
      dataset: the other.
      name, field: of what is made.
      derive: a batch of `dataset` -> {name: array}.
    """
    labels = {key: kind for key, kind in dataset.spec.items() if key == "label"}

    def derived(batch: Batch) -> Batch:
        return {name: derive(batch)[name], **{key: batch[key] for key in labels}}

    spec, settings = {name: field, **labels}, {**dataset.settings, "field": name, "field_shape": list(field.shape)}
    return dataclasses.replace(dataset, spec=spec, settings=settings, reader=Derived(dataset.reader, derived))


def of_source(source: Source, fit: Fit, common: dict, *, skip_corrupt: bool, packed: bool = True) -> Dataset:
    """A source as a Dataset: `packed` if it fits, otherwise decoded while used."""
    packed = packed and pack.fits(source)
    size, skipped, fingerprint = source.count, 0, pack.content_key(source)
    reader: Packed | Live = Live(source, None)
    if packed or skip_corrupt:
        contents = pack.open_pack(source, skip_corrupt=skip_corrupt, with_fields=packed)
        size, skipped, fingerprint = (contents.meta[key] for key in ("count", "skipped", "fingerprint"))
        reader = Packed(contents.fields, size) if packed else Live(source, contents.usable)
    look = {"resolution": [fit.height, fit.width], "channels": fit.channels, "crop": fit.crop}
    return Dataset(
        **common,
        spec=source.spec,
        class_names=source.class_names,
        size=size,
        fingerprint=fingerprint,
        skipped=skipped,
        settings={**look, "crop_size": fit.crop_size, "filter": fit.filter, "skip_corrupt": skip_corrupt},
        reader=reader,
        class_counts=_class_counts(source, reader),
        notes=source.notes,
        words=source.words,
        content=str if packed else functools.partial(pack.files_sha256, source),
    )


def _class_counts(source: Source, reader: Packed | Live) -> tuple[int, ...]:
    """Examples of each class, where labels lie decoded or are known by their files; else none."""
    if isinstance(reader, Packed):
        labels = reader.fields.get("label")
    else:
        labels = source.labels if reader.usable is None or source.labels is None else (
            np.asarray(source.labels)[reader.usable]
        )
    if labels is None:
        return ()
    return tuple(map(int, np.bincount(np.asarray(labels), minlength=len(source.class_names))))


def _open_mixture(name: str, common: dict) -> Dataset:
    """A mixture as an endless Dataset; the class is the mode."""
    if name not in mixtures.NAMES:
        raise unknown("data.name", f"mixture:{name}", [f"mixture:{one}" for one in mixtures.NAMES])
    if common["split"] != "train":
        raise UserError(f"data.split={common['split']!r}: a mixture is endless and has 'train' alone.")
    centres, std = mixtures.mixture(name)
    return Dataset(
        **common,
        spec=labelled((2,), len(centres)),
        class_names=tuple(str(mode) for mode in range(len(centres))),
        size=0,
        fingerprint=hashlib.sha256(f"{name} {centres.tolist()} {std}".encode()).hexdigest(),
        skipped=0,
        settings={},
        reader=Drawn(name),
    )
