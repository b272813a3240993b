"""Metrics against values recorded from reference implementations, closed forms, brute force and examples."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from gan_jax import metrics
from gan_jax.errors import UserError
from gan_jax.metrics import frechet, kernel, neighbours, scores

GOLDEN = pathlib.Path(__file__).resolve().parent / "golden"
ROOT = pathlib.Path(__file__).resolve().parents[1]


def golden(name):
    return np.load(GOLDEN / f"metric_{name}.npz")


def test_package_imports_without_jax():
    code = "import sys, gan_jax.metrics; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


# Frechet distance

FID_CASES = ["full_rank", "few_samples", "low_rank", "one_dim", "constant_dims", "both_constant_dims"]


@pytest.mark.parametrize("case", FID_CASES)
def test_frechet_distance_of_features_matches_the_reference(case):
    z = golden("fid")
    m1, m2 = metrics.moments(z[f"in/{case}_1"]), metrics.moments(z[f"in/{case}_2"])
    np.testing.assert_allclose(m1.mean, z[f"out64/{case}_mu1"], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(m2.mean, z[f"out64/{case}_mu2"], rtol=1e-9, atol=1e-12)
    value = metrics.frechet_distance(m1.mean, m1.covariance, m2.mean, m2.covariance)
    np.testing.assert_allclose(value, z[f"out64/{case}_fid_eigh_reference"], rtol=1e-6)
    swapped = metrics.frechet_distance(m2.mean, m2.covariance, m1.mean, m1.covariance)
    np.testing.assert_allclose(swapped, z[f"out64/{case}_fid"], rtol=1e-6)


def test_frechet_distance_of_identical_sets_is_zero():
    z = golden("fid")
    mean, covariance, count = metrics.moments(z["in/identical_1"])
    assert count == 150
    assert 0 <= metrics.frechet_distance(mean, covariance, mean, covariance) < 1e-10 * np.trace(covariance)


@pytest.mark.parametrize("case", ["cov_rank3_vs_full", "cov_zero_vs_full", "cov_zero_vs_zero", "cov_diag"])
def test_frechet_distance_of_covariances_matches_the_reference(case):
    z = golden("fid")
    arguments = [z[f"in64/{case}_{key}"] for key in ("mu1", "sigma1", "mu2", "sigma2")]
    for ordered in (arguments, arguments[2:] + arguments[:2]):
        np.testing.assert_allclose(metrics.frechet_distance(*ordered), z[f"out64/{case}_fid"], rtol=1e-6)


def test_frechet_distance_of_commuting_gaussians_is_the_closed_form():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    s1, s2 = rng.uniform(0, 3, 6), rng.uniform(0, 3, 6)
    s1[:2] = 0  # both singular, each in its own directions
    s2[4:] = 0
    m1, m2 = rng.normal(size=6), rng.normal(size=6)
    value = metrics.frechet_distance(m1, basis * s1**2 @ basis.T, m2, basis * s2**2 @ basis.T)
    np.testing.assert_allclose(value, np.sum((m1 - m2) ** 2) + np.sum((s1 - s2) ** 2), rtol=1e-7)


def test_moments_are_numpys():
    x = np.random.default_rng(1).normal(3, 2, (50, 7)).astype(np.float32)
    m = metrics.moments(x)
    np.testing.assert_allclose(m.covariance, np.cov(x.astype(np.float64), rowvar=False), atol=1e-12)


@pytest.mark.parametrize("sizes", [(1,) * 40, (7, 0, 30, 3), (39, 1)])
def test_streamed_moments_do_not_depend_on_the_split(sizes):
    # a mean far above the deviation, where naive sums of squares lose half of the digits
    x = 1e4 + np.random.default_rng(2).normal(size=(40, 5))
    accumulator = frechet.empty(5)
    for part in np.split(x, np.cumsum(sizes)[:-1]):
        accumulator = frechet.update(accumulator, part)
    whole, streamed = metrics.moments(x), frechet.finish(accumulator)
    assert streamed.count == 40
    np.testing.assert_allclose(streamed.mean, whole.mean, rtol=1e-13)
    np.testing.assert_allclose(streamed.covariance, whole.covariance, rtol=0, atol=1e-9)
    centred = x - 1e4
    np.testing.assert_allclose(streamed.covariance, np.cov(centred, rowvar=False), rtol=0, atol=1e-9)


def test_streamed_moments_of_ordinary_features_agree_to_rounding():
    x = np.abs(np.random.default_rng(3).normal(size=(500, 16))).astype(np.float32)
    accumulator = frechet.empty(16)
    for part in np.array_split(x, 13):
        accumulator = frechet.update(accumulator, part)
    covariance = frechet.finish(accumulator).covariance
    np.testing.assert_allclose(covariance, metrics.moments(x).covariance, rtol=0, atol=1e-12)


def test_accumulators_merge_in_any_order():
    x = np.random.default_rng(4).normal(size=(30, 4))
    a, b, c = (frechet.update(frechet.empty(4), part) for part in np.split(x, [5, 6]))
    left = frechet.finish(frechet.merge(frechet.merge(a, b), c))
    right = frechet.finish(frechet.merge(c, frechet.merge(frechet.empty(4), frechet.merge(b, a))))
    np.testing.assert_allclose(left.covariance, right.covariance, atol=1e-13)
    np.testing.assert_allclose(left.covariance, np.cov(x, rowvar=False), atol=1e-13)
    empty = frechet.merge(frechet.empty(4), frechet.empty(4))
    assert empty.count == 0 and not empty.scatter.any()


def test_bad_features_are_named():
    x = np.ones((4, 3))
    x[2, 1] = np.nan
    with pytest.raises(UserError, match="1 of 4 images are NaN"):
        metrics.moments(x)
    with pytest.raises(UserError, match="1 images: expected at least 2"):
        metrics.moments(np.ones((1, 3)))


# Kernel distance

def test_kernel_distance_per_subset_matches_the_reference():
    z = golden("kid_mmd")
    values = kernel.subset_distances(z["in/features1"], z["in/features2"], z["in/idx1"], z["in/idx2"])
    np.testing.assert_allclose(values, z["out64/kid_poly_per_subset_float64"], rtol=1e-6)


def test_subsets_are_drawn_as_torch_fidelity_draws_them():
    z = golden("kid_mmd")
    index1, index2 = kernel.draw_subsets(120, 120, subsets=8, subset_size=50, seed=2020)
    np.testing.assert_array_equal(index1, z["in/idx1"])
    np.testing.assert_array_equal(index2, z["in/idx2"])


def test_kernel_distance_matches_the_reference():
    z = golden("kid_mmd")
    mean, std = metrics.kernel_distance(z["in/features1"], z["in/features2"], subsets=8, subset_size=50)
    recorded = z["out64/kid_poly_per_subset_float64"]
    np.testing.assert_allclose([mean, std], [recorded.mean(), recorded.std()], rtol=1e-6)
    # the package's own figures come from float32 products
    np.testing.assert_allclose([mean, std], [z["out64/kid_poly_mean"], z["out64/kid_poly_std"]], rtol=1e-5)


def test_squared_mmd_of_whole_sets_matches_the_reference():
    z = golden("kid_mmd")
    value = kernel.squared_mmd(z["in/features1"], z["in/features2"])
    np.testing.assert_allclose(value, z["out64/mmd_full_poly_unbiased"], rtol=1e-6)


def test_squared_mmd_of_unequal_sets_is_the_sum_over_pairs():
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(4, 3)), rng.normal(1, 1, size=(6, 3))

    def mean(a, b, skip):
        pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if not (skip and i == j)]
        return np.mean([(a[i] @ b[j] / 3 + 1) ** 3 for i, j in pairs])

    expected = mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)
    np.testing.assert_allclose(kernel.squared_mmd(x, y), expected, rtol=1e-12)


def test_subsets_larger_than_a_set_are_clipped_to_the_smaller():
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(20, 3)), rng.normal(size=(12, 3))
    index_x, index_y = kernel.draw_subsets(20, 12, subsets=3, subset_size=1000, seed=1)
    assert index_x.shape == index_y.shape == (3, 12)
    assert all(len(set(row)) == 12 for row in [*index_x, *index_y])
    assert np.isfinite(metrics.kernel_distance(x, y, subsets=3)).all()


@pytest.mark.parametrize("arguments", [{"subsets": 0}, {"subset_size": 1}])
def test_kernel_distance_without_subsets_is_refused(arguments):
    with pytest.raises(UserError, match="at least 1 subset"):
        metrics.kernel_distance(np.ones((5, 2)), np.ones((5, 2)), **arguments)
    with pytest.raises(UserError, match="evaluate more images"):
        metrics.kernel_distance(np.ones((1, 2)), np.ones((5, 2)))


# Nearest neighbours

@pytest.mark.parametrize("k", [3, 5, 10])
def test_neighbourhoods_match_prdc_exactly(k):
    z = golden("prdc")
    result = metrics.neighbourhoods(z["in/real"], z["in/fake"], k=k)
    for name, value in result._asdict().items():
        np.testing.assert_allclose(value, z[f"out64/prdc_k{k}_{name}"], rtol=1e-12)


@pytest.mark.parametrize("k", [3, 5, 10])
def test_inclusive_neighbourhoods_match_torch_fidelity(k):
    z = golden("prdc")
    result = metrics.neighbourhoods(z["in/real"], z["in/fake"], k=k, inclusive=True)
    np.testing.assert_allclose(result.precision, z[f"out64/torchfid_k{k}_precision"], rtol=1e-6)
    np.testing.assert_allclose(result.recall, z[f"out64/torchfid_k{k}_recall"], rtol=1e-6)


def brute_force(real, fake, k):
    def distance(a, b):
        return np.sqrt(np.sum((a - b) ** 2))

    def radius(x, i):
        return sorted(distance(x[i], x[j]) for j in range(len(x)) if j != i)[k - 1]

    in_balls = np.array([[distance(r, f) < radius(real, i) for f in fake] for i, r in enumerate(real)])
    recalled = [any(distance(r, f) < radius(fake, j) for j, f in enumerate(fake)) for r in real]
    return in_balls.any(0).mean(), np.mean(recalled), in_balls.sum(0).mean() / k, in_balls.any(1).mean()


@pytest.mark.parametrize("entries", [1, 50, 2**23])
def test_blocks_of_any_size_agree_with_brute_force(entries, monkeypatch):
    monkeypatch.setattr(neighbours, "BLOCK_ENTRIES", entries)
    rng = np.random.default_rng(7)
    real, fake = 100 + rng.normal(size=(17, 3)), 100 + rng.normal(0.5, 1, size=(23, 3))
    result = metrics.neighbourhoods(real, fake, k=2)
    np.testing.assert_allclose(result, brute_force(real, fake, 2), rtol=1e-12)


def test_border_counts_only_where_it_is_included():
    real = np.array([[0.0], [1.0], [3.0]])  # radii at k = 1: 1, 1, 2
    fake = np.array([[-1.0], [9.0]])        # the first is on the border of the ball around 0; radii 10, 10
    assert metrics.neighbourhoods(real, fake, k=1).precision == 0.0
    assert metrics.neighbourhoods(real, fake, k=1, inclusive=True) == (0.5, 1.0, 0.5, 1 / 3)


def test_copies_of_the_reals_are_perfect():
    real = np.random.default_rng(8).normal(size=(60, 4))
    result = metrics.neighbourhoods(real, real.copy())
    assert result.precision == result.recall == result.coverage == 1.0


def test_too_few_neighbours_are_refused():
    x = np.random.default_rng(9).normal(size=(5, 2))
    with pytest.raises(UserError, match="expected 1 <= k < 5"):
        metrics.neighbourhoods(x, x, k=5)
    with pytest.raises(UserError, match="of one D"):
        metrics.neighbourhoods(x, x[:, :1], k=2)


# Scores of a classifier

@pytest.mark.parametrize("splits", [1, 5, 10])
@pytest.mark.parametrize("shuffle", [0, 1])
def test_inception_score_matches_the_reference(splits, shuffle):
    z = golden("is")
    mean, std = metrics.inception_score(z["in/logits"], splits=splits, seed=2020 if shuffle else None)
    case = f"splits{splits}_shuffle{shuffle}"
    np.testing.assert_allclose(mean, z[f"out64/is_mean_{case}"], rtol=1e-6)
    np.testing.assert_allclose(std, z[f"out64/is_std_{case}"], rtol=1e-6, atol=1e-12)


def test_inception_score_bounds():
    sure = np.kron(np.eye(4), np.ones((5, 1))) * 1000.0  # four classes evenly: the score is their number
    np.testing.assert_allclose(metrics.inception_score(sure, splits=1), (4.0, 0.0), atol=1e-12)
    np.testing.assert_allclose(metrics.inception_score(np.zeros((20, 4)), splits=2), (1.0, 0.0), atol=1e-12)
    with pytest.raises(UserError, match="3 images in 10 splits"):
        metrics.inception_score(np.zeros((3, 4)))


def test_shares_confidence_and_agreement():
    logits = np.log([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8]]) + 5.0
    np.testing.assert_allclose(metrics.class_shares(logits, 3), [2 / 3, 0, 1 / 3])
    np.testing.assert_allclose(metrics.class_shares(np.exp(logits), 3), [2 / 3, 0, 1 / 3])
    np.testing.assert_allclose(metrics.confidence(logits), 0.7, rtol=1e-12)
    np.testing.assert_allclose(metrics.agreement(logits, [0, 1, 2]), 2 / 3)
    np.testing.assert_allclose(np.exp(scores.log_softmax([[1e4, -1e4]])), [[1, 0]])
    with pytest.raises(UserError, match="expected"):
        metrics.class_shares(logits, 10)
