"""Labels of folders and zips: what stands in `dataset.json`, which folders are classes, which are splits."""

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from gan_jax import run_data, runs
from gan_jax.data import Joined, open_dataset, pack
from gan_jax.errors import UserError

SETTINGS = dict(resolution=4, channels=3, crop="none", filter="nearest")


def encoded(seed: int) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels(seed)).save(data, "PNG")
    return data.getvalue()


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)


def write(root, names) -> None:
    """An image of its own at each path."""
    for seed, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encoded(seed))


def zipped(path, entries: dict) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            info = zipfile.ZipInfo("x")
            info.filename = name  # as it is: zipfile itself would mend a backslash
            archive.writestr(info, data)


def opened(path, split="train", **settings):
    return open_dataset(name=f"folder:{path}", split=split, **{**SETTINGS, **settings})


def labels(dataset) -> list[int]:
    return dataset.examples(np.arange(dataset.size))["label"].tolist()


SHARDS = [f"{i // 3:05}/img{i:08}.png" for i in range(6)]


@pytest.mark.parametrize("rows", [
    [[name, i % 3] for i, name in enumerate(SHARDS)],
    [[name.replace("/", "\\"), i % 3] for i, name in enumerate(SHARDS)],
    [[name, [float(i % 3 == c) for c in range(3)]] for i, name in enumerate(SHARDS)],
    {name: i % 3 for i, name in enumerate(SHARDS)},
], ids=["numbers", "backslashes", "one-hot", "dict"])  # fmt: skip
@pytest.mark.parametrize("limit", [8 << 30, 0])
def test_the_labels_are_those_of_dataset_json(tmp_path, monkeypatch, rows, limit):
    monkeypatch.setattr(pack, "LIMIT_BYTES", limit)
    write(tmp_path, SHARDS)
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": rows}))
    data = opened(tmp_path)
    assert labels(data) == [0, 1, 2, 0, 1, 2] and data.spec["label"].classes == 3
    assert data.class_counts == (2, 2, 2) and data.notes == ()
    assert data.contents == "6 samples of 3 classes: 0 2, 1 2, 2 2"


@pytest.mark.parametrize("top", ["", "my data/"])
def test_dataset_json_in_a_zip(tmp_path, top):
    described = json.dumps({"labels": [[name, i] for i, name in enumerate(SHARDS)]})
    entries = {top + name: encoded(i) for i, name in enumerate(SHARDS)} | {f"{top}dataset.json": described}
    zipped(tmp_path / "set.zip", entries)
    assert labels(opened(tmp_path / "set.zip")) == [0, 1, 2, 3, 4, 5]


def test_dataset_json_beside_one_shard_and_inside_a_split(tmp_path):
    write(tmp_path / "one", ["00000/a.png", "00000/b.png"])
    (tmp_path / "one" / "dataset.json").write_text('{"labels": [["00000/a.png", 1], ["00000/b.png", 0]]}')
    assert labels(opened(tmp_path / "one")) == [1, 0]
    write(tmp_path / "two", ["train/a.png", "train/b.png", "test/a.png"])
    (tmp_path / "two" / "train" / "dataset.json").write_text('{"labels": [["a.png", 1], ["b.png", 0]]}')
    assert labels(opened(tmp_path / "two")) == [1, 0]
    assert "label" not in opened(tmp_path / "two", "test").spec


def test_without_labels_shards_are_no_classes(tmp_path):
    write(tmp_path, SHARDS)
    (tmp_path / "dataset.json").write_text('{"labels": null}')
    data = opened(tmp_path)
    assert set(data.spec) == {"image"} and data.size == 6 and data.contents == "6 samples"


def test_labels_of_several_classes_are_left_out_aloud(tmp_path):
    write(tmp_path, ["a.png", "b.png"])
    (tmp_path / "dataset.json").write_text('{"labels": [["a.png", [1, 1, 0]], ["b.png", [0, 0.5, 0]]]}')
    data = opened(tmp_path)
    assert set(data.spec) == {"image"}
    assert any("not one class an image" in note for note in data.notes)


