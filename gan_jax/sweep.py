"""Hyper-parameter sweeps: every combination is a run of its own, in its own folder, as its own process.

A sweep's folder holds `sweep.json` (its definition), one folder per combination (a run's folder with
`sweep.log`, what the run printed, and `sweep_result.json` once it ended), `sweep.csv` and `sweep.png`. The
same command again skips the combinations that are done, resumes unfinished ones and tries failed ones again.
"""

import csv
import json
import math
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NamedTuple

from gan_jax import logs, provenance, signals, sweep_flags
from gan_jax.errors import STOPPED, UserError
from gan_jax.processes import launchers

# What asks a run to save and end. A launcher may have sent it the SIGTERM that came here; a second one would end it.
REQUEST = signal.SIGINT
GRACE_SECONDS = 120.0  # a child that has not ended by itself so long after it was asked to is killed
_POLL_SECONDS = 0.1


class Row(NamedTuple):
    """One combination and what became of it."""

    run: str  # its folder within the sweep's
    values: dict[str, str]  # config key -> value
    status: str  # done, failed, pruned where an engine ended it, or unfinished where the sweep was interrupted
    metric: float | None  # last value of the chosen metric
    step: int | None  # where it was measured
    seconds: float | None  # that the last attempt took
    message: str  # last line that a failed run printed, or why its value does not compare with the first row's


def sweep(
    config_flag: str,  # value of --config: NAME|FILE.py[:variant]
    overrides: Sequence[tuple[str, str]],  # for every run: (key without `config.`, value)
    sweeps: Sequence[str],  # config.key=1,2 or config.key=log(1e-5,1e-3,5): see `sweep_flags.expand`
    workdir: str | os.PathLike,  # the sweep's folder
    jobs: int = 1,  # runs at a time
    metric: str = "",  # by which the table is sorted; empty for the first that was evaluated
    seed: int = 0,  # of random(...) and lograndom(...)
    whole: Collection[str] = (),  # keys of whole numbers, see `sweep_flags.whole_keys`
    command: Sequence[str] | None = None,  # program that takes `train` and flags; None for this project's own
) -> int:
    """Runs every combination, then prints the table of results and writes `sweep.csv` and `sweep.png`.

    A failed run does not stop the others. The signals that stop a run stop all running ones gracefully and return.

    Returns:
      The command's exit code: `STOPPED` where a signal left some combinations undone, else 1 where some failed, or 0.
    Raises:
      UserError: a sweep that cannot be read, or one that differs from the folder's `sweep.json`.
    """
    if jobs < 1:
        raise UserError(f"--jobs={jobs}: expected 1 or more runs at a time")
    flags = [f"--config.{key}={value}" for key, value in overrides]
    combinations = sweep_flags.product(sweeps, seed, whole)
    root = pathlib.Path(workdir)
    definition = {"config": config_flag, "overrides": flags, "sweeps": list(sweeps), "seed": seed}
    check_definition(root, definition, combinations)
    pending = [
        (root / run, train_command(command, config_flag, root / run, flags, values))
        for run, values in combinations.items()
        if status(root / run) != "done"
    ]
    print(f"{len(combinations)} combinations, {len(pending)} to run, {jobs} at a time", flush=True)
    run_all(pending, jobs)
    return exit_code(row.status for row in report(root, combinations, metric))


def exit_code(statuses: Iterable[str]) -> int:
    """The command's: `STOPPED` where some runs are unfinished, else 1 where some failed, or 0."""
    statuses = set(statuses)
    return STOPPED if "unfinished" in statuses else int("failed" in statuses)


