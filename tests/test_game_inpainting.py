"""Inpainting: recorded losses and steps of LaMa, masks of a run, what is known stays, what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax.tree
import pytest
from ml_collections import ConfigDict

from gan_jax import config as configs
from gan_jax import losses, metrics, runs, specs
from gan_jax.errors import UserError
from gan_jax.evaluate import protocols
from gan_jax.games import inpainting, masked_losses
from gan_jax.layers import masks, pixels
from gan_jax.layers.conv import conv
from tests import golden_lama as golden
from tests import settings


def _config(variant="smoke", **overrides):
    """LaMa's experiment, shrunk; keys with `__` for dots."""
    config = runs.load_config(f"{settings.EXPERIMENTS / 'places_lama.py'}:{variant}")
    for key, value in overrides.items():
        configs.override(config, key.replace("__", "."), str(value))
    return config


def _build(config, shape=(32, 32, 3)):
    return runs.build(config, {"image": specs.Field("image", shape)})


# Losses, each recorded with its gradients.


@pytest.fixture(scope="module")
def recorded():
    return golden.load("lama_losses")


@pytest.mark.parametrize(("criterion", "known", "missing"), [
    ("l1", 10, 0), ("l2", 10, 0), ("l1", 1, 0.5), ("l2", 1, 0.5),
])  # fmt: skip
def test_recorded_distances(recorded, criterion, known, missing):
    name = f"masked_{criterion}_known{known}_missing{missing}"
    image, mask, made = (golden.images(recorded[f"in/{key}"]) for key in ("image", "mask", "predicted"))
    options = {"criterion": criterion, "known": known, "missing": missing}
    loss, slope = jax.jit(jax.value_and_grad(functools.partial(masked_losses.distance, **options)))(made, image, mask)
    assert loss == pytest.approx(float(recorded[f"out/{name}"]), rel=1e-5)
    golden.close(slope, golden.images(recorded[f"grad/{name}/predicted"]))


@pytest.mark.parametrize("name", ["fm_nomask", "fm_mask"])
def test_recorded_matching(recorded, name):
    made, real = (tuple(golden.images(recorded[f"in/fm_{kind}{i}"]) for i in range(3)) for kind in ("fake", "real"))
    mask = golden.images(recorded["in/mask"]) if name == "fm_mask" else None
    loss, slopes = jax.jit(jax.value_and_grad(masked_losses.matching))(made, real, mask)
    assert loss == pytest.approx(float(recorded[f"out/{name}"]), rel=1e-5)
    for i, slope in enumerate(slopes):
        golden.close(slope, golden.images(recorded[f"grad/{name}/fake{i}"]))


HOLES = {  # of each recording: how the hole is treated, the factor of the penalty, the weight of the generator's term
    "default": (masked_losses.Hole(fake_in_hole=False), 5, 1),
    "lama": (masked_losses.Hole(), 0.001, 10),
    "lama_maxpool": (masked_losses.Hole(resize="maximum"), 0.001, 10),
    "bilinear": (masked_losses.Hole(resize="bilinear"), 0.001, 10),
    "lama_extra": (masked_losses.Hole(extra=0.5), 0.001, 10),
    "masked_only": (masked_losses.Hole(False, True, True), 0.1, 2),
    "masked_discr_only": (masked_losses.Hole(False, True), 0.1, 2),
}


def _judge(params, image):
    """The recorder's small discriminator: 4x4 of stride 2, LeakyReLU, 3x3."""
    x = conv(image, params["0.weight"].transpose(2, 3, 1, 0), 2, ((1, 1), (1, 1))) + params["0.bias"]
    x = jax.nn.leaky_relu(x, 0.2)
    return conv(x, params["2.weight"].transpose(2, 3, 1, 0), 1, ((1, 1), (1, 1))) + params["2.bias"]


