"""The benchmark of the training step: its smoke form, what it writes, and that it compares before it times."""

import importlib.util
import json
import re
from argparse import Namespace

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from benchmarks import cases, report, training_step
from gan_jax import config as configs
from gan_jax import runs
from gan_jax.errors import UserError

TORCH = importlib.util.find_spec("torch") is not None


def test_smoke_writes_what_was_measured(tmp_path, capsys):
    out = tmp_path / "results" / "step.json"
    sides = "jax,torch" if TORCH else "jax"
    assert training_step.main(["--models=dcgan_32", "--smoke", f"--sides={sides}", f"--out={out}"]) == 0
    written = json.loads(out.read_text())
    assert written["settings"]["smoke"] and written["settings"]["repeats"] == 1
    assert {"jax", "flax", "numpy", "python"} <= written["versions"].keys()
    assert re.fullmatch(r"([0-9a-f]{12}(-dirty)?)?", written["code"])  # a copy without git has no revision
    assert written["machine"]["cores"] >= 1 and written["machine"]["memory_gib"] > 0
    case = written["models"]["dcgan_32"]
    assert case["config"]["batch_size"] == 8 and case["config"]["optim"]["generator"]["b1"] == 0.5
    speed = case["jax"]["images_per_second"]
    assert len(speed["all"]) == 1 and speed["low"] == speed["median"] == speed["high"] > 0
    assert case["jax"]["peak_mib"] > 50
    printed = capsys.readouterr().out
    assert "dcgan_32" in printed and f"{speed['median']:.2f}" in printed
    assert ("ratio" in case) == TORCH
    if TORCH:
        assert max(case["differences"].values()) < 1e-4 and "generator/grad_norm" in case["differences"]


def test_cycles_hold_each_phase_as_often_as_it_is_due():
    case = cases.find("stylegan2_32")
    cycle = case.cycle()
    counts = {phase: sum(phase in due for due in cycle) for phase in case.phases}
    assert counts == {"generator": 16, "path_length": 4, "discriminator": 16, "penalty": 1}
    assert cycle[0] == ("generator", "path_length", "discriminator", "penalty")
    assert cycle[1] == ("generator", "discriminator")


