"""VGG16, VGG19 and AlexNet against recordings of torchvision and torch-fidelity, and against plain numpy."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.errors import UserError
from gan_jax.features import vgg
from gan_jax.features.state import check, random_state

FOLDER = pathlib.Path(__file__).parent / "golden"
RECORDED = {"vgg16": np.load(FOLDER / "vgg16_features.npz"), "vgg19": np.load(FOLDER / "vgg19_features.npz")}
WHOLE = np.load(FOLDER / "vgg16_torch_fidelity.npz")
SEEDS = {"vgg16": 201, "vgg19": 202, "alexnet": 203}
WHOLE_SEED = 204
PARAMETERS = {"vgg16": 14_714_688, "vgg19": 20_024_384, "alexnet": 2_469_696}  # of torchvision's `features`


@pytest.fixture(scope="module")
def states():
    return {network: random_state(vgg.shapes(network), seed) for network, seed in SEEDS.items()}


@pytest.fixture(scope="module")
def variables(states):
    return {network: jax.device_put(vgg.from_torch(check(state, vgg.shapes(network), network)))
            for network, state in states.items()}


@pytest.fixture(scope="module")
def whole():
    """(statistics of the drawn arrays, variables) of the whole VGG16, 138 million weights."""
    shapes = vgg.shapes("vgg16", classifier=True)
    state = random_state(shapes, WHOLE_SEED)
    statistics = _statistics(state)
    return statistics, vgg.from_torch(check(state, shapes, "random weights"))


@pytest.fixture(scope="module", params=RECORDED)
def maps(request, variables):
    """(network, maps behind every layer) of the recorded images."""
    network = request.param
    images = vgg.PREPROCESSING["unresized"](RECORDED[network]["in/images_u8"])
    trunk = vgg.Trunk(network, tuple(range(len(vgg.LAYERS[network]))))
    return network, jax.device_get(jax.jit(trunk.apply)(variables[network], images))


def _statistics(state):
    arrays = [state[name] for name in sorted(state)]
    return {"mean": [a.mean(dtype=np.float64) for a in arrays], "std": [a.std() for a in arrays],
            "first": [a.flat[0] for a in arrays], "last": [a.flat[-1] for a in arrays]}


def _relative(actual, expected):
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    return np.abs(np.asarray(actual, np.float64) - expected).max() / np.abs(expected).max()


# Weights

@pytest.mark.parametrize("network", SEEDS)
def test_shapes_hold_the_parameters_of_the_published_trunk(states, network):
    shapes = vgg.shapes(network)
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == PARAMETERS[network]
    assert all(name.startswith("features.") for name in shapes)
    if network in RECORDED:
        for statistic, values in _statistics(states[network]).items():
            recorded = RECORDED[network][f"check/keys_{statistic}"]
            np.testing.assert_allclose(values, recorded, rtol=1e-5, atol=2e-7)


def test_shapes_of_single_layers():
    assert vgg.shapes("alexnet")["features.3.weight"] == (192, 64, 5, 5)
    assert vgg.shapes("vgg19")["features.34.weight"] == (512, 512, 3, 3)
    whole = vgg.shapes("vgg16", classifier=True)
    assert whole["classifier.0.weight"] == (4096, 25088)
    assert sum(int(np.prod(shape)) for shape in whole.values()) == 138_357_544
    with pytest.raises(UserError, match="vgg19 with its classifier: expected vgg16"):
        vgg.shapes("vgg19", classifier=True)
    with pytest.raises(UserError, match="network 'vgg13': expected one of 'vgg16', 'vgg19', 'alexnet'"):
        vgg.shapes("vgg13")


def test_a_whole_networks_file_gives_the_trunk_alone(states):
    """AlexNet's own classifier is passed over, by `check` as by `from_torch`."""
    state = states["alexnet"] | {"classifier.1.weight": np.zeros((4096, 9216)), "classifier.1.bias": np.zeros(4096)}
    names = {f"features_{index}" for index in (0, 3, 6, 8, 10)}
    assert vgg.from_torch(check(state, vgg.shapes("alexnet"), "alexnet.pth"))["params"].keys() == names
    assert vgg.from_torch(state)["params"].keys() == names


