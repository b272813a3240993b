"""Orbax checkpoints of State, each with the data position and a digest by which a damaged one is known."""

import contextlib
import json
import math
import os
import pathlib
import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax

from gan_jax import digests
from gan_jax.errors import DivergedError, MissingPathError, UserError

EVALUATION = "evaluation.json"  # within a checkpoint: what was measured of it, once it was saved


class Restored(NamedTuple):
    """What `restore_newest` found."""

    state: Any
    run: dict  # what was saved beside the state: position, the data's fingerprint, the digest
    step: int
    broken: tuple[str, ...]  # one line for each newer checkpoint that could not be read


def open_manager(
    folder: os.PathLike | str,
    *,
    keep: int = 2,
    metric: str = "",
    lower_is_better: bool = True,
    read_only: bool = False,
    failed: Callable[[Exception], None] | None = None,
):
    """An Orbax CheckpointManager: asynchronous, atomic, keeps the `keep` newest and the best by its metric.

    Args:
      folder: the run's `checkpoints` folder.
      keep: newest checkpoints to keep.
      metric: name of the value by which the best is kept; values saved under another name do not count.
      lower_is_better: its order.
      read_only: for commands that only restore.
      failed: is told of a save that fails in the background, while the other processes of the run wait for it.
    Raises:
      UserError: `keep` below 1, or a folder that cannot be made.
      MissingPathError: read-only, and there is no such folder.
    """
    import orbax.checkpoint as ocp
    from orbax.checkpoint import checkpoint_managers as policies

    folder = pathlib.Path(folder).absolute()
    if keep < 1:
        raise UserError(f"config.checkpoints.keep={keep}: expected 1 or more")
    if read_only and not folder.is_dir():
        raise MissingPathError(f"{folder.parent}: no checkpoints here; give the --workdir of a run that has trained")
    to_keep = [policies.LatestN(n=keep), _Best(folder, metric, lower_is_better)]
    options = ocp.CheckpointManagerOptions(
        preservation_policy=policies.AnyPreservationPolicy(to_keep),
        cleanup_tmp_directories=not read_only,
        read_only=read_only,
        create=not read_only,
    )
    if not read_only:
        _mute_late_writers()
    try:
        if not read_only:
            folder.mkdir(parents=True, exist_ok=True)
        manager = ocp.CheckpointManager(folder, options=options, item_names=("state", "run"))
    except OSError as error:
        raise UserError(f"{folder}: checkpoints cannot be kept here: {_first_line(error)}") from error
    if failed is not None and jax.process_count() > 1:
        _tell_of_failures(manager, failed)
    return manager


def _tell_of_failures(manager, failed: Callable[[Exception], None]) -> None:
    """Tells of a save that fails in the background before its thread waits for the other processes.

    Orbax (0.12) raises such an error only after a barrier at which the others never arrive.
    """
    wait = getattr(manager, "_wait_for_checkpointers", None)  # not Orbax's to promise: without it nothing is told early
    if wait is None:
        return

    def wait_and_tell():
        try:
            wait()
        except Exception as error:
            failed(_unwritten(manager, f"the checkpoint of step {_newest(manager)}", error))
            raise

    manager._wait_for_checkpointers = wait_and_tell


def _newest(manager) -> int | None:
    """The newest step that was saved, or is being saved."""
    return max(manager.all_steps(), default=None)


class _Best:
    """Preserves the checkpoint with the best metric; the newest of equals.

    The metric is read from what `attach` wrote, or from what was saved beside the state, where earlier versions had
    it. Orbax keeps its own in a file that, once damaged, keeps it from opening the whole folder.
    """

    def __init__(self, folder: pathlib.Path, metric: str, lower_is_better: bool):
        self.folder, self.metric, self.sign = folder, metric, -1 if lower_is_better else 1

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        """Orbax's question about all checkpoints of the folder, oldest first."""
        best, _ = self.of(info.step for info in checkpoints) or (None, None)
        return [info.step == best for info in checkpoints]

    def of(self, steps: Iterable[int]) -> tuple[int, float] | None:
        """The best of these steps and its metric; None where none has it."""
        metrics = {step: metric for step in steps if (metric := self._metric(step)) is not None}
        best = max(metrics, key=lambda step: (self.sign * metrics[step], step), default=None)
        return None if best is None else (best, metrics[best])

    def _metric(self, step: int) -> float | None:
        for place in (EVALUATION, "run/metadata"):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, IndexError, RecursionError):
                metric = json.loads((self.folder / str(step) / place).read_bytes())["metric"]
                if metric[0] == self.metric and math.isfinite(metric[1]):
                    return float(metric[1])
        return None


