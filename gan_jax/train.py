"""The loop: data, players, State, restore, stages, steps; log, save, sample, evaluate."""

import contextlib
import itertools
import pathlib
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from gan_jax import (
    checkpoint,
    evaluate,
    flat,
    folders,
    games,
    images,
    initial,
    loggers,
    logs,
    output,
    overview,
    painter,
    parallel,
    programs,
    run_data,
    runs,
    sample,
    signals,
    trace,
)
from gan_jax import config as configs
from gan_jax import step as steps
from gan_jax.errors import Stopped
from gan_jax.processes import peers

REALS = "reals.png"  # in the run's `samples`


@output.lasting(patient=True)
def train(
    config: ConfigDict, workdir: str, *, dry_run: bool = False, profile: str = "",
    stop: signals.Stop | None = None, watch: peers.Watch | None = None,
) -> bool:
    """Trains a run from its config, or goes on where the folder's run stood, whether anybody reads its lines or not.

    Args:
      config: a locked experiment config.
      workdir: the run's folder.
      dry_run: print what would be trained, and return.
      profile: folder for a trace of a cycle of steps, or empty for none.
      stop: takes the signals already, and knows the processes; None: they are taken where training begins.
      watch: of the processes of the run, which is told where the run stands.
    Returns:
      True where the run is complete, False where a signal stopped it early; its state is saved either way.
    Raises:
      UserError: a mistake in config, data or folder, or a disk that does not take a file.
      DivergedError: a loss or gradient is not finite; the last good checkpoint is kept.
    """
    if stop is None:
        stop = signals.Stop()
        stop.among(jax.process_count())
    # Devices, data, players.
    mesh = parallel.make_mesh()
    _now("opening the data")
    dataset = parallel.together(lambda: run_data.open_data(config))
    run = runs.build(config, run_data.data_spec(config, dataset))
    evaluate.wanted(config)
    makers = parallel.together(lambda: loggers.find(config.logs if jax.process_index() == 0 else ()))
    stages = _stages(run)
    for stage in stages:
        parallel.check_batch_size(stage.batch_size, config.accumulate, mesh)
        parallel.check_groups(games.groups(run.game, config, run.nets), stage.batch_size, config.accumulate, mesh)
    calls = parallel.together(lambda: programs.prepare(run, dataset, mesh))
    if dry_run:
        print(overview.describe(runs.build(config, run.spec, stages[-1]), mesh, dataset, calls))
        return True

    traced = parallel.together(lambda: trace.Trace(profile))
    stop.note()  # what is open from here on is to be closed
    with contextlib.closing(parallel.together(lambda: folders.hold(workdir))):
        return _in_folder(workdir, run, stages, mesh, dataset, calls, traced, makers, stop, watch or peers.Watch())


def _in_folder(workdir, run, stages, mesh, dataset, calls, traced, makers, stop, watch) -> bool:
    """The part of `train` that writes; the folder is this process's alone."""
    config = run.config
    _now("making or restoring the networks")
    # The run's folder and State: newest checkpoint first, then position of the data, then the logs cut to that step.
    folder = parallel.together(lambda: folders.start_folder(workdir, config, run.spec, dataset.summary(), dataset))
    abstract = runs.abstract_state(run, mesh)
    ranking = evaluate.ranking(config)
    keep = config.checkpoints.keep
    manager = checkpoint.open_manager(folder / "checkpoints", keep=keep, failed=watch.fail, **ranking)
    watch.saved = partial(checkpoint.newest_complete, manager)
    if not (manager.all_steps() or config.transfer.workdir or config.transfer.state):  # the compiler works meanwhile
        _begin_to_compile(run, calls, dataset, runs.packed_shapes(run, abstract, mesh), Position(0, 0))
    state, position, averages, due = _begin(run, abstract, mesh, manager, folder, dataset)
    _now("loading what the metrics need")
    draw = painter.sampler(run, whole=bool(runs.sources(run)))
    given = parallel.together(lambda: sample.grid_given(run))
    measure = evaluate.measurer(run, check=stop.check)
    named = jax.jit(flat.unpack, out_shardings=parallel.replicated(mesh))
    log = _log(makers, folder, config, position, due)
    session = _Session(
        run, mesh, dataset, manager, log, averages, folder, draw, given,
        measure, ranking["metric"], calls, traced, named, stop, watch,
    )  # fmt: skip

    # Stages and steps.
    with stop, contextlib.closing(log), checkpoint.closing(manager), contextlib.closing(traced):
        log.say(_headline(run, mesh, dataset, position, state))
        if not (folder / "samples" / REALS).exists():
            _draw_reals(session)
        halted = stop() or not _sample_and_evaluate(session, state, position, due)  # what an earlier attempt left
        log.restart_clock(position.images)
        for begin, stage in zip(games.begins(stages), stages, strict=True):
            if halted or position.images >= stage.end_images:
                continue
            session = session._replace(run=runs.build(config, run.spec, stage))
            if 0 < position.images == begin:
                state = _with_fresh_optimizers(session, state)
            state, position, halted = _play(session, state, position)
        complete = position.images >= config.total_images and not halted
        log.outcome = "complete" if complete else "stopped"
    end = f"at {position.images} images, step {position.step}: {folder}"
    log.say(f"complete {end}" if complete else f"stopped {end}; the same command goes on from here")
    return complete


