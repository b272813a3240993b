"""TFDS sets through `tfds.data_source`: random access, no TensorFlow, no download that was not asked for."""

import contextlib
import functools
import io
import logging
import os
import pathlib
import re

import numpy as np

from gan_jax import paths, specs
from gan_jax.cache import cache_dir
from gan_jax.data.captions import Settings
from gan_jax.data.checks import unknown
from gan_jax.data.fit import CorruptImageError, Fit, colour_notes, fit_image, opened, square_about
from gan_jax.data.source import Example, Source
from gan_jax.data.tfds_captions import captioned
from gan_jax.errors import UserError

_NAME = re.compile(r"(?P<set>\w+)(/(?P<config>[\w.\-]+))?(:(?P<version>\d+\.\d+\.\d+))?")
VARIABLES, DEFAULT = ("GAN_JAX_DATA_DIR", "TFDS_DATA_DIR"), "~/tensorflow_datasets"


def data_dir(folder: str) -> pathlib.Path:
    """Where TFDS sets lie: `data.dir`, $GAN_JAX_DATA_DIR, $TFDS_DATA_DIR or ~/tensorflow_datasets."""
    places = {"config.data.dir": folder, **{name: os.environ.get(name, "") for name in VARIABLES}}
    what, place = next((item for item in places.items() if item[1]), ("config.data.dir", DEFAULT))
    return pathlib.Path(paths.expanded(place, what))


@contextlib.contextmanager
def quiet():
    """TFDS without its progress bars, its prints and absl's warnings, for the length of a call."""
    from tensorflow_datasets.core.utils import tqdm_utils

    logger = logging.getLogger("absl")
    level, bars = logger.level, tqdm_utils._active
    logger.setLevel(logging.ERROR)
    tqdm_utils.display_progress_bar(False)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tqdm_utils.display_progress_bar(bars)
        logger.setLevel(level)


def open_digits(*, split: str, fit: Fit, folder: str) -> Source:
    """`digits`, prepared into the data folder the first time (in a second). Raises UserError."""
    with quiet():
        import tensorflow_datasets as tfds

        from gan_jax.data.digits import Digits

        root = _digits_dir(folder)
        make = functools.partial(Digits, data_dir=root, file_format="array_record")
        try:
            builder = make()
            if not builder.info.splits:
                config = tfds.download.DownloadConfig(try_download_gcs=False, compute_stats="skip")
                builder.download_and_prepare(download_config=config)
        except OSError as error:
            builder = make()  # another process may have finished the same folder first
            if not builder.info.splits:
                raise UserError(
                    f"The digits cannot be written to the data folder {root}: {error}. Set data.dir"
                    " or $GAN_JAX_DATA_DIR to a folder that can be written."
                ) from error
    return _from_builder(builder, "digits", split=split, fit=fit, stamps=False)


def _digits_dir(folder: str) -> pathlib.Path:
    """`data_dir`; where nobody chose it and it cannot be written, a folder of the cache: the digits take a second."""
    root = data_dir(folder)
    is_chosen = folder or any(os.environ.get(name) for name in VARIABLES)
    if is_chosen or (root / "digits").is_dir():
        return root
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError:
        return cache_dir("data")
    return root if os.access(root, os.W_OK) else cache_dir("data")


def open_tfds(
    name: str, *, split: str, fit: Fit, folder: str, download: bool = False, captions: Settings | None = None
) -> Source:
    """`tfds:NAME`, `tfds:NAME/CONFIG` or `tfds:NAME/CONFIG:VERSION`, prepared beforehand, or now with `download`.

    Args:
      name: the part after `tfds:`.
      split: a TFDS split such as `train`, `train[:90%]` or `train+test`.
      fit: what to do to each picture.
      folder: `data.dir`, empty for the default.
      download: fetch and prepare the set where it is not in the folder.
      captions: which of them its examples are to have.
    Raises:
      UserError: unknown set or split, not prepared, a download that failed, no random access, no `image` feature,
        or no captions where they are asked for.
    """
    match = _NAME.fullmatch(name)
    if not match:
        raise UserError(f"data.name='tfds:{name}': expected tfds:NAME or tfds:NAME/CONFIG (and :1.2.3).")
    root = data_dir(folder)
    with quiet():
        import tensorflow_datasets as tfds

        _check_exists(match["set"], match["config"], root)
        try:
            builder = tfds.builder(name, data_dir=root)
        except Exception as error:  # TFDS raises many types: config, version, missing files
            raise UserError(
                f"data.name='tfds:{name}' cannot be opened: {str(error).strip().splitlines()[0]}."
                f" {_how_to_prepare(name, root)}"
            ) from error
    if download and not (builder.data_path.exists() and builder.info.splits):
        builder = _prepare(name, root)
    _check_prepared(builder, name, root)
    return _from_builder(builder, f"tfds:{name}", split=split, fit=fit, stamps=True, captions=captions)


def _prepare(name: str, root: pathlib.Path):
    """Downloads a set and writes it with random access. Raises UserError."""
    import tensorflow_datasets as tfds

    print(f"preparing tfds:{name} in {root}", flush=True)
    config = tfds.download.DownloadConfig(try_download_gcs=False, compute_stats="skip")
    try:
        builder = tfds.builder(name, data_dir=root, file_format="array_record")
        builder.download_and_prepare(download_config=config)
    except Exception as error:  # no network, a page that asks for a login, a builder that needs TensorFlow
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        message = f"data.name='tfds:{name}' cannot be downloaded: {reason}."
        raise UserError(f"{message} {_how_to_prepare(name, root)}") from error
    return builder


