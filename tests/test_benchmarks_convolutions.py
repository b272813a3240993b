"""The benchmark of single convolutions: its smoke form, and that unequal results are not timed."""

import json

import pytest

from benchmarks import convolutions
from gan_jax.errors import UserError
from gan_jax.layers import im2col, winograd


def test_smoke_writes_what_was_measured(tmp_path, capsys):
    out = tmp_path / "results" / "convolutions.json"
    assert convolutions.main(["--smoke", f"--out={out}"]) == 0
    measured = json.loads(out.read_text())["shapes"]
    assert [(one["shape"]["kernel"], one["kind"]) for one in measured] == [
        (kernel, kind) for kernel in (4, 3) for kind in ("conv", "tconv", "wgrad")]
    for one in measured:
        plain, fewer, columns = (one[f"{way}_milliseconds"]["all"][0] for way in convolutions.WAYS)
        medians = [one["ratios"][way]["median"] for way in ("fewer", "columns")]
        assert medians == pytest.approx([plain / fewer, plain / columns]) and 0 < one["difference"] < 1e-5
        assert one["taken"] == "plain"  # so small ones are not worth it
    assert "2 x 8x8, 3 -> 4, 4x4 / 2" in capsys.readouterr().out


@pytest.mark.parametrize("way", [winograd, im2col])
def test_unequal_results_are_not_timed(monkeypatch, way):
    conv = way.conv
    monkeypatch.setattr(way, "conv", lambda *args, **kwargs: 1.0001 * conv(*args, **kwargs))
    with pytest.raises(UserError, match="conv: results differ by 1.*e-04"):
        convolutions.measure(convolutions.SMOKE[0], "conv", 1)


def test_a_wrong_flag_is_named(capsys):
    assert convolutions.main(["--repeats=0", "--out=never.json"]) == 2
    assert capsys.readouterr().err == "--repeats=0: expected 1 or more\n"