# Trunks

@pytest.mark.parametrize("network", RECORDED)
def test_unresized_preprocessing_is_the_recorded_one(network):
    recorded = RECORDED[network]
    x = vgg.PREPROCESSING["unresized"](recorded["in/images_u8"][:1])
    np.testing.assert_allclose(np.transpose(x, (0, 3, 1, 2)), recorded["in/normalised"], rtol=0, atol=1e-6)


def test_maps_of_every_layer_match_torchvision(maps):
    network, actual = maps
    recorded = RECORDED[network]
    for index in range(len(vgg.LAYERS[network])):
        x = actual[index].transpose(0, 3, 1, 2)
        assert x.dtype == np.float32
        assert _relative(x.mean((2, 3)), recorded[f"out/mean_{index:02d}"]) < 1e-5, index
        crop = recorded[f"out/crop_{index:02d}"]
        assert _relative(x[:1, :8, :6, :6], crop) < 1e-5, index
        if f"out/full_{index}" in recorded:
            assert _relative(x, recorded[f"out/full_{index}"]) < 1e-5, index
    assert index == {"vgg16": 30, "vgg19": 36}[network]


def test_alexnet_layers_match_numpy(states, variables):
    """At a size that no stride divides: the first convolution and pool, and a padded convolution of stride 1."""
    x = np.random.default_rng(0).normal(size=(2, 67, 82, 3)).astype(np.float32)
    state = states["alexnet"]
    layers = jax.device_get(jax.jit(vgg.Trunk("alexnet", (2, 0, 3, 12)).apply)(variables["alexnet"], x))
    assert {index: value.shape for index, value in layers.items()} == {
        0: (2, 16, 19, 64), 2: (2, 7, 9, 64), 3: (2, 7, 9, 192), 12: (2, 1, 1, 256)}
    first = _convolve(x, state["features.0.weight"], 4, 2) + state["features.0.bias"]
    assert _relative(layers[0], first) < 1e-5
    pooled = np.lib.stride_tricks.sliding_window_view(np.maximum(first, 0), (3, 3), (1, 2))[:, ::2, ::2].max((-2, -1))
    assert _relative(layers[2], pooled) < 1e-5
    second = _convolve(pooled, state["features.3.weight"], 1, 2) + state["features.3.bias"]
    assert _relative(layers[3], second) < 1e-5


def _convolve(x, weight, stride, padding):
    x = np.pad(x.astype(np.float64), ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], (1, 2))[:, ::stride, ::stride]
    return np.einsum("bhwcij,ocij->bhwo", windows, weight, optimize=True)


@pytest.mark.parametrize("side", [(1, 1), (2, 2), (1, 5), (3, 3)])
def test_maps_smaller_than_a_window_match_numpy(side):
    rng = np.random.default_rng(0)
    x, kernel, bias = rng.normal(size=(2, *side, 4)), rng.normal(size=(3, 3, 4, 6)), rng.normal(size=6)
    layers = {"features_0": {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}}

    class Single(vgg.nn.Module):
        @vgg.nn.compact
        def __call__(self, x):
            return vgg._run(0, vgg.Conv(6), x, "highest")

    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    expected = np.einsum("bhwcij,ijcf->bhwf", windows, kernel) + bias
    assert _relative(jax.jit(Single().apply)({"params": layers}, x.astype(np.float32)), expected) < 1e-6