def best(manager, metric: str, lower_is_better: bool = True) -> tuple[int, float] | None:
    """The saved step with the best value of a metric, and that value; None where none has it. See `open_manager`."""
    return _Best(pathlib.Path(manager.directory), metric, lower_is_better).of(manager.all_steps())


def save(manager, state, run: dict) -> None:
    """Starts saving in the background; a step that is already saved is left alone.

    Args:
      manager: from `open_manager`.
      state: State on the devices; it may be donated as soon as this returns.
      run: JSON values to keep beside it.
    Raises:
      DivergedError: an array of the state holds NaN or infinity; nothing is saved.
      UserError: this save or an earlier one could not be written (a full disk, a lost folder).
    """
    import orbax.checkpoint as ocp

    step = int(state.step)
    if step in manager.all_steps():
        return
    seal, poisoned = digests.seal(state, run)
    if poisoned:
        raise DivergedError(
            f"step {step}: {poisoned[0]} is NaN or infinite, and {len(poisoned) - 1} more arrays of the state; "
            "it is not saved, the last good checkpoint is kept"
        )
    args = ocp.args.Composite(state=ocp.args.StandardSave(state), run=ocp.args.JsonSave({**run, "digest": seal}))
    what = f"the checkpoint of step {step}"
    _writing(manager, what, lambda: manager.save(step, args=args, force=True))


def attach(manager, step: int, rows: list[dict], metric: tuple[str, float] | None) -> None:
    """Waits for a step's save, and puts what was measured of it into its folder, whole or not at all.

    A former best one goes with the next save.

    Args:
      manager: from `open_manager`; all processes call this.
      step: the newest that `save` began with.
      rows: what `evaluation` gives back, JSON values.
      metric: name and value by which the best checkpoint is kept, where there is one.
    Raises:
      UserError: the save or the file could not be written.
    """
    _writing(manager, f"the checkpoint of step {step}", manager.wait_until_finished)
    file = pathlib.Path(manager.directory) / str(step) / EVALUATION
    content = {"metric": metric and list(metric), "rows": rows}
    part = file.with_name(f".{file.name}.part")

    def write():
        part.write_text(json.dumps(content), encoding="utf-8")
        os.replace(part, file)

    if jax.process_index() == 0:
        _writing(manager, f"the evaluation of step {step}", write)


