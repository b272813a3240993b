"""The flags of `sweep`: which values they mean, and every combination of them."""

import difflib
import itertools
import math
import random
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from ml_collections import ConfigDict

from gan_jax import config as configs
from gan_jax.errors import UserError

FORMS = ("linear", "log", "random", "lograndom")  # some values of a number
RANGES = ("uniform", "loguniform")  # all of them, for an engine that chooses


class Range(NamedTuple):
    """The numbers that an engine may choose from."""

    low: float
    high: float
    log: bool  # whether what counts between two of them is their ratio
    whole: bool  # whether they are whole numbers

    def text(self, value: float) -> str:
        """A number as it is handed to a run's flags; one outside is the nearest bound."""
        value = min(max(value, self.low), self.high)
        return str(round(value)) if self.whole else repr(float(value))


Space = dict[str, Range | list[str]]  # config key -> what it may be; a list: any of these texts


def whole_keys(config: ConfigDict) -> frozenset[str]:
    """The keys, `config.` before each, whose values are whole numbers."""
    return frozenset(f"config.{key}" for key, value in configs.flatten(config) if type(value) is int)


def product(sweeps: Sequence[str], seed: int, whole: Collection[str] = ()) -> dict[str, dict[str, str]]:
    """Every combination of the sweeps: run folder's name -> config key -> value.

    Args:
      sweeps: see `expand`.
      seed: of the draws.
      whole: keys of whole numbers.

    Raises:
      UserError: no sweep, an unreadable one, or a key that stands twice.
    """
    if not sweeps:
        raise UserError("nothing to sweep: give --sweep='config.key=1,2' once or more")
    choices: dict[str, list[str]] = {}
    for definition in sweeps:
        key, values = expand(definition, seed, whole)
        if key in choices:
            raise UserError(f"--sweep={definition!r}: {key} is swept twice; put all its values in one list")
        choices[key] = values
    runs = {}
    for index, values in enumerate(itertools.product(*choices.values())):
        combination = dict(zip(choices, values, strict=True))
        runs[run_name(f"{index:03d}", combination)] = combination
    return runs


def run_name(number: str, values: Mapping[str, str]) -> str:
    """The name of a run's folder: its number in the sweep, and its values for people."""
    names = ",".join(f"{key.rpartition('.')[2]}={value}" for key, value in values.items())
    return f"{number}-" + re.sub(r"[^\w.=,+-]", "_", names)[:100]


def space(sweeps: Sequence[str], seed: int, whole: Collection[str] = ()) -> Space:
    """What an engine may choose from: ranges `uniform(a,b)` and `loguniform(a,b)`, or any value of a list.

    Args:
      sweeps: a key and its range each, or what `expand` reads.
      seed: of the draws of lists.
      whole: keys of whole numbers.

    Raises:
      UserError: no sweep, an unreadable one, or a key that stands twice.
    """
    if not sweeps:
        raise UserError("nothing to sweep: give --sweep='config.key=loguniform(1e-5,1e-3)' once or more")
    choices: Space = {}
    for definition in sweeps:
        call = re.fullmatch(rf"\s*({'|'.join(RANGES)})\((.*)\)\s*", definition.partition("=")[2])
        if call:
            key = expand(definition.partition("=")[0] + "=0", seed)[0]
            choice = _range(definition, call[1], call[2], key in whole)
        else:
            key, choice = expand(definition, seed, whole)
        if key in choices:
            raise UserError(f"--sweep={definition!r}: {key} is swept twice; give all its values in one")
        choices[key] = choice
    return choices


def _range(definition: str, name: str, text: str, whole: bool) -> Range:
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        raise UserError(f"--sweep={definition!r}: expected {name}(lowest,highest)") from None
    log = name == "loguniform"
    if not (math.isfinite(low) and math.isfinite(high) and low < high) or (log and low <= 0):
        raise UserError(f"--sweep={definition!r}: expected the lower number first{', above 0' if log else ''}")
    if whole:
        low, high = round(low), round(high)
        if low >= high or (log and low < 1):
            raise UserError(f"--sweep={definition!r}: holds no two whole numbers{' above 0' if log else ''}")
    return Range(low, high, log, whole)


