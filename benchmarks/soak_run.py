"""The run that `soak.py` harms: the package's own command, which tells its phases and takes harms from inside.

    python benchmarks/soak_run.py train --config=... --workdir=...

Environment: `SOAK_TELLS` is a descriptor that gets a line `seconds text` whenever the loop names what it does,
`SOAK_CLOCK` is added to the clock, seconds, and with `SOAK_UNPACKED` folders of pictures are decoded while used. Lines
of standard input are harms: `clock SECONDS` adds to the clock, `rename NAME` lets the next renaming fail with that
error once, and `rmdir NAME` the next removal of a folder, as where a network file system keeps a deleted open file.
"""

import contextlib
import datetime
import errno
import os
import pathlib
import sys
import threading
import time
import warnings
from collections.abc import Callable

ROOT = pathlib.Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # started as a script
    sys.path.insert(0, str(ROOT))

SILLY = ".nfs000000000000002a00000001"  # what a deleted open file is called in its folder


def main() -> None:
    """Runs the command, harmed, and ends the process."""
    clock, renames = Clock(float(os.environ.get("SOAK_CLOCK", 0))), Renames()
    threading.Thread(target=_listen, args=(clock, renames), daemon=True).start()
    from gan_jax import cli, output
    from gan_jax.data import pack

    if "SOAK_TELLS" in os.environ:
        output.doing = _telling(int(os.environ["SOAK_TELLS"]), output.doing)
    if "SOAK_UNPACKED" in os.environ:
        pack.LIMIT_BYTES = 0
    cli.command()


class Clock:
    """Python's clocks, which can be set back."""

    def __init__(self, seconds: float):
        self.offset = 0.0
        self._time, self._time_ns = time.time, time.time_ns
        if seconds:
            self.add(seconds)

    def add(self, seconds: float) -> None:
        """Moves the clock by so many seconds from now on, for who asks `time` or `datetime` by their names."""
        self.offset += seconds
        time.time = lambda: self._time() + self.offset
        time.time_ns = lambda: self._time_ns() + int(self.offset * 1e9)
        clock = self

        class Moved(datetime.datetime):
            @classmethod
            def now(cls, tz=None):
                return super().now(tz) + datetime.timedelta(seconds=clock.offset)

        if datetime.datetime.__name__ != "Moved":
            datetime.datetime = Moved
            warnings.filterwarnings("ignore", message="datetime.datetime size changed")  # as modules in C tell


class Renames:
    """The system's calls that rename and remove folders; the next one may be made to fail, once."""

    def __init__(self):
        self._next: dict[str, int] = {}
        for name in ("rename", "replace"):
            setattr(os, name, self._failing(getattr(os, name), "rename"))
        os.rmdir = self._failing(os.rmdir, "rmdir", before=_leave_silly)

    def fail(self, kind: str, number: int) -> None:
        """Lets the next call of a kind fail with this error number."""
        self._next[kind] = number

    def _failing(self, call: Callable, kind: str, before: Callable = lambda *args, **kwargs: None) -> Callable:
        def once(*args, **kwargs):
            number = self._next.pop(kind, 0)
            if number:
                before(*args, **kwargs)
                raise OSError(number, os.strerror(number), str(args[0]))
            return call(*args, **kwargs)

        return once


def _leave_silly(path, *, dir_fd=None) -> None:
    with contextlib.suppress(OSError):
        os.close(os.open(os.path.join(path, SILLY), os.O_CREAT | os.O_WRONLY, dir_fd=dir_fd))


def _listen(clock: Clock, renames: Renames) -> None:
    while line := os.read(0, 100).decode():  # sys.stdin's lock would be in the way when Python ends
        kind, value = line.split()
        if kind == "clock":
            clock.add(float(value))
        else:
            renames.fail(kind, getattr(errno, value))


def _telling(descriptor: int, doing: Callable[[str], None]) -> Callable[[str], None]:
    """`output.doing` that also tells the soak."""

    def tell(text: str) -> None:
        with contextlib.suppress(OSError):  # the soak has ended
            os.write(descriptor, f"{time.monotonic():.6f} {text}\n".encode())

    def both(text: str) -> None:
        tell(text)
        doing(text)

    return both


if __name__ == "__main__":
    main()
