"""Output that outlives its readers: characters, descriptors and pipes that are not there."""

import io
import os
import signal
import subprocess
import sys

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
    from gan_jax.train import _signals

    with _signals() as stopped:
        assert not stopped()
        signal.raise_signal(signal.SIGHUP)
        assert stopped()
    ignoring = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with _signals() as stopped:
            signal.raise_signal(signal.SIGHUP)
            assert not stopped()
    finally:
        signal.signal(signal.SIGHUP, ignoring)
