"""Searches by Optuna with a small program in place of training: values, pruning, resuming, workers, pictures."""

import csv
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from gan_jax import cli, sweep
from gan_jax import config as configs
from gan_jax.errors import UserError
from gan_jax.sweeps import choices
from gan_jax.sweeps import study as studies
from tests import settings

optuna = pytest.importorskip("optuna")
ROOT = pathlib.Path(__file__).resolve().parents[1]
# Four lines of loss = a, images 10 to 40, and fd = a in the end; saves and ends at SIGINT; goes on where it stood.
PROGRAM = """
import json, pathlib, signal, sys, time
flags = dict(flag.removeprefix("--").split("=", 1) for flag in sys.argv[2:])
folder, a = pathlib.Path(flags["workdir"]), float(flags["config.a"])
stop = []
signal.signal(signal.SIGINT, lambda *_: stop.append(1))
(folder / "calls").open("a").write("x")
(folder / "config.json").write_text(json.dumps({"total_images": 40}))
lines = folder / "metrics.jsonl"
done = len(lines.read_text().splitlines()) if lines.exists() else 0
for step in range(done + 1, 5):
    with lines.open("a") as file:
        file.write(json.dumps({"step": step, "images": 10 * step, "net/loss": a}) + "\\n")
    end = time.time() + (60 if step == 2 and flags.get("config.wait") == "yes" else 0)
    while time.time() < end and not stop:
        time.sleep(0.02)
    if stop:
        sys.exit(75)
if flags.get("config.b") == "bad":
    sys.exit("it went wrong")
row = {"metric": "fd", "better": "lower", "step": 4, "images": 40, "value": a}
(folder / "evaluations.jsonl").write_text(json.dumps(row) + "\\n")
"""


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """They take longer than all the rest; one test has them drawn."""
    monkeypatch.setattr(studies.plots, "draw", lambda *_: [])
    monkeypatch.setattr(sweep, "_plot", lambda *_: None)


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return [sys.executable, str(path)]


def search(folder, program, *listed, metric="net/loss", better="lower", overrides=(), jobs=1, seed=0, **settings):
    settings = studies.Settings(**{"trials": 3, **settings})
    return studies.search("f.py", overrides, listed, str(folder), settings=settings, metric=metric, better=better,
                          jobs=jobs, seed=seed, whole=("config.n",), command=program)  # fmt: skip


def worker(folder, program, overrides=(), settings="trials=3"):
    """The code of a process that does what `search` does with one range."""
    return (
        "import sys; from gan_jax.sweeps import study\n"
        f"sys.exit(study.search('f.py', {overrides!r}, ['config.a=uniform(0,1)'], {str(folder)!r}, metric='net/loss',"
        f" better='lower', settings=study.Settings({settings}), command={program!r}))"
    )


def stored(folder, url=""):
    return optuna.load_study(study_name=folder.name, storage=url or f"sqlite:///{folder / 'study.db'}")


def states(folder):
    return [trial.state.name for trial in stored(folder).get_trials()]


def read_csv(folder):
    with (folder / "sweep.csv").open() as file:
        return list(csv.DictReader(file))


def calls(folder):
    return {path.parent.name: len(path.read_text()) for path in folder.glob("*/calls")}