@pytest.mark.skipif(TORCH, reason="PyTorch is installed")
def test_without_pytorch_one_line_tells_what_to_do(capsys):
    assert training_step.main(["--models=dcgan_32", "--smoke"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "pip install torch" in error and "--sides=jax" in error


@pytest.mark.parametrize("name", cases.names())
def test_a_cycle_is_that_of_the_run(name):
    """Phases and periods of the config; labels where it has them."""
    case = cases.find(name, smoke=True)
    run = runs.build(configs.complete(ConfigDict(case.config), runs.defaults), case.spec())
    assert {phase.name: phase.every for phase in run.phases} == case.phases
    assert case.steps % max(case.phases.values()) == 0 and bool(case.classes) == run.config.get("conditional", False)


def test_a_papers_settings_are_timed_too(tmp_path, capsys):
    out = tmp_path / "r3gan.json"
    assert training_step.main(["--models=r3gan_cifar10", "--smoke", "--sides=jax", f"--out={out}"]) == 0
    ours = json.loads(out.read_text())["models"]["r3gan_cifar10"]["jax"]
    assert ours["gflops"] / ours["matrix_gflops"] == pytest.approx(ours["share_of_matrix_rate"])
    speed = ours["images_per_second"]["median"]
    assert ours["gflop_per_image"] * speed == pytest.approx(ours["gflops"]) and ours["gflops"] > 0
    assert "of a matrix product's" in capsys.readouterr().out


def test_another_batch():
    assert cases.find("stylegan2_256", batch_size=4).config["batch_size"] == 4
    assert cases.find("stylegan2_256").config["batch_size"] == 64


@pytest.mark.parametrize("flag", ("--models=dcgan_33", "--sides=torch", "--repeats=0", "--batch=-1", "--platform=tpu"))
def test_wrong_flags_are_named(flag, capsys):
    assert training_step.main([flag, "--out=never.json"]) == 2
    assert flag.split("=")[1] in capsys.readouterr().err


def test_a_report_that_cannot_be_written_is_told_before_it_is_measured(tmp_path, capsys):
    (tmp_path / "file").touch()

    def measure(flags):
        raise AssertionError("measured")

    assert report.command(measure, Namespace(out=tmp_path / "file" / "step.json")) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"--out={tmp_path / 'file' / 'step.json'}" in error


def test_what_fails_leaves_no_report(tmp_path):
    def measure(flags):
        raise UserError("no such case")

    assert report.command(measure, Namespace(out=tmp_path / "step.json")) == 2 and not list(tmp_path.iterdir())


def test_a_machine_without_the_platform_is_told(tmp_path, capsys):
    if any(device.platform == "gpu" for device in jax.devices()):
        pytest.skip("this machine has a GPU")
    arguments = ["--models=dcgan_32", "--smoke", "--sides=jax", "--platform=cuda", f"--out={tmp_path / 'never.json'}"]
    assert training_step.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "--platform=cuda" in error and "--platform=cpu" in error


def test_only_dcgan_has_pytorch_beside_it_on_a_gpu(monkeypatch):
    """Which sides are started, with what share of the GPU's memory, and what the matrices are."""
    started = []

    class Started(Exception):
        pass

    def worker(side, case, *arguments):
        started.append(arguments)
        raise Started

    monkeypatch.setattr(training_step, "Worker", worker)
    for name, platform in (("dcgan_32", "cuda"), ("stylegan2_32", "cuda"), ("stylegan2_32", "cpu")):
        flags = training_step._flags([f"--platform={platform}", "--smoke"])
        with pytest.raises(Started):
            training_step.measure(cases.find(name, smoke=True), flags)
    assert started == [("cuda", 0.5), ("cuda", 0.9), ("cpu", 0.5)]
    assert training_step._matrix(flags) == (256, "float32")
    assert training_step._matrix(training_step._flags(["--platform=cuda"])) == (8192, "bfloat16")


class _Fixed:
    """A side that gives what it is told to."""

    def __init__(self, logits, loss, seconds=(), prepared=0.0):
        self.results = {
            "prepare": prepared,
            "outputs": {"logits": np.array(logits)},
            "check_steps": {"d/loss": loss, "own": 1.0},
            "peak": 1.0,
        }
        self.seconds = list(seconds)

    def call(self, method, *arguments):
        return self.seconds.pop(0) if method == "play" else self.results[method]


def test_sides_that_differ_are_not_timed():
    ours, torch = _Fixed([1.0, 2.0], 0.5), _Fixed([1.0, 2.0001], 0.50002)
    differences = training_step._compare({"jax": ours, "torch": torch})
    assert differences == {"logits": pytest.approx(5e-5, rel=1e-3), "d/loss": pytest.approx(4e-5, rel=1e-2), "own": 0.0}
    with pytest.raises(UserError, match="logits: the sides differ by 5.0e-04"):
        training_step._compare({"jax": ours, "torch": _Fixed([1.0, 2.001], 0.5)})
    with pytest.raises(UserError, match="d/loss"):
        training_step._compare({"jax": ours, "torch": _Fixed([1.0, 2.0], 0.51)})


def test_speeds_ratios_and_compilation():
    ours = _Fixed([0.0], 0.0, [(9.0, 9.0), (2.0, 4.0), (4.0, 4.0), (1.0, 2.0)], prepared=0.5)
    torch = _Fixed([0.0], 0.0, [(1.0, 1.0), (1.0, 1.0), (1.0, 2.0), (1.0, 2.0)])
    result = training_step._time({"jax": ours, "torch": torch}, [("g",), ("g", "d")], 3, 8)
    assert result["jax"]["images_per_second"] == {"median": 8.0, "low": 4.0, "high": 16.0, "all": [8.0, 4.0, 16.0]}
    assert result["jax"]["compile_seconds"] == 7.5 and result["torch"]["compile_seconds"] == 0.0
    assert result["ratio"]["all"] == [0.5, 0.25, 1.0] and result["ratio"]["median"] == 0.5
    assert result["ratio_cpu"]["all"] == [0.25, 0.5, 1.0]


def test_a_weighted_cycle_counts_each_set_as_often_as_it_is_due():
    """Seconds of (a): 9 with compilation, then 2; of (b): 4, then 1. A cycle of 3 (a) and 1 (b) takes 7 s."""
    ours = _Fixed([0.0], 0.0, [(9.0, 9.0), (4.0, 4.0), (2.0, 4.0), (1.0, 2.0)])
    result = training_step._time({"jax": ours}, [("a",), ("b",), ("a",), ("a",)], 1, 7, weighted=True)["jax"]
    assert result["images_per_second"]["all"] == [4.0] and result["images_per_cpu_second"]["all"] == [2.0]
    assert result["compile_seconds"] == 10.0