def expand(definition: str, seed: int, whole: Collection[str] = ()) -> tuple[str, list[str]]:
    """Reads one sweep.

    Args:
      definition: `config.key=` and a list of values between commas. A value may be `linear(a,b,n)` or
        `log(a,b,n)`, n values from a to b, evenly spaced or in constant ratio, or `random(a,b,n)` or
        `lograndom(a,b,n)`, n draws from a to b, uniform or log-uniform. One in brackets or quotes may have commas:
        `(32,32)`, `"fd,kd"`; the quotes are no part of it, and what they hold is no form.
      seed: of the draws; they depend on the key as well.
      whole: keys of whole numbers: those of a form are rounded, and each is there once.
    Returns:
      The key, and its values as they are handed to a run's flags.
    Raises:
      UserError: it cannot be read.
    """
    key, equals, text = definition.partition("=")
    key = key.strip().removeprefix("--")
    if not equals or not re.fullmatch(r"config(\.\w+)+", key):
        raise UserError(f"--sweep={definition!r}: expected config.key=1,2 or config.key=log(1e-5,1e-3,5)")
    draw = random.Random(f"{seed}/{key}")
    values: list[str] = []
    for item, quoted in _split(definition, text):
        series = [item] if quoted else _series(definition, item, draw, key in whole)
        rounded = key in whole and series != [item]
        values += [value for value in series if not (rounded and value in values)]
    if len(set(values)) < len(values):
        raise UserError(f"--sweep={definition!r}: a value stands twice")
    return key, values


def _split(definition: str, text: str) -> Iterator[tuple[str, bool]]:
    """The items between the commas outside brackets and quotes, and whether each was quoted."""
    rest = text
    while rest is not None:
        quoted = re.match(r"""\s*(["'])(.*?)\1\s*(?=,|$)""", rest)
        depths = list(itertools.accumulate((char in "([{") - (char in ")]}") for char in rest))
        commas = [i for i, char in enumerate(rest) if char == "," and not depths[i]]
        end = quoted.end() if quoted else next(iter(commas), len(rest))
        item = quoted[2] if quoted else rest[:end].strip()
        if not (item or quoted):
            raise UserError(f"--sweep={definition!r}: a value is empty")
        if not quoted and (item[0] in "\"'" or depths[end - 1]):
            raise UserError(f"--sweep={definition!r}: a bracket or quote is not closed in {item}")
        yield item, bool(quoted)
        rest = rest[end + 1 :] if end < len(rest) else None


def _series(definition: str, item: str, draw: random.Random, whole: bool) -> list[str]:
    call = re.fullmatch(r"([a-z]+)\((.*)\)", item)
    if not call:
        return [item]
    name = call[1]
    if name in RANGES:
        instead = f"it stands alone, for --engine=optuna or pbt; here {name.replace('uniform', 'random')}(a,b,n)"
        raise UserError(f"--sweep={definition!r}: {name}(...) is a range: {instead}")
    if name not in FORMS:
        close = difflib.get_close_matches(name, FORMS, n=1)
        nearest = f"; nearest: {close[0]}" if close else ""
        raise UserError(f"--sweep={definition!r}: {name}(...) is none of {', '.join(FORMS)}{nearest}")
    try:
        first, last, count = call[2].split(",")
        a, b, n = float(first), float(last), int(count)
    except ValueError:
        raise UserError(f"--sweep={definition!r}: expected {name}(first,last,count)") from None
    if n < 1 or not (math.isfinite(a) and math.isfinite(b)) or ("log" in name and min(a, b) <= 0):
        limits = " and numbers above 0" if "log" in name else ""
        raise UserError(f"--sweep={definition!r}: {name} needs a count of 1 or more{limits}")
    shares = [draw.random() if "random" in name else i / max(n - 1, 1) for i in range(n)]
    numbers = [a ** (1 - t) * b**t if "log" in name else a + (b - a) * t for t in shares]
    return list(dict.fromkeys(str(round(x)) for x in numbers)) if whole else [f"{x:.6g}" for x in numbers]
