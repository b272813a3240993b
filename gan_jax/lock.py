"""One process at a time trains in a run's folder: a lock that dies with its owner and names it to others."""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import socket
import threading
import time
from typing import IO, NamedTuple

from gan_jax.errors import UserError

NAME = "train.lock"
BEAT_SECONDS = 10.0  # between two signs of life
WATCH_SECONDS = 35.0  # of another machine's owner, before it counts as gone


class Lock:
    """Holds a folder until it is closed, or this process ends however it may."""

    def __init__(self, path: pathlib.Path, file: IO):
        self._path, self._file, self._ended = path, file, threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):
                os.utime(self._path)

    def close(self) -> None:
        """Gives the folder back."""
        self._ended.set()
        with contextlib.suppress(OSError):
            if _is_current(self._path, self._file):
                self._path.unlink()
        self._file.close()


class Owner(NamedTuple):
    """Who holds a folder."""

    host: str
    pid: int
    since: str


def take(folder: os.PathLike | str) -> Lock:
    """The lock of a folder, which is made where it is not there.

    The system's own lock tells processes of one machine apart, and on most network file systems those of several. Where
    the file names an owner on another machine, it is watched for signs of life before it counts as gone.

    Raises:
      UserError: another process trains there; it is named.
      OSError: the folder cannot be made or written.
    """
    path = pathlib.Path(folder) / NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = open(path, "a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_locked = True
        except OSError as error:
            is_locked = False  # some file systems cannot
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise _taken(folder, file) from error
        if _is_current(path, file):
            break
        file.close()  # its owner ended between our two looks
    owner = _owner(file)
    if owner is not None and not (is_locked and owner.host == socket.gethostname()) and _is_alive(path, owner):
        raise _taken(folder, file)
    file.seek(0)
    file.truncate()
    mine = Owner(socket.gethostname(), os.getpid(), time.strftime("%Y-%m-%d %H:%M:%S"))
    file.write(json.dumps(mine._asdict()) + "\n")
    file.flush()
    return Lock(path, file)


def _is_current(path: pathlib.Path, file: IO) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _owner(file: IO) -> Owner | None:
    try:
        file.seek(0)
        return Owner(**json.loads(file.read()))
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def _is_alive(path: pathlib.Path, owner: Owner) -> bool:
    """Whether the owner lives, by its number on this machine, by its signs of life on another."""
    if owner.host == socket.gethostname():
        try:
            os.kill(owner.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return owner.pid != os.getpid()
    who = f"process {owner.pid} on {owner.host}"
    print(f"{path}: looking for {WATCH_SECONDS:.0f} s whether {who} still trains", flush=True)
    seen, until = _stamp(path), time.monotonic() + WATCH_SECONDS
    while time.monotonic() < until:
        time.sleep(min(1.0, WATCH_SECONDS / 10))
        if _stamp(path) != seen:
            return True
    return False


def _stamp(path: pathlib.Path) -> int:
    try:
        with open(path, "rb") as file:  # opened anew, a network file system asks its server
            return os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return 0


def _taken(folder: os.PathLike | str, file: IO) -> UserError:
    owner = _owner(file)
    file.close()
    who = f"process {owner.pid} on {owner.host} trains there since {owner.since}" if owner else "another one trains"
    return UserError(f"{folder}: {who}; wait for it, stop it, or give another --workdir")