def test_images_that_are_described_and_not_there_are_counted(tmp_path):
    write(tmp_path, ["a.png", "b.png"])
    (tmp_path / "dataset.json").write_text('{"labels": [["a.png", 0], ["b.png", 1], ["c.png", 1], ["d.png", 1]]}')
    assert any("2 of its images are not there" in note for note in opened(tmp_path).notes)


@pytest.mark.parametrize("limit", [8 << 30, 0])
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_other_labels_are_other_data(tmp_path, monkeypatch, limit, kind):
    monkeypatch.setattr(pack, "LIMIT_BYTES", limit)
    write(tmp_path / "set", ["a.png", "b.png"])
    opened_sets = []
    for first in (0, 1):
        described = json.dumps({"labels": [["a.png", first], ["b.png", 1 - first]]})
        (tmp_path / "set" / "dataset.json").write_text(described)
        images = {name: (tmp_path / "set" / name).read_bytes() for name in ("a.png", "b.png")}
        zipped(tmp_path / "set.zip", images | {"dataset.json": described})
        opened_sets.append(opened(tmp_path / ("set.zip" if kind == "zip" else "set")))
    assert [labels(data) for data in opened_sets] == [[0, 1], [1, 0]]
    assert opened_sets[0].fingerprint != opened_sets[1].fingerprint
    if kind == "folder" and not limit:
        assert opened_sets[0].content() != opened_sets[1].content()


def test_a_split_has_as_many_classes_as_the_file_names(tmp_path):
    names = ["train/a.png", "train/b.png", "train/c.png", "test/a.png"]
    write(tmp_path, names)
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": [[name, i % 3] for i, name in enumerate(names)]}))
    assert [opened(tmp_path, split).spec["label"].classes for split in ("train", "test", "all")] == [3, 3, 3]


@pytest.mark.parametrize(("text", "message"), [
    ('{"labels": [["a.png", 0]]}', "no label for 1 of 2 images, such as 'b.png'"),
    ('{"labels": [["a.png", 0], ["b.png", -1]]}', "whole number from 0 on"),
    ('{"labels": [["a.png", true], ["b.png", 1]]}', "whole number from 0 on"),
    ('{"labels": [["a.png", [0, 1]], ["b.png", [1]]]}', "list of numbers of one length"),
    ('{"labels": [["a.png", "cat"], ["b.png", "dog"]]}', "whole number from 0 on"),
    ('{"labels": 3}', r"a list of \[image, label\]"),
    ('{"labels": [["a.png", 0], [', "cannot be read"),
    ('{"labels": ' + 100_000 * "[", "cannot be read"),
    ('{"labels": [["a.png", 0], ["b.png", 10000000000]]}', "10000000000 is no number of a class"),
])  # fmt: skip
def test_a_dataset_json_that_is_not_clear_is_an_error(tmp_path, text, message):
    write(tmp_path, ["a.png", "b.png"])
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(UserError, match=message):
        opened(tmp_path)


def test_another_dataset_json_means_nothing(tmp_path):
    write(tmp_path, ["cat/a.png", "dog/b.png"])
    (tmp_path / "dataset.json").write_text('{"name": "pets"}')
    assert opened(tmp_path).class_names == ("cat", "dog")


@pytest.mark.parametrize("top", ["outer/", "outer/inner/"])
def test_a_single_folder_around_all_is_looked_through(tmp_path, top):
    zipped(tmp_path / "set.zip", {f"{top}{name}/{i}.png": encoded(i) for name in ("cat", "dog") for i in range(2)}
           | {f"__MACOSX/{top}._x.png": b"junk", f"{top}.DS_Store": b"junk"})  # fmt: skip
    data = opened(tmp_path / "set.zip")
    assert data.class_names == ("cat", "dog") and labels(data) == [0, 0, 1, 1] and data.notes == ()
    write(tmp_path, [f"plain/{top}{i}.png" for i in range(2)])
    assert set(opened(tmp_path / "plain").spec) == {"image"}
    assert opened(tmp_path / "plain", top.split("/")[0]).size == 2  # it may be asked for by its name


