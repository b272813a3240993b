"""Measures a run's generator: one pass for all protocols, and each value with what it must be told with."""

import pathlib
import re
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax import config as configs
from gan_jax import folders, games, logs, output, painter, parallel, provenance, run_data, runs, specs
from gan_jax.errors import UserError
from gan_jax.evaluate import (
    collect,
    cycle,
    equivariance,
    judges,
    learning,
    pairs,
    plans,
    protocols,
    report,
    retrieval,
    training_set,
)
from gan_jax.evaluate import path_length as path_lengths
from gan_jax.evaluate import reals as real_side
from gan_jax.evaluate.protocols import EQUIVARIANCE
from gan_jax.features import networks
from gan_jax.metrics import mixture_quality, pixel_gaussian_samples, shuffled_frames, still_frames

Measure = Callable[..., list[dict]]


def evaluate(
    workdir: str, *, metrics: str = "", step: int | None = None, settings: Mapping[str, str] | None = None,
    save_statistics: str = "", data: str = "", append: bool = True,
) -> list[dict]:
    """Restores a run's averaged generator, measures it and appends to the run's `evaluations.jsonl`.

    Args:
      workdir: the run's folder.
      metrics: names with commas between; empty for the config's.
      step: checkpoint; None for the newest.
      settings: key of config.evaluation -> text, instead of the run's own.
      save_statistics: file to write the reals' moments to.
      data: where the run's data lie now, see `run_data.move_data`; empty where they have not moved.
      append: whether the rows go into the run's file.
    Returns:
      One row a value; see `measurer`.
    Raises:
      UserError, MissingPathError: no such run, step or metric; weights or data that are not there; a checkpoint that
        cannot be read; a folder that does not take the rows, which are printed first.
    """
    config, spec, _ = folders.read_folder(workdir)
    for key, text in (settings or {}).items():
        configs.override(config, f"evaluation.{key}", text)
    if data:
        folders.move_data(workdir, config, data)
    names = listed_names(metrics)
    listed = protocols.wanted(config, names)
    run = runs.build(config, spec)
    restored = folders.restore(run, workdir, parallel.make_mesh(), step)
    for line in restored.broken:
        print(f"{line}; using step {restored.step}", flush=True)
    images = restored.run["position"]
    print(f"step {restored.step}: measuring {', '.join(listed) or 'nothing'}", flush=True)
    output.doing("loading the networks and the reals")
    measure = measurer(run, names=names, save_statistics=save_statistics)
    output.doing("measuring")
    rows = measure(restored.state.ema, step=restored.step, images=images, baselines=True)
    try:
        for row in rows if append else ():
            logs.append_line(pathlib.Path(workdir) / "evaluations.jsonl", row)
    except UserError:
        print(report.table(rows), flush=True)
        raise
    return rows


def listed_names(metrics: str) -> tuple[str, ...] | None:
    """Names with commas between, as a tuple; None where there are none."""
    return tuple(part.strip() for part in metrics.split(",") if part.strip()) or None


