"""The game of one generator and one discriminator, against the PyTorch examples' DCGAN and closed forms."""

import jax
import numpy as np
import optax
import pytest

from gan_jax import optim, parallel, runs, specs
from gan_jax import step as steps
from gan_jax.errors import UserError
from gan_jax.models import dcgan
from tests import golden_dcgan, settings

NAMES = {"G": "generator", "D": "discriminator"}


@pytest.fixture(scope="module")
def played():
    """Three alternating Adam steps through the game's own phases, from the recorded weights and inputs."""
    golden = golden_dcgan.load()
    config = settings.digits(batch_size=6, data__channels=3, data__resolution="(64, 64)", generator__width=8,
                             discriminator__width=8, generator__latent_size=golden.z.shape[-1])  # fmt: skip
    run = settings.build(config, (64, 64, 3))
    params = {name: golden.params[net] for net, name in NAMES.items()}
    variables = {name: {"batch_stats": golden.batch_stats[net]} for net, name in NAMES.items()}
    zero, recording = np.int32(0), run._replace(optimizers={net: _recording(o) for net, o in run.optimizers.items()})
    state = steps.State(zero, zero, params, variables, steps.init_optimizers(run.phases, recording.optimizers, params),
                        steps.init_ema(("generator",), params, variables), ())  # fmt: skip
    batches = [{"image": golden.real[k], "z": golden.z[k]} for k in range(3)]
    programs = {}
    one, metrics = settings.play(recording, count=1, batches=batches, state=state, programs=programs)
    state, others = settings.play(recording, count=2, batches=batches[1:], state=one, programs=programs)
    return golden, state, metrics + others, {net: one.opt[name][1][name] for net, name in NAMES.items()}


def _recording(optimizer: optim.Optimizer) -> optim.Optimizer:
    """The optimizer, whose state also keeps the gradients of its last update.

    The generator's are at the discriminator that Adam has moved already, as the order of the game has it.
    """

    def at(images):
        tx = optimizer.at(images)

        def init(params):
            return tx.init(params), jax.tree.map(jax.numpy.zeros_like, params)

        def update(grads, state, params):
            updates, inner = tx.update(grads, state[0], params)
            return updates, (inner, grads)

        return optax.GradientTransformation(init, update)

    return optimizer._replace(at=at)


def _close(ours, theirs, tolerance):
    for path, value in jax.tree_util.tree_leaves_with_path(theirs):
        mine = ours
        for key in path:
            mine = mine[key.key]
        np.testing.assert_allclose(
            mine, value, rtol=0, atol=tolerance * max(np.abs(value).max(), 1e-12), err_msg=str(path)
        )


def test_golden_losses_of_three_steps(played):
    golden, _, metrics, _ = played
    for k, row in enumerate(metrics):
        for ours, theirs in {"discriminator/loss_real": "errD_real", "discriminator/loss_fake": "errD_fake",
                             "generator/loss": "errG"}.items():  # fmt: skip
            assert row[ours] == pytest.approx(golden.npz[f"step{k + 1}/{theirs}"], rel=1e-5), (k, ours)


@pytest.mark.parametrize("net", ["G", "D"])
def test_golden_first_gradients(played, net):
    golden, _, _, first = played
    _close(first[net], golden_dcgan.tree(golden.npz, f"step1_grad/{net}/", net), 1e-5)


@pytest.mark.parametrize("net", ["G", "D"])
def test_golden_parameters_after_three_adam_steps(played, net):
    golden, state, _, _ = played
    _close(state.params[NAMES[net]], golden_dcgan.tree(golden.npz, f"step3_params/{net}/", net), 1e-5)


@pytest.mark.parametrize("net", ["G", "D"])
def test_golden_running_statistics_after_three_steps(played, net):
    """The discriminator's move three times a step (real, fake, fake again), the generator's once."""
    golden, state, _, _ = played
    theirs = golden_dcgan.tree(golden.npz, f"step3_bn/{net}/", net, statistics=True)
    assert theirs
    _close(state.variables[NAMES[net]]["batch_stats"], theirs, 1e-5)


def test_lazy_penalty_is_its_own_phase_with_a_corrected_optimizer():
    config = settings.digits(loss__r1_gamma=1.0, every__penalty_steps=4)
    run = settings.build(config)
    assert [(p.name, p.every) for p in run.phases] == [("discriminator", 1), ("penalty", 4), ("generator", 1)]
    rate = config.optim.discriminator.learning_rate
    assert float(run.optimizers["discriminator"].learning_rate(0)) == pytest.approx(rate * 4 / 5)
    assert float(run.optimizers["generator"].learning_rate(0)) == pytest.approx(rate)


def test_lazy_penalty_weighs_as_much_as_an_eager_one():
    """The lazy phase's loss is the eager penalty times its period, on the same batch and weights."""
    small = dict(discriminator__norm="none", batch_size=8, data__resolution=16, loss__r1_gamma=2.0)
    eager = settings.build(settings.digits(**small), (16, 16, 1))
    still = dict(every__penalty_steps=4, optim__discriminator__learning_rate=0.0)
    lazy = settings.build(settings.digits(**small, **still), (16, 16, 1))
    _, (one,) = settings.play(eager, count=1)
    _, (other,) = settings.play(lazy, count=1)
    assert other["penalty/loss"] == pytest.approx(4 * one["discriminator/r1"], rel=1e-5)


