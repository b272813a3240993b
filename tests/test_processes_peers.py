"""The watch of processes on each other: real connections between two or three watches in this process."""

import contextlib
import json
import os
import queue
import socket
import sys
import threading

import jax
import pytest
from jax._src.distributed import global_state

from gan_jax.errors import DivergedError, UserError
from gan_jax.processes import connections, peers

LIMIT = 60  # seconds until something counts as hung
ADDRESS = "127.0.0.1:1"  # nobody listens there; the store is the fixture's


class Store(dict):
    """Stands in for the store of JAX's coordinator."""

    def __init__(self, *values):
        super().__init__(*values)
        self.deleted = threading.Event()

    def key_value_set(self, key, value, allow_overwrite=False):
        assert allow_overwrite
        self[key] = value

    def blocking_key_value_get(self, key, milliseconds):
        return self[key]

    def key_value_delete(self, key):
        del self[key]
        self.deleted.set()


@pytest.fixture
def exits(monkeypatch):
    """The codes with which processes would end; the thread that ends one ends alone."""
    codes = queue.Queue()

    def leave(code):
        codes.put(code)
        if threading.current_thread() is threading.main_thread():
            sys.exit()
        threading.Event().wait()

    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(peers, "GRACE_SECONDS", 0.2)
    monkeypatch.setattr(peers, "NEWS_SECONDS", 0.2)
    monkeypatch.setattr(peers, "LEAVING_SECONDS", 0.2)
    return codes


@pytest.fixture
def meet(monkeypatch, exits):
    """meet(count) -> the watches of so many processes of one run."""
    everyone = []

    def meet(count):
        store = Store()
        state = {"client": store, "num_processes": count, "coordinator_address": ADDRESS}
        for name, value in state.items():
            monkeypatch.setattr(global_state, name, value)
        for process in range(count):
            monkeypatch.setattr(global_state, "process_id", process)
            everyone.append(peers._meet())
        assert store.deleted.wait(LIMIT)  # all are connected
        return everyone

    yield meet
    for watch in everyone:
        watch._last_word.acquire(blocking=False)
        watch.close()


def jax_error(text="Gloo all-reduce failed: Connection reset by peer"):
    return jax.errors.JaxRuntimeError(text)


def lines_of(capfd):
    return sorted(capfd.readouterr().err.splitlines())


def test_one_process_is_left_alone():
    before = threading.active_count()
    with peers.watching() as watch:
        watch.step = 3
        assert type(watch) is peers.Watch and threading.active_count() == before
    assert watch.fail(UserError("nobody hears it")) is None


@pytest.mark.parametrize(
    "error, code, text",
    [
        (UserError("a.png:\n  is broken"), 2, "a.png: is broken"),
        (DivergedError("step 3"), 1, "step 3"),
        (MemoryError(), 1, "MemoryError"),
        (KeyboardInterrupt(), 1, "interrupted"),
        (TypeError("no number"), 1, "TypeError: no number"),
    ],
)
def test_all_others_end_with_the_message_of_the_one_that_failed(meet, exits, capfd, error, code, text):
    _, failing, _ = meet(3)
    failing.failed(error)
    failing.part()
    assert [exits.get(timeout=LIMIT) for _ in range(2)] == [code, code]
    assert lines_of(capfd) == 2 * [f"error: process 1 left: {text}"]


def test_an_error_of_the_first_process_ends_the_others(meet, exits, capfd):
    hub, *others = meet(3)
    hub.failed(UserError("the disk is full"))
    assert [exits.get(timeout=LIMIT) for _ in others] == [2, 2]
    assert lines_of(capfd) == 2 * ["error: process 0 left: the disk is full"]


@pytest.mark.parametrize("killed", [0, 1])
@pytest.mark.parametrize(
    "step, saved, rest",
    [
        (0, None, "run the same command again"),
        (7, None, "no checkpoint is complete, and the same command begins anew"),
        (7, 5, "step 7 was not saved; the same command goes on from step 5"),
        (7, 7, "the same command goes on from step 7"),
    ],
)
def test_a_process_without_a_last_word_is_named_with_what_is_lost(meet, exits, capfd, killed, step, saved, rest):
    watches = meet(2)
    survivor = watches[1 - killed]
    survivor.step, survivor.saved = step, lambda: saved
    watches[killed]._last_word.acquire()  # it says nothing
    watches[killed].close()
    assert exits.get(timeout=LIMIT) == 1
    line = f"error: process {killed} ({socket.gethostname()}) ended without a word, as a killed one does; {rest}"
    assert lines_of(capfd) == [line]


def test_what_jax_says_of_a_dead_process_is_not_told_as_the_cause(meet, exits, capfd, monkeypatch):
    """A collective breaks before the news is there; and a save that waited for the dead one does."""
    monkeypatch.setattr(peers, "NEWS_SECONDS", LIMIT)
    hub, other = meet(2)
    unwritten = UserError("the checkpoint could not be written")
    unwritten.__cause__ = jax_error()
    threading.Thread(target=hub.failed, args=(unwritten,), daemon=True).start()
    other._last_word.acquire()
    other.close()
    assert exits.get(timeout=LIMIT) == 1
    (line,) = lines_of(capfd)
    assert line.startswith("error: process 1 (") and "could not be written" not in line


