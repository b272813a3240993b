"""Super-resolution: recorded steps and losses, how pictures become small, devices, what is seen, what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax.tree
import pytest
from ml_collections import ConfigDict
from PIL import Image

from gan_jax import cli, folders, games, losses, open_run, parallel, run_data, runs, specs
from gan_jax import config as configs
from gan_jax import step as steps
from gan_jax.errors import MissingPathError, UserError
from gan_jax.evaluate.run import _inputs
from gan_jax.features import state as states
from gan_jax.features import vgg
from gan_jax.games import perceptual, super_resolution
from gan_jax.layers import degradation
from gan_jax.sample import grid_given, sample
from gan_jax.train import train
from tests import golden_superres as golden
from tests import settings

NARROW = vgg._vgg((2, 4), (2, 5), (4, 6), (4, 7), (4, 8))  # the recorded stand-in for VGG19


def _config(variant="smoke", discriminator=None, **overrides):
    """ESRGAN's experiment, shrunk, with another section `discriminator` where there is one; keys with `__` for dots."""
    config = runs.load_config(f"{settings.EXPERIMENTS / 'div2k_esrgan.py'}:{variant}")
    if discriminator:
        config = configs.complete(ConfigDict({**config.to_dict(), "discriminator": discriminator}), runs.defaults)
    for key, value in overrides.items():
        configs.override(config, key.replace("__", "."), str(value))
    return config


def _build(config, shape=(16, 16, 3)):
    """Its run, for pictures of this shape."""
    return runs.build(config, {"image": specs.Field("image", shape)})


# Whole steps of the published programs.

SMALL = dict(generator__width=8, generator__blocks=1, generator__growth=4)
COMMON = dict(batch_size=2, super_resolution__crop=0, super_resolution__turn=False, data__flip=False, ema__decay=0.999,
              **{f"optim__{net}__schedule": "constant" for net in ("generator", "discriminator")}, **SMALL)  # fmt: skip
UNET = dict(discriminator={"name": "real_esrgan", "width": 3})
ALL_LAYERS = ("conv1_2", "conv2_2", "conv3_4", "conv4_4", "conv5_4")
STEPS = {
    "esrgan_stage1_step": ("pixel_smoke", {}),
    "esrgan_stage2_step_vggd": ("smoke", dict(
        discriminator__width=2, discriminator__halvings=5, discriminator__hidden=100, loss__perceptual=0.0)),
    "esrgan_stage2_step_unetd_perceptual": ("smoke", dict(UNET, perceptual__layers=("conv5_4",))),
    "realesrgan_step": ("smoke", dict(
        UNET, loss__name="non_saturating", loss__pixel=1.0, loss__adversarial=0.1, perceptual__layers=ALL_LAYERS,
        perceptual__factors=(0.1, 0.1, 1.0, 1.0, 1.0))),
}  # fmt: skip
TERMS = {"l_pix": "generator/pixel", "l_g_pix": "generator/pixel", "l_g_percep": "generator/perceptual",
         "l_g_gan": "generator/adversarial",
         "l_d_real": "discriminator/real", "l_d_fake": "discriminator/fake", "out_d_real": "discriminator/real_logit",
         "out_d_fake": "discriminator/fake_logit", "gradnorm_G": "generator/grad_norm",
         "gradnorm_D": "discriminator/grad_norm"}  # fmt: skip
WEIGHTED = {"l_g_pix": "pixel", "l_g_percep": "perceptual", "l_g_gan": "adversarial"}


def _nets(arrays, name, prefix):
    """net -> its collections, of arrays under a prefix."""
    names = {"generator": golden.RRDBNET, "discriminator": golden.VGG_D if "vggd" in name else golden.UNET_D}
    trees = {net: golden.variables(arrays, f"{prefix}/{net[0].upper()}/", of_net) for net, of_net in names.items()}
    return {net: tree for net, tree in trees.items() if tree}