def test_backslashes_separate_folders_in_a_zip(tmp_path):
    zipped(tmp_path / "set.zip", {f"{name}\\{i}.png": encoded(i) for name in ("cat", "dog") for i in range(2)})
    data = opened(tmp_path / "set.zip")
    assert data.class_names == ("cat", "dog") and labels(data) == [0, 0, 1, 1]
    np.testing.assert_array_equal(data.examples([3])["image"][0], pixels(1))


def test_an_empty_class_folder_is_an_error(tmp_path):
    write(tmp_path, ["cat/a.png", "owl/b.png"])
    (tmp_path / "dog").mkdir()
    with pytest.raises(UserError, match="sub-folder 'dog' is empty"):
        opened(tmp_path)
    (tmp_path / "dog" / "readme.txt").write_text("no class")
    data = opened(tmp_path)
    assert data.class_names == ("cat", "owl") and any(".txt 1" in note for note in data.notes)


def test_one_class_beside_an_empty_folder_is_an_error_too(tmp_path):
    zipped(tmp_path / "set.zip", {"cat/a.png": encoded(0), "dog/": b""})
    with pytest.raises(UserError, match="sub-folder 'dog' is empty"):
        opened(tmp_path / "set.zip")


@pytest.mark.parametrize(("folders", "sizes"), [
    (("Train", "Test"), {"train": 2, "test": 1, "all": 3, "Train": 2}),
    (("TRAINING", "Val"), {"train": 2, "validation": 1, "valid": 1}),
    (("trainA", "testA"), {"trainA": 2, "testa": 1, "all": 3}),
])  # fmt: skip
@pytest.mark.parametrize("top", ["", "outer/"])
def test_split_folders_in_any_case(tmp_path, folders, sizes, top):
    write(tmp_path / "set", [f"{top}{folders[0]}/a.png", f"{top}{folders[0]}/b.png", f"{top}{folders[1]}/a.png"])
    for split, size in sizes.items():
        data = opened(tmp_path / "set", split)
        assert data.size == size and set(data.spec) == {"image"}
    absent = "train" if folders[0] == "trainA" else "eval" if "Test" in folders else "test"
    with pytest.raises(UserError, match=f"no sub-folder '{absent}' with images .it has"):
        opened(tmp_path / "set", absent)


@pytest.mark.parametrize("split", ["train", "all"])
def test_a_class_that_is_called_as_a_split_is_asked_about(tmp_path, split):
    write(tmp_path, ["Bus/a.png", "Car/b.png", "Train/c.png"])
    with pytest.raises(UserError, match="has Train, called as a split is, beside Bus, Car"):
        opened(tmp_path, split)
    assert opened(tmp_path, "Train").notes == (f"{tmp_path}: beside the split 'Train', left out: Bus, Car",)


def test_the_training_split_names_the_classes(tmp_path):
    write(tmp_path, ["train/cat/a.png", "train/dog/b.png", "test/unknown/0.png"])
    assert opened(tmp_path).class_names == ("cat", "dog")
    test = opened(tmp_path, "test")
    assert set(test.spec) == {"image"} and "unknown" in test.notes[0] and "no labels" in test.notes[0]
    write(tmp_path, ["test/dog/1.png"])
    with pytest.raises(UserError, match="the class 'unknown' is none of the training split .cat, dog."):
        opened(tmp_path, "test")


