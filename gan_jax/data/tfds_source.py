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
from gan_jax.data import tfds_films
from gan_jax.data.checks import unknown
from gan_jax.data.fit import CorruptImageError, Fit, colour_notes, decode
from gan_jax.data.source import Example, Source
from gan_jax.data.windows import Windows
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
    name: str, *, split: str, fit: Fit, folder: str, download: bool = False, windows: Windows | None = None
) -> Source:
    """`tfds:NAME`, `tfds:NAME/CONFIG` or `tfds:NAME/CONFIG:VERSION`, prepared beforehand, or now with `download`.

    Args:
      name: the part after `tfds:`.
      split: a TFDS split such as `train`, `train[:90%]` or `train+test`.
      fit: what to do to each picture.
      folder: `data.dir`, empty for the default.
      download: fetch and prepare the set where it is not in the folder.
      windows: how its films are cut; None for pictures.
    Raises:
      UserError: unknown set or split, not prepared, a download that failed, no random access, no `image` feature, or
        none that is a film.
    """
    match = _NAME.fullmatch(name)
    if not match:
        raise UserError(f"data.name='tfds:{name}': expected tfds:NAME or tfds:NAME/CONFIG (and :1.2.3).")
    root = data_dir(folder)
    with quiet(), tfds_films.readable():
        import tensorflow_datasets as tfds

        _check_exists(match["set"], match["config"], root)
        try:
            builder = tfds.builder(name, data_dir=root)
            dict(builder.info.features.items())
        except Exception as error:  # TFDS raises many types: config, version, missing files
            raise UserError(
                f"data.name='tfds:{name}' cannot be opened: {str(error).strip().splitlines()[0]}."
                f" {_how_to_prepare(name, root)}"
            ) from error
    if download and not (builder.data_path.exists() and builder.info.splits):
        builder = _prepare(name, root)
    _check_prepared(builder, name, root)
    if windows is None:
        return _from_builder(builder, f"tfds:{name}", split=split, fit=fit, stamps=True)
    feature = tfds_films.feature_of(builder, f"tfds:{name}")
    rows, content = _rows(builder, f"tfds:{name}", split, feature, tfds_films.encoded(), stamps=True)
    return tfds_films.of_rows(builder, f"tfds:{name} {split}", rows, content, fit=fit, windows=windows)


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


def _rows(builder, name: str, split: str, feature: str, decoder, *, stamps: bool) -> tuple:
    """(examples by index, with this feature encoded; what tells their content) of a split. Raises UserError."""
    try:
        with quiet():
            rows = builder.as_data_source(split, decoders={feature: decoder})
            files = _files(builder, split, stamps)
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
    return rows, {"set": builder.info.full_name, "split": split, "files": files}


def _from_builder(builder, name: str, *, split: str, fit: Fit, stamps: bool) -> Source:
    """A prepared builder's split as a Source. Raises UserError."""
    import tensorflow_datasets as tfds

    features = dict(builder.info.features.items())
    if not isinstance(features.get("image"), tfds.features.Image):
        names = ", ".join(features)
        raise UserError(f"data.name={name!r} has no feature 'image' that is a picture; it has: {names}."
                        + (" Set data.frames to read its films." if _has_films(features) else ""))
    rows, content = _rows(builder, name, split, "image", tfds.decode.SkipDecoding(), stamps=stamps)
    label = features.get("label")
    classes = tuple(label.names) if isinstance(label, tfds.features.ClassLabel) else ()
    return Source(
        identity={"kind": "tfds", **content, **fit._asdict()},
        count=len(rows),
        spec=specs.labelled(fit.shape, len(classes)),
        class_names=classes,
        read=functools.partial(_read, rows=rows, labelled=bool(classes), name=f"{name} {split}", fit=fit),
        notes=colour_notes(lambda index: rows[index]["image"], range(len(rows)), fit),
    )


def _has_films(features: dict) -> bool:
    import tensorflow_datasets as tfds

    return any(isinstance(feature, tfds.features.Video) for feature in features.values())


def _read(index: int, *, rows, labelled: bool, name: str, fit: Fit) -> Example:
    try:
        row = rows[index]
    except Exception as error:  # array_record raises its own types on a damaged file
        raise CorruptImageError(
            f"{name}, example {index} cannot be read: {error}. Prepare it again."
        ) from error
    example = {"image": decode(row["image"], fit, f"{name}, example {index}")}
    return {**example, "label": np.int32(row["label"])} if labelled else example
