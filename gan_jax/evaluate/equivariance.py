"""EQ-T and EQ-R of a run's generator; see `metrics.equivariance` for the definition."""

import math
from collections.abc import Callable
from functools import partial

import jax
import numpy as np

from gan_jax import painter, parallel, specs
from gan_jax.evaluate.protocols import EQUIVARIANCE
from gan_jax.metrics import equivariance

PUBLISHED = {"eqt": "eqt50k_int", "eqt_frac": "eqt50k_frac", "eqr": "eqr50k"}  # their names where all is as published
MOVED_TOGETHER = 4  # images that share one draw of the motion, as published
GROUPS_AT_ONCE = 16


def rows(
    run, ema: dict, names: tuple[str, ...], labels: np.ndarray | None, check: Callable[[], None] = lambda: None
) -> list[dict]:
    """EQ-T and EQ-R; image i and its motion are functions of the seed and of i. Processes take shares of the images.

    `labels` (at least config.evaluation.samples,) are the images', None where the generator takes none. `check` is
    called before each batch; what it raises ends the measurement.
    """
    samples = run.config.evaluation.samples
    groups = math.ceil(samples / MOVED_TOGETHER)
    share = math.ceil(groups / jax.process_count())
    mine = np.arange(groups)[jax.process_index() * share :][:share]
    sums = moved_errors(run, ema, [EQUIVARIANCE[name] for name in names], mine, labels, check)
    sums = parallel.from_all_processes(sums[None]).sum(0)
    published = samples == 50_000
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


def moved_errors(
    run, ema: dict, metrics: list[str], groups: np.ndarray, labels: np.ndarray | None,
    check: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """(metrics, 2), the sums of `equivariance.squared_error` over groups of images with one motion each.

    `check` is called equally often in all processes.
    """
    config, net = run.config, run.nets["generator"]
    total, side = math.ceil(config.evaluation.samples / MOVED_TOGETHER), min(run.spec["image"].shape[:2])
    draws = {metric: equivariance.draw(metric, total, config.seed) for metric in metrics}

    def generate(ema, keys, labels, transforms):
        label = labels if specs.classes(run.spec) else None
        z = run.game.latents(net, keys)
        return net.apply(ema["generator"], z, label, train=False, transform=transforms)

    render, sums = painter.in_passes(run, generate), np.zeros((len(metrics), 2))
    for start in range(0, math.ceil(total / jax.process_count()), GROUPS_AT_ONCE):
        check()
        chunk = groups[start : start + GROUPS_AT_ONCE]
        index = (chunk[:, None] * MOVED_TOGETHER + np.arange(MOVED_TOGETHER)).reshape(-1)
        index = index[index < config.evaluation.samples]
        if not len(index):  # the other processes have more groups
            continue
        own = (index - index[0]) // MOVED_TOGETHER  # group of each image within the chunk
        keys = painter.keys_from(config.seed, "evaluation", index)
        draw = partial(render, ema, keys, np.zeros(len(index), np.int32) if labels is None else labels[index])
        unmoved = draw(np.broadcast_to(np.eye(3, dtype=np.float32), (len(index), 3, 3)))
        for i, metric in enumerate(metrics):
            moves = [equivariance.motion(metric, draws[metric][group], side) for group in chunk]
            moved = draw(np.float32([equivariance.transform(metric, move) for move in moves])[own])
            for number, move in enumerate(moves):
                rows = own == number
                sums[i] += equivariance.squared_error(metric, unmoved[rows], moved[rows], move)
    return sums
