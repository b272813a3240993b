"""DINOv2's vision transformer against recordings of timm's, with positions interpolated as PyTorch does it."""

import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from gan_jax.errors import UserError
from gan_jax.features import vit
from gan_jax.features.state import check, random_state

RECORDED = np.load(pathlib.Path(__file__).parent / "golden" / "dinov2_small.npz")
META = json.loads(str(RECORDED["meta"]))
SIZE = vit.Size(META["depth"], META["width"], META["heads"])
SETS = ("20x28", "256x240")  # one grows, one shrinks
IMAGES = {name: RECORDED[f"in/images_u8_{name}"] for name in SETS}


@pytest.fixture(scope="module")
def state():
    state = random_state(vit.shapes(SIZE), META["seed"])
    for end, scale in META["scales"].items():
        state |= {name: array * np.float32(scale) for name, array in state.items() if name.endswith(end)}
    return state


@pytest.fixture(scope="module")
def variables(state):
    return vit.from_torch(check(state, vit.shapes(SIZE), "random weights"))


@pytest.fixture(scope="module")
def prepared():
    return {name: np.asarray(vit.PREPROCESSING["dgm_eval"](IMAGES[name])) for name in SETS}


@pytest.fixture(scope="module")
def function():
    """Prepared images (3, 224, 224, 3), variables -> (features, gradients of their sum weighted as recorded)."""
    def loss(x, variables):
        features = vit.VisionTransformer(*SIZE).apply(variables, x)
        return jnp.sum(features * RECORDED["in/weights"]), features

    jitted = jax.jit(jax.value_and_grad(loss, has_aux=True))

    def run(x, variables):
        (_, features), gradients = jitted(x, variables)
        return np.asarray(features), np.asarray(gradients)

    return run


@pytest.fixture(scope="module")
def results(function, prepared, variables):
    """{set: (features, gradients)}, of one program over all images."""
    features, gradients = function(np.concatenate([prepared[name] for name in SETS]), variables)
    return {"20x28": (features[:2], gradients[:2]), "256x240": (features[2:], gradients[2:])}


def _relative(actual, expected):
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    return np.abs(np.asarray(actual, np.float64) - expected).max() / np.abs(expected).max()


# Weights

@pytest.mark.parametrize("size", ["s", "b", "l"])
def test_shapes_are_those_of_the_published_state_dict(size):
    assert vit.shapes(size) == {name: tuple(shape) for name, shape in META["keys"][size].items()}
    depth, width, heads = vit.SIZES[size]
    assert width // heads == 64 and f"blocks.{depth - 1}.ls2.gamma" in vit.shapes(size)


def test_large_network_has_its_304_million_parameters():
    variables = jax.eval_shape(vit.VisionTransformer(*vit.SIZES["l"]).init, jax.random.key(0),
                               jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32))
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables))
    published = sum(map(math.prod, vit.shapes("l").values()))
    assert published + 1024 == 304_368_640  # with the mask token
    # positions of a smaller grid, the class token's own within it, LayerScale within its neighbours
    assert count == published - (37**2 - 16**2) * 1024 - 1024 - 48 * 1024


def test_variables_are_those_of_the_module(variables):
    expected = jax.eval_shape(vit.VisionTransformer(*SIZE).init, jax.random.key(0),
                              jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), variables) == jax.tree.map(lambda x: (x.shape, x.dtype), expected)


def test_positions_are_interpolated_as_torch_does(variables):
    y = variables["params"]["positions"][:, :4]
    np.testing.assert_allclose(y, RECORDED["out/positions"], rtol=0, atol=1e-5)  # values of 0.7, torch in float32


def test_the_mask_token_of_a_checkpoint_is_passed_over(state):
    shapes = vit.shapes(SIZE)
    whole = state | {"mask_token": np.zeros((1, SIZE.width), np.float32)}
    assert check(whole, shapes, "weights.pth").keys() == shapes.keys()


def test_wrong_checkpoints_and_mistakes_are_refused(state, variables):
    other = state | {"pos_embed": np.zeros((1, 257, SIZE.width), np.float32)}  # timm's, already of 224 pixels
    with pytest.raises(UserError, match=r"pos_embed has the shape \(1, 257, 32\), expected \(1, 1370, 32\)"):
        check(other, vit.shapes(SIZE), "weights.pth")
    with pytest.raises(UserError, match="DINOv2 size 'g': expected one of 's', 'b', 'l'"):
        vit.shapes("g")
    with pytest.raises(UserError, match=r"shape \(1, 518, 518, 3\); it needs \(B, 224, 224, 3\)"):
        vit.VisionTransformer(*SIZE).apply(variables, np.zeros((1, 518, 518, 3), np.float32))


# Preprocessing

@pytest.mark.parametrize("name", SETS)
def test_preprocessing_is_pillows_bicubic_of_bytes_normalised(prepared, name):
    resized = np.stack([np.asarray(Image.fromarray(image).resize((224, 224), Image.Resampling.BICUBIC))
                        for image in IMAGES[name]])
    expected = (resized / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert prepared[name].dtype == np.float32
    np.testing.assert_allclose(prepared[name], expected, rtol=0, atol=1e-6)


def test_every_preprocessing_has_its_words():
    assert vit.DESCRIPTIONS.keys() == vit.PREPROCESSING.keys()


# Features

@pytest.mark.parametrize("name", SETS)
def test_features_match_timm(results, name):
    features, _ = results[name]
    assert features.dtype == np.float32
    assert _relative(features, RECORDED[f"out/features_{name}"]) < 1e-5


@pytest.mark.parametrize("name", SETS)
def test_gradients_by_the_image_match_timm(results, name):
    _, gradients = results[name]
    assert _relative(gradients[:, :20, :20], RECORDED[f"grad/corner_{name}"]) < 1e-4


@pytest.mark.parametrize(("name", "tolerance"), [("faint", 1e-5), ("far", 1e-4)])
def test_norms_have_the_references_epsilon_and_keep_their_digits(function, prepared, state, name, tolerance):
    """Embeddings so small that their variance is near epsilon, or far from zero; recorded in float64."""
    a, b = map(np.float32, META["tokens"][name])
    moved = {key: array if key.startswith(("blocks.", "norm.")) else a * array for key, array in state.items()}
    x = np.concatenate([prepared[key] for key in SETS])
    features, _ = function(x, vit.from_torch(moved | {"pos_embed": moved["pos_embed"] + b}))
    assert _relative(features[:2], RECORDED[f"out/features_{name}"]) < tolerance


def test_images_do_not_depend_on_each_other(function, results, prepared, variables):
    other = np.concatenate([prepared["256x240"], prepared["20x28"][1:], prepared["256x240"][:, ::-1]])
    features, _ = function(other, variables)
    np.testing.assert_array_equal(features[1], results["20x28"][0][1])
    np.testing.assert_allclose(features[0], results["256x240"][0][0], rtol=0, atol=1e-5)
    assert np.abs(features[2] - features[0]).max() > 0.1  # positions tell the flipped image apart