def _check_exists(name: str, config: str | None, root: pathlib.Path) -> None:
    """A UserError for a set or config that neither TFDS knows nor the data folder holds."""
    import tensorflow_datasets as tfds

    sets = tfds.list_builders(with_community_datasets=False)
    if (root / name / (config or "")).is_dir():
        return
    if name not in sets:
        near = unknown("data.name", f"tfds:{name}", [f"tfds:{one}" for one in sets])
        raise UserError(
            f"{str(near).split(' Choose')[0]} TFDS lists its sets at"
            f" https://www.tensorflow.org/datasets/catalog; {root} holds no such set either."
        )
    configs = tfds.builder_cls(name).builder_configs
    if config and config not in configs:
        choices = [f"tfds:{name}/{one}" for one in configs] or [f"tfds:{name}"]
        raise unknown("data.name", f"tfds:{name}/{config}", choices)


def _how_to_prepare(name: str, root: pathlib.Path) -> str:
    return (
        f"Prepare it once, with a network: tfds build {name} --file_format=array_record --data_dir={root}"
        " (that command alone needs `pip install tensorflow`; it may run elsewhere and the folder be copied)."
    )


def _check_prepared(builder, name: str, root: pathlib.Path) -> None:
    """A UserError with the command to run, unless the set lies on disk in a format with random access."""
    from tensorflow_datasets.core import file_adapters

    config = f"/{builder.builder_config.name}" if builder.builder_config else ""
    command = _how_to_prepare(f"{builder.name}{config}", root)
    if not builder.data_path.exists() or not builder.info.splits:
        raise UserError(
            f"data.name='tfds:{name}' is not prepared in {root} (looked for {builder.data_path}),"
            f" and is downloaded only with --config.data.download=True. {command}"
        )
    formats = builder.info.available_file_formats()
    if not formats & set(file_adapters.FileFormat.with_random_access()):
        names = ", ".join(sorted(one.value for one in formats)) or "unknown"
        raise UserError(
            f"data.name='tfds:{name}' lies in {builder.data_path} in the format {names}, without"
            f" random access. Delete that folder or choose another data.dir. {command}"
        )


def _files(builder, split: str, stamps: bool) -> list[tuple]:
    """(file, first example, examples, size, mtime) of each file of a split; mtime is 0 without `stamps`."""
    rows = []
    for part in builder.info.splits[split].file_instructions:
        status = os.stat(part.filename)
        mtime = status.st_mtime_ns if stamps else 0
        rows.append((os.path.basename(part.filename), part.skip, part.take, status.st_size, mtime))
    return rows


def _from_builder(
    builder, name: str, *, split: str, fit: Fit, stamps: bool, captions: Settings | None = None
) -> Source:
    """A prepared builder's split as a Source. Raises UserError."""
    import tensorflow_datasets as tfds

    features = dict(builder.info.features.items())
    if not isinstance(features.get("image"), tfds.features.Image):
        names = ", ".join(features)
        raise UserError(f"data.name={name!r} has no feature 'image' that is a picture; it has: {names}.")

    def rows_of(split: str) -> tuple:
        with quiet():
            rows = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
            files = _files(builder, split, stamps)
        return rows, {"set": builder.info.full_name, "split": split, "files": files}

    try:
        rows, content = rows_of(split)
    except (ValueError, KeyError) as error:
        near = unknown("data.split", split, builder.info.splits)
        raise UserError(
            f"{near} Slices such as {next(iter(builder.info.splits))}[:90%] work too."
            f" ({str(error).splitlines()[0]})"
        ) from error
    except OSError as error:
        raise UserError(
            f"data.name={name!r}: a file of the split {split!r} is missing: {error}."
            " Copy or prepare the set again."
        ) from error
    if not len(rows):
        raise UserError(f"data.split={split!r} of {name!r} is empty.")
    if fit.crop == "box" and not isinstance(features.get("bbox"), tfds.features.BBoxFeature):
        raise UserError(f"data.crop='box': {name!r} has no feature 'bbox'; it has: {', '.join(sorted(features))}.")
    label = features.get("label")
    classes = tuple(label.names) if isinstance(label, tfds.features.ClassLabel) else ()
    source = Source(
        identity={"kind": "tfds", **content, **fit._asdict()},
        count=len(rows),
        spec=specs.labelled(fit.shape, len(classes)),
        class_names=classes,
        read=functools.partial(_read, rows=rows, labelled=bool(classes), name=f"{name} {split}", fit=fit),
        notes=colour_notes(lambda index: rows[index]["image"], range(len(rows)), fit),
    )
    if captions is None or not captions.count:
        return source
    training = "train" if "train" in builder.info.splits else split
    return captioned(source, features, captions, name, (rows, content), lambda: rows_of(training))


def _read(index: int, *, rows, labelled: bool, name: str, fit: Fit) -> Example:
    try:
        row = rows[index]
    except Exception as error:  # array_record raises its own types on a damaged file
        raise CorruptImageError(
            f"{name}, example {index} cannot be read: {error}. Prepare it again."
        ) from error
    example = {"image": opened(row["image"], functools.partial(_fitted, row=row, fit=fit), f"{name}, example {index}")}
    return {**example, "label": np.int32(row["label"])} if labelled else example


def _fitted(image, *, row, fit: Fit) -> np.ndarray:
    return fit_image(image.crop(square_about(row["bbox"], *image.size)) if fit.crop == "box" else image, fit)
