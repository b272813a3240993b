"""Named fields of data, and how they are written."""

import json

import pytest

from gan_jax import specs
from gan_jax.errors import UserError
from gan_jax.specs import Field


def test_images_and_points_with_and_without_labels():
    assert specs.labelled((8, 6, 3)) == {"image": Field("image", (8, 6, 3), 0)}
    spec = specs.labelled([2], 25)
    assert spec == {"image": Field("points", (2,), 0), "label": Field("label", (), 25)}
    assert specs.classes(spec) == 25 and specs.classes(spec, "b_label") == 0


def test_what_is_written_is_read_again_and_older_folders_too():
    spec = {"a": Field("image", (8, 8, 3)), "words": Field("tokens", (12,), 400)}
    assert specs.from_json(json.loads(json.dumps(specs.to_json(spec)))) == spec
    for classes in (0, 10):  # as `data.json` was before fields had names
        old = specs.from_json({"shape": [32, 32, 1], "num_classes": classes})
        assert old == specs.labelled((32, 32, 1), classes)


@pytest.mark.parametrize("value", ({}, {"a": {"kind": "photo", "shape": [1], "classes": 0}}, {"a": {"kind": "image"}}))
def test_what_is_neither_is_refused(value):
    with pytest.raises((KeyError, ValueError)):
        specs.from_json(value)


def test_a_field_that_the_data_lack_is_named():
    spec = specs.labelled((8, 8, 3))
    assert specs.chosen(spec, ("image",), "mine") == spec
    with pytest.raises(UserError, match="the game reads the field 'label', and the data 'mine' has image alone"):
        specs.chosen(spec, ("image", "label"), "mine")
