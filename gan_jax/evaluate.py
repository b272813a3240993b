"""Measures a run: features, statistics, distances, each value with its whole protocol beside it."""

import inspect
import math
import pathlib
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from gan_jax import __version__, games, logs, metrics, parallel, runs, sample
from gan_jax.errors import UserError
from gan_jax.metrics import equivariance

FEATURES = ("digits_classifier", "none")
ALIASES = {"fid": "fd", "kid": "kd"}  # never reported under these names: they are promised to Inception's features
EQUIVARIANCE = {"eqt": "eqt_int", "eqt_frac": "eqt_frac", "eqr": "eqr"}  # name -> of `equivariance.METRICS`
PUBLISHED = {"eqt": "eqt50k_int", "eqt_frac": "eqt50k_frac", "eqr": "eqr50k"}  # their names where all is as published
NAMES = ("fd", "kd", "prdc", "classes", "modes", *EQUIVARIANCE)
_LOWER = ("fd", "kd", "mode_kl")  # values, or groups of values, whose smallest is the best
PRDC_NEIGHBOURS = 5
MOVED_TOGETHER = 4  # images that share one draw of the motion, as published


def ranking(config: ConfigDict) -> dict:
    """The `metric` by which the best checkpoint is kept, the first of the config's list, and its `lower_is_better`."""
    name = next(iter(wanted(config)), "")
    return {"metric": name, "lower_is_better": not name or name in _LOWER}


def wanted(config: ConfigDict, names: tuple[str, ...] | None = None) -> tuple[str, ...]:
    """The metrics to compute. Raises UserError for an unknown one, or one that the run's features cannot give."""
    listed = [ALIASES.get(name, name) for name in (config.evaluation.metrics if names is None else names)]
    for name in listed:
        if name not in NAMES:
            raise UserError(f"metrics={name!r}: expected some of {', '.join(NAMES)}")
    if config.evaluation.features not in FEATURES:
        raise UserError(
            f"config.evaluation.features={config.evaluation.features!r}: expected one of {', '.join(FEATURES)}"
        )
    judged = _judged(listed)
    if judged and config.evaluation.features == "none":
        raise UserError(
            f"metrics={','.join(judged)}: they need features, and config.evaluation.features is 'none'; "
            "choose features, or measure nothing: '--config.evaluation.metrics=()'"
        )
    if judged and config.data.name != "digits":
        raise UserError(
            f"config.evaluation.features='digits_classifier' judges the data 'digits', not {config.data.name!r}; "
            "measure nothing of this data: '--config.evaluation.metrics=()'"
        )
    if "modes" in listed and not config.data.name.startswith("mixture:"):
        raise UserError(f"metrics=modes: only mixtures have known modes, not {config.data.name!r}")
    moved = [name for name in listed if name in EQUIVARIANCE]
    if moved and not _takes_transform(config):
        raise UserError(
            f"metrics={','.join(moved)}: they move the generator's input, and config.generator.name="
            f"{config.generator.name!r} has none that can be moved; take stylegan3, or leave them out"
        )
    return tuple(dict.fromkeys(listed))


def _judged(listed) -> tuple[str, ...]:
    """Those of the metrics that look at features."""
    return tuple(name for name in listed if name != "modes" and name not in EQUIVARIANCE)


def _takes_transform(config: ConfigDict) -> bool:
    constructor = games.find(config.game).constructors(config).get("generator")
    return constructor is not None and "transform" in inspect.signature(constructor.__call__).parameters


class _Reference(NamedTuple):
    """The real side of the features: computed once a call."""

    extractor: metrics.Extractor
    train: dict[str, np.ndarray]  # image, label
    held_out: np.ndarray  # images
    features: np.ndarray  # of the train images
    protocol: dict[str, Any]


def evaluate(workdir: str, *, metrics: str = "", step: int | None = None) -> list[dict]:
    """Restores a run's averaged generator, measures it and appends to the run's `evaluations.jsonl`.

    Args:
      workdir: the run's folder.
      metrics: names with commas between; empty for the config's.
      step: checkpoint; None for the newest.
    Returns:
      One row a value; see `measure`.
    Raises:
      UserError, MissingPathError: no such run, step or metric; a checkpoint that cannot be read; a folder that does not
        take the rows, which are printed first.
    """
    config, spec, _ = runs.read_folder(workdir)
    names = tuple(part.strip() for part in metrics.split(",") if part.strip()) or None
    listed = wanted(config, names)
    run = runs.build(config, spec)
    restored = runs.restore(run, workdir, parallel.make_mesh(), step)
    for line in restored.broken:
        print(f"{line}; using step {restored.step}", flush=True)
    images = restored.run["position"]
    print(f"step {restored.step}: measuring {', '.join(listed) or 'nothing'}", flush=True)
    rows = measure(
        run, sample.sampler(run), restored.state.ema, step=restored.step, images=images, names=names, baselines=True
    )
    try:
        for row in rows:
            logs.append_line(pathlib.Path(workdir) / "evaluations.jsonl", row)
    except UserError:
        print(table(rows), flush=True)
        raise
    return rows


