"""Metrics of pairs of a run: what its samples are beside what they are to be, and the classical methods."""

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from gan_jax import evaluate, metrics, painter, parallel, run_data, runs
from gan_jax.errors import UserError
from gan_jax.evaluate import pairs, protocols
from gan_jax.features import lpips, networks
from tests import settings

SAMPLES = 24


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A run before its first step, with few held-out examples."""
    folder = tmp_path_factory.mktemp("pairs") / "run"
    config = runs.load_config(f"{settings.EXPERIMENTS / 'digits_pix2pix.py'}:smoke", [
        ("evaluation.samples", str(SAMPLES)), ("evaluation.split", "test[:20]"),
        ("evaluation.metrics", "('l1','psnr','ssim','classes')"),
    ])  # fmt: skip
    return folder, settings.fresh_folder(config, folder)


@pytest.fixture(scope="module")
def rows(digits):
    return {row["metric"]: row for row in evaluate.evaluate(digits[0])}


def test_values_are_means_over_the_held_out_pairs_each_once(digits, rows):
    """Of the samples that the sampler draws from the same keys and sources; there are fewer pairs than samples."""
    _, run = digits
    held_out = run_data.open_data(run.config, "test[:20]").examples(np.arange(20))
    ema = parallel.replicate(runs.fresh_state(run).ema, parallel.make_mesh())
    keys = painter.keys_from(run.config.seed, "evaluation", np.arange(20))
    drawn = painter.sampler(run)(ema, keys, {"source": held_out["source"]})
    a, b = drawn.astype(np.float64) / 127.5, held_out["image"].astype(np.float64) / 127.5
    assert rows["l1"]["value"] == pytest.approx(np.abs(a - b).mean(), rel=1e-3)
    assert rows["psnr"]["value"] == pytest.approx(10 * np.log10(4 / np.square(a - b).mean((1, 2, 3))).mean(), rel=1e-3)
    assert rows["ssim"]["value"] == pytest.approx(metrics.ssim(drawn, held_out["image"]).mean(), rel=1e-3, abs=1e-4)
    for name, better in (("l1", "lower"), ("psnr", "higher"), ("ssim", "higher")):
        row = rows[name]
        assert (row["pairs"], row["better"], row["split"], row["data"]) == (20, better, "test[:20]", "digits:outlines")
        assert len(row["data_fingerprint"]) == 64
    assert rows["psnr"]["unit"] == "dB"


def test_classical_methods_stand_beside(digits, rows):
    """The copy by definition; a linear map is better than it, and keeps more classes."""
    held_out = run_data.open_data(digits[1].config, "test[:20]").examples(np.arange(20))
    assert rows["l1/copy"]["value"] == pytest.approx(metrics.l1(held_out["source"], held_out["image"]).mean())
    assert rows["l1/ridge"]["value"] < 0.5 * rows["l1/copy"]["value"]
    assert rows["label_agreement/ridge"]["value"] > 0.7
    assert not [name for name in rows if name.startswith("class_share") and name.endswith(("/copy", "/ridge"))]
    assert rows["l1/ridge"]["better"] == "lower" and rows["l1/ridge"]["pairs"] == 20


def test_lpips_of_clips_of_more_frames_than_a_batch():
    """A distance that is the pair's first pixels' product, of three clips of 37 frames."""
    def apply(variables, a, b):
        return variables["one"] * a[:, 0, 0, 0].astype(np.float32) * b[:, 0, 0, 0].astype(np.float32)

    net = networks.FeatureNet("lpips_alex", "0" * 64, True, "none", {}, {"one": np.float32(1)}, apply)
    a, b = np.random.default_rng(0).integers(0, 256, (2, 3, 37, 4, 4, 1), np.uint8)
    metric = pairs.Pairs("lpips_alex", net, pairs.Targets(3, lambda places: b[places], {}), 0)
    metric.update(a)
    value, beside = metric.finish()
    products = a[:, :, 0, 0, 0].astype(float) * b[:, :, 0, 0, 0]
    assert value == pytest.approx(products.mean(), rel=1e-5)
    np.testing.assert_allclose(beside["by_frame"], products.mean(0), rtol=1e-5)


def test_lpips_of_a_run_is_that_of_its_pairs(digits, monkeypatch):
    """With a distance of our own in the network's place, which is told by the row."""
    def apply(variables, a, b):
        return abs(a.astype("float32") - b).max((1, 2, 3)) * variables["one"]

    net = networks.FeatureNet("lpips_alex", "0" * 64, True, "none", {}, {"one": np.float32(1)}, apply)
    monkeypatch.setitem(lpips.LEAST, "alex", 16)  # AlexNet itself takes none as small
    monkeypatch.setattr(networks, "perceptual", lambda name, section: net)
    rows = {row["metric"]: row for row in evaluate.evaluate(digits[0], metrics="lpips_alex")}
    held_out = run_data.open_data(digits[1].config, "test[:20]").examples(np.arange(20))
    largest = np.abs(held_out["source"].astype(float) - held_out["image"]).max((1, 2, 3)).mean()
    assert rows["lpips_alex/copy"]["value"] == pytest.approx(largest)
    assert (rows["lpips_alex"]["features"], rows["lpips_alex"]["better"]) == ("lpips_alex", "lower")


