"""StyleGAN2's game, held against the official code's iterations, finite differences, and itself on other devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from gan_jax import augment, initial, optim, parallel, penalties, runs
from gan_jax import config as configs
from gan_jax import step as steps
from gan_jax.errors import UserError
from gan_jax.games import style
from gan_jax.models import stylegan2
from tests import golden_stylegan2 as golden
from tests import hlo, settings

PHASES = {"generator": "Gmain", "path_length": "Greg", "discriminator": "Dmain", "penalty": "Dreg"}
EVERY = {"path_length": 4, "penalty": 16}
SHAPE = (8, 8, 1)  # of the smoke run's images


def _config(**overrides):
    config = runs.load_config(f"{settings.EXPERIMENTS / 'digits_stylegan2.py'}:smoke")
    for key, value in overrides.items():
        configs.override(config, key.replace("__", "."), str(value))
    return config


# The official iterations.


def _golden_run(meta) -> runs.Run:
    """The run of a recording, its networks replaced by those of the official arguments."""
    loss, rate = meta["loss_kwargs"], meta["base_lr"] if "base_lr" in meta else None
    adam = {f"optim__{net}__{key}": value for net in style.NETS for key, value in
            dict(learning_rate=rate, b1=0.0, b2=meta["base_betas"][1], eps=meta["eps"]).items()}  # fmt: skip
    config = _config(
        batch_size=meta["batch"],
        total_images=10**6,
        data__channels=3,
        data__resolution=16,
        loss__r1_gamma=loss["r1_gamma"],
        loss__path_length_weight=loss["pl_weight"],
        loss__path_length_decay=loss["pl_decay"],
        loss__path_length_shrink=loss["pl_batch_shrink"],
        every__path_length_steps=meta["G_reg_interval"],
        every__penalty_steps=meta["D_reg_interval"],
        style__mixing=0.0,
        style__noise="const",
        ema__half_life_images=meta["ema_kimg"] * 1000.0,
        ema__rampup=meta["ema_rampup"] or 0.0,
        **adam,
    )
    run = settings.build(config, (16, 16, 3), meta["G_kwargs"]["c_dim"])
    nets = {"generator": golden.generator(meta["G_kwargs"]), "discriminator": golden.discriminator(meta["D_kwargs"])}
    return run._replace(nets=nets, phases=style.phases(config, nets))


def _batches(npz, meta) -> list[dict]:
    """Both iterations' batches: samples in the order of contiguous groups, the path length's at even places."""
    groups = golden.regroup(meta["batch"], 4)
    half = meta["batch"] // 2
    spread = np.arange(meta["batch"]).reshape(2, half).T.reshape(-1)  # 0, 4, 1, 5, ...
    noise = golden.images(npz["in/pl_noise_unit_normal"])
    later = golden.images(npz["in/seq_pl_noise_unit_normal"])
    batches = []
    for suffix, places in (("", (0, 1, 2)), ("_it2", (4, 5, 6))):
        image, label = golden.images(npz[f"in/real_img{suffix}"]), npz[f"in/real_c{suffix}"]
        batch = {"image": image[groups], "label": label[groups]}
        for phase, place, order in zip(("generator", "path_length", "discriminator"), places,
                                       (groups, spread, groups), strict=True):  # fmt: skip
            batch[f"{phase}/z"] = npz["in/gen_z"][place][order]
            batch[f"{phase}/label"] = npz["in/gen_c"][place][order]
        batches.append(batch)
    for name, draws in (("alone", noise), ("sequence", later)):
        batches[0][name] = np.concatenate([draws, draws])[spread]
    return batches


def _state(npz, meta, run) -> steps.State:
    of_g, of_d = golden.tree(npz, "params/G/"), golden.tree(npz, "params/D/")
    params = {"generator": of_g.pop("params"), "discriminator": of_d["params"]}
    ema = {"generator": {**golden.tree(npz, "params/G_ema/"), **of_g}}
    memory = {"pl_mean": np.float32(meta["loss_kwargs"]["pl_mean_initial"]), "augment": ()}
    opt = steps.init_optimizers(run.phases, run.optimizers, params)
    state = steps.State(np.int32(0), np.int32(meta["cur_nimg_at_start"]), params,
                        {"generator": of_g, "discriminator": {}}, opt, ema, memory)  # fmt: skip
    return jax.tree.map(jnp.asarray, state)


def _recording(optimizer: optim.Optimizer) -> optim.Optimizer:
    """The optimizer, whose state also keeps the gradients of its last two updates."""

    def at(images):
        tx = optimizer.at(images)

        def init(params):
            zeros = jax.tree.map(jnp.zeros_like, params)
            return tx.init(params), zeros, zeros

        def update(grads, state, params):
            updates, inner = tx.update(grads, state[0], params)
            return updates, (inner, grads, state[1])

        return optax.GradientTransformation(init, update)

    return optimizer._replace(at=at)


def _keeping() -> optim.Optimizer:
    """An optimizer that moves nothing and keeps the gradient."""
    tx = optax.GradientTransformation(
        partial(jax.tree.map, jnp.zeros_like), lambda grads, state, params: (jax.tree.map(jnp.zeros_like, grads), grads)
    )
    return optim.Optimizer(lambda images: tx, lambda images: jnp.float32(0))


def _traced_once(phase: steps.Phase) -> steps.Phase:
    """The phase, its loss traced once for all programs that hold it.

    They differ in optimizers and in how parameters are packed, and no loss reads those of the State.
    """
    loss = jax.jit(phase.loss)

    def bare(params, state, batch, rng, **weights):
        return loss(params, state._replace(params={}, opt={}, ema={}), batch, rng, **weights)

    return phase._replace(loss=bare)


@pytest.fixture(scope="module", params=["uncond", "cond"])
def played(request):
    """Each phase alone from the recorded weights, and the two recorded iterations."""
    npz, meta = golden.load(f"sg2_loss_{request.param}")
    run = _golden_run(meta)
    run = run._replace(phases=tuple(map(_traced_once, run.phases)))
    mesh = parallel.make_mesh(jax.devices()[:1])
    first, second = _batches(npz, meta)
    alone, sequence = first.pop("alone"), first.pop("sequence")
    if not meta["G_kwargs"]["c_dim"]:
        first, second = ({k: v for k, v in b.items() if "label" not in k} for b in (first, second))
    state = _state(npz, meta, run)

    def each(state, batch):
        out = {}
        for phase in run.phases:
            keeper, weights = _keeping(), jax.tree.map(jnp.float32, dict(phase.weights))
            phase = phase._replace(loss=partial(phase.loss, weights=weights)) if weights else phase
            own = state._replace(opt={phase.player: keeper.init({phase.player: state.params[phase.player]})})
            moved, metrics = steps.descend(own, phase, keeper, batch, jax.random.key(0))
            grads = moved.opt[phase.player][phase.player]
            out[phase.name] = (grads, metrics, moved.variables["generator"], moved.memory)
        return out

    specs = dict(in_specs=(PartitionSpec(), PartitionSpec(None, "data")), out_specs=PartitionSpec())
    isolated = jax.jit(jax.shard_map(each, mesh=mesh, **specs))
    isolated = jax.device_get(isolated(state, parallel.shard_batch(first | {"path_length/noise": alone}, mesh)))

    recording = run._replace(optimizers={net: _recording(o) for net, o in run.optimizers.items()})
    state = state._replace(opt=steps.init_optimizers(run.phases, recording.optimizers, state.params))
    batches = [batch | {"path_length/noise": sequence} for batch in (first, second)]
    one, _ = settings.play(recording, count=1, batches=batches, state=jax.tree.map(jnp.copy, state))
    two, _ = settings.play(recording, count=1, batches=batches[1:], state=one)
    return npz, meta, isolated, one, two


def _check(ours, theirs, tolerance, name):
    """Every recorded tensor against ours, relative to its own largest value."""
    compared = 0
    for path, value in jax.tree_util.tree_leaves_with_path(theirs):
        mine = ours
        for key in path:
            mine = mine[key.key]
        own = tolerance(path) if callable(tolerance) else tolerance
        scale = max(np.abs(value).max(), 1e-12)
        np.testing.assert_allclose(mine, value, rtol=0, atol=own * scale, err_msg=f"{name} {path}")
        compared += 1
    assert compared, name


def _gradient_bound(path) -> float:
    """The gradient of a noise strength is one number in which all pixels cancel: float32 is off by 8e-4."""
    return 1e-3 if path[-1].key == "noise_strength" else 1e-4


def test_golden_losses_of_each_phase(played):
    npz, meta, isolated, _, _ = played
    for name, official in PHASES.items():
        loss = isolated[name][1]["loss"] / EVERY.get(name, 1)
        assert loss == pytest.approx(npz[f"out/{official}/loss"], rel=2e-5), name
    assert isolated["path_length"][3]["pl_mean"] == pytest.approx(npz["out/Greg/pl_mean_after"], rel=1e-5)
    assert isolated["path_length"][1]["length"] == pytest.approx(npz["out/Greg/pl_lengths"].mean(), rel=1e-5)


def test_golden_gradients_of_each_phase(played):
    npz, _, isolated, _, _ = played
    for name, official in PHASES.items():
        grads = jax.tree.map(lambda g, every=EVERY.get(name, 1): g / every, isolated[name][0])
        _check(grads, golden.tree(npz, f"grad/{official}/")["params"], _gradient_bound, official)


def test_golden_mean_of_w_after_each_phase(played):
    npz, _, isolated, one, two = played
    for name, official in PHASES.items():
        ours = isolated[name][2]["w_avg"]["mapping_network"]["w_avg"]
        np.testing.assert_allclose(ours, npz[f"out/{official}/w_avg_after"], rtol=1e-5, atol=1e-6)
    for number, state in ((1, one), (2, two)):
        ours = state.variables["generator"]["w_avg"]["mapping_network"]["w_avg"]
        np.testing.assert_allclose(ours, npz[f"seq{number}_w_avg_after/Dmain"], rtol=1e-4, atol=1e-5)


def test_golden_gradients_of_the_first_iteration(played):
    """Each phase of the iteration finds the networks as the phases before it left them; lazy ones weigh more."""
    npz, _, _, one, _ = played
    for net, (last, previous) in {"generator": ("Greg", "Gmain"), "discriminator": ("Dreg", "Dmain")}.items():
        _, newest, older = one.opt[net]
        for official, ours in ((last, newest[net]), (previous, older[net])):
            _check(ours, golden.tree(npz, f"seq1_grad/{official}/")["params"], _gradient_bound, f"seq1 {official}")


@pytest.mark.parametrize("net", ["generator", "discriminator"])
def test_golden_parameters_after_one_and_two_iterations(played, net):
    npz, _, _, one, two = played
    for number, state in ((1, one), (2, two)):
        theirs = golden.tree(npz, f"seq{number}_params/{net[0].upper()}/")["params"]
        _check(state.params[net], theirs, 1e-4, f"iteration {number}")


@pytest.mark.parametrize("net", ["generator", "discriminator"])
def test_golden_second_moments_after_one_iteration(played, net):
    npz, _, _, one, _ = played
    (adam,) = [s for s in jax.tree.leaves(one.opt[net][0], is_leaf=lambda s: hasattr(s, "nu")) if hasattr(s, "nu")]
    _check(adam.nu[net], golden.tree(npz, f"seq1_adam_v/{net[0].upper()}/")["params"], _gradient_bound, "v")


def test_golden_averages_after_one_and_two_iterations(played):
    npz, _, _, one, two = played
    for number, state in ((1, one), (2, two)):
        _check(state.ema["generator"]["params"], golden.tree(npz, f"seq{number}_params/G_ema/")["params"], 1e-5, number)
        live, kept = (of["generator"]["w_avg"]["mapping_network"]["w_avg"] for of in (state.variables, state.ema))
        np.testing.assert_array_equal(kept, live)
        assert state.memory["pl_mean"] == pytest.approx(npz["seq1_pl_mean"], rel=1e-5)


def test_optimizers_have_the_official_rates(played):
    _, meta, _, _, _ = played
    run = _golden_run(meta)
    for net in style.NETS:
        assert float(run.optimizers[net].learning_rate(0)) == pytest.approx(meta[f"{net[0].upper()}_adam"]["lr"])


# Derivatives of derivatives, in float64.


def _directional(loss, params, eps=1e-7):
    """(d loss / d params along a random direction, the same by central differences), by small steps over no kink."""
    leaves, shape = jax.tree.flatten(params)
    rng = np.random.default_rng(0)
    direction = shape.unflatten([jnp.asarray(rng.normal(size=leaf.shape)) for leaf in leaves])
    measure = jax.jit(jax.value_and_grad(loss))
    _, grads = measure(params)
    ours = sum(jnp.vdot(g, d) for g, d in zip(jax.tree.leaves(grads), jax.tree.leaves(direction), strict=True))
    up, down = (measure(jax.tree.map(lambda p, d, e=e: p + e * d, params, direction))[0] for e in (eps, -eps))
    return float(ours), float((up - down) / (2 * eps))


def _tiny(net, *inputs):
    variables = initial.evaluate(lambda: net.init(jax.random.key(0), *inputs, train=True))
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), variables)


@pytest.mark.parametrize("architecture", ["resnet", "skip"])
def test_r1_against_finite_differences(architecture):
    with jax.enable_x64(True):
        d = stylegan2.Discriminator(resolution=8, channels=1, channel_base=16, channel_max=4, architecture=architecture)
        real = jnp.asarray(np.random.default_rng(1).normal(size=(4, 8, 8, 1)))
        params = _tiny(d, real)["params"]

        def loss(params):
            return penalties.r1(lambda x: d.apply({"params": params}, x), real, gamma=3.0).mean()

        ours, theirs = _directional(loss, params)
    assert ours == pytest.approx(theirs, rel=1e-6) and abs(ours) > 1e-6


@pytest.mark.parametrize("architecture", ["resnet", "skip"])
def test_path_length_against_finite_differences(architecture):
    with jax.enable_x64(True):
        size = dict(resolution=8, channels=1, channel_base=16, channel_max=4, latent_size=4, w_size=4, mapping_layers=1)
        g = stylegan2.Generator(**size, architecture=architecture)
        rng = np.random.default_rng(1)
        z, noise = jnp.asarray(rng.normal(size=(2, 4))), jnp.asarray(rng.normal(size=(2, 8, 8, 1)) / 8)
        variables = _tiny(g, z)

        params = variables.pop("params")

        def loss(params):
            apply = partial(g.apply, {"params": params, **variables})
            ws = apply(z, method="mapping")
            lengths, _ = penalties.path_lengths(lambda w: (apply(w, method="synthesis"), ()), ws, noise)
            return jnp.square(lengths - 0.1).mean()

        ours, theirs = _directional(loss, params)
    assert ours == pytest.approx(theirs, rel=1e-5) and abs(ours) > 1e-6


# Devices and the compiled program.


@pytest.fixture(scope="module")
def everywhere():
    """One step of all four phases, mixed and augmented, on 1 and on 8 devices, and the latter's program."""
    run = settings.build(_config(batch_size=32, data__flip=True), SHAPE)
    mesh = parallel.make_mesh(jax.devices()[:8])
    state = jax.device_put(runs.fresh_state(run), parallel.replicated(mesh))
    step = parallel.data_parallel(steps.make_step(run.phases, run.optimizers, seed=0, ema=run.ema), mesh)
    batch = parallel.shard_batch(settings.random_batch(run, 0), mesh)
    program = step.lower(state, batch).compile()
    text = program.as_text()
    many = jax.device_get(program(state, batch))
    one, (metrics,) = settings.play(run, count=1)
    return text, many, (one, metrics), run