@pytest.fixture(scope="module", params=STEPS)
def recorded(request):
    """A recording's name and arrays, its run, the States after one and two steps and the metrics of both."""
    name = request.param
    arrays = golden.load(f"sr_{name}")
    variant, overrides = STEPS[name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(vgg.LAYERS, "vgg19", NARROW)
        batch = {"image": golden.images(arrays["in/gt_u8"]), "low_resolution": golden.images(arrays["in/lq_u8"])}
        if "in/gt_usm_u8" in arrays:
            batch["target"] = golden.images(arrays["in/gt_usm_u8"])
        run = _build(_config(variant, **(COMMON | overrides)), batch["image"].shape[1:])
        before = _nets(arrays, name, "params")
        state = runs.fresh_state(run)
        params = {net: tree["params"] for net, tree in before.items()}
        variables = {net: {k: v for k, v in tree.items() if k != "params"} for net, tree in before.items()}
        shapes = [jax.tree.map(jnp.shape, tree) for tree in ((params, variables), (state.params, state.variables))]
        assert shapes[0] == shapes[1]
        ema = {"generator": {"params": params["generator"]}}
        state = state._replace(params=params, variables=variables, ema=ema)
        features = {k.removeprefix("params/vgg/"): v for k, v in arrays.items() if k.startswith("params/vgg/")}
        fixed = {"features": vgg.from_torch(features)} if features else {}
        after, measured, options = [], [], {"count": 1, "fixed": fixed, "programs": {}}
        for _ in range(2):
            state, metrics = settings.play(run, batches=[batch], state=state, **options)
            after.append(state)
            measured += metrics
    return name, arrays, run, after, measured


def test_losses_of_two_steps(recorded):
    """Recorded with their weights, and the gradients' norms over all parameters."""
    name, arrays, run, _, measured = recorded
    for number, metrics in enumerate(measured, 1):
        values = golden.values(arrays, f"out/step{number}/")
        assert len(values) >= 2 if "stage1" in name else len(values) >= 8
        for theirs, value in values.items():
            ours = metrics[TERMS[theirs]] * (run.config.loss[WEIGHTED[theirs]] if theirs in WEIGHTED else 1.0)
            assert ours == pytest.approx(value, rel=1e-3 if "norm" in theirs else 1e-4, abs=1e-6), (number, theirs)


def _paths(tree):
    """path -> leaf."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def test_gradients_of_the_first_step(recorded):
    """Read from Adam's first moment, a tenth of them. A relativistic loss leaves the last bias next to none."""
    name, arrays, _, after, _ = recorded
    for net, expected in _nets(arrays, name, "grad").items():
        moments = _paths(optax.tree.get(after[0].opt[net], "mu")[net])
        for path, gradient in _paths(expected["params"]).items():
            if (net, path) == ("discriminator", "head/bias") and "stage2" in name:
                continue
            largest = np.abs(gradient).max()
            assert np.abs(10 * moments[path] - gradient).max() <= 1e-3 * largest + 1e-9, (net, path)


def test_state_after_the_first_step(recorded):
    """Parameters; and running statistics and spectral vectors, which move in the generator's phase, too."""
    name, arrays, run, after, _ = recorded
    rate = run.config.optim.generator.learning_rate
    for net, tree in _nets(arrays, name, "after1").items():
        params, gradients = _paths(after[0].params[net]), _paths(_nets(arrays, name, "grad")[net]["params"])
        for path, value in _paths(tree.pop("params")).items():
            settled = np.abs(gradients[path]) > 1e-3 * np.abs(gradients[path]).max()  # else rounding tells its sign
            error = np.abs(params[path] - value)
            assert error[settled].max(initial=0) <= 1e-4 * np.abs(value).max() + 0.02 * rate, (net, path)
            assert error.max() <= 2.1 * rate
        ours = _paths(after[0].variables[net])
        for path, value in _paths(tree).items():
            assert np.abs(ours[path] - value).max() <= 1e-4 * np.abs(value).max(), (net, path)


def test_average_after_two_steps(recorded):
    """It begins with the first parameters, and moves behind both updates."""
    name, arrays, _, after, _ = recorded
    if "stage1" not in name:
        return
    for path, value in _paths(golden.variables(arrays, "ema2/G/", golden.RRDBNET)["params"]).items():
        first = _paths(golden.variables(arrays, "params/G/", golden.RRDBNET)["params"])[path]
        assert np.abs(_paths(after[1].ema["generator"]["params"])[path] - value).max() <= 2e-7
        assert np.abs(first - value).max() > 2e-7


# Losses.


def test_relativistic_average_loss_as_recorded():
    """Values, with the published weight of the generator's, and gradients; real and fake logits are of one batch."""
    arrays = golden.load("sr_losses")
    game, real, fake = losses.relativistic_average(), arrays["in/real_logits"], arrays["in/fake_logits"]
    value, of_fake = jax.value_and_grad(lambda fake: 0.005 * game.generator(real, fake).mean())(fake)
    assert value == pytest.approx(float(arrays["out/ragan_l_g_gan"]), rel=1e-5)
    np.testing.assert_allclose(of_fake, arrays["grad/ragan_g_fake"], rtol=1e-4, atol=1e-8)
    for name in ("real", "fake"):
        assert game.discriminator(real, fake)[name].mean() == pytest.approx(float(arrays[f"out/ragan_l_d_{name}"]))
    total = jax.grad(lambda *both: sum(term.mean() for term in game.discriminator(*both).values()), argnums=(0, 1))
    for gradient, name in zip(total(real, fake), ("real", "fake"), strict=True):
        np.testing.assert_allclose(gradient, arrays[f"grad/ragan_d_{name}"], rtol=1e-4, atol=1e-7)


@pytest.fixture(scope="module")
def vgg19():
    """The recorded recipe's weights of VGG19."""
    return vgg.from_torch(states.random_state(vgg.shapes("vgg19"), 202))


@pytest.mark.parametrize(("case", "section"), [
    ("esrgan", {"layers": ("conv5_4",), "factors": (1.0,), "criterion": "l1"}),
    ("multi", {"layers": ALL_LAYERS, "factors": (0.1, 0.1, 1.0, 1.0, 1.0), "criterion": "l1"}),
    ("relu_l2", {"layers": ("relu2_2", "relu5_4"), "factors": (0.5, 1.0), "criterion": "l2"}),
])  # fmt: skip
def test_perceptual_terms_as_recorded(case, section, vgg19):
    """Of the published program with VGG19's widths; `relu_l2` was given pictures in [-1, 1], which are those here.

    In float64, since in float32 a unit near 0 is passed on one processor and not on another: 1% of the gradient.
    """
    arrays = golden.load("sr_losses")
    x, target = (golden.images(arrays[f"in/perc_{name}"]) for name in ("x", "gt"))
    if case == "relu_l2":
        x, target = (x + 1) / 2, (target + 1) / 2
    measure = perceptual.terms(ConfigDict({**perceptual.DEFAULTS, **section}))

    def loss(x, variables):
        terms = measure(variables, x, target.astype(x.dtype))
        return terms["perceptual"] + (0.01 * terms["texture"] if case == "multi" else 0.0), terms

    with jax.enable_x64(True):
        doubles = jax.tree.map(lambda array: np.asarray(array, np.float64), (x, vgg19))
        (_, terms), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(*doubles)
    assert gradient.dtype == np.float64
    assert terms["perceptual"] == pytest.approx(float(arrays[f"out/perceptual_{case}"]), rel=1e-5)
    if case == "multi":
        assert 0.01 * terms["texture"] == pytest.approx(float(arrays["out/style_multi"]), rel=1e-5)
    recorded = golden.images(arrays[f"grad/perceptual_{case}_x"]) * (2 if case == "relu_l2" else 1)
    assert np.abs(gradient - recorded).max() <= 5e-5 * np.abs(recorded).max()


def test_gram_of_two_pixels():
    maps = jnp.array([[[[1.0, 2.0], [3.0, 4.0]]]])  # (1, 1, 2, 2)
    np.testing.assert_allclose(perceptual.gram(maps)[0], np.array([[10.0, 14.0], [14.0, 20.0]]) / 4)


def test_features_come_up_to_the_last_layer_alone():
    """`random_` ones need no file; a grey picture counts as three equal channels."""
    config = _config(perceptual__layers=("conv2_1", "relu1_2"), perceptual__factors=(1.0, 2.0))
    fixed = super_resolution.fixed(config)["features"]
    assert set(fixed["params"]) == {"features_0", "features_2", "features_5"}
    grey = np.random.default_rng(0).uniform(size=(1, 8, 8, 1)).astype(np.float32)
    measure = perceptual.terms(config.perceptual)
    ours, theirs = (measure(fixed, made, 0 * made)["perceptual"] for made in (grey, np.repeat(grey, 3, -1)))
    assert ours == pytest.approx(float(theirs), rel=1e-6)
    assert super_resolution.fixed(_config(loss__perceptual=0.0)) == {}


def test_missing_weights_are_one_message_with_the_keys_of_this_section(tmp_path):
    config = _config(perceptual__features="vgg19", perceptual__weights=str(tmp_path))
    with pytest.raises(MissingPathError, match="config.perceptual.features='vgg19': the weights 'vgg19'") as error:
        super_resolution.fixed(config)
    text = str(error.value)
    assert "config.perceptual.download=True fetches" in text and "'random_vgg19' needs none" in text
    assert "config.evaluation" not in text and "--download" not in text


def test_weights_may_lie_elsewhere_when_a_run_goes_on():
    old, new = _config(), _config(perceptual__weights="there", perceptual__download=True, perceptual__criterion="l2")
    assert configs.differences(old, new) == ["config.perceptual.criterion: 'l1' -> 'l2'"]


# How pictures become small.


@pytest.mark.parametrize("scale", ["0.2500", "0.5000", "0.3333", "2.0000", "1.5000"])
def test_bicubic_as_recorded(scale):
    arrays = golden.load("sr_pixelshuffle_imresize")
    exact = 1 / 3 if scale == "0.3333" else float(scale)
    resized = degradation.bicubic(jnp.asarray(arrays["in/imresize"])[None], exact)[0]
    np.testing.assert_allclose(resized, arrays[f"out/matlab_imresize_{scale}"], atol=5e-6)


def test_small_pictures_have_levels_of_a_file():
    """And those of held-out examples are what training makes of the same pictures."""
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 24, 3), dtype=np.uint8)
    small = degradation.low_resolution(jnp.asarray(images) / 255, 4)
    assert small.shape == (3, 4, 6, 3)
    levels = np.asarray(small) * 255
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-4)
    derived = super_resolution.derive(_config(), {"image": images})["low_resolution"]
    assert derived.dtype == np.uint8 and np.abs(derived - levels).max() <= 1.001  # a half may be rounded either way
    assert (derived == np.round(levels)).mean() > 0.99