def test_processes_that_make_the_same_mistake_each_tell_it_themselves(meet, exits, capfd, monkeypatch):
    monkeypatch.setattr(peers, "GRACE_SECONDS", LIMIT)
    hub, other = meet(2)
    other.failed(UserError("config.batch_size=7"))
    assert hub._heard.wait(LIMIT)
    hub.failed(UserError("config.batch_size=7"))  # returns: whoever called it tells
    assert exits.empty() and lines_of(capfd) == []


def test_an_error_of_a_background_thread_ends_the_run_while_the_main_thread_waits(meet, exits, capfd):
    _, other = meet(2)
    error = UserError("step 5 could not be written")
    threading.Thread(target=other.fail, args=(error,), daemon=True).start()
    assert [exits.get(timeout=LIMIT) for _ in range(2)] == [2, 2]
    assert lines_of(capfd) == [f"error: process 1 left: {error}", f"error: {error}"]


def test_runs_that_end_well_end_together_and_nobody_fails(meet, exits, capfd):
    hub, *others = meet(3)
    threads = [threading.Thread(target=watch.finish) for watch in (others[0], hub, others[1])]
    for thread in threads[:2]:
        thread.start()
    assert not hub._finished.wait(0.1) and all(thread.is_alive() for thread in threads[:2])
    threads[2].start()
    for thread in threads:
        thread.join(LIMIT)
        assert not thread.is_alive()
    assert exits.empty() and lines_of(capfd) == []


def test_a_process_that_fails_while_others_are_done_ends_them(meet, exits, capfd):
    hub, other = meet(2)
    thread = threading.Thread(target=other.finish, daemon=True)
    thread.start()
    hub.failed(UserError("the disk is full"))
    assert exits.get(timeout=LIMIT) == 2
    assert lines_of(capfd) == ["error: process 0 left: the disk is full"]


def test_a_stranger_is_not_heard(meet, exits):
    hub, _ = meet(2)
    with socket.create_connection(("127.0.0.1", hub.where()["port"]), LIMIT) as stranger:
        left = peers.Failure(1, "elsewhere", "ha", 1)
        stranger.sendall(json.dumps({"token": "guessed", "process": 1, "host": "", "left": left}).encode() + b"\n")
        stranger.settimeout(LIMIT)
        assert stranger.recv(1) == b""
    assert exits.empty() and not hub._heard.is_set()


def test_without_a_way_to_the_first_process_a_run_goes_on_unwatched(monkeypatch, capfd):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    store = Store({peers.KEY: json.dumps({"port": port, "token": ""})})
    values = {"client": store, "num_processes": 2, "process_id": 1, "coordinator_address": ADDRESS}
    for name, value in values.items():
        monkeypatch.setattr(global_state, name, value)
    with peers.watching() as watch:
        assert type(watch) is peers.Watch
    assert "warning: process 1 cannot connect to a port of process 0 at 127.0.0.1" in capfd.readouterr().err


@pytest.mark.parametrize("has_words", [True, False])
def test_the_block_of_a_process_that_fails_ends_it_with_the_code_that_its_caller_gives(meet, exits, capfd, has_words,
                                                                                       monkeypatch):  # fmt: skip
    def exit_code(error):
        if not has_words:
            raise error
        print("in words:", error, file=sys.stderr)
        return 5

    hub, other = meet(2)
    monkeypatch.setattr(peers, "_meet", lambda: other)
    with contextlib.suppress(SystemExit), peers.watching(exit_code):
        raise KeyError("mine")
    assert sorted(exits.get(timeout=LIMIT) for _ in range(2)) == [1, 5 if has_words else 1]
    err = capfd.readouterr().err
    assert ("in words: 'mine'" in err) == has_words and ("Traceback" in err) != has_words
    assert "error: process 1 left: KeyError: 'mine'" in err


def test_a_caller_of_its_own_gets_its_error(meet, exits, monkeypatch):
    hub, other = meet(2)
    monkeypatch.setattr(peers, "_meet", lambda: other)
    with pytest.raises(UserError, match="mine"), peers.watching():
        raise UserError("mine")
    assert exits.get(timeout=LIMIT) == 2 and exits.empty()


def test_a_held_connection_outlives_its_owner():
    """Its other end is read by this process, whose own descriptor is closed: as of a process that was killed."""
    with connections.listen("127.0.0.1") as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port), LIMIT)
        accepted, _ = server.accept()
        holder = connections.hold(port)
        accepted.close()
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)
        holder.kill()
        holder.wait()
        client.settimeout(LIMIT)
        assert client.recv(1) == b""
        client.close()
