"""CLIP's tokenizer against recordings of transformers' CLIPTokenizer and OpenAI's class, and what its files may be."""

import gzip
import importlib.util
import json
import os
import pathlib
import re
import sys

import numpy as np
import pytest

from gan_jax.data import bpe
from gan_jax.errors import MissingPathError, UserError
from gan_jax.weights import store

GOLDEN = pathlib.Path(__file__).parent / "golden"
RECORDED = json.loads((GOLDEN / "clip_tokens.json").read_text(encoding="utf-8"))
MERGES = [tuple(line.split(" ")) for line in RECORDED["merges"]]
MENDED = {row["text"]: row["mended"] for row in RECORDED["texts"]}  # by ftfy
FTFY = importlib.util.find_spec("ftfy") is not None
LINES = "\n".join(['"table#version: 0.2', *RECORDED["merges"], ""])


@pytest.fixture(scope="module")
def tokenizer():
    """Of the recorded table; ftfy's part is recorded, too."""
    return bpe.BytePairs(bpe.vocabulary_of(MERGES), MERGES, mend=_mended)


def _mended(text):
    return MENDED.get(text, text)


def _ids(rows):
    return [ascii(row["text"])[:40] for row in rows]


# Tokens

@pytest.mark.parametrize("row", RECORDED["texts"], ids=_ids(RECORDED["texts"]))
def test_tokens_are_those_of_openais_program(tokenizer, row):
    assert tokenizer.encode(row["text"]) == [672, *row["openai"], 673]


@pytest.mark.parametrize("row", [row for row in RECORDED["texts"] if "&" not in row["text"]])
def test_tokens_are_those_of_transformers_where_no_entity_is(tokenizer, row):
    assert tokenizer.encode(row["text"]) == row["transformers"]


@pytest.mark.skipif(not FTFY, reason="ftfy is not installed")
@pytest.mark.parametrize("text", MENDED, ids=ascii)
def test_texts_are_mended_as_ftfy_does(text):
    assert bpe.mended(text) == MENDED[text] or text.replace("\r\n", "\n").replace("\r", "\n") == MENDED[text]


def test_plain_text_needs_no_ftfy_and_what_it_may_mend_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "ftfy", None)  # as if it were not installed
    tokenizer = bpe.BytePairs(bpe.vocabulary_of(MERGES), MERGES)
    plain = [row for row in RECORDED["texts"] if re.fullmatch(r"[ -%'-~\t\r\n]*", row["text"])]  # and no &
    assert len(plain) >= 15
    for row in plain:
        assert tokenizer.encode(row["text"])[1:-1] == row["openai"]
    for text in (*(text for text in MENDED if not text.isascii()), "a\x00", "\x1b[31mred", "a &amp; b", "&#39;"):
        with pytest.raises(UserError, match=r"which CLIP's tokenizer mends with ftfy: pip install 'gan_jax\[text\]'"):
            tokenizer.encode(text)
    with pytest.raises(UserError, match=r"the text 'tom &amp; jerry' has characters beyond ASCII, or entities"):
        tokenizer.encode("tom &amp; jerry")


def test_every_character_is_of_the_class_of_its_category():
    """Letters stay together, numbers come one by one, other characters stay together; white space is dropped."""
    assert list(bpe.divided("ab\u00e9\u6f22\u0661\u06622\u00bd\u2167\u2460x")) == [
        "ab\u00e9\u6f22", "\u0661", "\u0662", "2", "\u00bd", "\u2167", "\u2460", "x"
    ]  # fmt: skip
    assert list(bpe.divided("a_b__!?\u0301 \u2003'll's'x")) == ["a", "_", "b", "__!?\u0301", "'ll", "'s", "'", "x"]


def test_cleaning_is_entities_twice_then_spaces_then_small_letters():
    assert bpe.cleaned(" A &amp;lt; B \n\t C&#x27;S ", str) == "a < b c's"


def test_nearest_pair_of_the_table_is_merged_everywhere_from_the_left():
    """Worked by hand: a a a a a -> aa aa a</w> -> aa aaa</w>; the later merge of aa with aa comes too late."""
    merges = [("a", "a"), ("aa", "a</w>"), ("aa", "aa")]
    tokenizer = bpe.BytePairs(bpe.vocabulary_of(merges), merges)
    assert tokenizer.encode("aaaaa") == [515, 512, 513, 516]
    assert tokenizer.encode("aaaaaa") == [515, 514, 64, 256 + 64, 516]  # the last a is another symbol


