"""Population-based training: a small one on digits, and who copies whom."""

import csv
import json
import random

import jax
import numpy as np
import pytest

from gan_jax import cli, folders, parallel, runs, sweep
from gan_jax.errors import STOPPED, UserError
from gan_jax.sweeps import population
from tests import settings

SHALLOW = {"generator.features": "(4,)", "generator.strides": "(8,)", "generator.kernel_size": 8,
           "discriminator.features": "(4,4)", "discriminator.strides": "(4,2)", "loss.r1_gamma": 0,
           "evaluation.metrics": "()", "every.log_images": 8, "checkpoints.keep": 9}  # fmt: skip
RATES = tuple(f"optim.{player}.learning_rate" for player in ("generator", "discriminator"))


@pytest.fixture
def in_process(monkeypatch):
    """Runs are trained one after another by this process on one device; the flags of each."""
    make_mesh, calls = parallel.make_mesh, []
    monkeypatch.setattr(parallel, "make_mesh", lambda devices=None: make_mesh(jax.devices()[:1]))

    def run_all(pending, jobs):
        for folder, command in pending:
            calls.append(command)
            folder.mkdir(exist_ok=True)
            failed = cli.main(command[1:]) if command[0] == "ours" else 0
            sweep._write_json(folder / "sweep_result.json", {"status": "failed" if failed else "done"})

    monkeypatch.setattr(sweep, "run_all", run_all)
    monkeypatch.setattr(sweep, "_plot", lambda *_: None)
    return calls


def evolve(folder, command="ours", overrides=(), **options):
    sweeps = [f"config.{key}=loguniform(1e-5,1e-2)" for key in RATES]
    arguments = {"total_images": 32, "metric": "generator/loss", "better": "lower", "population": 3, "rounds": 2}
    return population.evolve(f"{settings.EXPERIMENTS / 'digits_dcgan.py'}:smoke", overrides, sweeps, str(folder),
                             command=[command], **{**arguments, **options})  # fmt: skip


def whole(folder, step):
    config, spec, _ = folders.read_folder(folder)
    return folders.restore(runs.build(config, spec), folder, parallel.make_mesh(jax.devices()[:1]), step).state


def rates(folder):
    config = json.loads((folder / "config.json").read_text())
    return [config["optim"][key.split(".")[1]]["learning_rate"] for key in RATES]


def last(folder):
    return json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])


def test_the_worst_member_goes_on_from_the_best_ones_state_at_other_rates(in_process, tmp_path):
    """Three members, two rounds of two steps. Everything of the State is the source's to the bit."""
    folder = tmp_path / "population"
    assert evolve(folder, overrides=list(SHALLOW.items())) == 0
    rows = list(csv.DictReader((folder / "lineage.csv").open()))
    first, second = rows[:3], rows[3:]
    assert [row["source"] for row in first] == [""] * 3
    assert len({tuple(rates(folder / row["run"])) for row in first}) == 3
    losses = [last(folder / row["run"])["generator/loss"] for row in first]
    worst, best = int(np.argmax(losses)), int(np.argmin(losses))
    for member, row in enumerate(second):
        run, source = folder / row["run"], folder / row["source"]
        assert row["source"] == first[best if member == worst else member]["run"]
        jax.tree.map(lambda x, y: np.testing.assert_array_equal(np.asarray(x), np.asarray(y)),
                     whole(run, 2), whole(source, 2))  # fmt: skip
        factors = [new / old for new, old in zip(rates(run), rates(source), strict=True)]
        assert [round(factor, 6) in ((0.8, 1.2) if member == worst else (1.0,)) for factor in factors] == [True, True]
        assert (last(run)["step"], last(run)["images"]) == (4, 32) and last(source)["step"] == 2
    assert evolve(folder, overrides=list(SHALLOW.items())) == 0 and len(in_process) == 6  # all is done


def test_who_copies_whom():
    """A quarter of the population, the worst, copies one of the best quarter; who has no value copies, too."""
    draws = random.Random(0)
    assert population._sources([3.0, 1.0, 2.0], "lower", draws) == [1, 1, 2]
    assert population._sources([3.0, 1.0, 2.0], "higher", draws) == [0, 0, 2]
    assert population._sources([None, 1.0, None, 2.0], "lower", draws) == [1, 1, 1, 3]
    many = [population._sources([float(i) for i in range(8)], "lower", draws) for _ in range(20)]
    assert {tuple(sources[:6]) for sources in many} == {tuple(range(6))}
    assert {sources[7] for sources in many} == {0, 1} == {sources[6] for sources in many}


def test_a_population_without_a_value_ends(in_process, tmp_path, capsys):
    assert evolve(tmp_path / "population", command="nothing") == 1
    assert "no member has a value of the metric" in capsys.readouterr().out and len(in_process) == 3
    with pytest.raises(UserError, match="holds another sweep:\n  population: 3 -> 4"):
        evolve(tmp_path / "population", population=4)
    with pytest.raises(UserError, match="expected a population of 2 or more"):
        evolve(tmp_path / "one", population=1)


def test_a_member_that_somebody_stopped_ends_the_round(in_process, monkeypatch, tmp_path):
    """It goes on first, as the next round follows from its value, too."""
    run_all = sweep.run_all

    def stopping(pending, jobs):
        run_all(pending, jobs)
        sweep._write_json(pending[1][0] / "sweep_result.json", {"status": "unfinished"})

    with monkeypatch.context() as patch:
        patch.setattr(sweep, "run_all", stopping)
        assert evolve(tmp_path / "population", command="nothing") == STOPPED and len(in_process) == 3
    assert evolve(tmp_path / "population", command="nothing") == 1 and len(in_process) == 4  # it alone, to no value
