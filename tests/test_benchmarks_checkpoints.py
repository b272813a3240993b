"""The benchmark of checkpoints: its smoke form, what it writes, and the share of a save interval."""

import json

import jax
import numpy as np
import pytest

from benchmarks import checkpoints
from gan_jax import checkpoint, runs
from gan_jax.errors import UserError


def test_smoke_writes_what_was_measured(tmp_path, capsys):
    out = tmp_path / "results" / "checkpoints.json"
    flags = ["--smoke", "--images_per_second=4", f"--folder={tmp_path}", f"--out={out}"]
    assert checkpoints.main(flags) == 0
    report = json.loads(out.read_text())
    assert report["benchmark"] == "checkpoints" and report["settings"]["smoke"]
    assert {"jax", "orbax-checkpoint", "python"} <= report["versions"].keys() and report["machine"]["cores"] >= 1
    assert len(report["load_average"]["before"]) == len(report["load_average"]["after"]) == 3

    run, _ = checkpoints.build(checkpoints.SMOKE)  # at 8 px
    leaves = jax.tree.leaves(jax.eval_shape(lambda: runs.init_state(run)))
    assert report["settings"]["resolution"] == 8 and report["settings"]["config"]["batch_size"] == 8
    assert report["arrays"] == len(leaves)
    assert report["state_bytes"] == sum(4 * int(np.prod(leaf.shape)) for leaf in leaves)  # all are of 32 bits
    assert report["disk_bytes"] > report["state_bytes"] / 2

    seconds = report["seconds"]
    assert set(seconds) == set(report["first_seconds"]) == {"stall", "written", "cpu", "restore"}
    assert all(len(one["all"]) == 1 and one["low"] == one["median"] == one["high"] > 0 for one in seconds.values())
    assert seconds["stall"]["median"] <= seconds["written"]["median"]
    share = report["share"]
    assert share["interval_seconds"] == 1000 * 8 / 4 and share["bar"] == 0.02
    assert share["stall"] == pytest.approx(seconds["stall"]["median"] / 2000)
    printed = capsys.readouterr().out
    assert f"{seconds['stall']['median']:.3f}" in printed and "at 4 images/s, batch 8" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["results"]  # the checkpoints are gone


def test_what_is_saved_is_not_compressible_and_comes_back(tmp_path):
    run, mesh = checkpoints.build(checkpoints.SMOKE)
    abstract = runs.abstract_state(run, mesh)
    state = checkpoints.fill(abstract, mesh)
    floats = [np.asarray(leaf).ravel() for leaf in jax.tree.leaves(state) if leaf.dtype == np.float32]
    values = np.concatenate(floats)
    assert abs(values.mean()) < 0.05 and 0.95 < values.std() < 1.05 and len(np.unique(values)) > 0.99 * len(values)
    manager = checkpoint.open_manager(tmp_path)
    with checkpoint.closing(manager):
        checkpoints.once(manager, state, 0, abstract)
        restored, extra = checkpoint.restore(manager, 0, abstract)
    assert extra["position"] == 0
    jax.tree.map(np.testing.assert_array_equal, restored, state)


def test_the_share_of_an_interval():
    stall = {"median": 3.0}
    share = checkpoints.share(stall, 64, 640.0)  # 1,000 steps take 100 s
    assert share["interval_seconds"] == 100.0 and share["stall"] == 0.03 and not share["kept"]
    assert checkpoints.share({"median": 1.9}, 64, 640.0)["kept"]
    assert checkpoints.share(stall, 64, None) == {}


def test_the_speed_of_training_is_given_or_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "STEPS", tmp_path / "steps.json")
    assert checkpoints.images_per_second(None) is None and checkpoints.images_per_second(3.0) == 3.0
    speed = {"jax": {"images_per_second": {"median": 5.0}}}
    for models, expected in (({"stylegan2_256": speed, "dcgan_64": {}}, 5.0), ({"dcgan_64": speed}, None)):
        checkpoints.STEPS.write_text(json.dumps({"models": models}))
        assert checkpoints.images_per_second(None) == expected


def test_a_state_that_has_no_room_is_not_begun(tmp_path):
    with pytest.raises(UserError, match="the disk of .* MiB free, .* MiB are needed"):
        checkpoints._check_room(tmp_path, 1 << 60)


@pytest.mark.parametrize("flag", ("--repeats=0", "--images_per_second=0.0", "--folder=nowhere"))
def test_wrong_flags_are_named(flag, capsys):
    assert checkpoints.main([flag, "--out=never.json"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and flag in error
