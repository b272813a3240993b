"""Metrics of pairs of a run: what its samples are beside what they are to be, and the classical methods."""

import numpy as np
import pytest

from gan_jax import evaluate, metrics, parallel, runs, sample
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
    held_out = runs.open_data(run.config, "test[:20]").examples(np.arange(20))
    ema = parallel.replicate(runs.fresh_state(run).ema, parallel.make_mesh())
    keys = sample.keys_from(run.config.seed, "evaluation", np.arange(20))
    drawn = sample.sampler(run)(ema, keys, {"source": held_out["source"]})
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
    held_out = runs.open_data(digits[1].config, "test[:20]").examples(np.arange(20))
    assert rows["l1/copy"]["value"] == pytest.approx(metrics.l1(held_out["source"], held_out["image"]).mean())
    assert rows["l1/ridge"]["value"] < 0.5 * rows["l1/copy"]["value"]
    assert rows["label_agreement/ridge"]["value"] > 0.7
    assert not [name for name in rows if name.startswith("class_share") and name.endswith(("/copy", "/ridge"))]
    assert rows["l1/ridge"]["better"] == "lower" and rows["l1/ridge"]["pairs"] == 20


def test_lpips_of_a_run_is_that_of_its_pairs(digits, monkeypatch):
    """With a distance of our own in the network's place, which is told by the row."""
    def apply(variables, a, b):
        return abs(a.astype("float32") - b).max((1, 2, 3)) * variables["one"]

    net = networks.FeatureNet("lpips_alex", "0" * 64, True, "none", {}, {"one": np.float32(1)}, apply)
    monkeypatch.setitem(lpips.LEAST, "alex", 16)  # AlexNet itself takes none as small
    monkeypatch.setattr(networks, "perceptual", lambda name, section: net)
    rows = {row["metric"]: row for row in evaluate.evaluate(digits[0], metrics="lpips_alex")}
    held_out = runs.open_data(digits[1].config, "test[:20]").examples(np.arange(20))
    largest = np.abs(held_out["source"].astype(float) - held_out["image"]).max((1, 2, 3)).mean()
    assert rows["lpips_alex/copy"]["value"] == pytest.approx(largest)
    assert (rows["lpips_alex"]["features"], rows["lpips_alex"]["better"]) == ("lpips_alex", "lower")


def test_images_that_are_too_small_are_refused_before_they_are_drawn(digits):
    with pytest.raises(UserError, match="metrics=ms_ssim: of images 16x16; expected 161x161 or larger"):
        evaluate.measurer(digits[1], names=("ms_ssim",))


def test_psnr_is_over_pairs_that_are_not_equal():
    images = np.random.default_rng(0).integers(0, 256, (20, 12, 12, 3), dtype=np.uint8)
    targets = pairs.Targets(20, lambda numbers: images[numbers], {"data": "x"})
    compared = pairs.Pairs("psnr", None, targets)
    compared.update(images[:10])
    compared.update(images[10:] // 2)
    value, beside = compared.finish()
    assert value == pytest.approx(metrics.psnr(images[10:] // 2, images[10:]).mean())
    assert beside == {"data": "x", "pairs": 20, "unit": "dB", "equal_pairs": 10}


def test_a_game_without_targets_has_none():
    config = settings.digits()
    with pytest.raises(UserError, match="metrics=l1: compares two folders, .* 'unconditional' has nothing such"):
        protocols.wanted(config, ("l1",))
