"""TCP connections between the processes of one run."""

import contextlib
import json
import os
import socket
import stat
import subprocess
import threading

HOLDING_SECONDS = 20  # connections outlive a process that is killed
LONGEST_LINE = 1 << 16  # bytes


class Line:
    """One end of a connection between two processes: JSON objects, one a line."""

    def __init__(self, connection: socket.socket):
        self._socket, self._reader, self._sending = connection, connection.makefile("rb"), threading.Lock()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        # The system asks whether the other machine is there: one without power counts as gone after 30 s.
        for name, value in {"KEEPIDLE": 10, "KEEPINTVL": 5, "KEEPCNT": 4, "USER_TIMEOUT": 30_000}.items():
            if option := getattr(socket, f"TCP_{name}", None):  # not every system has all
                connection.setsockopt(socket.IPPROTO_TCP, option, value)

    def send(self, message: dict) -> None:
        """Sends a message; one that has left hears nothing."""
        with contextlib.suppress(OSError), self._sending:
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, timeout: float | None = None) -> dict | None:
        """The next message; None where the connection ended, or nothing came in time."""
        try:
            self._socket.settimeout(timeout)
            message = json.loads(self._reader.readline(LONGEST_LINE))
            self._socket.settimeout(None)
        except (OSError, ValueError):
            self._reader.close()
            return None
        return message if isinstance(message, dict) else None

    def close(self) -> None:
        """Ends the connection; who reads from it comes back."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def is_loopback(address: str) -> bool:
    """Whether an address, or `localhost`, is this machine's to itself."""
    return address in ("localhost", "::1") or address.startswith("127.")


def listen(address: str) -> socket.socket:
    """A socket that listens at a free port, for this machine alone where the processes meet at its own address."""
    if is_loopback(address):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return socket.create_server(("127.0.0.1" if address == "localhost" else address, 0), family=family)
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", 0))


def hold(port: int) -> subprocess.Popen | None:
    """A shell that keeps the connections of JAX's coordinator open for a while where this process is killed.

    JAX's clients (0.10) abort their process with a C++ stack as soon as the coordinator's connection closes, and leave
    no time to say why. The watch needs a moment only.
    """
    with contextlib.suppress(OSError):
        connections = [fd for fd in map(int, os.listdir("/dev/fd")) if _is_connection(fd, port)]
        script = ["/bin/sh", "-c", f"read _; exec sleep {HOLDING_SECONDS}"]  # its input ends with this process
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(script, pass_fds=connections, start_new_session=True, **streams)
    return None


def _is_connection(fd: int, port: int) -> bool:
    """Whether a descriptor is a TCP connection that somebody has made to this port of ours."""
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            return False
        with socket.socket(fileno=os.dup(fd)) as connection:
            is_tcp = connection.family in (socket.AF_INET, socket.AF_INET6) and connection.type == socket.SOCK_STREAM
            return is_tcp and connection.getsockname()[1] == port and bool(connection.getpeername())
    except OSError:
        return False