def evaluation(manager, step: int) -> list[dict] | None:
    """The rows that `attach` put beside a step; None where there are none that can be read."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        rows = json.loads((pathlib.Path(manager.directory) / str(step) / EVALUATION).read_bytes())["rows"]
        if isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
            return rows
    return None


@contextlib.contextmanager
def closing(manager):
    """Waits for the background save at the end of the block, even where the block fails.

    Raises:
      UserError: the block went well and the save did not.
    """
    try:
        yield
    except BaseException:
        with contextlib.suppress(Exception):  # the block's own error is the one to tell
            manager.wait_until_finished()
        raise
    _writing(manager, "the last checkpoint", manager.wait_until_finished)
    manager.close()


def _writing(manager, what: str, action: Callable) -> None:
    before, is_of_before = _newest(manager), True
    try:
        manager.check_for_errors()
        is_of_before = False
        action()
    except Exception as error:  # Orbax and TensorStore raise many kinds for one cause: the storage
        if before is not None and (is_of_before or before not in manager.all_steps()):  # where its save has failed
            what = f"the checkpoint of step {before}"
        raise _unwritten(manager, what, error) from error


def _unwritten(manager, what: str, error: Exception) -> UserError:
    newest = newest_complete(manager)
    last = "no checkpoint is complete yet" if newest is None else f"the checkpoint of step {newest} is complete"
    advice = "Make room (or mend the folder) and run the same command again"
    if any(isinstance(one, jax.errors.JaxRuntimeError) for one in (error, error.__cause__)):  # not the storage
        last, advice = f"the processes could not end it together; {last}", "Run the same command again"
    message = UserError(f"{manager.directory}: {what} could not be written: {_first_line(error)}; {last}. {advice}")
    message.__cause__ = error
    return message


def newest_complete(manager) -> int | None:
    """The newest step whose checkpoint is whole on the disk; None where there is none."""
    with contextlib.suppress(OSError):
        names = [path.name for path in pathlib.Path(manager.directory).iterdir()]
        return max((int(name) for name in names if name.isdigit()), default=None)
    return None


def restore(manager, step: int, abstract_state) -> tuple[Any, dict]:
    """State and its companions of one step, put where `abstract_state` says.

    Args:
      manager: from `open_manager`.
      step: a saved step.
      abstract_state: State of ShapeDtypeStruct with shardings; the number of devices may differ from the saving run's.
    Raises:
      UserError: no such step, or a checkpoint that cannot be read or is damaged.
    """
    import orbax.checkpoint as ocp

    if step not in manager.all_steps():
        raise UserError(f"{manager.directory}: no checkpoint of step {step}; there are {_listing(manager)}")
    try:
        args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract_state), run=ocp.args.JsonRestore())
        with _no_echoes():
            loaded = manager.restore(step, args=args)
        run = {key: value for key, value in loaded.run.items() if key != "digest"}
        if digests.digest(loaded.state, run) != loaded.run.get("digest"):
            raise ValueError("its contents are not what was saved")
    except Exception as error:  # whatever a truncated or overwritten file makes the readers raise
        raise UserError(f"{manager.directory}/{step}: this checkpoint cannot be read: {_first_line(error)}") from error
    return loaded.state, loaded.run


def _mute_late_writers() -> None:
    """Keeps the array writers of a save that failed from printing a traceback each, through either hook, when they end.

    The failure itself is raised and told once; what they add is that nobody waits for them any more.
    """
    for name, value_of in (("excepthook", lambda kind, value, *rest: value), ("unraisablehook", lambda e: e.exc_value)):
        before = getattr(sys, name)
        if getattr(before, "mutes_late_writers", False):
            continue

        def hook(*args, before=before, value_of=value_of):
            if str(value_of(*args)) != "Event loop is closed":
                before(*args)

        hook.mutes_late_writers = True
        setattr(sys, name, hook)


@contextlib.contextmanager
def _no_echoes():
    """Keeps a restore that fails from printing a traceback for each array that it had begun to read.

    After a failure the filter stays, because those readers report when it suits them.
    """
    before = sys.unraisablehook

    def hook(unraisable):
        if not str(unraisable.exc_value).startswith(("Event loop is closed", "Encountered error while reading array")):
            before(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    except Exception:
        warnings.filterwarnings("ignore", message="coroutine '_read_array.* was never awaited", category=RuntimeWarning)
        raise
    sys.unraisablehook = before


def restore_newest(manager, abstract_state) -> Restored | None:
    """The newest checkpoint that can be read; None where there is none at all.

    Raises:
      UserError: there are checkpoints, and none can be read.
    """
    broken = []
    for step in sorted(manager.all_steps(), reverse=True):
        try:
            state, run = restore(manager, step, abstract_state)
        except UserError as error:
            broken.append(str(error))
            continue
        return Restored(state, run, step, tuple(broken))
    if broken:
        raise UserError(
            "\n".join(broken) + "\nNo checkpoint of this run can be read; move the folder away to start afresh"
        )
    return None


def set_aside(manager, newer_than: int) -> None:
    """Moves damaged checkpoints to `broken_checkpoints`, out of the way of those to come; deletes nothing.

    Raises:
      UserError: one cannot be moved.
    """
    folder = pathlib.Path(manager.directory)
    damaged = [folder / str(step) for step in manager.all_steps() if step > newer_than]
    for path in damaged if jax.process_index() == 0 else ():
        aside, number = folder.parent / "broken_checkpoints" / path.name, 0
        try:
            aside.parent.mkdir(exist_ok=True)
            while aside.exists():
                number += 1
                aside = aside.with_name(f"{path.name}.{number}")
            os.replace(path, aside)
        except OSError as error:
            raise UserError(f"{path}: is damaged and cannot be moved to {aside}: {error.strerror}") from error
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices("set_aside")
    manager.reload()


def _listing(manager) -> str:
    return ", ".join(str(s) for s in sorted(manager.all_steps())) or "none"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