def test_words_are_the_texts_of_tokens(tokenizer):
    assert len(tokenizer.words) == tokenizer.size == 674 and tokenizer.ends
    assert tokenizer.words[0] == "!" and tokenizer.words[-2:] == ("<|startoftext|>", "<|endoftext|>")
    tokens = tokenizer.encode("a photo of a bird")
    assert "".join(tokenizer.words[token] for token in tokens[1:-1]) == "aphotoofabird"
    assert tokenizer.unknown("anything at all") == []
    lone = bpe.vocabulary_of(())
    assert bpe.BytePairs(lone, ()).words[lone["\u00c3"]] == "\\xc3"  # half of a character


def test_decoded_tokens_are_cleaned_text_whose_tokens_they_are(tokenizer):
    assert tokenizer.decode([*tokenizer.encode("A  photo of 2 birds!"), 0, 0]) == "a photo of 2 birds !"
    for row in RECORDED["texts"]:
        if "<|" not in row["text"] and "</w>" not in row["text"] and "\u0345" not in row["text"]:
            tokens = tokenizer.encode(row["text"])
            assert tokenizer.encode(tokenizer.decode(tokens)) == tokens, row["text"]


def test_numbers_of_the_first_symbols_are_clips():
    """Facts of CLIP's vocabulary: ! is 0, ~ 93, then Latin-1, then bytes that are not printed; ends behind them."""
    vocabulary = bpe.vocabulary_of(())
    assert [vocabulary[s] for s in ("!", "~", "\u00a1", "\u00ff", "\u0100", "\u0120", "!</w>", "a</w>")] == [
        0, 93, 94, 187, 188, 220, 256, 320
    ]  # fmt: skip
    assert len(vocabulary) == 514 and 514 + bpe.MERGES == 49_408


def test_long_texts_are_refused(tokenizer):
    with pytest.raises(UserError, match=r"'aaaa.* has 2,001 characters, expected 2,000 or fewer"):
        tokenizer.encode("a" * 2001)


# Files

def _written(folder, **files):
    for name, content in files.items():
        path = folder / name.replace("__", ".")
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


SAME = {
    "OpenAI's": {bpe.OWN.replace(".", "__"): gzip.compress(LINES.encode())},
    "OpenAI's, unpacked": {"bpe_simple_vocab_16e6__txt": LINES},
    "transformers' slow": {"vocab__json": json.dumps(bpe.vocabulary_of(MERGES)), "merges__txt": LINES},
    "transformers' fast": {"tokenizer__json": (GOLDEN / "clip_tokenizer.json").read_bytes()},
}


@pytest.mark.parametrize("kind", SAME)
def test_files_of_one_table_are_one_tokenizer(tmp_path, tokenizer, kind):
    folder = _written(tmp_path, **SAME[kind])
    name = next(iter(SAME[kind])).replace("__", ".")
    for path in (folder, folder / name):
        other = bpe.load(str(path))
        assert other.words == tokenizer.words
        assert other.encode("a photo of 12 birds, isn't it?") == tokenizer.encode("a photo of 12 birds, isn't it?")


def test_pairs_in_lists_are_read_as_those_in_texts(tmp_path):
    value = json.loads((GOLDEN / "clip_tokenizer.json").read_text(encoding="utf-8"))
    merges = value["model"]["merges"]
    assert isinstance(merges[0], list)
    value["model"]["merges"] = [" ".join(pair) for pair in merges]
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(value))
    assert bpe.load(str(path)).words == bpe.load(str(GOLDEN / "clip_tokenizer.json")).words


def test_more_merges_than_clip_takes_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(bpe, "MERGES", 10)
    path = tmp_path / "table.txt"
    path.write_text(LINES + "not a pair of symbols at all\n")
    assert bpe.load(str(path)).size == 512 + 10 + 2


def _tokenizer_json(**model):
    return json.dumps({"model": {"end_of_word_suffix": "</w>", "vocab": {}, "merges": []} | model})


