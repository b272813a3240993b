"""Opening sets, order, resuming, sharding, the cache: against scikit-learn, PIL and plain counting."""

import itertools
import json
import pathlib
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest

from gan_jax import specs
from gan_jax.cache import cache_dir
from gan_jax.data import Dataset, dataset, open_dataset, order, pack
from gan_jax.data.fit import CorruptImageError, make_fit
from gan_jax.data.source import Source
from gan_jax.data.stream import prefetch
from gan_jax.errors import UserError


def take(data: Dataset, batches: int, **arguments) -> list[dict]:
    stream = data.stream(**arguments)
    try:
        return list(itertools.islice(stream, batches))
    finally:
        stream.close()


def same(left: dict, right: dict) -> None:
    assert left.keys() == right.keys()
    for key in left:
        np.testing.assert_array_equal(left[key], right[key])
        assert left[key].dtype == right[key].dtype


def data_threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name == "gan_jax-data"]


@pytest.fixture
def no_packing(monkeypatch):
    monkeypatch.setattr(pack, "LIMIT_BYTES", 0)


# The bundled digits.


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    levels = np.round(bunch.images * 255 / 16).astype(np.uint8)
    expected = sorted(
        (image.tobytes(), int(label)) for image, label in zip(levels, bunch.target, strict=True)
    )
    pairs = []
    for split, size in (("train", 1437), ("test", 360)):
        data = open_dataset(name="digits", split=split, resolution=8)
        assert (data.size, data.spec) == (size, specs.labelled((8, 8, 1), 10))
        batch = data.examples(np.arange(size))
        assert batch["image"].shape == (size, 8, 8, 1) and batch["label"].dtype == np.int32
        pairs += [
            (image.tobytes(), int(label)) for image, label in zip(batch["image"], batch["label"], strict=True)
        ]
        share = np.bincount(batch["label"], minlength=10) / np.bincount(bunch.target)
        np.testing.assert_allclose(share, size / 1797, atol=0.01)
    assert sorted(pairs) == expected


def test_digits_resize_is_pil_exactly():
    from PIL import Image
    from sklearn.datasets import load_digits

    data = open_dataset(name="digits", resolution=(32, 20), channels=3, filter="bicubic", crop="none")
    by_class = np.argsort(load_digits().target, kind="stable")
    first = np.sort(by_class[np.arange(1797) % 5 != 0])[:3]
    for place, index in enumerate(first):
        levels = np.round(load_digits().images[index] * 255 / 16).astype(np.uint8)
        expected = Image.fromarray(levels).convert("RGB").resize((20, 32), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(data.examples([place])["image"][0], np.asarray(expected))


def test_digits_slice_and_all():
    assert open_dataset(name="digits", split="train[:10%]", resolution=8).size == 144
    assert open_dataset(name="digits", split="all", resolution=8).size == 1797
    with pytest.raises(UserError, match=r"Did you mean 'train'\? Choose one of: train, test"):
        open_dataset(name="digits", split="trian")


def test_digits_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        open_dataset(name="digits", dir=str(tmp_path / "file" / "below"))


# Order, resuming, sharding.


def test_every_epoch_holds_every_example_once_in_a_new_order():
    data = open_dataset(name="synthetic:50", resolution=4)
    whole = data.examples(np.arange(50))["image"]
    place = {image.tobytes(): index for index, image in enumerate(whole)}
    assert len(place) == 50
    batches = take(data, 15, seed=3, start=0, batch_size=10, rows=np.arange(10))
    seen = np.array([place[image.tobytes()] for batch in batches for image in batch["image"]]).reshape(3, 50)
    for epoch in seen:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(50))
    assert (seen[0] != seen[1]).any() and (seen[1] != seen[2]).any()
    other = take(data, 1, seed=4, start=0, batch_size=50, rows=np.arange(50))[0]
    assert (other["image"] != whole[seen[0]]).any()


