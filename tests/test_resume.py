"""Runs that are interrupted in every way and go on: killed, asked to stop, poisoned, on a full disk."""

import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from gan_jax import cli, digests, folders, logs, parallel, run_data, runs
from gan_jax import step as steps
from gan_jax.train import train
from tests import settings

# Few layers, BatchNorm in both players: half the time to compile.
SHALLOW = {"generator.features": "(4,)", "generator.strides": "(8,)", "generator.kernel_size": 8,
           "discriminator.features": "(4,4)", "discriminator.strides": "(4,2)"}  # fmt: skip
# Forty steps. Lines are written every three, checkpoints every two: most checkpoints lie between two lines.
FLAGS = {**SHALLOW, "total_images": 320, "every.log_images": 24, "every.checkpoint_images": 16,
         "every.sample_images": 160, "evaluation.metrics": "()", "loss.r1_gamma": 0}  # fmt: skip
ROWS = 14


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("resume") / "whole"
    out, err = start(folder).communicate(timeout=120)
    assert f"complete at 320 images, step 40: {folder}" in out, err
    return folder


def start(workdir, *, limit: int = 0, **flags) -> subprocess.Popen:
    """`launch.py train` on two devices; `limit`: the largest file that it may write, bytes."""
    xla = re.sub(r"device_count=\d+", "device_count=2", os.environ["XLA_FLAGS"])
    env = {**os.environ, "XLA_FLAGS": xla, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}  # to start again quickly
    overrides = [f"--config.{key}={value}" for key, value in {**FLAGS, **flags}.items()]
    launch = str(settings.ROOT / "launch.py")
    if limit:
        limited = f"import resource, runpy; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); "
        program = ["-c", f"{limited}runpy.run_path({launch!r}, run_name='__main__')"]
    else:
        program = [launch]
    config = f"--config={settings.EXPERIMENTS / 'digits_dcgan.py'}:smoke"
    command = [sys.executable, *program, "train", f"--workdir={workdir}", config, *overrides]
    return subprocess.Popen(
        command, env=env, cwd=settings.ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def rows_of(workdir) -> list[dict]:
    path = pathlib.Path(workdir) / "metrics.jsonl"
    return logs.read_lines(path) if path.exists() else []


def wait_for_row(process, workdir, count: int) -> None:
    deadline = time.monotonic() + 90
    while len(rows_of(workdir)) < count and process.poll() is None:
        assert time.monotonic() < deadline, "the run makes no progress"
        time.sleep(0.002)


def final_state(workdir):
    config, spec, _ = folders.read_folder(workdir)
    return folders.restore(runs.build(config, spec), workdir, parallel.make_mesh(jax.devices()[:1]))


def assert_same_run(workdir, whole):
    """State bit for bit, each line once and equal but for its speed, pictures byte for byte."""
    one, other = final_state(workdir), final_state(whole)
    assert one.step == other.step == 40 and one.run == other.run and not one.broken
    for (path, a), (_, b) in zip(*(jax.tree_util.tree_leaves_with_path(r.state) for r in (one, other)), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), path
    lines, expected = rows_of(workdir), rows_of(whole)
    assert [row["step"] for row in expected] == [*range(3, 40, 3), 40] and len(expected) == ROWS
    assert [{**row, "images_per_second": 0} for row in lines] == [{**row, "images_per_second": 0} for row in expected]
    pictures = sorted(path.name for path in (whole / "samples").iterdir())
    assert pictures == ["fakes_000000160.png", "fakes_000000320.png", "reals.png"]
    assert sorted(path.name for path in (workdir / "samples").glob("[!.]*")) == pictures
    for name in pictures:
        assert (workdir / "samples" / name).read_bytes() == (whole / "samples" / name).read_bytes(), name


def test_a_killed_run_ends_as_if_it_had_not_been(whole, tmp_path):
    """SIGKILL at four random moments, each further on, some of them while a checkpoint is written."""
    workdir, draw, died = tmp_path / "killed", random.Random(), 0
    for _ in range(4):
        process = start(workdir)
        wait_for_row(process, workdir, min(len(rows_of(workdir)) + draw.randint(1, 4), ROWS - 1))
        time.sleep(draw.uniform(0, 0.06))
        process.kill()
        process.communicate()
        died += process.returncode == -signal.SIGKILL
    assert died >= 2, "the run was over before it could be killed"
    out, err = start(workdir).communicate(timeout=120)
    assert "complete at 320 images, step 40" in out, err
    assert_same_run(workdir, whole)


def test_sigterm_saves_and_the_same_command_goes_on(whole, tmp_path):
    workdir = tmp_path / "stopped"
    process = start(workdir)
    wait_for_row(process, workdir, 2)
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 75 and "Traceback" not in err, err
    stopped = re.search(r"stopped at (\d+) images, step (\d+)", out)
    assert stopped and final_state(workdir).step == int(stopped[2]), out
    out, err = start(workdir).communicate(timeout=120)
    assert f"resumed at {stopped[1]} images, step {stopped[2]}" in out, err
    assert_same_run(workdir, whole)


def test_a_disk_that_fills_up_while_a_checkpoint_is_written(whole, command, tmp_path):
    """No file may grow beyond a limit, as on a full disk; then it may again, and the run goes on."""
    workdir = shutil.copytree(whole, tmp_path / "full")
    # Room for another line of losses; no checkpoint's files are all as small.
    limit = 2 * (workdir / "metrics.jsonl").stat().st_size
    for step in (workdir / "checkpoints").glob("[0-9]*"):
        assert any(path.stat().st_size > limit for path in step.rglob("d/*"))
    process = start(workdir, limit=limit, total_images=368)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2 and "resumed at 320 images" in out, err
    message = r"error: \S+checkpoints: the .* could not be written: .*; the checkpoint of step 40 is complete. .*\n"
    echo = r"Traceback \(most recent call last\):\n(?:  .*\n)+RuntimeError: Event loop is closed\n"
    assert re.fullmatch(message, re.sub(echo, "", err)), err  # a writer's thread may outlive the interpreter's hooks
    assert final_state(workdir).step == 40
    flags = {**FLAGS, "total_images": 368}
    code, out, err = command("train", workdir, *(f"--config.{key}={value}" for key, value in flags.items()))
    assert code == 0 and "resumed at 320 images" in out and "complete at 368 images, step 46" in out, err
    assert [row["step"] for row in rows_of(workdir)] == [*range(3, 40, 3), 40, 42, 45, 46]


# From here on in this process.


SHORT = {**SHALLOW, "evaluation.metrics": "()", "every.log_images": 8, "every.checkpoint_images": 8, "loss.r1_gamma": 0}


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """Three steps, to be copied by the tests that damage it."""
    folder = tmp_path_factory.mktemp("resume") / "short"
    file = f"{settings.EXPERIMENTS / 'digits_dcgan.py'}:smoke"
    assert train(runs.load_config(file, [(key, str(value)) for key, value in SHORT.items()]), str(folder))
    return folder


@pytest.fixture(scope="module", autouse=True)
def _every_program_is_cached():
    with settings.every_program_cached():
        yield


@pytest.fixture
def workdir(short, tmp_path):
    return shutil.copytree(short, tmp_path / "run")


@pytest.fixture
def command(capfd):
    """Runs a command of the smoke run in this process: (exit code, standard output, standard error)."""

    def call(name, workdir, *flags):
        file = f"--config={settings.EXPERIMENTS / 'digits_dcgan.py'}:smoke"
        overrides = {key: f"--config.{key}={value}" for key, value in SHORT.items()}
        overrides |= {flag[9:].partition("=")[0]: flag for flag in flags}
        config = [file, *overrides.values()] if name == "train" else flags
        capfd.readouterr()
        code = cli.main([name, f"--workdir={workdir}", *config])
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return call


def saved_steps(workdir) -> list[int]:
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())


