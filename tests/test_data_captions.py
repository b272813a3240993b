"""Captions: words and tokens, folders, zips, TFDS sets, and the captioned digits."""

import io
import json
import re
import zipfile

import numpy as np
import pytest
from PIL import Image

from gan_jax.data import captions, open_dataset
from gan_jax.data.digits_captions import meanings
from gan_jax.data.fit import CorruptImageError, square_about
from gan_jax.errors import MissingPathError, UserError
from gan_jax.specs import Field


@pytest.mark.parametrize(("text", "words"), [
    ("A bird's red-brown wing!", ["a", "bird's", "red", "brown", "wing"]),
    ("two dim digits: seven left, three right", ["two", "dim", "digits", "seven", "left", "three", "right"]),
    ("'quoted' rock 'n' roll, 3.5 m_2", ["quoted", "rock", "n", "roll", "3", "5", "m", "2"]),
    ("Der ÄRGER; l’eau", ["der", "ärger", "l'eau"]),
    ("cafe\u0301", ["caf\u00e9"]),  # composed, as NFC has it
    ("नमस्ते दुनिया।", ["नमस्ते", "दुनिया"]),  # marks belong to their letters
    ("一只鸟 (bird)", ["一只鸟", "bird"]),
    ("?! -- …", []),
])  # fmt: skip
def test_words_of_a_text(text, words):
    assert captions.words_of(text) == words


def test_a_list_of_words_is_by_frequency_then_letters():
    texts = ["b a", "a c b a", "Ä"]
    assert captions.vocabulary(texts) == ("", "<unknown>", "a", "b", "c", "ä")
    tokenizer = captions.Words(captions.vocabulary(texts))
    assert tokenizer.encode("A, b? z <unknown> ä") == [2, 3, 1, 1, 5]
    assert tokenizer.unknown("A, b? z y") == ["z", "y"]
    assert tokenizer.decode([2, 1, 0, 0]) == "a <unknown>"


def test_long_texts_are_cut_and_an_end_token_stays():
    tokens, cut = captions.encode(["a b c", "a"], captions.Words(("", "?", "a", "b", "c")), 2)
    assert tokens.tolist() == [[2, 3], [2, 0]] and tokens.dtype == np.int32 and cut == 1

    class WithEnd:
        words, ends = ("", "end", "x"), True

        def encode(self, text):
            return [2] * len(text) + [1]

    assert captions.encode(["xxxx", "x"], WithEnd(), 3)[0].tolist() == [[2, 2, 1], [2, 1, 0]]


# Folders.