@pytest.mark.parametrize("limit", [8 << 30, 0])
def test_resume_at_any_position_and_with_another_batch_size(limit, monkeypatch):
    monkeypatch.setattr(pack, "LIMIT_BYTES", limit)
    data = open_dataset(name="synthetic:23", resolution=4, channels=3)
    images = np.concatenate(
        [b["image"] for b in take(data, 12, seed=1, start=0, batch_size=8, rows=np.arange(8))]
    )
    for start in (8, 13, 23, 40):
        again = take(data, 1, seed=1, start=start, batch_size=5, rows=np.arange(5))[0]
        np.testing.assert_array_equal(again["image"], images[start : start + 5])


@pytest.mark.parametrize("name", ["synthetic:23", "mixture:grid25"])
def test_the_union_of_the_processes_is_the_whole(name):
    data = open_dataset(name=name, resolution=4)
    whole = take(data, 4, seed=7, start=3, batch_size=12, rows=np.arange(12))
    for rows in (np.arange(12).reshape(3, 4), np.arange(12).reshape(4, 3).T):
        parts = [take(data, 4, seed=7, start=3, batch_size=12, rows=part) for part in rows]
        for k, batch in enumerate(whole):
            for part, mine in zip(rows, parts, strict=True):
                same(mine[k], {key: value[part] for key, value in batch.items()})


def test_a_large_set_decoded_while_used_equals_the_packed_one(monkeypatch):
    settings = dict(name="digits", resolution=16, channels=1)
    packed = open_dataset(**settings)
    monkeypatch.setattr(pack, "LIMIT_BYTES", 0)
    live = open_dataset(**settings)
    assert type(live.reader).__name__ == "Live" and type(packed.reader).__name__ == "Packed"
    assert (live.size, live.class_names, live.shape) == (packed.size, packed.class_names, packed.shape)
    indices = np.array([5, 0, 1436, 5])
    same(live.examples(indices), packed.examples(indices))
    arguments = dict(seed=2, start=1430, batch_size=16, rows=np.arange(4, 12))
    for left, right in zip(take(live, 3, **arguments), take(packed, 3, **arguments), strict=True):
        same(left, right)


def test_fingerprints_are_those_of_runs_that_stand(monkeypatch):
    """Recorded before packs had one file a field: runs of then find their data unchanged."""
    settings = dict(name="synthetic:7", resolution=6)
    assert open_dataset(**settings).fingerprint.startswith("8d8ea0917bde1bc84d372da85df851d3")
    assert open_dataset(name="digits", resolution=8).fingerprint.startswith("04de96a3738b7fb30c3dba34eba8e870")
    monkeypatch.setattr(pack, "LIMIT_BYTES", 1)
    assert open_dataset(**settings).fingerprint.startswith("f54120c548ad12bfae9d67d97f945d48")


def _several_fields(count: int, bad: int = -1) -> Source:
    """Pictures, masks, points and labels whose values tell the example's number."""
    spec = {
        "image": specs.Field("image", (4, 4, 3)), "mask": specs.Field("mask", (4, 4, 1)),
        "points": specs.Field("points", (2,)), "label": specs.Field("label", (), 5),
    }  # fmt: skip

    def read(index):
        if index == bad:
            raise CorruptImageError("it is broken")
        values = {"image": index, "mask": 255 - index, "points": index / 4, "label": index % 5}
        return {name: np.full(field.shape, values[name], field.dtype) for name, field in spec.items()}

    return Source({"kind": "several", "count": count, "bad": bad}, count, spec, tuple("abcde"), read)