def report(root: pathlib.Path, combinations: dict[str, dict[str, str]], metric: str) -> list[Row]:
    """Prints the table of results, writes `sweep.csv` and `sweep.png`, and returns the rows, see `collect`."""
    rows, metric = collect(root, combinations, metric)
    if not rows:
        return rows
    lines = table(rows, metric)
    widths = [min(max(map(len, column)), 60) for column in zip(*lines, strict=True)]
    for cells in lines:
        print("  ".join(cell[:60].ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
    with (root / "sweep.csv").open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    _plot(root / "sweep.png", rows, metric)
    return rows


def train_command(
    command: Sequence[str] | None,  # program that takes `train` and flags; None for this project's own
    config_flag: str,
    folder: pathlib.Path,  # the run's
    flags: Sequence[str],  # for every run
    values: dict[str, str],  # config key -> value, of this one
) -> list[str]:
    """The command that trains one run, or goes on with it."""
    varied = [f"--{key}={value}" for key, value in values.items()]
    return [*(command or own_command()), "train", f"--config={config_flag}", f"--workdir={folder}", *flags, *varied]


def own_command() -> list[str]:
    """`launch.py` works from any folder; the module works where the package is installed."""
    launch = pathlib.Path(__file__).resolve().parents[1] / "launch.py"
    return [sys.executable, str(launch)] if launch.exists() else [sys.executable, "-m", "gan_jax.cli"]


def check_definition(root: pathlib.Path, definition: dict[str, Any], combinations: dict) -> None:
    """Writes `sweep.json`, or compares with the one that is there. Raises UserError where that is another sweep's."""
    path = root / "sweep.json"
    if path.exists():
        stored, new = _read_json(path), {"engine": None, **definition}  # one that lists all its runs names no engine
        changed = [f"  {k}: {stored.get(k)!r} -> {v!r}" for k, v in new.items() if stored.get(k) != v]
        if changed:
            listed = "\n".join(changed)
            raise UserError(f"{path} holds another sweep:\n{listed}\nuse its flags, or another --workdir")
        return
    root.mkdir(parents=True, exist_ok=True)
    _write_json(path, {**definition, "runs": combinations})


def run_all(
    pending: Iterable[tuple[pathlib.Path, list[str]]],  # a run's folder and command; asked for when it can begin
    jobs: int,  # runs at a time
    watch: Callable[[Sequence["Child"]], None] = lambda running: None,  # called several times a second
    ended: Callable[["Child"], None] = lambda child: None,  # called when a run has written its result
) -> list[int]:
    """Runs the commands, `jobs` at a time; on a signal it stops what runs, and returns.

    Returns:
      The signals that came; none where everything has run.
    """
    stop: list[int] = []
    note = lambda number, frame: stop.append(number)  # noqa: E731
    before = {number: signal.signal(number, note) for number in signals.heeded()}
    waiting, running = iter(pending), []
    try:
        while not stop:
            while len(running) < jobs and (run := next(waiting, None)):
                running.append(Child(*run))
            if not running:
                break
            time.sleep(_POLL_SECONDS)
            watch(running)
            for child in [child for child in running if child.ended()]:
                running.remove(child)
                ended(child)
    finally:
        _stop(running, stop)
        for child in running:
            if child.process.returncode >= 0 and child.ended():  # a killed one has no result
                ended(child)
        for number, handler in before.items():
            signal.signal(number, handler)
    if stop:
        print("stopped; the same command goes on from here", flush=True)
    return stop


def _stop(running: list["Child"], stop: list[int]) -> None:
    """Asks the children to save and end; a second signal, or GRACE_SECONDS, kills them."""
    for child in running:
        if not child.pruned_at:  # which was asked already
            child.process.send_signal(REQUEST)
    deadline = time.monotonic() + GRACE_SECONDS
    while any(child.process.poll() is None for child in running):
        if len(stop) > 1 or time.monotonic() > deadline:
            for child in running:
                child.process.kill()
        time.sleep(_POLL_SECONDS)


class Child:
    """One run's process, with its output in the run's `sweep.log`."""

    def __init__(self, folder: pathlib.Path, command: list[str]):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "sweep_result.json").unlink(missing_ok=True)
        self.folder, self.start, self.log = folder, time.monotonic(), folder / "sweep.log"
        self.command, self.pruned_at = command, 0.0
        with self.log.open("ab") as log:
            self.offset = log.tell()
            # In a session of its own: Ctrl-C reaches the sweep alone, which then asks its children to end.
            streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT}
            environment = launchers.without(os.environ)  # a run of one process, wherever the sweep itself was started
            self.process = subprocess.Popen(command, start_new_session=True, env=environment, **streams)
        print(f"{folder.name}: started", flush=True)

    def prune(self) -> None:
        """Asks it to save and end, because it is not worth going on with; called again, sees that it does."""
        if not self.pruned_at:
            self.pruned_at = time.monotonic()
            self.process.send_signal(REQUEST)
            print(f"{self.folder.name}: pruned", flush=True)
        elif time.monotonic() - self.pruned_at > GRACE_SECONDS:
            self.process.kill()

    def ended(self) -> bool:
        """Whether the process has ended; its result is written then."""
        code = self.process.poll()
        if code is None:
            return False
        seconds = round(time.monotonic() - self.start, 1)
        status = {0: "done", STOPPED: "unfinished"}.get(code, "failed")
        if self.pruned_at and status != "done":
            status = "pruned"
        message = _stopped_early(self.folder) if code == STOPPED else ""
        result = {"status": status, "returncode": code, "seconds": seconds, "message": message}
        result["command"] = shlex.join(self.command)  # goes on with it
        if status == "failed":
            lines = self.log.read_bytes()[self.offset :].decode(errors="replace").strip().splitlines()
            result["message"] = "\n".join(lines[-20:]) or f"exit code {code}, and it printed nothing"
        _write_json(self.folder / "sweep_result.json", result)
        print(
            f"{self.folder.name}: {result['status']} after {seconds} s {_last_line(result)}".rstrip(),
            flush=True,
        )
        return True


def _stopped_early(folder: pathlib.Path) -> str:
    """Where a run stood that saved and ended at a signal, which is no failure."""
    config = folder / "config.json"
    if not config.exists():  # it had not begun
        return "stopped by a signal"
    total = _read_json(config).get("total_images", 0)
    images = max((row.get("images", 0) for row in logs.read_lines(folder / "metrics.jsonl")), default=0)
    return f"stopped by a signal, {images} of {total} images logged"


def _last_line(result: dict[str, Any]) -> str:
    return result.get("message", "").rpartition("\n")[2]


