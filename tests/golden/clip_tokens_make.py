"""Writes clip_tokens.json and clip_tokenizer.json beside it, which no test needs to be written again.

    python tests/golden/clip_tokens_make.py TABLE

It needs transformers 4, ftfy and OpenCLIP. TABLE is CLIP's own, `clip/bpe_simple_vocab_16e6.txt.gz` of OpenAI's
repository (https://github.com/openai/CLIP), which is not here.

The table of merges is learned here from a few sentences. What it makes of texts is recorded from two programs: from
transformers' CLIPTokenizer (its slow one, with ftfy), and from OpenCLIP's copy of OpenAI's class, whose file of merges
is this table, and then TABLE. transformers replaces no entities; where both ought to agree it is checked that
they do. OpenCLIP calls start and end of a text otherwise; it is given the names that CLIP has.
"""

import gzip
import importlib.util
import json
import pathlib
import re
import sys
import tempfile
import types
from collections import Counter

import ftfy
import transformers

FOLDER = pathlib.Path(__file__).parent
START, END = "<|startoftext|>", "<|endoftext|>"
SENTENCES = """
a photo of a bird with red wings and a yellow belly; the bird's head is black, it's small
two bright digits: a seven on the left and a three on the right of the picture
this flower has petals that are white with purple lines, they're long and thin; there are 12 of them
the dog isn't running, he'll be sleeping on the sofa; I've seen it in 1998 and 2005
une fleur près du café, über naïve señor, façade, 写真 写真 фото фото 🌸🌸 🌸 ½ ²
"""
COUNT = 160  # merges
TEXTS = [
    "a photo of a bird", "A Photo OF a BIRD!", "  two   bright\tdigits:\n seven, three.  ", "", " ", "the bird's head",
    "it's I'll they're he'd I'm we've isn't 'tis 'S 'RE O'Neill's ''s", "rock'n'roll", "12 of 1998, 2005: 3.14 -7 1e10",
    "pneumonoultramicroscopicsilicovolcanoconiosis", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "red-brown_wing__x",
    "!!! ?? ... --- ((())) $!$ #1 @home 50% ~`|^", "http://a.b/c?d=e&f=g", "a&b; AT&T &c &", "tom & jerry &amp; co",
    "&lt;b&gt;bold&lt;/b&gt; &quot;x&quot;",
    "&amp;amp;amp;quot; &#39; &#x27; &#233; &eacute; &EACUTE; &hellip; &notanentity;", "<i>&eacute;</i> &rsquo;",
    "caf\xe9 na\xefve \xfcber se\xf1or fa\xe7ade", "cafe\u0301 e\u0301 o\u0308",
    "it\u2019s \u2018single\u2019 \u201cdouble\u201d \u201elow\u201c", "sch\xc3\xb6n \xe2\u20ac\u0153x\xe2\u20ac\x9d",
    "\ufb01ne \ufb02ower \ufb03", "\uff46\uff55\uff4c\uff4c\uff11\uff12 \uff76\uff85",
    "\xc9COLE \xc4\xd6\xdc \u1e9e \xdf", "\u0130stanbul I\u0131", "\u03a3\u038a\u03a3\u03a5\u03a6\u039f\u03a3 \u03a3",
    "\u0416\u0438\u0437\u043d\u044c \u0444\u043e\u0442\u043e", "\u6f22\u5b57 \u5199\u771f \u4e00\u4e8c\u4e09 \u3007",
    "\ud55c\uad6d\uc5b4 \u1112\u1161\u11ab", "\u0939\u093f\u0928\u094d\u0926\u0940",
    "\u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u0661\u0662\u0663",
    "\U0001f338 \U0001f338\U0001f338 \U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f1eb\U0001f1f7 \u2764\ufe0f",
    "\xbd \xb2 x\xb3 \u2167 \u2460 \u2082", "\u24b6\u24d0", "'\u017f \u017f it'\u017f", "a\u0345 \u03b1\u0345b",
    "a\xa0b\u3000c\u2003d\u200be\u2028f\x85g", "a\x00b\x07c\x0bd\x0ce\x1ff\x7fg", "\x1b[31mred\x1b[0m", "a\r\nb\rc",
    "</w> a</w>b", "\u0120 \u010a \xa1 \xad \xff", "x\u20ac\xa3\xa5",
]  # fmt: skip
MARKED = [f"{START}a bird{END}", f"a {END} b", "a <|STARTOFTEXT|> b", "<|endoftext|"]


