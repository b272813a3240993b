"""Path length of a run's generator: equal to its definition, step by step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import evaluate, parallel, runs, sample
from gan_jax.evaluate import networks
from gan_jax.features import lpips
from gan_jax.layers import random
from gan_jax.metrics import path_length
from tests import settings

STEPS, EPSILON = 5, 1e-4


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder, run, ema, LPIPS's variables) of a tiny StyleGAN2 and random weights."""
    folder = tmp_path_factory.mktemp("path") / "run"
    asked = [("evaluation.features", "random_inception"), ("seed", "4")]
    config = runs.load_config(f"{settings.EXPERIMENTS / 'digits_stylegan2.py'}:smoke", asked)
    run = settings.fresh_folder(config, folder)
    ema = runs.restore(run, folder, parallel.make_mesh(jax.devices()[:1])).state.ema
    return folder, run, ema, networks.perceptual("vgg", config.evaluation).variables


@pytest.mark.parametrize(("name", "space", "sampling"), [("ppl2_wend_5", "w", "end"), ("ppl2_zfull_5", "z", "full")])
def test_path_length_of_a_run(made, name, space, sampling):
    """Steps one by one, with LPIPS of their two images in place of the embedding's squared difference."""
    folder, run, ema, variables = made
    rows = evaluate.evaluate(folder, metrics=name, settings={"batch_size": "8"})
    assert [row["metric"] for row in rows] == [f"{name}_random_lpips_vgg"] and rows[0]["better"] == "lower"
    assert (rows[0]["space"], rows[0]["sampling"], rows[0]["samples"]) == (space, sampling, 5)
    keys = sample.keys_from(4, "path_length", np.arange(STEPS))
    net, game = run.nets["generator"], run.game
    z = game.latents(net, keys), game.latents(net, random.fold(keys, 101))
    t = random.uniform(random.fold(keys, 102), ()) if sampling == "full" else jnp.zeros(STEPS)

    def images(ws):
        painted = game.paint(run.nets, ema, ws, keys, noise="random")
        return np.repeat((np.asarray(painted) + 1) * 127.5, 3, axis=3)

    ends = []
    for step in (0.0, EPSILON):
        if space == "w":
            a, b = (game.styles(run.nets, ema, one, None) for one in z)
            ws = a + (b - a) * (t + step)[:, None, None]
        else:
            ws = game.styles(run.nets, ema, path_length.slerp(*z, (t + step)[:, None]), None)
        ends.append(images(ws))
    expected = np.asarray(lpips.distance(variables, *ends, net="vgg")) / EPSILON**2
    expected = path_length.trimmed_mean(expected)
    assert rows[0]["value"] == pytest.approx(expected, rel=5e-3)  # differences of so small a step are near rounding


def test_one_device_and_eight_measure_alike(made, monkeypatch):
    """Seven steps divide neither; `batch_size` does not touch them."""
    eight = evaluate.evaluate(made[0], metrics="ppl2_wend_7", settings={"batch_size": "3"})[0]
    make_mesh = parallel.make_mesh
    monkeypatch.setattr(parallel, "make_mesh", lambda devices=None: make_mesh(jax.devices()[:1]))
    one = evaluate.evaluate(made[0], metrics="ppl2_wend_7")[0]
    assert one["value"] == pytest.approx(eight["value"], rel=1e-3)  # rounding of a pixel, divided by a step of 1e-4
