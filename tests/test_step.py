"""One step on one device and on many, in both modes, whole and in micro-batches."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import optim, parallel, runs
from gan_jax import step as steps
from tests import hlo, settings

# Plain descent and activations without a kink: Adam turns rounding into whole steps, and among the million activations
# of a few steps some lie so near zero that rounding decides on which side of a ReLU they are.
SGD = dict(
    optim__generator__name="sgd",
    optim__generator__learning_rate=0.05,
    optim__discriminator__name="sgd",
    optim__discriminator__learning_rate=0.05,
    generator__activation="leaky_relu",
    generator__slope=1.0,
    discriminator__slope=1.0,
)


@pytest.fixture(scope="module")
def one_device():
    """BatchNorm, a lazy R1 penalty and conditional players, five steps on one device."""
    lazy = dict(loss__r1_gamma=0.5, every__penalty_steps=2)
    run = settings.build(settings.digits(**SGD, **lazy, batch_size=16, conditional=True), num_classes=10)
    return run, *settings.play(run, count=5)


@pytest.mark.parametrize(("devices", "mode"), [(2, "shard_map"), (8, "shard_map"), (1, "pmap"), (8, "pmap")])
def test_devices_and_modes_agree_after_five_steps(one_device, devices, mode):
    run, state, _ = one_device
    other, _ = settings.play(run, count=5, devices=devices, mode=mode)
    assert int(other.step) == 5 and int(other.images) == 80
    for part in ("params", "variables", "ema"):
        assert settings.largest_difference(getattr(state, part), getattr(other, part)) < 2e-5, part


def test_first_gradients_agree_under_adam():
    """Adam turns rounding into whole steps, so its runs are compared by what enters it."""
    run = settings.build(settings.digits(batch_size=16))
    _, one = settings.play(run, count=1)
    _, eight = settings.play(run, count=1, devices=8)
    for name in one[0]:
        assert eight[0][name] == pytest.approx(one[0][name], rel=1e-4, abs=1e-6), name


@functools.cache
def _three_whole_steps():
    """A config without batch normalisation, and the State after three steps of whole batches."""
    config = settings.digits(**SGD, batch_size=16, generator__norm="none", discriminator__norm="none")
    return config, settings.play(settings.build(config), count=3)[0]


@pytest.mark.parametrize("devices", [1, 2])
def test_accumulation_without_batch_norm_equals_the_whole_batch(devices):
    config, whole = _three_whole_steps()
    config = config.copy_and_resolve_references()
    config.accumulate = 4
    parts, _ = settings.play(settings.build(config), count=3, devices=devices)
    # The first bias has no gradient but rounding (1e-8), which its own size cannot judge.
    assert settings.largest_difference(whole.params, parts.params, floor=1e-3) < 1e-5


def test_accumulation_with_batch_norm_agrees_on_devices():
    config = settings.digits(**SGD, batch_size=16, accumulate=2)
    one, _ = settings.play(settings.build(config), count=3)
    two, _ = settings.play(settings.build(config), count=3, devices=4)
    assert settings.largest_difference((one.params, one.variables), (two.params, two.variables)) < 2e-5


def _toy(loss, ema=()):
    phases = (steps.Phase("only", loss, ("net",), "player"),)
    optimizers = {"player": optim.optimizer(dict(name="sgd", learning_rate=1.0), batch_size=8, total_images=80)}
    params = {"net": jnp.float32(1.0)}
    state = steps.State(jnp.int32(0), jnp.int32(0), params, {}, steps.init_optimizers(phases, optimizers, params),
                        steps.init_ema(ema, params, {}), ())  # fmt: skip
    return phases, optimizers, state


@pytest.mark.parametrize("devices", [1, 8])
def test_gradient_is_the_mean_over_all_devices(devices):
    """d/dp mean_i p x_i = mean of x: neither a sum over devices nor one device's share."""

    def loss(params, state, batch, rng):
        return (params["net"] * batch["image"]).mean(), steps.Out({}, {})

    phases, optimizers, state = _toy(loss)
    mesh = parallel.make_mesh(jax.devices()[:devices])
    x = np.arange(8, dtype=np.float32)
    step = parallel.data_parallel(steps.make_step(phases, optimizers, seed=0), mesh)
    state, metrics = step(jax.device_put(state, parallel.replicated(mesh)), parallel.shard_batch({"image": x}, mesh))
    assert float(state.params["net"]) == pytest.approx(1.0 - x.mean())
    assert float(metrics["only/grad_norm"]) == pytest.approx(x.mean())
    assert float(metrics["only/loss"]) == pytest.approx(x.mean())


@pytest.mark.parametrize(("devices", "mode"), [(1, "shard_map"), (8, "shard_map"), (8, "pmap")])
def test_fixed_networks_are_seen_by_losses_and_do_not_move(devices, mode):
    """(w - c)^2 / 4 for a c among the numbers: a step of rate 1 leads half of the way, in micro-batches too."""

    def loss(params, state, batch, rng):
        return 0.25 * jnp.square(params["net"] - params["teacher"]["c"]) * batch["image"].mean(), steps.Out({}, {})

    phases, optimizers, state = _toy(loss)
    mesh = parallel.make_mesh(jax.devices()[:devices])
    numbers = steps.hyper(phases, optimizers, seed=0)._replace(fixed={"teacher": {"c": np.float32(5)}})
    step = parallel.data_parallel(steps.make_step(phases, optimizers, seed=0), mesh, mode)
    batch = parallel.shard_batch({"image": np.ones((16, 1), np.float32)}, mesh, 2)
    after, _ = step(parallel.replicate(state, mesh), batch, parallel.replicate(numbers, mesh))
    assert set(after.params) == {"net"}
    assert float(after.params["net"].addressable_data(0).reshape(())) == 3.0


