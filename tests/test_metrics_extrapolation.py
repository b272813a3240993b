"""Frechet distances of few samples: their bias, extrapolation, resampling; moments in files."""

import numpy as np
import pytest

from gan_jax import metrics
from gan_jax.errors import MissingPathError, UserError
from gan_jax.metrics import extrapolation, frechet
from gan_jax.metrics.frechet import Moments


def covariance(dim, rank, seed=0):
    x = np.random.default_rng(seed).normal(size=(dim, rank))
    return x @ x.T


@pytest.mark.parametrize("rank", [0, 3, 6])
def test_root_has_the_covariances_rank(rank):
    c = covariance(6, rank)
    root = frechet.root(c)
    assert root.shape == (6, rank)
    np.testing.assert_allclose(root @ root.T, c, atol=1e-12)


def test_a_shared_root_changes_nothing():
    c1, c2 = covariance(6, 4, seed=1), covariance(6, 6, seed=2)
    arguments = (np.zeros(6), c1, np.ones(6), c2)
    value = metrics.frechet_distance(*arguments)
    # another root of the same covariance, by a rotation
    turned = frechet.root(c1) @ np.linalg.qr(np.random.default_rng(3).normal(size=(4, 4)))[0]
    for root1 in (frechet.root(c1), turned):
        np.testing.assert_allclose(metrics.frechet_distance(*arguments, root1=root1), value, rtol=1e-10)


@pytest.mark.parametrize("others", [7, 90])
def test_few_samples_need_matrices_of_their_number_alone(others, monkeypatch):
    """Samples are X and Y about their means: the trace of (C1 C2)^(1/2) is the sum of X Y^T's singular values."""
    rng, solved = np.random.default_rng(8), []
    few, many = rng.normal(size=(9, 40)), rng.normal(1, 2, size=(others, 40))
    x, y = ((z - z.mean(0)) / np.sqrt(len(z) - 1) for z in (few, many))
    expected = (np.sum((few.mean(0) - many.mean(0)) ** 2) + np.sum(x**2) + np.sum(y**2)
                - 2 * np.linalg.svd(x @ y.T, compute_uv=False).sum())
    for name in ("eigh", "eigvalsh"):
        plain = getattr(np.linalg, name)
        monkeypatch.setattr(np.linalg, name, lambda c, plain=plain: (solved.append(len(c)), plain(c))[1])
    one, other = metrics.moments(few), metrics.moments(many)
    for a, b in ((one, other), (other, one)):
        value = metrics.frechet_distance(a.mean, a.covariance, b.mean, b.covariance)
        np.testing.assert_allclose(value, expected, rtol=1e-10)
    factor = frechet.factor(one.covariance)
    assert factor.shape == (40, 8)
    np.testing.assert_allclose(factor @ factor.T, x.T @ x, atol=1e-12)
    metrics.bootstrap_interval(few, other, replicates=2)
    assert max(solved) <= (8 if others == 7 else 40) and max(solved[:4]) <= 8


# Bias

def test_bias_in_one_dimension_is_the_closed_form():
    # mean: c / N; deviation: the sample's has the variance c / (2 N)
    np.testing.assert_allclose(frechet.bias([[4.0]], 100), 4 / 100 + 4 / 200, rtol=1e-12)


def test_bias_is_that_of_simulated_gaussians():
    rng = np.random.default_rng(4)
    basis = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    scales = np.array([3.0, 1.0, 0.3, 0.0])  # a direction without variance adds nothing
    c, count = basis * scales**2 @ basis.T, 400
    root, values = frechet.root(c), []
    for _ in range(3000):
        m = metrics.moments(rng.normal(size=(count, 4)) * scales @ basis.T)
        values.append(metrics.frechet_distance(np.zeros(4), c, m.mean, m.covariance, root1=root))
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values) - frechet.bias(c, count)) < 4 * error < 0.08 * np.mean(values)
    with pytest.raises(UserError, match="at least 2"):
        frechet.bias(c, 1)


# Extrapolation

def test_sizes_are_the_authors():
    expected = np.linspace(5000, 50000, 15).astype("int32")
    np.testing.assert_array_equal(extrapolation.sizes(50000, 2048), expected)
    assert extrapolation.sizes(10000, 64)[0] == 1000 and extrapolation.sizes(10000, 2048)[0] == 4096
    np.testing.assert_array_equal(extrapolation.sizes(100, 3, points=3, least=50), [50, 75, 100])
    for arguments in ({"least": 100}, {"least": 1}, {"points": 1}):
        with pytest.raises(UserError, match="expected at least 2 points"):
            extrapolation.sizes(100, 3, **arguments)
    with pytest.raises(UserError, match="from 4096 to 4000 images"):
        extrapolation.sizes(4000, 2048)


