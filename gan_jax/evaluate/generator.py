"""Measures a run's generator: one pass for all protocols, and each value with what it must be told with."""

import time
from collections.abc import Callable
from functools import partial

import jax
import numpy as np

from gan_jax import games, metrics, parallel, provenance, runs, sample, specs
from gan_jax.errors import UserError
from gan_jax.evaluate import collect, digits, equivariance, plans, protocols, report
from gan_jax.evaluate import path_length as path_lengths
from gan_jax.evaluate import reals as real_side
from gan_jax.evaluate.protocols import EQUIVARIANCE

Measure = Callable[..., list[dict]]


def measure(run: runs.Run, draw: sample.Draw, ema: dict, *, names: tuple[str, ...] | None = None, **told) -> list[dict]:
    """`measurer`, used once."""
    return measurer(run, draw, names=names)(ema, **told)


def measurer(
    run: runs.Run, draw: sample.Draw, *, names: tuple[str, ...] | None = None, save_statistics: str = "",
) -> Measure:
    """Loads the networks that the metrics need; what it returns compiles at its first call, and never again.

    Args:
      run: from `runs.build`.
      draw: from `sample.sampler`.
      names: metrics; None for the config's.
      save_statistics: file to write the reals' moments to, see `plans.Plans.save_statistics`.
    Returns:
      (ema, *, step, images, baselines=False) -> rows with `metric`, `value`, `better` (lower or higher), `step`,
      `images` and the protocol: features and their SHA-256, preprocessing, counts, split, flips, seed, data, version
      and digest of the code. The first row is the first metric's. `step` and `images` are of the State, for the rows;
      with `baselines` come also values that tell what a distance means. All processes take part.
    Raises:
      UserError, MissingPathError: an unknown metric, or one that this run's data, generator or features do not allow;
        weights that are not there, or another's.
    """
    config = run.config
    drawn = games.drawn(run.game, config)
    listed = protocols.wanted(config, names)
    plain = protocols.judged_of(listed) if config.evaluation.features == "digits_classifier" else ()
    moved = tuple(name for name in listed if name in EQUIVARIANCE)
    planned = plans.ready(
        protocols.listed_protocols(config.evaluation, listed), config.evaluation,
        shape=run.spec[drawn].shape, seed=config.seed,
        open_reals=partial(runs.open_field, config, drawn, config.evaluation.split),
    )
    if save_statistics and not planned:
        raise UserError(f"--save_statistics={save_statistics}: none of the metrics has moments of a network's "
                        "features; list fid50k_full, or such")
    if save_statistics:
        print(planned.save_statistics(save_statistics), flush=True)
    code, kept = provenance.code_sha256(), {}

    def measure(ema: dict, *, step: int, images: int, baselines: bool = False) -> list[dict]:
        began, rows = time.monotonic(), []
        if plain or "modes" in listed:
            fakes = _generate(run, draw, ema)
            rows += _modes(run, fakes) if "modes" in listed else []
        if plain:
            kept["judge"] = kept.get("judge") or digits.judge(run, drawn)
            rows += digits.rows(run, kept["judge"], fakes, plain, partial(_generate, run, draw) if baselines else None)
        if moved:
            rows += equivariance.rows(run, ema, moved)
        if planned:
            rows += _protocols(run, planned, ema, kept)
        order = {name: i for i, name in enumerate(listed)}
        rows.sort(key=lambda row: order[row["group"]])
        noise = {"noise": "random"} if "noise" in ema.get(run.game.EMA_NETS[0], {}) else {}
        common = {"step": step, "images": images, "samples": config.evaluation.samples, "seed": config.seed, **noise}
        return report.finished([{**common, **row} for row in rows], began, code)

    return measure


def _protocols(run, planned: plans.Plans, ema: dict, kept: dict) -> list[dict]:
    """Rows of the protocols. What was compiled is kept under their names, and the batch that fits."""
    labels = _labels(run, planned)
    given = sample.held_out(run) if runs.sources(run) else lambda places: sample.with_labels(run, labels[places])
    mesh = parallel.make_mesh(jax.local_devices())

    def fakes(needs: collect.Needs) -> collect.Collected:
        if "program" not in kept:
            kept["program"] = collect.program(sample.generator(run), planned.nets, needs, mesh)
        here = parallel.local_copy(ema, mesh)

        def dispatch(places: np.ndarray):
            keys = sample.keys_from(run.config.seed, "evaluation", places)
            return kept["program"](here, planned.variables, keys, given(places))

        if "batch" not in kept:
            first = real_side.first_batch(run.config.evaluation.batch_size)
            kept["batch"] = collect.largest_batch(lambda b: dispatch(np.zeros(b, np.int64)), first, mesh.size)
        return collect.collect(needs, dispatch, kept["batch"])

    def path_length(plan: plans.Plan) -> float:
        name = plan.protocol.name
        if name not in kept:
            kept[name] = path_lengths.measurer(run, plan.protocol, plan.net)
        return kept[name](ema, labels)

    rows = planned.measure(fakes, path_length)
    if specs.classes(run.spec):
        rows = [{**row, "labels": "drawn from the data"} for row in rows]
    return rows


def _labels(run, planned: plans.Plans) -> np.ndarray:
    """A label for each image, drawn from those of the data; 0 where the run has none."""
    total = max(plan.protocol.samples for plan in planned.plans)
    if not specs.classes(run.spec):
        return np.zeros(total, np.int32)
    reals = planned.reals or real_side.of(runs.open_field(run.config, "image", run.config.evaluation.split))
    return real_side.draw_labels(reals.labels(), total, run.config.seed)


def _generate(run, draw: sample.Draw, ema: dict) -> np.ndarray:
    """config.evaluation.samples images, of held-out sources or labels in turn, each process making its share."""
    count = run.config.evaluation.samples
    share = -(-count // jax.process_count())
    mine = jax.process_index() * share + np.arange(share)
    drawn = draw(ema, sample.keys_from(run.config.seed, "evaluation", mine), sample.held_out(run)(mine))
    return parallel.from_all_processes(drawn)[:count]


def _modes(run, points: np.ndarray) -> list[dict]:
    from gan_jax.data import mixture

    name = run.config.data.name.removeprefix("mixture:")
    centres, std = mixture.mixture(name)
    quality = metrics.mixture_quality(points, centres, std)
    values = {
        "modes_covered": quality.modes_covered,
        "high_quality_share": quality.high_quality_share,
        "mode_kl": quality.reverse_kl,
    }
    protocol = {"data": run.config.data.name, "modes": len(centres), "within_sigmas": 3.0}
    return [{"group": "modes", "metric": k, "value": float(v), **protocol} for k, v in values.items()]