def _fill(root, files):
    """Pictures by the level that they have, other files by their text or bytes."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, int):
            Image.new("L", (4, 4), content).save(path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def _line(**record):
    return json.dumps(record) + "\n"


def _said(dataset):
    """Level of each example and its captions as text."""
    examples = dataset.examples(np.arange(dataset.size))
    return {int(image.max()): [captions.Words(dataset.words).decode(row) for row in rows]
            for image, rows in zip(examples["image"], examples["caption"], strict=True)}  # fmt: skip


FILES = {
    "train/1.png": 1, "train/1.txt": "A red bird.\n\nA bird\r\n", "train/2.png": 200, "train/2.TXT": "\ufeffblue",
    "test/9.png": 9, "test/9.txt": "a Green bird",
}  # fmt: skip
LINES = {
    **{name: content for name, content in FILES.items() if isinstance(content, int)},
    "all.jsonl": _line(file="train/1.png", captions=["A red bird.", "A bird"]) + "\n"
    + _line(file_name="./train/2.png", text="blue") + _line(file="test/9.png", caption="a Green bird"),
}  # fmt: skip
LINES_IN_SPLITS = {
    **{name: content for name, content in FILES.items() if isinstance(content, int)},
    "train/metadata.jsonl": _line(file_name="1.png", captions=["A red bird.", "A bird"])
    + _line(file_name="2.png", caption=["blue"]),
    "test/metadata.jsonl": _line(file_name="9.png", caption="a Green bird"),
}  # fmt: skip


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("files", [FILES, LINES, LINES_IN_SPLITS], ids=["txt", "jsonl", "jsonl_in_splits"])
def test_captions_of_a_folder(tmp_path, files, packed):
    """The words are those of the training split; fewer captions are repeated, more are left."""
    place = _fill(tmp_path / "set", files)
    if packed:
        with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
            for name in files:
                archive.write(place / name, name)
        place = tmp_path / "set.zip"
    look = {"name": f"folder:{place}", "resolution": 4, "captions": 3, "caption_length": 4}
    train = open_dataset(**look)
    assert train.words == ("", "<unknown>", "a", "bird", "blue", "red")
    assert train.spec == {"image": Field("image", (4, 4, 1)), "caption": Field("tokens", (3, 4), 6)}
    assert _said(train) == {1: ["a red bird", "a bird", "a red bird"], 200: ["blue"] * 3}
    assert train.summary()["words"] == list(train.words) and train.notes == ()
    assert train.contents == "2 samples, captions of 6 tokens"
    assert {key: train.protocol()[key] for key in ("captions", "caption_length", "tokenizer")} == {
        "captions": 3, "caption_length": 4, "tokenizer": "words"}  # fmt: skip
    test = open_dataset(**look, split="test")
    assert test.words == train.words and _said(test) == {9: ["a <unknown> bird"] * 3}
    one = open_dataset(**{**look, "captions": 1})
    assert _said(one) == {1: ["a red bird"], 200: ["blue"]}
    assert "captions" not in open_dataset(name=f"folder:{place}", resolution=4).protocol()


def test_classes_stand_beside_captions(tmp_path):
    _fill(tmp_path, {"cat/1.png": 1, "cat/1.txt": "a cat", "dog/2.png": 2, "dog/2.txt": "a dog"})
    dataset = open_dataset(name=f"folder:{tmp_path}", resolution=4, captions=1)
    assert list(dataset.spec) == ["image", "label", "caption"] and dataset.class_names == ("cat", "dog")
    assert dataset.examples(np.arange(2))["label"].tolist() == [0, 1]


def test_other_captions_are_other_data_and_a_copy_is_the_same(tmp_path):
    prints = []
    for place, text in (("one", "a cat"), ("two", "a cat"), ("three", "a dog"), ("four", "a cat cat")):
        _fill(tmp_path / place, {"1.png": 1, "1.txt": text})
        prints.append(open_dataset(name=f"folder:{tmp_path / place}", captions=1, resolution=4).fingerprint)
    assert prints[0] == prints[1] and len(set(prints)) == 3


def test_long_captions_are_cut_with_a_line(tmp_path):
    _fill(tmp_path, {"1.png": 1, "1.txt": "one two three four\nfive", "2.png": 2, "2.txt": "six"})
    dataset = open_dataset(name=f"folder:{tmp_path}", resolution=4, captions=2, caption_length=3)
    assert _said(dataset) == {1: ["one two three", "five"], 2: ["six", "six"]}
    assert "1 of 4 captions are cut to their first 3 words, by config.data.caption_length" in dataset.notes


@pytest.mark.parametrize("texts", [
    {"text/001.Wren/a.txt": "a wren", "text/b.txt": "a crow"},
    {"lines.jsonl": _line(file="images/a.jpg", caption="a wren") + _line(file="b.png", caption="a crow")},
])
def test_captions_from_another_place_go_by_name(tmp_path, texts):
    """More of them than there are pictures is no error: a set has several splits."""
    _fill(tmp_path / "set", {"x/a.png": 1, "y/b.png": 2})
    _fill(tmp_path / "texts", texts | ({"text/c.txt": "a finch"} if "text/b.txt" in texts else {}))
    look = {"name": f"folder:{tmp_path / 'set'}", "resolution": 4, "captions": 1}
    place = tmp_path / "texts" / ("lines.jsonl" if "lines.jsonl" in texts else "")
    dataset = open_dataset(**look, captions_from=str(place))
    assert _said(dataset) == {1: ["a wren"], 2: ["a crow"]} and dataset.words[2:] == ("a", "crow", "wren")
    with pytest.raises(MissingPathError, match="data.captions_from=.*nowhere: there is nothing at"):
        open_dataset(**look, captions_from=str(tmp_path / "nowhere"))


def test_tokens_of_clip(tmp_path):
    """Its end stays where a caption is cut; its words are in its file, and in no data.json."""
    from tests.test_data_bpe import LINES as TABLE

    _fill(tmp_path / "set", {"1.png": 1, "1.txt": "A red bird!", "2.png": 2, "2.txt": "a " * 20})
    (tmp_path / "table.txt").write_text(TABLE, encoding="utf-8")
    look = {"name": f"folder:{tmp_path / 'set'}", "resolution": 4, "captions": 1, "caption_length": 12}
    dataset = open_dataset(**look, tokenizer=f"clip:{tmp_path / 'table.txt'}")
    assert dataset.spec["caption"] == Field("tokens", (1, 12), 674) and len(dataset.words) == 674
    assert "words" not in dataset.summary() and dataset.protocol()["tokenizer"].startswith("clip:")
    tokens = dataset.examples(np.arange(2))["caption"][:, 0]
    assert tokens[:, 0].tolist() == [672, 672] and tokens.max(axis=1).tolist() == [673, 673]
    assert tokens[1, -1] == 673 and tokens[0, -1] == 0
    tokenizer = captions.open_tokenizer(f"clip:{tmp_path / 'table.txt'}", tuple)
    assert [tokenizer.decode(row) for row in tokens] == ["a red bird !", "a a a a a a a a a a"]
    assert "1 of 2 captions are cut to their first 12 words" in dataset.notes[-1]
    with pytest.raises(MissingPathError, match="none.txt: no such file"):
        open_dataset(**look, tokenizer=f"clip:{tmp_path / 'none.txt'}")


def test_more_captions_than_a_set_has_are_refused(tmp_path, monkeypatch):
    _fill(tmp_path, {"1.png": 1, "1.txt": "a red bird\na blue bird"})
    for limit, value in (("MOST_TEXT", 20), ("MOST_CAPTIONS", 1)):
        with monkeypatch.context() as patch, pytest.raises(UserError, match="more than .* captions, or .* characters"):
            patch.setattr(captions, limit, value)
            open_dataset(name=f"folder:{tmp_path}", resolution=4, captions=1)
    (tmp_path / "1.txt").unlink()
    (tmp_path / "a.jsonl").write_text(_line(file=f"{'x' * 30}.png", caption="a"))
    monkeypatch.setattr(captions, "MOST_TEXT", 20)
    with pytest.raises(UserError, match="more than .* captions, or 20 characters of such and of names"):
        open_dataset(name=f"folder:{tmp_path}", resolution=4, captions=1)


GOOD = {"1.png": 1, "1.txt": "one", "2.png": 2, "2.txt": "two"}
NAME = '{"file": "1.png", '


@pytest.mark.parametrize(("files", "message"), [
    ({**GOOD, "3.txt": "three"}, r"captions of '3', and no picture of that name \(1 without one\)"),
    ({"a.txt": "one"}, r"holds no images: .* it has .txt 1"),
    ({**GOOD, "3.png": 3, "4.png": 4}, r"the picture '3.png' has no caption \(2 of 4 without\). Write it into 3.txt"),
    ({"1.png": 1}, r"holds no captions: expected a .txt for each picture"),
    ({**GOOD, "2.txt": "\n \n"}, r"2.txt is empty: write a caption a line"),
    ({**GOOD, "2.txt": "two\n...\n"}, r"2.txt: the caption '...' has no word"),
    ({**GOOD, "2.txt": "two\nM\xe4rz".encode("latin-1")}, r"2.txt is no UTF-8 \(byte 5\): save it as such"),
    ({**GOOD, "2.txt": "two " * 20_000}, r"2.txt cannot be read: it unpacks to 0.1 MiB, and such a file of captions"),
    ({"1.png": 1, "a.jsonl": NAME}, r"a.jsonl, line 1: no JSON .* expected a line such as \{\"file\""),
    ({"1.png": 1, "a.jsonl": b"\n\xff\n"}, r"a.jsonl, line 2 is no UTF-8 \(byte 0\)"),
    ({"1.png": 1, "a.jsonl": "[]" * (1 << 20)}, r"a.jsonl, line 1: 2,097,152 bytes; expected a picture a line, of up"),
    ({"1.png": 1, "a.jsonl": "\n" + "[" * 100_000}, r"a.jsonl, line 2: no JSON"),
    ({"1.png": 1, "a.jsonl": '["1.png", "one"]'}, r"a.jsonl, line 1: expected a picture and its captions"),
    ({"1.png": 1, "a.jsonl": NAME + '"captions": [1]}'}, r"a.jsonl, line 1: expected a picture and its captions"),
    ({"1.png": 1, "a.jsonl": NAME + '"captions": []}'}, r"a.jsonl, line 1: '1.png' has no caption"),
    ({"1.png": 1, "a.jsonl": NAME + '"caption": " "}'}, r"a.jsonl, line 1: the caption ' ' has no word"),
    ({"1.png": 1, "a.jsonl": NAME.replace("1", "7") + '"caption": "a"}'}, r"captions of '7', and no picture"),
])  # fmt: skip
def test_what_is_wrong_with_captions_is_named(tmp_path, files, message):
    _fill(tmp_path, files)
    with pytest.raises(UserError, match=message) as error:
        open_dataset(name=f"folder:{tmp_path}", resolution=4, captions=1, skip_corrupt=True)
    assert "\n" not in str(error.value)


def test_a_pipe_is_no_file_of_captions(tmp_path):
    import os

    _fill(tmp_path, {"1.png": 1})
    os.mkfifo(tmp_path / "1.txt")
    with pytest.raises(UserError, match=r"1.txt cannot be read: it is a pipe, not a file"):
        open_dataset(name=f"folder:{tmp_path}", resolution=4, captions=1)


def test_two_files_of_one_name_elsewhere(tmp_path):
    _fill(tmp_path / "set", {"a.png": 1})
    _fill(tmp_path / "texts", {"x/a.txt": "one", "y/a.txt": "two"})
    with pytest.raises(UserError, match=r"captions of 'a.png' are in x/a and y/a: take one of them away"):
        open_dataset(name=f"folder:{tmp_path / 'set'}", captions=1, captions_from=str(tmp_path / "texts"))


@pytest.mark.parametrize(("options", "message"), [
    ({"name": "faces"}, "captions are of 'folder:PATH', 'tfds:NAME' and 'digits:captions', not of 'faces'"),
    ({"name": "mixture:ring8"}, "not of 'mixture:ring8'; leave it at 0"),
    ({"name": "folder:x", "pair": "folders"}, "not of pairs, data.pair='folders'"),
    ({"name": "tfds:x", "frames": 4}, "data.frames=4 with data.captions=1: captions are of pictures; leave"),
    ({"name": "folder:x", "captions": 0, "captions_from": "y"}, "data.captions_from='y': set data.captions to how"),
    ({"name": "folder:x", "captions": -1}, "data.captions=-1: expected a whole number of at least 0"),
    ({"name": "folder:x", "caption_length": 0}, "data.caption_length=0: expected a whole number of at least 1"),
    ({"name": "folder:x", "tokenizer": "letters"}, "data.tokenizer='letters' is not known. .*words"),
])  # fmt: skip
def test_settings_that_make_no_sense(options, message):
    with pytest.raises(UserError, match=message):
        open_dataset(**{"captions": 1, **options})


# TFDS.

BOXED = np.arange(20 * 40, dtype=np.int64).reshape(20, 40).astype(np.uint8)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A data folder with two sets: one whose examples have captions, as COCO's, and one with names, as CUB's birds."""
    import tensorflow_datasets as tfds

    from gan_jax.data.tfds_source import quiet

    class Captioned(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        NAMES = {"train": "abc", "val": "de"}

        def _features(self):
            return {"captions": tfds.features.Sequence({"text": np.str_, "id": np.int64})}

        def _info(self):
            features = {"image": tfds.features.Image(shape=(4, 4, 1), encoding_format="png"), **self._features()}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features),
                                         disable_shuffling=True)  # fmt: skip

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(names) for split, names in self.NAMES.items()}

        def _generate_examples(self, names):
            for name in names:
                png = io.BytesIO()
                Image.new("L", (4, 4), ord(name)).save(png, "png")
                png.seek(0)
                yield ord(name), {"image": png, **self._of(name)}

        def _of(self, name):
            return {"captions": [{"text": f"Letter {name}.", "id": 1}, {"text": "a letter", "id": 2}]}

    class Named(Captioned, skip_registration=True):
        def _features(self):
            return {"image/filename": tfds.features.Text()}

        def _of(self, name):
            return {"image/filename": f"images/{name}.jpg"}

    class Boxed(Captioned, skip_registration=True):
        def _features(self):
            return {"image": tfds.features.Image(shape=(20, 40, 1), encoding_format="png"),
                    "bbox": tfds.features.BBoxFeature()}  # fmt: skip

        def _of(self, name):
            png = io.BytesIO()
            Image.fromarray(BOXED).save(png, "png")
            png.seek(0)
            return {"image": png, "bbox": tfds.features.BBox(0.25, 0.5, 0.65, 0.7)}  # y 5 to 13, x 20 to 28

    root = tmp_path_factory.mktemp("tfds")
    with quiet():
        for builder in (Captioned, Named, Boxed):
            builder(data_dir=root, file_format="array_record").download_and_prepare()
    return root