def characters():
    """The printed character of each byte, bytes that Latin-1 prints first."""
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printed]
    return {byte: chr(byte) for byte in printed} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def learned():
    """Merges of the sentences' words: the most frequent pair of neighbours, again and again."""
    table, words = characters(), Counter(re.findall(r"[^\W\d_]+|\d|[^\s\w]+|_+", SENTENCES.lower()))
    split = {word: [table[byte] for byte in word.encode()] for word in words}
    for symbols in split.values():
        symbols[-1] += "</w>"
    merges = []
    while len(merges) < COUNT:
        pairs = Counter()
        for word, symbols in split.items():
            for pair in zip(symbols, symbols[1:], strict=False):
                pairs[pair] += words[word]
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for symbols in split.values():
            i = 0
            while i < len(symbols) - 1:
                if (symbols[i], symbols[i + 1]) == best:
                    symbols[i : i + 2] = ["".join(best)]
                i += 1
    return merges


def openai_class():
    """OpenCLIP's SimpleTokenizer, with CLIP's names of start and end, as OpenAI's pattern has them."""
    place = pathlib.Path(importlib.util.find_spec("open_clip").origin).with_name("tokenizer.py")
    text = place.read_text()
    for old, new in ((r"<start_of_text>", START), (r"<end_of_text>", END)):
        text = text.replace(old, new)
    text = text.replace('"|".join(special_tokens)', '"|".join(map(re.escape, special_tokens))')
    module = types.ModuleType("tokenizer")
    module.__file__, sys.modules["tokenizer"] = str(place), module
    exec(compile(text, str(place), "exec"), module.__dict__)
    return module.SimpleTokenizer


def main():
    merges, table = learned(), characters()
    symbols = [*table.values(), *(c + "</w>" for c in table.values()), *map("".join, merges), START, END]
    # without an end of the last line, which OpenAI's class would take for a merge
    lines = "\n".join(['"clip_tokens#version: 0.2', *map(" ".join, merges)])
    tokenizer = openai_class()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "merges.txt").write_text(lines)
        (folder / "vocab.json").write_text(json.dumps({symbol: i for i, symbol in enumerate(symbols)}))
        (folder / "table.txt.gz").write_bytes(gzip.compress(lines.encode()))
        slow = transformers.CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
        assert slow.fix_text is not None, "install ftfy"
        transformers.CLIPTokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
        (FOLDER / "clip_tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
        small, real = tokenizer(str(folder / "table.txt.gz")), tokenizer(sys.argv[1])
        rows = []
        for text in (*TEXTS, *MARKED):
            row = {"text": text, "mended": ftfy.fix_text(text), "openai": small.encode(text), "real": real.encode(text)}
            theirs = slow(text)["input_ids"]
            if text in TEXTS and "&" not in text:
                assert theirs == [len(symbols) - 2, *row["openai"], len(symbols) - 1], (text, theirs, row["openai"])
            rows.append(row | {"transformers": theirs})
    meta = {"source": f"transformers {transformers.__version__} CLIPTokenizer, ftfy {ftfy.__version__}, "
                      "OpenCLIP's SimpleTokenizer; 'real' with CLIP's own table"}
    value = {"meta": meta, "merges": [" ".join(pair) for pair in merges], "texts": rows}
    (FOLDER / "clip_tokens.json").write_text(json.dumps(value, indent=0) + "\n")


if __name__ == "__main__":
    main()
