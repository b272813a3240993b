"""Precision, recall, density and coverage on host and device: against brute force, with ties, in little memory."""

import tracemalloc

import numpy as np
import pytest

from gan_jax import metrics
from gan_jax.errors import UserError
from gan_jax.metrics import neighbours

TILE = 32


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(neighbours, "BLOCK_ENTRIES", TILE**2)


def brute_force(real, fake, k, inclusive):
    """By differences in float64, whose squares are equal for copies of a pair."""
    def squares(a, b):
        return np.sum((a[:, None].astype(np.float64) - b) ** 2, axis=-1)

    def radius(x):
        return np.array([np.sort(np.delete(row, i))[k - 1] for i, row in enumerate(squares(x, x))])

    inside = np.less_equal if inclusive else np.less
    between = squares(real, fake)
    in_balls = inside(between, radius(real)[:, None])
    recalled = inside(between, radius(fake))
    return in_balls.any(0).mean(), recalled.any(1).mean(), in_balls.sum(0).mean() / k, in_balls.any(1).mean()


def random_sets(m, n, dim=6, offset=0.0):
    rng = np.random.default_rng(m + n)
    real = offset + rng.normal(size=(m, dim)).astype(np.float32)
    return real, offset + rng.normal(0.3, 1.1, size=(n, dim)).astype(np.float32)


def agree(real, fake, k, inclusive):
    expected = brute_force(real, fake, k, inclusive)
    for device in (False, True):
        actual = metrics.neighbourhoods(real, fake, k=k, inclusive=inclusive, device=device)
        np.testing.assert_allclose(actual, expected, rtol=1e-12)


@pytest.mark.parametrize("inclusive", [False, True])
@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize("sizes", [(70, 101), (64, 32), (9, 90), (33, 6)])
def test_both_agree_with_brute_force(sizes, k, inclusive):
    agree(*random_sets(*sizes), k, inclusive)


@pytest.mark.parametrize("inclusive", [False, True])
def test_copies_tie(inclusive, monkeypatch):
    """Copies of reals lie on the borders of the balls that their originals span; balls of many copies are points."""
    monkeypatch.setattr(neighbours, "BLOCK_ENTRIES", 100**2)
    real, fake = random_sets(150, 157, 300)
    real[40:48] = real[3]
    fake[:110] = np.random.default_rng(1).permutation(real)[:110]
    fake[110:120] = real[3]
    agree(real, fake, 3, inclusive)


@pytest.mark.parametrize("device", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_copy_is_inside_a_ball_smaller_than_the_rounding(device, dtype):
    real, _ = random_sets(40, 1, 50)
    near = real + np.eye(40, 50, dtype=np.float32) * 1e-5  # squares of 1e-10 beside lengths of 50
    both, fake = np.concatenate([real, near]), real.astype(dtype)
    result = metrics.neighbourhoods(both, fake, k=1, inclusive=True, device=device)
    assert result.precision == result.coverage == 1.0


def test_the_device_takes_the_mean_off():
    agree(*random_sets(50, 60, offset=3000.0), 3, False)  # in float32 squares of 5e7 would be off by a ball's size


@pytest.mark.parametrize("device", [False, True])
def test_border_counts_only_where_it_is_included(device):
    real = np.array([[-2.0], [-1.0], [3.0]])  # radii at k = 1: 1, 1, 4
    fake = np.array([[-3.0], [9.0]])  # the first is on the border of the ball around -2; radii 12, 12
    assert metrics.neighbourhoods(real, fake, k=1, device=device) == (0.0, 1.0, 0.0, 0.0)
    assert metrics.neighbourhoods(real, fake, k=1, inclusive=True, device=device) == (0.5, 1.0, 0.5, 1 / 3)


@pytest.mark.parametrize("device", [False, True])
def test_distances_held_at_once_do_not_grow_with_the_sets(device, monkeypatch):
    backend, shapes = neighbours._device() if device else neighbours._HOST, []

    def distances(a, b):
        block = backend.distances(a, b)
        shapes.append(block.shape)
        return block

    spied = backend._replace(distances=distances)
    monkeypatch.setattr(neighbours, "_device", lambda: spied)
    monkeypatch.setattr(neighbours, "_HOST", spied)
    metrics.neighbourhoods(*random_sets(130, 97), device=device)  # tiles of 26 rows: 5 and 4
    assert max(a * b for a, b in shapes) <= TILE**2
    assert len(shapes) == 5 * 6 / 2 + 4 * 5 / 2 + 5 * 4
    assert len(set(shapes)) == 1 or not device  # one shape: compiled once


def peak(function, *arguments, **options):
    tracemalloc.start()
    function(*arguments, **options)
    size = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return size


def test_features_are_not_copied_to_float64():
    real, fake = random_sets(500, 400, 1500)  # 3 MB and 2.4 MB
    assert peak(metrics.neighbourhoods, real, fake) < 1.5e6
    assert peak(metrics.kernel_distance, real, fake, subsets=2, subset_size=20) < 1.5e6


@pytest.mark.parametrize("device", [False, True])
def test_features_that_are_not_finite_are_refused(device):
    for bad in (np.nan, np.inf):
        for sets in (random_sets(40, 50), random_sets(40, 50)[::-1]):
            sets[0][7, 2] = bad
            with pytest.raises(UserError, match="NaN or infinite"):
                metrics.neighbourhoods(*sets, device=device)
