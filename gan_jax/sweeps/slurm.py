"""Every combination of a sweep as a task of a Slurm array; what became of them is read from the runs' folders.

`submit` writes one batch script and hands it to `sbatch`. Each task is this command with `--task=INDEX`: it trains
one run and writes its result. A task that Slurm is about to end saves, goes back into the queue and exits with 75.
"""

import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Collection, Iterable, Sequence

from gan_jax import logs, sweep, sweep_flags
from gan_jax.errors import STOPPED, UserError

NOTICE_SECONDS = 180  # before the end of a task's time, at which it saves; Slurm may be a minute late
_PATIENCE_SECONDS = 60  # for an answer of Slurm's commands


def submit(
    config_flag: str,  # value of --config
    overrides: Sequence[tuple[str, str]],  # for every run: (key without `config.`, value)
    sweeps: Sequence[str],  # as of `sweep.sweep`
    workdir: str,  # the sweep's folder, which all machines see
    *,
    options: str,  # of sbatch, such as `--gres=gpu:1 --time=60`
    jobs: int = 0,  # tasks at a time; 0: as many as the queue runs
    metric: str = "",  # by which the table is sorted
    seed: int = 0,  # of random(...) and lograndom(...)
    whole: Collection[str] = (),  # keys of whole numbers
    command: Sequence[str] | None = None,  # program that takes `sweep` and flags; None for this project's own
) -> int:
    """Queues the combinations that are neither done nor queued, and prints the table of what stands.

    Returns:
      The command's exit code, 0.
    Raises:
      UserError: no sbatch, one that refuses, or a folder of another sweep.
    """
    if jobs < 0:
        raise UserError(f"--jobs={jobs}: expected 1 or more tasks at a time")
    sbatch = shutil.which("sbatch")
    if not sbatch:
        raise UserError("--engine=slurm: no sbatch here; give the command where jobs are submitted, or --engine=local")
    root, combinations = _defined(config_flag, overrides, sweeps, workdir, seed, whole)
    queued = _queued(root)
    states = {index: sweep.status(root / run) for index, run in enumerate(combinations)}
    pending = [index for index, state in states.items() if state != "done" and index not in queued]
    done = sum(state == "done" for state in states.values())
    print(f"{len(combinations)} combinations, {done} done, {len(queued)} queued, {len(pending)} to submit", flush=True)
    if pending:
        flags = [f"--config={config_flag}", f"--workdir={root}", *(f"--config.{key}={text}" for key, text in overrides)]
        flags += [*(f"--sweep={text}" for text in sweeps), f"--seed={seed}", "--engine=slurm"]
        line = shlex.join([*(command or sweep.own_command()), "sweep", *flags])
        script = root / "sweep.sbatch"
        script.write_text(_script(root, line, pending, jobs, options), encoding="utf-8")
        job = _slurm([sbatch, "--parsable", str(script)]).partition(";")[0]
        logs.append_line(root / "slurm_jobs.jsonl", {"job": job, "tasks": pending})
        print(f"submitted as job {job}; the same command tells how far it is", flush=True)
    sweep.report(root, combinations, metric)
    return 0


def run_task(
    index: int,  # of the combination
    config_flag: str,
    overrides: Sequence[tuple[str, str]],
    sweeps: Sequence[str],
    workdir: str,
    *,
    seed: int = 0,
    whole: Collection[str] = (),
    command: Sequence[str] | None = None,  # program that takes `train` and flags; None for this project's own
) -> int:
    """Trains one combination, and queues its task again where it was stopped before its end.

    Slurm gives notice by SIGUSR1. SIGTERM says that the job is over, be it cancelled or about to be queued again by
    Slurm itself: the run saves where it can, and this asks for nothing.

    Returns:
      The exit code: 0 for done, 1 for failed, STOPPED.
    Raises:
      UserError: no such combination, or a folder of another sweep.
    """
    root, combinations = _defined(config_flag, overrides, sweeps, workdir, seed, whole)
    if not 0 <= index < len(combinations):
        raise UserError(f"--task={index}: expected 0 to {len(combinations) - 1}")
    run, values = list(combinations.items())[index]
    flags = [f"--config.{key}={text}" for key, text in overrides]
    if sweep.status(root / run) == "done":
        return 0
    arguments = sweep.train_command(command, config_flag, root / run, flags, values)
    stop = sweep.run_all([(root / run, arguments)], 1)
    state = sweep.status(root / run)
    if state in ("done", "failed"):
        return 0 if state == "done" else 1
    if not stop or stop == [signal.SIGUSR1]:
        _requeue()
    return STOPPED


