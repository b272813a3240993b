"""CLIP's tokenizer: pairs of bytes, merged (Radford et al. 2021, arXiv 2103.00020, section 2.4; Sennrich et al. 2016,
arXiv 1508.07909).

A text is mended, its entities are replaced, its white space is collapsed, its letters become small. It falls into runs
of letters, single digits, runs of other characters, and the endings of English contractions. The bytes of each, written
as UTF-8, are symbols, of which the last one says that it ends; those neighbours are merged that come first in a table,
until no two stand in it. The user's file has the table: none comes with the package.
"""

import functools
import gzip
import html
import itertools
import json
import math
import pathlib
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from gan_jax import paths
from gan_jax.errors import MissingPathError, UserError, plain

START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"  # behind the last symbol of a word
MERGES = 49_152 - 256 - 2  # that CLIP takes of its file, which has five times as many
OWN = "bpe_simple_vocab_16e6.txt.gz"  # OpenAI's name of its file
FILES = (OWN, OWN.removesuffix(".gz"), "vocab.json", "tokenizer.json")  # that are looked for in a folder, in this order
MOST_BYTES = 1 << 24  # of a file, unpacked; the largest one of CLIP has 3.6 MB
MOST_TEXT = 2000  # characters of a text: one long word takes the square of its length
DOCS = "docs/metrics_weights.md"

# What ftfy leaves as it is: printable ASCII in lines, without entities.
_ASCII, _ENTITY = re.compile(r"[\t\n\r -~]*"), re.compile(r"&#?[0-9A-Za-z]{1,24};")
_SPACE = re.compile(r"\s+")
# Runs of letters and numbers are divided afterwards. The small long s counts as an s, as it does to OpenAI's pattern,
# to which the Greek iota below a letter is neither letter nor other character.
_PIECES = re.compile(
    rf"{re.escape(START)}|{re.escape(END)}|'(?:[s\u017ftmd]|re|ve|ll)|[^\W_]+|(?:[^\s\w\u0345]|_)+"
)


class BytePairs:
    """A tokenizer by merged bytes: `encode`, and the protocol of tokenizers of captions."""

    ends = True  # the last token of a text says that it ends

    def __init__(
        self,
        vocabulary: Mapping[str, int],
        merges: Sequence[tuple[str, str]],
        *,
        mend: Callable[[str], str] | None = None,
    ):
        """A tokenizer of a checked table, see `load`.

        Args:
          vocabulary: symbol -> token, 0 to V - 1, see `base` and `check`.
          merges: pairs of symbols, those that are merged first in front.
          mend: what is done to a text at first; None for `mended`.
        Raises:
          UserError: they do not belong together.
        """
        check(vocabulary, merges)
        self.size = len(vocabulary)
        self._vocabulary, self._mend = dict(vocabulary), mend or mended
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._cached = functools.lru_cache(maxsize=1 << 16)(self._tokens)

    @functools.cached_property
    def words(self) -> tuple[str, ...]:
        """(V,), the text of each token without the mark of a word's end; bytes that are no text as `\\xNN`."""
        bytes_of = {symbol: byte for byte, symbol in enumerate(alphabet())}
        texts = {token: symbol.removesuffix(WORD_END) for symbol, token in self._vocabulary.items()}
        return tuple(
            bytes(map(bytes_of.__getitem__, texts[token])).decode(errors="backslashreplace")
            for token in range(self.size)
        )

    def encode(self, text: str) -> list[int]:
        """The tokens of a text between those of its start and its end, in [0, V), however many they are.

        Raises:
          UserError: a text of more than `MOST_TEXT` characters, or one that ftfy would mend, and ftfy is not there.
        """
        if len(text) > MOST_TEXT:
            raise UserError(f"the text {plain(text, 60)!r}... has {len(text):,} characters, expected {MOST_TEXT:,} or "
                            "fewer")
        pieces = map(self._cached, divided(cleaned(text, self._mend)))
        return [self._vocabulary[START], *itertools.chain.from_iterable(pieces), self._vocabulary[END]]

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens, without its start, and up to its end; with a space behind every word's."""
        symbols, bytes_of = self._symbols, {symbol: byte for byte, symbol in enumerate(alphabet())}
        names = itertools.takewhile(lambda symbol: symbol != END, (symbols[token] for token in tokens))
        text = "".join(name.replace(WORD_END, " ") for name in names if name != START)
        data = bytes(bytes_of.get(character, ord(" ")) for character in text)
        return data.decode(errors="replace").strip()

    @functools.cached_property
    def _symbols(self) -> tuple[str, ...]:
        """(V,), by token."""
        return tuple(sorted(self._vocabulary, key=self._vocabulary.__getitem__))

    def unknown(self, text: str) -> list[str]:
        """No words: every text is bytes."""
        return []

    def _tokens(self, piece: str) -> tuple[int, ...]:
        """The tokens of one piece of a text."""
        if piece in (START, END):  # in a text they mean what they mean elsewhere, as they do to OpenAI's program
            return (self._vocabulary[piece],)
        letters = alphabet()
        symbols = [letters[byte] for byte in piece.encode()]
        symbols[-1] += WORD_END
        while len(symbols) > 1:
            first = min(itertools.pairwise(symbols), key=lambda pair: self._ranks.get(pair, math.inf))
            if first not in self._ranks:
                break
            symbols = _merged(symbols, first)
        return tuple(self._vocabulary[symbol] for symbol in symbols)