def test_the_program_has_only_all_reduces_and_plain_convolutions(everywhere):
    text, _, _, _ = everywhere
    assert "lhs_dilate" in text
    hlo.check(text)


def test_eight_devices_play_as_one(everywhere):
    _, (many, measured), (one, metrics), _ = everywhere
    for name, value in metrics.items():
        assert measured[name] == pytest.approx(value, rel=1e-3, abs=1e-5), name
    assert settings.largest_difference(one.variables, many.variables) < 1e-5
    assert settings.largest_difference(one.memory, many.memory) < 1e-5
    # Adam's first step is rate * sign(gradient): compare what the gradients have left in its second moments.
    for net in style.NETS:
        assert settings.largest_difference(one.opt[net], many.opt[net]) < 1e-3


def test_the_mean_length_is_that_of_all_devices(everywhere):
    _, (many, measured), _, run = everywhere
    decay = run.config.loss.path_length_decay
    assert many.memory["pl_mean"] == pytest.approx(decay * measured["path_length/length"], rel=1e-5)


# The game's table and its parts.


def test_phases_stand_in_the_official_order_and_vanish_with_their_weight():
    table = settings.build(_config(every__path_length_steps=4, every__penalty_steps=16), SHAPE).phases
    assert [(p.name, p.player, p.every) for p in table] == [
        ("generator", "generator", 1), ("path_length", "generator", 4),
        ("discriminator", "discriminator", 1), ("penalty", "discriminator", 16)]  # fmt: skip
    assert len({steps.due(table, step) for step in range(64)}) == 3
    table = settings.build(_config(loss__path_length_weight=0.0, loss__r1_gamma=0.0), SHAPE).phases
    assert [p.name for p in table] == ["generator", "discriminator"]