class Position(NamedTuple):
    """Where a run stands, known to the host without asking the device."""

    step: int
    images: int  # also the position in the stream of samples


def _log(makers: dict, folder: pathlib.Path, config: ConfigDict, position: Position, due: tuple) -> logs.Log:
    """The run's files and other loggers, of the first process alone; a complete run has nothing to tell the others."""
    active, is_complete = jax.process_index() == 0, position.images >= config.total_images and not due
    settings = dict(configs.flatten(config))
    others = parallel.together(lambda: loggers.begin({} if is_complete else makers, folder, settings))
    length = {"total_images": config.total_images, "images": position.images, "is_complete": is_complete}
    return logs.Log(folder, **length, active=active, others=others)


class _Session(NamedTuple):
    """What one call of `train` carries through its stages."""

    run: runs.Run
    mesh: Any
    dataset: Any
    manager: Any
    log: logs.Log
    averages: logs.Averages
    folder: pathlib.Path
    draw: painter.Draw  # of the grid
    given: dict[str, np.ndarray]  # to it, see `sample.grid_given`
    measure: evaluate.Measure
    metric: str  # by which the best checkpoint is kept; empty for none
    programs: programs.Programs
    trace: trace.Trace
    named: Callable  # what the steps keep as one vector a net -> named arrays
    stop: signals.Stop
    watch: peers.Watch


def _stages(run: runs.Run) -> list[games.Stage]:
    """The game's stages, none of which ends after the run."""
    stages = games.stages(run.game, run.config, run.spec)
    return [stage._replace(end_images=min(stage.end_images, run.config.total_images)) for stage in stages]


def _begin(run, abstract, mesh, manager, folder, dataset) -> tuple[steps.State, Position, logs.Averages, tuple]:
    """A fresh State, or the newest readable checkpoint's, as the steps keep it, with what belongs to it.

    The last is what was due at the checkpoint and has not come to be, see `_sample_and_evaluate`.
    """
    restored = checkpoint.restore_newest(manager, abstract)
    if restored is None:
        if jax.process_index() == 0:
            logs.drop_lines_after(folder / "metrics.jsonl", -1)
            logs.drop_lines_after(folder / "evaluations.jsonl", -1)
        transfer = run.config.transfer
        if not transfer.state:
            fresh = runs.fresh_state(run)
            if not transfer.workdir:
                return parallel.replicate(runs.pack(run, fresh, mesh), mesh), Position(0, 0), logs.Averages(), ()
            state, message = folders.transfer(run, parallel.replicate(fresh, mesh), transfer.workdir, mesh)
            print(message, flush=True)
            return _packed(run, mesh, state), Position(0, 0), logs.Averages(), ()
        restored = folders.branch(run, transfer.state, mesh, manager, dataset.fingerprint)
    for line in restored.broken:
        print(f"{line}; going on from step {restored.step}", flush=True)
    if not folders.is_same_data(folder, restored.run["data"], dataset.fingerprint):
        raise folders.changed_data(folder, dataset, restored.run["data"])
    if restored.broken:
        checkpoint.set_aside(manager, restored.step)
    if jax.process_index() == 0:
        logs.drop_lines_after(folder / "metrics.jsonl", restored.step)
        logs.drop_lines_after(folder / "evaluations.jsonl", restored.step)
        logs.add_missing(folder / "evaluations.jsonl", checkpoint.evaluation(manager, restored.step) or [])
    state, saved = _packed(run, mesh, restored.state), restored.run
    position = Position(restored.step, saved["position"])
    due = _left(run, manager, folder, position, saved.get("due", ()))
    return state, position, logs.Averages(saved["sums"]), due