def _defined(config_flag, overrides, sweeps, workdir, seed, whole) -> tuple[pathlib.Path, dict[str, dict[str, str]]]:
    """The folder and its combinations, those that `sweep.sweep` runs one after another."""
    root, combinations = pathlib.Path(workdir).absolute(), sweep_flags.product(sweeps, seed, whole)
    flags = [f"--config.{key}={value}" for key, value in overrides]
    definition = {"config": config_flag, "overrides": flags, "sweeps": list(sweeps), "seed": seed}
    sweep.check_definition(root, definition, combinations)
    return root, combinations


def _script(root: pathlib.Path, line: str, tasks: Iterable[int], jobs: int, options: str) -> str:
    """The batch script: Slurm's options, ours first, and the command of one task."""
    name = re.sub(r"\W", "_", root.name)
    log = str(root / "slurm").replace("%", "%%") + "_%A_%a.log"
    limit = f"%{jobs}" if jobs else ""
    own = [f"--job-name={name}", f"--array={_places(tasks)}{limit}", f'--output="{log}"', "--open-mode=append"]
    own += ["--requeue", f"--signal=B:USR1@{NOTICE_SECONDS}"]
    listed = "\n".join(f"#SBATCH {option}" for option in (*own, " ".join(options.split("\n"))) if option)
    # `exec`: Slurm's notice reaches the batch script's own process alone, which is then the task.
    return f'#!/bin/bash\n{listed}\n\ncd {shlex.quote(os.getcwd())} && exec {line} --task="$SLURM_ARRAY_TASK_ID"\n'


def _places(tasks: Iterable[int]) -> str:
    """0,1,2,5 -> 0-2,5."""
    stretches: list[list[int]] = []
    for task in tasks:
        if stretches and stretches[-1][-1] == task - 1:
            stretches[-1][1:] = [task]
        else:
            stretches.append([task])
    return ",".join("-".join(map(str, stretch)) for stretch in stretches)


def _queued(root: pathlib.Path) -> set[int]:
    """The tasks that wait or run in jobs of this folder."""
    tasks: set[int] = set()
    squeue = shutil.which("squeue")
    for row in logs.read_lines(root / "slurm_jobs.jsonl") if squeue else ():
        try:
            text = _slurm([squeue, "--noheader", "--array", "--format=%K", f"--jobs={row['job']}"])
        except UserError as error:
            if "Invalid job id" not in str(error):  # one that Slurm has forgotten
                raise
            continue
        tasks.update(int(word) for word in text.split() if word.isdecimal())
    return tasks


def _requeue() -> None:
    """Puts this task back into the queue; without Slurm around it, or where it refuses, the exit code says the rest."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    scontrol = shutil.which("scontrol")
    if not (array and task and scontrol):
        return
    try:
        _slurm([scontrol, "requeue", f"{array}_{task}"])
    except UserError as error:
        print(f"{error}; the command that submitted it goes on with it", flush=True)


def _slurm(command: Sequence[str]) -> str:
    """What a command of Slurm's says. Raises UserError with its own words where it fails."""
    name = pathlib.Path(command[0]).name
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"{name}: {error}") from error
    if done.returncode:
        words = (done.stderr or done.stdout).strip() or f"exit code {done.returncode}"
        raise UserError(f"{name}: {words}")
    return done.stdout.strip()