def measure(
    run: runs.Run,
    draw: sample.Draw,
    ema: dict,
    *,
    step: int,  # of the State, for the rows
    images: int,  # seen by it, for the rows
    names: tuple[str, ...] | None = None,  # metrics; None for the config's
    baselines: bool = False,  # also the values that tell what a distance means
) -> list[dict]:
    """Measures a generator; all processes take part.

    Returns:
      Rows with `metric`, `value`, `better` (lower or higher), `step`, `images` and the protocol: features and their
      SHA-256, resize, counts, split, flips, seed, data, version. The first row is the first metric's.
    Raises:
      UserError: an unknown metric, or one that this run's data does not allow.
    """
    listed = wanted(run.config, names)
    began = time.monotonic()
    rows = []
    judged, moved = _judged(listed), tuple(name for name in listed if name in EQUIVARIANCE)
    fakes = _generate(run, draw, ema, run.config.evaluation.samples) if judged or "modes" in listed else None
    if "modes" in listed:
        rows += _modes(run, fakes)
    if moved:
        rows += _equivariance(run, ema, moved)
    if judged:
        rows += _judge(run, draw, fakes, judged, baselines)
    noise = {"noise": "random"} if "noise" in ema.get("generator", {}) else {}
    drawn = {"samples": run.config.evaluation.samples, "seed": run.config.seed, **noise}
    common = {"step": step, "images": images, **drawn}
    order = {name: i for i, name in enumerate(listed)}
    rows.sort(key=lambda row: order[row["group"]])
    for row in rows:
        row["better"] = "lower" if row.pop("group") in _LOWER or row["metric"] in _LOWER else "higher"
    seconds = round(time.monotonic() - began, 1)
    return [{**row, **common, "version": __version__, "seconds": seconds} for row in rows]


