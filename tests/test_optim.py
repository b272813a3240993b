"""Optimizers against optax, numpy and recorded updates; schedules and averages against closed forms."""

import inspect
import json
import pathlib
import warnings

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest

from gan_jax import optim
from gan_jax.errors import UserError

GOLDEN = pathlib.Path(__file__).parent / "golden"


def make(section=None, *, batch_size=10, total_images=1000, lazy=0):
    return optim.optimizer(section or {}, batch_size=batch_size, total_images=total_images, lazy=lazy)


def tree(seed):
    rng = np.random.default_rng(seed)
    return {"w": jnp.asarray(rng.standard_normal((3, 4)), jnp.float32), "b": jnp.asarray([0.5, -0.2])}


def play(optimizer, steps=3, batch_size=10):
    params = tree(0)
    state = optimizer.init(params)
    for step in range(steps):
        updates, state = optimizer.update(tree(step + 1), state, params, jnp.int32(step * batch_size))
        params = optax.apply_updates(params, updates)
    return params


def play_optax(tx, steps=3):
    params = tree(0)
    state = tx.init(params)
    for step in range(steps):
        updates, state = tx.update(tree(step + 1), state, params)
        params = optax.apply_updates(params, updates)
    return params


def same(actual, expected, rtol=1e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-7), actual, expected)


@pytest.mark.parametrize(
    "section, tx",
    [
        ({}, optax.adam(2e-4, b1=0.5, b2=0.999)),
        (
            {"learning_rate": 0.1, "b1": 0.0, "b2": 0.9, "eps": 1e-3},
            optax.adam(0.1, b1=0.0, b2=0.9, eps=1e-3),
        ),
        (
            {"options": {"eps_root": 1e-2, "nesterov": True}},
            optax.adam(2e-4, 0.5, eps_root=1e-2, nesterov=True),
        ),
        (
            {"name": "adamw", "learning_rate": 0.01, "weight_decay": 0.3},
            optax.adamw(0.01, b1=0.5, weight_decay=0.3),
        ),
        ({"weight_decay": 0.3, "learning_rate": 0.01}, optax.adamw(0.01, b1=0.5, weight_decay=0.3)),
        ({"l2": 0.3}, optax.chain(optax.add_decayed_weights(0.3), optax.adam(2e-4, b1=0.5))),
        ({"name": "sgd", "learning_rate": 0.1}, optax.sgd(0.1)),
        (
            {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9, "options": {"nesterov": True}},
            optax.sgd(0.1, momentum=0.9, nesterov=True),
        ),
        ({"name": "rmsprop", "learning_rate": 0.1, "options": {"decay": 0.8}}, optax.rmsprop(0.1, decay=0.8)),
        (
            {"name": "sgd", "learning_rate": 0.1, "clip_norm": 0.5},
            optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(0.1)),
        ),
    ],
)
def test_constant_rate_equals_optax(section, tx):
    same(play(make(section)), play_optax(tx))


def test_adam_in_numpy():
    params, m, v = np.asarray(tree(0)["w"], np.float64), 0.0, 0.0
    for t in (1, 2, 3):
        g = np.asarray(tree(t)["w"], np.float64)
        m, v = 0.5 * m + 0.5 * g, 0.99 * v + 0.01 * g**2
        params = params - 0.01 * (m / (1 - 0.5**t)) / (np.sqrt(v / (1 - 0.99**t)) + 1e-8)
    same(play(make({"learning_rate": 0.01, "b2": 0.99}))["w"], params, rtol=1e-5)


def test_config_dict_section():
    section = ml_collections.ConfigDict({"name": "adam", "b1": 0.0, "options": {"eps_root": 0.1}})
    same(play(make(section)), play_optax(optax.adam(2e-4, b1=0.0, eps_root=0.1)))


