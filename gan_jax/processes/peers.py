"""Processes of one run watch each other: where one fails all end at once, and each says which one failed, and why.

Every process holds a TCP connection to process 0, which passes on what it hears. A process that fails says so before it
leaves; of one that ends without a word, the system closes the connection.
"""

import contextlib
import hmac
import json
import os
import secrets
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from gan_jax import output
from gan_jax.errors import DivergedError, UserError, plain, shown
from gan_jax.processes import connections

KEY = "gan_jax/peers"  # in the store of JAX's coordinator: where process 0 listens
GRACE_SECONDS = 3.0  # for a main thread to end by its own error, before the watch ends the process
NEWS_SECONDS = 8.0  # an error that may be the consequence of another process's end waits for news of that
MEETING_SECONDS = 60.0  # for what processes say to each other when they meet
LEAVING_SECONDS = 15.0  # process 0 waits for the others, and leaves last
LONGEST_MESSAGE = 2_000  # characters of an error


class Failure(NamedTuple):
    """A process that failed."""

    process: int
    host: str
    message: str  # empty where it ended without a word
    code: int  # with which its peers exit


class Watch:
    """What a run tells its watch. This one belongs to a process that is alone, and does nothing."""

    step: int = 0  # where the run stands; 0 before it trains
    saved: Callable[[], int | None] | None = None  # gives the newest complete checkpoint

    def fail(self, error: Exception) -> None:
        """Ends the run by the error of a thread that nobody waits for."""


class Peer(Watch):
    """The watch of one of several processes, connected to process 0."""

    def __init__(self, process: int):
        """`process`: this one's number."""
        self.process, self.host = process, socket.gethostname()
        self._lines: dict[int, connections.Line] = {}  # by the number of the other process
        self._done: set[int] = set()  # processes whose run has ended well
        self._failure: Failure | None = None  # the first one of another process
        self._news: Failure | None = None  # what all others are told
        self._changed = threading.Condition()  # of the four above
        self._heard, self._main_ended, self._finished = (threading.Event() for _ in range(3))
        self._last_word = threading.Lock()  # its owner tells why this process ends; it is never given back

    def join(self, process: int, host: str, line: connections.Line) -> None:
        """Listens to another process from now on."""
        with self._changed:
            self._lines[process] = line
            self._changed.notify_all()
        threading.Thread(target=self._listen, args=(process, host, line), daemon=True).start()

    def _listen(self, process: int, host: str, line: connections.Line) -> None:
        while (message := line.receive()) is not None:
            if "left" in message:
                self._hear(Failure(*message["left"]))
            elif "done" in message:
                self._note_done(process)
        with self._changed:
            self._lines.pop(process, None)
            self._changed.notify_all()
        if process not in self._done:
            self._hear(Failure(process, host, "", 1))

    def _hear(self, failure: Failure) -> None:
        with self._changed:
            if self._failure is not None:
                return
            self._failure = failure
        self._heard.set()
        self._tell(failure)
        threading.Thread(target=self._end, args=(failure,), daemon=True).start()

    def _tell(self, failure: Failure) -> None:
        """Tells all whom this process is connected to, but the one that failed."""
        with self._changed:
            self._news = failure
            lines = [line for process, line in self._lines.items() if process != failure.process]
        for line in lines:
            line.send({"left": failure})

    def _end(self, failure: Failure) -> None:
        """Ends this process, unless its main thread ends in time by an error of its own, such as the same mistake."""
        if failure.message:
            self._main_ended.wait(GRACE_SECONDS)
        if self._last_word.acquire(blocking=False):
            self._leave(failure)

    def _leave(self, failure: Failure) -> None:
        try:
            sys.stderr.write(f"error: {shown(self.sentence(failure))}\n")  # at once: others write there, too
        finally:
            self.leave(failure.code)

    def sentence(self, failure: Failure) -> str:
        """Why this process ends, in one line."""
        if failure.process == self.process:
            return failure.message
        if failure.message:
            return f"process {failure.process} left: {failure.message}"
        line = f"process {failure.process} ({failure.host}) ended without a word, as a killed one does"
        if not self.step or self.saved is None:
            return f"{line}; run the same command again"
        saved = self.saved()
        if saved is None:
            return f"{line}; no checkpoint is complete, and the same command begins anew"
        lost = f"step {self.step} was not saved; " if saved != self.step else ""
        return f"{line}; {lost}the same command goes on from step {saved}"

    def fail(self, error: Exception) -> None:
        """See `Watch.fail`. It returns only where something else ends the process."""
        if not _is_own(error) and self._heard.wait(NEWS_SECONDS):
            return
        failure = self._own(error)
        self._main_ended.wait(GRACE_SECONDS)
        if self._last_word.acquire(blocking=False):
            self._tell(failure)
            self._leave(failure)

    def failed(self, error: BaseException) -> None:
        """Tells the others of the error that ended the main thread. Where another process caused it all ends here."""
        if not _is_own(error):
            self._heard.wait(NEWS_SECONDS)
        self._main_ended.set()
        self._last_word.acquire()  # where the watch has it this is the end
        if self._failure is not None and not _is_own(error):
            self._leave(self._failure)
        self._tell(self._own(error))

    def _own(self, error: BaseException) -> Failure:
        return Failure(self.process, self.host, _message(error), 2 if isinstance(error, UserError) else 1)

    def _note_done(self, process: int) -> None:
        if process == 0:  # which says so when all have
            self._done.add(0)
            self._finished.set()

    def finish(self) -> None:
        """Waits until the run has ended well in all processes; a failure ends this one until then."""
        self._say_done()
        self._finished.wait()
        self._last_word.acquire()
        self.close()

    def _say_done(self) -> None:
        for line in list(self._lines.values()):
            line.send({"done": True})

    def leave(self, code: int) -> None:
        """Ends this process at once, whatever its threads wait for."""
        try:
            output.flush()
            self.part()
        finally:
            os._exit(code)

    def part(self) -> None:
        """Ends the connections of a process that has failed."""
        self.close()

    def close(self) -> None:
        """Ends the connections."""
        with self._changed:
            lines = list(self._lines.values())
        for line in lines:
            line.close()


