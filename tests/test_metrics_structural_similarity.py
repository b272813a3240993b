"""PSNR, SSIM and MS-SSIM against values recorded from the packages that publish them, and closed forms."""

import pathlib

import numpy as np
import pytest

from gan_jax import metrics
from gan_jax.errors import UserError
from gan_jax.metrics import structural_similarity as similarity

GOLDEN = pathlib.Path(__file__).resolve().parent / "golden"


@pytest.fixture(scope="module")
def quality():
    with np.load(GOLDEN / "metric_image_quality.npz") as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="module")
def progan():
    with np.load(GOLDEN / "progan_swd_msssim.npz") as file:
        return {name: file[name] for name in file.files}


def pair(quality, crop):
    a, b = quality["in/a"], quality["in/b"]
    return (a, b) if crop == "full" else (a[:, :64, :60], b[:, :64, :60])


def recorded(quality, name):
    return quality[f"out64/{name}"]


@pytest.mark.parametrize("crop", ["full", "crop64x60"])
def test_psnr_and_ssim_match_three_packages(quality, crop):
    psnr, ssim = metrics.psnr(*pair(quality, crop)), metrics.ssim(*pair(quality, crop))
    np.testing.assert_allclose(psnr, recorded(quality, f"{crop}_skimage_psnr"), rtol=1e-12)
    np.testing.assert_allclose(psnr, recorded(quality, f"{crop}_torchmetrics_psnr"), rtol=1e-6)
    np.testing.assert_allclose(ssim, recorded(quality, f"{crop}_skimage_ssim_gaussian_wang"), rtol=1e-12)
    np.testing.assert_allclose(ssim, recorded(quality, f"{crop}_pytorch_msssim_ssim"), rtol=1e-6)  # a float32 window


def test_psnr_and_ssim_match_tensorflow(quality):
    np.testing.assert_allclose(metrics.psnr(*pair(quality, "full")), recorded(quality, "full_tf_psnr"), rtol=1e-6)
    np.testing.assert_allclose(metrics.ssim(*pair(quality, "full")), recorded(quality, "full_tf_ssim"), rtol=2e-6)


@pytest.mark.parametrize("border", [0, 4])
@pytest.mark.parametrize("channels", ["rgb", "y"])
def test_super_resolution_conventions_match_basicsr(quality, border, channels):
    options = {"crop_border": border, "luma": channels == "y"}
    for name in ("psnr", "ssim"):
        values = getattr(metrics, name)(*pair(quality, "full"), **options)
        np.testing.assert_allclose(values, recorded(quality, f"basicsr_crop{border}_{channels}_{name}"), rtol=1e-7)


def test_ms_ssim_matches_two_packages(quality):
    a, b = pair(quality, "full")  # a side of 184 comes to 23 on the fourth scale
    np.testing.assert_allclose(metrics.ms_ssim(a, b), recorded(quality, "full_pytorch_msssim_ms_ssim"), rtol=1e-6)
    mirrored = metrics.ms_ssim(a, b, odd="mirror")
    np.testing.assert_allclose(mirrored, recorded(quality, "full_tf_ms_ssim"), rtol=2e-6)


def test_progan_ms_ssim_matches_the_reference(progan):
    real, fake = (np.moveaxis(progan[f"in/images_{which}"], 1, 3) for which in ("real", "fake"))
    noisy = np.moveaxis(progan["in/images_noisy_first6"], 1, 3)
    # the recorded run convolves by FFT in float32, which shows in the seventh decimal
    for other, name in ((fake[:6], "fake"), (noisy, "noisy")):
        values = similarity.progan_ms_ssim(real[:6], other)
        np.testing.assert_allclose(values, progan[f"out64/ms_ssim_real_vs_{name}_each"], rtol=0, atol=2e-6)
    api = metrics.variation(fake).mean()
    np.testing.assert_allclose(api, progan["out64/ms_ssim_api_fake_pairs"], rtol=0, atol=1e-6)


def test_ssim_of_constant_images_is_the_luminance_term():
    a, b = np.full((1, 32, 32, 1), 100, np.uint8), np.full((1, 32, 32, 1), 120, np.uint8)
    c1 = 2.55**2
    expected = (2 * 100 * 120 + c1) / (100**2 + 120**2 + c1)
    np.testing.assert_allclose(metrics.ssim(a, b), expected, rtol=1e-9)
    np.testing.assert_allclose(similarity.progan_ms_ssim(a, b), expected**0.1333, rtol=1e-9)
    np.testing.assert_allclose(metrics.psnr(a, b), 20 * np.log10(255 / 20), rtol=1e-12)


