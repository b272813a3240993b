"""The growing game: losses and gradients against recorded ones, reals, devices, fading, resuming, sampling."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from gan_jax import augment, digests, folders, games, initial, losses, painter, parallel, runs, sample, specs
from gan_jax import config as configs
from gan_jax import step as steps
from gan_jax.errors import UserError
from gan_jax.games import players, progressive
from gan_jax.layers.rescale import downscale, upscale
from gan_jax.models import progan
from gan_jax.train import train
from tests import golden_growing as golden
from tests import hlo, settings, test_models_progan, test_models_stylegan1


def rules_of(generator, discriminator, level, **loss):
    weights = ConfigDict({**progressive.DEFAULTS["loss"], **loss})
    nets = {"generator": generator, "discriminator": discriminator}
    return progressive.Rules(nets, level, generator.levels, None, weights, False, augment.Augmentation(), 0)


def nhwc(x):
    return x.transpose(0, 2, 3, 1)


# Losses, with gradients of the stored variables.


@pytest.mark.parametrize("lod", (0.0, 1.25))
@pytest.mark.parametrize("name", test_models_progan.FILES)
def test_wgan_gp_losses_and_their_gradients(name, lod):
    """Gradient penalty (with respect to images of full size), drift and the classes' cross-entropy."""
    npz, generator, discriminator, (of_g, of_d), labels = test_models_progan.recorded(name)
    level, game = int(lod), losses.adversarial("wasserstein")
    rules = rules_of(generator, discriminator, level)
    order = golden.strided_to_neighbours(len(npz["in/reals"]), 4)
    label = None if labels is None else labels[order]
    real = downscale(nhwc(npz["in/reals"])[order], 2**level)
    options = {"train": True, "lod": lod, "level": level}
    fused, share = generator.fused_scale, npz["in/mixing_factors"].reshape(-1)[order]

    @jax.jit  # traced once for both losses
    def fake(params, z):
        return generator.apply({"params": params}, z, label, **options)

    def of_discriminator(params, real, fake, share):
        return progressive.discriminator_loss(rules, game, params, real, fake, label, lod, share)[0]

    def of_generator(params, of_d):
        images = fake(params, npz["in/G_loss_latents"][order])
        return progressive.generator_loss(rules, game, of_d, images, label, lod)[0]

    images = fake(of_g, npz["in/D_loss_latents"][order])
    arguments = {"D": (of_d, real, images, share), "G": (of_g, of_d)}
    for net, loss in (("D", of_discriminator), ("G", of_generator)):
        value, grads = jax.jit(jax.value_and_grad(loss))(*arguments[net])
        golden.assert_close(value, npz[f"out/{net}_loss_per_sample_lod{lod}"].mean(dtype=np.float64), 1e-5)
        expected = golden.tree(npz, f"grad/lod{lod}/{net}/")
        expected = golden.transposed(expected) if fused and net == "G" else expected
        golden.assert_trees_close(grads, expected, 1e-3)


CASES = [("stylegan1_a", 0.0), ("stylegan1_a", 1.25), ("stylegan1_b", 0.0), ("stylegan1_b", 1.25), ("stylegan1_c", 0.0)]


@pytest.mark.parametrize("name, lod", CASES)
def test_non_saturating_losses_with_r1_and_r2_and_their_gradients(name, lod):
    npz, generator, discriminator, variables, of_d, labels = test_models_stylegan1.recorded(name)
    level, game = int(lod), losses.adversarial("non_saturating")
    order = golden.strided_to_neighbours(len(npz["in/reals"]), discriminator.stddev_group)
    label = None if labels is None else labels[order]
    real = downscale(nhwc(npz["in/reals"])[order], 2**level)
    options = {"train": True, "lod": lod if generator.grow else None, "level": level}

    @jax.jit  # traced once for both losses
    def fake(variables, z):
        return generator.apply(variables, z, label, **options)

    def of_discriminator(params, weights, real, images):
        """With the penalties that have a weight; their numbers are arguments, so that one program computes each."""
        rules = rules_of(
            generator, discriminator, level, gradient_penalty=0.0, drift=0.0, **dict.fromkeys(weights, 1.0)
        )
        rules = rules._replace(weights=weights)
        arguments = (params, real, images, label, options["lod"], None)
        return progressive.discriminator_loss(rules, game, *arguments)[0]

    def of_generator(params, others, of_d):
        rules = rules_of(generator, discriminator, level)
        images = fake({**others, "params": params}, npz["in/G_loss_latents"][order])
        return progressive.generator_loss(rules, game, of_d, images, label, options["lod"])[0]

    def check(measured, key):
        golden.assert_close(measured[0], npz[f"out/{key}_mean_lod{lod}"], 1e-5)
        expected = golden.tree(npz, f"grad/{key}/lod{lod}/")
        assert expected
        golden.assert_trees_close(measured[1], expected, 1e-3)

    others = {name: tree for name, tree in variables.items() if name != "params"}
    check(jax.jit(jax.value_and_grad(of_generator))(variables["params"], others, of_d), "G_logistic_nonsaturating")
    images = fake(variables, npz["in/D_loss_latents"][order])
    penalised = jax.jit(jax.value_and_grad(of_discriminator))
    check(penalised(of_d, {"r1_gamma": 10.0, "r2_gamma": 0.0}, real, images), "D_logistic_simplegp_r1_10")
    of_r2, key = penalised(of_d, {"r1_gamma": 0.0, "r2_gamma": 10.0}, real, images), "D_logistic_simplegp_r1_0_r2_10"
    if lod == 0:
        check(of_r2, key)
    else:  # no gradient was recorded
        golden.assert_close(of_r2[0], npz[f"out/{key}_mean_lod{lod}"], 1e-5)
    golden.assert_close(jax.jit(of_discriminator)(of_d, {}, real, images), npz[f"out/D_logistic_mean_lod{lod}"], 1e-5)