def measurer(
    run: runs.Run, *, names: tuple[str, ...] | None = None, save_statistics: str = "",
    check: Callable[[], None] = lambda: None,
) -> Measure:
    """Loads the networks that the metrics need; what it returns compiles at its first call, and never again.

    Args:
      run: from `runs.build`.
      names: metrics; None for the config's.
      save_statistics: file to write the reals' moments to, see `plans.Plans.save_statistics`.
      check: called between batches, in all processes equally often; what it raises ends a measurement.
    Returns:
      (ema, *, step, images, baselines=False) -> rows with `metric`, `value`, `better` (lower or higher), `step`,
      `images` and the protocol: features and their SHA-256, preprocessing, counts, split, flips, seed, data, version
      and digest of the code. The first row is the first metric's. `step` and `images` are of the State, for the rows;
      with `baselines` come also values that tell what a distance of the digits' classifier means. All processes take
      part.
    Raises:
      UserError, MissingPathError: an unknown metric, or one that this run's data, generator or features do not allow;
        weights that are not there, or another's.
    """
    config = run.config
    listed = protocols.wanted(config, names)
    moved = tuple(name for name in listed if name in EQUIVARIANCE)
    drawn = games.drawn(run.game, config)
    alone = {protocols.CYCLE: cycle.measurer, protocols.RETRIEVAL: retrieval.measurer}  # that draw for themselves
    alone = [parallel.together(partial(make, run)) for name, make in alone.items() if name in listed]
    planned = plans.ready(
        protocols.listed_protocols(config.evaluation, listed), config.evaluation,
        shape=runs.drawn(run).shape, seed=config.seed, fit_judge=partial(judges.fitted, run, drawn, listed),
        open_reals=lambda: parallel.together(partial(real_side.open_drawn, config, config.evaluation.split)),
        targets=parallel.together(partial(_targets, run)) if set(listed) & set(protocols.PAIRED) else None,
        asked=parallel.together(partial(judges.asked, run, drawn)) if protocols.OBEYED in listed else None,
        open_training=partial(_training, run, drawn, listed), check=check,
    )
    if save_statistics and not planned:
        raise UserError(f"--save_statistics={save_statistics}: none of the metrics has moments of a network's "
                        "features; list fid50k_full, or such")
    if save_statistics:
        print(planned.save_statistics(save_statistics), flush=True)
    code = provenance.code_sha256()
    inputs = parallel.together(lambda: _inputs(run, planned, config.evaluation.samples)) if listed else None
    images_of = _Pass(run, planned, inputs) if planned else None
    points_of = painter.sampler(run) if "modes" in listed else None
    walks = {plan.protocol.name: path_lengths.measurer(run, plan.protocol, plan.net, check)
             for plan in (planned.plans if planned else ()) if plan.protocol.kind == "ppl"}

    def measure(ema: dict, *, step: int, images: int, baselines: bool = False) -> list[dict]:
        began, rows = time.monotonic(), []
        if listed:
            check()
        if points_of:
            rows += _modes(run, _points(run, points_of, inputs, ema))
        rows += [row for rows_of in alone for row in rows_of(ema)]
        if moved:
            rows += equivariance.rows(run, ema, moved, inputs.labels, check)
        if planned:
            rows += planned.measure(
                partial(images_of, ema), lambda plan: walks[plan.protocol.name](ema, inputs.labels), inputs.labels
            )
            rows += _classical(run, planned, inputs) if baselines else []
        rows = [{**row, **inputs.protocol} for row in rows]
        rows += _baselines(run, planned, images_of) if planned and baselines else []
        order = {name: i for i, name in enumerate(listed)}
        rows.sort(key=lambda row: order[row["group"]])
        noise = {"noise": "random"} if "noise" in ema.get(run.game.EMA_NETS[0], {}) else {}
        common = {"step": step, "images": images, "samples": config.evaluation.samples, "seed": config.seed, **noise}
        return report.finished([{**common, **row} for row in rows], began, code)

    return measure


class _Inputs(NamedTuple):
    """What the samples of a measurement are given: sample i the same in every metric."""

    given: Callable[[np.ndarray], dict[str, np.ndarray]]  # numbers (n,) of samples -> what the game asks for
    labels: np.ndarray | None = None  # int32, the class that each sample is to show; None where nothing says
    protocol: dict[str, str] = {}  # noqa: RUF012, never changed: what a row says of them


