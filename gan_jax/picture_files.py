"""The user's picture files, done one by one: which failed, how much is done, and what the memory does not hold."""

import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import jax

from gan_jax import output
from gan_jax.errors import UserError, shown
from gan_jax.logs import duration


class Failures:
    """The files that cannot be done, each with one message on standard error."""

    def __init__(self, count: int):
        self.errors, self._count = [], count

    def add(self, error: UserError) -> None:
        """Says it, unless it is the only file's, whose error `raise_any` raises."""
        self.errors.append(error)
        if self._count > 1:
            print(f"error: {shown(error)}", file=sys.stderr, flush=True)

    def raise_any(self, out: object) -> None:
        """Raises UserError, with a count, where there are some."""
        if self.errors and self._count == 1:
            raise self.errors[0]
        if self.errors:
            rest = f"the other {done} are in {out}" if (done := self._count - len(self.errors)) else "none was made"
            raise UserError(f"{len(self.errors)} of {self._count} pictures failed, see above; {rest}")


class Progress:
    """A bar with the time left for people at a terminal, else words for the lines of a long silence."""

    def __init__(self, total: float):
        self._total, self._done, self._began, self._bar, self._name = max(total, 1), 0, None, None, ""
        if sys.stderr.isatty():
            from tqdm import tqdm

            output.doing("")  # the bar says it
            line = "{desc} {percentage:3.0f}% {bar} {remaining} left"
            self._bar = tqdm(total=self._total, bar_format=line, dynamic_ncols=True)

    def begin(self, name: str) -> None:
        """Names the file at work."""
        self._name = name
        self.advance(0)

    def advance(self, units: float) -> None:
        """So much more is done. The first piece is no measure of the others: programs are compiled for it."""
        self._done += units
        now = time.monotonic()
        if units and self._began is None:
            self._began = now, self._done
        left = ""
        if self._began and self._done > self._began[1]:
            seconds = (now - self._began[0]) * (self._total - self._done) / (self._done - self._began[1])
            left = f", {duration(seconds)} left"
        if self._bar is None:
            output.update(f"{self._name}: {min(self._done / self._total, 1):.0%} of all is done{left}")
        else:
            self._bar.set_description_str(self._name, refresh=False)
            self._bar.update(units)

    def say(self, line: str) -> None:
        """A line beside the bar."""
        self._bar.write(line) if self._bar is not None else print(line, flush=True)

    def close(self) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.close()


def check_place(full: pathlib.Path, target: pathlib.Path) -> None:
    """Raises UserError where a file's result would take the file's own place."""
    if target.exists() and full.exists() and target.samefile(full):
        raise UserError(f"{full}: what is made of it would take its place; give another folder as --out")


def in_memory(call: Callable[[], Any], name: str, shape: tuple[int, ...], advice: str) -> Any:
    """What `call` gives. Raises UserError, with the advice, where the memory does not hold the picture `name`, (H, W).
    """
    try:
        return call()
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        height, width = shape[:2]
        raise UserError(f"{name}: the memory does not hold it, {width}x{height} pixels; {advice}") from error