def test_adaptive_augmentation_joins_every_look_of_the_discriminator(monkeypatch):
    """Traced only; memory holds its strength, of which the metrics tell."""
    config = _config()
    with config.unlocked():
        config.augment = {"name": "ada", "p": 0.25}
    run = settings.build(configs.complete(config, runs.defaults), SHAPE)
    mesh = parallel.make_mesh(jax.devices()[:1])
    state = jax.eval_shape(lambda: runs.init_state(run))
    batch = {"image": jax.ShapeDtypeStruct((1, 8, *SHAPE), np.uint8)}
    seen = []
    monkeypatch.setattr(
        augment.Ada, "__call__", lambda self, images, keys, strength: seen.append(images.shape) or images
    )
    step = steps.make_step(run.phases, run.optimizers, seed=0, ema=run.ema)
    after, metrics = jax.eval_shape(parallel.data_parallel(step, mesh), state, batch)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert seen == [(8, *SHAPE)] * 4  # the fakes of two phases, reals, R1's reals
    assert "discriminator/augment" in metrics and after.memory["augment"].p.shape == ()


def test_style_mixing_starts_at_every_layer_but_the_first_and_as_often_as_asked():
    layers, count = 5, 4000
    draws = np.random.default_rng(0).uniform(size=(count, 2))
    mixed = style.mix(np.zeros((count, layers, 1)), np.ones((count, layers, 1)), jnp.asarray(draws), 0.9)[..., 0]
    assert np.all(mixed[:, 0] == 0) and np.all(np.diff(mixed, axis=1) >= 0)
    share = np.bincount(np.asarray(mixed.sum(1), int), minlength=layers) / count
    np.testing.assert_allclose(share, [0.1, 0.225, 0.225, 0.225, 0.225], atol=0.025)