def _merged(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    """Every occurrence of a pair made one, from the left."""
    result: list[str] = []
    for symbol in symbols:
        if result and (result[-1], symbol) == pair:
            result[-1] += symbol
        else:
            result.append(symbol)
    return result


# Texts

def mended(text: str) -> str:
    """What ftfy's `fix_text` makes of a text, which is the text itself where it is printable ASCII without entities.

    Raises:
      UserError: another text, and ftfy is not installed. Without it the tokens would be others than CLIP has learned.
    """
    if _ASCII.fullmatch(text) and not _ENTITY.search(text):
        return text
    try:
        import ftfy
    except ImportError as error:
        raise UserError(
            f"the text {plain(text, 60)!r} has characters beyond ASCII, or entities, which CLIP's tokenizer mends with "
            "ftfy: pip install 'gan_jax[text]', or write it without them"
        ) from error
    return ftfy.fix_text(text)


def cleaned(text: str, mend: Callable[[str], str] = mended) -> str:
    """Mended, entities replaced twice, one space for all white space, in small letters."""
    text = html.unescape(html.unescape(mend(text)))
    return _SPACE.sub(" ", text.strip()).strip().lower()


def divided(text: str) -> Iterator[str]:
    """The pieces of a cleaned text that are merged each for itself; white space is dropped.

    Letters and numbers are Unicode's L and N, as Python's own tables have them.
    """
    for piece in _PIECES.findall(text):
        if not piece[0].isalnum():
            yield piece
            continue
        for is_letters, run in itertools.groupby(piece, str.isalpha):
            characters = "".join(run)
            yield from (characters,) if is_letters else characters  # each digit is a piece


# Tables

@functools.cache
def alphabet() -> tuple[str, ...]:
    """(256,), the character that stands for each byte: itself where Latin-1 can print it, else one from U+0100 on."""
    others = itertools.count(0x100)
    return tuple(chr(byte) if _is_printed(byte) else chr(next(others)) for byte in range(256))


def _is_printed(byte: int) -> bool:
    return 0x21 <= byte <= 0x7E or 0xA1 <= byte <= 0xAC or 0xAE <= byte


def base() -> list[str]:
    """(512,), the symbols before any merge in the order of their tokens: bytes that are printed, others; with ends."""
    bytes_ = sorted(alphabet(), key=ord)  # those from U+0100 on come last
    return [*bytes_, *(symbol + WORD_END for symbol in bytes_)]


def vocabulary_of(merges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Symbol -> token as CLIP numbers them: `base`, what each merge makes, start and end."""
    symbols = [*base(), *("".join(pair) for pair in merges), START, END]
    return {symbol: token for token, symbol in enumerate(symbols)}


def check(vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]]) -> None:
    """Raises UserError for a table in which a symbol is missing, comes too late or twice, or tokens are no numbering.

    The token of a text's end has to be the largest: it is how the text tower knows it.
    """
    symbols = set(base())
    for number, (first, second) in enumerate(merges, 1):
        for symbol in (first, second):
            if symbol not in symbols:
                raise UserError(f"merge {number} joins {plain(symbol, 40)!r}, which no earlier one has made")
        if first + second in symbols:
            raise UserError(f"merge {number} makes {plain(first + second, 40)!r}, which there is already")
        symbols.add(first + second)
    symbols |= {START, END}
    if missing := sorted(symbols - vocabulary.keys()):
        raise UserError(f"{len(missing)} symbols have no token, such as {plain(missing[0], 40)!r}")
    if strange := sorted(vocabulary.keys() - symbols):
        raise UserError(f"{len(strange)} tokens are of no merge, such as {plain(strange[0], 40)!r}")
    if not all(type(token) is int for token in vocabulary.values()) or (
        sorted(vocabulary.values()) != list(range(len(vocabulary)))
    ):
        raise UserError(f"its tokens are not the numbers 0 to {len(vocabulary) - 1}, each once")
    if vocabulary[END] != len(vocabulary) - 1:
        raise UserError(f"{END} is the token {vocabulary[END]}, expected the last one, {len(vocabulary) - 1}")


# Files

def load(path: str) -> BytePairs:
    """The tokenizer of a file.

    Args:
      path: OpenAI's `bpe_simple_vocab_16e6.txt.gz`, or unpacked; a `tokenizer.json`, or a `vocab.json` with its
        `merges.txt` beside it, as transformers writes them of CLIP; or a folder with one of these.
    Raises:
      MissingPathError: there is none.
      UserError: a file that cannot be read, is too large, damaged, or of another tokenizer.
    """
    file = _file(path)
    try:
        if file.name.endswith(".json"):
            vocabulary, merges = _of_json(file)
        else:
            merges = _of_lines(_text(file))
            vocabulary = vocabulary_of(merges)
        return BytePairs(vocabulary, merges)
    except MissingPathError:
        raise
    except UserError as error:
        raise UserError(f"{file}: no table of CLIP's tokenizer: {plain(error)}; see {DOCS}") from error


def _file(path: str) -> pathlib.Path:
    place = pathlib.Path(paths.expanded(path, "the file of a tokenizer"))
    if place.is_dir():
        for name in FILES:
            if (place / name).is_file():
                return place / name
        raise MissingPathError(f"{place}: none of {', '.join(FILES)} in it; see {DOCS}")
    if not place.is_file():
        raise MissingPathError(f"{place}: no such file or folder, expected {OWN} or a tokenizer.json; see {DOCS}")
    return place


def _text(file: pathlib.Path) -> str:
    """A file as text, unpacked where it is packed."""
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            data = stream.read(MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot be read: {getattr(error, 'strerror', None) or plain(error)}") from error
    if len(data) > MOST_BYTES:
        raise UserError(f"more than {MOST_BYTES >> 20} MiB")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UserError("it is no text in UTF-8") from error


def _of_lines(text: str) -> list[tuple[str, str]]:
    """The merges of a file: a line that tells the version, then two symbols a line."""
    header, *lines = text.split("\n")
    if "#version" not in header:
        raise UserError(f"its first line is {plain(header, 40)!r}, expected one with '#version'")
    merges = []
    for number, line in enumerate(lines[:MERGES], 2):
        if not line.strip() and not any(rest.strip() for rest in lines[number - 2 :]):
            break
        first, _, second = line.rstrip("\r").partition(" ")
        if not first or not second or " " in second:
            raise UserError(f"line {number} is {plain(line, 40)!r}, expected two symbols")
        merges.append((first, second))
    return merges


def _of_json(file: pathlib.Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges as transformers writes them."""
    try:
        value = json.loads(_text(file))
    except (ValueError, RecursionError) as error:
        raise UserError(f"no JSON: {plain(error)}") from error
    if not isinstance(value, dict):
        raise UserError("expected an object of JSON")
    if "model" in value:
        return _of_tokenizer(value)
    beside = file.with_name("merges.txt")
    if not beside.is_file():
        raise MissingPathError(f"{beside}: no such file, which belongs to {file.name}; see {DOCS}")
    return value, _of_lines(_text(beside))


def _of_tokenizer(value: dict[str, Any]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Of a `tokenizer.json`, whose merges are texts or pairs."""
    model, added = value["model"], value.get("added_tokens") or []
    if not isinstance(model, dict) or model.get("end_of_word_suffix") != WORD_END:
        raise UserError(f"it is of another tokenizer, whose words do not end with {WORD_END!r}")
    vocabulary, merges = model.get("vocab"), model.get("merges")
    if not isinstance(vocabulary, dict) or not isinstance(merges, list) or not isinstance(added, list):
        raise UserError("expected 'vocab' and 'merges' in its 'model'")
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]
    if not all(isinstance(pair, list) and len(pair) == 2 and all(isinstance(s, str) for s in pair) for pair in pairs):
        raise UserError("its 'merges' are not pairs of symbols")
    specials = {token["content"]: token.get("id") for token in added if isinstance(token, dict) and
                token.get("content") in (START, END)}  # fmt: skip
    return vocabulary | specials, [tuple(pair) for pair in pairs]
