"""All processes of a run are there: each waits until the others have come, and can say for whom it waits.

The others call on process 0 at one port and tell their numbers; it tells them who is missing, and all part together.
"""

import contextlib
import errno
import os
import re
import selectors
import socket
import struct
import time
from collections.abc import Iterator
from typing import NamedTuple

from gan_jax import output
from gan_jax.errors import UserError
from gan_jax.processes import connections

_CALL_SECONDS = 5.0  # for a connection, or for what a caller has to say
_PAUSE_SECONDS = 0.2  # before another call
_NAMED = 8  # processes that a line names; more are counted


class Place(NamedTuple):
    """One process among those of a run."""

    process: int  # from 0
    processes: int
    host: str  # of process 0
    port: int

    def __str__(self) -> str:
        return f"process {self.process} of {self.processes}"

    @property
    def address(self) -> str:
        """Host and port of process 0, as one writes them."""
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def place(process: int, processes: int, coordinator: str) -> Place:
    """The place of a process that is told its number and where process 0 is. Raises UserError for no such place."""
    if not 0 <= process < processes:
        raise UserError(
            f"--process_id={process} --num_processes={processes}: expected a number from 0, below that of processes"
        )
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(f"--coordinator={coordinator}: expected HOST:PORT, process 0's machine and a free port there")
    return Place(process, processes, host.strip("[]"), int(port))


