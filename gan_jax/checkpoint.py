"""Orbax checkpoints of State, each with the data position and a digest by which a damaged one is known."""

import hashlib
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from gan_jax.errors import MissingPathError, UserError


class Restored(NamedTuple):
    """What `restore_newest` found."""

    state: Any
    run: dict  # what was saved beside the state: images, the data's fingerprint, the digest
    step: int
    broken: tuple[str, ...]  # one line for each newer checkpoint that could not be read


def open_manager(folder: os.PathLike | str, *, keep: int = 2, lower_is_better: bool = True, read_only: bool = False):
    """An Orbax CheckpointManager: asynchronous, atomic, keeps the `keep` newest and the best by its metric.

    Args:
      folder: the run's `checkpoints` folder.
      keep: newest checkpoints to keep.
      lower_is_better: order of the metric named `best`.
      read_only: for commands that only restore.
    Raises:
      UserError: `keep` below 1.
      MissingPathError: read-only, and there is no such folder.
    """
    import orbax.checkpoint as ocp
    from orbax.checkpoint import checkpoint_managers as policies

    folder = pathlib.Path(folder).absolute()
    if keep < 1:
        raise UserError(f"config.checkpoints.keep={keep}: expected 1 or more")
    if read_only and not folder.is_dir():
        raise MissingPathError(f"{folder.parent}: no checkpoints in this folder; give the --workdir of a run that has trained")
    best = policies.BestN(
        get_metric_fn=lambda metrics: metrics["best"], reverse=lower_is_better, n=1, keep_checkpoints_without_metrics=False
    )
    options = ocp.CheckpointManagerOptions(
        preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(n=keep), best]),
        cleanup_tmp_directories=not read_only,
        read_only=read_only,
        create=not read_only,
    )
    return ocp.CheckpointManager(folder, options=options, item_names=("state", "run"))


def save(manager, state, run: dict, metric: float | None = None) -> None:
    """Starts saving in the background; a step that is already saved is left alone.

    Args:
      manager: from `open_manager`.
      state: State on the devices; it may be donated as soon as this returns.
      run: JSON values to keep beside it.
      metric: the value by which the best checkpoint is kept, where one was measured.
    Raises:
      UserError: this save or an earlier one could not be written (a full disk, a lost folder).
    """
    import orbax.checkpoint as ocp

    step = int(state.step)
    if step in manager.all_steps():
        return
    args = ocp.args.Composite(
        state=ocp.args.StandardSave(state), run=ocp.args.JsonSave({**run, "digest": digest(state)})
    )
    metrics = None if metric is None else {"best": float(metric)}
    _writing(manager, f"the checkpoint of step {step}", lambda: manager.save(step, args=args, metrics=metrics, force=True))


def finish(manager) -> None:
    """Waits for the background save. Raises UserError where it failed."""
    _writing(manager, "the last checkpoint", manager.wait_until_finished)


def _writing(manager, what: str, action: Callable) -> None:
    try:
        manager.check_for_errors()
        action()
    except Exception as error:  # Orbax and TensorStore raise many kinds for one cause: the storage
        kept = max((s for s in _complete_steps(manager)), default=None)
        last = "no checkpoint is complete yet" if kept is None else f"the checkpoint of step {kept} is complete"
        raise UserError(
            f"{manager.directory}: {what} could not be written: {_first_line(error)}; {last}. "
            "Make room (or mend the folder) and run the same command again"
        ) from error


def _complete_steps(manager) -> list[int]:
    return [int(p.name) for p in pathlib.Path(manager.directory).iterdir() if p.name.isdigit()]


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
        loaded = manager.restore(step, args=args)
        if digest(loaded.state) != loaded.run["digest"]:
            raise ValueError("its arrays are not those that were saved")
    except Exception as error:  # whatever a truncated or overwritten file makes the readers raise
        raise UserError(f"{manager.directory}/{step}: this checkpoint cannot be read: {_first_line(error)}") from error
    return loaded.state, loaded.run


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
    """Moves damaged checkpoints out of the way of the ones that the resumed run will write; deletes nothing."""
    folder = pathlib.Path(manager.directory)
    for step in [s for s in manager.all_steps() if s > newer_than]:
        if jax.process_index() == 0:
            target = folder.parent / "broken_checkpoints" / str(step)
            target.parent.mkdir(exist_ok=True)
            if target.exists():
                shutil.rmtree(target)
            os.replace(folder / str(step), target)
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices("set_aside")
    manager.reload()


def digest(state) -> str:
    """SHA-256 over shapes, types and bytes of every array, read from this process's first copy of each."""
    sha = hashlib.sha256()
    arrays = jax.device_get(jax.tree.map(lambda x: x.addressable_data(0), state))
    for path, array in jax.tree_util.tree_leaves_with_path(arrays):
        array = np.ascontiguousarray(array)
        sha.update(f"{jax.tree_util.keystr(path)} {array.shape} {array.dtype}".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()


def _listing(manager) -> str:
    return ", ".join(str(s) for s in sorted(manager.all_steps())) or "none"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