def test_every_trial_is_a_run_whose_value_the_study_knows(program, tmp_path, capsys, monkeypatch):
    """The run's flags hold the study's numbers to the last digit; pictures and a table are there."""
    monkeypatch.undo()
    folder = tmp_path / "search"
    forms = ("config.a=loguniform(1e-3,1)", "config.n=uniform(2,6)", "config.b=x,y")
    assert search(folder, program, *forms, metric="", trials=4, jobs=2) == 0
    trials = stored(folder).get_trials()
    assert states(folder) == ["COMPLETE"] * 4 and len({trial.params["a"] for trial in trials}) == 4
    for trial in trials:
        assert trial.value == trial.params["a"] and 1e-3 <= trial.value <= 1
        assert trial.params["n"] in range(2, 7) and trial.params["b"] in ("x", "y")
        assert trial.intermediate_values == {40: trial.value}  # its one evaluation, after 40 images
        command = json.loads((folder / trial.user_attrs["run"] / "sweep_result.json").read_text())["command"]
        assert f"--config.a={trial.params['a']!r} --config.n={trial.params['n']} " in command
    rows = read_csv(folder)
    assert [float(row["fd"]) for row in rows] == pytest.approx(sorted(trial.value for trial in trials), rel=1e-5)
    assert {row["status"] for row in rows} == {"done"}
    for name in ("history", "importance", "parallel", "sweep"):
        assert (folder / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    capsys.readouterr()
    assert search(folder, program, *forms, metric="", trials=4) == 0  # nothing is left to do
    assert "4 trials, 4 begun" in capsys.readouterr().out and set(calls(folder).values()) == {1}


@pytest.mark.parametrize("sampler", ["random", "cmaes", "grid"])
def test_samplers_by_name(program, tmp_path, sampler):
    """The same seed draws the same, another one differently; a grid has each combination once."""
    values = []
    for seed in (1, 1, 2):
        folder = tmp_path / f"search{len(values)}"
        forms = ("config.a=1,2", "config.c=3,4") if sampler == "grid" else (
            "config.a=uniform(0,1)", "config.c=loguniform(1,9)")  # fmt: skip
        assert search(folder, program, *forms, sampler=sampler, trials=0 if sampler == "grid" else 3, seed=seed,
                      jobs=1 if sampler == "cmaes" else 3) == 0  # fmt: skip
        values.append(sorted((trial.params["a"], trial.params["c"]) for trial in stored(folder).get_trials()))
        if sampler == "grid":
            assert values == [[("1", "3"), ("1", "4"), ("2", "3"), ("2", "4")]]
            return
    assert values[0] == values[1] != values[2]


@pytest.mark.parametrize(("pruner", "extra"), [("median", {"startup": 1}), ("halving", {"warmup": 10})])
def test_a_pruned_trial_is_saved_and_goes_on_by_its_command(program, tmp_path, pruner, extra):
    """The second has a worse value at the same number of images: it ends there, and can go on to its end."""
    folder, options = tmp_path / "search", {"sampler": "grid", "pruner": pruner, **extra}
    assert search(folder, program, "config.a=1,2", trials=1, **options) == 0
    slow = PROGRAM.replace('"net/loss": a', '"net/loss": 9').replace('flags.get("config.wait") == "yes"', "True")
    (tmp_path / "program.py").write_text(slow)
    assert search(folder, program, "config.a=1,2", **options) == 0
    pruned = stored(folder).get_trials()[1]
    assert states(folder) == ["COMPLETE", "PRUNED"] and max(pruned.intermediate_values) < 40
    assert [row["status"] for row in read_csv(folder)] == ["done", "pruned"]
    run = folder / pruned.user_attrs["run"]
    (tmp_path / "program.py").write_text(PROGRAM)
    subprocess.run(json.loads((run / "sweep_result.json").read_text())["command"], shell=True, check=True)
    assert [row["images"] for row in sweep.measured(run, "net/loss")] == [10, 20, 30, 40]


def test_who_is_stopped_goes_on_and_who_failed_is_not_tried_again(program, tmp_path):
    """SIGTERM to the search: its run is asked to save; the same command resumes this trial before others."""
    folder = tmp_path / "search"
    assert search(folder, program, "config.a=1,2", "config.b=bad", sampler="grid", trials=1) == 1
    assert states(folder) == ["FAIL"] and "it went wrong" in read_csv(folder)[0]["message"]
    folder = tmp_path / "other"
    code = worker(folder, program, overrides=[("wait", "yes")])
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    wait_for(lambda: any(len(file.read_text().splitlines()) == 2 for file in folder.glob("*/metrics.jsonl")))
    os.kill(process.pid, signal.SIGTERM)
    assert "the same command goes on from here" in process.communicate(timeout=60)[0]
    assert process.returncode == 75 and states(folder) == ["RUNNING"]  # one is not over
    (tmp_path / "program.py").write_text(PROGRAM.replace('flags.get("config.wait") == "yes"', "False"))
    assert search(folder, program, "config.a=uniform(0,1)", overrides=[("wait", "yes")]) == 0
    assert states(folder) == ["COMPLETE"] * 3
    assert [count for _, count in sorted(calls(folder).items())] == [2, 1, 1]
    rows = [json.loads(line) for line in (folder / stored(folder).get_trials()[0].user_attrs["run"] /
                                          "metrics.jsonl").open()]  # fmt: skip
    assert [row["step"] for row in rows] == [1, 2, 3, 4]


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition()


def test_workers_share_a_study_by_a_journal(program, tmp_path):
    """Two commands at the same time have together the trials that are asked for, and no two the same."""
    folder, journal = tmp_path / "search", tmp_path / "journal.log"
    code = worker(folder, program, settings=f"trials=6, storage='journal:{journal}'")
    workers = [subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
               for _ in range(2)]  # fmt: skip
    outputs = [worker.communicate(timeout=60)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    backend = optuna.storages.journal.JournalFileBackend(str(journal))
    trials = stored(folder, optuna.storages.JournalStorage(backend)).get_trials()
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 6
    assert len({trial.params["a"] for trial in trials}) == 6 and set(calls(folder).values()) == {1}


@pytest.mark.parametrize(("forms", "options", "message"), [
    (("config.a=1,2",), {"sampler": "tpee"}, "--sampler=tpee: expected one of tpe, random, grid, cmaes"),
    (("config.a=1,2",), {"pruner": "mean"}, "--pruner=mean: expected one of none, median, halving"),
    (("config.a=1,2",), {"trials": -1}, "--trials=-1: expected 0 or more"),
    (("config.a=uniform(1,2)",), {"sampler": "grid"}, "config.a has endless values; give log"),
    (("config.a=uniform(1,2)", "config.b=x,y"), {"sampler": "cmaes"}, "it searches two ranges or more"),
    (("config.a=uniform(2,1)",), {}, "expected the lower number first"),
    (("config.a=loguniform(0,1)",), {}, "lower number first, above 0"),
    (("config.a=uniform(1)",), {}, r"expected uniform\(lowest,highest\)"),
    (("config.n=uniform(1.2,1.4)",), {}, "holds no two whole numbers"),
    (("config.a=uniform(1,2),3",), {}, "is a range: it stands alone"),
    (("config.a=1", "config.a=2"), {}, "swept twice"),
    ((), {}, "nothing to sweep"),
    (("config.a=1,2",), {"storage": "nosuchdb://x"}, "--storage: the study cannot be opened"),
])  # fmt: skip
def test_mistakes(program, tmp_path, forms, options, message):
    with pytest.raises(UserError, match=message):
        search(tmp_path / "search", program, *forms, **options)
    assert not list(tmp_path.glob("search/*/calls"))


def test_another_search_is_refused(program, tmp_path):
    """In the same folder, and under the same name in a storage that others use too."""
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    search(tmp_path / "search", program, "config.a=1,2", trials=1, storage=url)
    with pytest.raises(UserError, match=r"sweep.json holds another sweep:\n  sweeps"):
        search(tmp_path / "search", program, "config.a=1,3", storage=url)
    with pytest.raises(UserError, match="holds another sweep:\n  engine: 'optuna' -> None"):
        sweep.sweep("f.py", [], ["config.a=1,2"], tmp_path / "search", command=program)
    with pytest.raises(UserError, match="--study=search: the storage has another search of this name"):
        search(tmp_path / "b" / "search", program, "config.a=1,3", storage=url)


def test_a_value_of_another_order_ends_the_search(program, tmp_path):
    with pytest.raises(UserError, match="--metric=fd: it is the better the lower, which was not foreseen"):
        search(tmp_path / "search", program, "config.a=1,2", metric="fd", better="higher")


def test_the_order_of_a_metric():
    """Of a name in a run's files, or of the first of the config's."""
    config = settings.digits(evaluation__metrics="('prdc',)", evaluation__features="digits_classifier")
    names = {"generator/loss": "lower", "fd_digits_classifier": "lower", "kid50k_full": "lower", "is50k": "higher",
             "fd50k_full_random_inception": "lower", "precision": "higher", "": "higher"}  # fmt: skip
    assert {name: choices.order(config, name) for name in names} == names
    configs.override(config, "evaluation.metrics", "fd")
    assert choices.order(config, "") == "lower"
    with pytest.raises(UserError, match="sharpness: it is the better the nearer the reals"):
        choices.order(config, "sharpness")
    configs.override(config, "evaluation.metrics", "()")
    with pytest.raises(UserError, match="config.evaluation.metrics is empty; set it, or give --metric=NAME"):
        choices.order(config, "")


SMOKE = f"--config={settings.EXPERIMENTS / 'digits_dcgan.py'}:smoke"
RATE = "--sweep=config.optim.generator.learning_rate=loguniform(1e-5,1e-3)"


@pytest.mark.parametrize(("flags", "message"), [
    (["--engine=ray"], "--engine=ray: expected one of local, optuna, slurm, pbt"),
    ([RATE, "--trials=3"], "--trials has no meaning with --engine=local; it is for optuna"),
    ([RATE], "is a range: it stands alone, for --engine=optuna or pbt"),
    (["--engine=optuna", "--sweep=config.optim.generator.lr=loguniform(1e-5,1e-3)"], "no key"),
    (["--engine=optuna", "--sweep=config.generator.name=dcgan,dcgann"], "dcgann"),
    (["--engine=optuna", RATE, "--trials=x"], "--trials=x: expected a whole number"),
    (["--engine=pbt", RATE, "--config.optim.generator.schedule=linear"], "schedule='linear' follows from the length"),
])  # fmt: skip
def test_mistakes_in_the_command(tmp_path, capsys, flags, message):
    """Before anything runs."""
    assert cli.main(["sweep", SMOKE, f"--workdir={tmp_path / 'search'}", *flags]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "search").exists()


def test_a_missing_package_is_named(tmp_path, monkeypatch, program):
    monkeypatch.setattr(studies.importlib.util, "find_spec", lambda name: None if name == "cmaes" else name)
    with pytest.raises(UserError, match=r"the package cmaes is missing; pip install 'gan_jax\[sweep\]'"):
        search(tmp_path / "search", program, "config.a=uniform(0,1)", "config.b=uniform(0,1)", sampler="cmaes")
