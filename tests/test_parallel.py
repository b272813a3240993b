"""Devices and processes: who loads which rows, what is refused, and which values meet where."""

import glob
import logging
import shutil
import subprocess
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import painter, parallel, runs
from gan_jax.errors import UserError
from tests import settings

SPEC = jax.sharding.PartitionSpec


def _mesh(count=8):
    return parallel.make_mesh(jax.devices()[:count])


@pytest.mark.parametrize(
    ("batch", "processes", "accumulate"), [(12, 1, 1), (12, 2, 1), (12, 2, 3), (24, 4, 2)]
)
def test_local_rows_deal_every_micro_batch_over_the_processes(monkeypatch, batch, processes, accumulate):
    """Row r of micro-batch m belongs to the process in whose even share of the micro-batch it lies."""
    monkeypatch.setattr(jax, "process_count", lambda: processes)
    size, rows = batch // accumulate, []
    for process in range(processes):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        rows.append(parallel.local_rows(batch, accumulate))
    for process, mine in enumerate(rows):
        expected = [r for r in range(batch) if (r % size) // (size // processes) == process]
        assert mine.dtype == np.int64 and mine.tolist() == expected


@pytest.mark.parametrize(("batch", "accumulate"), [(12, 1), (8, 2), (0, 1), (-8, 1), (8, 0), (8, -1)])
def test_a_batch_that_cannot_be_dealt_is_refused(batch, accumulate):
    message = rf"config.batch_size={batch} .* 8 devices .*config.accumulate={accumulate} "
    with pytest.raises(UserError, match=message):
        parallel.check_batch_size(batch, accumulate, _mesh())


def test_the_refusal_tells_what_fits():
    with pytest.raises(UserError, match="positive multiple of 16"):
        parallel.check_batch_size(8, 2, _mesh())
    parallel.check_batch_size(32, 2, _mesh())
    parallel.check_batch_size(3, 1, _mesh(1))


@pytest.mark.parametrize(("devices", "accumulate"), [(1, 1), (4, 1), (4, 2), (2, 4)])
def test_shard_batch_keeps_the_order_of_rows(devices, accumulate):
    """Device d holds rows d * n to (d + 1) * n of each micro-batch."""
    x = np.arange(16 * 3, dtype=np.uint8).reshape(16, 3)
    whole = parallel.shard_batch({"image": x, "label": x[:, 0]}, _mesh(devices), accumulate)
    np.testing.assert_array_equal(whole["image"], x.reshape(accumulate, -1, 3))
    assert whole["label"].shape == (accumulate, 16 // accumulate) and whole["image"].dtype == np.uint8
    share = 16 // accumulate // devices
    for shard in whole["image"].addressable_shards:
        d = jax.devices().index(shard.device)
        np.testing.assert_array_equal(shard.data, whole["image"][:, d * share : (d + 1) * share])


def test_sample_index_counts_over_devices():
    dealt = SPEC(parallel.AXIS)
    count = jax.shard_map(lambda: parallel.sample_index(3), mesh=_mesh(4), in_specs=(), out_specs=dealt)
    np.testing.assert_array_equal(count(), np.arange(12))


@pytest.mark.parametrize("mode", ["shard_map", "pmap"])
def test_mean_averages_floats_and_leaves_integers_alone(mode):
    """An integer is a count, equal on every device; a float that is equal everywhere passes through too."""

    def step(state, batch):
        x = batch["x"].sum()
        tree = {"x": x, "half": x.astype(jnp.bfloat16), "count": state}
        return parallel.mean(tree), parallel.mean(2.0 * state)

    run = parallel.data_parallel(step, _mesh(), mode)
    batch = parallel.shard_batch({"x": np.arange(8, dtype=np.float32)}, _mesh())
    out, same = run(jax.device_put(jnp.int32(7), parallel.replicated(_mesh())), batch)
    assert float(out["x"]) == float(out["half"]) == 3.5 and out["half"].dtype == jnp.bfloat16
    assert int(out["count"]) == 7 and out["count"].dtype == jnp.int32 and float(same) == 14.0


def test_an_unknown_mode_is_refused():
    with pytest.raises(UserError, match="config.parallel='pmpa': expected one of shard_map, pmap"):
        parallel.data_parallel(lambda state, batch: (state, {}), _mesh(), "pmpa")


def test_pmap_is_for_one_process(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(UserError, match="config.parallel='shard_map' with several"):
        parallel.data_parallel(lambda state, batch: (state, {}), _mesh(), "pmap")


def test_samples_do_not_depend_on_devices_or_on_their_neighbours(monkeypatch):
    """The sampler fills its last pass up and cuts it: a sample is a function of its own key and label."""
    run = settings.build(settings.digits(conditional=True), num_classes=10)
    ema = jax.jit(lambda: runs.init_state(run).ema)()
    keys, labels = painter.keys_of(np.arange(13)), np.arange(13) % 10
    many = painter.sampler(run, batch_size=8)
    whole = many(ema, keys, {"label": labels})
    assert whole.shape == (13, 32, 32, 1) and whole.dtype == np.uint8
    assert len({x.tobytes() for x in whole}) == 13
    local = jax.local_devices
    monkeypatch.setattr(jax, "local_devices", lambda *args, **kwargs: local()[:1])
    one = painter.sampler(run, batch_size=5)(ema, keys, {"label": labels})
    apart = np.concatenate([many(ema, keys[i : i + 1], {"label": labels[i : i + 1]}) for i in (0, 12)])
    # The sums inside a convolution may be ordered otherwise for another batch, and turn a level at its edge.
    assert np.abs(one.astype(int) - whole).max() <= 1 and (one != whole).mean() < 1e-3
    assert np.abs(apart.astype(int) - whole[[0, 12]]).max() <= 1 and (apart != whole[[0, 12]]).mean() < 1e-3


def test_over_samples_takes_trees_and_deals_the_first_axis():
    double = parallel.over_samples(lambda shared, x: {"y": shared * x["a"] + x["b"]}, _mesh())
    x = {"a": jnp.arange(16.0), "b": jnp.ones(16)}
    out = double(jnp.float32(2.0), x)["y"]
    np.testing.assert_array_equal(out, 2 * np.arange(16.0) + 1)
    assert len(out.addressable_shards) == 8 and out.addressable_shards[0].data.shape == (2,)


def test_rows_of_one_process_are_all_rows():
    rows = np.arange(6).reshape(3, 2)
    assert parallel.from_all_processes(rows) is rows


def test_together_is_a_plain_call_in_one_process():
    def fail():
        raise UserError("mine")

    assert parallel.together(lambda: 3) == 3
    with pytest.raises(UserError, match="mine"):
        parallel.together(fail)


@pytest.mark.parametrize("mine", [False, True])
def test_together_fails_everywhere_where_it_fails_once(monkeypatch, mine):
    def action():
        if mine:
            raise UserError("mine")

    def from_all_processes(rows):
        if rows.dtype == bool:
            return np.array([rows[0], False, True])
        theirs = np.frombuffer(b"the disk is full".ljust(rows.shape[1]), np.uint8)
        return np.stack([rows[0], np.full_like(theirs, ord(" ")), theirs])

    monkeypatch.setattr(jax, "process_count", lambda: 3)
    monkeypatch.setattr(parallel, "from_all_processes", from_all_processes)
    with pytest.raises(UserError, match="mine" if mine else "process 2 could not begin: the disk is full"):
        parallel.together(action)


@pytest.fixture
def machine(monkeypatch):
    """Machines that are not there: (platform of JAX's devices, card files, nvidia-smi's output, JAX_PLATFORMS)."""

    def make(platform="cpu", files=(), listing=None, platforms=""):
        monkeypatch.setattr(glob, "glob", lambda pattern: list(files) if pattern.startswith("/dev/nvidia") else [])
        monkeypatch.setattr(shutil, "which", lambda name: None if listing is None else f"/usr/bin/{name}")
        answer = SimpleNamespace(returncode=0, stdout=listing)
        monkeypatch.setattr(subprocess, "run", lambda *arguments, **options: answer)
        monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(platform=platform)])
        monkeypatch.setattr(jax, "make_mesh", lambda *arguments, **options: None)
        monkeypatch.setattr(parallel.jax, "config", SimpleNamespace(jax_platforms=platforms))
        parallel._mention_idle_gpu.cache_clear()

    yield make
    parallel._mention_idle_gpu.cache_clear()


@pytest.mark.parametrize("sign", [{"files": ["/dev/nvidia0"]}, {"listing": "GPU 0: NVIDIA H100 (UUID: GPU-1)\n"}])
def test_a_gpu_that_jax_does_not_use_is_mentioned_once(machine, capfd, sign):
    machine(**sign)
    parallel.make_mesh()
    parallel.make_mesh()
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 and "pip install 'jax[cuda13]'" in lines[0] and "JAX_PLATFORMS=cpu" in lines[0]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"listing": "No devices found.\n"},
        {"platform": "gpu", "files": ["/dev/nvidia0"]},
        {"platforms": "cpu", "files": ["/dev/nvidia0"]},
    ],
    ids=["no card", "none listed", "it is used", "the CPU is asked for"],
)
def test_nothing_is_said_of_gpus(machine, capfd, settings):
    machine(**settings)
    parallel.make_mesh()
    assert capfd.readouterr() == ("", "")


def test_jax_may_say_why_a_gpu_is_not_used():
    logger = logging.getLogger("jax._src.xla_bridge")
    level = logger.level
    try:
        logger.setLevel(logging.NOTSET)
        parallel.silence()
        assert logger.isEnabledFor(logging.WARNING)
    finally:
        logger.setLevel(level)
