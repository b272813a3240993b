"""Creative adversarial networks: the term by closed forms, losses from the heads, devices, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from gan_jax import config as configs
from gan_jax import metrics, parallel, run_data, runs, specs
from gan_jax import step as steps
from gan_jax.errors import UserError
from gan_jax.games import creative
from gan_jax.models import can
from tests import settings


def _config(**overrides):
    """The textures, shrunk; keys with `__` for dots."""
    config = runs.load_config(f"{settings.EXPERIMENTS / 'textures_art.py'}:smoke")
    for key, value in overrides.items():
        configs.override(config, key.replace("__", "."), str(value))
    return config


def _build(config, classes=6):
    return runs.build(config, specs.labelled((16, 16, 1), classes))


# The term.


def _by_numpy(logits, form):
    """The formulas as they stand, of probabilities in float64."""
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    share = 1 / p.shape[1]
    value = -share * np.log(p).sum(1)
    return value if form == "categorical" else value - (1 - share) * np.log(1 - p).sum(1)


@pytest.mark.parametrize("form", creative.FORMS)
def test_ambiguity_is_the_formula_and_least_for_the_uniform(form):
    logits = np.random.default_rng(0).normal(size=(40, 5))
    np.testing.assert_allclose(creative.ambiguity(jnp.float32(logits), form), _by_numpy(logits, form), rtol=1e-5)
    undecided = creative.ambiguity(jnp.full((1, 5), 3.0), form)
    least = np.log(5) if form == "categorical" else np.log(5) + 4 * np.log(5 / 4)
    np.testing.assert_allclose(undecided, [least], rtol=1e-6)
    assert (_by_numpy(logits, form) > least).all()


@pytest.mark.parametrize("form", creative.FORMS)
def test_ambiguity_of_a_sure_head_is_finite(form):
    """Of one logit 60 above the other two: the mean of 0, 60 and 60, and (1 - 1/3) (60 - log 2) for the first."""
    value, slope = jax.value_and_grad(lambda x: creative.ambiguity(x, form).sum())(jnp.float32([[60, 0, 0]]))
    assert value == pytest.approx(40 if form == "categorical" else 40 + 2 / 3 * (60 - np.log(2)), rel=1e-6)
    assert np.isfinite(slope).all() and slope[0, 0] > 0 > slope[0, 1]  # descending it, the sure one falls


@pytest.mark.parametrize("form", creative.FORMS)
def test_gradients_of_the_ambiguity_by_finite_differences(form):
    logits = np.random.default_rng(1).normal(size=(3, 4))
    step = 1e-6 * np.eye(12).reshape(12, 3, 4)
    expected = [(_by_numpy(logits + d, form).sum() - _by_numpy(logits - d, form).sum()) / 2e-6 for d in step]
    with jax.enable_x64(True):
        slope = jax.grad(lambda x: creative.ambiguity(x, form).sum())(jnp.asarray(logits))
    np.testing.assert_allclose(np.asarray(slope).reshape(-1), expected, rtol=1e-7, atol=1e-8)


def test_entropy_of_posteriors():
    """Of a sure answer and of one between two classes of three."""
    assert metrics.entropy([[1000.0, 0, 0], [7.0, 7.0, -1000.0]]) == pytest.approx(np.log(2) / 2)


# The players.


STILL = {f"optim__{player}__{key}": value for player in ("generator", "discriminator")
         for key, value in (("name", "sgd"), ("learning_rate", 1e-12))}  # fmt: skip
PLAIN = dict(discriminator__norm="none", generator__norm="none")


def test_losses_of_a_step_are_those_of_the_heads():
    """Both players as they were, nets without running statistics: every term from logits that are made apart."""
    run = _build(_config(loss__ambiguity=0.5, data__flip=False, **STILL, **PLAIN))
    z = np.random.default_rng(2).normal(size=(8, 8)).astype(np.float32)
    batch = settings.random_batch(run, 0) | {"z": z}
    state = runs.fresh_state(run)
    state = state._replace(params=jax.tree.map(lambda x: 12 * x, state.params))  # logits that differ
    _, (row,) = settings.play(run, count=1, batches=[batch], state=state)
    discriminator = run.nets["discriminator"]

    def heads(images):
        variables = {"params": state.params["discriminator"]}
        return [np.float64(x) for x in discriminator.apply(variables, images, train=True, method="heads")]

    real, styles = heads(np.float32(batch["image"]) / 127.5 - 1)
    fake, of_fakes = heads(run.nets["generator"].apply({"params": state.params["generator"]}, z, train=True))
    right = (styles - np.log(np.exp(styles).sum(1, keepdims=True)))[np.arange(8), batch["label"]]
    expected = {
        "discriminator/loss_real": np.log1p(np.exp(-real)).mean(),
        "discriminator/loss_fake": np.log1p(np.exp(fake)).mean(),
        "discriminator/loss_style": -right.mean(),
        "generator/adversarial": np.log1p(np.exp(-fake)).mean(),
        "generator/ambiguity": _by_numpy(of_fakes, "categorical").mean(),
        "discriminator/fake_probability": (1 / (1 + np.exp(-fake))).mean(),
        "discriminator/style_accuracy": (styles.argmax(1) == batch["label"]).mean(),
    }  # fmt: skip
    expected["discriminator/loss"] = sum(expected[f"discriminator/loss_{name}"] for name in ("real", "fake", "style"))
    expected["generator/loss"] = expected["generator/adversarial"] + 0.5 * expected["generator/ambiguity"]
    assert real.std() > 0.05 and styles.std() > 0.05
    assert {name: float(row[name]) for name in expected} == pytest.approx(expected, rel=1e-5)


def test_the_plain_game_has_the_term_in_no_gradient():
    """With the weight 0 the generator moves as if the classes' layers were not there."""
    first = runs.fresh_state(_build(_config()))
    blind = jax.tree.map(np.copy, first.params["discriminator"])
    blind["classes"]["kernel"] *= 50.0
    generators = {}
    for weight in (0.0, 1.0):
        run = _build(_config(loss__ambiguity=weight, optim__discriminator__learning_rate=1e-12))
        assert dict(run.phases[1].weights) == ({"ambiguity": weight} if weight else {})
        for name, params in (("seen", first.params["discriminator"]), ("blind", blind)):
            state = first._replace(params={**first.params, "discriminator": params})
            after, _ = settings.play(run, count=1, state=state)
            generators[weight, name] = after.params["generator"]
    assert settings.largest_difference(generators[0.0, "seen"], generators[0.0, "blind"]) < 1e-6
    assert settings.largest_difference(generators[1.0, "seen"], generators[1.0, "blind"]) > 1e-3


