"""Pictures in tiles: windows counted by hand, reaches of plain filters, networks that give the same whole."""

import math
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import tiles
from gan_jax.errors import UserError
from gan_jax.layers.conv import conv
from gan_jax.models import esrgan, msrgan, real_esrgan, srgan
from tests import settings

NETS = {
    "rrdb_x4": esrgan.Generator(width=8, blocks=2, growth=4),
    "rrdb_x2": esrgan.Generator(scale=2, width=8, blocks=1, growth=4),
    "compact": real_esrgan.Generator(width=8, layers=3),
    "msrresnet_x3": msrgan.Generator(scale=3, width=8, blocks=1),
    "srresnet": srgan.Generator(width=8, blocks=1),
}


def _function(net):
    variables = settings.numpy_variables(net, jnp.zeros((1, 8, 8, 3)))
    return lambda x: net.apply(variables, x, train=False)


def _box(reach):
    """The mean over squares of 2 * reach + 1, with zeros beyond the border."""
    side = 2 * reach + 1
    kernel = jnp.ones((side, side, 1, 1)) / side**2
    return lambda x: conv(x, kernel, 1, ((reach, reach), (reach, reach)))


def test_windows_by_hand():
    """Each part lies 2 or more inside its window, but at the picture's ends."""
    assert tiles.spans(10, 10, 2) == [(0, 10, 0, 10)]
    assert tiles.spans(11, 10, 2) == [(0, 10, 0, 5), (1, 11, 5, 11)]
    assert tiles.spans(20, 10, 2) == [(0, 10, 0, 8), (6, 16, 8, 13), (10, 20, 13, 20)]
    with pytest.raises(ValueError, match="windows of 4 with margins of 2"):
        tiles.spans(20, 4, 2)


@pytest.mark.parametrize(("length", "side", "margin"), [(100, 30, 7), (31, 30, 14), (999, 64, 0), (64, 20, 8)])
def test_windows_share_an_axis(length, side, margin):
    windows = tiles.spans(length, side, margin)
    assert [span.first for span in windows] == [0, *(span.last for span in windows[:-1])] and windows[-1].last == length
    for span in windows:
        assert span.stop - span.start == side and 0 <= span.start and span.stop <= length
        assert span.start == 0 or span.first - span.start >= margin
        assert span.stop == length or span.stop - span.last >= margin


def test_coarse_windows_are_few():
    plan = tiles.Plan(side=400, margin=8, is_coarse=True)
    sides = {tiles.window(length, plan) for length in range(40, 1000)}
    assert len({side for side in sides if side > 60}) <= 10
    assert all(tiles.window(length, plan) <= length for length in range(1, 1000))
    assert [tiles.window(length, plan._replace(is_coarse=False)) for length in (7, 399, 1000)] == [7, 399, 400]


@pytest.mark.parametrize("reach", [1, 3])
def test_the_margin_of_a_filter_is_its_reach(reach):
    assert tiles.margin(_box(reach), 1, 1, 1) == (reach, 0.0)


def test_a_network_that_sees_the_whole_picture_has_no_margin():
    assert tiles.margin(lambda x: x - x.mean((1, 2), keepdims=True), 1, 1, 1) == (0, math.inf)


def test_units():
    assert [tiles.unit(_function(NETS[name]), 3) for name in ("rrdb_x4", "rrdb_x2", "compact")] == [1, 2, 1]
    assert tiles.unit(_function(esrgan.Generator(scale=1, width=8, blocks=0)), 3) == 4

    def picky(x):
        raise UserError("pictures of one size only")

    with pytest.raises(UserError, match="one size only"):
        tiles.unit(picky, 3)


def test_memory_counts_the_largest_array():
    """Eight features of four bytes at four times the side: 512 bytes a pixel."""
    assert tiles.bytes_per_pixel(_function(NETS["rrdb_x4"]), 3, 1) == tiles.LIVE * 8 * 4 * 16


def test_memory_does_not_count_weights():
    """Two features of four bytes, and a hundred thousand weights that a program computes."""
    def network(x):
        weights = jnp.concatenate([jnp.ones((1, 1, 1, 100_000)), jnp.ones((1, 1, 1, 2))], 3)
        return x * weights[..., -2:]

    assert tiles.bytes_per_pixel(network, 1, 1) == tiles.LIVE * 2 * 4