@pytest.mark.parametrize("fused", (False, True))
def test_the_penaltys_second_derivatives_by_finite_differences_in_float64(fused):
    """Along a random direction of the parameters, at level 1 in mid-fade."""
    common = {"resolution": 16, "channels": 1, "feature_base": 12, "feature_max": 3, "fused_scale": fused}
    with jax.enable_x64(True):
        net = progan.Discriminator(**common, dtype=jnp.float64)
        rules = rules_of(progan.Generator(**common, latent_size=2), net, 1, drift=0.0)
        rng = np.random.default_rng(3)
        real, fake = rng.normal(size=(2, 4, 8, 8, 1))
        shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((4, 16, 16, 1)), train=True))["params"]
        params = jax.tree.map(lambda x: rng.normal(size=x.shape), shapes)
        direction = jax.tree.map(lambda x: rng.normal(size=x.shape), params)
        share = rng.uniform(size=4)

        @jax.jit
        @jax.value_and_grad
        def penalty(params):
            terms = progressive.discriminator_loss(
                rules, losses.adversarial("wasserstein"), params, real, fake, None, 1.3, share
            )[1]
            return terms["gradient_penalty"]

        def moved(step):
            return penalty(jax.tree.map(lambda x, d: x + step * d, params, direction))[0]

        exact = sum(jax.tree.leaves(jax.tree.map(lambda g, d: jnp.vdot(g, d), penalty(params)[1], direction)))
        step = 1e-6
        np.testing.assert_allclose((moved(step) - moved(-step)) / (2 * step), exact, rtol=1e-6)
        assert abs(exact) > 0.1


# Real images.


@pytest.mark.parametrize("lod", (0.0, 0.3, 1.0, 1.75, 2.0))
def test_real_images_are_faded_as_the_official_ones(lod):
    """The file's input at lod L is a corner of its images; here it is given as if they had been halved to it."""
    npz, _ = golden.load("progan_process_reals")
    level = int(lod)
    side = 32 >> level
    corner = upscale(jnp.asarray(nhwc(npz["in/images_u8"])[:, :side, :side]), 2**level)
    mirrored = npz["in/mirror_uniform"] >= 0.5
    for flips in (0, 1):
        images = np.where(mirrored & bool(flips), corner[:, :, ::-1], corner)
        out = upscale(progressive.reals(jnp.asarray(images), level, lod), 2**level)
        golden.assert_close(out, nhwc(npz[f"out/lod{lod}_mirror{flips}"]), 1e-6)


def test_real_images_are_halved_by_averages():
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), dtype=np.uint8)
    expected = images.reshape(2, 2, 4, 2, 4, 1).mean((2, 4)) / 127.5 - 1
    np.testing.assert_allclose(progressive.reals(jnp.asarray(images), 2, None), expected, atol=1e-6)


# Steps.


def config_of(model="progan", **overrides):
    """The digits' smoke variant of synthetic pictures: 16 images at 4 px, 32 of a fade, the rest at 8 px."""
    config = runs.load_config(f"{settings.EXPERIMENTS / 'digits_progan.py'}:smoke", [
        *((f"{net}.name", model) for net in ("generator", "discriminator")), ("data.resolution", "8"),
        ("data.name", "synthetic:64"), ("growth.initial_resolution", "4"),
        ("growth.training_images", "16"), ("growth.transition_images", "32"), ("evaluation.metrics", "()"),
        *((key.replace("__", "."), str(value)) for key, value in overrides.items()),
    ])  # fmt: skip
    return config