def _inputs(run: runs.Run, planned: plans.Plans | None, count: int) -> _Inputs:
    """Held-out examples of the data in their order; or labels drawn from those of the data, as published protocols do.

    Args:
      planned: the protocols; their reals' labels are drawn from.
      count: samples, where no protocol looks at more.
    """
    total, split = max(count, planned.samples if planned else 0), run.config.evaluation.split
    if runs.of_examples(run):
        sources = runs.sources(run)
        labels = _labels_of_sources(run, sources[0]) if sources else None
        return _Inputs(runs.held_out(run), None if labels is None else np.resize(labels, total))
    if "label" not in run.game.asks(run.config):
        return _Inputs(lambda numbers: {})
    reals = planned.reals if planned else None
    reals = reals or real_side.of(real_side.open_drawn(run.config, split))
    if reals.dataset.size:
        labels = real_side.draw_labels(reals.labels(), total, run.config.seed)
    else:  # endless data are random themselves
        labels = reals.dataset.examples(np.arange(total))["label"]
    return _Inputs(lambda numbers: runs.with_labels(run, labels[numbers]), labels, {"labels": "drawn from the data"})


def _labels_of_sources(run: runs.Run, name: str) -> np.ndarray | None:
    """Classes that pictures made of the held-out ones are to show: those of these, as where a translation keeps them.

    A classifier of other data has classes of its own: then that of the set that samples are to be like, if it has one
    class alone.
    """
    sources = run_data.open_field(run.config, name, run.config.evaluation.split)
    if run.config.evaluation.features != networks.CLASSIFIER:
        return real_side.of(sources).labels() if specs.classes(sources.spec) else None
    drawn = games.drawn(run.game, run.config)
    own = run_data.open_field(run.config, drawn, run.config.evaluation.split).class_names
    judged = judges.data_of(run, drawn, "test").class_names
    return np.int32([judged.index(own[0])]) if len(own) == 1 and own[0] in judged else None


class _Pass:
    """The pass over a run's samples: generator and networks are one program, compiled at the first call."""

    def __init__(self, run: runs.Run, planned: plans.Plans, inputs: _Inputs):
        self._run, self._planned, self._inputs = run, planned, inputs
        self._mesh = parallel.make_mesh(jax.local_devices())
        self._fixed = jax.device_put(games.sampled(run.game, run.config), parallel.replicated(self._mesh))
        self._programs: dict[tuple, tuple[Callable, int]] = {}  # by what is needed: (program, batch that fits)

    def __call__(self, ema: dict, needs: collect.Needs) -> collect.Collected:
        here = {**parallel.local_copy(ema, self._mesh), **self._fixed}
        kind = (str(needs.outputs()), bool(needs.consumers))
        if kind not in self._programs:
            program = collect.program(painter.generator(self._run), self._planned.nets, needs, self._mesh)
            nets = [self._planned.nets[name] for name in needs.outputs()]
            shape, section = runs.drawn(self._run).shape, self._run.config.evaluation
            first = real_side.first_batch(section.batch_size, nets, shape, needs.total())
            attempt = partial(self._dispatch, program, here)
            batch = collect.largest_batch(lambda count: attempt(np.zeros(count, np.int64)), first, self._mesh.size)
            self._programs[kind] = program, batch
        program, batch = self._programs[kind]
        return collect.collect(needs, partial(self._dispatch, program, here), batch, self._planned.check)

    def _dispatch(self, program: Callable, ema: dict, numbers: np.ndarray) -> dict[str, Any]:
        keys = painter.keys_from(self._run.config.seed, "evaluation", numbers)
        return program(ema, self._planned.variables, keys, self._inputs.given(numbers))


def _training(run: runs.Run, field: str, listed: tuple[str, ...], held_out) -> learning.Training:
    """The examples of a field that the run is trained on, beside a Dataset of others."""
    dataset = run_data.open_field(run.config, field)
    training = learning.Training(dataset, held_out, mirrored=dataset.flip)
    if set(listed) & set(training_set.LEARNED):
        training.check_classes()
    return training


def _targets(run: runs.Run) -> pairs.Targets:
    """What the samples of a measurement are to become, see `games`."""
    field, name = games.target(run.game, run.config), games.mask(run.game)
    dataset = run_data.open_field(run.config, field, run.config.evaluation.split)
    said, examples = real_side.of(dataset).protocol(), runs.held_out(run)
    masks = (lambda numbers: examples(numbers)[name]) if name else None
    of = dataset.examples if field in dataset.spec else examples  # else the game makes it
    return pairs.Targets(dataset.size, lambda numbers: of(numbers)[field], said, masks)