def collect(root: pathlib.Path, combinations: dict, metric: str) -> tuple[list[Row], str]:
    """Reads every run's result and metric.

    Returns:
      The rows, best first and those without the metric last, and the metric's name: the given one, or else
      the first that a run evaluated.
    Raises:
      UserError: values of this metric have no order.
    """
    evaluations = [line for run in combinations for line in logs.read_lines(root / run / "evaluations.jsonl")]
    names = list(dict.fromkeys(line["metric"] for line in evaluations if "metric" in line))
    metric = metric or next(iter(names), "")
    rows, lines, better = [], {}, "lower"  # as losses are
    for run, values in combinations.items():
        last, result = next(iter(measured(root / run, metric)[-1:]), {}), _result(root / run)
        better = last.get("better", better)
        lines[run] = last
        value, step, seconds = last.get("value"), last.get("step"), result.get("seconds")
        rows.append(Row(run, values, status(root / run), value, step, seconds, _last_line(result)))
    if metric and all(row.metric is None for row in rows):
        print(f"no run has the metric {metric!r}; they evaluated {', '.join(names) or 'none'}")
    if better not in ("lower", "higher"):
        raise UserError(f"--metric={metric}: it is the better the {better}; name another one, by which runs are ranked")
    sign = -1 if better == "higher" else 1
    rows = sorted(rows, key=lambda row: (not _finite(row), sign * row.metric if _finite(row) else 0))
    return [_marked(row, lines[row.run], lines[rows[0].run]) for row in rows], metric


def measured(folder: pathlib.Path, metric: str) -> list[dict[str, Any]]:
    """A run's lines of one metric in their order, each with its `value`.

    Args:
      folder: the run's.
      metric: of `evaluations.jsonl`, or where that has none such of `metrics.jsonl`; empty for the first evaluated.
    """
    evaluations = [line for line in logs.read_lines(folder / "evaluations.jsonl") if "metric" in line]
    metric = metric or next((line["metric"] for line in evaluations), "")
    lines = [line for line in evaluations if line["metric"] == metric]
    logged = [] if lines or not metric else logs.read_lines(folder / "metrics.jsonl")
    return lines or [{**line, "value": line[metric]} for line in logged if metric in line]


def _marked(row: Row, line: dict, best: dict) -> Row:
    """The row, with what forbids to compare its value with the first row's in its message."""
    unlike = provenance.unlike(line, best) if "better" in line and "better" in best else []
    if not unlike:
        return row
    return row._replace(message="; ".join([f"not comparable: {', '.join(unlike)}", *filter(None, [row.message])]))


def _finite(row: Row) -> bool:
    return is_finite(row.metric)


def is_finite(value: Any) -> bool:
    """Whether a value that was read from a run's lines can be ranked."""
    return isinstance(value, (int, float)) and math.isfinite(value)


def table(rows: Sequence[Row], metric: str) -> list[list[str]]:
    """A line of names, then a line for each row."""

    def show(value):
        return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)

    keys = [key.removeprefix("config.") for key in rows[0].values]
    lines = [[metric or "metric", "step", *keys, "status", "seconds", "run", "message"]]
    for row in rows:
        cells = (row.metric, row.step, *row.values.values(), row.status, row.seconds, row.run, row.message)
        lines.append([show(cell) for cell in cells])
    return lines


def _plot(path: pathlib.Path, rows: Sequence[Row], metric: str) -> None:
    """The metric over every swept key, one panel each; no file where there is no value."""
    measured = [row for row in rows if _finite(row)]
    if not measured:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    keys = list(measured[0].values)
    figure = Figure(figsize=(4 * len(keys), 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, key in zip(figure.subplots(1, len(keys), sharey=True, squeeze=False)[0], keys, strict=True):
        texts = [row.values[key] for row in measured]
        try:
            x = [float(text) for text in texts]
            axis.set_xscale("log" if min(x) > 0 and max(x) >= 30 * min(x) else "linear")
        except ValueError:  # no numbers: categories
            names = sorted(set(texts))
            axis.set_xticks(range(len(names)), names, rotation=30)
            x = [names.index(text) for text in texts]
        axis.plot(x, [row.metric for row in measured], "o")
        axis.set_xlabel(key.removeprefix("config."))
    figure.axes[0].set_ylabel(metric)
    figure.savefig(path, dpi=100)


def status(folder: pathlib.Path) -> str:
    """What became of a run, see `Row`."""
    return _result(folder).get("status", "unfinished")


def _result(folder: pathlib.Path) -> dict[str, Any]:
    path = folder / "sweep_result.json"
    return _read_json(path) if path.exists() else {}


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    """The object of a JSON file. Raises UserError where it is damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError("it is no object")
    except (OSError, ValueError) as error:
        way_out = "bring it back or delete it, and run the same command again"
        raise UserError(f"{path}: cannot be read as a JSON object; {way_out}") from error
    return value


def _write_json(path: pathlib.Path, value: dict[str, Any]) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value, indent=2) + "\n")
    os.replace(part, path)
