"""A run's folder on disk: its config and what its data are, its checkpoints, and what another run takes over."""

import contextlib
import json
import os
import pathlib
import threading

import jax
from ml_collections import ConfigDict

from gan_jax import config as configs
from gan_jax import games, lock, paths, run_data, runs, specs
from gan_jax import step as steps
from gan_jax.errors import MissingPathError, UserError


def hold(workdir: os.PathLike | str) -> lock.Lock | contextlib.ExitStack:
    """The lock of a run's folder, for process 0; it is closed in the end.

    Raises:
      UserError: another process trains there; or the folder cannot be written.
    """
    if jax.process_index():
        return contextlib.ExitStack()
    if pathlib.Path(workdir).exists() and not pathlib.Path(workdir).is_dir():
        raise UserError(f"--workdir={workdir}: this is a file; give a folder, or a name that is free")
    try:
        return lock.take(workdir)
    except OSError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{workdir}: the run's folder cannot be written: {error.strerror or error}") from error


def start_folder(
    workdir: os.PathLike | str, config: ConfigDict, spec: specs.Spec, summary: dict, dataset=None
) -> pathlib.Path:
    """Makes the run's folder with `config.json` and `data.json`, or checks that they are this run's.

    Args:
      workdir: the folder.
      config: complete.
      spec: of the fields that the game reads.
      summary: what the data are, for `data.json`.
      dataset: the data themselves, where they are at hand: a run that has begun is checked to be of them.
    Raises:
      UserError: the folder holds a run of another config (every difference is listed) or of other data, or is no run's
        folder.
    """
    folder = pathlib.Path(workdir)
    file = folder / "config.json"
    trained = (folder / "checkpoints").exists()  # asked first: another process may make both now, this one last
    begun = any(path.name.isdigit() for path in (folder / "checkpoints").glob("*"))
    if file.is_file():
        game = games.find(config.game)
        safe = (*configs.SAFE, *getattr(game, "SAMPLE_KEYS", {}).values())
        before = read_config(file)
        changed = configs.differences(before, config, (*safe, *_places(before, config)))
        if changed and (begun or (folder / "metrics.jsonl").exists()):  # else nothing was trained: begin afresh
            raise UserError(
                f"{folder} holds a run with another config:\n  " + "\n  ".join(changed)
                + "\nResume it with its own values, or give another --workdir"
            )  # fmt: skip
        if begun and dataset is not None:
            check_data(folder, dataset)
    elif trained:
        raise UserError(f"{folder} has checkpoints and no config.json; give another --workdir")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if jax.process_index() == 0:
            _write(file, configs.to_json(config))
            if not begun or not (folder / "data.json").is_file():  # else it tells of the data that were trained on
                _write_summary(folder, {**summary, "spec": specs.to_json(spec)})
            if dataset is not None:
                threading.Thread(target=_remember_content, args=(folder, dataset), daemon=True).start()
    except OSError as error:
        raise UserError(f"{folder}: the run's folder cannot be written: {error.strerror or error}") from error
    return folder


def _places(before: ConfigDict, config: ConfigDict) -> list[str]:
    """Keys that say where data lie. Whether they are the same there, `check_data` asks."""
    old, keys = run_data.data_sections(before), []
    for part, section in run_data.data_sections(config).items():
        prefix = f"data.parts.{part}" if part else "data"
        keys += [f"{prefix}.{key}" for key in ("dir", "download", "captions_from")]
        if part in old and all(str(one.name).startswith("folder:") for one in (old[part], section)):
            keys.append(f"{prefix}.name")
    return keys


def check_data(folder: os.PathLike | str, dataset) -> None:
    """Checks that data are those of a run that has begun; where they lie, and when they were copied, does not matter.

    Raises:
      UserError: they are others.
    """
    folder = pathlib.Path(folder)
    summary = _read_summary(folder)
    recorded = summary.get("fingerprint")
    if not recorded or is_same_data(folder, recorded, dataset.fingerprint):
        return
    if summary.get("content"):
        print(f"{dataset.name}: reading all files, to see whether they are those of {folder}", flush=True)
        try:
            is_equal = dataset.content() == summary["content"]
        except OSError as error:
            raise UserError(f"{dataset.name}: cannot be read: {error}; mend it, or bring the data back") from error
        if is_equal:
            if jax.process_index() == 0:
                with contextlib.suppress(OSError):  # it is asked again next time
                    _write_summary(folder, {**summary, "copies": [*summary.get("copies", ()), dataset.fingerprint]})
            return
    raise changed_data(folder, dataset, recorded)


def changed_data(folder: pathlib.Path, dataset, recorded: str) -> UserError:
    """The error for data whose fingerprint is not the recorded one."""
    return UserError(
        f"{folder}: the data has changed since this run began ({dataset.name}: its fingerprint was {recorded[:12]}, is "
        f"{dataset.fingerprint[:12]}); bring it back, or give another --workdir"
    )


