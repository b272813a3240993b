"""The benchmark of the input: its smoke form, what it writes, and that each way reads as it says."""

import argparse
import io
import json

import numpy as np
import pytest
from PIL import Image

from benchmarks import input as inputs  # `input` is Python's own
from gan_jax.data import readers


def _case(side: int, speed: float) -> dict:
    return {"shape": [side, side, 3], "jax": {"images_per_second": {"median": speed}}}


def test_smoke_writes_what_was_measured(tmp_path, capsys):
    steps = tmp_path / "steps.json"
    cases = {"slow": _case(32, 1e-6), "fast": _case(32, 1e12), "other": _case(48, 1.0)}
    steps.write_text(json.dumps({"models": cases}))
    out = tmp_path / "results" / "input.json"
    assert inputs.main(["--smoke", f"--steps={steps}", f"--out={out}"]) == 0
    report = json.loads(out.read_text())
    assert report["benchmark"] == "input" and report["settings"]["smoke"] and report["settings"]["batch"] == 4
    assert {"numpy", "pillow", "grain", "python"} <= report["versions"].keys()
    assert len(report["load_average"]["before"]) == len(report["load_average"]["after"]) == 3

    rows = {(row["way"], row["resolution"]): row for row in report["rows"]}
    assert set(rows) == {(way, side) for way in inputs.WAYS for side in (32, 64)}
    for (way, side), row in rows.items():
        ((images, delivered, seconds),) = zip(row["images"], row["bytes"], row["seconds"], strict=True)
        assert images > 0 and delivered == images * side * side * 3
        assert images == 16 if way.endswith("packing") else images % 4 == 0
        assert row["images_per_second"]["all"] == [pytest.approx(images / seconds)]
        assert row["mib_per_second"]["median"] == pytest.approx(delivered / seconds / 2**20)
        assert set(row["supply"]) == ({"slow", "fast"} if side == 32 and not way.endswith("packing") else set())
    speed = rows["packed", 32]["images_per_second"]["median"]
    assert rows["packed", 32]["supply"] == {"slow": pytest.approx(speed * 1e6), "fast": pytest.approx(speed * 1e-12)}
    assert report["bar"]["needed"] == 2.0 and report["bar"]["kept"] == {"slow": True, "fast": False}
    summary = report["sets"]["64"]
    assert summary["images"] == 16 and summary["decoded_bytes"] == 16 * 64 * 64 * 3
    assert summary["png_bytes"] == sum(len(inputs.png(index, 64)) for index in range(16))
    printed = capsys.readouterr().out
    assert f"{speed:.1f}" in printed and "NOT for fast" in printed


def test_images_are_noisy_drawings():
    data = inputs.png(3, 64)
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (64, 64))
        pixels = np.asarray(image)
    assert data != inputs.png(4, 64) and data == inputs.png(3, 64)
    assert 0.4 < len(data) / pixels.nbytes < 0.8
    steps = np.abs(np.diff(pixels.astype(int), axis=0))  # noise of 16 levels nearly everywhere: nothing wraps around
    assert np.median(steps) < 16 and (steps > 200).mean() < 0.01


def test_each_way_reads_as_it_says(tmp_path, monkeypatch):
    """Which reader streams, and that its images are those of the files."""
    used, pngs = [], [inputs.png(index, 16) for index in range(4)]
    for reader in (readers.Packed, readers.Live):
        batches = reader.batches

        def spy(self, *arguments, batches=batches):
            used.append(type(self).__name__)
            return batches(self, *arguments)

        monkeypatch.setattr(reader, "batches", spy)
    sets = {"folder": inputs.write_folder(tmp_path, pngs), "tfds": inputs.write_tfds(tmp_path, pngs)}
    flags = argparse.Namespace(batch=4, seconds=1e-9, smoke=True, to_device=True)
    expected = sorted(np.asarray(Image.open(io.BytesIO(data))).tobytes() for data in pngs)
    seen = []
    monkeypatch.setattr(inputs, "_device_put", lambda: lambda batch: seen.append(batch["image"]) or batch)
    for way, reader in (("folder decoded", "Live"), ("tfds decoded", "Live"), ("packed", "Packed")):
        section = {**sets["tfds" if "tfds" in way else "folder"], "resolution": 16, "channels": 3}
        repeat = inputs.streaming(way, section, tmp_path, flags)
        assert used.pop() == reader and not used
        assert sorted(image.tobytes() for image in seen.pop()) == expected and not seen  # one epoch
        assert (repeat.images, repeat.bytes) == (4, 4 * 16 * 16 * 3) and repeat.seconds > 0
    packed = inputs.packing({**sets["tfds"], "resolution": 16, "channels": 3}, tmp_path)
    assert (packed.images, packed.bytes) == (4, 4 * 16 * 16 * 3)
    assert not list(tmp_path.glob("cache_*"))


def test_batches_reach_the_devices(tmp_path):
    section = {**inputs.write_folder(tmp_path, [inputs.png(0, 16)]), "resolution": 16, "channels": 3}
    flags = argparse.Namespace(batch=8, seconds=1e-9, smoke=True, to_device=True)
    assert inputs.streaming("packed", section, tmp_path, flags).bytes == 8 * 16 * 16 * 3


def test_without_measured_steps_the_comparison_is_empty(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "STEPS", tmp_path / "none.json")
    assert inputs.consumption(None) == {}
    assert "compares with none" in inputs.verdict(inputs.bar([{"way": "packed", "supply": {}}]))


@pytest.mark.parametrize(
    "flag", ("--resolutions=32,0", "--batch=0", "--repeats=0", "--seconds=0.0", "--steps=nowhere.json")
)
def test_wrong_flags_are_named(flag, capsys):
    assert inputs.main([flag, "--out=never.json"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and flag in error
