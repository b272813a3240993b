"""Standard output and error that outlive their readers: a run goes on where nobody listens any more."""

import contextlib
import os
import sys
from collections.abc import Iterator


class Lasting:
    """A text stream that never fails for a character that its encoding lacks, nor for a descriptor that is not there.

    Where it is `patient`, a reader who left and a disk that is full are no failure either: what follows is dropped.
    """

    def __init__(self, stream, *, patient: bool):
        self._stream, self._patient = stream, patient

    def write(self, text: str) -> int:
        """Writes what can be written. Raises OSError where it is not patient."""
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
    streams = (Lasting(stream, patient=patient) for stream in (sys.stdout, sys.stderr))
    with contextlib.redirect_stdout(next(streams)), contextlib.redirect_stderr(next(streams)):
        yield
