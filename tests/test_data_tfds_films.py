"""Films of TFDS sets: as `moving_mnist` and `ucf101` hold them, read without TensorFlow."""

import io
import json

import numpy as np
import pytest

from gan_jax.data import open_dataset
from gan_jax.errors import UserError

VIDEO = {"pythonClassName": "tensorflow_datasets.core.features.video_feature.Video"}


def film(index: int, count: int) -> np.ndarray:
    """uint8 (count, 6, 8)."""
    return np.random.default_rng(index).integers(0, 256, (count, 6, 8), np.uint8)


def _set(root, feature: str, length, counts):
    """A prepared set of films. A `Video` lies on the disk as a sequence of pictures does, and TFDS writes the former
    with TensorFlow alone: so this writes the latter, and calls it as TFDS does."""
    import tensorflow_datasets as tfds
    from PIL import Image

    from gan_jax.data.tfds_source import quiet

    def encoded(frame):
        file = io.BytesIO()
        Image.fromarray(frame).save(file, "png")
        file.seek(0)
        return file

    class TinyFilms(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = f"tiny_{feature}"
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            frames = tfds.features.Sequence(tfds.features.Image(shape=(6, 8, 1), encoding_format="png"), length=length)
            features = {feature: frames, "label": tfds.features.ClassLabel(names=["even", "odd"])}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features),
                                         disable_shuffling=True)  # fmt: skip

        def _split_generators(self, dl_manager):
            return {"test": self._generate_examples()}

        def _generate_examples(self):
            for index, count in enumerate(counts):
                yield index, {feature: [encoded(frame) for frame in film(index, count)], "label": index % 2}

    with quiet():
        builder = TinyFilms(data_dir=root, file_format="array_record")
        builder.download_and_prepare()
    file = builder.data_path / "features.json"
    features = json.loads(file.read_text())
    shape = {"dimensions": [str(length or -1), "6", "8", "1"]}
    video = {"shape": shape, "dtype": "uint8", "encodingFormat": "png"}
    features["featuresDict"]["features"][feature] = {**VIDEO, "video": video}
    file.write_text(json.dumps(features))
    return root


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    _set(root, "image_sequence", 5, [5, 5])
    return _set(root, "video", None, [4, 9, 2])


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GAN_JAX_CACHE_DIR", str(tmp_path))


def _opened(name, root, **settings):
    settings = {"split": "test", "resolution": (6, 8), "frames": 2, **settings}
    return open_dataset(name=f"tfds:{name}", dir=str(root), **settings)


def test_films_of_one_length_are_cut(prepared):
    data = _opened("tiny_image_sequence", prepared)
    assert data.size == 4 and data.class_names == ("even", "odd")
    batch = data.examples(np.arange(4))
    np.testing.assert_array_equal(batch["video"][..., 0], [film(i, 5)[j : j + 2] for i in (0, 1) for j in (0, 2)])
    np.testing.assert_array_equal(batch["label"], [0, 0, 1, 1])


def test_films_of_any_length_are_counted_once(prepared):
    data = _opened("tiny_video", prepared, frames=3, frame_step=2, skip_corrupt=True)
    assert (data.size, data.skipped) == (1, 2)  # of 4, 9 and 2 frames
    np.testing.assert_array_equal(data.examples(np.array([0]))["video"][0, ..., 0], film(1, 9)[:5:2])
    whole = _opened("tiny_video", prepared)
    np.testing.assert_array_equal(whole.examples(np.arange(whole.size))["label"], [0, 0, 1, 1, 1, 1, 0])


def test_what_cannot_be_read_as_clips_is_named(prepared):
    with pytest.raises(UserError, match="example 2 cannot be used: it has 2 frames, and clips of data.frames=3 reach"):
        _opened("tiny_video", prepared, frames=3)
    with pytest.raises(UserError, match="has no feature 'image' that is a picture.*Set data.frames to read its films"):
        _opened("tiny_video", prepared, frames=0)
    with pytest.raises(UserError, match="data.split='train' is not known.*test"):
        _opened("tiny_video", prepared, split="train")
    with pytest.raises(UserError, match="'tfds:moving_mnist' is not prepared in"):
        _opened("moving_mnist", prepared)


def test_a_set_of_pictures_has_no_films(prepared, tmp_path):
    open_dataset(name="digits", dir=str(tmp_path))
    with pytest.raises(UserError, match="no feature that is a film; it has: image, label. Set data.frames=0"):
        open_dataset(name="tfds:digits", dir=str(tmp_path), frames=2)
