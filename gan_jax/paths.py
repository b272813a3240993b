"""Paths as people write them in flags, configs and the environment: `~` and `$NAME` are expanded here alone."""

import os
import re
import urllib.parse

from gan_jax.errors import UserError

_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+)://")
_VARIABLE = re.compile(r"\$(\w+|\{\w+\})")


def expanded(text: str, what: str) -> str:
    """A path of this machine, with the user's folder and variables of the environment in place.

    Args:
      text: as it was written; '' stays ''. `file://` is taken away.
      what: the flag, key or variable that it is of, for messages.
    Raises:
      UserError: a place elsewhere, such as `gs://` or `https://`, a variable that is not set, no folder of the user.
    """
    scheme = _SCHEME.match(text)
    if scheme and scheme[1].lower() != "file":
        raise UserError(f"{what}={text}: {_elsewhere(scheme[1].lower())}")
    path = os.path.expanduser(_of_address(text, what) if scheme else text)
    if path.startswith("~") and not os.path.lexists(path):
        raise UserError(f"{what}={text}: no such user's folder is known here; write the whole path")
    if os.path.lexists(path):  # a name may hold a dollar
        return path
    path = os.path.expandvars(path)
    unset = _VARIABLE.search(path)
    if unset and not os.path.lexists(path):
        raise UserError(f"{what}={text}: the variable {unset[0]} is not set; set it, or write the whole path")
    return path


def _of_address(text: str, what: str) -> str:
    """The path of a `file://` address."""
    address = urllib.parse.urlsplit(text)
    if address.netloc not in ("", "localhost"):
        raise UserError(f"{what}={text}: file://{address.netloc} is another machine; write file:///PATH, or the path")
    return urllib.parse.unquote(address.path)


def _elsewhere(scheme: str) -> str:
    if scheme in ("http", "https", "ftp"):
        return "this is an address; download the file first, and give its path"
    return f"{scheme}:// is not read or written; mount it (gcsfuse, mountpoint-s3, NFS), or copy from and to a folder"
