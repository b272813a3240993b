"""Two processes in one folder: the second is told who the first is, and a dead one holds nothing."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from gan_jax import lock
from gan_jax.errors import UserError

HOLD = """
import sys, time
from gan_jax import lock
held = lock.take(sys.argv[1])
print("held", flush=True)
time.sleep(99)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds `tmp_path`."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_other_process_is_named(tmp_path, holder):
    with pytest.raises(UserError, match=rf"process {holder.pid} on {socket.gethostname()} trains there since 2\d\d\d-"):
        lock.take(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_lock_dies_with_its_owner(tmp_path, holder, number):
    holder.send_signal(number)
    holder.wait()
    lock.take(tmp_path).close()
    assert not list(tmp_path.iterdir())


def test_a_folder_is_given_back(tmp_path):
    for _ in range(2):
        first = lock.take(tmp_path / "run")
        with pytest.raises(UserError, match=f"process {os.getpid()} on"):
            lock.take(tmp_path / "run")
        first.close()
    assert not list((tmp_path / "run").iterdir())


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(lock, "WATCH_SECONDS", 0.5)


def _elsewhere(tmp_path):
    """The file of an owner on another machine, whose lock this one does not see."""
    file = tmp_path / lock.NAME
    file.write_text(json.dumps({"host": "elsewhere", "pid": 7, "since": "2026-01-01 00:00:00"}))
    return file


def test_an_owner_on_another_machine_that_shows_no_life_is_gone(tmp_path, quick, capsys):
    file = _elsewhere(tmp_path)
    held = lock.take(tmp_path)
    assert "whether process 7 on elsewhere still trains" in capsys.readouterr().out
    assert json.loads(file.read_text())["pid"] == os.getpid()
    held.close()


def test_an_owner_on_another_machine_that_lives_is_named(tmp_path, quick):
    file, ended = _elsewhere(tmp_path), threading.Event()

    def live():
        while not ended.wait(0.02):
            os.utime(file)

    thread = threading.Thread(target=live)
    thread.start()
    try:
        with pytest.raises(UserError, match="process 7 on elsewhere trains there since 2026-01-01"):
            lock.take(tmp_path)
    finally:
        ended.set()
        thread.join()


def test_an_owner_shows_signs_of_life(tmp_path, quick):
    held = lock.take(tmp_path)
    before = lock._stamp(tmp_path / lock.NAME)
    for _ in range(100):
        time.sleep(0.02)
        if lock._stamp(tmp_path / lock.NAME) != before:
            break
    assert lock._stamp(tmp_path / lock.NAME) != before
    held.close()


def test_where_the_file_system_cannot_lock_the_number_tells(tmp_path, monkeypatch, holder):
    def flock(*args):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    with pytest.raises(UserError, match=f"process {holder.pid} on"):
        lock.take(tmp_path)
    holder.kill()
    holder.wait()
    lock.take(tmp_path).close()


def test_a_run_that_is_trained_is_left_alone(tmp_path, holder, capsys):
    from gan_jax import cli
    from tests import settings

    command = ["train", f"--config={settings.EXPERIMENTS / 'digits_dcgan.py'}:smoke", f"--workdir={tmp_path}"]
    assert cli.main(command) == 2
    assert f"process {holder.pid} on" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [lock.NAME]
    assert cli.main([*command, "--dry_run"]) == 0  # which writes nothing