def test_extrapolation_removes_the_bias():
    dim, count = 30, 1500
    scales = np.linspace(0.5, 2, dim)
    real = Moments(np.zeros(dim), np.diag(scales**2), 0)
    offset = np.zeros(dim)
    offset[0] = 0.5
    truth = 0.25 + 0.01 * np.sum(scales**2)
    rng, lines = np.random.default_rng(5), []
    for seed in range(8):
        fake = rng.normal(size=(count, dim)) * scales * 1.1 + offset
        lines.append(metrics.extrapolated_distance(fake, real, seed=seed))
    value, slope, plain = (np.mean(column) for column in zip(*[(r.value, r.slope, r.distances[-1]) for r in lines],
                                                             strict=True))
    assert abs(value - truth) < 0.15 * abs(plain - truth)
    # the line's height above the intercept is the bias, that of the fakes' own spread
    np.testing.assert_allclose(slope / count, frechet.bias(np.diag((1.1 * scales) ** 2), count), rtol=0.1)
    np.testing.assert_array_equal(lines[-1].sizes, np.linspace(150, 1500, 15).astype(int))
    again, last = metrics.extrapolated_distance(fake, real, seed=seed), metrics.moments(fake)
    np.testing.assert_array_equal(again.distances, lines[-1].distances)
    whole = metrics.frechet_distance(real.mean, real.covariance, last.mean, last.covariance)
    np.testing.assert_allclose(again.distances[-1], whole, rtol=1e-9)


def test_extrapolation_is_the_line_through_its_points():
    fake = np.random.default_rng(6).normal(size=(200, 2)).astype(np.float32)
    result = metrics.extrapolated_distance(fake, Moments(np.ones(2), np.eye(2), 0), points=4, least=50)
    x = np.stack([np.ones(4), 1 / result.sizes], axis=1)
    expected = np.linalg.lstsq(x, result.distances, rcond=None)[0]
    np.testing.assert_allclose([result.value, result.slope], expected, rtol=1e-8)


# Resampling

@pytest.mark.parametrize("rows", [1, 7, 4096])
def test_weighted_moments_are_those_of_copied_rows(rows, monkeypatch):
    monkeypatch.setattr(extrapolation, "BLOCK_ROWS", rows)
    rng = np.random.default_rng(7)
    x, weights = 1e3 + rng.normal(size=(40, 5)), rng.integers(0, 4, 40)
    result, copied = extrapolation.weighted_moments(x, weights), metrics.moments(np.repeat(x, weights, axis=0))
    assert result.count == copied.count
    np.testing.assert_allclose(result.mean, copied.mean, rtol=1e-14)
    np.testing.assert_allclose(result.covariance, copied.covariance, rtol=0, atol=1e-9)
    with pytest.raises(UserError, match="at least 2"):
        extrapolation.weighted_moments(x, np.zeros(40, int))


def expected_distance(offset, scale, count, count_real=None):
    """Of N(offset, scale^2) known by `count` samples from N(0, 1), in two dimensions, to first order in 1 / count.

    With E the error of the fakes' covariance s^2 I, tr (s^2 I + E)^(1/2) falls short of 2 s by tr(E^2) / (8 s^3), on
    average 6 s / (8 N), of which the distance gains twice; the mean's error adds 2 s^2 / N. So with the reals' own.
    """
    value = 2 * offset**2 + 2 * (scale - 1) ** 2 + (2 * scale**2 + 2 * scale * 6 / 8) / count
    return value + ((2 + 2 * scale * 6 / 8) / count_real if count_real else 0)


@pytest.mark.parametrize("rows", [False, True])
def test_interval_covers_the_expected_distance(rows):
    rng, covered, trials = np.random.default_rng(8), 0, 120
    count, count_real = 150, 200
    truth = expected_distance(0.7, 1.4, count, count_real if rows else None)
    for trial in range(trials):
        fake = 0.7 + 1.4 * rng.normal(size=(count, 2))
        real = rng.normal(size=(count_real, 2)) if rows else Moments(np.zeros(2), np.eye(2), 0)
        result = metrics.bootstrap_interval(fake, real, replicates=100, seed=trial)
        covered += result.low <= truth <= result.high
        assert result.low < result.value < result.high
    assert 0.87 <= covered / trials <= 0.995  # 0.95 less the small samples' shortfall; 4 standard errors