def _classical(run: runs.Run, planned: plans.Plans, inputs: _Inputs) -> list[dict]:
    """The same values of what the game's classical methods make of the same inputs, but for the shares of classes."""
    if not hasattr(run.game, "baselines"):
        return []
    methods = parallel.together(lambda: run.game.baselines(run.config, run_data.open_data(run.config)))
    planned = planned._replace(plans=tuple(plan for plan in planned.plans if plan.protocol.kind != "ppl"))
    rows = []
    for name, method in methods.items():
        images = partial(planned.forward, images=lambda numbers, method=method: method(inputs.given(numbers)))
        own = planned.measure(images, None, inputs.labels)
        own = [row for row in own if not row["metric"].startswith("class_share")]
        rows += [{**row, "metric": f"{row['metric']}/{name}"} for row in own]
    return rows


def _baselines(run: runs.Run, planned: plans.Plans, images_of: _Pass) -> list[dict]:
    """What a distance of a fitted classifier is worth: reals of the other split, a Gaussian of each pixel, or reals
    whose frames are shuffled or stand, the generator before training, and the pictures that it is given."""
    plan = next((plan for plan in planned.plans if plan.protocol.name == "fd" and plan.net.accuracy is not None), None)
    if plan is None or plan.from_file is not None:
        return []
    count, split = plan.protocol.samples, planned.reals.protocol()["split"]
    reals = planned.reals.images(np.arange(planned.reals.size))
    fresh = jax.tree.map(jnp.asarray, runs.fresh_state(run).ema)
    by_name = ({"shuffled_frames": shuffled_frames(reals, run.config.seed), "still_frames": still_frames(reals)}
               if reals.ndim == 5 else {"pixel_gaussian": pixel_gaussian_samples(reals, count, run.config.seed)})
    sets = {name: planned.of_images(images) for name, images in by_name.items()}
    sets["untrained_generator"] = count, partial(images_of, fresh)
    others = {"train": "test", "test": "train"}.get(re.split(r"[\[@]", split)[0])
    if others:  # else the reals are of both
        other = real_side.open_drawn(run.config, others)
        images = other.examples(np.arange(other.size))[next(iter(other.spec))]
        sets = {"floor_train_vs_held_out": planned.of_images(images), **sets}
    for name in (name for name in runs.sources(run)[:1] if name in run.spec):  # else they are of another size
        sets["untranslated_input"] = planned.of_images(runs.held_out(run)(np.arange(count))[name])
    return planned.compare(plan, sets)


def _points(run: runs.Run, draw: painter.Draw, inputs: _Inputs, ema: dict) -> np.ndarray:
    """config.evaluation.samples points, each process making its share."""
    count = run.config.evaluation.samples
    share = -(-count // jax.process_count())
    mine = np.minimum(jax.process_index() * share + np.arange(share), count - 1)
    points = draw(ema, painter.keys_from(run.config.seed, "evaluation", mine), inputs.given(mine))
    return parallel.from_all_processes(points)[:count]


def _modes(run: runs.Run, points: np.ndarray) -> list[dict]:
    from gan_jax.data import mixture

    name = run.config.data.name.removeprefix("mixture:")
    centres, std = mixture.mixture(name)
    quality = mixture_quality(points, centres, std)
    numbers = {
        "modes_covered": quality.modes_covered,
        "high_quality_share": quality.high_quality_share,
        "mode_kl": quality.reverse_kl,
    }
    protocol = {"data": run.config.data.name, "modes": len(centres), "within_sigmas": 3.0}
    return [{"group": "modes", "metric": k, "value": float(v), **protocol} for k, v in numbers.items()]
