"""`--step=best`: the checkpoint with the best value of the run's first metric."""

import pathlib
import re

import jax
import numpy as np
import pytest
import safetensors
from PIL import Image

from gan_jax import checkpoint, cli, evaluate, folders, parallel, run_data, runs
from tests import settings

VALUES = {1: 30.0, 2: 10.0, 3: 20.0, 4: None}  # of fd, by step


def write(folder, metrics: str, values: dict) -> pathlib.Path:
    """A run whose checkpoints have these values; the averages of step N are those of the start times N."""
    config = settings.digits(evaluation__metrics=metrics)
    dataset = run_data.open_data(config)
    run = runs.build(config, run_data.data_spec(config, dataset))
    folders.start_folder(folder, config, run.spec, dataset.summary(), dataset)
    name, fresh = evaluate.ranking(config)["metric"], runs.fresh_state(run)
    manager = checkpoint.open_manager(folder / "checkpoints", keep=len(values))
    with checkpoint.closing(manager):
        for step, value in values.items():
            state = fresh._replace(step=np.int32(step), ema=jax.tree.map(lambda x, step=step: step * x, fresh.ema))
            companions = {"position": 8 * step, "data": dataset.fingerprint, "sums": {}}
            checkpoint.save(manager, parallel.replicate(state, parallel.make_mesh()), companions)
            if value is not None:
                checkpoint.attach(manager, step, [], (name, value))
    return folder


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    return write(tmp_path_factory.mktemp("best") / "run", "('fd','classes')", VALUES)


def test_each_command_takes_the_best_one(measured, tmp_path, capsys, monkeypatch):
    for step in ("best", "2", "4"):
        out = tmp_path / step
        assert cli.main(["sample", f"--workdir={measured}", f"--out={out}", "--seeds=3", f"--step={step}"]) == 0
    best, second, last = (np.asarray(Image.open(tmp_path / step / "seed000003.png")) for step in ("best", "2", "4"))
    assert (best == second).all() and (best != last).any()
    assert capsys.readouterr().out.startswith("step 2 is the best by fd: 10\n")
    file = tmp_path / "networks.safetensors"
    assert cli.main(["export", f"--workdir={measured}", f"--out={file}", "--step=best"]) == 0
    with safetensors.safe_open(file, "numpy") as opened:
        assert opened.metadata()["step"] == "2"
    steps = []
    monkeypatch.setattr(evaluate, "evaluate", lambda workdir, **options: steps.append(options["step"]) or [])
    for flags in (["--step=best"], []):
        assert cli.main(["evaluate", f"--workdir={measured}", *flags]) == 0
    assert steps == [2, None]


@pytest.mark.parametrize(("metrics", "values", "message"), [
    ("()", {1: None, 2: None}, "has no config.evaluation.metrics; give --step=N, there are 1, 2"),
    ("('fd',)", {1: None, 2: None}, "no checkpoint of .* has a value of fd by .*every.evaluate_images=N.*are 1, 2"),
])  # fmt: skip
def test_a_run_without_values(tmp_path, capfd, metrics, values, message):
    folder = write(tmp_path / "run", metrics, values)
    assert cli.main(["export", f"--workdir={folder}", f"--out={tmp_path / 'x'}", "--step=best"]) == 2
    error = capfd.readouterr().err
    assert error.startswith("error: --step=best: ") and not (tmp_path / "x").exists()
    assert re.search(message, error), error