def test_one_and_eight_devices_agree():
    sgd = {key: 1e-3 if key.endswith("rate") else value for key, value in STILL.items()}
    run = _build(_config(batch_size=16, augment__name="diffaugment", loss__ambiguity_form="binary", **sgd))
    (one, measured), (eight, others) = (settings.play(run, count=2, devices=devices) for devices in (1, 8))
    for part in ("params", "variables", "ema"):
        assert settings.largest_difference(getattr(one, part), getattr(eight, part), floor=0.01) < 3e-5, part
    for ours, theirs in zip(measured, others, strict=True):
        np.testing.assert_allclose(list(ours.values()), list(theirs.values()), rtol=1e-3, atol=1e-6)


def test_the_papers_discriminator():
    """Six halvings with the paper's features; without classes there is no head for them."""
    net, image = can.Discriminator(num_classes=25), jax.ShapeDtypeStruct((2, 256, 256, 3), jnp.float32)
    shapes = jax.eval_shape(lambda x: net.init(jax.random.key(0), x, train=True), image)["params"]
    kernels = [shapes[f"down{i}"]["kernel"].shape for i in range(6)]
    assert [(k[0], k[3]) for k in kernels] == [(4, n) for n in (32, 64, 128, 256, 512, 512)] and "down6" not in shapes
    dense = [shapes[name]["kernel"].shape for name in ("real", "hidden0", "hidden1", "classes")]
    assert dense == [(8192, 1), (8192, 1024), (1024, 512), (512, 25)]
    small, image = can.Discriminator(resolution=16, width=4), jnp.zeros((2, 16, 16, 3))
    assert small.init_with_output(jax.random.key(0), image, train=True, method="heads")[0][1] is None


