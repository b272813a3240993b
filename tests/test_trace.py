"""`train --profile`: a trace that names steps and phases, and a run that computes what it computes without."""

import contextlib

import jax
import pytest

from gan_jax import cli, logs
from gan_jax.step import Phase
from gan_jax.trace import Trace
from tests import settings

SMOKE = f"--config={settings.EXPERIMENTS / 'digits_dcgan.py'}:smoke"
PLAIN = (
    "--config.evaluation.metrics=()", "--config.loss.r1_gamma=0", "--config.every.log_images=8",
    "--config.every.sample_images=1000", "--config.every.checkpoint_images=1000",
)  # fmt: skip


def _train(folder, images, *flags):
    assert cli.main(["train", SMOKE, f"--workdir={folder}", *PLAIN, f"--config.total_images={images}", *flags]) == 0
    rows = logs.read_lines(folder / "metrics.jsonl")
    assert len(rows) == images // 8
    return [{key: value for key, value in row.items() if key != "images_per_second"} for row in rows]


def test_a_profiled_run_computes_the_same_and_its_trace_names_steps_and_phases(tmp_path, capsys):
    traces = tmp_path / "new" / "traces"
    plain = _train(tmp_path / "plain", 160)
    assert _train(tmp_path / "profiled", 160, f"--profile={traces}") == plain
    assert f"profile: {traces}\n" in capsys.readouterr().out
    (file,) = traces.rglob("*.xplane.pb")
    lines = [line for plane in jax.profiler.ProfileData.from_file(str(file)).planes for line in plane.lines]
    numbers = [dict(event.stats)["step_num"] for line in lines for event in line.events if event.name == "train"]
    assert numbers == list(range(2, 18))  # the first step compiles, the second is a cycle without
    for phase in (b"discriminator", b"generator"):
        assert b"/" + phase + b"/optimizer_update/" in file.read_bytes()


def test_a_run_that_ends_early_says_so_or_cuts_the_trace(tmp_path, capsys):
    _train(tmp_path / "a", 8, f"--profile={tmp_path / 'none'}")
    assert "no trace, the run ended while it still compiled" in capsys.readouterr().out
    assert not list(tmp_path.rglob("*.xplane.pb"))
    _train(tmp_path / "b", 32, f"--profile={tmp_path / 'short'}")
    assert len(list((tmp_path / "short").rglob("*.xplane.pb"))) == 1


def test_a_folder_that_cannot_be_written_is_one_message(tmp_path, capfd):
    (tmp_path / "file").write_text("")
    capfd.readouterr()
    assert cli.main(["train", SMOKE, f"--workdir={tmp_path / 'run'}", f"--profile={tmp_path / 'file' / 'in'}"]) == 2
    error = capfd.readouterr().err
    assert error.startswith("error: --profile=") and "cannot be written" in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("every", "first", "count"), [((1, 1), 1, 16), ((1, 4, 16), 16, 16), ((1, 12), 12, 24),
                                                       ((5, 16), 80, 32)])  # fmt: skip
def test_whole_cycles_are_traced_after_one_without_compilation(tmp_path, monkeypatch, every, first, count):
    monkeypatch.setattr(jax.profiler, "start_trace", lambda *args, **options: None)
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: None)
    trace, traced = Trace(str(tmp_path)), []
    phases = tuple(Phase(str(n), None, (), "", n) for n in every)
    with contextlib.closing(trace):
        for step in range(200):
            if not isinstance(trace.step(step), contextlib.nullcontext):
                traced.append(step)
            trace.advance(phases, {}, compiled=step < 4)
    assert traced == list(range(4 + first, 4 + first + count))  # the last compilation is in step 3


def test_calls_of_several_steps_are_traced_whole(tmp_path, monkeypatch):
    """Cycles of 16 steps, 8 a call: one cycle without compilation, then two calls."""
    monkeypatch.setattr(jax.profiler, "start_trace", lambda *args, **options: None)
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: None)
    trace, traced = Trace(str(tmp_path)), []
    with contextlib.closing(trace):
        for step in range(0, 96, 8):
            if not isinstance(trace.step(step), contextlib.nullcontext):
                traced.append(step)
            trace.advance((Phase("a", None, (), "", 16),), {}, compiled=step < 16, steps=8)
    assert traced == [32, 40]


def test_a_trace_that_cannot_be_kept_does_not_end_the_run(tmp_path, monkeypatch, capsys):
    def full():
        raise RuntimeError("no space")

    monkeypatch.setattr(jax.profiler, "start_trace", lambda *args, **options: None)
    monkeypatch.setattr(jax.profiler, "stop_trace", full)
    trace = Trace(str(tmp_path))
    for step in range(40):
        trace.advance((Phase("a", None, (), ""),), {}, compiled=step == 0)
    trace.close()
    assert capsys.readouterr().out == f"--profile={tmp_path}: no trace: no space\n"
