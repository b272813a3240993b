"""The benchmark of evaluation: its smoke form, what it writes, and that unequal sides are not timed."""

import importlib.util
import json

import numpy as np
import pytest

from benchmarks import metrics, metrics_sides
from gan_jax.errors import UserError

PACKAGES = tuple(name for name, (modules, _) in metrics.NEEDED.items() if all(map(importlib.util.find_spec, modules)))


def test_smoke_writes_what_was_measured(tmp_path, capsys):
    out = tmp_path / "results" / "metrics.json"
    assert metrics.main(["--smoke", f"--sides={','.join(('gan_jax', *PACKAGES))}", f"--out={out}"]) == 0
    report = json.loads(out.read_text())
    assert report["settings"]["smoke"] and report["settings"]["images"] == 4 and report["versions"]["jax"]
    stages = {(entry["stage"], entry["way"]): entry for entry in report["stages"]}
    assert {stage for stage, _ in stages} == set(metrics.STAGES)
    for (stage, _), entry in stages.items():
        measured = entry["sides"]["gan_jax"]["speed" if entry["batch"] else "time"]
        assert len(measured["all"]) == 1 and measured["low"] == measured["median"] == measured["high"] > 0
        assert entry["unit"] == ("seconds" if stage in metrics.DISTANCES else "images/s")
    assert report["peak_rss_mib"]["gan_jax"] > 50
    printed = capsys.readouterr().out
    assert all(stage in printed for stage in metrics.STAGES)
    for side in PACKAGES:
        assert max(report["differences"][side].values()) < 1e-3 and side in printed


@pytest.mark.skipif(bool(PACKAGES), reason="packages to compare with are installed")
def test_without_the_packages_a_line_each_tells_what_to_install(tmp_path, capsys):
    assert metrics.main(["--smoke", "--stages=frechet"]) == 0
    printed = capsys.readouterr().out
    for side in metrics.NEEDED:
        assert f"{side} is left out" in printed and f"pip install torch torchvision {side}" in printed


@pytest.mark.parametrize("flag", ("--sides=torch-fidelity", "--stages=fid", "--images=0", "--batches=3"))
def test_wrong_flags_are_named(flag, capsys):
    assert metrics.main([flag, "--out=never.json"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and flag in error


def test_sides_that_differ_are_not_timed():
    ours = {"resize": np.ones((2, 3)), "kid_mean": 1.0}
    assert metrics._differences(ours, {"resize": np.full((2, 3), 1 + 1e-6)})["resize"] == pytest.approx(1e-6, rel=1e-3)
    with pytest.raises(UserError, match="resize: the sides differ by 1.0e-04"):
        metrics._differences(ours, {"resize": np.full((2, 3), 1 + 1e-4)})
    with pytest.raises(UserError, match="kid_mean"):
        metrics._differences(ours, {"kid_mean": 1.01})


def test_images_and_features_are_what_they_are_said_to_be():
    """Bilinear between random corners; variances of features fall as 1 / i."""
    images = metrics_sides.images(2, 32, 0)
    corners = np.random.default_rng(0).uniform(0, 255, (2, 17, 17, 3))
    np.testing.assert_array_equal(images[:, ::2, ::2], np.rint(corners[:, :16, :16]))
    between = (corners[:, 1:16, :16] + corners[:, :15, :16]) / 2
    np.testing.assert_array_equal(images[:, 1:31:2, ::2], np.rint(between))
    work = metrics_sides.Work(4, 24, "64", 4000, 6, 3, 20, 2, 1, None)
    first, second = metrics_sides.features(work)
    total = np.var(first, 0).sum()
    assert first.shape == (4000, 6) and np.var(second, 0).sum() == pytest.approx(1.21 * total, rel=0.1)
