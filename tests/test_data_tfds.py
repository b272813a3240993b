"""TFDS sets by name: prepared ones are read, all others are errors that tell what to run."""

import io
import json
import socket

import numpy as np
import pytest

from gan_jax.data import open_dataset
from gan_jax.errors import UserError


def picture(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (6, 6 + index % 3, 3), np.uint8)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A data folder with a TFDS set of 20 pictures, made by a builder that TFDS does not know."""
    import tensorflow_datasets as tfds
    from PIL import Image

    from gan_jax.data.tfds_source import quiet

    class TinyPictures(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
                "label": tfds.features.ClassLabel(names=["even", "odd"]),
                "note": tfds.features.Text(),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(0, 16), "test": self._generate_examples(16, 20)}

        def _generate_examples(self, start, stop):
            for index in range(start, stop):
                png = io.BytesIO()
                Image.fromarray(picture(index)).save(png, "png")
                png.seek(0)
                yield index, {"image": png, "label": index % 2, "note": "unused"}

    root = tmp_path_factory.mktemp("tfds")
    with quiet():
        TinyPictures(data_dir=root, file_format="array_record").download_and_prepare()
    return root


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_a_prepared_set_is_read(prepared):
    data = open_dataset(name="tfds:tiny_pictures", dir=str(prepared), resolution=6, channels=3)
    assert (data.size, data.class_names) == (16, ("even", "odd"))
    batch = data.examples(np.arange(0, 16, 3))
    np.testing.assert_array_equal(batch["image"], np.stack([picture(index) for index in range(0, 16, 3)]))
    np.testing.assert_array_equal(batch["label"], [0, 1, 0, 1, 0, 1])
    part = open_dataset(
        name="tfds:tiny_pictures", dir=str(prepared), resolution=6, channels=3, split="train[4:8]"
    )
    np.testing.assert_array_equal(part.examples(np.arange(part.size))["label"], [0, 1, 0, 1])
    assert part.fingerprint != data.fingerprint
    test = open_dataset(name="tfds:tiny_pictures:1.0.0", dir=str(prepared), resolution=6, split="test")
    assert test.size == 4


def test_an_unknown_split_names_the_splits(prepared):
    with pytest.raises(UserError, match=r"'tests'.*Did you mean 'test'\?.*train, test.*train\[:90%\]"):
        open_dataset(name="tfds:tiny_pictures", dir=str(prepared), split="tests")
    with pytest.raises(UserError, match="incompatible with 16 examples"):
        open_dataset(name="tfds:tiny_pictures", dir=str(prepared), split="train[:99]")


def test_a_format_without_random_access(prepared, tmp_path):
    import shutil

    shutil.copytree(prepared, tmp_path / "copy")
    info = tmp_path / "copy" / "tiny_pictures" / "1.0.0" / "dataset_info.json"
    stated = json.loads(info.read_text())
    info.write_text(json.dumps({**stated, "fileFormat": "tfrecord"}))
    with pytest.raises(UserError, match="format tfrecord, without random access.*tfds build tiny_pictures"):
        open_dataset(name="tfds:tiny_pictures", dir=str(tmp_path / "copy"))


def test_a_file_that_is_gone(prepared, tmp_path):
    import shutil

    shutil.copytree(prepared, tmp_path / "copy")
    for path in (tmp_path / "copy").rglob("*train.array_record*"):
        path.unlink()
    with pytest.raises(UserError, match="a file of the split 'train' is missing"):
        open_dataset(name="tfds:tiny_pictures", dir=str(tmp_path / "copy"))


@pytest.mark.parametrize(
    "name, command",
    [
        ("cifar10", "tfds build cifar10 --file_format=array_record --data_dir={root}"),
        (
            "cycle_gan/apple2orange",
            "tfds build cycle_gan/apple2orange --file_format=array_record --data_dir={root}",
        ),
    ],
)
def test_a_set_that_is_not_prepared_gets_the_command(name, command, tmp_path):
    with pytest.raises(UserError) as caught:
        open_dataset(name=f"tfds:{name}", dir=str(tmp_path))
    assert command.format(root=tmp_path) in str(caught.value)
    assert "is not prepared" in str(caught.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name, message",
    [
        ("cifra10", "Did you mean 'tfds:cifar10'"),
        ("cycle_gan/apple2oranges", "Did you mean 'tfds:cycle_gan/apple2orange'"),
        ("mnist/big", "Choose one of: tfds:mnist"),
        ("huggingface:mnist", "expected tfds:NAME"),
        ("", "expected tfds:NAME"),
        ("mnist:9.9.9", "tfds build mnist:9.9.9"),
        ("imdb_reviews", "is not prepared"),
    ],
)
def test_unknown_names(name, message, tmp_path):
    with pytest.raises(UserError, match=message):
        open_dataset(name=f"tfds:{name}", dir=str(tmp_path))


def test_a_set_is_downloaded_and_prepared_where_that_is_asked_for(tmp_path, monkeypatch, capsys):
    """A set that TFDS knows and whose pictures lie at hand; then one whose download needs the network."""
    import tensorflow_datasets as tfds

    class LocalPictures(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = tfds.features.FeaturesDict({"image": tfds.features.Image(shape=(None, None, 3))})
            return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            from PIL import Image

            for index in range(4):
                png = io.BytesIO()
                Image.fromarray(picture(index)).save(png, "png")
                png.seek(0)
                yield index, {"image": png}

    arguments = {"name": "tfds:local_pictures", "dir": str(tmp_path), "resolution": 6, "channels": 3}
    with pytest.raises(UserError, match="is not prepared in .*only with --config.data.download=True"):
        open_dataset(**arguments)
    data = open_dataset(**arguments, download=True)
    assert "preparing tfds:local_pictures" in capsys.readouterr().out
    np.testing.assert_array_equal(data.examples([0, 3])["image"], np.stack([picture(0), picture(3)]))
    assert open_dataset(**arguments).fingerprint == data.fingerprint

    def offline(*args):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(LocalPictures, "_split_generators", offline)
    with pytest.raises(UserError, match="'tfds:local_pictures' cannot be downloaded: no route .*tfds build local_pic"):
        open_dataset(**{**arguments, "dir": str(tmp_path / "other")}, download=True)


def test_digits_make_no_noise(tmp_path, capfd):
    open_dataset(name="digits", dir=str(tmp_path), resolution=8)
    assert capfd.readouterr() == ("", "")