@pytest.mark.parametrize("name", HOLES)
def test_recorded_adversarial_terms(recorded, name):
    hole, factor, weight = HOLES[name]
    game = losses.adversarial("non_saturating")
    image, mask, real, fake, shown = (
        golden.images(recorded[f"in/{key}"])
        for key in ("image", "mask_adv", "pred_real", "pred_fake", "disc_pred_fake")
    )
    for side in (11, 16):
        if f"out/adv_{name}/scaled_mask_{side}x{side}" in recorded:
            expected = golden.images(recorded[f"out/adv_{name}/scaled_mask_{side}x{side}"])
            golden.close(masked_losses.resized(mask, (side, side), hole.resize), expected)

    def generator(fake):
        return weight * masked_losses.generator(game, real, fake, mask, hole).mean()

    loss, slope = jax.jit(jax.value_and_grad(generator))(fake)
    assert loss == pytest.approx(float(recorded[f"out/adv_{name}/gen"]), rel=1e-5)
    golden.close(slope, golden.images(recorded[f"grad/adv_{name}/gen_pred_fake"]))

    def discriminator(params, shown):
        slope, logits = jax.grad(lambda x: (_judge(params, x).sum(), _judge(params, x)), has_aux=True)(image)
        penalty = factor * jnp.square(slope).sum((1, 2, 3)).mean()
        terms = masked_losses.discriminator(game, logits, shown, mask, hole)
        return penalty + sum(term.mean() for term in terms.values()), penalty

    params = {key.removeprefix("params/D/"): recorded[key] for key in recorded if key.startswith("params/D/")}
    play = jax.jit(jax.value_and_grad(discriminator, argnums=(0, 1), has_aux=True))
    (loss, penalty), (of_params, of_shown) = play(params, shown)
    assert loss == pytest.approx(float(recorded[f"out/adv_{name}/disc"]), rel=1e-5)
    assert penalty == pytest.approx(float(recorded[f"out/adv_{name}/disc_r1_times_coef"]), rel=1e-5)
    golden.close(of_shown, golden.images(recorded[f"grad/adv_{name}/disc_pred_fake"]))
    for key, slope in of_params.items():
        golden.close(slope, recorded[f"grad/adv_{name}/disc_D/{key}"])


def test_masks_of_other_sizes():
    """By hand, 5 pixels to 2 and 3: the first of each part, and the largest of all that it touches."""
    mask = jnp.array([0.0, 1, 0, 0, 1]).reshape(1, 5, 1, 1)
    for how, wanted, expected in (("nearest", 2, [0, 0]), ("nearest", 3, [0, 1, 0]), ("maximum", 2, [1, 1]),
                                  ("maximum", 3, [1, 1, 1])):  # fmt: skip
        np.testing.assert_array_equal(masked_losses.resized(mask, (wanted, 1), how)[0, :, 0, 0], expected)
    assert masked_losses.resized(mask, (5, 1), "nearest") is mask


# Two steps of the published program.

RECORDED = dict(
    batch_size=2, generator__width=4, generator__halvings=2, generator__blocks=2, discriminator__width=4,
    discriminator__layers=3, data__flip=False, inpainting__masks="centre",
)  # fmt: skip
NAMES = {"generator": golden.generator(2, 2), "discriminator": golden.discriminator(3)}
# Biases in front of a norm have no effect, and move at random.
IDLE = {"generator": ("up0/bias", "up1/bias"), "discriminator": ("conv1/bias", "conv2/bias", "conv3/bias")}


def _nets(arrays, prefix):
    return {net: golden.variables(arrays, f"{prefix}/{net[0].upper()}/", names) for net, names in NAMES.items()}


