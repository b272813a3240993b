"""Pairs: outlines of digits."""

import numpy as np
import pytest

from gan_jax.data import open_dataset
from gan_jax.data.outlines import outline
from gan_jax.errors import UserError
from gan_jax.specs import Field


def test_an_outline_is_ink_beside_paper():
    image = np.zeros((6, 7, 1), np.uint8)
    image[1:5, 1:6] = 200
    image[0, 0] = 127  # paper, to one level
    expected = np.zeros((6, 7), np.uint8)
    expected[1:5, 1:6] = 255
    expected[2:4, 2:5] = 0
    np.testing.assert_array_equal(outline(image)[..., 0], expected)
    edge = np.full((3, 3, 1), 128, np.uint8)  # what lies outside is paper
    assert outline(edge)[..., 0].tolist() == [[255, 255, 255], [255, 0, 255], [255, 255, 255]]


def test_outlines_of_digits_have_the_grey_digits_beside_them():
    look = {"resolution": 16, "channels": 1, "split": "test"}
    pairs, digits = (open_dataset(name=name, **look) for name in ("digits:outlines", "digits"))
    image = Field("image", (16, 16, 1))
    assert pairs.spec == {"image": image, "source": image, "label": Field("label", (), 10)}
    assert pairs.size == digits.size == 360 and pairs.fingerprint != digits.fingerprint
    both, grey = (dataset.examples(np.arange(360)) for dataset in (pairs, digits))
    np.testing.assert_array_equal(both["image"], grey["image"])
    np.testing.assert_array_equal(both["label"], grey["label"])
    np.testing.assert_array_equal(both["source"][7], outline(grey["image"][7]))
    assert set(np.unique(both["source"])) == {0, 255}


def test_outlines_are_grey():
    with pytest.raises(UserError, match="set data.channels=1, not 3"):
        open_dataset(name="digits:outlines", channels=3)
