"""Measures of translations: a classifier of labelled data that the run names, and the way back."""

import numpy as np
import pytest

from gan_jax import parallel, run_data, runs
from gan_jax.data import photographs
from gan_jax.errors import UserError
from gan_jax.evaluate import measurer, protocols
from tests import settings


@pytest.fixture(scope="module")
def textures():
    """The experiment's smoke run, with a classifier of thirty steps."""
    from gan_jax.features import digits_classifier

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits_classifier, "STEPS", 30)
        patch.setattr(digits_classifier, "RECIPE", "thirty steps")
        path = f"{settings.EXPERIMENTS / 'textures_cyclegan.py'}:smoke"
        pairs = [("evaluation.samples", "48"), ("evaluation.judge", "photographs:brick+gravel")]
        config = runs.load_config(path, pairs)
        config.data.parts.a.name = "photographs:brick"
        run = runs.build(config, run_data.data_spec(config, run_data.open_data(config)))
        yield run, patch


def test_judge_and_cycle_of_generators_that_change_nothing(textures):
    """Untouched bricks are seldom taken for gravel, and come back as they were; the mean picture is numpy's."""
    run, patch = textures
    patch.setattr(run.game, "_translate", lambda nets, ema, source, target, images: images)
    rows = measurer(run)(parallel.replicate(runs.fresh_state(run).ema, parallel.make_mesh()), step=0, images=0)
    values = {row["metric"]: row["value"] for row in rows}
    assert values["label_agreement"] == values["class_share/1"] < 0.2  # gravel is 1
    assert values["class_share/0"] > 0.8
    (accuracy,) = {row["features_accuracy"] for row in rows if row["metric"] == "label_agreement"}
    assert accuracy > 0.8
    assert values["cycle_l1"] == 0
    bricks = photographs.photograph("brick")[410:, :, 0]
    squares = np.stack([bricks[32 * i : 32 * i + 32, 32 * j : 32 * j + 32] for i in range(3) for j in range(16)])
    expected = np.abs(squares - np.round(squares.mean(0))).mean() / 127.5
    assert values["cycle_l1/mean_picture"] == pytest.approx(expected, rel=1e-6)
    (row,) = (row for row in rows if row["metric"] == "cycle_l1")
    assert (row["better"], row["pairs"], row["split"]) == ("lower", 48, "test")


@pytest.mark.parametrize(("experiment", "overrides", "message"), [
    ("digits_dcgan", {"metrics": "('cycle_l1',)"}, "metrics=cycle_l1: the game 'unconditional' draws no way back"),
    ("textures_cyclegan", {"judge": ""}, "features='classifier': set config.evaluation.judge to labelled data"),
    ("textures_cyclegan", {"features": "random_inception"}, "of the data, digits_classifier or classifier"),
    ("textures_cyclegan", {"features": "digits_classifier"}, "judges the data 'digits', not 'photographs:gravel'"),
    ("textures_cyclegan", {"features": "classifier/logits"}, "expected one of digits_classifier, classifier"),
])  # fmt: skip
def test_errors(experiment, overrides, message):
    pairs = [(f"evaluation.{key}", value) for key, value in overrides.items()]
    config = runs.load_config(f"{settings.EXPERIMENTS / experiment}.py:smoke", pairs)
    with pytest.raises(UserError, match=message):
        protocols.wanted(config)


def test_a_judge_needs_labels(textures):
    run, _ = textures
    config = run.config.copy_and_resolve_references()
    config.evaluation.judge = "faces"
    with pytest.raises(UserError, match="config.evaluation.judge='faces': these data have no labels"):
        measurer(run._replace(config=config))