def test_images_that_are_too_small_are_refused_before_they_are_drawn(digits):
    with pytest.raises(UserError, match="metrics=ms_ssim: of images 16x16; expected 161x161 or larger"):
        evaluate.measurer(digits[1], names=("ms_ssim",))


def test_psnr_is_over_pairs_that_are_not_equal():
    images = np.random.default_rng(0).integers(0, 256, (20, 12, 12, 3), dtype=np.uint8)
    targets = pairs.Targets(20, lambda numbers: images[numbers], {"data": "x"})
    compared = pairs.Pairs("psnr", None, targets, 0)
    compared.update(images[:10])
    compared.update(images[10:] // 2)
    value, beside = compared.finish()
    assert value == pytest.approx(metrics.psnr(images[10:] // 2, images[10:]).mean())
    assert beside == {"data": "x", "pairs": 20, "unit": "dB", "channels": "RGB", "border": 0, "peak": 255,
                      "equal_pairs": 10}  # fmt: skip


def test_a_game_without_targets_has_none():
    config = settings.digits()
    with pytest.raises(UserError, match="metrics=l1: compares two folders, .* 'unconditional' has nothing such"):
        protocols.wanted(config, ("l1",))


def _luma(images):
    """MATLAB's rgb2ycbcr of uint8 pictures, not rounded: the first channel."""
    return (images / 255.0 * [65.481, 128.553, 24.966]).sum(-1) + 16


@pytest.fixture(scope="module")
def colours():
    """Five pictures, and the same with noise on them, of which one has much."""
    rng = np.random.default_rng(3)
    smooth = rng.integers(40, 200, (5, 5, 6, 3)).repeat(5, 1).repeat(4, 2)
    images = (smooth + rng.integers(-9, 9, smooth.shape)).astype(np.uint8)
    noise = rng.normal(0, 6, images.shape) * np.array([1, 1, 1, 1, 5]).reshape(5, 1, 1, 1)
    return images, np.clip(images + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", protocols.BORDERED)
def test_values_of_super_resolution_are_those_of_papers(name, colours):
    """Without three pixels at each side; Y of MATLAB, SSIM of scikit-image with Wang's settings, one pooled PSNR."""
    targets, images = colours
    x, y = (_luma(a) if name.endswith("_y") else a.astype(float) for a in (images, targets))
    x, y = x[:, 3:-3, 3:-3], y[:, 3:-3, 3:-3]
    options = dict(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255)
    options |= {} if name.endswith("_y") else {"channel_axis": -1}
    squares = ((x - y) ** 2).reshape(5, -1).mean(1)
    expected = {
        "psnr": (10 * np.log10(255**2 / squares)).mean(),
        "pooled_psnr": 10 * np.log10(255**2 / squares.mean()),
        "ssim": np.mean([structural_similarity(a, b, **options) for a, b in zip(x, y, strict=True)]),
    }[name.removesuffix("_y")]
    compared = pairs.Pairs(name, None, pairs.Targets(5, lambda n: targets[n], {}), 3)
    compared.update(images)
    value, beside = compared.finish()
    assert value == pytest.approx(expected, rel=1e-9)
    assert beside.pop("unit", "") == ("dB" if "psnr" in name else "")
    channels = "Y of BT.601, 16 to 235" if name.endswith("_y") else "RGB"
    assert beside == {"pairs": 5, "channels": channels, "border": 3, "peak": 255}


def test_other_metrics_of_pairs_see_the_border(colours):
    targets, images = colours
    compared = pairs.Pairs("l1", None, pairs.Targets(5, lambda n: targets[n], {}), 3)
    compared.update(images)
    value, beside = compared.finish()
    assert value == pytest.approx(metrics.l1(images, targets).mean()) and beside == {"pairs": 5}


def test_equal_folders_have_no_pooled_psnr(colours):
    compared = pairs.Pairs("pooled_psnr", None, pairs.Targets(5, lambda n: colours[0][n], {}), 0)
    compared.update(colours[0])
    assert compared.finish()[0] is None


def test_border_and_channels_of_a_run(digits):
    """Its rows name both, as do those of the classical methods."""
    folder, _ = digits
    rows = {row["metric"]: row for row in evaluate.evaluate(folder, metrics="psnr", settings={"border": "2"})}
    assert rows["psnr"]["border"] == rows["psnr/copy"]["border"] == 2
    assert rows["psnr"]["channels"] == "grey"
    held_out = run_data.open_data(digits[1].config, "test[:20]").examples(np.arange(20))
    squares = np.square(held_out["source"].astype(float) - held_out["image"])[:, 2:-2, 2:-2].mean((1, 2, 3))
    assert rows["psnr/copy"]["value"] == pytest.approx((10 * np.log10(255**2 / squares)).mean())


@pytest.mark.parametrize(("names", "border", "message"), [
    (("psnr_y",), 0, "psnr_y: of images with 1 channel; Y is that of RGB: list psnr, or"),
    (("ssim",), 3, "ssim: of images 16x16; expected 17x17 or larger, with a border of 3"),
    (("psnr",), -1, "config.evaluation.border=-1; expected 0 or more"),
])  # fmt: skip
def test_pairs_that_cannot_be_compared(digits, names, border, message):
    config = runs.load_config(f"{settings.EXPERIMENTS / 'digits_pix2pix.py'}:smoke", [
        ("evaluation.border", str(border)), ("evaluation.split", "test[:20]")])  # fmt: skip
    with pytest.raises(UserError, match=message):
        evaluate.measurer(digits[1]._replace(config=config), names=names)


def test_sharpness_stands_beside_that_of_the_reals(digits):
    """The mean of both directions' differences of neighbours; classical methods have their own."""
    rows = {row["metric"]: row for row in evaluate.evaluate(digits[0], metrics="sharpness")}
    held_out = run_data.open_data(digits[1].config, "test[:20]").examples(np.arange(20))

    def expected(images):
        images = images.astype(float)
        across, down = images[:, :, 1:] - images[:, :, :-1], images[:, 1:] - images[:, :-1]
        return (np.abs(across).mean() + np.abs(down).mean()) / 2

    source = held_out["source"][np.arange(SAMPLES) % 20]
    assert rows["sharpness/copy"]["value"] == pytest.approx(expected(source))
    assert all(row["value_of_reals"] == pytest.approx(expected(held_out["image"])) for row in rows.values())
    assert rows["sharpness"]["better"] == "nearer the reals" and rows["sharpness"]["split"] == "test[:20]"
    assert f"(reals {expected(held_out['image']):.4f})" in evaluate.table(list(rows.values()))


def test_sharpness_of_a_ramp():
    ramp = np.arange(0, 40, 4, dtype=np.uint8).reshape(1, 1, 10, 1).repeat(3, 1)
    assert metrics.sharpness(ramp) == pytest.approx([2.0])
    with pytest.raises(UserError, match="sharpness of images float32"):
        metrics.sharpness(ramp / np.float32(2))
