"""The benchmark of starting: its smoke form, what it reads from the output of a start, and its bars."""

import json
import os
import pathlib
import types

import pytest

from benchmarks import startup
from gan_jax.errors import UserError


def test_smoke_writes_what_was_measured(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")  # one device
    out = tmp_path / "results" / "startup.json"
    assert startup.main(["--smoke", "--images=16", "--override=grid=4", f"--out={out}"]) == 0
    report = json.loads(out.read_text())
    assert report["benchmark"] == "startup" and report["settings"]["smoke"]
    assert report["settings"]["xla_flags"] == os.environ["XLA_FLAGS"]
    assert {"jax", "flax", "python"} <= report["versions"].keys() and report["machine"]["cores"] >= 1

    bars = {"import gan_jax.cli": 1.5, "launch.py --help": 2.0}
    assert {name: row["bar_seconds"] for name, row in report["commands"].items()} == bars
    for row in report["commands"].values():
        assert len(row["seconds"]["all"]) == 1 and row["seconds"]["median"] > 0
        assert row["kept"] == (row["seconds"]["median"] <= row["bar_seconds"])

    ((experiment, kinds),) = report["starts"].items()
    assert experiment == "experiments/mixture_gan.py:smoke" and list(kinds) == ["cold", "cached", "images_per_second"]
    printed = capsys.readouterr().out
    (images_per_second,) = kinds["images_per_second"]["all"]
    assert images_per_second > 0 and f"{images_per_second:.2f}" in printed
    for row in (kinds["cold"], kinds["cached"]):
        parts = [part["median"] for part in row["parts"].values()]
        assert min(parts) >= 0 and sum(parts) >= row["first_step"]["median"] - 1e-6
        assert row["programs"] == [row["programs"][0]] and row["programs"][0] >= 1
        assert f"{row['first_step']['median']:.2f}" in printed
    assert kinds["cold"]["programs"] == kinds["cached"]["programs"]  # compiled, then fetched or compiled


def test_the_parts_of_a_start_add_up():
    lines = [
        (1.0, "import time: self [us] | cumulative | imported package\n"),
        (2.0, "import time:    500000 |     750000 |   jax\n"),
        (2.5, "import time:    250000 |     250000 |     numpy\n"),
        (3.0, "WARNING:jax:Finished tracing f for jit in 0.1 sec\n"),
        (3.0, "WARNING:jax:Finished jaxpr to MLIR module conversion jit(init) in 0.5 sec\n"),
        (4.0, "WARNING:jax:Finished XLA compilation of jit(init) in 1.0 sec\n"),
        (5.0, "new run: unconditional on digits (32, 32, 1), 1437 samples; generator 9 parameters; 1 cpu device(s)\n"),
        (5.5, "import time:    125000 |     125000 |   late\n"),
        (9.0, "WARNING:jax:Finished XLA compilation of jit(step) in 2.0 sec\n"),
        (10.0, "       64 images     20.7 images/s  0:00 left  discriminator 1.508 generator 0.680\n"),
    ]
    assert startup._STEP.match(lines[-1][1]) and not any(startup._STEP.match(line) for _, line in lines[:-1])
    result = startup.measured(lines)
    assert result["first_step"] == 10.0 and result["programs"] == 2
    expected = {"import": 0.875, "lowering": 0.5, "compilation": 3.0, "prepare": 2.75, "step": 2.875}
    assert result["parts"] == pytest.approx(expected) and sum(expected.values()) == 10.0


def test_a_start_has_caches_of_its_own(tmp_path):
    assert "JAX_COMPILATION_CACHE_DIR" in os.environ  # set for the tests
    way = startup.Way("any", xla_flags="--xla_of_this_way=2")
    environment = startup._environment(tmp_path, way)
    assert environment["XLA_FLAGS"] == f"{os.environ['XLA_FLAGS']} --xla_of_this_way=2"
    assert "JAX_COMPILATION_CACHE_DIR" not in environment and environment["JAX_LOG_COMPILES"] == "1"
    for name in ("GAN_JAX_CACHE_DIR", "GAN_JAX_DATA_DIR"):
        assert pathlib.Path(environment[name]).parent == tmp_path != pathlib.Path(os.environ[name]).parent


def test_bars_are_of_the_median(monkeypatch):
    times = iter((0.0, 1.0, 0.0, 1.0, 0.0, 2.0, 0.0, 9.0, 0.0, 1.25, 0.0, 2.5))
    monkeypatch.setattr(startup, "time", types.SimpleNamespace(perf_counter=lambda: next(times)))
    monkeypatch.setattr(startup, "COMMANDS", {name: ("-c", "") for name in startup.COMMANDS})
    result = startup.commands(3)
    assert result["import gan_jax.cli"]["seconds"]["all"] == [1.0, 2.0, 1.25]
    assert result["launch.py --help"]["seconds"] == {"median": 2.5, "low": 1.0, "high": 9.0, "all": [1.0, 9.0, 2.5]}
    assert result["import gan_jax.cli"]["kept"] and not result["launch.py --help"]["kept"]


def test_a_command_that_ends_early_is_told_with_its_last_line(tmp_path):
    (tmp_path / "cold").write_text("in the way of the run's folder")
    with pytest.raises(UserError, match="ended before its first step: error: .*this is a file"):
        startup.start(startup.Way("experiments/mixture_gan.py:smoke"), tmp_path, "cold")


@pytest.mark.parametrize("flag", ("--repeats=0", "--starts=0", "--override=grid", "--experiments=experiments/no.py"))
def test_wrong_flags_are_named(flag, capsys):
    assert startup.main([flag, "--out=never.json"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and flag.split("=")[1] in error
