"""LPIPS against recordings of the package lpips, and its embedding against LPIPS."""

import pathlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.errors import UserError
from gan_jax.features import lpips, vgg
from gan_jax.features.state import check, random_state

FOLDER = pathlib.Path(__file__).parent / "golden"
RECORDED = {net: np.load(FOLDER / f"lpips_{net}.npz") for net in lpips.NETS}
TRUNK_SEEDS = {"alex": 203, "vgg": 201}


@pytest.fixture(scope="module")
def variables():
    by_net = {}
    for net, recorded in RECORDED.items():
        heads = {name: recorded[f"params/{name}"] for name in lpips.shapes(net) if name.startswith("lin")}
        state = random_state(lpips.shapes(net, lpips=False), TRUNK_SEEDS[net]) | heads
        by_net[net] = jax.device_put(lpips.from_torch(check(state, lpips.shapes(net), net)))
    return by_net


@pytest.fixture(scope="module", params=lpips.NETS)
def compared(request, variables):
    """(recorded, dict of every way to compare) of the recorded pairs, of one program."""
    net = request.param
    ways = {
        "lpips": {}, "layers": {"per_layer": True}, "spatial": {"spatial": True}, "baseline": {"lpips": False},
        "spatial_layers": {"spatial": True, "per_layer": True},
    }

    @jax.jit
    def program(variables, a, b):
        first, second = (lpips.embedding(variables, x, net=net) for x in (a, b))
        results = {way: lpips.distance(variables, a, b, net=net, **options) for way, options in ways.items()}
        return results | {"embedded": jnp.sum(jnp.square(first - second), axis=1)}

    recorded = RECORDED[net]
    return recorded, jax.device_get(program(variables[net], recorded["in/images0_u8"], recorded["in/images1_u8"]))


# Weights

@pytest.mark.parametrize("net", lpips.NETS)
def test_shapes_are_of_the_trunk_and_the_heads(net, variables):
    recorded = RECORDED[net]
    heads = {key.removeprefix("params/"): recorded[key].shape for key in recorded.files if key.startswith("params/")}
    shapes = lpips.shapes(net)
    trunk = lpips.shapes(net, lpips=False)
    assert len(heads) == 5 and shapes == trunk | heads
    assert trunk == vgg.shapes({"alex": "alexnet", "vgg": "vgg16"}[net])
    state = random_state(trunk, TRUNK_SEEDS[net])
    np.testing.assert_array_equal([state[name].flat[0] for name in sorted(state)], recorded["check/keys_first"])
    np.testing.assert_array_equal([state[name].flat[-1] for name in sorted(state)], recorded["check/keys_last"])


# Distances

@pytest.mark.parametrize("net", lpips.NETS)
def test_trunk_matches_the_package(net, variables):
    recorded = RECORDED[net]
    trunk, taps, channels = lpips.NETS[net]
    x = (recorded["in/images0_u8"] / np.float32(127.5) - 1 - lpips.SHIFT) / lpips.SCALE
    maps = jax.jit(vgg.Trunk(trunk, taps).apply)({"params": variables[net]["params"]}, x)
    for k, index in enumerate(taps):
        mean = np.asarray(maps[index]).mean((1, 2))
        assert mean.shape == (3, channels[k])
        np.testing.assert_allclose(mean, recorded[f"out/trunk_mean_{k}"], rtol=0, atol=1e-5 * mean.max())


def test_distances_match_the_package(compared):
    recorded, actual = compared
    assert actual["lpips"].dtype == np.float32
    np.testing.assert_allclose(actual["lpips"], recorded["out/lpips"], rtol=1e-5, atol=1e-10)
    np.testing.assert_allclose(actual["lpips"], recorded["out/lpips_normalize_true_on_01"], rtol=1e-5, atol=1e-10)
    np.testing.assert_allclose(actual["baseline"], recorded["out/baseline_no_lin"], rtol=1e-5, atol=1e-10)
    assert recorded["out/lpips"][2] == 0 and actual["lpips"][2] == 0  # the third pair is of equal images


def test_layers_match_the_package(compared):
    recorded, actual = compared
    layers = np.stack([recorded[f"out/layer{k}"] for k in range(5)], axis=-1)
    np.testing.assert_allclose(actual["layers"], layers, rtol=1e-5, atol=1e-10)


def test_spatial_maps_match_the_package(compared):
    recorded, actual = compared
    expected = recorded["out/spatial_first"][:, 0]
    np.testing.assert_allclose(actual["spatial"][:1], expected, rtol=0, atol=1e-5 * expected.max())
    assert actual["spatial_layers"].shape == (3, 64, 64, 5)
    np.testing.assert_allclose(actual["spatial_layers"].sum(-1), actual["spatial"], rtol=1e-5, atol=1e-10)