def test_interval_is_centred_reproducible_and_nested():
    rng = np.random.default_rng(9)
    fake, real = rng.normal(size=(60, 3)), rng.normal(1, 1, size=(50, 3))
    wide = metrics.bootstrap_interval(fake, real, replicates=50)
    narrow = metrics.bootstrap_interval(fake, real, replicates=50, level=0.5)
    a, b = metrics.moments(fake), metrics.moments(real)
    plain = metrics.frechet_distance(a.mean, a.covariance, b.mean, b.covariance)
    np.testing.assert_allclose([wide.value, narrow.value], plain, rtol=1e-10)
    assert wide.low < narrow.low < plain < narrow.high < wide.high
    assert wide.shift > 0  # a sample of a sample is farther off
    assert metrics.bootstrap_interval(fake, real, replicates=50) == wide


def test_resampling_refuses_what_it_cannot_use():
    fake, real = np.ones((5, 3)), Moments(np.zeros(3), np.eye(3), 0)
    for options in ({"replicates": 1}, {"level": 1.0}):
        with pytest.raises(UserError, match="level between 0 and 1"):
            metrics.bootstrap_interval(fake, real, **options)
    broken = np.where(np.arange(15).reshape(5, 3) == 4, np.nan, 1.0)
    for arguments in ((broken, real), (fake[:, :2], real), (fake, broken)):
        with pytest.raises(UserError, match="expected finite ones"):
            metrics.bootstrap_interval(*arguments)
    with pytest.raises(UserError, match="1 of them NaN"):
        metrics.extrapolated_distance(broken, real)


# Files

def test_moments_survive_a_file(tmp_path):
    m = metrics.moments(np.random.default_rng(10).normal(size=(9, 4)))
    path = tmp_path / "moments"  # no suffix is put on
    metrics.save_moments(path, m)
    assert [file.name for file in tmp_path.iterdir()] == ["moments"]
    with np.load(path) as file:
        assert set(file.files) == {"mu", "sigma", "count"}
    back = metrics.load_moments(path)
    np.testing.assert_array_equal(back.mean, m.mean)
    np.testing.assert_array_equal(back.covariance, m.covariance)
    assert back.count == 9 and isinstance(back.count, int)


def test_a_file_of_pytorch_fid_has_no_count(tmp_path):
    np.savez(tmp_path / "stats.npz", mu=np.zeros(2, np.float32), sigma=np.eye(2), pool=np.array([{}], object))
    m = metrics.load_moments(tmp_path / "stats.npz")  # what is not asked for is not read
    assert m.count == 0 and m.mean.dtype == np.float64


@pytest.mark.parametrize("arrays, message", [
    ({"mu": np.zeros(2)}, "no array named sigma"),
    ({"mean": np.zeros(2)}, "no array named mu or sigma"),
    ({"mu": np.zeros(2), "sigma": np.eye(3)}, r"shape \(2,\), sigma \(3, 3\)"),
    ({"mu": np.zeros((2, 1)), "sigma": np.eye(2)}, "expected"),
    ({"mu": np.zeros(2), "sigma": np.eye(2), "count": np.zeros(2)}, "single number"),
    ({"mu": np.array([0, np.nan]), "sigma": np.eye(2)}, "NaN or infinite"),
    ({"mu": np.zeros(2), "sigma": np.full((2, 2), np.inf)}, "NaN or infinite"),
    ({"mu": np.zeros(2), "sigma": np.eye(2), "count": -1}, "count is -1"),
    ({"mu": np.zeros(2), "sigma": np.eye(2), "count": np.nan}, "count is nan"),
    ({"mu": np.array(["a", "b"]), "sigma": np.eye(2)}, "real numbers"),
    ({"mu": np.zeros(2), "sigma": np.eye(2) * 1j}, "real numbers"),
    ({"mu": np.array([{}, {}], object), "sigma": np.eye(2)}, "cannot be read"),
])
def test_other_files_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "stats.npz", **arrays)
    with pytest.raises(UserError, match=message):
        metrics.load_moments(tmp_path / "stats.npz")


def test_damaged_and_missing_files_are_named(tmp_path):
    path = tmp_path / "stats.npz"
    with pytest.raises(MissingPathError, match="stats.npz: no such file"):
        metrics.load_moments(path)
    metrics.save_moments(path, Moments(np.zeros(30), np.eye(30), 0))
    whole = path.read_bytes()
    for damaged in (whole[:2000], b"", b"not a zip", whole[:1000] + b"\xff" * 500 + whole[1500:]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="cannot be read"):
            metrics.load_moments(path)
    with open(path, "wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(UserError, match="without a name"):
        metrics.load_moments(path)
