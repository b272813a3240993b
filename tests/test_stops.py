"""Runs that a signal stops at any moment: one exit code, nothing lost, and nothing measured twice."""

import itertools
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import jax
import pytest

from gan_jax import (
    checkpoint,
    cli,
    digests,
    errors,
    evaluate,
    folders,
    logs,
    parallel,
    programs,
    run_data,
    runs,
    signals,
)
from gan_jax.evaluate import collect
from tests import settings

CONFIG = f"--config={settings.EXPERIMENTS / 'digits_dcgan.py'}:smoke"
# Five steps, few layers. Steps 2, 4 and 5 are measured, by two batches each, of pixels alone.
FLAGS = {
    "generator.features": "(4,)", "generator.strides": "(8,)", "generator.kernel_size": 8,
    "discriminator.features": "(4,4)", "discriminator.strides": "(4,2)", "loss.r1_gamma": 0, "total_images": 40,
    "every.log_images": 8, "every.sample_images": 32, "every.checkpoint_images": 800, "every.evaluate_images": 16,
    "evaluation.metrics": "msssim8", "evaluation.batch_size": 8, "checkpoints.keep": 1,
}  # fmt: skip
STOPPED = 75  # EX_TEMPFAIL of sysexits.h


@pytest.fixture(scope="module", autouse=True)
def _every_program_is_cached():
    with settings.every_program_cached():
        yield


class Ended(Exception):
    """In place of the end of this process."""


def end(code: int):
    raise Ended(code)


def command(workdir) -> int:
    return cli.main(["train", CONFIG, f"--workdir={workdir}", *(f"--config.{k}={v}" for k, v in FLAGS.items())])


def evaluations(workdir) -> list[dict]:
    return [{**row, "seconds": 0} for row in logs.read_lines(pathlib.Path(workdir) / "evaluations.jsonl")]


def saved_steps(workdir) -> list[int]:
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())


def assert_same_run(workdir, whole):
    """The same State, values, lines and pictures, each once."""
    states = []
    for folder in (workdir, whole):
        config, spec, _ = folders.read_folder(folder)
        states.append(folders.restore(runs.build(config, spec), folder, parallel.make_mesh(jax.devices()[:1])))
    assert states[0].step == states[1].step == 5 and states[0].run == states[1].run
    assert digests.digest(states[0].state) == digests.digest(states[1].state)
    assert evaluations(workdir) == evaluations(whole)
    rows = ([{**row, "images_per_second": 0} for row in logs.read_lines(path / "metrics.jsonl")]
            for path in (workdir, whole))  # fmt: skip
    assert next(rows) == next(rows)
    for picture in ("reals", "fakes_000000032", "fakes_000000040"):
        files = (path / "samples" / f"{picture}.png" for path in (workdir, whole))
        assert next(files).read_bytes() == next(files).read_bytes()
    bests = (checkpoint.best(manager_of(path), **ranking_of(path)) for path in (workdir, whole))
    assert next(bests) == next(bests) is not None


def manager_of(workdir):
    return checkpoint.open_manager(workdir / "checkpoints", read_only=True)


def ranking_of(workdir) -> dict:
    return evaluate.ranking(folders.read_folder(workdir)[0])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("stops") / "whole"
    assert command(folder) == 0
    assert [row["step"] for row in evaluations(folder)] == [2, 4, 5]
    return folder


def stop_in_evaluation(patch, number: int, evaluation: int = 1) -> None:
    """A signal comes with the first batch of that evaluation."""
    take, calls = collect._Keeper.take, itertools.count(2)

    def signalled(*args):
        if next(calls) == 2 * evaluation:
            signal.raise_signal(number)
        take(*args)

    patch.setattr(collect._Keeper, "take", signalled)


@pytest.fixture(scope="module")
def halted(whole, tmp_path_factory):
    """A run that was stopped in its first evaluation, at step 2."""
    folder = tmp_path_factory.mktemp("halted") / "run"
    with pytest.MonkeyPatch.context() as patch:
        stop_in_evaluation(patch, signal.SIGUSR1)
        assert command(folder) == STOPPED
    return folder


@pytest.fixture
def workdir(halted, tmp_path):
    return shutil.copytree(halted, tmp_path / "run")


def test_an_evaluation_ends_when_the_run_is_to_stop_and_is_made_up_for(whole, workdir, monkeypatch, capsys):
    """State was saved before; nothing is written of what was not measured to its end. So it is in the last step too."""
    assert saved_steps(workdir) == [2] and evaluations(workdir) == []
    with monkeypatch.context() as patch:
        stop_in_evaluation(patch, signal.SIGTERM, evaluation=3)
        assert command(workdir) == STOPPED
    assert "resumed at 16 images, step 2" in (out := capsys.readouterr().out)
    assert f"stopped at 40 images, step 5: {workdir}; the same command goes on from here" in out
    assert evaluations(workdir) == evaluations(whole)[:2] and 5 in saved_steps(workdir)
    assert command(workdir) == 0
    assert_same_run(workdir, whole)
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file() and "events" not in path.name}
    assert command(workdir) == 0
    assert {path: path.read_bytes() for path in before} == before