def test_squared_lengths_between_embeddings_are_the_distance(compared):
    recorded, actual = compared
    np.testing.assert_allclose(actual["embedded"], recorded["out/lpips"], rtol=1e-5, atol=1e-10)


def test_embedding_of_another_size(variables):
    """Not square, with sides that no pool divides: the pixels of every map count its own."""
    a, b = np.random.default_rng(1).integers(0, 256, (2, 2, 35, 50, 3), np.uint8)

    @jax.jit
    def program(variables, a, b):
        return *(lpips.embedding(variables, x, net="alex") for x in (a, b)), lpips.distance(variables, a, b)

    *points, distances = program(variables["alex"], a, b)
    first, second = (np.asarray(x, np.float64) for x in points)
    # strides 4, 2 and 2, windows 11, 3 and 3: maps of 8 x 11, 3 x 5 and three of 1 x 2
    assert first.shape == (2, 64 * 8 * 11 + 192 * 3 * 5 + (384 + 256 + 256) * 1 * 2)
    np.testing.assert_allclose(((first - second) ** 2).sum(1), distances, rtol=1e-5)


@pytest.mark.parametrize("net", lpips.NETS)
def test_gradient_matches_the_package(net, variables):
    recorded = RECORDED[net]
    a, b = (recorded[f"in/images{i}_u8"][:1].astype(np.float32) for i in range(2))
    gradient = jax.jit(jax.grad(lambda b, variables: lpips.distance(variables, a, b, net=net).sum()))(b, variables[net])
    expected = recorded["grad/images1"].transpose(0, 2, 3, 1)  # by images in [-1, 1]
    deviation = (127.5 * np.asarray(gradient) - expected) / np.abs(expected).max()
    # A unit so near its kink that rounding decides moves the pixels it sees: without XLA's optimisations 98 of 12288 on
    # one processor, 379 on another, and the whole gradient by a thousandth; with them none, and by 1e-5.
    assert np.linalg.norm(deviation) < 5e-3 * np.linalg.norm(expected / np.abs(expected).max())
    assert np.abs(deviation).max() < 0.05


def test_gradient_where_no_channel_is_active(variables):
    """A pixel of which every activation is 0 has the length 0, whose root has no slope."""
    layers = variables["alex"]["params"]
    dead = {**layers, "features_3": jax.tree.map(lambda x: -jnp.abs(x), layers["features_3"])}
    a, b = np.random.default_rng(2).uniform(0, 255, (2, 1, 31, 31, 3)).astype(np.float32)

    @jax.jit
    @partial(jax.value_and_grad, has_aux=True)
    def loss(b, params):
        values = lpips.distance({**variables["alex"], "params": params}, a, b, per_layer=True)[0]
        return values.sum(), values

    (_, values), gradient = loss(b, dead)
    assert values[0] > 0 and values[1] == 0
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


# Mistakes

def test_mistakes_are_refused(variables):
    images = np.zeros((2, 31, 31, 3), np.uint8)
    trunk = {"params": variables["alex"]["params"]}
    with pytest.raises(UserError, match=r"images \(2, 31, 31, 3\) and \(1, 31, 31, 3\): expected pairs of one shape"):
        lpips.distance(trunk, images, images[:1], lpips=False)
    with pytest.raises(UserError, match=r"expected \(B, H, W, 3\); repeat the channel"):
        lpips.distance(trunk, images[..., :1], images[..., :1], lpips=False)
    with pytest.raises(UserError, match="LPIPS net 'squeeze': expected one of 'alex', 'vgg'"):
        lpips.distance(trunk, images, images, net="squeeze")
    with pytest.raises(UserError, match="merge the arrays of its heads' file with those of the trunk"):
        lpips.distance(trunk, images, images)
    with pytest.raises(UserError, match=r"expected \(64, 128, 256, 512, 512\) channels for net 'vgg'"):
        lpips.embedding(variables["alex"], images)


def test_an_embedding_refuses_negative_heads(variables):
    heads = {**variables["alex"]["heads"], "lin3": variables["alex"]["heads"]["lin3"].at[5].set(-0.25)}
    negative = {**variables["alex"], "heads": heads}
    images = np.random.default_rng(3).integers(0, 256, (1, 31, 31, 3), np.uint8)
    with pytest.raises(UserError, match=r"head lin3 has the negative weight -0.25, expected 0 or more"):
        lpips.embedding(negative, images, net="alex")
    traced = jax.jit(lambda variables: lpips.embedding(variables, images, net="alex"))(negative)
    assert np.isnan(traced).any()
