"""Errors that a user can mend: the command line prints their message alone and exits with code 2."""


class UserError(ValueError):
    """A mistake at the boundary (config, flag, file, weights): what was given, what was expected, what to do."""


class MissingPathError(UserError, FileNotFoundError):
    """A file or folder that the user named does not exist."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class DivergedError(RuntimeError):
    """A loss or a gradient became NaN or infinite; names the step, the phase and the term."""