def test_a_forgotten_mean_is_an_error_at_trace_time():
    def loss(params, state, batch, rng):
        return params["net"] * 0.0, steps.Out({}, {}, memory=(batch["image"].sum(),))

    phases, optimizers, state = _toy(loss)
    mesh = parallel.make_mesh()
    step = parallel.data_parallel(steps.make_step(phases, optimizers, seed=0), mesh)
    with pytest.raises(ValueError, match="out_specs|replicat|varying"):
        state = state._replace(memory=(jnp.float32(0),))
        step(state, parallel.shard_batch({"image": np.ones(8, np.float32)}, mesh))


def test_ema_is_a_half_life_in_images():
    """After the half-life, an average of a weight that jumped from 1 to 0 and stays there is one half."""
    phases, optimizers, state = _toy(lambda p, s, b, r: (p["net"] * (s.step == 0), steps.Out({}, {})), ema=("net",))
    mesh = parallel.make_mesh(jax.devices()[:1])
    ema = steps.Ema(("net",), half_life_images=32.0)
    step = parallel.data_parallel(steps.make_step(phases, optimizers, seed=0, ema=ema), mesh)
    for _ in range(4):  # 4 steps of 8 images
        state, _ = step(state, parallel.shard_batch({"image": np.zeros(8, np.float32)}, mesh))
    assert float(state.params["net"]) == 0.0
    assert float(state.ema["net"]["params"]) == pytest.approx(0.5)


def test_randomness_belongs_to_seed_step_phase_and_sample():
    """Draws do not move with the number of devices or micro-batches, and differ in everything else."""

    def draws(seed, devices, accumulate=1, name="only"):
        seen = []

        def loss(params, state, batch, rng):
            u = jax.vmap(jax.random.uniform)(rng.samples)
            return params["net"] * (u * batch["image"]).sum(), steps.Out({"draw": u[0]}, {})

        phases, optimizers, state = _toy(loss)
        phases = (phases[0]._replace(name=name),)
        mesh = parallel.make_mesh(jax.devices()[:devices])
        step = parallel.data_parallel(steps.make_step(phases, optimizers, seed=seed), mesh)
        for _ in range(2):
            batch = parallel.shard_batch({"image": np.arange(16, dtype=np.float32)}, mesh, accumulate)
            state, metrics = step(state, batch)
            seen.append(float(metrics[f"{name}/grad_norm"]) * devices * accumulate)
        return seen

    base = draws(0, 1)
    assert draws(0, 8) == pytest.approx(base) and draws(0, 2, accumulate=4) == pytest.approx(base)
    assert base[0] != base[1]
    assert draws(1, 1) != base and draws(0, 1, name="other") != base


@pytest.mark.parametrize(("devices", "accumulate"), [(1, 4), (2, 4), (8, 1)])
def test_no_two_keys_of_a_run_are_equal(devices, accumulate):
    """Those of samples and of batches, over steps and phases."""
    seen = []

    def loss(params, state, batch, rng):
        words = [parallel.gather(jax.random.key_data(rng.samples)), jax.random.key_data(rng.key)[None]]
        jax.debug.callback(lambda *words: seen.append(np.concatenate(words)), *words)
        return params["net"] * batch["image"].sum(), steps.Out({}, {})

    phases, optimizers, state = _toy(loss)
    phases = tuple(phases[0]._replace(name=name) for name in ("one", "other"))
    mesh = parallel.make_mesh(jax.devices()[:devices])
    step = parallel.data_parallel(steps.make_step(phases, optimizers, seed=0), mesh)
    for _ in range(2):
        state, _ = step(state, parallel.shard_batch({"image": np.zeros(16, np.float32)}, mesh, accumulate))
    jax.effects_barrier()
    assert len(seen) == 4 * accumulate * devices  # each device tells of the whole batch
    assert len(np.unique(np.concatenate(seen), axis=0)) == 4 * (16 + accumulate)


def test_gather_puts_shards_in_order():
    mesh = parallel.make_mesh()
    spec = jax.sharding.PartitionSpec
    whole = jax.shard_map(parallel.gather, mesh=mesh, in_specs=spec("data"), out_specs=spec())(jnp.arange(16.0))
    np.testing.assert_array_equal(whole, np.arange(16.0))


def test_compiled_step_on_eight_devices_only_reduces():
    """HLO guard: all-reduce is the one collective, and no convolution runs over a dilated image-sized window."""
    run = settings.build(settings.digits(batch_size=16, loss__r1_gamma=1.0))
    mesh = parallel.make_mesh()
    state = runs.abstract_state(run, mesh)
    step = parallel.data_parallel(steps.make_step(run.phases, run.optimizers, seed=0, ema=run.ema), mesh)
    text = step.lower(state, parallel.shard_batch(settings.random_batch(run, 0), mesh)).compile().as_text()
    hlo.check(text, largest=5)