def meet(here: Place, seconds: float) -> None:
    """Returns once all processes are there, in each of them.

    Raises:
      UserError: they were not within this time, or this process cannot be one of them; says who is missing.
    """
    try:
        socket.getaddrinfo(here.host, here.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UserError(
            f"{here}: {here.host} has no address here ({getattr(error, 'strerror', None) or error}); "
            "--coordinator=HOST:PORT takes the machine of process 0 by a name that all the others know"
        ) from error
    if here.process:
        _call(here, seconds)
    else:
        _receive(here, seconds)


# ---- process 0


def _receive(here: Place, seconds: float) -> None:
    """Lets the others in until all are there, and lets them go."""
    deadline = time.monotonic() + seconds
    with _listener(here) as listener, selectors.DefaultSelector() as selector, contextlib.ExitStack() as connections:
        selector.register(listener, selectors.EVENT_READ)
        callers: dict[int, socket.socket] = {}
        missing_before: list[int] = []
        output.doing(f"{here}: waiting for {_names(_missing(here, callers))} at {here.address}")
        while missing := _missing(here, callers):
            left = deadline - time.monotonic()
            if left <= 0:
                _tell(callers, f"late {_listed(missing)}")
                raise UserError(
                    f"{here}: {_names(missing)} did not come to {here.address} within {seconds:g} s; {_check(missing)}"
                )
            events = selector.select(min(left, 1.0))
            for key, _ in events:
                if key.fileobj is listener:
                    _welcome(here, connections.enter_context(listener.accept()[0]), callers, selector)
                else:  # a caller says nothing more: it has left
                    selector.unregister(key.fileobj)
                    callers.pop(key.data).close()
            if not events and missing_before != missing:
                output.update(f"{here}: waiting for {_names(missing)} at {here.address}")
                _tell(callers, f"missing {_listed(missing)}")
                missing_before = missing
        _tell(callers, "go")
        for connection in callers.values():  # they hang up first: the port is free for JAX then
            with contextlib.suppress(OSError):
                connection.recv(1)


def _listener(here: Place) -> socket.socket:
    """Listens where JAX is going to."""
    host, _, port = os.environ.get("JAX_COORDINATOR_BIND_ADDRESS", "").rpartition(":")
    address = (host.strip("[]"), int(port)) if host and port.isdecimal() else (bind_host(here), here.port)
    everywhere = address[0] in ("", "::") and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if ":" in address[0] or everywhere else socket.AF_INET
    try:
        return socket.create_server(address, family=family, backlog=1024, dualstack_ipv6=everywhere)
    except OSError as error:
        used = ", perhaps by another run" if error.errno == errno.EADDRINUSE else ""
        raise UserError(
            f"{here}: cannot listen at port {address[1]} of this machine: {error.strerror}{used}; "
            "give another port by --coordinator=HOST:PORT, or by JAX_COORDINATOR_PORT where a launcher says the host"
        ) from error


def bind_host(here: Place) -> str:
    """The address at which process 0 listens; empty for all of its machine's. Who meets on loopback stays there."""
    return here.host if here.host != "localhost" and connections.is_loopback(here.host) else ""


def _welcome(here: Place, connection: socket.socket, callers: dict, selector: selectors.BaseSelector) -> None:
    """Takes down a caller's number, or refuses it."""
    connection.settimeout(_CALL_SECONDS)
    try:
        greeting = re.fullmatch(rb"gan_jax (\d{1,9}) of (\d{1,9})\n", connection.recv(64))
        if not greeting:  # somebody else
            connection.close()
            return
        process, processes = int(greeting[1]), int(greeting[2])
        if processes != here.processes:
            _send(connection, f"refused process 0 is one of {here.processes} processes")
        elif process in callers or not 0 < process < processes:
            _send(connection, f"refused another process {process} is there already")
        else:
            selector.register(connection, selectors.EVENT_READ, process)
            callers[process] = connection
    except OSError:  # it has left
        connection.close()


def _missing(here: Place, callers: dict) -> list[int]:
    return [process for process in range(1, here.processes) if process not in callers]


def _tell(callers: dict[int, socket.socket], line: str) -> None:
    for connection in callers.values():
        with contextlib.suppress(OSError):
            _send(connection, line)


# ---- the others


def _call(here: Place, seconds: float) -> None:
    """Calls on process 0 until it lets this process go."""
    deadline = time.monotonic() + seconds
    output.doing(f"{here}: waiting for process 0 at {here.address}")
    while (left := deadline - time.monotonic()) > 0:
        with contextlib.suppress(OSError):
            with socket.create_connection((here.host, here.port), timeout=min(left, _CALL_SECONDS)) as connection:
                is_over = not _is_itself(connection) and _is_let_go(here, connection, deadline)
            if is_over:
                return _await_service(here)
        output.update(f"{here}: waiting for process 0 at {here.address}")
        time.sleep(_PAUSE_SECONDS)
    raise UserError(
        f"{here} did not find process 0 at {here.address} within {seconds:g} s; {_check([0])}. From here "
        "that name must lead to its machine, and no firewall may stand between"
    )


def _await_service(here: Place) -> None:
    """Waits a moment until JAX listens in process 0: its client would pause for a second where it came too early."""
    for _ in range(100):
        with contextlib.suppress(OSError):
            with socket.create_connection((here.host, here.port), timeout=_CALL_SECONDS) as connection:
                if not _is_itself(connection):
                    return
        time.sleep(0.02)


def _is_itself(connection: socket.socket) -> bool:
    """Whether the system has connected a socket with itself, as it may where nobody listens at a port of its own."""
    if connection.getsockname() != connection.getpeername():
        return False
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # leaves the port at once
    return True


def _is_let_go(here: Place, connection: socket.socket, deadline: float) -> bool:
    """Whether process 0 says that all are there; False where it hangs up, or is somebody else who says nothing."""
    _send(connection, f"gan_jax {here.process} of {here.processes}")
    missing: list[int] = []
    for line in _lines(connection, deadline + _CALL_SECONDS):  # process 0 says itself that the time is over
        word, _, rest = line.partition(" ")
        if word == "go":
            return True
        if word == "refused":
            raise UserError(f"{here}: refused at {here.address}: {rest}; each process needs a --process_id of its own, "
                            "and all the same --num_processes and --coordinator, which no other run uses")  # fmt: skip
        missing = [int(number) for number in rest.split(",") if number.isdecimal()]
        if word == "late":
            late = f"process 0 at {here.address} waits no longer for {_names(missing)}"
            raise UserError(f"{here}: {late}; {_check(missing)}")
        if word != "missing":
            return False
        output.update(f"{here}: waiting for {_names(missing)}, with process 0 at {here.address}")
    if missing and time.monotonic() >= deadline:
        raise UserError(f"{here}: {_names(missing)} did not come to {here.address} in time; {_check(missing)}")
    return False


def _lines(connection: socket.socket, deadline: float) -> Iterator[str]:
    """What process 0 says, line by line, until it hangs up or the time is over. Raises OSError for a broken line."""
    text = b""
    while len(text) < 2**16:
        connection.settimeout(max(deadline - time.monotonic(), 0.01))
        try:
            received = connection.recv(4096)
        except TimeoutError:
            return
        if not received:
            return
        *lines, text = (text + received).split(b"\n")
        for line in lines:
            yield line.decode("ascii", "replace")


# ---- words of both


def _send(connection: socket.socket, line: str) -> None:
    connection.sendall(f"{line}\n".encode())


def _listed(processes: list[int]) -> str:
    return ",".join(map(str, processes[: _NAMED + 1]))


def _names(processes: list[int]) -> str:
    """`process 1`, or `processes 1, 2, 5`."""
    listed = ", ".join(map(str, processes[:_NAMED])) + (" and others" if len(processes) > _NAMED else "")
    return f"process{'es' * (len(processes) != 1)} {listed}"


def _check(missing: list[int]) -> str:
    """What to do about processes that are missing."""
    it, runs, says = ("they", "run", "say") if len(missing) > 1 else ("it", "runs", "says")
    return f"see whether {it} {runs} and what {it} {says}; --wait_seconds=N waits longer"