def test_splits_within_a_folder_that_is_asked_for_are_joined(tmp_path):
    write(tmp_path, [f"flowers/{split}/{name}/a.png" for split in ("train", "test") for name in ("rose", "tulip")])
    data = opened(tmp_path, "flowers")
    assert data.class_names == ("rose", "tulip") and labels(data) == [0, 1, 0, 1]


def test_paths_from_here_in_a_zip(tmp_path):
    zipped(tmp_path / "set.zip", {f"./{name}/a.png": encoded(i) for i, name in enumerate(("cat", "dog"))})
    assert opened(tmp_path / "set.zip").class_names == ("cat", "dog")


def test_a_class_has_one_number_in_all_splits(tmp_path):
    write(tmp_path, ["train/cat/a.png", "train/dog/a.png", "train/owl/a.png", "test/dog/a.png", "test/owl/a.png"])
    assert labels(opened(tmp_path)) == [0, 1, 2] and labels(opened(tmp_path, "test")) == [1, 2]
    assert labels(opened(tmp_path, "all")) == [1, 2, 0, 1, 2]


def test_two_folders_for_one_split_are_an_error(tmp_path):
    write(tmp_path, ["val/a.png", "valid/a.png", "train/a.png"])
    assert opened(tmp_path, "val").size == 1
    with pytest.raises(UserError, match="has val, valid; set data.split"):
        opened(tmp_path, "validation")


def conditional(path, split="train"):
    overrides = [("data.name", f"folder:{path}"), ("data.split", split), ("evaluation.metrics", "()")]
    return runs.load_config("experiments/digits_dcgan_conditional.py:smoke", overrides)


@pytest.fixture
def at_the_root(monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)


def test_a_game_with_labels_wants_two_classes(tmp_path, at_the_root):
    write(tmp_path, ["train/cat/a.png", "train/cat/b.png", "all/cat/a.png", "all/dog/b.png"])
    config = conditional(tmp_path)
    with pytest.raises(UserError, match="are of one class: give data with two classes or more"):
        run_data.data_spec(config, run_data.open_data(config))
    config = conditional(tmp_path / "all")
    assert run_data.data_spec(config, run_data.open_data(config))["label"].classes == 2


def test_a_game_with_labels_is_told_which_were_left_out(tmp_path, at_the_root):
    write(tmp_path, ["a.png", "b.png"])
    (tmp_path / "dataset.json").write_text('{"labels": [["./a.png", [1, 1]], ["b.png", [0, 1]]]}')
    config = conditional(tmp_path)
    with pytest.raises(UserError, match="reads the field 'label', and .* has image alone.*not one class an image"):
        run_data.data_spec(config, run_data.open_data(config))


def test_the_classes_of_data_are_named(tmp_path):
    write(tmp_path, ["cat/a.png", "cat/b.png", "dog/a.png"])
    data = opened(tmp_path)
    assert data.contents == "3 samples of 2 classes: cat 2, dog 1"
    assert data.summary()["classes"] == {"cat": 2, "dog": 1}
    joined = Joined({"a": data, "b": data})
    assert joined.contents == f"a {data.contents}; b {data.contents}"
    assert joined.summary()["parts"]["b"]["classes"] == {"cat": 2, "dog": 1}


@pytest.mark.parametrize(("mode", "channels", "message"), [
    ("RGB", 1, "colour images are read as grey"), ("L", 1, ""), ("L", 3, ""), ("RGB", 3, ""),
    ("RGBA", 3, "transparency is dropped"), ("RGBA", 4, ""), ("LA", 1, "transparency is dropped"),
])  # fmt: skip
def test_what_a_number_of_channels_takes_away_is_said(tmp_path, mode, channels, message):
    rgba = np.random.default_rng(0).integers(0, 255, (4, 4, 4), np.uint8)
    Image.fromarray(rgba, "RGBA").convert(mode).save(tmp_path / "a.png")
    notes = opened(tmp_path, channels=channels).notes
    assert [message in note for note in notes] == ([True] if message else [])