@pytest.mark.parametrize("radius", [50, 15])
@pytest.mark.parametrize(("weight", "threshold"), [(0.5, 10), (1.0, 20)])
def test_sharpening_as_recorded(radius, weight, threshold):
    arrays = golden.load("sr_realesrgan_usm")
    images = jnp.asarray(golden.images(arrays["in/img_u8"])) / 255
    ours = degradation.sharpened(images, weight, radius, threshold)
    recorded = golden.images(arrays[f"out/r{radius}_s0/sharp_w{weight}_t{threshold}"])
    np.testing.assert_allclose(ours, recorded, atol=2e-5)


def test_what_is_aimed_at_is_sharpened_and_the_reals_are_not():
    images = np.random.default_rng(0).integers(0, 256, (2, 28, 28, 3), dtype=np.uint8)
    rng = steps.Rng(None, jax.random.split(jax.random.key(0), 2))
    look = dict(scale=4, crop=0, turn=False, flip=False)
    small, large, target = super_resolution._pictures({"image": jnp.asarray(images)}, rng, sharpen=True, **look)
    np.testing.assert_allclose(large, images / 255, atol=1e-6)
    np.testing.assert_allclose(target, degradation.sharpened(large, 0.5, 50, 10), atol=1e-6)
    assert np.abs(target - large).max() > 0.05
    np.testing.assert_allclose(small, degradation.low_resolution(large, 4), atol=1e-6)


