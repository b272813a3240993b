"""Errors that a user can mend: the command line prints their message alone and exits with code 2. Other ends."""

import re

STOPPED = 75  # exit code of a command that a signal stopped, EX_TEMPFAIL: the same command goes on

_CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class UserError(ValueError):
    """A mistake at the boundary (config, flag, file, weights): what was given, what was expected, what to do."""


class MissingPathError(UserError, FileNotFoundError):
    """A file or folder that the user named does not exist."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


def shown(text: object) -> str:
    """Text for a terminal: characters that would move its cursor, or be none, as Python writes them; lines stay."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), str(text))


def plain(text: object, most: int = 300) -> str:
    """One line of what a file or a library says, cut to a length."""
    return shown(" ".join(str(text)[: 8 * most].split()))[:most]


class DivergedError(RuntimeError):
    """A loss or a gradient became NaN or infinite; names the step, the phase and the term."""


class Stopped(Exception):
    """A signal asked to stop, and what was under way is given up."""