@pytest.mark.parametrize("augmentation", ["none", "diffaugment"])
def test_penalties_see_each_side_as_the_loss_does(monkeypatch, augmentation):
    """R1 and R2 in one pass with the loss, where each side has its own augmentation and dropout, and by themselves."""
    config = settings.digits(loss__r1_gamma=1.0, loss__r2_gamma=1.0, augment__name=augmentation, batch_size=8,
                             discriminator__norm="none", discriminator__dropout=0.5, data__resolution=16)  # fmt: skip
    _, (apart,) = settings.play(settings.build(config, (16, 16, 1)), count=1)
    monkeypatch.setattr(dcgan.Discriminator, "couples_samples", False, raising=False)
    _, (joint,) = settings.play(settings.build(config, (16, 16, 1)), count=1)
    for name in ("r1", "r2"):
        assert apart[f"discriminator/{name}"] == pytest.approx(joint[f"discriminator/{name}"], rel=1e-4)


PENALTIES = ("r1_gamma", "r2_gamma", "gradient_penalty", "dragan")


@pytest.fixture(scope="module")
def penalised():
    """Metrics of the first step with all penalties, on one device and on eight."""
    run = settings.build(settings.digits(**{f"loss__{key}": 1.0 for key in PENALTIES}, batch_size=16))
    return [settings.play(run, count=1, devices=devices)[1][0] for devices in (1, 8)]


@pytest.mark.parametrize("key", PENALTIES)
def test_penalties_agree_on_devices(penalised, key):
    one, many = penalised
    name = f"discriminator/{key.removesuffix('_gamma')}"
    assert one[name] > 0 and many[name] == pytest.approx(one[name], rel=1e-4)


@pytest.mark.parametrize("name", ["saturating", "least_squares", "hinge", "wasserstein", "relativistic"])
def test_every_loss_plays(name):
    config = settings.digits(
        loss__name=name, discriminator__spectral_norm=True, discriminator__norm="none", data__resolution=16
    )
    run = settings.build(config, (16, 16, 1))
    state, metrics = settings.play(run, count=2)
    assert all(np.isfinite(value) for row in metrics for value in row.values())
    assert int(state.images) == 16


def test_n_critic_moves_the_generator_every_third_step():
    run = settings.build(settings.digits(every__generator_steps=3, data__resolution=16), (16, 16, 1))
    _, metrics = settings.play(run, count=4)
    assert ["generator/loss" in row for row in metrics] == [True, False, False, True]


def test_uniform_and_normal_latents_depend_on_the_key_alone():
    from gan_jax import painter
    from gan_jax.games import unconditional

    run = settings.build(settings.digits(generator__latent="uniform"))
    keys = painter.keys_of(np.arange(500))
    z = np.asarray(unconditional.latents(run.nets["generator"], keys))
    assert z.min() >= -1 and z.max() <= 1 and abs(z.std() - 3**-0.5) < 0.01
    np.testing.assert_array_equal(z[7:9], unconditional.latents(run.nets["generator"], keys[7:9]))


def test_a_model_without_labels_refuses_a_conditional_run():
    config = settings.digits(conditional=True)
    with config.unlocked():
        config.generator = dict(name="gan", latent_size=4)
    with pytest.raises(UserError, match="takes no labels"):
        runs.build(config, specs.labelled((32, 32, 1), 10))


def test_an_image_model_refuses_points():
    with pytest.raises(UserError, match="use 'gan'"):
        settings.build(settings.digits(), (2,))


def test_an_unknown_option_names_the_nearest():
    config = settings.digits()
    with config.unlocked():
        config.generator.widht = 3
    with pytest.raises(UserError, match="'width'"):
        settings.build(config)


def _measured_by_a_still_discriminator(**overrides) -> dict:
    """Metrics of a step that leaves the discriminator as it was, or nearly."""
    still = dict(optim__discriminator__name="sgd", optim__discriminator__learning_rate=1e-12)
    run = settings.build(settings.digits(batch_size=8, data__resolution=16, **still, **overrides), (16, 16, 1))
    return settings.play(run, count=1)[1][0]


@pytest.mark.parametrize("shared", [True, False])
def test_shared_fakes_are_those_that_the_discriminator_has_seen(shared):
    measured = _measured_by_a_still_discriminator(loss__shared_fakes=shared)
    equal = measured["generator/fake_logit"] == pytest.approx(measured["discriminator/fake_logit"], abs=1e-6)
    assert equal == shared


def test_shared_fakes_are_made_once():
    """The program of both phases has as many operations less as one forward of the generator."""

    def operations(shared):
        run = settings.build(settings.digits(batch_size=8, loss__shared_fakes=shared))
        mesh = parallel.make_mesh(jax.devices()[:1])
        step = parallel.data_parallel(steps.make_step(run.phases, run.optimizers, seed=0, ema=run.ema), mesh)
        batch = {"image": jax.ShapeDtypeStruct((1, 8, 32, 32, 1), np.uint8, sharding=parallel.batch_sharding(mesh))}
        return run, step.lower(runs.abstract_state(run, mesh), batch).compile().cost_analysis()["flops"]

    run, twice = operations(False)
    _, once = operations(True)
    net = run.nets["generator"].clone(axis_name=None)
    state = jax.eval_shape(lambda: runs.init_state(run))
    variables = {"params": state.params["generator"], **state.variables["generator"]}
    z = jax.ShapeDtypeStruct((8, net.latent_size), np.float32)
    forward = jax.jit(lambda v, z: net.apply(v, z, None, train=True, mutable=["batch_stats"])).lower(variables, z)
    assert twice - once == pytest.approx(forward.compile().cost_analysis()["flops"], rel=0.1)
