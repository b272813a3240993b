"""Captions as arrays: words of a text, tokenizers, and a set of pictures with the captions of each."""

import functools
import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from gan_jax.data.checks import natural, unknown
from gan_jax.data.source import Example, Source
from gan_jax.errors import UserError
from gan_jax.specs import Field

FIELD = "caption"  # of an example: int32 (K, L)
PADDING, UNKNOWN = 0, 1  # tokens; what stands for them in a list of words:
MARKS = ("", "<unknown>")
MOST_TEXT, MOST_CAPTIONS = 1 << 28, 1 << 23  # of a place: characters of captions and of names, and captions


class Tokenizer(Protocol):
    """Texts to tokens."""

    words: tuple[str, ...]  # (V,), what each token stands for; the first is the padding
    ends: bool  # whether the last token of a text says that it ends, and so stays where the text is cut

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, each in [0, V), none of them padding."""

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens (L,), without what is padding."""

    def unknown(self, text: str) -> list[str]:
        """The words of a text for which there are no tokens, in its order."""


class Words:
    """The tokenizer by whole words, see `words_of`."""

    ends = False

    def __init__(self, words: Sequence[str]):
        """Of a list of words, as `vocabulary` gives them."""
        self.words = tuple(words)
        self._places = {word: place for place, word in enumerate(self.words) if place > UNKNOWN}

    def encode(self, text: str) -> list[int]:
        """A token a word; `UNKNOWN` for one that is not in the list."""
        return [self._places.get(word, UNKNOWN) for word in words_of(text)]

    def decode(self, tokens: Iterable[int]) -> str:
        """Words with spaces between."""
        return " ".join(self.words[token] for token in tokens if token != PADDING)

    def unknown(self, text: str) -> list[str]:
        """The words that are not in the list."""
        return [word for word in words_of(text) if word not in self._places]


def _clip(file: str) -> Tokenizer:
    from gan_jax.data import bpe

    return bpe.load(file)


TOKENIZERS: dict[str, Callable[[str], Tokenizer]] = {"clip": _clip}  # NAME of `NAME:PATH` -> what opens the file


class Settings(NamedTuple):
    """What of captions is read, see `dataset.open_dataset`."""

    count: int  # K
    length: int  # L
    tokenizer: str
    place: str  # folder, .zip or .jsonl of captions; empty: beside the pictures, or in the set


def make_settings(*, captions: int, caption_length: int, tokenizer: str, captions_from: str) -> Settings:
    """Checks the keys of the data section. Raises UserError."""
    count = natural("data.captions", captions, least=0)
    length = natural("data.caption_length", caption_length, least=1)
    kind, colon, file = tokenizer.partition(":")
    if tokenizer != "words" and not (kind in TOKENIZERS and colon and file):
        raise unknown("data.tokenizer", tokenizer, ("words", *(f"{name}:PATH" for name in TOKENIZERS)))
    return Settings(count, length, tokenizer, captions_from)


def open_tokenizer(tokenizer: str, words: Callable[[], Sequence[str]]) -> Tokenizer:
    """The tokenizer that `data.tokenizer` names.

    Args:
      tokenizer: `words`, or `NAME:PATH`, see `TOKENIZERS`.
      words: () -> the list of words, asked for `words` alone.
    Raises:
      UserError, MissingPathError: its file cannot be read.
    """
    kind, _, file = tokenizer.partition(":")
    return TOKENIZERS[kind](file) if kind in TOKENIZERS else Words(words())


class _Separators(dict):
    """Character -> itself where words have it, else a space; each is looked up once."""

    def __missing__(self, code: int) -> int:
        is_of_word = unicodedata.category(chr(code))[0] in "LNM" or chr(code) == "'"
        return self.setdefault(code, code if is_of_word else ord(" "))


_SEPARATORS = _Separators()


def words_of(text: str) -> list[str]:
    """The words of a text, in small letters: letters, digits and their marks (Unicode L, N, M), and apostrophes within.

    All else separates words and is dropped. So "A bird's red-brown wing!" is a, bird's, red, brown, wing.
    """
    text = unicodedata.normalize("NFC", text).lower().replace("’", "'").translate(_SEPARATORS)
    return [word for part in text.split() if (word := part.strip("'"))]


def vocabulary(texts: Iterable[str]) -> tuple[str, ...]:
    """The list of words of texts: `MARKS`, then words, the most frequent first, those of one frequency by letters."""
    counts = Counter(word for text in texts for word in words_of(text))
    return (*MARKS, *sorted(counts, key=lambda word: (-counts[word], word)))


def encode(texts: Sequence[str], tokenizer: Tokenizer, length: int) -> tuple[np.ndarray, int]:
    """(tokens int32 (N, L), padded behind their end; how many of the N texts were too long and are cut)."""
    rows, cut = np.full((len(texts), length), PADDING, np.int32), 0
    for row, text in zip(rows, texts, strict=True):
        tokens = tokenizer.encode(text)
        if len(tokens) > length:
            tokens, cut = [*tokens[: length - tokenizer.ends], *tokens[len(tokens) - tokenizer.ends :]], cut + 1
        row[: len(tokens)] = tokens
    return rows, cut


def with_captions(source: Source, texts: Sequence[Sequence[str]], tokenizer: Tokenizer, settings: Settings) -> Source:
    """A set whose examples have the field `caption` too.

    Args:
      source: of the pictures.
      texts: (count,) the captions of each, one or more; the first K are taken, or fewer are repeated in turn.
      tokenizer: of all splits of the set.
      settings: K and L.
    """
    count, length = max(settings.count, 1), settings.length
    flat = [row[number % len(row)] for row in texts for number in range(count)]
    rows, cut = encode(flat, tokenizer, length)
    tokens = rows.reshape(len(texts), count, length)
    sha256 = hashlib.sha256(tokens.tobytes()).hexdigest()
    notes = (f"{cut} of {len(flat)} captions are cut to their first {length} words, by config.data.caption_length",)
    words_sha256 = hashlib.sha256(json.dumps(tokenizer.words).encode()).hexdigest()
    return source._replace(
        identity={**source.identity, "captions": [sha256, list(tokens.shape), words_sha256]},
        spec={**source.spec, FIELD: Field("tokens", (count, length), len(tokenizer.words))},
        words=tuple(tokenizer.words),
        read=functools.partial(_read, source=source, tokens=tokens),
        notes=(*source.notes, *(notes if cut else ())),
        digest=functools.partial(_digest, source.digest, sha256 + words_sha256) if source.digest else None,
    )


def check_text(text: str, where: str) -> str:
    """A caption without the space around it. Raises UserError where it has no word."""
    if not words_of(text):
        raise UserError(f"{where}: the caption {text[:60]!r} has no word. Write one, or take the line away.")
    return text.strip()


def check_amount(characters: int, count: int, where: str) -> None:
    """Raises UserError for more text, or more captions, than a set has."""
    if characters > MOST_TEXT or count > MOST_CAPTIONS:
        raise UserError(f"{where}: more than {MOST_CAPTIONS:,} captions, or {MOST_TEXT:,} characters of such and of "
                        "names; give a smaller set.")


def _read(index: int, *, source: Source, tokens: np.ndarray) -> Example:
    return {**source.read(index), FIELD: tokens[index]}


def _digest(of_pictures: Callable[[], str], of_captions: str) -> str:
    return hashlib.sha256(f"{of_pictures()}{of_captions}".encode()).hexdigest()