def small_style(**overrides):
    """StyleGAN's networks and loss."""
    return config_of("stylegan1", generator__w_size=4, generator__mapping_features=4, generator__mapping_layers=2,
                     loss__name="non_saturating", loss__gradient_penalty=0.0, loss__drift=0.0, loss__r1_gamma=10.0,
                     **overrides)  # fmt: skip


SPEC = specs.labelled((8, 8, 1), 0)


def stages_of(config):
    return games.stages(progressive, config, SPEC)


def state_at(run, images):
    state = runs.fresh_state(run)
    return state._replace(images=jnp.int32(images), step=jnp.int32(images // run.config.batch_size))


def untouched(before, after, names):
    """Whether every leaf of the layers that are named is equal, bit for bit."""
    same = [np.array_equal(a, b) for name in names
            for a, b in zip(jax.tree.leaves(before[name]), jax.tree.leaves(after[name]), strict=True)]  # fmt: skip
    assert same
    return all(same)


@functools.cache
def first_step():
    """The first step, at 4 px, of a run with rates of its own: (State before it, State after it, metrics)."""
    run = runs.build(config_of(growth__learning_rates="((8, 1.5),)", ema__decay=0.75), SPEC)
    before = state_at(run, 0)
    after, (metrics,) = settings.play(run, count=1, state=before)
    return before, after, metrics


def test_layers_of_other_stages_do_not_move():
    config = config_of()
    stages = stages_of(config)
    assert [stage.level for stage in stages] == [1, 0, 0]
    images = {"generator": "to_image", "discriminator": "from_image"}
    smaller = [(net, f"4x4_{image}") for net, image in images.items()]
    larger = [(net, f"8x8_{name}") for net, image in images.items() for name in ("conv0", "conv1", image)]
    for stage, seen, still in ((stages[0], 0, larger), (stages[2], 48, smaller)):
        if seen:
            run = runs.build(config, SPEC, stage)
            before = state_at(run, seen)
            after, (metrics,) = settings.play(run, count=1, state=before)
        else:
            before, after, metrics = first_step()
        for net, name in still:
            assert untouched(before.params[net], after.params[net], [name]), (stage, name)
        for net, name in {(net, name) for net, tree in before.params.items() for name in tree} - {*still}:
            assert not untouched(before.params[net], after.params[net], [name]), (stage, name)
        assert metrics["discriminator/lod"] == stage.level == after.ema["generator"]["growth"]["lod"]


@pytest.mark.parametrize("make", (config_of, small_style))
def test_one_device_and_eight_agree_and_only_sum(make):
    """In mid-fade, a device with one group of two, by plain gradient descent.

    Adam would turn rounding of gradients of zero into whole steps.
    """
    sgd = {f"optim__{net}__{key}": value for net in progressive.NETS
           for key, value in {"name": "sgd", "learning_rate": 0.01}.items()}  # fmt: skip
    config = make(discriminator__stddev_group=2, batch_size=16, **sgd)
    run = runs.build(config, SPEC, stages_of(config)[1])
    batch = settings.random_batch(run, 0)

    # Not the fresh constant image, whose deviation of nought an instance norm divides by.
    rng, start = np.random.default_rng(1), state_at(run, 32)
    moved = jax.tree.map(lambda x: x + rng.normal(0, 0.1, x.shape).astype(np.float32), start.params)
    start = start._replace(params=moved)
    one, (one_metrics,) = settings.play(run, count=1, batches=[batch], state=start)
    mesh = parallel.make_mesh(jax.devices()[:8])
    step = parallel.data_parallel(steps.make_step(run.phases, run.optimizers, seed=0, ema=run.ema), mesh)
    arguments = jax.device_put(start, parallel.replicated(mesh)), parallel.shard_batch(batch, mesh)
    program = step.lower(*arguments).compile()
    eight, eight_metrics = jax.device_get(program(*arguments))
    assert one_metrics["discriminator/lod"] == 0.5
    for name, value in one_metrics.items():
        np.testing.assert_allclose(value, eight_metrics[name], rtol=2e-4, atol=1e-5, err_msg=name)
    for trees in ((one.params, eight.params), (one.variables, eight.variables)):
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), *trees)
    hlo.check(program.as_text(), largest=4)  # of a kernel that is fused with a change of size


