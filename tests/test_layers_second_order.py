"""Real-ESRGAN's degradation, part by part against numpy and scipy; what a draw of it depends on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, special

from gan_jax.layers import second_order
from gan_jax.layers.second_order import AREA, BICUBIC, BILINEAR, Canvas

RNG = np.random.default_rng(0)
OFFSETS = np.mgrid[-10:11, -10:11]


@pytest.fixture(scope="module")
def degrade():
    """The compiled chain, of 16x16 pictures."""
    return jax.jit(lambda images, keys: second_order.degraded(images, keys, 2))


@pytest.fixture(scope="module")
def pictures():
    return jnp.asarray(RNG.uniform(size=(6, 16, 16, 3)), jnp.float32)


# Blurs.


@pytest.mark.parametrize(("kind", "exponent"), [(0, 2.0), (1, 0.7), (2, 1.5)])
def test_bells_are_as_their_formula(kind, exponent):
    """By the inverse of the covariance, on 11 of 21 pixels."""
    turn = np.array([[np.cos(0.6), -np.sin(0.6)], [np.sin(0.6), np.cos(0.6)]])
    inverse = np.linalg.inv(turn @ np.diag([2.0**2, 0.8**2]) @ turn.T)
    y, x = OFFSETS
    points = np.stack([x, y], -1)
    squared = np.einsum("hwi,ij,hwj->hw", points, inverse, points)
    power = squared ** (1.0 if kind == 0 else exponent)
    expected = (1 / (1 + power) if kind == 2 else np.exp(-power / 2)) * (np.abs(OFFSETS).max(0) <= 5)
    kernel = second_order.bell(2.0, 0.8, 0.6, kind, exponent, 11)
    np.testing.assert_allclose(kernel, expected / expected.sum(), atol=1e-6)


@pytest.mark.parametrize(("cutoff", "size"), [(np.pi / 3, 21), (np.pi, 21), (2.0, 7)])
def test_sinc_is_bessel_s_function(cutoff, size):
    radius = np.hypot(*OFFSETS)
    with np.errstate(invalid="ignore"):
        expected = cutoff * special.j1(cutoff * radius) / (2 * np.pi * radius)
    expected[10, 10] = cutoff**2 / (4 * np.pi)
    expected *= np.abs(OFFSETS).max(0) <= (size - 1) // 2
    np.testing.assert_allclose(second_order.sinc(cutoff, size), expected / expected.sum(), atol=2e-6)


def test_blur_repeats_the_outermost_pixels():
    kernel = second_order.bell(3.0, 1.0, 0.4, 0, 1.0, 15)
    pixels = RNG.uniform(size=(9, 30, 2)).astype(np.float32)
    expected = [ndimage.correlate(pixels[..., c], np.asarray(kernel), mode="nearest") for c in range(2)]
    np.testing.assert_allclose(second_order.blurred(pixels, kernel), np.stack(expected, -1), atol=2e-6)


def test_kernels_are_drawn_of_all_sizes_and_shapes():
    """Seven sizes from 7 on; a tenth are sinc filters, which have negative weights; and nearly half are round."""
    numbers = jnp.asarray(RNG.uniform(size=(2000, 9)), jnp.float32)
    kernels = np.asarray(jax.jit(jax.vmap(lambda u: second_order.random_blur(u, (0.8, 3.0))))(numbers))
    np.testing.assert_allclose(kernels.sum((1, 2)), 1, atol=1e-5)
    sizes = {int((np.abs(kernel[10]) > 0).sum()) for kernel in kernels[kernels.min((1, 2)) < 0]}
    assert sizes <= set(range(7, 22, 2)) and len(sizes) >= 6
    assert (kernels.min((1, 2)) < -1e-6).mean() == pytest.approx(0.1, abs=0.02)
    is_round = np.abs(kernels - kernels.transpose(0, 2, 1)).max((1, 2)) < 1e-6
    assert is_round.mean() == pytest.approx(0.1 + 0.9 * (0.45 + 0.12 + 0.12), abs=0.04)


# Sizes.


def _table(count, side, inside, goal, mode):
    return np.asarray(second_order.weights(count, side, inside, goal, mode))


def test_area_is_the_mean_of_the_pixels_that_it_touches():
    """6 pixels to 3 are means of two; 5 to 3 overlap, as in PyTorch's adaptive mean."""
    np.testing.assert_allclose(_table(3, 6, 6, 3, AREA), np.repeat(np.eye(3), 2, 1) / 2)
    expected = [[1 / 2, 1 / 2, 0, 0, 0], [0, 1 / 3, 1 / 3, 1 / 3, 0], [0, 0, 0, 1 / 2, 1 / 2]]
    np.testing.assert_allclose(_table(3, 5, 5, 3, AREA), expected, atol=1e-6)


@pytest.mark.parametrize(("inside", "goal"), [(7, 12), (12, 5), (6, 6)])
def test_bilinear_reads_between_centres(inside, goal):
    values = RNG.uniform(size=inside)
    centres = (np.arange(goal) + 0.5) * inside / goal - 0.5
    expected = np.interp(centres, np.arange(inside), values)
    np.testing.assert_allclose(_table(goal, inside, inside, goal, BILINEAR) @ values, expected, atol=1e-6)