class Hub(Peer):
    """The watch of process 0, which all others are connected to."""

    def __init__(self, count: int, address: str, port: int, met: Callable[[], None]):
        """Listens for the others.

        Args:
          count: how many processes there are.
          address: of this machine, as the others know it.
          port: of JAX's coordinator.
          met: is called when all are connected.
        """
        super().__init__(0)
        self.token, self._count, self._port, self._met = secrets.token_hex(16), count, port, met
        self._joined: set[int] = set()
        self._holder: Any = None
        self._server = connections.listen(address)
        threading.Thread(target=self._accept, daemon=True).start()

    def where(self) -> dict:
        """What another process must know to connect."""
        return {"port": self._server.getsockname()[1], "token": self.token}

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed at the end
            while True:
                connection, _ = self._server.accept()
                threading.Thread(target=self._welcome, args=(connections.Line(connection),), daemon=True).start()

    def _welcome(self, line: connections.Line) -> None:
        hello = line.receive(MEETING_SECONDS) or {}
        if not hmac.compare_digest(str(hello.get("token")), self.token):  # no process of this run
            line.close()
            return
        line.send({"host": self.host})
        self.join(int(hello["process"]), str(hello["host"]), line)
        with self._changed:
            self._joined.add(int(hello["process"]))
            self._changed.notify_all()
            is_last, news = len(self._joined) == self._count - 1, self._news
        if news is not None:
            line.send({"left": news})
        if is_last:
            self._holder = connections.hold(self._port)
            self._met()

    def part(self) -> None:
        """Waits for the others to leave, and ends the connections: JAX's coordinator ends with this process."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._joined) == self._count - 1 and not self._lines, LEAVING_SECONDS)
        self.close()

    def _note_done(self, process: int) -> None:
        with self._changed:
            self._done.add(process)
            if self._done >= {0, *self._joined}:
                self._finished.set()

    def _say_done(self) -> None:
        self._note_done(0)
        self._finished.wait()
        super()._say_done()

    def close(self) -> None:
        """See `Peer.close`."""
        self._server.close()
        if self._holder is not None:
            self._holder.kill()
            self._holder.communicate()
        super().close()


def _is_own(error: BaseException) -> bool:
    """Whether an error is this process's own for sure, and no word of JAX about a collective that broke."""
    import jax

    chain, one = [], error
    while one is not None and one not in chain:
        chain.append(one)
        one = one.__cause__ or one.__context__
    is_plain = isinstance(error, UserError | DivergedError) or not isinstance(error, Exception)  # an interrupt
    return is_plain and not any(isinstance(one, jax.errors.JaxRuntimeError) for one in chain)


def _message(error: BaseException) -> str:
    """An error in one line."""
    text = plain(error, LONGEST_MESSAGE)
    if isinstance(error, UserError | DivergedError) and text:
        return text
    name = "interrupted" if isinstance(error, KeyboardInterrupt) else type(error).__name__
    return f"{name}: {text}" if text else name


@contextlib.contextmanager
def watching(exit_code: Callable[[BaseException], int] | None = None) -> Iterator[Watch]:
    """Within the block the processes that have met watch each other; one process alone is left alone.

    Where another process fails, this one prints a line and exits, with the code 2 where the cause is a UserError, else
    1. At the end of the block it waits for the others.

    Args:
      exit_code: tells the user of an error that ends the block, and gives the code with which this process then exits
        at once. None: the error is raised.
    """
    watch = _meet()
    if watch is None:
        yield Watch()
        return
    try:
        yield watch
    except BaseException as error:
        watch.failed(error)
        if exit_code is None:
            watch.part()
            raise
        try:
            code = exit_code(error)
        except BaseException:  # it has no words for this one
            traceback.print_exc()
            code = 1
        watch.leave(code)
    watch.finish()


def _meet() -> Peer | None:
    """This process's watch, connected; None where there are no others, or none can be reached."""
    import jax
    from jax._src.distributed import global_state as state  # the only way to the coordinator's store, as for Orbax

    client = state.client
    if client is None or state.num_processes == 1:
        return None
    address, _, port = state.coordinator_address.rpartition(":")
    address = address.strip("[]")
    if state.process_id == 0:
        hub = Hub(state.num_processes, address, int(port), met=lambda: client.key_value_delete(KEY))
        client.key_value_set(KEY, json.dumps(hub.where()), allow_overwrite=True)
        return hub
    try:
        where = json.loads(client.blocking_key_value_get(KEY, int(MEETING_SECONDS * 1000)))
        line = connections.Line(socket.create_connection((address, where["port"]), MEETING_SECONDS))
        line.send({"token": where["token"], "process": state.process_id, "host": socket.gethostname()})
        hub = line.receive(MEETING_SECONDS)
        if hub is None:
            raise ConnectionError("no answer")
    except (OSError, jax.errors.JaxRuntimeError) as error:
        print(
            f"warning: process {state.process_id} cannot connect to a port of process 0 at {address}: {error}; where "
            "another process fails, this one waits for as long as JAX does",
            file=sys.stderr,
            flush=True,
        )
        return None
    peer = Peer(state.process_id)
    peer.join(0, hub["host"], line)
    return peer