def test_ssim_is_the_sum_over_one_window():
    a, b = np.random.default_rng(0).integers(0, 256, (2, 1, 11, 11, 1), dtype=np.uint8)
    weights = np.exp(-np.add.outer((np.arange(11) - 5.0) ** 2, (np.arange(11) - 5.0) ** 2) / 4.5)
    weights /= weights.sum()
    x, y = a[0, :, :, 0].astype(float), b[0, :, :, 0].astype(float)
    mx, my = np.sum(weights * x), np.sum(weights * y)
    vx, vy = np.sum(weights * (x - mx) ** 2), np.sum(weights * (y - my) ** 2)
    cross = np.sum(weights * (x - mx) * (y - my))
    c1, c2 = 2.55**2, 7.65**2
    expected = (2 * mx * my + c1) * (2 * cross + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    np.testing.assert_allclose(metrics.ssim(a, b), expected, rtol=1e-10)


@pytest.mark.parametrize("size", [1, 2, 8, 11])
def test_window_is_symmetric(size):
    weights = similarity.gaussian(size, 1.5)
    np.testing.assert_allclose(weights, weights[::-1])
    np.testing.assert_allclose(weights.sum(), 1)
    x = np.random.default_rng(1).normal(size=(12, 13, 2))
    expected = [[np.einsum("i,j,ijc->c", weights, weights, x[i:i + size, j:j + size]) for j in range(14 - size)]
                for i in range(13 - size)]
    np.testing.assert_allclose(similarity._blurred(x, weights), expected)


def test_equal_images_are_perfect():
    a = np.random.default_rng(2).integers(0, 256, (2, 162, 161, 3), dtype=np.uint8)
    assert np.isinf(metrics.psnr(a, a)).all()
    for odd in ("zeros", "mirror"):
        np.testing.assert_allclose(metrics.ms_ssim(a, a, odd=odd), 1, rtol=1e-12)
    np.testing.assert_allclose(metrics.ssim(a, a, luma=True), 1, rtol=1e-12)
    copies = np.repeat(a[:1, :16, :32], 4, axis=0)
    np.testing.assert_allclose(metrics.variation(copies), [1, 1], rtol=1e-12)


def test_luma_reaches_from_16_to_235():
    ends = np.array([0, 255], np.uint8)[:, None, None, None] * np.ones((1, 1, 1, 3), np.uint8)
    values = metrics.psnr(ends[:1], ends[1:], luma=True)
    np.testing.assert_allclose(values, 20 * np.log10(255 / 219), rtol=1e-6)


def test_other_images_are_refused():
    a = np.zeros((2, 32, 32, 3), np.uint8)
    for x, y in ((a, a[:, :31]), (a, a.astype(np.float32)), (a[0], a[0])):
        with pytest.raises(UserError, match="one shape"):
            metrics.psnr(x, y)
    with pytest.raises(UserError, match="three channels"):
        metrics.ssim(a[..., :1], a[..., :1], luma=True)
    with pytest.raises(UserError, match="^SSIM of images of 32x32 pixels, 11 cut.*11x11"):
        metrics.ssim(a, a, crop_border=11)
    with pytest.raises(UserError, match="^MS-SSIM of images of 32x32 pixels.*161x161"):
        metrics.ms_ssim(a, a)
    with pytest.raises(UserError, match="odd='edge'"):
        metrics.ms_ssim(a, a, odd="edge")
    with pytest.raises(UserError, match="multiples of 16"):
        similarity.progan_ms_ssim(a[:, :24], a[:, :24])
    with pytest.raises(UserError, match="even number"):
        metrics.variation(a[:1])


def test_l1_is_in_the_range_of_the_networks():
    """Black and white are 2 apart, one level of 255 is 2 / 255."""
    black, white = np.zeros((1, 4, 5, 3), np.uint8), np.full((1, 4, 5, 3), 255, np.uint8)
    assert metrics.l1(black, white).tolist() == [2.0]
    assert metrics.l1(white, white).tolist() == [0.0]
    np.testing.assert_allclose(metrics.l1(black, black + np.uint8(1)), 2 / 255)