def test_a_damaged_newest_checkpoint_is_told_and_replaced(command, workdir):
    assert saved_steps(workdir) == [2, 3]
    reference = digests.digest(final_state(workdir).state)
    shutil.rmtree(workdir / "checkpoints" / "3" / "state" / "d")
    code, out, err = command("sample", workdir, f"--out={workdir / 'out'}", "--seeds=0")
    assert code == 0 and "checkpoints/3: this checkpoint cannot be read" in out and "using step 2" in out
    assert saved_steps(workdir) == [2, 3] and not (workdir / "broken_checkpoints").exists()
    code, out, err = command("train", workdir)
    assert code == 0 and not err, err
    assert "checkpoints/3: this checkpoint cannot be read" in out and "going on from step 2" in out
    assert "resumed at 16 images" in out and saved_steps(workdir) == [2, 3]
    assert (workdir / "broken_checkpoints" / "3").is_dir()
    assert digests.digest(final_state(workdir).state) == reference
    assert [row["step"] for row in rows_of(workdir)] == [1, 2, 3]


def test_no_readable_checkpoint_is_one_message(command, workdir):
    for step in (2, 3):
        (workdir / "checkpoints" / str(step) / "run" / "metadata").unlink()
    lines = (workdir / "metrics.jsonl").read_text()
    for name, flags in (("train", ()), ("sample", (f"--out={workdir / 'out'}",)), ("evaluate", ())):
        code, _, err = command(name, workdir, *flags)
        assert code == 2 and err.startswith("error: ") and "No checkpoint of this run can be read" in err, name
    assert saved_steps(workdir) == [2, 3] and (workdir / "metrics.jsonl").read_text() == lines