def test_captions_of_a_tfds_set(prepared, monkeypatch):
    look = {"name": "tfds:captioned", "dir": str(prepared), "resolution": 4, "captions": 2}
    train, val = (open_dataset(**look, split=split) for split in ("train[:2]", "val"))
    assert train.words == val.words == ("", "<unknown>", "letter", "a", "b", "c")  # of the whole training split
    assert _said(train) == {ord(name): [f"letter {name}", "a letter"] for name in "ab"}
    assert _said(val) == {ord(name): ["letter <unknown>", "a letter"] for name in "de"}

    from gan_jax.data import tfds_captions

    monkeypatch.setattr(tfds_captions, "_texts", lambda *_: pytest.fail("the examples were read again"))
    assert open_dataset(**look, split="val").fingerprint == val.fingerprint


def test_captions_by_the_names_of_a_tfds_set(prepared, tmp_path):
    _fill(tmp_path, {f"text/{name}.txt": f"bird {name}" for name in "abcde"})
    look = {"name": "tfds:named", "dir": str(prepared), "resolution": 4, "captions": 1}
    val = open_dataset(**look, split="val", captions_from=str(tmp_path))
    assert _said(val) == {ord(name): ["bird <unknown>"] for name in "de"} and "a" in val.words
    with pytest.raises(UserError, match=r"'tfds:named' has no captions: give data.captions_from=FOLDER"):
        open_dataset(**look)
    with pytest.raises(UserError, match=r"'tfds:captioned' has no names of its pictures.* it has: captions, image"):
        open_dataset(**{**look, "name": "tfds:captioned"}, captions_from=str(tmp_path))
    (tmp_path / "text" / "b.txt").unlink()
    with pytest.raises(UserError, match=r"the picture 'images/b.jpg' has no caption \(1 of 3 without\)"):
        open_dataset(**look, captions_from=str(tmp_path))