@pytest.mark.parametrize("packed", [True, False])
def test_a_set_of_several_fields(packed):
    """Packed, or decoded while used, with and without an example that cannot be used: by counting."""
    fit = make_fit(resolution=4, channels=3, crop="center", crop_size=0, filter="box")
    common = dict(name="several", split="train", flip=False)
    data = dataset.of_source(_several_fields(9, bad=2), fit, common, skip_corrupt=True, packed=packed)
    assert (data.size, data.skipped, list(data.spec)) == (8, 1, ["image", "mask", "points", "label"])
    batch = data.examples(np.arange(8))
    numbers = np.array([0, 1, 3, 4, 5, 6, 7, 8])
    assert {name: (array.shape, array.dtype) for name, array in batch.items()} == {
        "image": ((8, 4, 4, 3), np.uint8), "mask": ((8, 4, 4, 1), np.uint8), "points": ((8, 2), np.float32),
        "label": ((8,), np.int32),
    }  # fmt: skip
    np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], numbers)
    np.testing.assert_array_equal(batch["mask"][:, 3, 3, 0], 255 - numbers)
    np.testing.assert_array_equal(batch["points"][:, 1], numbers / 4)
    np.testing.assert_array_equal(batch["label"], numbers % 5)
    (streamed,) = take(data, 1, seed=1, start=0, batch_size=8, rows=np.arange(8))
    np.testing.assert_array_equal(streamed["image"][:, 0, 0, 0] % 5, streamed["label"])
    np.testing.assert_array_equal(np.sort(streamed["image"][:, 0, 0, 0]), numbers)
    assert {name: array.shape for name, array in data.examples([]).items()}["mask"] == (0, 4, 4, 1)
    assert (data.packed() is not None) == packed


def test_every_field_counts_in_the_fingerprint():
    fit = make_fit(resolution=4, channels=3, crop="center", crop_size=0, filter="box")
    common, source = dict(name="several", split="train", flip=False), _several_fields(6)
    first = dataset.of_source(source, fit, common, skip_corrupt=False).fingerprint
    for name in source.spec:
        def read(index, name=name):
            example = source.read(index)
            return {**example, name: example[name] + (index == 4)}

        changed = source._replace(identity={"changed": name}, read=read)
        assert dataset.of_source(changed, fit, common, skip_corrupt=False).fingerprint != first, name


def test_the_order_is_pinned():
    """SplitMix64 from 0 starts with these numbers in its authors' code; the order itself is recorded."""
    assert [hex(value) for value in order.bits(np.arange(3))] == [
        "0xe220a8397b1dcdaf",
        "0x6e789e6aa1b965f4",
        "0x6c45d188009454f",
    ]
    np.testing.assert_array_equal(order.permutation(8, 0, 0), [7, 0, 2, 3, 6, 5, 1, 4])


def test_shuffling_is_unbiased():
    """Where example 0 of 8 lands over 4,000 epochs: each place 500 times, chi-square below its 99.9 %."""
    places = np.array([np.argmin(order.permutation(8, 11, epoch)) for epoch in range(4000)])
    counts = np.bincount(places, minlength=8)
    assert ((counts - 500) ** 2 / 500).sum() < 24.3


def test_wrong_arguments_of_stream_and_examples():
    data = open_dataset(name="synthetic:5", resolution=4)
    good = dict(seed=0, start=0, batch_size=4, rows=np.arange(4))
    for change in (
        {"start": -1},
        {"batch_size": 0},
        {"rows": [4]},
        {"rows": []},
        {"seed": -1},
        {"start": 1.5},
    ):
        with pytest.raises(UserError):
            data.stream(**{**good, **change})
    for index in (-1, 5):
        with pytest.raises(IndexError, match="5 examples"):
            data.examples([index])
    assert data.examples([])["image"].shape == (0, 4, 4, 1)


# The background thread.


def test_closing_a_stream_ends_its_thread(monkeypatch):
    before = len(data_threads())
    for limit in (8 << 30, 0):
        monkeypatch.setattr(pack, "LIMIT_BYTES", limit)
        stream = open_dataset(name="synthetic:5", resolution=4).stream(
            seed=0, start=0, batch_size=2, rows=np.arange(2)
        )
        next(stream)
        assert len(data_threads()) == before + 1
        stream.close()
        assert len(data_threads()) == before


def test_prefetch_forwards_batches_errors_and_the_end():
    def broken():
        yield 1
        yield 2
        raise UserError("third")

    stream = prefetch(broken(), 1)
    assert [next(stream), next(stream)] == [1, 2]
    with pytest.raises(UserError, match="third"):
        next(stream)
    assert list(prefetch(iter(range(5)), 2)) == [0, 1, 2, 3, 4]