# What is seen.


def test_cuts_come_from_everywhere():
    """Of a picture of running numbers; corners are floors of draws times the places that there are."""
    images = jnp.arange(6 * 5.0).reshape(1, 6, 5, 1)
    draws = jnp.array([[0.0, 0.0]]), jnp.array([[0.99, 0.99]]), jnp.array([[0.5, 0.34]])
    corners = [super_resolution.cut(images, draw, 3)[0, 0, 0, 0] for draw in draws]
    assert [float(corner) for corner in corners] == [0.0, 3 * 5 + 2, 2 * 5 + 1]


def test_turned_pictures_are_the_eight_symmetries():
    """Of one square, seen by many samples; small pictures are made of what is seen."""
    square = np.arange(64, dtype=np.uint8).reshape(8, 8, 1)
    batch = {"image": jnp.asarray(np.repeat(square[None], 200, 0))}
    rng = steps.Rng(None, jax.random.split(jax.random.key(0), 200))
    small, large, target = super_resolution._pictures(batch, rng, scale=4, crop=0, turn=True, flip=True,
                                                          sharpen=False)  # fmt: skip
    turned = [np.rot90(square, times) for times in range(4)]
    expected = {np.round(x).astype(np.uint8).tobytes() for x in turned + [x[:, ::-1] for x in turned]}
    seen = [np.round(np.asarray(x) * 255).astype(np.uint8).tobytes() for x in large]
    assert set(seen) == expected and min(seen.count(x) for x in expected) > 8
    np.testing.assert_array_equal(target, large)
    np.testing.assert_allclose(small, degradation.low_resolution(large, 4), atol=1e-6)