def test_a_square_about_a_bounding_box():
    """Of radius 6 about (24, 9); it ends with the picture, and what is left is cut to a square."""
    assert square_about((0.25, 0.5, 0.65, 0.7), 40, 20) == (18, 3, 30, 15)
    assert square_about((0, 0, 0.4, 0.2), 40, 20) == (0, 0, 10, 10)
    assert square_about((0.1, 0.1, 0.2, 1.0), 100, 50) == (0, 0, 100, 50)
    with pytest.raises(CorruptImageError, match="has no place in 40x20 pixels"):
        square_about((0.5, 0.5, 0.5, 0.5), 40, 20)


def test_pictures_of_a_tfds_set_are_cut_about_their_boxes(prepared):
    look = {"dir": str(prepared), "resolution": 12, "crop": "box"}
    images = open_dataset(name="tfds:boxed", **look).examples(np.arange(1))["image"]
    np.testing.assert_array_equal(images[0, ..., 0], BOXED[3:15, 18:30])
    with pytest.raises(UserError, match="data.crop='box': 'tfds:named' has no feature 'bbox'; it has: image, image"):
        open_dataset(name="tfds:named", **look)
    with pytest.raises(UserError, match="data.crop='box': bounding boxes are of pictures of TFDS sets, not of 'faces'"):
        open_dataset(name="faces", crop="box")


