"""A CycleGAN-shaped game through gan_jax's own loop: the core knows its phases and its memory, no more."""

import functools

import jax
import numpy as np
import pytest

from gan_jax import folders, games, logs, parallel, runs, specs
from gan_jax.train import train
from tests import cycle_game, settings


@pytest.fixture(autouse=True)
def _known(monkeypatch):
    """`config.game='cycle'` is this file's neighbour."""
    monkeypatch.setattr(games, "find", {"cycle": cycle_game}.__getitem__)


def _config(**overrides):
    return runs.load_config(cycle_game.__file__, [(key, str(value)) for key, value in overrides.items()])


def _trained(workdir, **overrides):
    """State and metrics of a run, trained to its end or resumed, as its folder holds them."""
    config = _config(**overrides)
    assert train(config, str(workdir))
    run = runs.build(config, specs.labelled((8, 8, 1), 0))
    restored = folders.restore(run, workdir, parallel.make_mesh())
    return restored, logs.read_lines(workdir / "metrics.jsonl")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Sixty steps in one go, on all devices."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(games, "find", {"cycle": cycle_game}.__getitem__)
        return _trained(tmp_path_factory.mktemp("cycle") / "whole")


def test_it_trains(whole):
    restored, rows = whole
    assert restored.step == 60 and len(rows) == 60
    names = {name for name in rows[0] if "/" in name}
    assert {"generators/cycle", "discriminator_a/loss", "discriminator_b/grad_norm"} <= names
    assert all(np.isfinite(row[name]) for row in rows for name in names)
    first, last = (np.mean([row["generators/cycle"] for row in part]) for part in (rows[:5], rows[-5:]))
    assert last < 0.7 * first


def test_it_resumes_bit_for_bit(whole, tmp_path):
    """Pools, optimizers and averages included; cut where the pools are full and have swapped."""
    _trained(tmp_path / "cut", total_images=23 * 8)
    restored, rows = _trained(tmp_path / "cut")
    assert restored.run["digest"] == whole[0].run["digest"]
    for one, other in zip(jax.tree.leaves(restored.state), jax.tree.leaves(whole[0].state), strict=True):
        np.testing.assert_array_equal(one, other)
    assert [row["step"] for row in rows] == list(range(1, 61))
    assert [row["generators/loss"] for row in rows] == [row["generators/loss"] for row in whole[1]]


def test_the_loop_on_one_device_writes_the_same_lines(whole, tmp_path, monkeypatch):
    make_mesh = parallel.make_mesh
    monkeypatch.setattr(parallel, "make_mesh", lambda devices=None: make_mesh(jax.devices()[:1]))
    _, rows = _trained(tmp_path / "one", total_images=40)
    for ours, theirs in zip(rows, whole[1][:5], strict=True):
        for name in ours.keys() - {"images_per_second"}:
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-6), name


@functools.cache
def _on_one_device(accumulate):
    """A run, and the State after five steps on one device."""
    run = settings.build(_config(accumulate=accumulate, batch_size=16), (8, 8, 1))
    return run, settings.play(run, count=5)[0]


@pytest.mark.parametrize(("accumulate", "mode"), [(1, "shard_map"), (1, "pmap"), (2, "shard_map")])
def test_one_and_eight_devices_agree(accumulate, mode):
    run, one = _on_one_device(accumulate)
    eight, metrics = settings.play(run, count=5, devices=8, mode=mode)
    for part in ("params", "ema", "memory"):
        assert settings.largest_difference(getattr(one, part), getattr(eight, part)) < 1e-5, part
    assert int(one.images) == int(eight.images) == 80
    for domain in "ab":
        pool = eight.memory[domain]
        assert int(pool.filled) == 6 and len({image.tobytes() for image in np.asarray(pool.images)}) == 6
    assert not np.array_equal(eight.memory["a"].images, eight.memory["b"].images)
