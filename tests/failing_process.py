"""The command line of a process in which something fails: `failing_process.py WHAT ARGUMENT...`."""

import os
import signal
import sys
import threading

import orbax.checkpoint as ocp

from gan_jax import cli, programs
from gan_jax.errors import UserError
from gan_jax.processes import peers

FIRST_BATCHES, FIRST_SAVES = 5, 1  # go well


class _ReadOnly:
    """What Orbax waits for in its own thread."""

    def result(self, timeout=None):
        raise OSError(30, "Read-only file system")


def _fail_to_read() -> None:
    put, calls = programs.Programs.put, []

    def put_or_fail(self, run, batches):
        calls.append(len(batches))
        if len(calls) > FIRST_BATCHES:
            raise UserError("photo.png: this image is damaged")
        return put(self, run, batches)

    programs.Programs.put = put_or_fail


def _fail_and_hang() -> None:
    """A thread waits for ever, as one of Orbax does whose disk is gone, and Python would wait for it."""
    threading.Thread(target=threading.Event().wait).start()
    _fail_to_read()


def _fail_to_save() -> None:
    save, calls = ocp.StandardCheckpointHandler.async_save, []

    async def save_or_fail(self, *arguments, **options):
        futures = await save(self, *arguments, **options)
        calls.append(len(futures))
        return futures if len(calls) <= FIRST_SAVES else [*futures, _ReadOnly()]

    ocp.StandardCheckpointHandler.async_save = save_or_fail


def _die_at_the_end() -> None:
    finish = peers.Peer.finish

    def finish_and_die(self):
        finish(self)
        os.kill(os.getpid(), signal.SIGKILL)

    peers.Peer.finish = finish_and_die


if __name__ == "__main__":
    {"read": _fail_to_read, "save": _fail_to_save, "end": _die_at_the_end, "hang": _fail_and_hang}[
        sys.argv[1]
    ]()
    del sys.argv[1]
    cli.command()
