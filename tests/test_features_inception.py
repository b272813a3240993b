"""The Inception network and its preprocessings against recordings of pytorch-fid and torch-fidelity, and Pillow."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from gan_jax.errors import UserError
from gan_jax.features import inception
from gan_jax.features.state import check, random_state

FOLDER = pathlib.Path(__file__).parent / "golden"
RECORDED = {"tf1": np.load(FOLDER / "inception_torch_fidelity.npz"),
            "pytorch_fid": np.load(FOLDER / "inception_pytorch_fid.npz")}
KEYS = json.loads((FOLDER / "inception_keys.json").read_text())
SETS = ("32", "299", "64", "40x56")
IMAGES = {name: RECORDED["tf1"][f"in/images_u8_{name}"] for name in SETS}


@pytest.fixture(scope="module")
def state():
    return random_state(inception.shapes(), KEYS["seed"])


@pytest.fixture(scope="module")
def variables(state):
    return jax.device_put(inception.from_torch(check(state, inception.shapes(), "random weights")))


@pytest.fixture(scope="module")
def prepared():
    return {(way, name): np.asarray(inception.PREPROCESSING[way](IMAGES[name])) for way in RECORDED for name in SETS}


@pytest.fixture(scope="module")
def features(variables, prepared):
    """Outputs of every set behind either preprocessing, of one program over all images."""
    net = jax.jit(inception.Inception().apply)
    outputs = jax.device_get(net(variables, np.concatenate(list(prepared.values()))))
    ends = np.cumsum([len(x) for x in prepared.values()])[:-1]
    split = {name: np.split(value, ends) for name, value in outputs.items()}
    return {key: {name: rows[i] for name, rows in split.items()} for i, key in enumerate(prepared)}


@pytest.fixture(scope="module")
def tiled():
    """The 40x56 image twice in each direction, as the network takes it without a resize: (1, 80, 112, 3)."""
    return np.tile(IMAGES["40x56"], (1, 2, 2, 1)).astype(np.float32) / 127.5 - 1


@pytest.fixture(scope="module")
def pulled(variables, tiled):
    """(outputs, gradient of a weighted sum of features) of the tiled image, and the function that gave them."""
    weights = np.random.default_rng(0).normal(size=2048).astype(np.float32)

    def loss(x, variables):
        outputs = inception.Inception().apply(variables, x)
        return jnp.sum(outputs["2048"] * weights), outputs

    jitted = jax.jit(jax.value_and_grad(loss, has_aux=True))

    def function(x):
        return jitted(x, variables)

    return function, function(tiled)


def _relative(actual, expected):
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    return np.abs(np.asarray(actual, np.float64) - expected).max() / np.abs(expected).max()


# Weights

def test_shapes_are_those_of_the_published_state_dict(state):
    recorded = {name: tuple(shape) for name, shape in KEYS["keys"].items()}
    assert len(recorded) == 566
    counters = {name for name in recorded if name.endswith("num_batches_tracked")}
    assert inception.shapes() == {name: recorded[name] for name in recorded.keys() - counters}
    assert sum(array.size for array in state.values()) == KEYS["n_params_drawn"]


def test_random_weights_are_the_recorded_ones(state):
    arrays = [state[name] for name in sorted(state)]
    for statistic, values in {"mean": [a.mean(dtype=np.float64) for a in arrays],
                              "std": [a.std(dtype=np.float64) for a in arrays],
                              "first": [a.flat[0] for a in arrays], "last": [a.flat[-1] for a in arrays]}.items():
        np.testing.assert_allclose(values, RECORDED["tf1"][f"check/keys_{statistic}"], rtol=1e-5, atol=2e-7)


def test_wrong_and_missing_arrays_are_refused(state):
    with pytest.raises(UserError, match="weights.pth: 1 of 472 arrays are missing, such as 'fc.bias'"):
        check({name: value for name, value in state.items() if name != "fc.bias"}, inception.shapes(), "weights.pth")
    other = state | {"fc.weight": np.zeros((1000, 2048), np.float32)}  # torchvision's ImageNet head
    with pytest.raises(UserError, match=r"fc.weight has the shape \(1000, 2048\), expected \(1008, 2048\)"):
        check(other, inception.shapes(), "weights.pth")


# Preprocessing

@pytest.mark.parametrize("name", SETS)
def test_tf1_preprocessing_matches_torch_fidelity(prepared, name):
    first = prepared["tf1", name][:1].transpose(0, 3, 1, 2)
    recorded = RECORDED["tf1"]
    np.testing.assert_allclose(first[..., :40, :40], recorded[f"out/resized_norm_corner_{name}"], rtol=0, atol=5e-7)
    np.testing.assert_allclose(first[..., -40:, -40:], recorded[f"out/resized_norm_end_{name}"], rtol=0, atol=5e-7)


@pytest.mark.parametrize("name", SETS)
def test_pytorch_fid_preprocessing_matches_its_own(prepared, name):
    x, recorded = prepared["pytorch_fid", name], RECORDED["pytorch_fid"]
    corner = x[:1].transpose(0, 3, 1, 2)[..., :40, :40]
    np.testing.assert_allclose(corner, recorded[f"out/resized_norm_corner_{name}"], rtol=0, atol=1e-6)
    sums = x.astype(np.float64).sum((1, 2, 3))  # of 268203 values of mean near 0, recorded in float32
    np.testing.assert_allclose(sums, recorded[f"out/resized_norm_sum_{name}"], rtol=1e-5, atol=0.5)


@pytest.mark.parametrize("name", SETS)
def test_clean_preprocessing_is_pillows_bicubic_clipped(name):
    channels = [[Image.fromarray(image[..., c].astype(np.float32)).resize((299, 299), Image.Resampling.BICUBIC)
                 for c in range(3)] for image in IMAGES[name]]
    expected = (np.clip(np.array(channels).transpose(0, 2, 3, 1), 0, 255) - 128) / 128
    np.testing.assert_allclose(inception.PREPROCESSING["clean"](IMAGES[name]), expected, rtol=0, atol=2e-6)


def test_every_preprocessing_has_its_words():
    assert inception.DESCRIPTIONS.keys() == inception.PREPROCESSING.keys()
    assert inception.DESCRIPTIONS["tf1"] == "bilinear 299x299 as TensorFlow 1, (x-128)/128"


# Features

@pytest.mark.parametrize("name", SETS)
def test_features_and_logits_match_torch_fidelity(features, name):
    for output, dimension in inception.OUTPUTS.items():
        actual = features["tf1", name][output]
        assert actual.dtype == np.float32 and actual.shape == (len(IMAGES[name]), dimension)
        assert _relative(actual, RECORDED["tf1"][f"out/{output}_{name}"]) < 1e-5, output


@pytest.mark.parametrize("name", SETS)
def test_features_match_pytorch_fid(features, name):
    for output in ("64", "192", "768", "2048"):
        assert _relative(features["pytorch_fid", name][output],
                         RECORDED["pytorch_fid"][f"out/feat{output}_{name}"]) < 1e-5, output


def test_features_of_another_size_match_pytorch_fid(pulled):
    _, ((_, outputs), _) = pulled
    assert _relative(outputs["2048"], RECORDED["pytorch_fid"]["out/feat2048_40x56_tiled2_noresize"]) < 1e-5


def test_gradients_reach_the_image_and_are_slopes(pulled, tiled):
    function, ((_, _), gradient) = pulled
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0
    # a small step along the gradient: wide enough for float32, narrow enough to cross few kinks
    step = 1e-3 * np.asarray(gradient) / np.abs(gradient).max()
    (above, _), _ = function(tiled + step)
    (below, _), _ = function(tiled - step)
    np.testing.assert_allclose((above - below) / 2, np.vdot(step, gradient), rtol=0.02)


def test_only_what_is_asked_is_computed(pulled, variables, tiled):
    """The first map's mean needs the first three convolutions alone: no others' weights are given."""
    stem = {name: value for name, value in variables["params"].items() if name.startswith(("Conv2d_1", "Conv2d_2"))}
    assert len(stem) == 3
    outputs = inception.Inception(outputs=("64",)).apply({"params": stem}, tiled)
    assert outputs.keys() == {"64"}
    assert _relative(outputs["64"], np.asarray(pulled[1][0][1]["64"])) < 1e-6


def test_smallest_image_and_mistakes(variables):
    def shapes_of(side, **options):
        x = jax.ShapeDtypeStruct((2, side, side + 5, 3), np.float32)
        return {k: v.shape for k, v in jax.eval_shape(inception.Inception(**options).apply, variables, x).items()}

    assert shapes_of(75) == {name: (2, dimension) for name, dimension in inception.OUTPUTS.items()}
    assert shapes_of(75, outputs=("logits", "64")) == {"logits": (2, 1008), "64": (2, 64)}
    with pytest.raises(UserError, match="images of 74x79; it needs sides of 75 or more"):
        shapes_of(74)
    with pytest.raises(UserError, match=r"outputs \('pool3',\): expected some of '64', '192'"):
        shapes_of(75, outputs=("pool3",))