# Digits.

LOOK = {"name": "digits:captions", "resolution": (8, 16)}
NUMBERS = "zero one two three four five six seven eight nine".split()
ONE = re.compile(r"a (dim|bright) (\w+) on the (left|right)")
TWO = re.compile(r"two (dim|bright) digits (\w+) left (\w+) right")


def _meant(text):
    """(left, right, brightness) of a caption, read anew."""
    if match := ONE.fullmatch(text):
        number = NUMBERS.index(match[2])
        return *((number, 10) if match[3] == "left" else (10, number)), int(match[1] == "bright")
    match = TWO.fullmatch(text)
    return NUMBERS.index(match[2]), NUMBERS.index(match[3]), int(match[1] == "bright")


@pytest.fixture(scope="module")
def splits():
    sets = {split: open_dataset(**LOOK, split=split) for split in ("train", "test", "unseen")}
    return {split: (dataset, dataset.examples(np.arange(dataset.size))) for split, dataset in sets.items()}


def test_captioned_digits_are_as_their_captions_say(splits):
    from sklearn.datasets import load_digits

    digits = {tuple(np.round(image * (255 / 16)).astype(np.uint8).ravel()): int(label)
              for image, label in zip(load_digits().images, load_digits().target, strict=True)}  # fmt: skip
    shown = {"train": set(), "test": set(), "unseen": set()}
    for split, (dataset, examples) in splits.items():
        assert dataset.size == (4_000 if split == "train" else 1_000)
        for i in range(dataset.size):
            left, right, bright = _meant(captions.Words(dataset.words).decode(examples["caption"][i, 0]))
            assert (examples["left"][i], examples["right"][i], examples["brightness"][i]) == (left, right, bright)
            halves = examples["image"][i, :, :8, 0], examples["image"][i, :, 8:, 0]
            for number, half in zip((left, right), halves, strict=True):
                assert (number == 10) == (half.max() == 0)
                if bright and number != 10:
                    assert digits[tuple(half.ravel())] == number
                    shown[split].add(tuple(half.ravel()))
            if not bright:
                assert 0 < examples["image"][i].max() <= 102  # 0.4 of 255
    assert not shown["train"] & (shown["test"] | shown["unseen"])  # held-out digits


