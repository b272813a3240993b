"""Output that outlives its readers: characters, descriptors and pipes that are not there."""

import io
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from gan_jax import output
from tests import settings


class Broken(io.StringIO):
    """A pipe whose reader has left."""

    def __init__(self):
        super().__init__()
        self.tries = 0

    def write(self, text):
        self.tries += 1
        raise BrokenPipeError

    def fileno(self):
        raise OSError


@pytest.mark.parametrize("patient", [True, False])
def test_a_character_that_the_encoding_lacks_is_spelled_out(patient):
    bytes_ = io.BytesIO()
    stream = output.Lasting(io.TextIOWrapper(bytes_, "latin-1"), patient=patient)
    print("Füchse und 狐", file=stream, flush=True)
    assert bytes_.getvalue().decode("latin-1") == "Füchse und \\u72d0\n"


@pytest.mark.parametrize("patient", [True, False])
def test_a_stream_that_is_not_there_takes_everything(patient):
    closed = io.StringIO()
    closed.close()
    for stream in (None, closed):
        stream = output.Lasting(stream, patient=patient)
        print("nobody hears it", file=stream, flush=True)
        assert not stream.isatty()


def test_only_the_patient_go_on_without_a_reader():
    stream = Broken()
    patient = output.Lasting(stream, patient=True)
    for _ in range(3):
        print("line", file=patient, flush=True)
    assert stream.tries == 1
    with pytest.raises(BrokenPipeError):
        print("line", file=output.Lasting(stream, patient=False))


def test_the_streams_are_back_behind_the_block(capsys):
    before = sys.stdout, sys.stderr
    with output.lasting(patient=True):
        print("out")
        print("err", file=sys.stderr)
    assert (sys.stdout, sys.stderr) == before and capsys.readouterr() == ("out\n", "err\n")


def test_a_long_silence_is_filled_with_what_is_done(capsys, monkeypatch):
    monkeypatch.setattr(output, "QUIET_SECONDS", 0.2)
    with output.lasting(patient=False):
        time.sleep(0.5)  # nothing is named
        output.doing("compiling")
        with output.lasting(patient=True):  # as `train` within a command
            time.sleep(1.0)
            output.doing("")
            time.sleep(0.5)
    lines = capsys.readouterr().out.splitlines()
    assert 1 <= len(lines) <= 5 and all(re.fullmatch(r"compiling, \d s", line) for line in lines)


def test_lines_of_a_silence_come_ever_more_seldom(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(output.time, "monotonic", lambda: clock[0])
    activity, lines = output.Activity(), []
    activity.begin("measuring")
    for clock[0] in range(1, 400):
        if line := activity.due():
            lines.append(int(re.fullmatch(r"measuring, (\d+) s", line)[1]))
            activity.last_line = clock[0]
    assert lines[:12] == list(range(5, 65, 5))
    steps = np.diff([0, *lines])
    assert (np.diff(steps) >= 0).all() and 25 <= steps[-1] <= 34


@pytest.mark.parametrize("without", ["reader", "streams"])
def test_a_run_ends_well_though_nobody_listens(tmp_path, without):
    """`train | head`, and a process whose descriptors are closed: all is trained and saved, and told in log.txt."""
    command = [sys.executable, str(settings.ROOT / "launch.py"), "train", f"--workdir={tmp_path / 'run'}",
               f"--config={settings.EXPERIMENTS / 'mixture_gan.py'}:smoke"]  # fmt: skip
    shell = {"reader": '"$@" | true', "streams": '"$@" >&- 2>&-'}[without]
    subprocess.run(["bash", "-o", "pipefail", "-c", shell, "bash", *command], check=True, timeout=300, env=os.environ)
    assert "complete at 24 images, step 3" in (tmp_path / "run" / "log.txt").read_text()
    assert (tmp_path / "run" / "checkpoints" / "3").is_dir()


def test_a_hang_up_stops_a_run_as_a_terminate_does(tmp_path, monkeypatch):
    from gan_jax.signals import Stop

    with Stop() as stopped:
        assert not stopped()
        signal.raise_signal(signal.SIGHUP)
        assert stopped()
    ignoring = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with Stop() as stopped:
            signal.raise_signal(signal.SIGHUP)
            assert not stopped()
    finally:
        signal.signal(signal.SIGHUP, ignoring)