@functools.cache
def _on_one_device():
    """A run, and the State and metrics of two steps on one device."""
    run = _build(_config(batch_size=16, **{f"optim__{net}__{key}": value for net in super_resolution.NETS
                                           for key, value in (("name", "sgd"), ("learning_rate", 0.1))}))  # fmt: skip
    return run, *settings.play(run, count=2)


@pytest.mark.parametrize("mode", ["shard_map", "pmap"])
def test_one_and_eight_devices_agree(mode):
    """Means of logits, running statistics and pictures that are shown are those of the whole batch."""
    run, one, metrics = _on_one_device()
    eight, measured = settings.play(run, count=2, devices=8, mode=mode)
    for part in ("params", "variables", "ema", "memory"):
        assert settings.largest_difference(getattr(one, part), getattr(eight, part), floor=1e-3) < 1e-4, part
    for ours, theirs in zip(metrics, measured, strict=True):
        assert ours.keys() == theirs.keys()
        np.testing.assert_allclose(list(ours.values()), list(theirs.values()), rtol=1e-4, atol=1e-6)


def test_discriminator_sees_what_the_generator_made_before_its_update():
    run = _build(_config(batch_size=2, loss__perceptual=0.0, super_resolution__crop=0, super_resolution__turn=False,
                         data__flip=False, optim__generator__learning_rate=0.1), (8, 8, 3))  # fmt: skip
    before, batch = runs.fresh_state(run), settings.random_batch(run, 0)
    after, _ = settings.play(run, count=1, batches=[batch], state=before)
    small = degradation.low_resolution(jnp.asarray(batch["image"]) / 255, 4)
    enlarge = jax.jit(functools.partial(run.nets["generator"].apply, train=True))
    first, second = (enlarge({"params": state.params["generator"]}, small) for state in (before, after))
    np.testing.assert_allclose(after.memory["shown"], first, atol=1e-5)
    assert np.abs(first - second).max() > 0.01


def test_without_an_adversary_there_is_a_generator_alone():
    run = _build(_config("pixel_smoke", accumulate=2))
    assert set(run.nets) == {"generator"} and [phase.name for phase in run.phases] == ["generator"]
    assert runs.fresh_state(run).memory == {} and run.phases[0].weights == (("pixel", 1.0),)


def test_samples_are_the_small_pictures_enlarged():
    """uint8 in, the net's own [0, 1] inside, [-1, 1] out; small ones may have any size."""
    run = _build(_config())
    assert runs.sources(run) == ("low_resolution",)
    state = runs.fresh_state(run)
    small = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 3), dtype=np.uint8)
    draw = jax.jit(functools.partial(super_resolution.sample, run.nets))
    drawn = draw(state.ema, None, {"low_resolution": small})["image"]
    enlarge = jax.jit(functools.partial(run.nets["generator"].apply, train=False))
    expected = enlarge(state.ema["generator"], jnp.asarray(small) / 255)
    assert drawn.shape == (2, 12, 20, 3)
    np.testing.assert_allclose(drawn, 2 * expected - 1, atol=1e-5)