def test_only_what_is_asked_is_computed(variables):
    """relu1_2 needs two convolutions alone: no others' weights are given."""
    stem = {name: variables["vgg16"]["params"][name] for name in ("features_0", "features_2")}
    maps = vgg.Trunk("vgg16", (3,)).apply({"params": stem}, jnp.zeros((1, 5, 7, 3)))
    assert {index: x.shape for index, x in maps.items()} == {3: (1, 5, 7, 64)}


def test_gradients_reach_the_image_and_are_slopes(variables):
    images = RECORDED["vgg16"]["in/images_u8"][:1, :32, :24]
    x = np.asarray(vgg.PREPROCESSING["unresized"](images))
    weights = np.random.default_rng(0).normal(size=(1, 4, 3, 256)).astype(np.float32)
    trunk = vgg.Trunk("vgg16", (16,))
    loss = jax.jit(jax.value_and_grad(lambda x: jnp.sum(trunk.apply(variables["vgg16"], x)[16] * weights)))
    _, gradient = loss(x)
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0
    step = 1e-3 * np.asarray(gradient) / np.abs(gradient).max()
    np.testing.assert_allclose((loss(x + step)[0] - loss(x - step)[0]) / 2, np.vdot(step, gradient), rtol=0.02)


def test_mistakes_in_a_trunk_are_refused(variables):
    def shapes_of(height, width, network, taps):
        x = jax.ShapeDtypeStruct((2, height, width, 3), np.float32)
        return {k: v.shape for k, v in jax.eval_shape(vgg.Trunk(network, taps).apply, variables[network], x).items()}

    assert shapes_of(16, 31, "vgg16", (29, 23)) == {23: (2, 1, 1, 512), 29: (2, 1, 1, 512)}
    with pytest.raises(UserError, match="layer 30 was reached by a map of 1x1 and takes windows of 2x2: give larger"):
        shapes_of(16, 31, "vgg16", (30,))
    with pytest.raises(UserError, match="layer 0 was reached by a map of 6x31 and takes windows of 11x11"):
        shapes_of(6, 31, "alexnet", (0,))
    for taps in ((), (31,), (-1, 3)):
        with pytest.raises(UserError, match="vgg16 layers .* expected some of 0 to 30"):
            shapes_of(32, 32, "vgg16", taps)


# Whole VGG16

def test_fully_connected_features_match_torch_fidelity(whole):
    statistics, variables = whole
    for statistic, values in statistics.items():
        np.testing.assert_allclose(values, WHOLE[f"check/keys_{statistic}"], rtol=1e-5, atol=2e-7)
    prepared = [vgg.PREPROCESSING["tf1"](WHOLE[f"in/images_u8_{name}"]) for name in ("64x80", "224")]
    outputs = jax.device_get(jax.jit(vgg.VGG16().apply)(variables, np.concatenate(prepared)))
    assert {name: value.dtype for name, value in outputs.items()} == dict.fromkeys(vgg.OUTPUTS, np.float32)
    for name, rows in {"64x80": slice(0, 2), "224": slice(2, 3)}.items():
        assert _relative(outputs["fc2"][rows], WHOLE[f"out/fc2_{name}"]) < 1e-5, name
    assert _relative(outputs["fc2_relu"][2:], WHOLE["out/fc2_relu_224"]) < 1e-5


def test_every_preprocessing_has_its_words():
    assert vgg.DESCRIPTIONS.keys() == vgg.PREPROCESSING.keys()
    assert vgg.DESCRIPTIONS["tf1"] == "bilinear 224x224 as TensorFlow 1, (x-255 mean)/(255 std) of ImageNet"


def test_mistakes_with_the_whole_network_are_refused():
    x = jnp.zeros((1, 224, 200, 3))
    with pytest.raises(UserError, match="images of 224x200; its fully connected layers need 224x224"):
        vgg.VGG16().apply({}, x)
    with pytest.raises(UserError, match=r"outputs \('fc3',\): expected some of 'fc2', 'fc2_relu'"):
        vgg.VGG16(outputs=("fc3",)).apply({}, x)
