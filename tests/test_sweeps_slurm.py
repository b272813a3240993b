"""Sweeps as Slurm arrays, with small programs in place of Slurm's commands and of training."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from gan_jax import cli
from gan_jax.errors import UserError
from gan_jax.sweeps import slurm
from tests import settings

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Saves and ends with 75 at SIGINT, or at once where a is `short`; a second signal of either kind would kill it.
PROGRAM = """
import json, os, pathlib, signal, sys, time
flags = dict(flag.removeprefix("--").split("=", 1) for flag in sys.argv[2:])
folder, a = pathlib.Path(flags["workdir"]), flags["config.a"]
stop = []
signal.signal(signal.SIGINT, lambda *_: stop.append(1))
(folder / "config.json").write_text(json.dumps({"total_images": 20}))
(folder / "metrics.jsonl").open("a").write(json.dumps({"step": 1, "images": 10, "net/loss": 1}) + "\\n")
if a == "bad":
    sys.exit("it went wrong")
end = time.time() + (60 if a == "wait" else 0)
while time.time() < end and not stop:
    time.sleep(0.02)
if stop or a == "short":
    sys.exit(75)
(folder / "metrics.jsonl").open("a").write(json.dumps({"step": 2, "images": 20, "net/loss": 1}) + "\\n")
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Slurm's commands: each writes down what it was given; sbatch says a job's number, squeue the file `queue`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, answer in (("sbatch", "echo '7;cluster'"), ("squeue", f"cat {tmp_path}/queue"), ("scontrol", "true")):
        script = folder / name
        script.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/{name}.calls\n{answer}\n')
        script.chmod(0o755)
    (tmp_path / "queue").touch()
    (tmp_path / "program.py").write_text(PROGRAM)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    return tmp_path


def program(cluster):
    return [sys.executable, str(cluster / "program.py")]


def submit(cluster, **options):
    arguments = {"options": "", "command": ["launch it"], **options}
    sweeps = ["config.a=1,2,short,4,bad"]
    return slurm.submit("f.py:smoke", [("seed", "3")], sweeps, str(cluster / "a sweep"), **arguments)


def task(cluster, index):
    sweeps = ["config.a=1,2,short,4,bad"]
    return slurm.run_task(index, "f.py:smoke", [("seed", "3")], sweeps, str(cluster / "a sweep"),
                          command=program(cluster))  # fmt: skip


def lines(file):
    return file.read_text().splitlines() if file.exists() else []


def test_one_script_has_a_task_for_every_combination(cluster, capsys):
    assert submit(cluster, options='--gres=gpu:1 --comment="two words"', jobs=2) == 0
    folder = cluster / "a sweep"
    assert lines(cluster / "sbatch.calls") == [f"--parsable {folder}/sweep.sbatch"]
    script = lines(folder / "sweep.sbatch")
    assert script[0] == "#!/bin/bash"
    assert [line for line in script if "#SBATCH" in line] == [
        "#SBATCH --job-name=a_sweep", "#SBATCH --array=0-4%2", f'#SBATCH --output="{folder}/slurm_%A_%a.log"',
        "#SBATCH --open-mode=append", "#SBATCH --requeue", "#SBATCH --signal=B:USR1@180",
        '#SBATCH --gres=gpu:1 --comment="two words"']  # fmt: skip
    assert script[-1] == (
        f"cd {os.getcwd()} && exec 'launch it' sweep --config=f.py:smoke '--workdir={folder}' --config.seed=3 "
        '--sweep=config.a=1,2,short,4,bad --seed=0 --engine=slurm --task="$SLURM_ARRAY_TASK_ID"'
    )
    subprocess.run(["bash", "-n", str(folder / "sweep.sbatch")], check=True)
    assert "submitted as job 7" in capsys.readouterr().out


