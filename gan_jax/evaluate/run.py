"""The command on a trained run: restore, measure, append to the run's file."""

import pathlib
from collections.abc import Mapping

from gan_jax import config as configs
from gan_jax import folders, logs, parallel, runs, sample
from gan_jax.errors import UserError
from gan_jax.evaluate import generator, protocols, report


def evaluate(
    workdir: str, *, metrics: str = "", step: int | None = None, settings: Mapping[str, str] | None = None,
    save_statistics: str = "",
) -> list[dict]:
    """Restores a run's averaged generator, measures it and appends to the run's `evaluations.jsonl`.

    Args:
      workdir: the run's folder.
      metrics: names with commas between; empty for the config's.
      step: checkpoint; None for the newest.
      settings: key of config.evaluation -> text, instead of the run's own.
      save_statistics: file to write the reals' moments to.
    Returns:
      One row a value; see `generator.measurer`.
    Raises:
      UserError, MissingPathError: no such run, step or metric; weights or data that are not there; a checkpoint that
        cannot be read; a folder that does not take the rows, which are printed first.
    """
    config, spec, _ = folders.read_folder(workdir)
    for key, text in (settings or {}).items():
        configs.override(config, f"evaluation.{key}", text)
    names = listed_names(metrics)
    listed = protocols.wanted(config, names)
    run = runs.build(config, spec)
    restored = folders.restore(run, workdir, parallel.make_mesh(), step)
    for line in restored.broken:
        print(f"{line}; using step {restored.step}", flush=True)
    images = restored.run["position"]
    print(f"step {restored.step}: measuring {', '.join(listed) or 'nothing'}", flush=True)
    measure = generator.measurer(run, sample.sampler(run), names=names, save_statistics=save_statistics)
    rows = measure(restored.state.ema, step=restored.step, images=images, baselines=True)
    try:
        for row in rows:
            logs.append_line(pathlib.Path(workdir) / "evaluations.jsonl", row)
    except UserError:
        print(report.table(rows), flush=True)
        raise
    return rows


def listed_names(metrics: str) -> tuple[str, ...] | None:
    """Names with commas between, as a tuple; None where there are none."""
    return tuple(part.strip() for part in metrics.split(",") if part.strip()) or None
