"""What `--captions` means for a run: the texts, and the tokens that its game draws from."""

import difflib
import pathlib

import numpy as np

from gan_jax import paths, run_data, runs, specs
from gan_jax.data import captions as captioned
from gan_jax.data.captions import Tokenizer
from gan_jax.errors import MissingPathError, UserError
from gan_jax.sample_flags.flags import Flags, Job, numbers, shown

FILE, MOST_BYTES = ".txt", 1 << 20
SEEDS, EXAMPLES = "0-7", "0-63"  # by default: of captions that are given, and of held-out ones
NEAREST = 3  # words that are named in place of an unknown one


def of_captions(flags: Flags, run: runs.Run, words: tuple[str, ...]) -> Job:
    """The samples of a game that draws from captions: every caption with every seed, or held-out examples.

    Args:
      flags: checked.
      run: whose game asks for a field of tokens.
      words: of the run's data, see `Dataset.words`.
    Raises:
      UserError: flags without a meaning here, captions with unknown words or too many.
    """
    for flag in ("interpolate", "labels"):
        if getattr(flags, flag):
            raise UserError(f"{shown(flags, flag)}: the game {run.config.game!r} draws from captions; leave it out")
    (name,) = runs.captions(run)
    tokenizer = _tokenizer(run, name, words)
    if not flags.captions:
        return _held_out(numbers("seeds", flags.seeds or EXAMPLES), run, name, tokenizer)
    if others := [one for one in run.game.asks(run.config) if one != name]:
        raise UserError(f"--captions: the game {run.config.game!r} draws from {', '.join(others)} too; give "
                        "--seeds=0-7 alone, for held-out examples")
    texts = texts_of(flags.captions)
    seeds = numbers("seeds", flags.seeds or SEEDS)
    rows = np.stack([tokens_of(text, tokenizer, run.spec[name].shape[1]) for text in texts])
    count = run.spec[name].shape[0]
    fields = {name: np.repeat(np.repeat(rows[:, None], count, 1), len(seeds), 0)}
    names = tuple(f"seed{seed:06}_caption{number:03}" for number in range(len(texts)) for seed in seeds)
    return Job(flags, np.tile(seeds, len(texts)), None, {}, None, "", None, fields, names, texts)


def _held_out(examples: np.ndarray, run: runs.Run, name: str, tokenizer: Tokenizer) -> Job:
    """Held-out examples with the first caption of each."""
    fields = runs.held_out(run)(examples)
    first = fields[name][:, :1]
    fields = {**fields, name: np.repeat(first, fields[name].shape[1], 1)}
    texts = tuple(tokenizer.decode(row[0].tolist()) for row in first)
    names = tuple(f"example{i:06}" for i in examples)
    return Job(flags=Flags(), seeds=examples, labels=None, options={}, ws=None, mark="", mixing=None, given=fields,
               names=names, captions=texts)  # fmt: skip


def _tokenizer(run: runs.Run, name: str, words: tuple[str, ...]) -> Tokenizer:
    """That of the run's data."""
    tokenizer = captioned.open_tokenizer(run_data.data_section(run.config, name).tokenizer, lambda: words)
    field: specs.Field = run.spec[name]
    if len(tokenizer.words) != field.classes:
        raise UserError(
            f"the captions of this run are of {field.classes} tokens, and {len(tokenizer.words)} are there: bring back "
            "its data.json, or the file that config.data.tokenizer names"
        )
    return tokenizer


def texts_of(captions: str | tuple[str, ...]) -> tuple[str, ...]:
    """The captions of the flag: a text, a `.txt` with one a line, or as many as a program gives.

    Raises:
      MissingPathError, UserError: there is no such file, it is no text, or it has none.
    """
    if not isinstance(captions, str):
        return captions
    if not captions.lower().endswith(FILE):
        return (captions,)
    path = pathlib.Path(paths.expanded(captions, "--captions"))
    if not path.is_file():
        raise MissingPathError(f"--captions={captions}: there is no file {path.absolute()}")
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise UserError(f"--captions={captions}: larger than {MOST_BYTES >> 20} MiB; give fewer captions at a time")
        texts = tuple(line.strip() for line in data.decode("utf-8-sig").split("\n") if line.strip())
    except UnicodeDecodeError as error:
        raise UserError(f"--captions={captions}: no UTF-8 (byte {error.start}); save the file as such") from error
    except OSError as error:
        raise UserError(f"--captions={captions}: cannot be read: {error.strerror or error}") from error
    if not texts:
        raise UserError(f"--captions={captions}: the file is empty; write a caption a line")
    return texts


def tokens_of(text: str, tokenizer: Tokenizer, length: int) -> np.ndarray:
    """The tokens int32 (L,) of a caption of the user's. Raises UserError for unknown words, too many, or none."""
    if not captioned.words_of(text):
        raise UserError(f"--captions: {text!r} has no word; write a caption such as those of the data")
    if unknown := tokenizer.unknown(text):
        near = difflib.get_close_matches(unknown[0], tokenizer.words[2:], NEAREST)
        hint = f"near it: {', '.join(near)}" if near else f"it knows {', '.join(tokenizer.words[2:22])} and so on"
        others = f" ({len(unknown)} unknown in all: {', '.join(unknown[:8])})" if len(unknown) > 1 else ""
        what = f"--captions: {text!r}: no caption that was trained on has the word {unknown[0]!r}"
        raise UserError(f"{what}; {hint}{others}")
    tokens, cut = captioned.encode([text], tokenizer, length)
    if cut:
        count = len(tokenizer.encode(text))
        raise UserError(f"--captions: {text!r} has {count} tokens, and this run reads up to {length}; make it shorter")
    return tokens[0]
