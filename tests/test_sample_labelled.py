"""A labelled set of generated images: class folders or a TFDS set, whole or not at all, read by any trainer."""

import re

import numpy as np
import pytest
from PIL import Image

import gan_jax
from gan_jax import cli, data, labelled_files, sample
from gan_jax.errors import UserError
from tests import settings

FIT = {"resolution": 32, "channels": 1}


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labelled") / "run"
    settings.fresh_folder(settings.digits(conditional=True), folder)
    return folder


@pytest.fixture(scope="module")
def stills(labelled, tmp_path_factory):
    """The images that seeds 0 to 29 have with the labels of a set of three a class, (30, 32, 32, 1)."""
    out = tmp_path_factory.mktemp("stills")
    labels = ",".join(str(number // 3) for number in range(30))
    files = sample.sample(labelled, out, seeds="0-29", labels=labels)
    return np.stack([np.asarray(Image.open(file))[:, :, None] for file in files[:-1]])


def test_a_folder_of_class_folders(labelled, stills, tmp_path, monkeypatch):
    """An image is that of its seed and label, however many are drawn at once; ours and torchvision's rule read it."""
    monkeypatch.setattr(labelled_files, "AT_ONCE", 7)
    out = tmp_path / "set"
    assert cli.main(["sample", f"--workdir={labelled}", f"--out={out}", "--per_class=3", "--as=folder"]) == 0
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png"))
    assert files == [f"{seed // 3}/seed{seed:06}.png" for seed in range(30)]
    for number, file in enumerate(files):
        np.testing.assert_array_equal(np.asarray(Image.open(out / file)), stills[number, :, :, 0])
    assert [path.name for path in tmp_path.iterdir()] == ["set"], "nothing is left beside it"

    dataset = data.open_dataset(name=f"folder:{out}", **FIT)
    examples = dataset.examples(np.arange(30))
    np.testing.assert_array_equal(examples["image"], stills)
    assert dataset.class_names == tuple(map(str, range(10))) and dataset.class_counts == (3,) * 10
    # torchvision.datasets.ImageFolder: classes are the sorted names of the folders in the root
    classes = sorted(entry.name for entry in out.iterdir() if entry.is_dir())
    assert classes == list(dataset.class_names) and examples["label"].tolist() == [n // 3 for n in range(30)]


def test_a_tfds_set(labelled, stills, tmp_path, monkeypatch):
    """In several files; opened by TFDS and by our own name for it."""
    import tensorflow_datasets as tfds

    from gan_jax.data import generated

    monkeypatch.setattr(generated, "SHARD_BYTES", 1024 * 8)
    monkeypatch.setattr(generated, "AT_ONCE", 9)
    (place,) = sample.sample(labelled, tmp_path / "set", per_class=3, as_="tfds")
    assert place == tmp_path / "set" / "generated" / "1.0.0" and (place / "features.json").is_file()
    assert len(list(place.glob("*array_record*"))) == 4

    builder = tfds.builder_from_directory(str(place))
    assert builder.info.features["image"].shape == (32, 32, 1) and builder.info.splits["train"].num_examples == 30
    assert builder.info.features["label"].names == list(map(str, range(10)))
    assert "3 images of each class" in builder.info.description and str(tmp_path) not in builder.info.description
    rows = list(builder.as_data_source("train"))
    np.testing.assert_array_equal([row["image"] for row in rows], stills)
    assert [(row["seed"], row["label"]) for row in rows] == [(n, n // 3) for n in range(30)]

    dataset = data.open_dataset(name="tfds:generated", dir=str(tmp_path / "set"), **FIT)
    examples = dataset.examples(np.arange(30))
    np.testing.assert_array_equal(examples["image"], stills)
    assert examples["label"].tolist() == [n // 3 for n in range(30)]


def test_the_same_from_python(labelled, stills, tmp_path):
    run = gan_jax.open_run(labelled)
    files = run.save_set(tmp_path / "set", 3)
    assert files[4] == tmp_path / "set" / "1" / "seed000004.png" and len(files) == 30
    np.testing.assert_array_equal(np.asarray(Image.open(files[-1])), stills[-1, :, :, 0])
    with pytest.raises(UserError, match="^out=.*: holds files already"):
        run.save_set(tmp_path / "set", 3)
    with pytest.raises(UserError, match="^as_?=xyz: expected folder or tfds$"):
        run.save_set(tmp_path / "other", 3, as_="xyz")


@pytest.mark.parametrize("form", labelled_files.FORMS)
def test_whole_or_not_at_all(tmp_path, form):
    """What fails midway leaves nothing, and the next command begins anew beside what a killed one left."""
    options = {"form": form, "class_names": ("a", "b"), "shape": (4, 4, 3), "about": "a test"}
    seeds, labels = labelled_files.seeds_and_labels(2, 300)
    (tmp_path / ".set.part" / "a").mkdir(parents=True)
    (tmp_path / ".set.part" / "a" / "seed000000.png").write_text("half")

    def draw(seeds, labels, last=10**6):
        if seeds[-1] > last:
            raise KeyboardInterrupt
        return np.broadcast_to(np.uint8(seeds % 256)[:, None, None, None], (len(seeds), 4, 4, 3))

    with pytest.raises(KeyboardInterrupt):
        labelled_files.write(lambda *a: draw(*a, last=500), seeds, labels, tmp_path / "set", **options)
    assert not list(tmp_path.iterdir())
    (tmp_path / "set").mkdir()
    files = labelled_files.write(draw, seeds, labels, tmp_path / "set", **options)
    assert all(file.exists() for file in files) and [path.name for path in tmp_path.iterdir()] == ["set"]
    if form == "folder":
        assert len(files) == 600 and np.asarray(Image.open(files[431])).max() == 431 % 256


def test_names_of_classes_become_names_of_folders():
    """Those that a folder can have stay; the others differ from all."""
    names = labelled_files.folder_names(("cat", "a/b", "a_b", ".hidden", "..", "tab\t", "cat"))
    assert names == ("cat", "a_b", "a_b_2", "hidden", "class4", "tab_", "cat_6")
    assert labelled_files.folder_names(("a", "a_2", "a")) == ("a", "a_2", "a_2_2")


@pytest.mark.parametrize(("flags", "message"), [
    ({"per_class": 0}, "--per_class=0: expected 1 to 1000000 images of each class"),
    ({"per_class": 2, "as_": "xyz"}, "--as=xyz: expected folder or tfds"),
    ({"as_": "tfds"}, "--as=tfds: needs --per_class=N too"),
    ({"per_class": 2, "labels": "3"}, "--per_class=2 with --labels=3: a labelled set has seeds and labels of its "),
    ({"per_class": 2, "seeds": "0-3"}, "--per_class=2 with --seeds=0-3: a labelled set has seeds and labels of its "),
    ({"per_class": 2, "interpolate": 3}, "--per_class=2 with --interpolate=3: a labelled set is of still images"),
    ({"per_class": 2, "inputs": "a.png"}, "--per_class=2 with --inputs=a.png: a labelled set is of still images"),
])  # fmt: skip
def test_flags_that_make_no_sense(labelled, tmp_path, flags, message):
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        sample.sample(labelled, tmp_path / "set", **flags)
    assert not (tmp_path / "set").exists()


def test_runs_and_places_that_take_no_labelled_set(labelled, tmp_path):
    settings.fresh_folder(settings.digits(), tmp_path / "plain")
    with pytest.raises(UserError, match="^--per_class=2: this run is unconditional, and has no classes to draw"):
        sample.sample(tmp_path / "plain", tmp_path / "set", per_class=2)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(UserError, match="^--out=.*full: holds files already, and a labelled set is a folder of its"):
        sample.sample(labelled, tmp_path / "full", per_class=2)
    with pytest.raises(UserError, match="^--out=.*mine.txt: is a file; "):
        sample.sample(labelled, tmp_path / "full" / "mine.txt", per_class=2)
    with pytest.raises(UserError, match=r"samples of the shape \(2,\); a labelled set takes images of 1, 3 or 4"):
        labelled_files.write(None, np.arange(2), np.arange(2), tmp_path / "points", form="folder",
                             class_names=("a", "b"), shape=(2,), about="")  # fmt: skip
