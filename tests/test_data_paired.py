"""Pairs: outlines of digits, pictures side by side, folders of equal names."""

import numpy as np
import pytest
from PIL import Image

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


# Folders.


def _save(root, names, side=8):
    """Pictures of one grey level each, by name: {name: level}."""
    for name, level in names.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (side, side), (level,) * 3).save(path)


def _levels(dataset):
    """(source, image) of each example, by their level."""
    examples = dataset.examples(np.arange(dataset.size))
    return [(int(a.max()), int(b.max())) for a, b in zip(examples["source"], examples["image"], strict=True)]


def test_pictures_side_by_side(tmp_path):
    """Left is A; each half is cut to the aspect wanted and resized by itself, as an own file would be."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 3), ("val", 1)):
        (tmp_path / split).mkdir()
        for i in range(count):
            picture = Image.fromarray(rng.integers(0, 256, (12, 40, 3), dtype=np.uint8))
            picture.save(tmp_path / split / f"{i}.png")
            for folder, box in (("left", (0, 0, 20, 12)), ("right", (20, 0, 40, 12))):
                (tmp_path / "apart" / folder).mkdir(parents=True, exist_ok=True)
                picture.crop(box).save(tmp_path / "apart" / folder / f"{split}{i}.png")
    (tmp_path / "apart").rename(tmp_path.with_name("apart"))
    look = {"resolution": 8, "channels": 3}
    left, right = (open_dataset(name=f"folder:{tmp_path.with_name('apart') / side}", **look).examples(np.arange(3))
                   for side in ("left", "right"))  # fmt: skip
    for direction, (source, image) in (("ab", (left, right)), ("ba", (right, left))):
        pairs = open_dataset(name=f"folder:{tmp_path}", pair="side_by_side", direction=direction, **look)
        assert list(pairs.spec) == ["image", "source"] and pairs.size == 3
        assert pairs.protocol()["pair"] == "side_by_side" and pairs.protocol()["direction"] == direction
        examples = pairs.examples(np.arange(3))
        np.testing.assert_array_equal(examples["source"], source["image"])
        np.testing.assert_array_equal(examples["image"], image["image"])
    assert open_dataset(name=f"folder:{tmp_path}", pair="side_by_side", split="val", **look).size == 1


@pytest.mark.parametrize("layout", ["{split}{side}", "{split}/{side}", "{side}/{split}", "outer/{split}{side}"])
def test_two_folders_of_equal_names(tmp_path, layout):
    """Endings may differ, and the case of the folders."""
    for split, names in (("train", {"1": 10, "2": 20, "in/3": 30}), ("test", {"9": 90})):
        for side, ending, plus in (("a", "png", 0), ("B", "bmp", 100)):
            folder = tmp_path / layout.format(split=split, side=side)
            _save(folder, {f"{name}.{ending}": level + plus for name, level in names.items()})
    look = {"name": f"folder:{tmp_path}", "resolution": 4, "pair": "folders"}
    assert _levels(open_dataset(**look)) == [(10, 110), (20, 120), (30, 130)]
    assert _levels(open_dataset(**look, direction="ba")) == [(110, 10), (120, 20), (130, 30)]
    assert _levels(open_dataset(**look, split="test")) == [(90, 190)]
    with pytest.raises(UserError, match="'val'.* has none of valA/ and valB/"):
        open_dataset(**look, split="val")


def test_two_folders_without_splits_are_what_is_trained_on(tmp_path):
    _save(tmp_path, {"A/1.png": 1, "B/1.png": 2})
    for split in ("train", "all"):
        assert _levels(open_dataset(name=f"folder:{tmp_path}", pair="folders", split=split)) == [(1, 2)]


def test_a_copy_elsewhere_has_the_same_content(tmp_path):
    for place in ("one", "two"):
        _save(tmp_path / place, {"trainA/1.png": 1, "trainB/1.png": 2})
    one, two = (open_dataset(name=f"folder:{tmp_path / place}", pair="folders") for place in ("one", "two"))
    other = open_dataset(name=f"folder:{tmp_path / 'one'}", pair="folders", direction="ba")
    assert one.fingerprint == two.fingerprint != other.fingerprint


@pytest.mark.parametrize(("names", "options", "message"), [
    ({"A/1.png": 1, "A/2.png": 1, "A/3.png": 1, "B/1.png": 1}, {}, r"A/2.png has no partner .* in B/ \(2 without"),
    ({"A/1.png": 1, "B/1.png": 1, "B/0.png": 1}, {}, r"B/0.png has no partner .* in A/ \(1 without"),
    ({"A/1.png": 1}, {}, "A/1.png has no partner"),
    ({"A/1.png": 1, "A/1.bmp": 1, "B/1.png": 1}, {}, "A/1.bmp and A/1.png, two pictures of one name"),
    ({"C/1.png": 1, "D/1.png": 1}, {}, "has none of trainA/ and trainB/"),
    ({"1.png": 1}, {"pair": "beside"}, "data.pair='beside' is not known"),
    ({"1.png": 1}, {"direction": "a"}, "data.direction='a' is not known"),
    ({"1.png": 1}, {"name": "digits"}, "data.pair='folders': pairs are read from folders"),
])  # fmt: skip
def test_errors(tmp_path, names, options, message):
    _save(tmp_path, names)
    with pytest.raises(UserError, match=message):
        open_dataset(**{"name": f"folder:{tmp_path}", "pair": "folders", **options})


def test_an_odd_width_is_no_pair(tmp_path):
    _save(tmp_path, {"1.png": 1}, side=9)
    with pytest.raises(UserError, match="1.png cannot be used: it is 9 pixels wide"):
        open_dataset(name=f"folder:{tmp_path}", pair="side_by_side")