def test_learning_rates_and_decay_of_the_average_follow_the_stage():
    config = config_of(growth__learning_rates="((8, 1.5),)", ema__decay=0.75)
    stages = stages_of(config)
    rates = [runs.build(config, SPEC, stage).optimizers["generator"].learning_rate(jnp.int32(0)) for stage in stages]
    np.testing.assert_allclose(rates, [1e-3, 1.5e-3, 1.5e-3])
    before, after, _ = first_step()  # with this decay
    old = before.params["generator"]["base_conv"]["kernel"]
    new, average = (x["base_conv"]["kernel"] for x in (after.params["generator"], after.ema["generator"]["params"]))
    np.testing.assert_allclose(average, 0.75 * old + 0.25 * new, rtol=1e-5)


# Whole runs.


@pytest.fixture
def one_device(monkeypatch):
    make_mesh = parallel.make_mesh
    monkeypatch.setattr(parallel, "make_mesh", lambda devices=None: make_mesh(jax.devices()[:1]))


def state_of(workdir):
    config, spec, _ = folders.read_folder(workdir)
    run = runs.build(config, spec)
    return run, folders.restore(run, workdir, parallel.make_mesh()).state


def test_a_run_resumed_in_mid_fade_and_at_a_stages_end_is_the_same_run(tmp_path, one_device):
    """Stages begin at 17 and 48 images, rounded up to whole batches of 8."""
    rarely = {"every__sample_images": 32, "every__checkpoint_images": 32}  # a run's end is a checkpoint, too
    for images in (24, 32, 48, 64):  # where a stage begins, in mid-fade, where the next begins, the end
        assert train(config_of(total_images=images, **rarely), str(tmp_path / "resumed"))
    assert train(config_of(total_images=64, **rarely), str(tmp_path / "whole"))
    (run, resumed), (_, whole) = state_of(tmp_path / "resumed"), state_of(tmp_path / "whole")
    assert games.begins(stages_of(run.config)) == (0, 24, 48)
    assert digests.digest(resumed) == digests.digest(whole)
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert [line["discriminator/lod"] for line in lines] == [1, 1, 1, 0.75, 0.5, 0.25, 0, 0]
    counts = [x for path, x in jax.tree_util.tree_leaves_with_path(whole.opt) if "count" in jax.tree_util.keystr(path)]
    assert counts and all(int(count) == 2 for count in counts)  # steps since the fade ended
    check_samples(run, whole)


def check_samples(run, state):
    """The average is drawn as far as it has grown: of full size, and at lod 1 in squares of equal pixels."""
    draw, keys = painter.sampler(run, batch_size=4), painter.keys_of(np.arange(4))
    images = draw(state.ema, keys, {})
    assert images.shape == (4, 8, 8, 1)
    small = {"generator": {**state.ema["generator"], "growth": {"lod": jnp.float32(1)}}}
    squares = draw(small, keys, {})
    np.testing.assert_array_equal(squares, np.asarray(upscale(jnp.asarray(squares[:, ::2, ::2]))))
    assert not np.array_equal(images, squares)


def test_styles_train_and_are_truncated(tmp_path, one_device):
    config = small_style(total_images=16)
    assert train(config, str(tmp_path / "run"))
    run, state = state_of(tmp_path / "run")
    live, kept = (x["generator"]["w_avg"]["w_avg"] for x in (state.variables, state.ema))
    assert np.abs(live).max() > 0
    np.testing.assert_array_equal(kept, live)
    files = sample.sample(str(tmp_path / "run"), str(tmp_path / "out"), seeds="0-1", truncation="0")
    assert len(files) == 3


def test_classes_are_learned_from_labels():
    """The class logits' cross-entropy, of three images by hand; and a step with labels."""
    logits, label = np.array([[1.0, 2, 3], [0, 0, 0], [5, 1, 1]]), np.array([2, 0, 1])
    expected = np.log(np.exp(logits).sum(-1)) - logits[np.arange(3), label]
    np.testing.assert_allclose(players.class_loss(jnp.asarray(logits), jnp.asarray(label)), expected, rtol=1e-5)
    np.testing.assert_allclose(players.class_loss(jnp.asarray(logits), jnp.eye(3)[label]), expected, rtol=1e-5)
    config = config_of(conditional=True)
    run = runs.build(config, specs.labelled((8, 8, 1), 10))
    _, measured = settings.play(run, count=1)
    assert 4 < measured[0]["discriminator/loss_class"] < 6 and 2 < measured[0]["generator/loss_class"] < 3  # log 10


