"""Sweeps with a small program in place of training: definitions, results, failures, resuming, signals."""

import csv
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from gan_jax import cli, sweep_flags
from gan_jax import config as configs
from gan_jax import sweep as sweeping
from gan_jax.errors import UserError
from tests import settings

# Takes a run's flags; writes what a run writes, with fd = a * b; fails, stops or waits where a tells it to.
PROGRAM = """
import json, pathlib, sys, time
assert sys.argv[1] == "train", sys.argv
flags = dict(flag.removeprefix("--").split("=", 1) for flag in sys.argv[2:])
folder = pathlib.Path(flags["workdir"])
with (folder / "calls.jsonl").open("a") as file:
    file.write(json.dumps(flags) + "\\n")
a, b = flags.get("config.a", "1"), flags.get("config.b", "1")
print("training", a, b)
if a == "wait":
    (folder / "waiting").touch()
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        print("saved")
        sys.exit(75)
if a == "bad":
    print("error: config.a='bad': expected a number", file=sys.stderr)
    sys.exit(2)
if a == "meet":
    deadline = time.time() + 20
    while len(list(folder.parent.glob("*/calls.jsonl"))) < 2:
        if time.time() > deadline:
            sys.exit("nobody came")
        time.sleep(0.02)
if a in ("none", "meet"):
    sys.exit(0)
rows = [{"metric": "fd", "value": 99.0, "step": 5}]
rows += [{"metric": "recall", "value": float(a), "step": 9, "better": "higher"}]
rows += [{"metric": "fd", "value": float(a) * float(b), "step": 10}]
(folder / "evaluations.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in rows))
cut_off = '{"step": 1, "loss": 7}\\n{"step": 8, "loss": %s}\\n{"step": 9, "lo' % a
(folder / "metrics.jsonl").write_text(cut_off)
"""


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return [sys.executable, str(path)]


def read_csv(folder):
    with (folder / "sweep.csv").open() as file:
        return list(csv.DictReader(file))


def calls(folder):
    return [json.loads(line) for path in sorted(folder.glob("*/calls.jsonl")) for line in path.open()]


def test_values():
    def values(text, seed=0):
        key, expanded = sweep_flags.expand(f"config.a.b={text}", seed)
        assert key == "config.a.b"
        return expanded

    assert values("1,2") == ["1", "2"]
    assert values("x, (1,(2,3)),[4,5]") == ["x", "(1,(2,3))", "[4,5]"]
    assert values("log(1e-5,1e-3,5)") == ["1e-05", "3.16228e-05", "0.0001", "0.000316228", "0.001"]
    assert values("linear(1,5,3)") == ["1", "3", "5"]
    assert values("linear(0,1,1),7") == ["0", "7"]
    draws = [float(v) for v in values("random(2,3,50)")]
    assert len(set(draws)) == 50 and all(2 <= v <= 3 for v in draws) and min(draws) < 2.2 and max(draws) > 2.8
    draws = [float(v) for v in values("lograndom(1e-6,1,200)")]
    assert 60 < sum(v < 1e-3 for v in draws) < 140  # half of the decades
    assert values("random(0,1,3)") == values("random(0,1,3)") != values("random(0,1,3)", seed=1)


def test_forms_of_whole_numbers_are_rounded():
    """And each value is there once; a list is taken as it is."""

    def values(text, whole=("config.n",)):
        return sweep_flags.expand(f"config.n={text}", 0, whole)[1]

    assert values("log(8,64,4)") == ["8", "16", "32", "64"]
    assert values("log(1,1000000,3)") == ["1", "1000", "1000000"]
    assert values("log(1,4,6)") == ["1", "2", "3", "4"]  # 1, 1.3, 1.7, 2.3, 3.0, 4
    assert values("linear(1,2,4)") == ["1", "2"]
    assert values("2,linear(0,10,4)") == ["2", "0", "3", "7", "10"]
    assert values("2,linear(0,4,3)") == ["2", "0", "4"]
    assert set(values("random(0,3,50)")) == set(values("lograndom(0.6,3,50)")) | {"0"} == {"0", "1", "2", "3"}
    assert values("linear(1,2,3)", ()) == ["1", "1.5", "2"]
    with pytest.raises(UserError, match="stands twice"):
        values("1,1")
    assert sweep_flags.product(["config.n=linear(1,2,3)", "config.x=linear(1,2,3)"], 0, ["config.n"]).keys() == {
        f"{i:03d}-n={n},x={x}" for i, (n, x) in enumerate((n, x) for n in "12" for x in ("1", "1.5", "2"))
    }


