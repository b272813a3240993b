"""Signals that ask a run to stop: taken as early as the command begins, and heeded where nothing is lost."""

import itertools
import signal
from collections.abc import Callable

from gan_jax.errors import Stopped

NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def heeded() -> tuple[signal.Signals, ...]:
    """Those of `NUMBERS` that are to be heeded: a SIGHUP that is ignored, as `nohup` has it, stays so."""
    ignored = (signal.SIGHUP,) if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else ()
    return tuple(number for number in NUMBERS if number not in ignored)


class Stop:
    """Whether this run was told to stop: `stop()` asks.

    Within `with stop:` the signals are taken; outside the main thread they are left to whoever runs us. A second one of
    a kind ends the program. Among several processes SIGTERM stays with JAX's preemption service, which tells all of
    them, and the others are passed on to it.
    """

    def __init__(self, end: Callable[[str], None] | None = None):
        """`end`: called with a signal's name where it comes; None: signals are noted, until somebody asks."""
        self.end = end
        self._names: list[str] = []  # of the signals that came
        self._before: dict = {}  # signal -> its handler outside
        self._depth = 0  # of `with` blocks, one within another
        self._several = self._is_agreed = False
        self._questions = itertools.count(1)

    def __enter__(self) -> "Stop":
        self._depth += 1
        self._take_over()
        return self

    def _take_over(self) -> None:
        for number in heeded():
            if number == signal.SIGTERM and self._several:
                continue
            try:
                self._before.setdefault(number, signal.signal(number, self._take))
            except ValueError:  # not the main thread
                break

    def __exit__(self, *failure) -> None:
        self._depth -= 1
        if self._depth:
            return
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def note(self) -> None:
        """From now on signals are noted until somebody asks: other processes wait for this one, or files are open."""
        self.end = None

    def among(self, processes: int) -> None:
        """Says how many processes the run has, which have met; JAX took SIGTERM when they did."""
        self._several = processes > 1
        if self._several and self._names:
            signal.raise_signal(signal.SIGTERM)
        if self._depth:
            self._take_over()

    def _take(self, number: int, frame) -> None:
        self._names.append(signal.Signals(number).name)
        signal.signal(number, signal.SIG_DFL)
        if self._several:
            signal.raise_signal(signal.SIGTERM)
        elif self.end:
            self.end(self._names[-1])

    def __call__(self) -> bool:
        """Whether to stop now. Several processes ask equally often, and are told so at one question."""
        if self._several and not self._is_agreed:
            from jax.experimental import multihost_utils

            self._is_agreed = multihost_utils.reached_preemption_sync_point(next(self._questions))
        return self._is_agreed if self._several else bool(self._names)

    def check(self) -> None:
        """Raises Stopped where it is time to stop; a question as `stop()` is."""
        if self():
            raise Stopped