REFUSED = {
    "no header": ("t.txt", "a b\nab c\n", r"its first line is 'a b', expected one with '#version'"),
    "one symbol": ("t.txt", "#version\na b\nab\n", r"line 3 is 'ab', expected two symbols"),
    "three symbols": ("t.txt", "#version\na b c\n", r"line 2 is 'a b c', expected two symbols"),
    "a hole": ("t.txt", "#version\na b\n\nab c\n", r"line 3 is '', expected two symbols"),
    "too early": ("t.txt", "#version\nab c\na b\n", r"merge 1 joins 'ab', which no earlier one has made"),
    "twice": ("t.txt", "#version\na b\na b\n", r"merge 2 makes 'ab', which there is already"),
    "cut short": ("t.txt.gz", gzip.compress(LINES.encode())[:-9], r"cannot be read"),
    "not packed": ("t.txt.gz", LINES.encode(), r"cannot be read: .*[Gg]zip"),
    "bytes": ("t.txt", b"#version\n\xff\xfe", r"it is no text in UTF-8"),
    "no JSON": ("tokenizer.json", "{", r"no JSON"),
    "deep": ("tokenizer.json", "[" * 100_000, r"no JSON"),
    "a list": ("tokenizer.json", "[]", r"expected an object of JSON"),
    "another": ("tokenizer.json", _tokenizer_json(end_of_word_suffix=None), r"of another tokenizer"),
    "no merges": ("tokenizer.json", _tokenizer_json(merges=None), r"expected 'vocab' and 'merges'"),
    "triples": ("tokenizer.json", _tokenizer_json(merges=[["a", "b", "c"]]), r"not pairs of symbols"),
    "no tokens": ("tokenizer.json", _tokenizer_json(), r"514 symbols have no token, such as '!'"),
    "words": ("tokenizer.json", _tokenizer_json(vocab=bpe.vocabulary_of(()) | {"x-ray": 514}),
              r"1 tokens are of no merge, such as 'x-ray'"),
    "numbers": ("tokenizer.json", _tokenizer_json(vocab=bpe.vocabulary_of(()) | {"!": 1}), r"0 to 513, each once"),
    "names": ("tokenizer.json", _tokenizer_json(vocab=bpe.vocabulary_of(()) | {"!": "0"}), r"0 to 513, each once"),
    "order": ("tokenizer.json", _tokenizer_json(vocab=bpe.vocabulary_of(()) | {bpe.START: 513, bpe.END: 512}),
              r"is the token 512, expected the last one, 513"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", REFUSED)
def test_other_files_are_refused_in_one_line(tmp_path, mistake):
    name, content, message = REFUSED[mistake]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as error:
        bpe.load(str(path))
    assert str(error.value).startswith(f"{path}: no table of CLIP's tokenizer: ") and "\n" not in str(error.value)


def test_a_small_file_that_unpacks_to_much_is_refused(tmp_path):
    path = tmp_path / "t.txt.gz"
    path.write_bytes(gzip.compress(b"#version\n" + bytes(1 << 25)))
    assert path.stat().st_size < 1 << 16
    with pytest.raises(UserError, match="more than 16 MiB"):
        bpe.load(str(path))


def test_missing_files_are_named(tmp_path):
    with pytest.raises(MissingPathError, match=r"none of bpe_simple_vocab_16e6.txt.gz, .*tokenizer.json in it"):
        bpe.load(str(tmp_path))
    with pytest.raises(MissingPathError, match=r"no such file or folder, expected bpe_simple_vocab_16e6.txt.gz"):
        bpe.load(str(tmp_path / "x"))
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(MissingPathError, match=r"merges.txt: no such file, which belongs to vocab.json"):
        bpe.load(str(tmp_path))


# The real table, where somebody has put it

def _real() -> pathlib.Path | None:
    for folder in (os.environ.get(store.VARIABLE), store.cache_dir("weights")):
        if folder and (pathlib.Path(folder) / bpe.OWN).is_file():
            return pathlib.Path(folder) / bpe.OWN
    return None


@pytest.mark.skipif(not _real(), reason=f"no {bpe.OWN} in ${store.VARIABLE} or the cache")
def test_tokens_of_the_real_table():
    table = bpe.load(str(_real()))
    assert table.size == 49_408 and np.array_equal(table.encode("a photo of a cat")[-2:], [2368, 49_407])
    real = bpe.BytePairs(table._vocabulary, list(table._ranks), mend=_mended)
    for row in RECORDED["texts"]:
        assert real.encode(row["text"]) == [49_406, *row["real"], 49_407], row["text"]