def _left(run, manager, folder: pathlib.Path, position: Position, due: tuple) -> tuple[str, ...]:
    """What of `due` an earlier attempt did not come to, as the first process finds it."""
    has = {
        "sample": (folder / "samples" / _fakes(position)).exists(),
        "evaluate": checkpoint.evaluation(manager, position.step) is not None or not evaluate.wanted(run.config),
    }
    is_left = np.array([name in due and not has[name] for name in has])
    is_left = parallel.from_first_process(is_left, is_left.shape, is_left.dtype)
    return tuple(itertools.compress(has, is_left))


def _packed(run, mesh, state: steps.State) -> steps.State:
    """The State as the steps keep it; the one with named arrays is given up."""
    return jax.jit(partial(runs.pack, run, mesh=mesh), out_shardings=parallel.replicated(mesh), donate_argnums=0)(state)


def _with_fresh_optimizers(session: _Session, state: steps.State) -> steps.State:
    run = session.run
    opt = initial.evaluate(lambda: steps.init_optimizers(run.all_phases, run.optimizers, jax.device_get(state.params)))
    return state._replace(opt=parallel.replicate(opt, session.mesh))


def _play(session: _Session, state, position: Position):
    """Steps of the run's stage: the state, the position, and whether a signal halted them."""
    run, stage, calls = session.run, session.run.stage, session.programs
    end, total = stage.end_images, run.config.total_images
    compiling = _begin_to_compile(run, calls, session.dataset, programs.shapes(state), position)
    session.log.leave_out(compiling.wait(session.log.say))
    stream, halt = calls.stream(run, session.dataset, position.images), session.stop()
    if halt:  # it came while the programs were compiled
        _milestones(session, state, position, position, False, halt)
    _now("training")
    with contextlib.closing(stream):
        while position.images < end and not halt:
            count = programs.length(run, position.step, position.images, end)
            batch = calls.put(run, [next(stream) for _ in range(count)])
            played, began = len(calls.calls), time.monotonic()
            with session.trace.step(position.step):
                state, metrics = calls.of(run, position.step, count)(state, batch)
            first = len(calls.calls) > played  # of its kind: it fetches its programs, or compiles what was not foreseen
            if first:
                session.log.leave_out(time.monotonic() - began)
            before = position
            position = Position(before.step + count, before.images + count * stage.batch_size)
            session.watch.step = position.step
            session.log.leave_out(session.trace.advance(run.phases, metrics, first, count))
            session.averages.add(before.step + 1, metrics)
            session.log.advance(position.images)
            last = position.images >= total
            halt = not _milestones(session, state, before, position, last, session.stop() and not last)
    return state, position, halt


def _begin_to_compile(run, calls, dataset, shapes: steps.State, position: Position) -> programs.Compiling:
    """Begins with the programs of the calls to come in the run's stage, side by side."""
    keys = programs.ahead(calls, run, position.step, position.images, run.stage.end_images)
    return calls.compile_ahead(run, keys, shapes, programs.example(run, dataset))