@pytest.mark.parametrize(
    "name", ["adabelief", "adagrad", "lamb", "lars", "lion", "nadam", "novograd", "yogi"]
)
def test_any_proportional_optax_optimizer(name):
    """The direction at rate 1, scaled, is the step at that rate."""
    section = {"name": name, "learning_rate": 0.03, "weight_decay": 0.01}
    optimizer = make(section)
    kwargs = {"b1": 0.5, "b2": 0.999, "eps": 1e-8, "momentum": 0.0, "weight_decay": 0.01}
    accepted = inspect.signature(getattr(optax, name)).parameters
    tx = getattr(optax, name)(0.03, **{k: v for k, v in kwargs.items() if k in accepted})
    if "weight_decay" not in accepted:
        tx = optax.chain(tx, optax.add_decayed_weights(-0.03 * 0.01))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # optax announces future changes of some of them
        same(play(optimizer, steps=2), play_optax(tx, steps=2), rtol=1e-5)


def rates(section, images, **kwargs):
    rate = jax.jit(make(section, **kwargs).learning_rate)
    values = [rate(jnp.int32(n)) for n in images]
    assert all(v.dtype == jnp.float32 and v.shape == () for v in values)
    return np.array(values)


def test_schedules_at_given_images():
    def check(section, table, **kwargs):
        actual = rates({"learning_rate": 2.0, **section}, list(table), **kwargs)
        np.testing.assert_allclose(actual, list(table.values()), rtol=1e-6, atol=1e-7)

    check({}, {0: 2.0, 500: 2.0, 2000: 2.0})
    check({"warmup_images": 100}, {0: 0.0, 25: 0.5, 100: 2.0, 900: 2.0})
    check({"warmup_images": 100, "warmup_factor": 0.4}, {0: 0.8, 25: 1.1, 100: 2.0, 900: 2.0})
    check({"warmup_images": 100, "warmup_factor": 1.5}, {0: 3.0, 50: 2.5, 100: 2.0})  # it may fall, too
    check({"warmup_factor": 0.4}, {0: 2.0, 100: 2.0})  # over no images
    check({"schedule": "linear"}, {0: 2.0, 250: 1.5, 1000: 0.0, 1100: 0.0})
    check({"schedule": "linear", "final_factor": 0.5, "decay_images": 100}, {0: 2.0, 50: 1.5, 500: 1.0})
    check({"schedule": "linear", "decay_begin_images": 500}, {0: 2.0, 500: 2.0, 750: 1.0, 1000: 0.0})
    check({"schedule": "cosine", "final_factor": 0.1}, {0: 2.0, 500: 1.1, 1000: 0.2, 5000: 0.2})
    check({"schedule": "linear", "warmup_images": 500}, {250: 0.75, 500: 1.0})  # the product of the two


def test_exponential_schedule_of_the_first_gan():
    """1406.2661: .1 / 1.000004^updates, batches of 100, at least 1e-6."""
    section = {"learning_rate": 0.1, "schedule": "exponential", "decay_rate": 1.000004, "final_factor": 1e-5}
    updates = np.array([0, 1000, 125_000, 2_000_000, 9_000_000])
    expected = np.maximum(0.1 / 1.000004**updates, 1e-6)
    np.testing.assert_allclose(rates(section, updates * 100, batch_size=100), expected, rtol=2e-6)


def test_linear_schedule_matches_cyclegan():
    """That code sets its rate per epoch, begins one early and reaches zero one late: 101 epochs long."""
    golden = np.load(GOLDEN / "cyclegan_losses_pool.npz")["out64/linear_lr_per_epoch"]
    epoch = 1000
    section = {"schedule": "linear", "decay_begin_images": 99 * epoch, "decay_images": 101 * epoch}
    actual = rates(section, np.arange(201) * epoch, total_images=200 * epoch)
    np.testing.assert_allclose(actual, golden, rtol=1e-5, atol=1e-10)