@pytest.mark.parametrize("name", NETS)
def test_tiles_give_what_the_whole_picture_gives(name):
    """To rounding; of sides that are no multiples of anything, cut in both directions."""
    net, function = NETS[name], _function(NETS[name])
    unit = tiles.unit(function, 3)
    margin, beyond = tiles.margin(function, 3, net.scale, unit)
    assert 0 < margin <= 32 and margin % unit == 0 and beyond <= tiles.EXACT
    plan = tiles.Plan(unit, 2 * margin + 20 // unit * unit, margin)
    pixels = np.random.default_rng(1).random((2 * margin + 37, 2 * margin + 45, 3), np.float32)
    program = jax.jit(function)
    whole = np.asarray(program(tiles.padded(pixels, unit)[None]))[0]
    height, width = (net.scale * side for side in pixels.shape[:2])
    result, times = np.full((height, width, 3), np.nan, np.float32), 0
    for rows, columns, part in tiles.tiled(program, pixels, plan, net.scale):
        assert np.isnan(result[rows, columns]).all()  # each place once
        result[rows, columns], times = part, times + 1
    assert times == tiles.count(*pixels.shape[:2], plan) >= 6 and program._cache_size() == 2
    np.testing.assert_allclose(result, whole[:height, :width], atol=4e-6 * np.abs(whole).max())


def test_tiles_made_at_once_are_those_made_one_after_another():
    """In their order, bit for bit: each waits for another in the making; and no shape is compiled twice."""
    traced, pair = [], threading.Barrier(2, timeout=60)

    @jax.jit
    def network(x):
        traced.append(x.shape)
        return jnp.cumsum(x, 1) + jnp.cumsum(x, 2)

    program = tiles.compiled_once(network)

    def in_pairs(x):
        pair.wait()
        return program(x)

    plan, pixels = tiles.Plan(1, 12, 2), np.random.default_rng(1).random((29, 31, 1), np.float32)
    two, one = list(tiles.tiled(in_pairs, pixels, plan, 1, at_once=2)), list(tiles.tiled(program, pixels, plan, 1))
    assert len(one) == len(two) == tiles.count(29, 31, plan) == 16 and traced == [(1, 12, 12, 1)]
    for (rows, columns, part), other in zip(one, two, strict=True):
        assert (rows, columns) == other[:2]
        np.testing.assert_array_equal(part, other[2])


def test_tiles_made_at_once_end_with_what_fails_and_with_who_wants_no_more():
    shapes, plan, pixels = [], tiles.Plan(1, 20, 2), np.zeros((100, 100, 1), np.float32)

    def program(x):
        shapes.append(x.shape)
        if len(shapes) > 4:
            raise MemoryError("no room")
        return x

    with pytest.raises(MemoryError, match="no room"):
        list(tiles.tiled(program, pixels, plan, 1, at_once=2))
    assert len(shapes) <= 7  # what was in the making beside it
    shapes.clear()
    rest = tiles.tiled(program, pixels, plan, 1, at_once=2)
    next(rest)
    rest.close()
    assert len(shapes) <= 3


def test_a_margin_that_is_too_small_shows():
    """The test above can fail."""
    function, pixels = _box(3), np.random.default_rng(1).random((40, 40, 1), np.float32)
    whole = np.asarray(function(pixels[None]))[0]
    plan = tiles.Plan(1, 20, 2)
    worst = max(np.abs(part - whole[rows, columns]).max()
                for rows, columns, part in tiles.tiled(function, pixels, plan, 1))  # fmt: skip
    assert worst > 0.01


def test_small_pictures_of_units():
    """One pixel, mirrored until it fills a unit."""
    ((rows, columns, part),) = tiles.tiled(lambda x: x, np.full((1, 1, 3), 0.25, np.float32), tiles.Plan(4), 1)
    assert (rows, columns) == (slice(0, 1), slice(0, 1)) and part.shape == (1, 1, 3) and (part == 0.25).all()