# Augmentation.


def augmented(**section):
    """The first step, at 4 px, with such an `augment` section: (memory before it, state after it, metrics)."""
    config = config_of()
    with config.unlocked():
        config.augment = section
    config = configs.complete(config, runs.defaults)
    run = runs.build(config, SPEC)
    before = state_at(run, 0)
    memory = jax.device_get(before.memory)
    after, (metrics,) = settings.play(run, count=1, state=before)
    return memory, after, metrics


def test_augmentation_is_of_what_the_discriminator_sees():
    """A strength of nought changes nothing, and an adapted one has counted the batch."""
    _, plain, plainly = first_step()  # without
    _, moved, measured = augmented(name="diffaugment")
    assert moved.memory == plain.memory == ()
    assert measured["discriminator/augment_p"] == 1 and "discriminator/augment_p" not in plainly
    for name in ("real_logit", "fake_logit", "gradient_penalty"):
        assert measured[f"discriminator/{name}"] != pytest.approx(plainly[f"discriminator/{name}"], rel=1e-4), name
    assert measured["generator/fake_logit"] != pytest.approx(plainly["generator/fake_logit"], rel=1e-4)

    geometry = ("xflip", "rotate90", "xint", "scale", "rotate", "aniso", "xfrac")  # slow to compile
    memory, same, adapting = augmented(name="ada", p=0.0, **dict.fromkeys(geometry, 0.0))
    for key, value in plainly.items():
        assert adapting[key] == pytest.approx(value, rel=1e-5), key
    assert settings.largest_difference(same.params, plain.params) < 1e-5
    assert jax.tree.structure(memory) == jax.tree.structure(same.memory)
    assert same.memory.count == 8 and same.memory.p == 0 and 0 < abs(same.memory.signs) <= 8


def test_penalties_are_of_the_images_before_augmentation():
    """Of a discriminator's view that doubles images, the gradient is twice as large, and the logits are of the view."""
    common = {"resolution": 8, "channels": 1, "feature_base": 12, "feature_max": 3}
    net = progan.Discriminator(**common)
    weights = {"r1_gamma": 2.0, "r2_gamma": 2.0, "gradient_penalty": 0.0}
    rules = rules_of(progan.Generator(**common, latent_size=2), net, 0, **weights)
    real, fake = np.random.default_rng(0).normal(size=(2, 4, 8, 8, 1)).astype(np.float32)
    params = initial.evaluate(lambda: net.init(jax.random.key(0), jnp.zeros((4, 8, 8, 1)), train=True))["params"]
    game = losses.adversarial("non_saturating")

    @jax.jit
    def terms(real, fake, scale):
        views = (lambda x: scale * x, lambda x: scale * x)
        return progressive.discriminator_loss(rules, game, params, real, fake, None, None, None, views)[1]

    doubled, plain = terms(real, fake, 2.0), terms(2 * real, 2 * fake, 1.0)
    for name in ("real_logit", "fake_logit"):
        np.testing.assert_allclose(doubled[name], plain[name], rtol=1e-5)
    for name in ("r1", "r2"):
        assert plain[name] > 0
        np.testing.assert_allclose(doubled[name], 4 * plain[name], rtol=1e-4)


# Mistakes.


def test_a_loss_that_compares_with_real_images_is_refused_when_the_run_is_built():
    with pytest.raises(UserError, match="config.loss.name='relativistic': the generator's loss sees no real images"):
        runs.build(config_of(loss__name="relativistic"), SPEC)


def test_what_does_not_grow_is_refused():
    config = config_of()
    points = "'progan' of config.game='progressive' makes images, and this data has the shape .2,.$"
    for shape, message in (((2,), points), ((20, 20, 1), "grow through 5, 10, 20")):
        with pytest.raises(UserError, match=message):
            runs.build(config, specs.labelled(shape))
    other = config.copy_and_resolve_references()
    configs.override(other, "generator.name", "dcgan")
    with pytest.raises(UserError, match="'progressive' needs levels.*'dcgan' has no levels; .*: progan, stylegan1;"):
        runs.build(other, SPEC)
    with pytest.raises(UserError, match="has no styles"):
        progressive.truncate(runs.build(config, SPEC).nets, 0.7, None)
    style = runs.build(small_style(), SPEC)
    assert progressive.truncate(style.nets, 0.7, 2) == {"psi": 0.7, "cutoff": 2}
    with pytest.raises(UserError, match="has 4 layers"):
        progressive.truncate(style.nets, 0.7, 7)