# What is refused.


@pytest.mark.parametrize(("overrides", "message"), [
    ({"loss__ambiguity_form": "uniform"}, "ambiguity_form='uniform': expected one of categorical, binary"),
    ({"loss__ambiguity": -1}, "config.loss.ambiguity=-1.0: expected a finite number, 0 or more"),
    ({"loss__name": "relativistic"}, "compares fakes with reals, and the game 'creative' shows its generator none"),
    ({"discriminator__hidden": "(8,0)"}, r"hidden=\(8, 0\): expected numbers of 1 or more"),
])  # fmt: skip
def test_settings_that_make_no_sense(overrides, message):
    with pytest.raises(UserError, match=message):
        _build(_config(**overrides))


def _with_discriminator(name):
    stated = _config().to_dict() | {"discriminator": {"name": name}}
    return configs.complete(ConfigDict(stated), runs.defaults)


@pytest.mark.parametrize(("name", "message"), [
    ("dcgan", "needs heads, num_classes of 'discriminator', and 'dcgan' has no heads; .*can"),
    ("stylegan1", "needs a discriminator with a head for classes, and 'stylegan1' has none; take can"),
])  # fmt: skip
def test_a_discriminator_without_heads_is_refused(name, message):
    with pytest.raises(UserError, match=message):
        _build(_with_discriminator(name))


def test_another_discriminator_with_heads_plays():
    run = _build(_with_discriminator("progan"))
    mesh = settings.mesh(1)
    state, batch = runs.packed_shapes(run, runs.abstract_state(run, mesh), mesh), settings.random_batch(run, 0)
    step = parallel.data_parallel(steps.make_step(run.phases, run.optimizers, seed=0, ema=run.ema), mesh)
    _, measured = jax.eval_shape(step, state, parallel.shard_batch(batch, mesh, 1))
    assert {"discriminator/loss_style", "generator/ambiguity"} <= measured.keys()


def _folder(tmp_path, counts):
    """Images of noise, so many in the sub-folder of each style; without a style beside each other."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for style, count in counts.items():
        (tmp_path / style).mkdir(exist_ok=True)
        for number in range(count):
            Image.fromarray(rng.integers(0, 256, (16, 16), dtype=np.uint8)).save(tmp_path / style / f"{number}.png")
    return str(tmp_path)


@pytest.mark.parametrize(("counts", "message"), [
    ({"": 3}, "reads the field 'label', and the data 'folder:.*' has image alone"),
    ({"cubism": 3}, "reads the field 'label', and the data 'folder:.*' has image alone"),
    ({"cubism": 3, "fauvism": 0}, "the sub-folder 'fauvism' is empty"),
])  # fmt: skip
def test_data_without_styles_are_refused(tmp_path, counts, message):
    config = _config(data__name=f"folder:{_folder(tmp_path, counts)}")
    with pytest.raises(UserError, match=message):
        run_data.data_spec(config, run_data.open_data(config))


def test_a_style_without_an_image_is_refused(tmp_path):
    """Numbers 0 and 2 of a `dataset.json`, as of a set from which a class was taken."""
    folder = _folder(tmp_path, {"": 4})
    (tmp_path / "dataset.json").write_text('{"labels": [["0.png", 0], ["1.png", 2], ["2.png", 0], ["3.png", 2]]}')
    config = _config(data__name=f"folder:{folder}")
    with pytest.raises(UserError, match="the class '1' of 'folder:.*' has no example in the split 'train': add some"):
        run_data.data_spec(config, run_data.open_data(config))
