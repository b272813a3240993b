"""One vector for a net's arrays: what it stands for comes back, and optimizers do to it what they do to the arrays."""

import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import flat, optim, parallel, runs
from gan_jax import step as steps
from tests import settings


def _tree(seed: int, names=("a", "b")) -> dict:
    rng = np.random.default_rng(seed)
    shapes = {"kernel": (3, 2, 4), "bias": (4,), "strength": ()}
    return {net: {"layer": {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}} for net in names}


def test_arrays_lie_one_after_another_and_come_back():
    tree = _tree(0)["a"]
    packed = flat.pack(tree)
    ordered = [tree["layer"][name] for name in sorted(tree["layer"])]
    np.testing.assert_array_equal(packed.vector, np.concatenate([x.ravel() for x in ordered]))
    back = flat.unpack({"net": packed, "other": np.arange(3)})
    assert settings.largest_difference(back["net"], tree) == 0 and (back["other"] == np.arange(3)).all()
    assert [size for _, size in flat.segments(packed)] == [4, 24, 1]


@pytest.mark.parametrize("leaves", [(), (np.zeros(2, np.float16),), (np.zeros(2, np.float32), np.zeros(2, np.int32))])
def test_only_float32_arrays_fit(leaves):
    assert not flat.fits(leaves)


@pytest.mark.parametrize("name", optim.ELEMENTWISE)
def test_an_optimizer_moves_a_vector_as_it_moves_its_arrays(name):
    """Every optimizer of the table, with clipping, L2, decay and a frozen part, over three updates."""
    section = {"name": name, "learning_rate": 0.1, "clip_norm": 3.0, "l2": 0.01, "weight_decay": 0.02,
               "frozen": ("layer/bias",), "warmup_images": 20.0}  # fmt: skip
    optimizer = optim.optimizer(section, batch_size=8, total_images=100)
    assert optimizer.elementwise
    named = _tree(1)
    vectors = {net: flat.pack(tree) for net, tree in named.items()}
    of_named, of_vectors = optimizer.init(named), optimizer.init(vectors)

    @jax.jit
    def move(params, state, grads, images):
        updates, state = optimizer.update(grads, state, params, images)
        return jax.tree.map(jnp.add, params, updates), state

    for number in range(3):
        grads, images = _tree(10 + number), jnp.int32(8 * number)
        packed = {net: flat.pack(tree) for net, tree in grads.items()}
        named, of_named = move(named, of_named, grads, images)
        vectors, of_vectors = move(vectors, of_vectors, packed, images)
    assert settings.largest_difference(flat.unpack(vectors), named) < 1e-6
    assert settings.largest_difference(flat.unpack(of_vectors), of_named, floor=1e-6) < 1e-5
    np.testing.assert_array_equal(named["a"]["layer"]["bias"], _tree(1)["a"]["layer"]["bias"])


def test_an_optimizer_of_whole_arrays_keeps_them():
    """Lamb scales an update by the norms of its array, so that a vector of several would move otherwise."""
    config = settings.digits(optim__generator__name="lamb")
    run = settings.build(config)
    state = runs.pack(run, runs.fresh_state(run), settings.mesh(1))
    assert flat.is_flat(state.params["discriminator"]) and not flat.is_flat(state.params["generator"])
    leaves = jax.tree.leaves((state.opt["generator"], state.ema["generator"]), is_leaf=flat.is_flat)
    assert not any(map(flat.is_flat, leaves))


def test_moments_of_another_type_stay_apart():
    optimizer = optim.optimizer({"options": {"mu_dtype": "bfloat16"}}, batch_size=8, total_images=100)
    assert not optimizer.elementwise
    run = settings.build(settings.digits(data__resolution=8, batch_size=8), shape=(8, 8, 1))
    state = runs.fresh_state(run)
    assert not flat.is_flat(
        steps.packed(state, run.phases, {**run.optimizers, "generator": optimizer}).params["generator"]
    )


def test_large_arrays_stay_named_on_a_cpu(monkeypatch):
    """Of a network whose arrays are large on average, with its moments and its average; elsewhere they are a vector."""
    run = settings.build(settings.digits(data__resolution=8, batch_size=8), shape=(8, 8, 1))
    state = runs.fresh_state(run)
    means = {net: np.mean([leaf.size for leaf in jax.tree.leaves(tree)]) for net, tree in state.params.items()}
    assert means["discriminator"] < means["generator"]
    monkeypatch.setattr(runs, "MEAN_SIZE_ON_CPU", means["discriminator"])
    on_cpu = runs.pack(run, state, settings.mesh(1))
    assert flat.is_flat(on_cpu.params["discriminator"]) and not flat.is_flat(on_cpu.params["generator"])
    leaves = jax.tree.leaves((on_cpu.opt["generator"], on_cpu.ema["generator"]), is_leaf=flat.is_flat)
    assert not any(map(flat.is_flat, leaves))
    gpu = types.SimpleNamespace(platform="gpu")
    on_gpu = runs.pack(run, state, types.SimpleNamespace(devices=np.array([gpu])))
    assert all(flat.is_flat(tree) for tree in on_gpu.params.values())


def test_a_packed_state_is_that_state():
    """Parameters, both moments and the average are vectors, and named they are what they were."""
    run = settings.build(settings.digits())
    state = runs.fresh_state(run)
    packed = runs.pack(run, state, settings.mesh(1))
    vectors = [x for x in jax.tree.leaves(packed, is_leaf=flat.is_flat) if flat.is_flat(x)]
    assert len(vectors) == 2 * 3 + 1  # of each player parameters and two moments; the generator's average
    back = flat.unpack(packed)
    assert jax.tree.structure(back) == jax.tree.structure(state) and settings.largest_difference(back, state) == 0


@pytest.mark.parametrize("optimizer", [{}, {"optim__generator__name": "lamb"}, {"accumulate": 2}])
def test_a_step_on_vectors_is_the_step_on_named_arrays(optimizer):
    run = settings.build(settings.digits(data__resolution=8, batch_size=8, **optimizer), shape=(8, 8, 1))
    state = runs.fresh_state(run)
    moved, metrics = settings.play(run, count=1)
    mesh = settings.mesh(1)
    step = parallel.data_parallel(steps.make_step(run.phases, run.optimizers, seed=0, ema=run.ema), mesh)
    batch = parallel.shard_batch(settings.random_batch(run, 0), mesh, run.config.accumulate)
    named, measured = step(parallel.replicate(state, mesh), batch)
    assert settings.largest_difference(moved, jax.device_get(named), floor=1e-3) < 1e-4
    assert metrics[0].keys() == measured.keys()
    for name, value in measured.items():
        assert float(metrics[0][name]) == pytest.approx(float(value), rel=1e-4, abs=1e-6), name


def test_no_moment_is_copied_on_a_cpu():
    """Their buffers are donated; XLA would copy a first moment that is written before the update has read it."""
    run = settings.build(settings.digits(data__resolution=8, batch_size=8), shape=(8, 8, 1))
    mesh = settings.mesh(1)
    state = parallel.replicate(runs.pack(run, runs.fresh_state(run), mesh), mesh)
    step = parallel.data_parallel(steps.make_step(run.phases, run.optimizers, seed=0, ema=run.ema), mesh)
    batch = parallel.shard_batch(settings.random_batch(run, 0), mesh, run.config.accumulate)
    text = step.lower(state, batch).compile().as_text()
    assert "state_opt__generator___0__0__mu" in text  # as XLA names the State's arrays
    assert not re.findall(r"copy\(%state_opt\S*__[mn]u\S*\)", text)
