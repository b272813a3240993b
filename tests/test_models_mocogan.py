"""MoCoGAN's networks: recorded outputs, sizes, latents, what a discriminator's window sees."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.errors import UserError
from gan_jax.models import mocogan
from tests import settings

FIELDS = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}
GENERATOR = {0: "stem", 3: "up0", 6: "up1", 9: "up2", 12: "image"}  # torch's `main` -> ours; norms follow their layers
DISCRIMINATORS = {
    "VideoDiscriminator": dict(window=4, layers=4, patches=False, num_classes=3),
    "PatchVideoDiscriminator": dict(window=4),
    "ImageDiscriminator": dict(layers=4, patches=False),
    "PatchImageDiscriminator": {},
}
LAYERS = {"VideoDiscriminator": (1, 4, 8, 12, 15), "PatchVideoDiscriminator": (1, 4, 8, 11),
          "ImageDiscriminator": (1, 4, 8, 12, 15), "PatchImageDiscriminator": (1, 4, 8, 12)}  # fmt: skip


@pytest.fixture(scope="module")
def recorded():
    """Every recorded array; the videos are those of frames 0, 5 and 15."""
    with np.load(pathlib.Path(__file__).parent / "golden" / "mocogan.npz", allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


@pytest.fixture(scope="module")
def generator(recorded):
    """(network, its variables, recorded latents (2, latent_size), recorded labels, clips in training mode)."""
    sizes = json.loads(str(recorded["meta"]))["G"]
    net = mocogan.Generator(
        num_classes=sizes["dim_z_category"], content=sizes["dim_z_content"], motion=sizes["dim_z_motion"],
        width=sizes["ngf"],
    )  # fmt: skip
    params, statistics = {}, {}
    for key, value in recorded.items():
        if key.startswith("params/G/main"):
            _place(key, value, GENERATOR, params, statistics)
    part = {name: recorded[f"params/G/recurrent.{name}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    motion = {"input": {"kernel": part["weight_ih"].T, "bias": part["bias_ih"]},
              "state": {"kernel": part["weight_hh"].T, "bias": part["bias_hh"]}}  # fmt: skip
    variables = {"params": {"frames": params, "motion": motion}, "batch_stats": {"frames": statistics}}
    content = recorded["out/z_all_frames"].reshape(2, 16, -1)[:, 0, : net.content]
    noise = np.swapaxes(recorded["in/gru_noise"], 0, 1).reshape(2, -1)
    z, label = np.concatenate([content, recorded["in/gru_h0"], noise], 1), recorded["out/categories"]
    clips, collections = jax.jit(lambda v, z, label: net.apply(v, z, label, train=True, mutable=["batch_stats"]))(
        variables, z, label
    )
    before = _before(variables["batch_stats"], collections["batch_stats"])
    return net, {**variables, "batch_stats": before}, z, label, clips


def _before(after, twice):
    """Running values before the recorded pass in training mode, from those behind it, and behind another one like it.

    The recorded ones are those behind it, and evaluation came first: v' = .9 v + .1 b, v'' = .9 v' + .1 b.
    """
    return jax.tree.map(lambda once, twice: once - (twice - once) / 0.9, after, twice)


def _place(key, value, layers, params, statistics):
    number, field = key.split("main.")[1].split(".")
    number = int(number)
    if value.ndim > 1:
        order = {4: (2, 3, 0, 1) if layers is GENERATOR else (2, 3, 1, 0), 5: (2, 3, 4, 1, 0)}[value.ndim]
        kernel = value.transpose(order)
        params[layers[number]] = {"kernel": kernel if layers is GENERATOR or value.ndim == 5 else kernel[None]}
    else:
        tree = statistics if field.startswith("running") else params
        tree.setdefault(f"{layers[number - 1]}_norm", {})[FIELDS[field]] = value


def test_clips_of_recorded_latents(recorded, generator):
    *_, clips = generator
    assert clips.shape == (2, 16, 64, 64, 3)
    expected = recorded["out/videos_train"].transpose(0, 2, 3, 4, 1)
    np.testing.assert_allclose(clips[:, [0, 5, 15]], expected, atol=2e-5)


def test_a_shorter_clip_is_the_beginning_of_a_longer_one(recorded, generator):
    """By running statistics, each frame by itself."""
    net, variables, z, label, _ = generator
    short = net.apply(variables, z[:1, : net.latents(4)], label[:1], train=False)
    expected = recorded["out/video0_frames0to3_eval"].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(short[0, np.array([0, 3])], expected, atol=2e-5)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("train", (False, True), ids=("eval", "train"))
def test_discriminators_of_recorded_clips(recorded, generator, name, train):
    *_, clips = generator
    width = json.loads(str(recorded["meta"]))["ndf"]
    net = mocogan.Discriminator(width=width, **DISCRIMINATORS[name])
    places = {n: f"conv{i}" for i, n in enumerate(LAYERS[name][:-1])} | {LAYERS[name][-1]: "head"}
    params, statistics = {}, {}
    for key, value in recorded.items():
        if key.startswith(f"params/{name}/"):
            _place(key, value, places, params, statistics)
    clips = clips[:, 5:6] if "Image" in name else clips
    play = functools.partial(net.apply, mutable=["batch_stats"], method="heads")
    (logits, classes), collections = play({"params": params, "batch_stats": statistics}, clips, train=True)
    if not train:
        statistics = _before(statistics, collections["batch_stats"])
        (logits, classes), _ = play({"params": params, "batch_stats": statistics}, clips, train=False)
    expected = recorded[f"out/{name}_{'train' if train else 'eval'}"]
    if name == "VideoDiscriminator":
        assert logits.shape == (2, 1, 1, 1)
        logits = jnp.concatenate([logits.reshape(2, 1), classes], 1)
    np.testing.assert_allclose(jnp.squeeze(logits), expected, atol=1e-4 * np.abs(expected).max())


def test_the_largest_of_a_latents_numbers_is_its_category():
    net = mocogan.Generator(shape=(4, 8, 8, 1), content=2, categories=3, motion=2, width=2)
    z = np.zeros((3, net.latent_size), np.float32)
    z[np.arange(3), net.content + np.array([2, 0, 1])] = 1
    np.testing.assert_array_equal(net.category(z), [2, 0, 1])
    assert net.latent_size == 2 + 3 + 2 * (1 + 4) and net.category(z).shape == (3,)
    labelled = net.clone(num_classes=5)
    assert labelled.latent_size == 2 + 2 * (1 + 4)
    variables = settings.numpy_variables(labelled, z[:, 3:], np.array([4, 1, 1]))
    clips = labelled.apply(variables, np.ones((3, labelled.latent_size)), np.array([4, 1, 1]), train=False)
    np.testing.assert_allclose(clips[1], clips[2], atol=1e-6)
    assert np.abs(clips[0] - clips[1]).max() > 1e-3
    assert net.clone(categories=0).category(z) is None


def test_noise_is_drawn_for_each_sample_from_its_own_key():
    net = mocogan.Discriminator(shape=(3, 8, 8, 1), window=2, layers=1, width=2, noise=0.5)
    x = jnp.zeros((3, 3, 8, 8, 1))
    variables = settings.numpy_variables(net, x)
    keys = jax.random.split(jax.random.key(0), 2)[jnp.array([0, 1, 0])]
    logits = net.apply(variables, x, train=False, keys=keys)
    assert logits.shape == (3, 1, 2, 2)
    np.testing.assert_array_equal(logits[0], logits[2])
    assert np.abs(logits[0] - logits[1]).max() > 1e-3
    np.testing.assert_array_equal(net.apply(variables, x, train=False), 0)


@pytest.mark.parametrize(("fields", "message"), [
    (dict(shape=(8, 16, 16, 1), window=4), "clips of 8 frames: a discriminator with a window of 4 frames and 3 layers "
     "expects 13 or more"),
    (dict(shape=(16, 24, 16, 1)), "clips of 24x16 pixels: a discriminator of 3 layers expects multiples of 16"),
    (dict(shape=(16, 16, 1)), "'mocogan' makes clips"),
    (dict(window=0), "window=0: expected 1 or more"),
])  # fmt: skip
def test_clips_that_do_not_fit_are_named(fields, message):
    with pytest.raises(UserError, match=message):
        mocogan.Discriminator(**fields)