def test_what_is_done_or_queued_is_not_submitted_again(cluster, capsys):
    """The folders say what is done, Slurm what waits; what failed is tried again."""
    submit(cluster)
    assert task(cluster, 0) == 0 and task(cluster, 4) == 1
    (cluster / "queue").write_text("1\n3\n")
    capsys.readouterr()
    assert submit(cluster) == 0
    assert "5 combinations, 1 done, 2 queued, 2 to submit" in capsys.readouterr().out
    assert "#SBATCH --array=2,4" in lines(cluster / "a sweep" / "sweep.sbatch")
    assert lines(cluster / "squeue.calls") == ["--noheader --array --format=%K --jobs=7"]
    failed = json.loads((cluster / "a sweep" / "004-a=bad" / "sweep_result.json").read_text())
    assert failed["status"] == "failed" and failed["message"] == "it went wrong"
    (cluster / "queue").write_text("0\n1\n2\n3\n4\n")
    assert submit(cluster) == 0 and len(lines(cluster / "sbatch.calls")) == 2


def test_nothing_is_submitted_while_slurm_cannot_say_what_is_queued(cluster):
    """A job that it has forgotten is queued no more."""
    submit(cluster)
    squeue = cluster / "bin" / "squeue"
    squeue.write_text("#!/bin/sh\necho 'slurm_load_jobs error: Unable to contact slurm controller' >&2\nexit 1\n")
    with pytest.raises(UserError, match="^squeue: slurm_load_jobs error: Unable to contact"):
        submit(cluster)
    assert len(lines(cluster / "sbatch.calls")) == 1
    squeue.write_text("#!/bin/sh\necho 'slurm_load_jobs error: Invalid job id specified' >&2\nexit 1\n")
    assert submit(cluster) == 0 and len(lines(cluster / "sbatch.calls")) == 2


def test_a_task_that_is_not_complete_is_queued_again(cluster):
    """Its run was stopped by somebody else, and saved."""
    submit(cluster)
    assert task(cluster, 2) == 75
    assert lines(cluster / "scontrol.calls") == ["requeue 7_2"]
    assert task(cluster, 0) == 0 and task(cluster, 0) == 0  # the second has nothing to do
    assert len(lines(cluster / "a sweep" / "000-a=1" / "metrics.jsonl")) == 2


@pytest.mark.parametrize(("number", "calls"), [(signal.SIGUSR1, ["requeue 7_2"]), (signal.SIGTERM, [])])
def test_a_task_saves_at_slurms_signals(cluster, number, calls):
    """USR1 is the notice before the time is up. TERM says that the job is over, and may be somebody's scancel."""
    folder = cluster / "other"
    code = ("import sys; from gan_jax.sweeps import slurm\n"
            f"sys.exit(slurm.run_task(0, 'f', [], ['config.a=wait'], {str(folder)!r}, command={program(cluster)!r}))")
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    deadline = time.monotonic() + 60
    while not lines(folder / "000-a=wait" / "metrics.jsonl") and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(timeout=60) == 75 and lines(cluster / "scontrol.calls") == calls
    assert len(lines(folder / "000-a=wait" / "metrics.jsonl")) == 1


def test_mistakes(cluster, monkeypatch, capsys):
    submit(cluster)
    with pytest.raises(UserError, match="--task=5: expected 0 to 4"):
        task(cluster, 5)
    (cluster / "bin" / "sbatch").write_text("#!/bin/sh\necho 'invalid partition' >&2\nexit 1\n")
    with pytest.raises(UserError, match="^sbatch: invalid partition$"):
        submit(cluster)
    monkeypatch.setenv("PATH", "/nowhere")
    smoke = f"--config={settings.EXPERIMENTS / 'digits_dcgan.py'}:smoke"
    command = ["sweep", smoke, f"--workdir={cluster / 'new'}", "--sweep=config.seed=1,2", "--engine=slurm"]
    assert cli.main(command) == 2
    assert "error: --engine=slurm: no sbatch here; give the command where jobs are submitted" in capsys.readouterr().err