def _generate(run, draw: sample.Draw, ema: dict, count: int) -> np.ndarray:
    """`count` samples, each process making its share; the same ones for any number of devices and processes."""
    share = -(-count // jax.process_count())
    mine = jax.process_index() * share + np.arange(share)
    drawn = draw(ema, sample.keys_from(run.config.seed, "evaluation", mine), mine % max(run.spec.num_classes, 1))
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


def _equivariance(run, ema: dict, names: tuple[str, ...]) -> list[dict]:
    """EQ-T and EQ-R; image i and its motion are functions of the seed and of i. Processes take shares of the images."""
    samples, classes = run.config.evaluation.samples, run.spec.num_classes
    groups = math.ceil(samples / MOVED_TOGETHER)
    share = math.ceil(groups / jax.process_count())
    mine = np.arange(groups)[jax.process_index() * share :][:share]
    sums = _moved_errors(run, ema, [EQUIVARIANCE[name] for name in names], mine)
    sums = parallel.from_all_processes(sums[None]).sum(0)
    published = samples == 50_000 and not classes  # theirs draws labels from the data
    rows = []
    for name, (error, weight) in zip(names, sums, strict=True):
        protocol = {"unit": "dB", "psnr_range": equivariance.PEAK, "images_per_motion": MOVED_TOGETHER}
        if name == "eqr":
            protocol["rotate_max"] = equivariance.ROTATE_MAX
        else:
            protocol["translate_max"] = equivariance.TRANSLATE_MAX
        value = equivariance.decibels(error, weight, name)
        rows.append({"group": name, "metric": PUBLISHED[name] if published else name, "value": value, **protocol})
    return rows


def _moved_errors(run, ema: dict, metrics: list[str], groups: np.ndarray) -> np.ndarray:
    """(metrics, 2), the sums of `equivariance.squared_error` over groups of images with one motion each."""
    config, net = run.config, run.nets["generator"]
    total, side = math.ceil(config.evaluation.samples / MOVED_TOGETHER), min(run.spec.shape[:2])
    draws = {metric: equivariance.draw(metric, total, config.seed) for metric in metrics}

    def generate(ema, keys, labels, transforms):
        label = labels if run.spec.num_classes else None
        z = run.game.latents(net, keys)
        return net.apply(ema["generator"], z, label, train=False, transform=transforms)

    render, sums = sample.in_passes(run, generate), np.zeros((len(metrics), 2))
    for chunk in np.array_split(groups, range(16, len(groups), 16)):
        index = (chunk[:, None] * MOVED_TOGETHER + np.arange(MOVED_TOGETHER)).reshape(-1)
        index = index[index < config.evaluation.samples]
        if not len(index):  # more processes than groups
            break
        own = (index - index[0]) // MOVED_TOGETHER  # group of each image within the chunk
        keys = sample.keys_from(config.seed, "evaluation", index)
        draw = partial(render, ema, keys, index % max(run.spec.num_classes, 1))
        unmoved = draw(np.broadcast_to(np.eye(3, dtype=np.float32), (len(index), 3, 3)))
        for i, metric in enumerate(metrics):
            moves = [equivariance.motion(metric, draws[metric][group], side) for group in chunk]
            moved = draw(np.float32([equivariance.transform(metric, move) for move in moves])[own])
            for number, move in enumerate(moves):
                rows = own == number
                sums[i] += equivariance.squared_error(metric, unmoved[rows], moved[rows], move)
    return sums


def _judge(run, draw, fakes: np.ndarray, names: tuple[str, ...], baselines: bool) -> list[dict]:
    """Everything that compares features."""
    reference = _reference(run)
    features, logits = reference.extractor.apply(fakes)
    suffix = reference.extractor.name
    rows = []

    def add(group: str, values: dict[str, float], **protocol: Any) -> None:
        for metric, value in values.items():
            rows.append({"group": group, "metric": metric, "value": float(value), **reference.protocol, **protocol})

    if "fd" in names:
        add("fd", {f"fd_{suffix}": _frechet(reference.features, features)})
        if baselines:
            add("fd", {f"fd_{suffix}/{k}": v for k, v in _frechet_baselines(run, draw, reference, len(fakes)).items()})
    if "kd" in names:
        mean, std = metrics.kernel_distance(reference.features, features)
        add(
            "kd",
            {f"kd_{suffix}": mean},
            std=std,
            subsets=100,
            subset_size=min(1000, len(features), len(reference.features)),
        )
    if "prdc" in names:
        found = metrics.neighbourhoods(reference.features, features, k=PRDC_NEIGHBOURS)
        add("prdc", found._asdict(), neighbours=PRDC_NEIGHBOURS)
    if "classes" in names:
        shares = metrics.class_shares(logits, logits.shape[1])
        values = {"confidence": metrics.confidence(logits), "class_share_min": shares.min()}
        values |= {f"class_share/{label}": share for label, share in enumerate(shares)}
        if run.spec.num_classes:
            values["label_agreement"] = metrics.agreement(logits, np.arange(len(fakes)) % run.spec.num_classes)
        add("classes", values)
    return rows


def _reference(run) -> _Reference:
    """The judge, fitted on the train split of `digits` at the run's resolution, and the run's reals."""
    from gan_jax.metrics import digits_classifier

    split = run.config.data.split
    sets = {name: runs.open_data(run.config, name) for name in dict.fromkeys(("train", "test", split))}
    parts = {name: _whole(dataset) for name, dataset in sets.items()}
    extractor = digits_classifier.fit(
        parts["train"]["image"], parts["train"]["label"], parts["test"]["image"], parts["test"]["label"]
    )
    section = run.config.data
    protocol = {
        "features": extractor.name,
        "features_sha256": extractor.sha256,
        "features_accuracy": extractor.accuracy,
        "feature_resize": extractor.resize,
        "data": section.name,
        "split": split,
        "resolution": str(section.resolution),
        "filter": section.filter,
        "flip": section.flip,
        "reals": len(parts[split]["image"]),
        "data_fingerprint": sets[split].fingerprint,
    }
    reals = parts[split]
    return _Reference(extractor, reals, parts["test"]["image"], extractor.apply(reals["image"])[0], protocol)


def _whole(dataset) -> dict[str, np.ndarray]:
    return dataset.examples(np.arange(dataset.size))


def _frechet(real: np.ndarray, fake: np.ndarray) -> float:
    a, b = metrics.moments(real), metrics.moments(fake)
    return metrics.frechet_distance(a.mean, a.covariance, b.mean, b.covariance)


def _frechet_baselines(run, draw, reference: _Reference, count: int) -> dict[str, float]:
    """What the distance is worth: reals held out, a Gaussian of each pixel, the generator before training."""
    fresh = jax.jit(lambda: runs.init_state(run).ema)()
    sets: dict[str, Callable[[], np.ndarray]] = {
        "floor_train_vs_held_out": lambda: reference.held_out,
        "pixel_gaussian": lambda: metrics.pixel_gaussian_samples(reference.train["image"], count, run.config.seed),
        "untrained_generator": lambda: _generate(run, draw, fresh, count),
    }
    return {name: _frechet(reference.features, reference.extractor.apply(make())[0]) for name, make in sets.items()}


def table(rows: list[dict]) -> str:
    """The rows for a terminal: name, value, and the protocol of the first below."""
    if not rows:
        return "no metrics are configured"
    width = max(len(row["metric"]) for row in rows)
    first = rows[0]
    lines = [f"step {first['step']}, {first['images']} images, {first['samples']} samples, {first['seconds']} s"]
    lines += [f"  {row['metric']:<{width}}  {row['value']:.4f} {row.get('unit', '')}".rstrip() for row in rows]
    if "features" in first:
        lines.append(
            f"  features {first['features']} (test accuracy {100 * first['features_accuracy']:.2f}%, "
            f"sha256 {first['features_sha256'][:12]}), {first['reals']} reals of {first['data']}/{first['split']}"
        )
    return "\n".join(lines)


def read(folder: str) -> list[dict]:
    """The rows of a run's `evaluations.jsonl`; none where it has not been measured."""
    return logs.read_lines(pathlib.Path(folder) / "evaluations.jsonl")
