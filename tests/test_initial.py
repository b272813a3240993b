"""Fresh values without a compiler: the random bits of JAX, and the parameters that its own jitted `init` draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import initial, runs
from tests import settings


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5), (1 << 15,), ((1 << 15) + 3,)])
def test_bits_are_those_of_jax(shape):
    for seed in (0, 1, 2**32 - 1):
        key = jax.random.fold_in(jax.random.key(seed), 7)
        bits = initial.evaluate(lambda k: jax.random.bits(jax.random.fold_in(k, 3), shape), key)  # noqa: B023
        np.testing.assert_array_equal(bits, jax.random.bits(jax.random.fold_in(key, 3), shape))


def test_threefry_on_published_vectors():
    """Known answers of Random123's threefry2x32, 20 rounds (Salmon et al. 2011)."""
    ones = np.uint32(0xFFFFFFFF)
    pi = [np.uint32(x) for x in (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)]
    for counter, key, expected in (
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((ones, ones), (ones, ones), (0x1CB996FC, 0xBB002BE7)),
        ((pi[0], pi[1]), (pi[2], pi[3]), (0xC4923A9C, 0x483DF7A0)),
    ):
        with np.errstate(over="ignore"):
            x, y = initial.threefry(np.array(key, np.uint32), *(np.array([c], np.uint32) for c in counter))
        assert (int(x[0]), int(y[0])) == expected


def test_draws_and_arithmetic_are_those_of_jax():
    """Distributions, split keys, and operations for which numpy has no rule here: a sort, a loop and a product."""

    def function(key):
        first, second = jax.random.split(key)
        loop = jax.lax.fori_loop(0, 3, lambda _, x: 2 * x, jnp.float32(1))
        sums = jnp.sort(jax.random.uniform(second, (5,), minval=-1.0, maxval=3.0)), loop
        initializer = jax.nn.initializers.orthogonal()
        return {"normal": 3 * jax.random.normal(first, (4, 9)), "key": second, "sums": sums,
                "truncated": jax.nn.initializers.lecun_normal()(first, (6, 5)), "q": initializer(second, (4, 4)),
                "whole": jax.random.randint(first, (6,), 0, 10)}  # fmt: skip

    ours, theirs = initial.evaluate(function, jax.random.key(5)), jax.jit(function)(jax.random.key(5))
    assert (jax.random.key_data(ours.pop("key")) == jax.random.key_data(theirs.pop("key"))).all()
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert x.dtype == y.dtype and x.shape == y.shape
        np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-6)


def test_what_numpy_does_otherwise_is_left_to_jax():
    """Batches of keys, other widths, signed shifts and whole-number division."""

    def function(key):
        keys = jax.random.split(key, 4)
        folded = jax.vmap(jax.random.fold_in, (0, 0))(keys, jnp.arange(4))
        whole = jnp.arange(-3, 4)
        return {"folded": jax.random.key_data(folded), "normals": jax.vmap(lambda k: jax.random.normal(k, (3,)))(keys),
                "split": jax.random.key_data(jax.vmap(lambda k: jax.random.split(k, 1))(keys)),
                "narrow": jax.random.normal(key, (5,), jnp.bfloat16).astype(jnp.float32),
                "shifted": jax.lax.shift_right_logical(whole, jnp.full_like(whole, 4)),
                "quotient": jax.lax.div(whole, jnp.full_like(whole, 2))}  # fmt: skip

    ours, theirs = initial.evaluate(function, jax.random.key(9)), jax.jit(function)(jax.random.key(9))
    for name, value in theirs.items():
        assert ours[name].dtype == value.dtype
        rtol = 2.0**-7 if name == "narrow" else 1e-5  # eight bits, which compiled code rounds to less often
        np.testing.assert_allclose(ours[name], value, rtol=rtol, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    ("experiment", "shape"),
    [("digits_dcgan.py", (32, 32, 1)), ("digits_stylegan2.py", (16, 16, 1)), ("cifar10_sngan.py", (32, 32, 3))],
)
def test_a_fresh_state_is_that_of_jax(experiment, shape):
    config = runs.load_config(f"{settings.EXPERIMENTS / experiment}:smoke")
    run = settings.build(config, shape)
    ours, theirs = runs.fresh_state(run), jax.jit(lambda: runs.init_state(run))()
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert np.asarray(x).dtype == y.dtype and np.shape(x) == y.shape
    assert settings.largest_difference(ours, theirs) < 1e-5


def test_a_fresh_state_compiles_nothing(monkeypatch):
    """Of a StyleGAN2, whose draws were a quarter of a minute to compile."""
    run = settings.build(runs.load_config(f"{settings.EXPERIMENTS / 'digits_stylegan2.py'}:smoke"), (16, 16, 1))
    compiled = []
    listen = lambda name, *_, **__: compiled.append(name) if "backend_compile" in name else None  # noqa: E731
    jax.monitoring.register_event_duration_secs_listener(listen)
    jax.clear_caches()
    try:
        runs.pack(run, runs.fresh_state(run), settings.mesh(1))
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert len(compiled) <= 2, compiled  # keys