def test_cosine_schedule_matches_r3gan():
    golden = np.load(GOLDEN / "r3gan_ops.npz")
    columns = json.loads(str(golden["meta"]))["schedule_columns"]
    checked = warmed = 0
    for row in golden["schedule/table"]:
        row = dict(zip(columns, row, strict=True))
        if row["base_value"] <= 0 or row["final_value"] < 0:
            continue  # a rate is positive
        begin = row["warmup_nimg"] + row["hold_base_value_nimg"]
        section = {
            "learning_rate": row["base_value"],
            "schedule": "cosine",
            "warmup_images": row["warmup_nimg"],
            "warmup_factor": row["warmup_value"] / row["base_value"],
            "decay_begin_images": begin,
            "decay_images": row["total_nimg"] - begin,
            "final_factor": row["final_value"] / row["base_value"],
        }
        np.testing.assert_allclose(rates(section, [row["cur_nimg"]])[0], row["value"], rtol=1e-5, atol=1e-12)
        checked += 1
        warmed += row["warmup_value"] > 0
    assert checked >= 10 and warmed


def test_rate_follows_images_not_updates():
    optimizer = make({"name": "sgd", "learning_rate": 1.0, "schedule": "linear"})
    params = {"w": jnp.ones(2)}
    state = optimizer.init(params)
    for _ in range(3):
        updates, state = optimizer.update({"w": jnp.ones(2)}, state, params, jnp.int32(750))
        np.testing.assert_array_equal(updates["w"], [-0.25, -0.25])


def test_lazy_correction_matches_stylegan2():
    """Two updates of an Adam, main and penalty, of recorded gradients; the penalty's holds its factor k."""
    golden = dict(np.load(GOLDEN / "sg2_optimizer.npz"))
    meta = json.loads(str(golden["meta"]))
    (b1, b2), lazy = meta["base_betas"], meta["D_reg_interval"]
    section = {"learning_rate": meta["base_lr"], "b1": b1, "b2": b2, "eps": meta["eps"]}
    optimizer = make(section, batch_size=meta["batch"], total_images=10**6, lazy=lazy)
    np.testing.assert_allclose(optimizer.learning_rate(0), meta["D_adam"]["lr"], rtol=1e-6)

    names = [k.removeprefix("seq1_grad/Dreg/") for k in golden if k.startswith("seq1_grad/Dreg/")]
    params = {n: jnp.asarray(golden[f"params/D/{n}"]) for n in names}
    state = optimizer.init(params)
    for phase in ("Dmain", "Dreg"):
        grads = {n: jnp.asarray(golden[f"seq1_grad/{phase}/{n}"]) for n in names}
        updates, state = optimizer.update(grads, state, params, meta["cur_nimg_at_start"])
        params = optax.apply_updates(params, updates)
    moments = optax.tree_utils.tree_get(state, "nu")
    assert len(names) == 6
    for n in names:
        np.testing.assert_allclose(params[n], golden[f"seq1_params/D/{n}"], rtol=1e-5, atol=1e-7, err_msg=n)
        np.testing.assert_allclose(moments[n], golden[f"seq1_adam_v/D/{n}"], rtol=2e-5, atol=1e-12, err_msg=n)


@pytest.mark.parametrize("lazy, c", [(0, 1.0), (1, 1.0), (4, 0.8)])
def test_lazy_correction_of_both_moments(lazy, c):
    optimizer = make({"b1": 0.5, "b2": 0.9, "learning_rate": 0.01}, lazy=lazy)
    same(play(optimizer), play_optax(optax.adam(0.01 * c, b1=0.5**c, b2=0.9**c)))
    rms = make({"name": "rmsprop", "learning_rate": 0.01}, lazy=lazy)
    same(play(rms), play_optax(optax.rmsprop(0.01 * c, decay=0.9**c)))


def test_updates_under_jit_keep_types():
    optimizer = make({"schedule": "cosine", "warmup_images": 10, "clip_norm": 1.0, "weight_decay": 0.1})
    params = tree(0)
    state = optimizer.init(params)
    updates, after = jax.jit(optimizer.update)(tree(1), state, params, jnp.int32(5))
    assert all(u.dtype == jnp.float32 for u in jax.tree.leaves(updates))
    assert jax.tree.structure(after) == jax.tree.structure(state)