PHASES = {
    "importing": (signal.SIGTERM, cli, "_prepare_jax"),
    "joining": (signal.SIGUSR2, jax, "process_count"),
    "opening": (signal.SIGINT, run_data, "open_data"),
    "restoring": (signal.SIGHUP, checkpoint, "restore_newest"),
    "loading": (signal.SIGUSR1, evaluate, "measurer"),
    "compiling": (signal.SIGUSR2, programs.Compiling, "wait"),
}


@pytest.mark.parametrize("phase", PHASES)
def test_a_signal_before_the_steps_is_heeded(workdir, monkeypatch, capfd, phase):
    number, owner, name = PHASES[phase]
    function, handlers = getattr(owner, name), [signal.getsignal(each) for each in signals.NUMBERS]

    def signalled(*args, **kwargs):
        result = function(*args, **kwargs)
        signal.raise_signal(number)
        return result

    monkeypatch.setattr(owner, name, signalled)
    monkeypatch.setattr(cli.os, "_exit", end)
    lines, steps = logs.read_lines(workdir / "metrics.jsonl"), saved_steps(workdir)
    if phase in ("importing", "joining", "opening"):
        with pytest.raises(Ended, match="75"):
            command(workdir)
        line = f"stopped by {signal.Signals(number).name} before training began, nothing is lost; the same command"
    else:
        assert command(workdir) == STOPPED
        line = "stopped at 16 images, step 2"
    out, err = capfd.readouterr()
    assert line in out and not err
    assert saved_steps(workdir) == steps and logs.read_lines(workdir / "metrics.jsonl") == lines
    assert not (workdir / "train.lock").exists()
    assert [signal.getsignal(each) for each in signals.NUMBERS] == handlers


def test_a_signal_is_taken_before_jax_is_imported(tmp_path):
    """A package of that name sends it, and would then keep the command for long. The process ends where it is."""
    (tmp_path / "jax.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGUSR2)\ntime.sleep(60)\n"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    launch = [sys.executable, "-c", "import gan_jax.cli, sys; sys.exit(gan_jax.cli.main())", "train"]
    done = subprocess.run(launch, env={**os.environ, "PYTHONPATH": path}, cwd=settings.ROOT, capture_output=True,
                          text=True, timeout=50)  # fmt: skip
    assert done.returncode == STOPPED and done.stdout.startswith("stopped by SIGUSR2 before training"), done
    assert done.stderr == ""


def test_values_are_measured_after_a_failure_between_the_save_and_them(whole, workdir, monkeypatch, capfd):
    def fail(*args, **kwargs):
        raise errors.UserError("no judge today")

    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "measurer", lambda *args, **kwargs: fail)
        assert command(workdir) == 2 and "no judge today" in capfd.readouterr().err
    assert saved_steps(workdir) == [2] and evaluations(workdir) == []
    with monkeypatch.context() as patch:
        patch.setattr(logs.Log, "evaluation", fail)  # the values lie beside the checkpoint, and nobody is told
        assert command(workdir) == 2
    assert evaluations(workdir) == []
    assert command(workdir) == 0
    assert_same_run(workdir, whole)


def test_the_state_is_saved_before_pictures_are_drawn(whole, workdir, monkeypatch):
    from gan_jax import sample

    def fail(*args, **kwargs):
        raise errors.UserError("no pencil")

    with monkeypatch.context() as patch:
        patch.setattr(sample, "fixed_grid", fail)
        assert command(workdir) == 2
    assert 4 in saved_steps(workdir) and not list((workdir / "samples").glob("fakes*"))
    assert command(workdir) == 0
    assert_same_run(workdir, whole)


@pytest.mark.parametrize("number", signals.NUMBERS)
def test_each_signal_is_noted_and_a_second_one_ends_the_program(number):
    before = signal.getsignal(number)
    with signals.Stop() as stop:
        stop.check()
        signal.raise_signal(number)
        assert stop() and signal.getsignal(number) == signal.SIG_DFL
        with pytest.raises(errors.Stopped):
            stop.check()
    assert signal.getsignal(number) == before


def test_signals_are_noted_once_others_wait_and_passed_on_to_jax():
    """Until then one ends the command. A block within another leaves the handlers to the outer one."""
    before, ends, passed_on = signal.getsignal(signal.SIGUSR1), [], []
    with signals.Stop(ends.append) as stop:
        signal.raise_signal(signal.SIGUSR2)
        assert ends == ["SIGUSR2"]
        stop.note()
        signal.raise_signal(signal.SIGUSR1)
        assert ends == ["SIGUSR2"] and stop()
        signal.signal(signal.SIGTERM, lambda *_: passed_on.append("SIGTERM"))  # as JAX takes it when processes meet
        stop.among(2)
        assert passed_on == ["SIGTERM"]
        with stop:
            signal.raise_signal(signal.SIGUSR1)
        assert passed_on == ["SIGTERM"] * 2
        assert signal.getsignal(signal.SIGINT) == stop._take
    assert signal.getsignal(signal.SIGUSR1) == before