def test_a_longer_run_is_the_same_run(command, workdir, tmp_path):
    """`total_images` may change: three steps and two more are five steps."""
    code, out, _ = command("train", workdir, "--config.total_images=40")
    assert code == 0 and "resumed at 24 images, step 3" in out
    code, _, _ = command("train", tmp_path / "whole", "--config.total_images=40")
    a, b = final_state(workdir), final_state(tmp_path / "whole")
    assert a.step == 5 and digests.digest(a.state) == digests.digest(b.state)


def test_a_complete_run_is_left_as_it_is(command, workdir):
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file() and "events" not in path.name}
    code, out, err = command("train", workdir)
    assert code == 0 and "complete at 24 images, step 3" in out and not err
    assert {path: path.read_bytes() for path in before} == before


def test_a_changed_config_lists_its_differences(command, workdir):
    code, _, err = command("train", workdir, "--config.batch_size=16", "--config.optim.generator.b1=0.9",
                           "--config.every.sample_images=8", "--config.checkpoints.keep=5")  # fmt: skip
    assert code == 2 and "holds a run with another config" in err and "another --workdir" in err
    assert "config.batch_size: 8 -> 16" in err and "config.optim.generator.b1: 0.5 -> 0.9" in err
    assert "sample_images" not in err and "keep" not in err
    assert json.loads((workdir / "config.json").read_text())["batch_size"] == 8
    assert command("train", workdir, "--config.every.sample_images=8", "--config.checkpoints.keep=5")[0] == 0


def test_a_run_that_is_older_than_an_option_goes_on(command, workdir):
    """What its config.json lacks has its default; what nothing reads any more is named."""
    stored = json.loads((workdir / "config.json").read_text())
    del stored["optim"]["generator"]["clip_norm"]
    (workdir / "config.json").write_text(json.dumps(stored))
    assert command("sample", workdir, f"--out={workdir / 'out'}", "--seeds=0")[0] == 0
    assert command("train", workdir)[0] == 0
    assert json.loads((workdir / "config.json").read_text())["optim"]["generator"]["clip_norm"] == 0
    stored["optim"]["generator"]["clip_nrm"] = 1.0
    (workdir / "config.json").write_text(json.dumps(stored))
    for name, flags in (("train", ()), ("sample", ("--out=x",))):
        code, _, err = command(name, workdir, *flags)
        assert code == 2 and "config.json" in err and "config.optim.generator.clip_nrm, which nothing reads" in err


def test_changed_data_is_refused(command, workdir, tmp_path, monkeypatch):
    """The same config, other content: the fingerprint tells. The run stays as it was, for when the data is back."""
    import dataclasses

    open_data = run_data.open_data
    with monkeypatch.context() as patch:
        patch.setattr(
            run_data, "open_data", lambda config: dataclasses.replace(open_data(config), fingerprint="f" * 64)
        )
        code, _, err = command("train", workdir, "--config.total_images=40")
    assert code == 2 and "the data has changed since this run began" in err and "ffffffffffff" in err
    assert "ffff" not in (workdir / "data.json").read_text()
    assert command("train", workdir, "--config.total_images=40")[0] == 0


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[1]", b"3", b"{}"])
def test_a_garbage_config_is_one_message(command, workdir, content):
    (workdir / "config.json").write_bytes(content)
    for name, flag in (("train", ()), ("sample", ("--out=x",)), ("evaluate", ())):
        code, _, err = command(name, workdir, *flag)
        assert code == 2 and f"error: {workdir / 'config.json'}: cannot be read as a run's config" in err, name
    (workdir / "config.json").unlink()
    code, _, err = command("train", workdir)
    assert code == 2 and "has checkpoints and no config.json" in err