def _milestones(session: _Session, state, before: Position, now: Position, last: bool, halt: bool) -> bool:
    """What is due at this image count: log, save, sample, evaluate. Only these wait for the device.

    All that may take long comes after the save. A run that is halted before its end only logs and saves: resumed, it
    does what is left, and writes what it would have written uninterrupted. Returns whether the run goes on.
    """
    log, every = session.log, session.run.config.every
    reached = programs.MILESTONES if last else programs.milestones(every, before.images, now.images)
    if not (reached or halt):
        return True
    session.averages.settle()
    if "log" in reached:
        log.scalars(now.step, now.images, session.averages.take())
    due = tuple(name for name in ("sample", "evaluate") if name in reached)
    if "checkpoint" in reached or halt or ("evaluate" in reached and session.metric):
        _save(session, state, now, due)
    goes_on = not halt and _sample_and_evaluate(session, state, now, due)
    _now("")  # lines come at their intervals from here on
    log.restart_clock(now.images)
    return goes_on


def _save(session: _Session, state, now: Position, due: tuple) -> None:
    """Begins to save the State, and what is still due at it."""
    if now.step in (0, *session.manager.all_steps()):  # nothing is new
        return
    _now("saving a checkpoint")
    companions = {"position": now.images, "data": session.dataset.fingerprint, "sums": session.averages.sums()}
    checkpoint.save(session.manager, session.named(state), {**companions, "due": due})


def _sample_and_evaluate(session: _Session, state, now: Position, due: tuple) -> bool:
    """What is `due` of the two, of a State that is saved; False where a signal cut it short."""
    if "sample" in due:
        _now("drawing samples")
        _draw_fakes(session, state, now)
    if "evaluate" in due:
        _now("measuring")
        try:
            _evaluate(session, state, now)
        except Stopped:
            return False
    return True


def _now(doing: str) -> None:
    if jax.process_index() == 0:
        output.doing(doing)


def _evaluate(session: _Session, state, now: Position) -> None:
    """Measures, keeps the values beside the checkpoint, by which the best is known, and tells them."""
    last = now.images >= session.run.config.total_images
    rows = session.measure(session.named(state.ema), step=now.step, images=now.images, baselines=last)
    session.log.say(evaluate.table(rows))
    if rows:
        value = rows[0]["value"]
        checkpoint.attach(session.manager, now.step, rows, None if value is None else (session.metric, value))
    session.log.evaluation(now.step, now.images, rows)


def _draw_reals(session: _Session) -> None:
    if not session.log.active:
        return
    dataset, run = session.dataset, session.run
    count = run.config.grid
    size = dataset.size or count
    examples = dataset.examples(np.linspace(0, size - 1, min(count, size)).astype(np.int64))
    reals = sample.reals_of(run, examples)
    _save_grid(session, "reals", 0, sample.grid_of(reals), REALS)


def _draw_fakes(session: _Session, state, now: Position) -> None:
    run, given = session.run, session.given
    fakes = sample.fixed_grid(run, session.draw, session.named(state.ema), given)
    _save_grid(session, "fakes", now.images, sample.grid(run, fakes, given), _fakes(now))


def _fakes(now: Position) -> str:
    return f"fakes_{now.images:09}.png"


def _save_grid(session: _Session, name: str, seen: int, grid: images.Grid, file: str) -> None:
    if not session.log.active:
        return
    path = session.folder / "samples" / file
    try:
        path.parent.mkdir(exist_ok=True)
        images.save_grid(path, grid)
    except OSError as error:
        raise logs.unwritable(path, error) from error
    session.log.picture(name, seen, grid.picture, grid.gif)


def _headline(run, mesh, dataset, position: Position, state) -> str:
    counts = ", ".join(f"{net} {sum(x.size for x in jax.tree.leaves(p)):,}" for net, p in state.params.items())
    begin = f"resumed at {position.images} images, step {position.step}" if position.step else "new run"
    notes = "".join(f"\ndata: {note}" for note in dataset.notes)
    return (
        f"{begin}: {run.config.game} on {dataset.name} {runs.drawn(run).shape}, "
        f"{dataset.contents}; "
        f"{counts} parameters; {mesh.size} {jax.devices()[0].platform} device(s), batch {run.config.batch_size}{notes}"
    )