def test_a_program_ends_although_its_stream_is_open():
    program = """
import numpy as np
from gan_jax.data import open_dataset, pack
pack.LIMIT_BYTES = 0
data = open_dataset(name="synthetic:9", resolution=4)
stream = data.stream(seed=0, start=0, batch_size=2, rows=np.arange(2))
print(next(stream)["image"].shape)
"""
    root = pathlib.Path(dataset.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "(2, 4, 4, 1)\n", "")


# The cache.


def count_reads(monkeypatch) -> list:
    """Counts how often a whole set is decoded."""
    calls, real = [], pack._write
    monkeypatch.setattr(pack, "_write", lambda *args, **kwargs: (calls.append(1), real(*args, **kwargs)))
    return calls


def test_a_pack_is_reused_and_mended(monkeypatch, tmp_path):
    monkeypatch.setenv("GAN_JAX_CACHE_DIR", str(tmp_path))  # other tests pack at the same time
    calls = count_reads(monkeypatch)
    first = open_dataset(name="synthetic:31", resolution=6)
    again = open_dataset(name="synthetic:31", resolution=6)
    assert len(calls) == 1 and first.fingerprint == again.fingerprint
    open_dataset(name="synthetic:31", resolution=6, channels=3)
    assert len(calls) == 2
    (folder,) = [
        path.parent for path in (cache_dir("packed")).glob("*/image.npy") if _shape(path) == (31, 6, 6, 1)
    ]
    data = (folder / "image.npy").read_bytes()
    (folder / "image.npy").write_bytes(data[:-10])
    mended = open_dataset(name="synthetic:31", resolution=6)
    assert len(calls) == 3 and mended.fingerprint == first.fingerprint
    assert (folder / "image.npy").read_bytes() == data
    assert not list(cache_dir("packed").glob("*.tmp-*"))


def _shape(path: pathlib.Path) -> tuple:
    return np.load(path, mmap_mode="r").shape


def test_a_disk_without_room_for_the_pack_is_one_message(monkeypatch, tmp_path):
    """31 pictures of 9x9, labelled, are 2,635 bytes: a mapped file on a full disk ends the process by a signal."""
    monkeypatch.setenv("GAN_JAX_CACHE_DIR", str(tmp_path))  # other tests pack at the same time
    usage = shutil.disk_usage
    monkeypatch.setattr(pack.shutil, "disk_usage", lambda path: usage(path)._replace(free=2634))
    with pytest.raises(UserError, match="of decoded images do not fit.*GAN_JAX_CACHE_DIR"):
        open_dataset(name="synthetic:31", resolution=9)
    assert not list(cache_dir("packed").glob("*.tmp-*"))
    monkeypatch.setattr(pack.shutil, "disk_usage", lambda path: usage(path)._replace(free=2635))
    assert open_dataset(name="synthetic:31", resolution=9).size == 31


def test_two_processes_may_pack_at_once(monkeypatch, tmp_path):
    """A second process starts and finishes while the first one still writes."""
    monkeypatch.setenv("GAN_JAX_CACHE_DIR", str(tmp_path))  # other tests pack at the same time
    settings, packs, real = dict(name="synthetic:37", resolution=4), [], pack._write

    def slow(*args, **kwargs):
        real(*args, **kwargs)
        if not packs:
            packs.append(None)
            packs.append(open_dataset(**settings))

    monkeypatch.setattr(pack, "_write", slow)
    first = open_dataset(**settings)
    assert packs[1].fingerprint == first.fingerprint and first.size == 37
    same(packs[1].examples(np.arange(37)), first.examples(np.arange(37)))
    assert not list(cache_dir("packed").glob("*.tmp-*"))


def test_two_processes_may_prepare_the_digits_at_once(monkeypatch, tmp_path):
    """A second process starts and finishes while the first one still writes."""
    from gan_jax.data.digits import Digits

    settings, opened, real = (
        dict(name="digits", resolution=8, dir=str(tmp_path)),
        [],
        Digits._generate_examples,
    )

    def slow(self, indices):
        if not opened:
            opened.append(None)
            opened.append(open_dataset(**settings))
        yield from real(self, indices)

    monkeypatch.setattr(Digits, "_generate_examples", slow)
    assert open_dataset(**settings).fingerprint == opened[1].fingerprint
    assert [path.name for path in (tmp_path / "digits").iterdir()] == ["1.0.0"]


