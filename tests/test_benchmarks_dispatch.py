"""The benchmark of several steps a call: its smoke form, and what a repeat holds."""

import json

import pytest

from benchmarks import dispatch
from gan_jax import runs


@pytest.fixture(autouse=True)
def shallow(monkeypatch):
    """Digits are played by few layers, which halves what is compiled."""
    load = runs.load_config
    few = [("generator.features", "(4,)"), ("generator.strides", "(8,)"), ("discriminator.features", "(4,)"),
           ("discriminator.strides", "(8,)")]  # fmt: skip

    def load_config(path, overrides=()):
        return load(path, [*overrides, *(few if "digits_dcgan" in path else ())])

    monkeypatch.setattr(runs, "load_config", load_config)


def test_smoke_times_every_way(tmp_path, capsys):
    out = tmp_path / "dispatch.json"
    assert dispatch.main(["--smoke", f"--out={out}"]) == 0
    cases = json.loads(out.read_text())["cases"]
    keys = ("steps_per_call", "resident_data")
    ways = {name: [tuple(way[key] for key in keys) for way in case["ways"]] for name, case in cases.items()}
    # A mixture is drawn while it is used, so that nothing can lie on the device.
    assert ways == {"mixture_gan": [(1, False), (2, False)],
                    "digits_dcgan:smoke": [(1, False), (2, False), (1, True), (2, True)]}  # fmt: skip
    printed = capsys.readouterr().out
    for case in cases.values():
        assert case["ways"][0]["ratio"]["all"] == [1.0]
        for way in case["ways"]:
            speed, microseconds = way["images_per_second"]["median"], way["microseconds_per_step"]["median"]
            assert speed * microseconds == pytest.approx(1e6 * case["batch_size"]) and f"{speed:.0f}" in printed


def test_units_are_whole_calls_and_cycles():
    """Two steps of a lazy penalty's cycle, four a call; both steps of each call are counted."""
    loop = dispatch.Loop("digits_dcgan:smoke", 4, True)
    try:
        assert loop.unit == 4 and loop.play(2) > 0
        assert loop.step == int(loop.state.step) == 8
    finally:
        loop.close()


@pytest.mark.parametrize("flag", ("--models=digits", "--counts=4", "--repeats=0"))
def test_wrong_flags_are_named(flag, capsys):
    assert dispatch.main([flag, "--out=never.json"]) == 2
    assert flag.split("=")[0] in capsys.readouterr().err
