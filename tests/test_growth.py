"""Schedules of progressive growing: the official ones at every image count, and the stages of a run."""

import ast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from gan_jax import games, specs
from gan_jax.errors import UserError
from gan_jax.games import Stage, progressive
from tests import golden_growing as golden

SPEC = specs.labelled((1024, 1024, 3), 0)
PRESETS = ("progan_v1-1gpu-fp32", "progan_v2-1gpu-fp32", "progan_v2-8gpus-fp32", "progan_defaults-1gpu",
           "stylegan-ffhq-8gpu", "stylegan-ffhq-1gpu", "stylegan-rampup")  # fmt: skip


def config_of(gpus: int, official: dict, **growth) -> ConfigDict:
    """A config with the official schedule's arguments."""
    rates = official.get("G_lrate_dict", {})
    values = {
        **progressive.DEFAULTS["growth"],
        "initial_resolution": official.get("lod_initial_resolution", 4),
        "training_images": official.get("lod_training_kimg", 600) * 1000,
        "transition_images": official.get("lod_transition_kimg", 600) * 1000,
        "batch_sizes": tuple(official.get("minibatch_dict", {}).items()),
        "learning_rates": tuple((side, rate / 1e-3) for side, rate in rates.items()),
        "device_batch_limits": tuple(official.get("max_minibatch_per_gpu", {}).items()),
        "devices": gpus,
    }
    return ConfigDict({"batch_size": official.get("minibatch_base", 16), "growth": {**values, **growth}})


@pytest.mark.parametrize("preset", PRESETS)
def test_every_stage_is_the_official_schedules(preset):
    npz, meta = golden.load("growth_schedules")
    family, _, name = preset.partition("_")
    tables = ast.literal_eval(meta["progan_presets"]) | ast.literal_eval(meta["stylegan_presets"])
    gpus, official = tables[name or family]
    config = config_of(gpus, official)
    seen = npz["in/cur_nimg"]
    expected = {key: npz[f"out64/{preset}_{key}"] for key in ("lod", "resolution", "minibatch", "G_lrate")}
    stages = progressive.stages(config, SPEC)
    assert stages[0].start_images == 0 and stages[-1].end_images == 2**31 - 1
    assert all(a.end_images == b.start_images for a, b in zip(stages, stages[1:], strict=False))
    at = [next(s for s in stages if s.start_images <= n < s.end_images) for n in seen]
    np.testing.assert_array_equal([1024 >> stage.level for stage in at], expected["resolution"])
    np.testing.assert_array_equal([stage.batch_size for stage in at], expected["minibatch"])
    rampup = 1000 * official.get("lrate_rampup_kimg", 0)  # here the optimizer's own: `warmup_images`
    warm = np.minimum(seen / rampup, 1) if rampup else 1.0
    np.testing.assert_allclose(1e-3 * np.array([s.learning_rate for s in at]) * warm, expected["G_lrate"], rtol=1e-12)
    first, seen = stages[0].level, jnp.asarray(seen, jnp.int32)
    lod = jax.jit(jax.vmap(lambda n: progressive.level_of_detail(config.growth, first, n)))(seen)
    np.testing.assert_allclose(lod, expected["lod"], atol=1e-6)  # float32
    whole = expected["lod"] == np.round(expected["lod"])
    np.testing.assert_array_equal(np.asarray(lod)[whole], expected["lod"][whole])
    for stage, value in zip(at, expected["lod"], strict=True):  # a stage has one integer, or what lies between two
        assert stage.level <= value < stage.level + 1 or stage.level == value


def test_optimizers_start_afresh_where_the_official_ones_do():
    """Whenever floor(lod) or ceil(lod) changes between two steps; here at every image count of a small schedule."""
    config = config_of(1, {"minibatch_base": 8}, training_images=32, transition_images=48, initial_resolution=8)
    spec = specs.labelled((32, 32, 1), 0)
    stages = progressive.stages(config, spec)
    begins = games.begins(stages)
    previous, expected = 2.0, []
    for n in range(0, 400, 8):
        into = n % 80
        lod = max(2 - n // 80 - max(into - 32, 0) / 48, 0)
        if np.floor(lod) != np.floor(previous) or np.ceil(lod) != np.ceil(previous):
            expected.append(n)
        previous = lod
    assert list(begins[1:]) == expected == [40, 80, 120, 160]


def test_a_stage_ends_with_a_whole_batch():
    stages = (Stage(8, 0, 20), Stage(16, 20, 41), Stage(4, 41, 42), Stage(4, 42, 100))
    assert games.begins(stages) == (0, 24, 56, 56)  # the third is passed over


def test_other_games_have_one_stage():
    config = ConfigDict({"batch_size": 8, "total_images": 100})
    assert games.stages(games.find("unconditional"), config, SPEC) == (Stage(8, 0, 100),)


@pytest.mark.parametrize(
    "growth, message",
    [
        ({"initial_resolution": 6}, "initial_resolution=6: images of 1024x1024 grow through 4, 8, 16"),
        ({"training_images": 0, "transition_images": 0}, "not both 0"),
        ({"training_images": -1}, "expected 0 or more"),
        ({"devices": 32}, "no image is left"),
    ],
)
def test_schedules_that_make_no_sense(growth, message):
    with pytest.raises(UserError, match=message):
        progressive.stages(config_of(1, {}, **growth), SPEC)


def test_without_transitions_resolutions_follow_at_once():
    config = config_of(1, {}, training_images=100, transition_images=0, initial_resolution=256)
    assert [(s.level, s.start_images) for s in progressive.stages(config, SPEC)] == [(2, 0), (1, 100), (0, 200)]
    lods = [float(progressive.level_of_detail(config.growth, 2, jnp.int32(n))) for n in (0, 99, 100, 199, 200, 10**6)]
    assert lods == [2, 2, 1, 1, 0, 0]
    config.growth.initial_resolution = 1024
    assert [(s.level, s.start_images) for s in progressive.stages(config, SPEC)] == [(0, 0)]