def test_whole_keys_are_those_of_whole_numbers():
    keys = sweep_flags.whole_keys(settings.digits())
    assert {"config.batch_size", "config.generator.width", "config.every.log_images"} <= keys
    assert not keys & {"config.data.flip", "config.loss.r1_gamma", "config.game", "config.optim.generator.b1"}


@pytest.mark.parametrize(("text", "expected"), [
    ("(32,32),(64,64)", ["(32,32)", "(64,64)"]),
    ('"a,b",c', ["a,b", "c"]),
    (" 'a,b' , \"c\",it's", ["a,b", "c", "it's"]),
    ("\"log(1,2,3)\",'(x'", ["log(1,2,3)", "(x"]),
    ("('fd','kd'),fd", ["('fd','kd')", "fd"]),
    ("'',x", ["", "x"]),
])  # fmt: skip
def test_brackets_and_quotes_hold_commas(text, expected):
    assert sweep_flags.expand(f"config.a={text}", 0)[1] == expected


@pytest.mark.parametrize(("key", "text", "expected"), [
    ("data.resolution", "(32,32),(16,32),8", [(32, 32), (16, 32), 8]),
    ("evaluation.metrics", '"fd,kd",fd,()', [("fd", "kd"), ("fd",), ()]),
    ("generator.width", "log(4,9,3)", [4, 6, 9]),
])  # fmt: skip
def test_swept_values_are_read_by_the_runs_config(key, text, expected):
    """As the command reads them before it starts a run."""
    read = []
    for values in sweep_flags.product([f"config.{key}={text}"], 0, sweep_flags.whole_keys(settings.digits())).values():
        config = settings.digits()
        configs.override(config, key, values[f"config.{key}"])
        read.append(dict(configs.flatten(config))[key])
    assert read == expected


@pytest.mark.parametrize(
    "text, message",
    [
        ('config.a="1,2', "a bracket or quote is not closed in \"1"),
        ("config.a=(1,2", "a bracket or quote is not closed in .1,2"),
        ("config.a=1),2", "a bracket or quote is not closed in 1"),
        ("config.a=1,2,", "empty"),
        ("config.a=", "empty"),
        ("config.a", "expected config.key=1,2"),
        ("a=1,2", "expected config.key=1,2"),
        ("config.a=1,,2", "empty"),
        ("config.a=1,2,1", "stands twice"),
        ("config.a=lin(1,2,3)", "nearest: linear"),
        ("config.a=log(1,2)", r"expected log\(first,last,count\)"),
        ("config.a=log(0,2,3)", "numbers above 0"),
        ("config.a=random(0,1,0)", "count of 1 or more"),
    ],
)
def test_unreadable_definitions(text, message):
    with pytest.raises(UserError, match=message):
        sweep_flags.expand(text, 0)


def test_product():
    runs = sweep_flags.product(["config.a=1,2", "config.x.b=u/v,w"], 0)
    assert list(runs) == ["000-a=1,b=u_v", "001-a=1,b=w", "002-a=2,b=u_v", "003-a=2,b=w"]
    assert runs["002-a=2,b=u_v"] == {"config.a": "2", "config.x.b": "u/v"}
    with pytest.raises(UserError, match="nothing to sweep"):
        sweep_flags.product([], 0)
    with pytest.raises(UserError, match="swept twice"):
        sweep_flags.product(["config.a=1", "config.a=2"], 0)


