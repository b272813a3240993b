"""Photographs and faces of scikit-image and scikit-learn: their squares by hand; no test pixel is trained on."""

import numpy as np
import pytest
from skimage import data as bundled
from sklearn.datasets import load_sample_image

from gan_jax.data import open_dataset
from gan_jax.errors import UserError


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GAN_JAX_CACHE_DIR", str(tmp_path))


def test_squares_of_training_overlap_and_end_where_the_test_rows_begin():
    look = {"name": "photographs:grass+gravel", "resolution": 64, "channels": 1}
    train, test = (open_dataset(split=split, **look) for split in ("train", "test"))
    # 512 rows: the last 102 are held out; 410 hold 11 squares every 32 rows, 512 columns hold 15; 102 rows hold 1
    assert train.class_names == ("grass", "gravel") and train.class_counts == (11 * 15, 11 * 15)
    assert test.class_counts == (1 * 8, 1 * 8)
    batch = train.examples(np.array([1, 15, 11 * 15 - 1, 11 * 15]))
    grass, gravel = bundled.grass(), bundled.gravel()
    squares = [grass[:64, 32:96], grass[32:96, :64], grass[320:384, 448:512], gravel[:64, :64]]
    np.testing.assert_array_equal(batch["image"][..., 0], squares)
    np.testing.assert_array_equal(batch["label"], [0, 0, 0, 1])
    np.testing.assert_array_equal(test.examples(np.array([1]))["image"][0, ..., 0], grass[410:474, 64:128])


def test_squares_larger_than_the_resolution_are_made_smaller_and_colours_stay():
    china = open_dataset(name="photographs:china", split="all", resolution=50, channels=3, crop_size=100, filter="box")
    assert china.size == 4 * 6  # 427x640
    image = china.examples(np.array([7]))["image"][0].astype(float)
    square = load_sample_image("china.jpg")[100:200, 100:200].reshape(50, 2, 50, 2, 3).mean((1, 3))
    np.testing.assert_allclose(image, square, atol=1)


def test_faces_are_the_first_hundred_and_every_fifth_is_held_out():
    look = {"name": "faces", "resolution": 25, "channels": 1}
    train, test = (open_dataset(split=split, **look) for split in ("train", "test"))
    assert (train.size, test.size) == (80, 20)
    faces = np.round(255 * bundled.lfw_subset()).astype(np.uint8)
    np.testing.assert_array_equal(test.examples(np.array([0, 19]))["image"][..., 0], faces[[4, 99]])
    np.testing.assert_array_equal(train.examples(np.array([0, 4, 79]))["image"][..., 0], faces[[0, 5, 98]])
    whole = open_dataset(name="faces", split="test", resolution=24, channels=1)
    assert whole.fingerprint != test.fingerprint


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "photographs:gras"}, "Did you mean 'photographs:grass'"),
        ({"name": "photographs:grass", "split": "val"}, "train, test, all"),
        ({"name": "photographs:grass", "split": "test", "resolution": 128}, "102 rows of 512 pixels, fewer than"),
        ({"name": "faces", "split": "val"}, "train, test, all"),
        ({"name": "faces:lfw"}, "faces"),
        ({"name": "photographs"}, "photographs:NAME"),
    ],
)
def test_a_mistake_is_one_message(settings, message):
    with pytest.raises(UserError, match=message):
        open_dataset(**settings)