def test_a_fifth_of_what_can_be_said_is_unseen_and_every_word_is_seen_in_its_place(splits):
    sentences = {split: {captions.Words(dataset.words).decode(row[0]) for row in examples["caption"]}
                 for split, (dataset, examples) in splits.items()}  # fmt: skip
    assert sentences["train"] == sentences["test"] and len(sentences["train"]) == 192 and len(sentences["unseen"]) == 48
    assert not sentences["train"] & sentences["unseen"]
    seen = [_meant(text) for text in sentences["train"]]
    for one in map(_meant, sentences["unseen"]):
        for place in (0, 1):
            assert any(other[place] == one[place] and other[2] == one[2] for other in seen)
    words = [set(" ".join(texts).split()) for texts in sentences.values()]
    assert words[0] == words[1] >= words[2]
    assert all(dataset.words == splits["train"][0].words for dataset, _ in splits.values())
    for _, examples in splits.values():
        assert np.isclose(((examples["left"] == 10) | (examples["right"] == 10)).mean(), 0.5, atol=0.02)
    assert len(meanings(unseen=False)) == 320


def test_captioned_digits_have_no_other_form():
    for options, message in (
        ({"resolution": 8}, r"set data.channels=1 and data.resolution=\(8, 16\), not 1 and \(8, 8\)"),
        ({"channels": 3}, "is grey"), ({"flip": True}, "leave data.flip=False"), ({"split": "val"}, "test, unseen"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message):
            open_dataset(**{**LOOK, **options})
    large = open_dataset(name="digits:captions", resolution=(16, 32), caption_length=7)
    assert large.spec["image"].shape == (16, 32, 1) and large.spec["caption"] == Field("tokens", (1, 7), 20)
    assert not large.notes