def test_a_cache_that_cannot_be_written_is_done_without(monkeypatch, tmp_path, capsys):
    usual = open_dataset(name="synthetic:3", resolution=4)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GAN_JAX_CACHE_DIR", str(tmp_path / "file"))
    for _ in range(2):
        assert open_dataset(name="synthetic:3", resolution=4).fingerprint == usual.fingerprint
    warning = capsys.readouterr().err
    assert warning.count("cannot be written") == 1 and "set $GAN_JAX_CACHE_DIR" in warning


# Names, settings, protocol.


def test_protocol_is_json_and_complete():
    data = open_dataset(name="synthetic:7", resolution=(4, 6), channels=3, flip=True)
    stated = json.loads(json.dumps(data.protocol()))
    assert stated.pop("fingerprint") == data.fingerprint and len(data.fingerprint) == 64
    assert stated == {
        "name": "synthetic:7",
        "split": "train",
        "resolution": [4, 6],
        "channels": 3,
        "crop": "center",
        "crop_size": 0,
        "filter": "lanczos",
        "skip_corrupt": False,
        "flip": True,
        "count": 7,
        "skipped": 0,
    }
    json.dumps(open_dataset(name="mixture:ring8").protocol())


@pytest.mark.parametrize(
    "change, message",
    [
        ({"name": "digit"}, "Did you mean 'digits'"),
        ({"name": "mixture:ring9"}, "Did you mean 'mixture:ring8'"),
        ({"name": "synthetic:many"}, "expected a number of images"),
        ({"name": "synthetic:0"}, "expected a number of images"),
        ({"split": "val"}, "Choose one of: train, test"),
        ({"crop": "centre"}, "Did you mean 'center'"),
        ({"filter": "lanczos3"}, "Did you mean 'lanczos'"),
        ({"channels": 5}, "Choose one of: 1, 2, 3, 4"),
        ({"channels": [3]}, "expected a whole number"),
        ({"resolution": 0}, "whole number of at least 1"),
        ({"resolution": (4, 4, 4)}, r"one number or \(height, width\)"),
        ({"resolution": "32"}, "whole number"),
        ({"crop_size": -1}, "at least 0"),
        ({"crop_size": 8, "crop": "none"}, "cuts nothing"),
    ],
)
def test_wrong_settings_name_the_way_out(change, message):
    with pytest.raises(UserError, match=message):
        open_dataset(**{"name": "synthetic:5", **change})


def test_mixture_has_one_split():
    with pytest.raises(UserError, match="'train' alone"):
        open_dataset(name="mixture:ring8", split="test")


@pytest.mark.parametrize("shape", [(5, 7, 1), (8, 8, 2), (6, 6, 3), (9, 4, 4)])
def test_synthetic_pictures_depend_on_the_label(shape):
    data = open_dataset(name="synthetic:60", resolution=shape[:2], channels=shape[2])
    batch = data.examples(np.arange(60))
    assert batch["image"].shape == (60, *shape) and data.spec["label"].classes == 10
    assert len(set(batch["label"].tolist())) == 10
    assert len({image.tobytes() for image in batch["image"]}) == 60
    if shape[2] in (2, 4):
        assert (batch["image"][..., -1] == 255).all()
    test = open_dataset(name="synthetic:60", split="test", resolution=shape[:2], channels=shape[2])
    assert (
        test.examples(np.arange(60))["image"] != batch["image"]
    ).any() and test.fingerprint != data.fingerprint


def test_importing_the_package_stays_light():
    heavy = ("grain", "PIL", "sklearn", "jax", "tensorflow_datasets")
    program = f"import sys, gan_jax.data; print([name for name in {heavy} if name in sys.modules])"
    root = pathlib.Path(dataset.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