# Through the commands.


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a run of the first stage."""
    folder = tmp_path_factory.mktemp("superres") / "pixel"
    mesh = settings.mesh(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "make_mesh", lambda devices=None: mesh)
        assert train(_config("pixel_smoke"), str(folder))
    return folder


def test_the_second_stage_begins_where_the_first_ended(trained):
    """With its parameters and their average; the discriminator is fresh."""
    run, mesh = _build(_config()), settings.mesh(1)
    fresh = parallel.replicate(runs.fresh_state(run), mesh)
    state, line = folders.transfer(run, fresh, str(trained), mesh)
    ended = folders.restore(_build(_config("pixel_smoke")), trained, mesh).state
    for part in ("params", "ema"):
        ours, theirs = (getattr(one, part)["generator"] for one in (state, ended))
        assert jax.tree.all(jax.tree.map(np.array_equal, ours, theirs))
    assert jax.tree.all(jax.tree.map(np.array_equal, state.params["discriminator"], fresh.params["discriminator"]))
    assert "step 3; fresh: discriminator/" in line


def test_held_out_examples_are_made_small(trained, tmp_path):
    files = sample(str(trained), str(tmp_path), seeds="0-1")
    assert [np.asarray(Image.open(file)).shape for file in files[:2]] == [(16, 16, 3)] * 2
    config, spec, _ = folders.read_folder(trained)
    run = runs.build(config, spec)
    examples = run_data.open_data(config).examples(np.arange(2))
    for given in (runs.held_out(run)(np.arange(2)), {k: v[:2] for k, v in grid_given(run).items()}):
        assert set(given) == {"low_resolution", "image"} and given["low_resolution"].shape == (2, 4, 4, 3)
    expected = super_resolution.derive(config, examples)["low_resolution"]
    np.testing.assert_array_equal(runs.held_out(run)(np.arange(2))["low_resolution"], expected)


def test_metrics_are_given_held_out_examples_made_small(trained):
    """In their order, with the classes of the large ones; a distance counts the large size of what is drawn."""
    config, spec, _ = folders.read_folder(trained)
    run = runs.build(config, spec)
    inputs, examples = _inputs(run, None, 20), run_data.open_data(config).examples(np.arange(16))
    np.testing.assert_array_equal(inputs.labels, np.resize(examples["label"], len(inputs.labels)))
    numbers = np.array([3, 17])  # of sixteen, which begin anew
    expected = super_resolution.derive(config, examples)["low_resolution"][[3, 1]]
    np.testing.assert_array_equal(inputs.given(numbers)["low_resolution"], expected)
    assert games.drawn(run.game, config) == "image"


def test_pictures_of_the_user_have_any_size(trained, tmp_path, capsys):
    """Those of one size are as Python gives them, of a path or an array; others beside them, in tiles too."""
    photos, noise = tmp_path / "photos", np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), np.uint8)
    photos.mkdir()
    for name, image in zip("ab", noise, strict=True):
        Image.fromarray(image).save(photos / f"{name}.png")
    files = sample(str(trained), str(tmp_path / "out"), inputs=str(photos))
    assert [file.name for file in files] == ["a.png", "b.png", "grid.png"]
    ours = np.stack([np.asarray(Image.open(file)) for file in files[:2]])
    opened = open_run(trained)
    for inputs in (str(photos), noise):
        np.testing.assert_array_equal(opened.sample(inputs=inputs), ours)
    with pytest.raises(UserError, match=r"inputs: an array of float64 and the shape \(2, 5, 7, 3\); expected uint8"):
        opened.sample(inputs=noise / 255)
    with pytest.raises(UserError, match="it draws from inputs alone"):
        opened.sample([0], inputs=noise)
    Image.fromarray(noise[0].repeat(8, 0).repeat(8, 1)).save(photos / "c.webp", lossless=True)
    for number in (0, 16):
        flags = ["--format=png", f"--tile={number}", f"--out={tmp_path / str(number)}", f"--inputs={photos}"]
        assert cli.main(["sample", f"--workdir={trained}", *flags]) == 0
    assert "wrote 3 files" in capsys.readouterr().out
    whole, tiled = (np.asarray(Image.open(tmp_path / name / "c.png")).astype(int) for name in ("0", "16"))
    assert whole.shape == (160, 224, 3) and np.abs(whole - tiled).max() <= 1


# Experiments.

ESRGAN = {"adversarial": 5e-3, "perceptual": 1.0, "pixel": 1e-2, "texture": 0.0}  # of BasicSR's options
SRGAN = {"adversarial": 1e-3, "perceptual": 0.006, "pixel": 0.0, "texture": 0.0}  # section 3.2 of the paper
ALONE = {"adversarial": 0.0, "perceptual": 0.0, "pixel": 1.0, "texture": 0.0}


@pytest.mark.parametrize(("name", "variant", "weights", "crop", "steps", "rate", "betas", "size"), [
    ("esrgan", "", ESRGAN, 128, 400_000, 1e-4, (0.9, 0.99), 16_697_987),
    ("esrgan", "pixel", ALONE, 128, 1_000_000, 2e-4, (0.9, 0.99), 16_697_987),
    ("srgan", "", SRGAN, 96, 200_000, 1e-4, (0.9, 0.999), 1_549_462),
    ("srgan", "pixel", ALONE, 96, 1_000_000, 1e-4, (0.9, 0.999), 1_549_462),
])  # fmt: skip
def test_experiments_have_the_published_values(name, variant, weights, crop, steps, rate, betas, size):
    """And generators of the published sizes: RRDBNet's as its file has it, SRResNet's counted by hand."""
    path = settings.EXPERIMENTS / f"div2k_{name}.py"
    config = runs.load_config(f"{path}:{variant}" if variant else str(path))
    assert {term: config.loss[term] for term in super_resolution.WEIGHTS} == weights
    assert (config.super_resolution.crop, config.batch_size, config.generator.scale) == (crop, 16, 4)
    assert config.total_images == 16 * steps
    run = _build(config, (480, 480, 3))
    for player, optimizer in run.optimizers.items():
        settings_ = config.optim[player]
        assert (settings_.name, settings_.b1, settings_.b2) == ("adam", *betas)
        assert float(optimizer.learning_rate(0)) == pytest.approx(rate)
    shapes = jax.eval_shape(lambda: run.game.init(config, run.nets, run.spec, jax.random.key(0))[0])["generator"]
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == size
    taps = {"esrgan": (("conv5_4",), "l1"), "srgan": (("relu5_4",), "l2")}[name]
    assert (tuple(config.perceptual.layers), config.perceptual.criterion) == taps


# Errors.


@pytest.mark.parametrize(("overrides", "shape", "message"), [
    ({"loss__name": "relativistic_avarage"}, (16, 16, 3), "config.loss.name: unknown .*, or relativistic_average"),
    ({"loss__criterion": "l3"}, (16, 16, 3), "config.loss.criterion='l3': expected one of l1, l2"),
    ({"loss__pixel": -1.0}, (16, 16, 3), "loss.pixel=-1.0: expected a finite number, 0 or more"),
    ({"accumulate": 2}, (16, 16, 3), "accumulate=2.*expected 1"),
    ({"super_resolution__crop": 32}, (16, 16, 3), "crop=32: the data's pictures are 16x16"),
    ({"super_resolution__crop": 6}, (16, 16, 3), "config.generator.scale=4 needs sides that are its multiples"),
    ({"super_resolution__crop": 0, "super_resolution__sharpen": True}, (24, 24, 3), "24x24 are too small for its blur"),
    ({"super_resolution__crop": 0}, (16, 24, 3), "pictures of 16x24 cannot be turned"),
    ({"perceptual__features": "vgg11"}, (16, 16, 3), "features='vgg11': expected one of vgg19, vgg16, random_vgg19"),
    ({"perceptual__layers": ("conv6_1",)}, (16, 16, 3), "vgg19 has no layer 'conv6_1'; expected one of conv1_1, relu1"),
    ({"perceptual__factors": (1.0, 2.0)}, (16, 16, 3), "expected different names, and one factor for each"),
    ({f"loss__{name}": 0.0 for name in super_resolution.WEIGHTS}, (16, 16, 3), "config.loss has no term: set one of"),
])  # fmt: skip
def test_errors(overrides, shape, message):
    with pytest.raises(UserError, match=message):
        _build(_config(**overrides), shape)


def test_classical_method_is_the_cubic_s_enlargement():
    """As it was recorded, up to the levels of pixels."""
    arrays = golden.load("sr_pixelshuffle_imresize")
    small = np.round(arrays["in/imresize"] * 255).astype(np.uint8)[None]
    config = _config(generator__scale=2)
    enlarged = super_resolution.baselines(config, None)["bicubic"]({"low_resolution": small})
    recorded = np.clip(arrays["out/matlab_imresize_2.0000"], 0, 1) * 255
    assert enlarged.dtype == np.uint8 and np.abs(enlarged[0] - recorded).max() < 1.2
    assert super_resolution.target(config) == "image"


def test_models_that_do_not_enlarge_and_points_are_refused():
    config = _config()
    other = configs.complete(ConfigDict({**config.to_dict(), "generator": {"name": "cyclegan"}}), runs.defaults)
    with pytest.raises(UserError, match="needs scale of 'generator', and 'cyclegan' has no scale; take"):
        _build(other)
    with pytest.raises(UserError, match="'super_resolution' needs images, not points"):
        runs.build(config, {"image": specs.Field("points", (2,))})
