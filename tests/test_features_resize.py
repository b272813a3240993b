"""Resizes against recordings of TensorFlow 1's and PyTorch's, and against Pillow itself."""

import functools
import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

from gan_jax.errors import UserError
from gan_jax.features import resize

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "inception_torch_fidelity.npz")
SIZES = [(13, 17), (5, 4), (21, 27), (7, 9)]
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR,
           "lanczos": Image.Resampling.LANCZOS, "box": Image.Resampling.BOX}
# (height, width) up, down, each way, odd, one direction alone, unchanged; and a reduction to a tenth
CASES = [((9, 7), (29, 31)), ((37, 41), (11, 13)), ((33, 20), (40, 9)), ((20, 33), (19, 50)), ((24, 18), (24, 31)),
         ((24, 18), (7, 18)), ((15, 15), (15, 15)), ((160, 170), (16, 17))]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("key, function", [
    ("resize_small", resize.tf1_bilinear),
    ("resize_small_aligned", functools.partial(resize.tf1_bilinear, align_corners=True)),
    ("resize_torch_halfpixel", resize.bilinear),
    ("resize_torch_halfpixel_antialias", functools.partial(resize.bilinear, antialias=True)),
])
def test_bilinear_resizes_match_the_recordings(key, function, size):
    x = GOLDEN["in/resize_small"].transpose(0, 2, 3, 1)
    expected = GOLDEN[f"out/{key}_{size[0]}x{size[1]}"].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(function(x, size), expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_the_two_bilinear_resizes_by_hand():
    """A ramp doubled: TensorFlow 1 reads at 0, .5, 1 ... 3.5, PyTorch at -.25, .25 ... 3.25; ends are repeated."""
    ramp = np.array([0, 10, 20, 40], np.float32).reshape(1, 1, 4, 1)
    np.testing.assert_array_equal(resize.tf1_bilinear(ramp, (1, 8)).ravel(), [0, 5, 10, 15, 20, 30, 40, 40])
    np.testing.assert_array_equal(resize.bilinear(ramp, (1, 8)).ravel(), [0, 2.5, 7.5, 12.5, 17.5, 25, 35, 40])


def _images(size, channels=3):
    """Random bytes and, as every sum then leaves 0..255, random black and white."""
    rng = np.random.default_rng(size[0])
    grey = rng.integers(0, 256, (2, *size, channels)).astype(np.uint8)
    return np.concatenate([grey, np.where(grey > 127, 255, 0).astype(np.uint8)])


def _rows_first_in_pillow(old, new):
    """Pillow 13's rule: the height falls, and by more than twice as many pixels as the width."""
    return int(Image.__version__.split(".")[0]) >= 13 and old[0] > new[0] and old[0] - new[0] > 2 * (old[1] - new[1])


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("old, new", CASES)
def test_pillow_of_bytes_is_exact(name, old, new):
    x = _images(old)
    expected = np.stack([np.asarray(Image.fromarray(image).resize(new[::-1], FILTERS[name])) for image in x])
    y = resize.pil(x, new, filter=name, quantise=True, rows_first=_rows_first_in_pillow(old, new))
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("old, new", CASES)
def test_pillow_in_float(name, old, new):
    x = _images(old, 1).astype(np.float32)
    expected = np.stack([np.asarray(Image.fromarray(image[..., 0]).resize(new[::-1], FILTERS[name])) for image in x])
    y = np.asarray(resize.pil(x, new, filter=name))[..., 0]
    np.testing.assert_allclose(y, expected, rtol=0, atol=2e-4)
    if old == new:
        np.testing.assert_array_equal(y, x[..., 0])


def test_order_of_the_passes_matters_where_they_clip():
    """Turning the image on its side and taking the rows first is the same as before: between them lies the clipping."""
    x = _images((40, 20))
    columns = np.asarray(resize.pil(x, (11, 17), quantise=True))
    turned = resize.pil(x.transpose(0, 2, 1, 3), (17, 11), quantise=True, rows_first=True)
    np.testing.assert_array_equal(np.asarray(turned).transpose(0, 2, 1, 3), columns)
    assert np.abs(columns - resize.pil(x, (11, 17), quantise=True, rows_first=True)).max() > 1


def test_float_resizes_are_linear_maps_under_jit_and_differentiable():
    x = _images((9, 7)).astype(np.float32)
    for function in (resize.tf1_bilinear, resize.bilinear, resize.pil):
        y, pull = jax.vjp(jax.jit(functools.partial(function, size=(12, 5))), x)
        # <A x, A x> = <x, A' A x>
        np.testing.assert_allclose(np.vdot(y, y), np.vdot(x, pull(y)[0]), rtol=1e-5)


def test_an_unknown_filter_is_refused():
    with pytest.raises(UserError, match="resize filter 'nearest': expected one of 'bicubic', 'bilinear'"):
        resize.pil(np.zeros((1, 4, 4, 3)), (2, 2), filter="nearest")
