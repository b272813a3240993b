"""The first so many examples of each class: against plain counting of the whole set."""

import numpy as np
import pytest
from PIL import Image

from gan_jax.data import open_dataset, pack
from gan_jax.errors import UserError


def _first(labels, count):
    """Places of the first `count` of each class, in the order of the set."""
    seen, places = {}, []
    for place, label in enumerate(map(int, labels)):
        seen[label] = seen.get(label, 0) + 1
        places += [place] if seen[label] <= count else []
    return places


@pytest.fixture
def folder(tmp_path):
    """Six pictures of `a`, four of `b` and three of `c`, each of its own grey."""
    for number, (name, count) in enumerate((("a", 6), ("b", 4), ("c", 3))):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(count):
            Image.new("L", (8, 8), 60 * number + 10 * i).save(tmp_path / "pictures" / name / f"{i}.png")
    return f"folder:{tmp_path / 'pictures'}"


def test_ten_of_each_digit_are_the_first_ten():
    whole, small = (open_dataset(name="digits", split=split, resolution=8) for split in ("train", "train@10"))
    examples = whole.examples(np.arange(whole.size))
    places = _first(examples["label"], 10)
    assert small.size == 100 and small.class_counts == (10,) * 10 and small.spec == whole.spec
    for name, array in small.examples(np.arange(100)).items():
        np.testing.assert_array_equal(array, examples[name][places])
    stream = small.stream(seed=3, start=0, batch_size=100, rows=np.arange(100))
    np.testing.assert_array_equal(np.bincount(next(stream)["label"]), [10] * 10)
    stream.close()
    assert (small.packed()["image"] == examples["image"][places]).all()
    assert small.protocol()["split"] == "train@10" and small.protocol()["count"] == 100
    prints = {split: open_dataset(name="digits", split=split, resolution=8).fingerprint
              for split in ("train", "train@10", "train@11", "test@10")}  # fmt: skip
    assert len(set(prints.values())) == 4 and prints["train@10"] == small.fingerprint


@pytest.mark.parametrize("limit", [pack.LIMIT_BYTES, 0])
def test_classes_of_a_folder_decoded_before_or_while_used(folder, limit, monkeypatch):
    monkeypatch.setattr(pack, "LIMIT_BYTES", limit)
    small = open_dataset(name=folder, split="all@3", resolution=8)
    batch = small.examples(np.arange(small.size))
    order = np.argsort(batch["image"][:, 0, 0, 0])
    np.testing.assert_array_equal(batch["image"][order, 0, 0, 0], [0, 10, 20, 60, 70, 80, 120, 130, 140])
    np.testing.assert_array_equal(batch["label"][order], [0, 0, 0, 1, 1, 1, 2, 2, 2])


@pytest.mark.parametrize(("split", "message"), [
    ("all@4", "the class 'c' of 'folder:.*' has 3 examples; expected 4 or more of each class"),
    ("all@0", "data.split='all@0': expected a split, and a number of 1 or more behind its @, as in train@10"),
    ("all@few", "expected a split, and a number of 1 or more"),
    ("@4", "expected a split, and a number of 1 or more"),
])  # fmt: skip
def test_what_cannot_be_taken(folder, split, message):
    with pytest.raises(UserError, match=message):
        open_dataset(name=folder, split=split, resolution=8)


def test_sets_without_labels_or_whose_labels_are_not_known(monkeypatch, tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "one.png")
    with pytest.raises(UserError, match="'folder:.*' has no labels, of which to take some of each"):
        open_dataset(name=f"folder:{tmp_path}", split="train@1", resolution=8)
    monkeypatch.setattr(pack, "LIMIT_BYTES", 0)
    with pytest.raises(UserError, match="the labels of 'digits' are not known before all is read"):
        open_dataset(name="digits", split="train@10", resolution=8)
