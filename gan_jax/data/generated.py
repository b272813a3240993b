"""A labelled set of generated images, written as a TFDS set as they are made.

The module imports TFDS at its top; the package loads it only when such a set is written.
"""

import io
import math
import pathlib
from collections.abc import Iterable

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from gan_jax.data.tfds_source import quiet

NAME, VERSION, SPLIT = "generated", "1.0.0", "train"
SHARD_BYTES = 1 << 26  # of decoded images in one file
AT_ONCE = 256  # examples between two notes of how many there are


def write(
    drawn: Iterable[tuple[int, int, np.ndarray]], folder: pathlib.Path, class_names: tuple[str, ...],
    shape: tuple[int, ...], about: str,
) -> pathlib.Path:
    """Writes a set, in files with random access, one after another; memory holds `AT_ONCE` encoded images.

    Args:
      drawn: (seed, label, uint8 (H, W, C)) of each image, gone through once.
      folder: of TFDS sets; the set is `generated/1.0.0` in it.
      class_names: of all labels.
      shape: of an image; C is 1, 3 or 4.
      about: the set's description.
    Returns:
      The set's own folder. Its one split is `train`; an example has `image`, `label` and the `seed` it was drawn from.
    """
    place = folder / NAME / VERSION
    place.mkdir(parents=True)
    with quiet():
        features = {
            "image": tfds.features.Image(shape=tuple(shape), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=list(class_names)),
            "seed": tfds.features.Scalar(np.int64),
        }
        identity = tfds.core.dataset_info.DatasetIdentity(
            name=NAME, version=tfds.core.Version(VERSION), data_dir=str(place), module_name=__name__
        )
        info = tfds.core.DatasetInfo(
            builder=identity, description=about, features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
        )  # fmt: skip
        writer = tfds.core.SequentialWriter(
            info, max_examples_per_shard=max(SHARD_BYTES // math.prod(shape), 1), file_format="array_record"
        )
        writer.initialize_splits([SPLIT])
        waiting = []
        for seed, label, image in drawn:
            waiting.append({"image": _encoded(image), "label": label, "seed": seed})
            if len(waiting) == AT_ONCE:
                writer.add_examples({SPLIT: waiting})
                waiting = []
        writer.add_examples({SPLIT: waiting})
        writer.close_all()
    return place


def _encoded(image: np.ndarray) -> io.BytesIO:
    """A PNG; encoded here, because TFDS would need TensorFlow to encode an array."""
    png = io.BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(png, "png")
    png.seek(0)
    return png
