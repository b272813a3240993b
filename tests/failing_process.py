"""The command line of a process in which something fails: `failing_process.py WHAT ARGUMENT...`."""

import sys

import orbax.checkpoint as ocp

from gan_jax import cli, programs
from gan_jax.errors import UserError

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


def _fail_to_save() -> None:
    save, calls = ocp.StandardCheckpointHandler.async_save, []

    async def save_or_fail(self, *arguments, **options):
        futures = await save(self, *arguments, **options)
        calls.append(len(futures))
        return futures if len(calls) <= FIRST_SAVES else [*futures, _ReadOnly()]

    ocp.StandardCheckpointHandler.async_save = save_or_fail


if __name__ == "__main__":
    {"read": _fail_to_read, "save": _fail_to_save}[sys.argv[1]]()
    sys.exit(cli.main(sys.argv[2:]))
