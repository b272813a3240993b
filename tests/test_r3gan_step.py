"""R3GAN's training through the game's own phases, against two recorded iterations of the official code."""

import jax
import numpy as np
import pytest

from gan_jax import parallel
from gan_jax import step as steps
from tests import golden_r3gan, settings

NETS = {"G": "generator", "D": "discriminator"}


def _config(recorded):
    """The default experiment as R3GAN plays, with the recorded schedules."""
    meta = recorded.meta
    rates, length = meta["schedules"], meta["schedules"]["total_nimg"]
    adam = {"b1": 0.0, "b2": rates["beta2"]["base_value"], "b2_final": rates["beta2"]["final_value"]}
    adam |= {"learning_rate": rates["lr"]["base_value"], "schedule": "cosine"}
    adam |= {"decay_begin_images": 0, "decay_images": length}
    adam |= {"final_factor": rates["lr"]["final_value"] / rates["lr"]["base_value"]}
    labels = meta["G_kwargs"]["c_dim"]
    config = settings.digits(batch_size=meta["batch"], data__channels=3, total_images=10_000,
                             generator__name="dcgan", conditional=labels > 0)  # fmt: skip
    gamma = rates["gamma"]
    config.loss.name = "relativistic"
    config.loss.r1_gamma = config.loss.r2_gamma = gamma["base_value"]
    config.loss.penalty_final_factor = gamma["final_value"] / gamma["base_value"]
    config.loss.penalty_decay_images = float(length)
    config.every.penalty_steps = 1
    for player in config.optim.values():
        for key, value in adam.items():
            player[key] = value
    config.ema.half_life_images, config.ema.growth_images = float(rates["ema"]["final_value"]), float(length)
    config.ema.rampup = 0.0
    return config


def _run(recorded):
    """The run of that config, between the recorded networks."""
    config = _config(recorded)
    run = settings.build(config, (32, 32, 3))
    nets = {"generator": recorded.generator, "discriminator": recorded.discriminator}
    phases = run.game.phases(config, nets)
    return run._replace(nets=nets, phases=phases)


@pytest.fixture(scope="module", params=["uncond", "cond"])
def played(request):
    """Both iterations: a discriminator's step, then a generator's on other reals, both counted as the same images."""
    recorded = golden_r3gan.Recorded(request.param)
    run = _run(recorded)
    mesh = parallel.make_mesh(jax.devices()[:1])
    params = {name: recorded.tree(f"params/{net}", net) for net, name in NETS.items()}
    table = recorded.meta["hyperparameters_per_iteration"]
    state = steps.State(np.int32(0), np.int32(table[0]["cur_nimg"]), params, {net: {} for net in params},
                        steps.init_optimizers(run.phases, run.optimizers, params),
                        {"generator": {"params": recorded.tree("params/G_ema", "G")}}, ())  # fmt: skip
    state = jax.device_put(jax.tree.map(np.asarray, state), parallel.replicated(mesh))
    moves = [parallel.data_parallel(steps.make_step((phase,), run.optimizers, seed=0, ema=run.ema), mesh)
             for phase in run.phases]  # fmt: skip
    states, metrics = [], []
    for row in table:
        for number, move in enumerate(moves):
            batch = parallel.shard_batch(_batch(recorded, 2 * len(states) + number), mesh)
            ema = jax.tree.map(np.array, state.ema)
            images = jax.device_put(np.int32(row["cur_nimg"]), parallel.replicated(mesh))
            state, measured = move(state._replace(images=images), batch)
            metrics.append(jax.device_get(measured))
            state = jax.device_get(state)
            if number == 0:  # the average moves once an iteration
                state = state._replace(ema=ema)
            else:
                states.append(state)
            state = jax.device_put(state, parallel.replicated(mesh))
    return recorded, run, states, metrics


def _batch(recorded, number):
    batch = {"image": recorded.images("in/seq_real_img")[number], "z": recorded.npz["in/seq_z"][number]}
    label = recorded.labels("in/seq_real_c")
    return batch if label is None else batch | {"label": label[number]}


def _outliers(ours, recorded, tolerance):
    """Share of elements that are off by more than `tolerance` times their tensor's largest value."""
    off = jax.tree.map(lambda a, b: np.abs(a - b) > tolerance * np.abs(b).max(), ours, recorded)
    return np.mean(np.concatenate([x.ravel() for x in jax.tree.leaves(off)]))


def test_the_penalties_share_one_pass(played):
    assert "_joint_discriminator_loss" in repr(played[1].phases[0].loss)


@pytest.mark.parametrize("net", NETS)
def test_recorded_parameters_after_each_iteration(played, net):
    recorded, _, states, _ = played
    for number, state in enumerate(states, 1):
        assert _outliers(state.params[NETS[net]], recorded.tree(f"seq{number}_params/{net}", net), 1e-4) == 0


def test_recorded_averages_after_each_iteration(played):
    recorded, _, states, _ = played
    for number, state in enumerate(states, 1):
        theirs = recorded.tree(f"seq{number}_params/G_ema", "G")
        assert _outliers(state.ema["generator"]["params"], theirs, 1e-5) == 0


def test_recorded_gradient_norms(played):
    recorded, _, _, metrics = played
    for net, measured in zip("DG", metrics, strict=False):
        grads = jax.tree.leaves(recorded.tree(f"seq1_grad/{net}", net))
        squares = [np.sum(np.square(g, dtype=np.float64)) for g in grads]
        assert measured[f"{NETS[net]}/grad_norm"] == pytest.approx(np.sqrt(sum(squares)), rel=1e-5)