def test_a_full_disk_under_the_log(command, workdir):
    """Lines go to /dev/full; with room again, the same command goes on."""
    lines = (workdir / "metrics.jsonl").read_text()
    (workdir / "metrics.jsonl").unlink()
    (workdir / "metrics.jsonl").symlink_to("/dev/full")
    code, _, err = command("train", workdir, "--config.total_images=40")
    line = r"error: \S+metrics.jsonl: cannot be written: No space left on device; checkpoints are kept. Make room .*\n"
    assert code == 2 and re.fullmatch(line, err), err
    assert saved_steps(workdir) == [2, 3]
    (workdir / "metrics.jsonl").unlink()
    (workdir / "metrics.jsonl").write_text(lines)
    assert command("train", workdir, "--config.total_images=40")[0] == 0
    assert [row["step"] for row in rows_of(workdir)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("what", ["samples", "events", "rewriting", "checkpoints"])
def test_a_full_disk_elsewhere(command, workdir, monkeypatch, what):
    """Each file that a run writes, in turn, meets a full disk."""

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    import orbax.checkpoint as ocp
    import tensorboardX.event_file_writer as events

    with monkeypatch.context() as patch:
        if what == "samples":
            shutil.rmtree(workdir / "samples")
            (workdir / "samples").touch()
        elif what == "events":
            patch.setattr(events.EventsWriter, "write_event", full)
        elif what == "rewriting":
            patch.setattr(logs.os, "replace", lambda a, b: full() if "metrics" in str(a) else os.rename(a, b))
        else:
            patch.setattr(ocp.StandardCheckpointHandler, "finalize", full)
        code, _, err = command("train", workdir, "--config.total_images=40")
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1 and "run the same command again" in err
    assert final_state(workdir).step >= 3
    if what == "samples":
        assert f"{workdir / 'samples'}" in err
        (workdir / "samples").unlink()
    elif what == "checkpoints":
        assert "the checkpoint of step 3 is complete" in err
    assert command("train", workdir, "--config.total_images=40")[0] == 0
    assert final_state(workdir).step == 5 and [row["step"] for row in rows_of(workdir)] == [1, 2, 3, 4, 5]


def test_a_workdir_that_is_a_file(command, tmp_path):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        code, _, err = command("train", path)
        assert code == 2 and err.startswith("error: ") and err.count("\n") == 1, err
    assert (tmp_path / "file").read_text() == "mine"


def test_a_huge_learning_rate_stops_the_run(command, workdir, tmp_path):
    """The step, the phase and the term are named; exit code 1."""
    run = tmp_path / "diverged"
    code, _, err = command("train", run, "--config.optim.discriminator.learning_rate=1e30", "--config.total_images=800",
                           "--config.every.log_images=80", "--config.every.checkpoint_images=400")  # fmt: skip
    line = r"diverged: step (\d+): (\w+) of the phase '(\w+)' is (nan|inf|-inf); the last good checkpoint is kept. .*\n"
    match = re.fullmatch(line, err)
    assert code == 1 and match and int(match[1]) <= 3 and match[3] in ("discriminator", "generator"), err
    assert saved_steps(run) == []


def test_a_poisoned_state_never_becomes_a_checkpoint(command, workdir, monkeypatch):
    """At step 5 a gradient is NaN, its loss is not. A checkpoint is due at step 6, a line only at step 10."""
    descend = steps.descend

    def poisoned(state, phase, optimizer, batch, key, fixed):
        def loss(params, state, batch, rng):
            value, out = phase.loss(params, state, batch, rng)
            zero = sum(leaf.sum() for leaf in jax.tree.leaves(params["generator"])) * 0.0
            at = (state.step == 4) & (phase.name == "generator")
            return value + jax.numpy.sqrt(jax.numpy.where(at, zero, 1.0)), out  # the slope of a root at 0 is infinite

        return descend(state, phase._replace(loss=loss), optimizer, batch, key, fixed)

    flags = ("--config.total_images=80", "--config.every.log_images=80", "--config.every.checkpoint_images=16")
    with monkeypatch.context() as patch:
        patch.setattr(steps, "descend", poisoned)
        code, _, err = command("train", workdir, *flags)
    assert code == 1 and re.match(r"diverged: step 5: grad_norm of the phase 'generator' is (nan|inf);", err), err
    assert max(saved_steps(workdir)) == 4 and final_state(workdir).step == 4
    code, out, _ = command("train", workdir, *flags)
    assert code == 0 and "resumed at 32 images, step 4" in out


def test_a_signal_in_the_last_step_leaves_a_complete_run(command, tmp_path, monkeypatch):
    """It comes while the last batch is loaded: the run has its last line, picture and checkpoint all the same."""
    from gan_jax.data.dataset import Dataset

    stream = Dataset.stream

    def signalled(dataset, **arguments):
        for number, batch in enumerate(stream(dataset, **arguments)):
            if number == 2:
                signal.raise_signal(signal.SIGTERM)
            yield batch

    monkeypatch.setattr(Dataset, "stream", signalled)
    code, out, err = command("train", tmp_path / "run")
    assert code == 0 and "complete at 24 images, step 3" in out and not err, err
    assert [row["step"] for row in rows_of(tmp_path / "run")] == [1, 2, 3]
    assert saved_steps(tmp_path / "run") == [2, 3] and (tmp_path / "run" / "samples" / "fakes_000000024.png").is_file()


def test_what_was_trained_outlives_a_measurement_that_fails(command, workdir, monkeypatch):
    from gan_jax import evaluate
    from gan_jax.errors import UserError

    def fail(*args, **kwargs):
        raise UserError("no judge today")

    flags = ("--config.total_images=40", "--config.every.checkpoint_images=800")
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "measurer", lambda *args, **kwargs: fail)
        code, _, err = command("train", workdir, *flags)
    assert code == 2 and err == "error: no judge today\n"
    assert final_state(workdir).step == 5
    assert command("train", workdir, *flags)[0] == 0