@pytest.mark.parametrize(
    "section, message",
    [
        ({"lr": 1e-3}, "unknown optimizer setting 'lr'"),
        ({"learning_rates": 1e-3}, "nearest: learning_rate"),
        ({"name": "adm"}, "'adm'.*nearest: adam"),
        ({"name": "fromage"}, "proportional"),
        ({"name": "scale_by_adam"}, "proportional"),
        ({"name": "chain"}, "proportional"),
        ({"options": {"nesterof": True}}, "adam has no option 'nesterof'.*nearest: nesterov"),
        ({"options": {"b1": 0.9}}, "set `b1` in the optimizer's section"),
        ({"options": {"learning_rate": 0.9}}, "set `learning_rate` in"),
        ({"schedule": "liner"}, "nearest: linear"),
        ({"schedule": "linear", "decay_begin_images": 1000}, "at or after the end"),
        ({"b1": 1.0}, "b1=1.0"),
        ({"learning_rate": float("nan")}, "learning_rate=nan"),
        ({"clip_norm": -1.0}, "clip_norm=-1.0"),
        ({"warmup_images": -1}, "warmup_images=-1"),
        ({"warmup_factor": -0.1}, "warmup_factor=-0.1"),
        ({"schedule": "exponential", "decay_rate": 0.0}, "decay_rate=0.0"),
    ],
)
def test_mistakes(section, message):
    with pytest.raises(UserError, match=message):
        make(section)


def test_ema_decay():
    half = optim.ema_decay(64, 6400.0, jnp.int32(10**6))
    np.testing.assert_allclose(half**100, 0.5, rtol=1e-5)
    assert half.dtype == jnp.float32
    assert float(optim.ema_decay(64, 0.0, jnp.int32(5))) == 0.0
    assert float(optim.ema_decay(64, 6400.0, jnp.int32(0), rampup=0.05)) == 0.0
    ramped = optim.ema_decay(64, 6400.0, jnp.int32(64_000), rampup=0.05)
    np.testing.assert_allclose(ramped, 0.5 ** (64 / 3200), rtol=1e-6)
    np.testing.assert_allclose(optim.ema_decay(64, 6400.0, jnp.int32(640_000), rampup=0.05), half, rtol=1e-6)


def test_ema_matches_stylegan2():
    golden = dict(np.load(GOLDEN / "sg2_optimizer.npz"))
    meta = json.loads(str(golden["meta"]))
    decay = optim.ema_decay(meta["batch"], meta["ema_kimg"] * 1000, jnp.int32(meta["cur_nimg_at_start"]))
    np.testing.assert_allclose(decay, golden["seq1_ema_beta"], rtol=1e-7)
    name = "synthesis.b4.torgb.weight"
    after = optim.ema_update(golden[f"params/G_ema/{name}"], golden[f"seq1_params/G/{name}"], decay)
    np.testing.assert_allclose(after, golden[f"seq1_params/G_ema/{name}"], rtol=1e-6, atol=1e-7)


def test_ema_update_copies_exactly():
    old, new = (
        {"w": jnp.array([1e8, 0.3]), "n": jnp.int32(1)},
        {"w": jnp.array([0.1, 0.7]), "n": jnp.int32(5)},
    )
    copied = optim.ema_update(old, new, jnp.float32(0.0))
    np.testing.assert_array_equal(copied["w"], new["w"])
    average = optim.ema_update(new, new, 0.9)
    np.testing.assert_array_equal(average["w"], new["w"])
    assert int(optim.ema_update(old, new, 0.9)["n"]) == 5


def test_global_norm():
    assert float(optim.global_norm({"a": jnp.array([3.0]), "b": {"c": jnp.array([[4.0]])}})) == 5.0
    assert float(optim.global_norm({})) == 0.0