def _paths(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


@pytest.fixture(scope="module")
def steps():
    """(arrays, config, State after one and two steps, metrics of both)."""
    arrays = golden.load("lama_train_step")
    config = _config("", **RECORDED)
    run, before = _build(config), _nets(arrays, "params")
    state = runs.fresh_state(run)
    params = {net: tree["params"] for net, tree in before.items()}
    variables = {net: {"batch_stats": tree["batch_stats"]} for net, tree in before.items()}
    assert jax.tree.map(jnp.shape, (params, variables)) == jax.tree.map(jnp.shape, (state.params, state.variables))
    state = state._replace(params=params, variables=variables, ema={"generator": before["generator"]})
    batch = {"image": 2 * golden.images(arrays["in/image"]) - 1, "mask": golden.images(arrays["in/mask"])}
    after, measured, programs = [], [], {}
    for _ in range(2):
        state, values = settings.play(run, count=1, batches=[batch], state=state, programs=programs)
        after.append(state)
        measured += values
    return arrays, config, after, measured


def test_losses_of_two_steps(steps):
    arrays, config, _, measured = steps
    theirs = {
        "gradnorm_G": "generator/grad_norm", "G_total": "generator/loss", "gen_l1": "generator/distance",
        "gen_adv": "generator/adversarial", "gen_fm": "generator/matching", "gradnorm_D": "discriminator/grad_norm",
        "D_total": "discriminator/loss", "discr_adv": "discriminator/loss", "adv_discr_real_gp": "discriminator/r1",
        "adv_discr_real_out": "discriminator/real_logit", "adv_discr_fake_out": "discriminator/fake_logit",
    }  # fmt: skip
    weights = {"gen_adv": 10, "gen_fm": 100, "adv_discr_real_gp": config.loss.r1}
    for number, values in enumerate(measured, 1):
        for name, ours in theirs.items():
            expected = float(arrays[f"out/step{number}/{name}"])
            value = values[ours] * weights.get(name, 1)
            assert value == pytest.approx(expected, rel=1e-3 if "norm" in name else 2e-4, abs=1e-6), (number, name)


def test_gradients_of_the_first_step(steps):
    """Read from Adam's first moment, a tenth of them, clipped to the norm 1."""
    arrays, _, after, measured = steps
    for net, tree in _nets(arrays, "grad").items():
        moments = _paths(optax.tree.get(after[0].opt[net], "mu")[net])
        clipped = max(1.0, float(measured[0][f"{net}/grad_norm"]))
        for path, gradient in _paths(tree["params"]).items():
            if path not in IDLE[net]:
                golden.close(10 * clipped * moments[path], gradient, 1e-3)


def test_state_after_the_first_step(steps):
    """Parameters; and running statistics, which move twice in the generator and four times in the discriminator."""
    arrays, config, after, _ = steps
    gradients, moved = _nets(arrays, "grad"), _nets(arrays, "after1")
    for net, tree in moved.items():
        rate, slopes = config.optim[net].learning_rate, _paths(gradients[net]["params"])
        ours = _paths(after[0].params[net])
        for path, value in _paths(tree["params"]).items():
            settled = np.abs(slopes[path]) > 1e-3 * np.abs(slopes[path]).max()  # else rounding tells its sign
            if path not in IDLE[net]:
                assert np.abs(ours[path] - value)[settled].max() < 0.02 * rate, (net, path)
        for path, value in _paths(tree["batch_stats"]).items():
            behind_idle = any(path.startswith(name.split("/")[0] + "_norm/mean") for name in IDLE[net])
            assert np.abs(_paths(after[0].variables[net]["batch_stats"])[path] - value).max() <= (
                2 * rate if behind_idle else 1e-3 * np.abs(value).max()), (net, path)  # fmt: skip


# Masks of a run, and what a sample keeps.


def _digits(**overrides):
    """The digits' experiment, shrunk; a narrow generator of two halvings, for 16 px."""
    config = runs.load_config(f"{settings.EXPERIMENTS / 'digits_inpaint.py'}:smoke")
    for key, value in {"generator__halvings": 2, **overrides}.items():
        configs.override(config, key.replace("__", "."), str(value))
    return config


@pytest.fixture(scope="module")
def run():
    return _build(_digits(), (16, 16, 1))


def test_held_out_masks_belong_to_their_pictures(run):
    """Wherever a picture stands; the hole is grey, and another seed has other holes."""
    images = settings.random_batch(run, 0)["image"]
    made = inpainting.derive(run.config, {"image": images})
    assert {name: array.dtype for name, array in made.items()} == {"masked": np.uint8, "mask": np.uint8}
    fields = inpainting.derived(run.config, run.spec)
    assert {name: array.shape[1:] for name, array in made.items()} == {n: field.shape for n, field in fields.items()}
    assert set(np.unique(made["mask"])) == {0, 255} and len(np.unique(made["mask"], axis=0)) > 4
    np.testing.assert_array_equal(made["masked"], np.where(made["mask"] > 0, 128, images))
    turned = inpainting.derive(run.config, {"image": images[::-1]})
    np.testing.assert_array_equal(turned["mask"], made["mask"][::-1])
    for seed in (7, 2**32 - 1):
        other = inpainting.derive(_digits(seed=seed), {"image": images})
        assert (other["mask"] != made["mask"]).any()


def test_known_pixels_are_the_pictures_own_whatever_their_size(run):
    """Every level of grey, in sizes that are no multiples of the network's, down to one pixel."""
    assert runs.sources(run) == ("masked",) and runs.shown(run) == ("masked", "mask", "image")
    ema = runs.fresh_state(run).ema
    draw = jax.jit(functools.partial(inpainting.sample, run.nets))
    for height, width in ((16, 16), (13, 21), (1, 3)):
        images = np.random.default_rng(0).integers(0, 256, (2, height, width, 1), dtype=np.uint8)
        images.flat[:256] = np.arange(256)[: images.size]
        mask = np.zeros_like(images)
        mask[:, : height // 2, 1:-1] = 255
        out = draw(ema, None, {"masked": images, "mask": mask})["image"]
        filled = np.asarray(pixels.quantise(out))
        np.testing.assert_array_equal(filled[mask == 0], images[mask == 0])
        changed = draw(ema, None, {"masked": np.where(mask, 7, images), "mask": mask})["image"]
        np.testing.assert_array_equal(changed, out)  # what lies in the hole is not looked at


def test_devices_agree():
    """One step on one device and on two, with masks and flips of each sample's own; norms are of the whole batch."""
    run = _build(_digits(data__flip=True, optim__generator__name="sgd", optim__discriminator__name="sgd"), (16, 16, 1))
    (one, first), (two, second) = (settings.play(run, count=1, devices=devices) for devices in (1, 2))
    assert settings.largest_difference(one.params, two.params, 1e-4) < 1e-3
    for name, value in first[0].items():
        assert second[0][name] == pytest.approx(value, rel=1e-3, abs=1e-6), name
    assert {"generator/distance", "generator/matching", "discriminator/r1"} <= set(first[0])


def test_terms_of_weight_zero_are_left_out():
    config = _config(loss__adversarial=0.0, loss__matching=0.0, loss__missing=1.0)
    (phase,) = _build(config).phases
    assert dict(phase.weights) == {"known": 10.0, "missing": 1.0}
    phases = _build(_config(loss__r1=0.0)).phases
    assert [(one.name, dict(one.weights)) for one in phases][1] == ("discriminator", {})
    assert phases[1].draws == "generator"


def test_baselines(run):
    """A plane is biharmonic, and so is known where it is not seen; the mean is that of the pixels around."""
    rows, columns = np.mgrid[:16, :16]
    plane = (40 + 5 * rows + 3 * columns).astype(np.uint8)[None, ..., None]
    mask = np.zeros_like(plane)
    mask[:, 5:9, 6:12] = 255
    methods = inpainting.baselines(run.config, None)
    filled = methods["biharmonic"]({"masked": np.where(mask, 128, plane), "mask": mask})
    assert np.abs(filled.astype(int) - plane).max() <= 1
    mean = methods["mean"]({"masked": np.where(mask, 0, plane), "mask": mask})
    assert (mean[mask > 0] == round(plane[mask == 0].mean())).all()
    np.testing.assert_array_equal(mean[mask == 0], plane[mask == 0])
    whole = np.full_like(mask, 255)
    for method in methods.values():
        assert (method({"masked": plane, "mask": whole}) == 128).all()


def test_masked_l1_by_hand():
    """Black is -1 and white 1; only the hole counts, and without one the value is 0."""
    a, b = np.zeros((2, 4, 4, 3), np.uint8), np.full((2, 4, 4, 3), 51, np.uint8)
    mask = np.zeros((2, 4, 4, 1), np.uint8)
    mask[0, 0, :2] = 255
    b[0, 0, 0] = 0
    np.testing.assert_allclose(metrics.masked_l1(a, b, mask), [0.2, 0.0])


@pytest.mark.parametrize(("overrides", "shape", "message"), [
    ({}, (7, 9, 3), "box_sides=.4, 12. with margin=2: pictures of 7x9 have room for 3 pixels"),
    ({"inpainting__masks": "lines"}, (32, 32, 3), "inpainting.masks='lines': expected one of mixed, free_form"),
    ({"inpainting__strokes": "(2,1)"}, (32, 32, 3), "inpainting.strokes=.2, 1.: expected the least and the most"),
    ({"inpainting__masks": "centre", "inpainting__centre": "(32,8)"}, (32, 32, 3), "have no room for it"),
    ({"loss__criterion": "l3"}, (32, 32, 3), "loss.criterion='l3': expected one of l1, l2"),
    ({"loss__resize": "cubic"}, (32, 32, 3), "loss.resize='cubic': expected one of nearest, bilinear, maximum"),
    ({"loss__r1": -1.0}, (32, 32, 3), "loss.r1=-1.0: expected a finite number, 0 or more"),
    (dict.fromkeys((f"loss__{name}" for name in ("known", "missing", "adversarial", "matching", "perceptual")), 0.0)
     | {"loss__coarse": 1.0}, (32, 32, 3),
     "config.loss has no term: set one of known, missing, adversarial, matching, perceptual above 0"),
    ({"loss__coarse": 1.0}, (32, 32, 3), "'lama' has no stages; give 0, or take a generator that has"),
])  # fmt: skip
def test_errors(overrides, shape, message):
    with pytest.raises(UserError, match=message):
        _build(_config(**overrides), shape)


def test_a_generator_that_fills_no_holes_is_refused():
    stated = _config().to_dict()
    stated["generator"] = {"name": "cyclegan"}
    config = configs.complete(ConfigDict(stated), runs.defaults)
    with pytest.raises(UserError, match="needs fills of 'generator', and 'cyclegan' has no fills; take"):
        _build(config)


def test_holes_are_measured_where_there_are_some():
    config = settings.digits(evaluation__metrics="('masked_l1',)")
    with pytest.raises(UserError, match="metrics=masked_l1"):
        protocols.wanted(config)
    paired = runs.load_config(f"{settings.EXPERIMENTS / 'digits_pix2pix.py'}:smoke")
    with pytest.raises(UserError, match="measures inside holes, and samples of the game 'paired' have none"):
        protocols.wanted(paired, ("masked_l1",))
    assert protocols.wanted(_digits(), ("masked_l1",)) == ("masked_l1",)
    assert protocols.better("masked_l1") == "lower"


def test_the_experiments_have_the_published_values():
    """LaMa's configuration lama-fourier: optimizers, weights, masks and widths; DeepFillv2's losses."""
    config = _config("")
    for player, rate in (("generator", 1e-3), ("discriminator", 1e-4)):
        section = config.optim[player]
        assert (section.learning_rate, section.b1, section.b2, section.clip_norm) == (rate, 0.9, 0.999, 1.0)
    loss = config.loss
    assert (loss.known, loss.missing, loss.adversarial, loss.matching, loss.r1) == (10, 0, 10, 100, 0.001)
    assert loss.name == "non_saturating" and inpainting.rule(config) == masks.Rule("mixed")
    assert masks.FreeForm() == ((1, 6), (1, 5), (10, 209), (5, 104), 4) and masks.Boxes() == ((1, 4), (30, 150), 10)
    assert (config.generator.width, config.generator.halvings, config.generator.blocks) == (64, 3, 9)
    assert (config.discriminator.width, config.discriminator.layers) == (64, 4)
    assert _config("big").generator.blocks == 18
    second = runs.load_config(f"{settings.EXPERIMENTS / 'places_deepfill.py'}")
    assert (second.batch_size, second.generator.width, second.loss.name) == (16, 48, "hinge")
    weights = {key: second.loss[key] for key in ("known", "missing", "coarse", "adversarial")}
    assert set(weights.values()) == {1.0} and second.loss.matching == second.loss.r1 == 0


def test_two_stages_are_both_compared():
    """Of the coarse stage, too; the discriminator sees the filled picture and its mask, and all of it is fake."""
    config = runs.load_config(f"{settings.EXPERIMENTS / 'places_deepfill.py'}:smoke")
    run = _build(config)
    state, (first,) = settings.play(run, count=1)
    assert {"generator/coarse", "generator/distance", "generator/adversarial"} <= set(first)
    total = first["generator/coarse"] + first["generator/distance"] + first["generator/adversarial"]
    assert first["generator/loss"] == pytest.approx(total, rel=1e-4)
    hinge = first["discriminator/real"] + first["discriminator/fake"]
    assert first["discriminator/loss"] == pytest.approx(hinge, rel=1e-4) and "discriminator/r1" not in first
    kernel = state.params["discriminator"]["conv0"]["kernel"]
    assert kernel.shape[2] == 4  # three channels and the mask