def test_every_combination_and_a_sorted_table(program, tmp_path, capsys):
    folder = tmp_path / "sweep"
    failed = sweeping.sweep(
        "file.py:smoke", [("seed", "7")], ["config.a=3,1,2", "config.b=1,10"], folder, jobs=2, command=program
    )
    assert failed == 0
    runs = calls(folder)
    assert len(runs) == 6
    flags = runs[1]
    assert flags.pop("workdir") == str(folder / "001-a=3,b=10")
    assert flags == {"config": "file.py:smoke", "config.seed": "7", "config.a": "3", "config.b": "10"}
    rows = read_csv(folder)
    assert [float(row["fd"]) for row in rows] == [1, 2, 3, 10, 20, 30]  # the last value of fd, not the first
    assert rows[3] | {"seconds": ""} == {
        "fd": "10",
        "step": "10",
        "a": "1",
        "b": "10",
        "status": "done",
        "seconds": "",
        "run": "003-a=1,b=10",
        "message": "",
    }
    assert (folder / "sweep.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out.splitlines()
    assert printed[-7].split()[:4] == ["fd", "step", "a", "b"] and printed[-6].split()[:4] == [
        "1",
        "10",
        "1",
        "1",
    ]

    # The same again runs nothing; another metric sorts anew, the greatest first where that is best.
    for metric, column in (
        ("recall", ["3", "3", "2", "2", "1", "1"]),
        ("loss", ["1", "1", "2", "2", "3", "3"]),
    ):
        assert (
            sweeping.sweep(
                "file.py:smoke",
                [("seed", "7")],
                ["config.a=3,1,2", "config.b=1,10"],
                folder,
                metric=metric,
                command=program,
            )
            == 0
        )
        assert [row[metric] for row in read_csv(folder)] == column
    assert len(calls(folder)) == 6


def test_failures_are_told_and_tried_again(program, tmp_path, capsys):
    folder = tmp_path / "sweep"
    for attempt in (1, 2):
        assert sweeping.sweep("f.py", [], ["config.a=bad,2,none"], folder, command=program) == 1
        assert len(calls(folder)) == 2 + attempt  # what is done is left alone
    best, *rest = read_csv(folder)
    assert (best["a"], best["status"]) == ("2", "done")
    assert {row["a"]: row["message"] for row in rest} == {
        "bad": "error: config.a='bad': expected a number",
        "none": "",
    }
    assert "failed after" in capsys.readouterr().out
    result = json.loads((folder / "000-a=bad" / "sweep_result.json").read_text())
    assert result["returncode"] == 2 and result["message"].splitlines()[0] == "training bad 1"
    assert (folder / "000-a=bad" / "sweep.log").read_text().count("training bad 1") == 2


def test_a_metric_that_no_run_has(program, tmp_path, capsys):
    sweeping.sweep("f.py", [], ["config.a=2"], tmp_path / "sweep", metric="fid", command=program)
    assert "no run has the metric 'fid'; they evaluated fd, recall" in capsys.readouterr().out
    assert not (tmp_path / "sweep" / "sweep.png").exists()


def test_a_run_stopped_by_a_signal_is_not_done(tmp_path, capsys):
    """It saves and exits 75, as the sweep then does. The same sweep goes on with it."""
    program = tmp_path / "program.py"
    program.write_text(
        "import json, pathlib, sys\n"
        "folder = pathlib.Path(dict(flag.split('=', 1) for flag in sys.argv[2:])['--workdir'])\n"
        "lines = folder / 'metrics.jsonl'\n"
        "images = 8 if not lines.exists() else 24\n"
        "(folder / 'config.json').write_text(json.dumps({'total_images': 24}))\n"
        "lines.open('a').write(json.dumps({'step': images // 8, 'images': images}) + '\\n')\n"
        "sys.exit(0 if images == 24 else 75)\n"
    )
    folder, command = tmp_path / "sweep", [sys.executable, str(program)]
    assert sweeping.sweep("f.py", [], ["config.a=2"], folder, command=command) == 75
    (row,) = read_csv(folder)
    assert row["status"] == "unfinished" and row["message"] == "stopped by a signal, 8 of 24 images logged"
    assert sweeping.sweep("f.py", [], ["config.a=2"], folder, command=command) == 0
    assert read_csv(folder)[0]["status"] == "done"
    assert "1 combinations, 0 to run" not in capsys.readouterr().out


def test_damaged_files_are_told_or_passed_over(program, tmp_path, capsys):
    folder = tmp_path / "sweep"
    sweeping.sweep("f.py", [], ["config.a=2"], folder, command=program)
    with (folder / "000-a=2" / "evaluations.jsonl").open("a") as file:
        file.write('{"step": 11}\n{"metric": "fd", "val')
    sweeping.sweep("f.py", [], ["config.a=2"], folder, metric="fid", command=program)
    assert "they evaluated fd, recall" in capsys.readouterr().out
    sweeping.sweep("f.py", [], ["config.a=2"], folder, command=program)
    assert read_csv(folder)[0]["fd"] == "2"
    (folder / "sweep.json").write_text('{"config": ')
    with pytest.raises(UserError, match="sweep.json: cannot be read as a JSON object; bring it back or delete it"):
        sweeping.sweep("f.py", [], ["config.a=2"], folder, command=program)


def test_values_of_unlike_protocols_are_marked(tmp_path):
    """In the message of every row that was measured otherwise than the best one."""
    lines = {"a": {"value": 3.0, "samples": 50}, "b": {"value": 1.0, "samples": 50, "seed": 7},
             "c": {"value": 2.0, "samples": 20, "split": "test"}}
    for name, line in lines.items():
        (tmp_path / name).mkdir()
        row = {"metric": "fid50k_full", "better": "lower", "split": "train", **line}
        (tmp_path / name / "evaluations.jsonl").write_text(json.dumps(row) + "\n")
    rows, metric = sweeping.collect(tmp_path, {name: {"config.a": name} for name in lines}, "")
    assert metric == "fid50k_full" and [row.run for row in rows] == ["b", "c", "a"]
    assert [row.message for row in rows] == ["", "not comparable: split test, not train, samples 20, not 50", ""]


def test_runs_are_not_ranked_by_what_has_no_order(tmp_path, capsys):
    """Before anything runs, or where such a value was recorded."""
    assert cli.main(["sweep", "--metric=sharpness", "--sweep=config.seed=1,2", f"--workdir={tmp_path / 'new'}"]) == 2
    assert "sharpness: it is the better the nearer the reals" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    (tmp_path / "a").mkdir()
    row = {"metric": "sharpness", "better": "nearer the reals", "value": 2.0}
    (tmp_path / "a" / "evaluations.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError, match="--metric=sharpness: it is the better the nearer the reals; name another one"):
        sweeping.collect(tmp_path, {"a": {"config.a": "1"}}, "")


def test_jobs_run_at_the_same_time(program, tmp_path):
    folder = tmp_path / "sweep"
    assert sweeping.sweep("f.py", [], ["config.a=meet", "config.b=1,2"], folder, jobs=2, command=program) == 0


def test_trials_are_runs_of_one_process_wherever_the_sweep_was_started(tmp_path, monkeypatch):
    """As by srun: its variables would make the trials of a step meet each other."""
    for name in ("SLURM_NTASKS", "SLURM_PROCID", "OMPI_COMM_WORLD_SIZE", "PMI_RANK", "PMIX_RANK", "TPU_WORKER_ID"):
        monkeypatch.setenv(name, "3")
    code = ("import json, os, pathlib, sys; folder = dict(flag.split('=', 1) for flag in sys.argv[2:])['--workdir']; "
            "pathlib.Path(folder, 'environment.json').write_text(json.dumps(dict(os.environ)))")  # fmt: skip
    sweeping.sweep("f.py", [], ["config.a=2"], tmp_path / "sweep", command=[sys.executable, "-c", code])
    environment = json.loads((tmp_path / "sweep" / "000-a=2" / "environment.json").read_text())
    assert environment["TPU_WORKER_ID"] == "3" and environment["PATH"] == os.environ["PATH"]
    assert not [name for name in environment if name.startswith(("SLURM_", "OMPI_", "PMI_", "PMIX_"))]


def test_a_changed_definition_is_refused(program, tmp_path):
    folder = tmp_path / "sweep"
    sweeping.sweep("f.py", [], ["config.a=2"], folder, command=program)
    with pytest.raises(
        UserError, match=r"(?s)sweeps: \['config.a=2'\] -> \['config.a=3'\].*another --workdir"
    ):
        sweeping.sweep("f.py", [], ["config.a=3"], folder, command=program)
    with pytest.raises(UserError, match="seed"):
        sweeping.sweep("f.py", [], ["config.a=2"], folder, seed=1, command=program)
    with pytest.raises(UserError, match="--jobs=0"):
        sweeping.sweep("f.py", [], ["config.a=2"], folder, jobs=0, command=program)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_stops_the_children_and_the_sweep_goes_on_later(program, tmp_path, number):
    folder = tmp_path / "sweep"
    code = (
        "import sys; from gan_jax import sweep\n"
        f"sys.exit(sweep.sweep('f.py', [], ['config.a=2,wait,3'], {str(folder)!r}, command={program!r}))"
    )
    root = pathlib.Path(__file__).resolve().parents[1]
    process = subprocess.Popen([sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, text=True)
    waiting = folder / "001-a=wait" / "waiting"
    deadline = time.monotonic() + 30
    while not waiting.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, number)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 75, output  # one run was stopped, one never began
    assert "stopped; the same command goes on from here" in output
    states = {row["a"]: row["status"] for row in read_csv(folder)}
    assert states == {"2": "done", "wait": "unfinished", "3": "unfinished"}
    assert (folder / "001-a=wait" / "sweep.log").read_text().splitlines()[-1] == "saved"  # asked once, by the sweep
    assert json.loads((folder / "001-a=wait" / "sweep_result.json").read_text())["returncode"] == 75

    (folder / "001-a=wait" / "calls.jsonl").unlink()
    pathlib.Path(program[1]).write_text(
        PROGRAM.replace('a == "wait"', "False").replace('("none",', '("none", "wait",')
    )
    assert sweeping.sweep("f.py", [], ["config.a=2,wait,3"], folder, command=program) == 0
    assert len(calls(folder)) == 3


def test_what_ends_after_a_signal_has_its_result(tmp_path, monkeypatch):
    """One run completes although it was asked to stop, one saves; a third never began."""
    wait = ("import pathlib, signal, sys, time\nstop = []\nsignal.signal(signal.SIGINT, lambda *_: stop.append(1))\n"
            "pathlib.Path(sys.argv[1]).touch()\nwhile not stop: time.sleep(0.01)\nsys.exit(int(sys.argv[2]))")
    pending = [(tmp_path / str(code), [sys.executable, "-c", wait, str(tmp_path / f"begun{code}"), str(code)])
               for code in (0, 75, 1)]  # fmt: skip
    ends = []

    def watch(running):
        if all((tmp_path / f"begun{code}").exists() for code in (0, 75)) and not ends:
            ends.append("asked")
            signal.raise_signal(signal.SIGTERM)

    assert sweeping.run_all(iter(pending), 2, watch, lambda child: ends.append(child.folder.name)) == [signal.SIGTERM]
    assert ends == ["asked", "0", "75"]
    states = [sweeping.status(tmp_path / name) for name in ("0", "75", "1")]
    assert states == ["done", "unfinished", "unfinished"] and not (tmp_path / "1").exists()
