"""Path length of a run's generator: equal to its definition, step by step."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import evaluate, folders, painter, parallel, runs
from gan_jax.features import lpips, networks
from gan_jax.layers import random
from gan_jax.metrics import path_length
from tests import settings

STEPS, EPSILON = 7, 1e-4  # so many steps divide neither eight devices nor a batch


class Walk(NamedTuple):
    """The parts of a step, each compiled by itself and taken by every test."""

    draw: Callable    # () -> both latents (STEPS, D) and the places (STEPS,)
    styles: Callable  # z (STEPS, D) -> (STEPS, num_ws, W)
    paint: Callable   # those -> images in [0, 255] of three channels
    differ: Callable  # two of such -> LPIPS (STEPS,)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of a tiny StyleGAN2 and random weights."""
    folder = tmp_path_factory.mktemp("path") / "run"
    asked = [("evaluation.features", "random_inception"), ("seed", "4"), ("data.resolution", "16")]
    config = runs.load_config(f"{settings.EXPERIMENTS / 'digits_stylegan2.py'}:smoke", asked)
    settings.fresh_folder(config, folder)
    return folder


@pytest.fixture(scope="module")
def rows(folder):
    """Of the walks in both spaces, on eight devices."""
    measured = evaluate.evaluate(folder, metrics=f"ppl2_wend_{STEPS},ppl2_zfull_{STEPS}", settings={"batch_size": "8"})
    assert len(measured) == 2
    return {row["space"]: row for row in measured}


@pytest.fixture(scope="module")
def walk(folder):
    config, spec, _ = folders.read_folder(folder)
    run = runs.build(config, spec)
    ema = folders.restore(run, folder, parallel.make_mesh(jax.devices()[:1])).state.ema
    variables = networks.perceptual("vgg", config.evaluation).variables
    keys, net, game = painter.keys_from(4, "path_length", np.arange(STEPS)), run.nets["generator"], run.game

    @jax.jit
    def draw():
        z = game.latents(net, keys), game.latents(net, random.fold(keys, 101))
        return *z, random.uniform(random.fold(keys, 102), ())

    styles = jax.jit(lambda ema, z: game.styles(run.nets, ema, z, None))
    paint = jax.jit(lambda ema, ws: game.paint(run.nets, ema, ws, keys, noise="random"))
    differ = jax.jit(partial(lpips.distance, net="vgg"))
    return Walk(draw, partial(styles, ema), lambda ws: np.repeat((np.asarray(paint(ema, ws)) + 1) * 127.5, 3, axis=3),
                partial(differ, variables))


@pytest.mark.parametrize(("space", "sampling"), [("w", "end"), ("z", "full")])
def test_path_length_of_a_run(rows, walk, space, sampling):
    """Steps one by one, with LPIPS of their two images in place of the embedding's squared difference."""
    row, (first, second, places) = rows[space], walk.draw()
    assert row["metric"] == f"ppl2_{space}{sampling}_{STEPS}_random_lpips_vgg" and row["better"] == "lower"
    assert (row["sampling"], row["samples"]) == (sampling, STEPS)
    t = places if sampling == "full" else jnp.zeros(STEPS)

    ends = []
    for step in (0.0, EPSILON):
        if space == "w":
            a, b = walk.styles(first), walk.styles(second)
            ws = a + (b - a) * (t + step)[:, None, None]
        else:
            ws = walk.styles(path_length.slerp(first, second, (t + step)[:, None]))
        ends.append(walk.paint(ws))
    expected = path_length.trimmed_mean(np.asarray(walk.differ(*ends)) / EPSILON**2)
    assert row["value"] == pytest.approx(expected, rel=5e-3)  # differences of so small a step are near rounding


def test_one_device_and_eight_measure_alike(folder, rows, monkeypatch):
    """Seven steps divide neither; `batch_size` does not touch them."""
    make_mesh = parallel.make_mesh
    monkeypatch.setattr(parallel, "make_mesh", lambda devices=None: make_mesh(jax.devices()[:1]))
    one = evaluate.evaluate(folder, metrics=f"ppl2_wend_{STEPS}", settings={"batch_size": "3"})[0]
    assert one["value"] == pytest.approx(rows["w"]["value"], rel=1e-3)  # rounding of a pixel, divided by a step of 1e-4