def test_samples_are_truncated_towards_the_mean_style():
    run = settings.build(_config(), SHAPE, num_classes=3)
    keys, labels = jax.random.split(jax.random.key(1), 4), jnp.arange(4) % 3

    @partial(jax.jit, static_argnames=("psi", "cutoff"))
    def drawn(ema, keys, labels, psi=1.0, cutoff=None):
        options = style.truncate(run.nets, psi, cutoff)
        return style.sample(run.nets, ema, keys, {"label": labels}, **options)["image"]

    draw = partial(drawn, runs.fresh_state(run).ema)
    plain, same = draw(keys, labels), draw(keys, labels, psi=0.3, cutoff=0)
    np.testing.assert_allclose(plain, same, atol=1e-6)
    mean = draw(keys, labels, psi=0.0)
    np.testing.assert_allclose(mean, np.broadcast_to(mean[:1], mean.shape), atol=1e-6)
    assert np.abs(plain - plain[:1]).max() > 1e-3
    with pytest.raises(UserError, match="this generator has 4 layers"):
        style.truncate(run.nets, 0.5, 9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"every__penalty_steps": 0}, "every.penalty_steps=0"),
        ({"style__mixing": 1.5}, "style.mixing=1.5"),
        ({"loss__path_length_shrink": 0}, "path_length_shrink=0"),
    ],
)
def test_mistakes_are_told(changes, message):
    with pytest.raises(UserError, match=message):
        settings.build(_config(**changes))


def test_a_generator_without_styles_is_refused():
    config = _config()
    with config.unlocked():
        config.generator, config.discriminator = {"name": "dcgan"}, {"name": "dcgan"}
    with pytest.raises(UserError, match="'style' needs .*'dcgan' has no num_ws, mapping, .*: stylegan2, stylegan3;"):
        settings.build(config)
