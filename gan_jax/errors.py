"""Errors that a user can mend: the command line prints their message alone and exits with code 2. Other ends."""

STOPPED = 75  # exit code of a command that a signal stopped, EX_TEMPFAIL: the same command goes on


class UserError(ValueError):
    """A mistake at the boundary (config, flag, file, weights): what was given, what was expected, what to do."""


class MissingPathError(UserError, FileNotFoundError):
    """A file or folder that the user named does not exist."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class DivergedError(RuntimeError):
    """A loss or a gradient became NaN or infinite; names the step, the phase and the term."""


class Stopped(Exception):
    """A signal asked to stop, and what was under way is given up."""
