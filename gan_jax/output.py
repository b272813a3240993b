"""Standard output and error that outlive their readers, and that say what is being done where nothing else is said."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator

QUIET_SECONDS = 5.0  # without a line, until one says what is being done
QUIET_SHARE = 1 / 12  # of the time that it takes already, where that is longer: from a minute on


def flush() -> None:
    """Writes out what standard output and error hold back, as far as they take it."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()


class Activity:
    """What a command is doing, and when its last line was written."""

    def __init__(self):
        self.begin("")

    def begin(self, text: str) -> None:
        """Names what is done from now on; empty where silence needs no word."""
        self.text = text
        self.since = self.last_line = time.monotonic()

    def due(self) -> str:
        """The line for a silence that has lasted, or ''."""
        now = time.monotonic()
        lasted = now - self.since
        if not self.text or now - self.last_line < max(QUIET_SECONDS, QUIET_SHARE * lasted):
            return ""
        return f"{self.text}, {lasted:.0f} s"


class Lasting:
    """A text stream that never fails for a character that its encoding lacks, nor for a descriptor that is not there.

    Where it is `patient`, a reader who left and a disk that is full are no failure either: what follows is dropped.
    """

    def __init__(self, stream, *, patient: bool):
        self._stream, self._patient = stream, patient
        self.activity = stream.activity if isinstance(stream, Lasting) else Activity()

    def write(self, text: str) -> int:
        """Writes what can be written. Raises OSError where it is not patient."""
        self.activity.last_line = time.monotonic()
        self._try(lambda: self._stream.write(text), lambda encoding: self._stream.write(_plain(text, encoding)))
        return len(text)

    def flush(self) -> None:
        """As `write`."""
        self._try(lambda: self._stream.flush())

    @property
    def closed(self) -> bool:
        """Whether nothing can be written."""
        return self._stream is None or self._stream.closed

    def isatty(self) -> bool:
        """Whether a person sees it."""
        return not self.closed and self._stream.isatty()

    def __getattr__(self, name: str):
        return getattr(self._stream, name)

    def _try(self, action, plainly=lambda encoding: None) -> None:
        if self.closed:
            return
        try:
            try:
                action()
            except UnicodeEncodeError as error:
                plainly(error.encoding)
        except OSError:
            if not self._patient:
                raise
            _turn_away(self._stream)
            self._stream = None


def _plain(text: str, encoding: str) -> str:
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _turn_away(stream) -> None:
    """Points a stream's descriptor to nowhere, so that what it still holds is no error when Python ends."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


@contextlib.contextmanager
def lasting(*, patient: bool) -> Iterator[None]:
    """Standard output and error are `Lasting` within the block."""
    is_outermost = not isinstance(sys.stdout, Lasting)
    out, err = (Lasting(stream, patient=patient) for stream in (sys.stdout, sys.stderr))
    ended = threading.Event()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        if is_outermost:
            threading.Thread(target=_watch, args=(out, ended), daemon=True).start()
        try:
            yield
        finally:
            ended.set()


def _watch(stream: Lasting, ended: threading.Event) -> None:
    """Says what is being done whenever nothing was said for long."""
    while not ended.wait(QUIET_SECONDS / 10):
        if line := stream.activity.due():
            with contextlib.suppress(OSError):
                stream.write(f"{line}\n")
                stream.flush()


def doing(text: str) -> None:
    """Names what this process does from now on, for the lines of a long silence; '' where silence needs no word."""
    if isinstance(sys.stdout, Lasting):
        sys.stdout.activity.begin(text)


def update(text: str) -> None:
    """Names anew what is being done, such as how much of it, without a pause before the next line."""
    if isinstance(sys.stdout, Lasting):
        sys.stdout.activity.text = text