def test_bicubic_doubles_with_pytorch_s_slope():
    """A quarter of a pixel from a centre, the four weights are of a = -3/4; at the border pixels are repeated."""
    table = _table(8, 4, 4, 8, BICUBIC)
    near = np.array([-0.03515625, 0.26171875, 0.87890625, -0.10546875])
    np.testing.assert_allclose(table[4], near[[0, 1, 2, 3]], atol=1e-6)
    np.testing.assert_allclose(table[3], near[::-1], atol=1e-6)
    np.testing.assert_allclose(table[0], [near[:3].sum(), near[3], 0, 0], atol=1e-6)


@pytest.mark.parametrize("mode", [AREA, BILINEAR, BICUBIC])
def test_a_canvas_holds_what_the_picture_alone_would(mode):
    """Whatever lies beyond it, and its last row and column are repeated."""
    pixels = RNG.uniform(size=(11, 9, 3)).astype(np.float32)
    alone = second_order.resized(Canvas(pixels, 11, 9), (7, 12), (7, 12), mode).pixels
    wide = np.full((20, 14, 3), 0.5, np.float32)
    wide[:11, :9] = pixels
    canvas = jax.jit(lambda pixels, inside, goal: second_order.resized(Canvas(pixels, *inside), goal, (15, 16), mode))
    made = canvas(wide, (11, 9), (7, 12))
    np.testing.assert_allclose(made.pixels[:7, :12], alone, atol=1e-6)
    np.testing.assert_allclose(made.pixels[7:, :12], np.repeat(alone[-1:], 8, 0), atol=1e-6)
    assert (int(made.height), int(made.width)) == (7, 12)


# Noise.


def test_counted_noise_has_the_moments_of_poisson_s():
    """64 levels are counted where 33 different ones are seen; grey noise is equal in all channels."""
    levels = np.arange(33)[:, None] * np.ones((33, 3000))
    pixels = np.repeat((levels * 4 / 255)[..., None], 3, 2).astype(np.float32)
    normal = np.random.default_rng(0).standard_normal(pixels.shape).astype(np.float32)
    noise = np.asarray(second_order.counted(pixels, normal, False))
    expected = levels[1:, 0] * 4 / 255 / 64
    assert np.abs(noise[0]).max() == 0
    np.testing.assert_allclose(noise[1:].mean((1, 2)), 0, atol=0.003)
    np.testing.assert_allclose(noise[1:].var((1, 2)), expected + 1 / 18 / 64**2, rtol=0.06)
    skewness = (noise[-1] ** 3).mean() / (noise[-1] ** 2).mean() ** 1.5
    assert skewness == pytest.approx((expected[-1] * 64**2) ** -0.5, rel=0.25)
    grey = np.asarray(second_order.counted(pixels, np.repeat(normal[..., :1], 3, 2), True))
    np.testing.assert_array_equal(grey, np.repeat(grey[..., :1], 3, 2))


def test_gaussian_noise_is_as_strong_as_drawn():
    """Halfway between 1 and 30 levels; more than .4 is coloured."""
    pixels = np.full((60, 60, 3), 0.5, np.float32)
    normal = RNG.standard_normal(pixels.shape).astype(np.float32)
    noisy = second_order.noisy(pixels, normal, np.array([0.1, 0.9, 0.5]), second_order.FIRST)
    np.testing.assert_allclose(noisy, np.clip(0.5 + 15.5 / 255 * normal, 0, 1), atol=1e-5)


# The chain.


def test_behind_a_round_the_last_row_and_column_are_repeated():
    """So that what follows finds the picture at its edge, and no noise that is not its own."""
    rng = np.random.default_rng(0)
    picture = rng.uniform(size=(16, 12, 3)).astype(np.float32)
    shape = second_order._canvas((16, 12), second_order.FIRST)
    normal = rng.standard_normal((*shape, 3)).astype(np.float32)
    made = jax.jit(lambda u: second_order._round(u, Canvas(picture, 16, 12), (16, 12), normal, second_order.FIRST))
    numbers = np.full(16, 0.5, np.float32)
    numbers[1] = 0.9  # smaller
    pixels, height, width = map(np.asarray, made(numbers))
    assert 2 < height < 16 and 2 < width < 12 and pixels.shape == (*shape, 3)
    inside = pixels[:height, :width]
    assert np.abs(inside[-1] - inside[-2]).max() > 0.05
    after = [(0, shape[0] - height), (0, shape[1] - width), (0, 0)]
    np.testing.assert_array_equal(pixels, np.pad(inside, after, "edge"))


def test_a_small_picture_is_a_function_of_its_own_picture_and_key(degrade, pictures):
    """Whatever stands beside it."""
    keys = jax.random.split(jax.random.key(1), 6)
    small = np.asarray(degrade(pictures, keys))
    assert small.shape == (6, 8, 8, 3)
    np.testing.assert_allclose(small * 255, np.round(small * 255), atol=1e-4)
    order = np.array([3, 1, 5, 0, 2, 4])
    np.testing.assert_allclose(degrade(pictures[order], keys[order]), small[order], atol=1 / 255 + 1e-6)
    others = np.asarray(degrade(pictures, jax.random.split(jax.random.key(2), 6)))
    assert (np.abs(others - small).mean((1, 2, 3)) > 0.01).all()


def test_draws_are_all_different(degrade, pictures):
    """One picture, six keys: no two small pictures are alike, and their noise differs in strength."""
    same = jnp.repeat(pictures[:1], 6, 0)
    small = np.asarray(degrade(same, jax.random.split(jax.random.key(3), 6)))
    distances = np.abs(small[:, None] - small[None]).mean((2, 3, 4))
    assert distances[~np.eye(6, dtype=bool)].min() > 0.005