def move_data(folder: os.PathLike | str, config: ConfigDict, place: str) -> None:
    """Lets the config of a run in `folder` name the place where its data lie now, see `run_data.move_data`.

    Raises:
      UserError: there are other data, or none.
    """
    run_data.move_data(config, place)
    check_data(folder, run_data.open_data(config))


def is_same_data(folder: pathlib.Path, one: str, other: str) -> bool:
    """Whether two fingerprints are of one content: equal, or both of a set and its copies that `data.json` names."""
    summary = _read_summary(folder)
    return one == other or {one, other} <= {summary.get("fingerprint"), *summary.get("copies", ())}


def _remember_content(folder: pathlib.Path, dataset) -> None:
    """Adds to `data.json` what the files of a large set hold, so that a copy of them can be known as such."""
    try:
        if not _read_summary(folder).get("content") and (content := dataset.content()):
            if summary := _read_summary(folder):
                _write_summary(folder, {**summary, "content": content})
    except OSError:  # the run goes on without: only a copy would be another set
        return


def _read_summary(folder: pathlib.Path) -> dict:
    """`data.json`; empty where it is not there or cannot be read."""
    try:
        summary = json.loads((folder / "data.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return summary if isinstance(summary, dict) else {}


def _write_summary(folder: pathlib.Path, summary: dict) -> None:
    _write(folder / "data.json", json.dumps(summary, indent=2) + "\n")


def _write(file: pathlib.Path, text: str) -> None:
    part = file.with_name(f".{file.name}.{os.getpid()}.{threading.get_ident()}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, file)


def read_config(file: pathlib.Path) -> ConfigDict:
    """The config of a run's `config.json`; options that are younger than the run have their defaults.

    Raises:
      UserError: the file cannot be read, is no config, or has keys that nothing reads.
    """
    try:
        return configs.complete(configs.from_json(file.read_text(encoding="utf-8")), runs.defaults)
    except (OSError, ValueError, RecursionError) as error:
        message = f"{file}: cannot be read as a run's config: {error}"
        raise UserError(f"{message}; bring it back, or give another --workdir") from error


def read_folder(workdir: os.PathLike | str) -> tuple[ConfigDict, specs.Spec, dict]:
    """(config, spec, data summary) of a run that has begun.

    Raises:
      MissingPathError: no such folder, or no run in it.
      UserError: its files cannot be read.
    """
    folder = pathlib.Path(workdir)
    for path in (folder, folder / "config.json", folder / "data.json"):
        if not path.exists():
            raise MissingPathError(f"--workdir={workdir}: no {path}; give the folder of a run that has trained")
    config = read_config(folder / "config.json")
    try:
        summary = json.loads((folder / "data.json").read_text(encoding="utf-8"))
        spec = summary.pop("spec")
        return config, specs.from_json(spec), summary
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        file = folder / "data.json"
        raise UserError(f"{file}: cannot be read: {error}; delete it, and `train` writes it anew") from error


def names(summary: dict) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(names of the classes, words of the captions) as `data.json` has them of a run's data; empty where not."""
    return tuple(summary.get("classes", ())), tuple(summary.get("words", ()))


def restore(run: runs.Run, workdir: os.PathLike | str, mesh, step: int | None = None):
    """State of a trained run, the newest that can be read or that of `step`; a `checkpoint.Restored`.

    Raises:
      MissingPathError: the run has no checkpoints.
      UserError: no such step, or nothing that can be read.
    """
    from gan_jax import checkpoint

    manager = checkpoint.open_manager(pathlib.Path(workdir) / "checkpoints", read_only=True)
    abstract = runs.abstract_state(run, mesh)
    if step is not None:
        state, saved = checkpoint.restore(manager, step, abstract)
        return checkpoint.Restored(state, saved, step, ())
    restored = checkpoint.restore_newest(manager, abstract)
    if restored is None:
        raise MissingPathError(f"{workdir}: the run has no checkpoint yet; train it first")
    return restored


def best_step(workdir: os.PathLike | str, metric: str, lower_is_better: bool) -> int:
    """The step of the run's checkpoint with the best value of a metric; a line says which.

    Args:
      workdir: the run's folder.
      metric, lower_is_better: what the run ranks its checkpoints by, see `evaluate.ranking`.
    Raises:
      MissingPathError: the run has no checkpoints.
      UserError: none of them has a value of the metric, or the run has no metric.
    """
    from gan_jax import checkpoint

    manager = checkpoint.open_manager(pathlib.Path(workdir) / "checkpoints", read_only=True)
    name, steps = metric.partition(" ")[0], ", ".join(map(str, sorted(manager.all_steps()))) or "none"
    if not name:
        raise UserError(f"--step=best: {workdir} has no config.evaluation.metrics; give --step=N, there are {steps}")
    best = checkpoint.best(manager, metric, lower_is_better)
    if best is None:
        raise UserError(
            f"--step=best: no checkpoint of {workdir} has a value of {name} by the run's present settings; train with "
            f"--config.every.evaluate_images=N, which measures what it saves, or give --step=N, there are {steps}"
        )
    print(f"step {best[0]} is the best by {name}: {best[1]:.6g}", flush=True)
    return best[0]


def transfer(run: runs.Run, state: steps.State, workdir: str, mesh) -> tuple[steps.State, str]:
    """A fresh State with the parameters, collections and averages of another run, where names and shapes agree.

    Args:
      run: the new run.
      state: its fresh State on the devices.
      workdir: the other run's folder; its newest readable checkpoint counts.
      mesh: where the State lies.
    Returns:
      The State, and a line that tells what was taken over.
    Raises:
      MissingPathError, UserError: no such run, nothing readable, nothing that agrees, or an array that stays as it was
        drawn, of a network that this run does not train.
    """
    workdir = paths.expanded(workdir, "config.transfer.workdir")
    config, spec, _ = read_folder(workdir)
    restored = restore(runs.build(config, spec), workdir, mesh)
    taken, fresh = 0, []
    broken = "".join(f"{line}\n" for line in restored.broken)

    def choose(path, ours, theirs):
        nonlocal taken
        if theirs is None or theirs.shape != ours.shape:
            fresh.append(jax.tree_util.keystr(path, simple=True, separator="/"))
            return ours
        taken += 1
        return theirs

    parts = {}
    for field in ("params", "variables", "ema"):
        arrays = dict(jax.tree_util.tree_leaves_with_path(getattr(restored.state, field)))
        parts[field] = jax.tree_util.tree_map_with_path(
            lambda path, ours, arrays=arrays: choose(path, ours, arrays.get(path)), getattr(state, field)
        )
    if not taken:
        raise UserError(f"config.transfer.workdir={workdir}: no array of that run has a name and shape of this one's")
    trained = {net for phase in run.all_phases for net in phase.nets}
    if untrained := [name for name in fresh if name.partition("/")[0] not in trained]:
        raise UserError(
            f"config.transfer.workdir={workdir}: {len(untrained)} arrays of networks that this run does not train have "
            f"other names or shapes there, such as {untrained[0]}; give the settings and data of that run"
        )
    left = f"; fresh: {', '.join(fresh[:4])}{' ...' if len(fresh) > 4 else ''}" if fresh else ""
    line = f"{taken} of {taken + len(fresh)} arrays from {workdir}, step {restored.step}{left}"
    return state._replace(**parts), broken + line


def branch(run: runs.Run, workdir: str, mesh, manager, fingerprint: str):
    """The whole State of another run, saved as the first checkpoint of a new one; a `checkpoint.Restored` of it.

    So the new run begins there however often it is begun, and wherever the other one has gone on to.

    Args:
      run: the new run.
      workdir: the other run's folder; its newest readable checkpoint counts.
      mesh: where the State is to lie.
      manager: of the new run's checkpoints.
      fingerprint: of the new run's data.
    Raises:
      MissingPathError: no such run, or one without a checkpoint.
      UserError: nothing readable, arrays of other names or shapes, or a run that is as long as the new one.
    """
    from gan_jax import checkpoint

    if run.config.transfer.workdir:
        raise UserError("config.transfer.state and config.transfer.workdir are both set; leave one of them empty")
    workdir = paths.expanded(workdir, "config.transfer.state")
    flag = f"config.transfer.state={workdir}"
    config, spec, _ = read_folder(workdir)
    ours, theirs = (_shapes(one, mesh) for one in (run, runs.build(config, spec)))
    unlike = [name for name in dict.fromkeys([*ours, *theirs]) if ours.get(name) != theirs.get(name)]
    if unlike:
        name = unlike[0]
        raise UserError(
            f"{flag}: {len(unlike)} arrays of that State are not as this run's; {name} is "
            f"{theirs.get(name, 'missing')}, not {ours.get(name, 'missing')}. A State is taken over whole: give the "
            "same game, networks and optimizers, or take the networks alone, by config.transfer.workdir"
        )
    restored = restore(run, workdir, mesh)
    images, total = restored.run["position"], run.config.total_images
    if images >= total:
        raise UserError(f"{flag}: stands at {images} images, and config.total_images={total} counts them; give more")
    print(f"whole State of {workdir}, step {restored.step}", flush=True)
    saved = {**{name: restored.run[name] for name in ("position", "sums")}, "data": fingerprint}
    checkpoint.save(manager, restored.state, saved)
    for line in restored.broken:
        print(f"{workdir}: {line}", flush=True)
    return restored._replace(run=saved, broken=())


def _shapes(run: runs.Run, mesh) -> dict[str, str]:
    """Path -> shape and type of every array of a run's State."""
    leaves = jax.tree_util.tree_leaves_with_path(runs.abstract_state(run, mesh))
    return {jax.tree_util.keystr(path, simple=True, separator="/"): f"{x.dtype}{list(x.shape)}" for path, x in leaves}
