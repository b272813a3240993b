"""The benchmark of enlarging: its smoke form, PyTorch's networks beside ours where PyTorch is, and what is refused."""

import importlib.util
import json

import numpy as np
import pytest

from benchmarks import enlarge
from gan_jax.errors import UserError

HAS_TORCH = importlib.util.find_spec("torch") is not None


def test_smoke_writes_what_was_measured(tmp_path, capsys):
    """With PyTorch's eager side where it is installed."""
    out = tmp_path / "enlarge.json"
    assert enlarge.main(["--smoke", f"--sides={'jax,eager' if HAS_TORCH else 'jax'}", f"--out={out}"]) == 0
    cases = json.loads(out.read_text())["cases"]
    assert [case["case"] for case in cases] == list(enlarge.CASES)
    for case in cases:
        entry = case["sides"]["jax"]
        assert entry["megapixels_per_second"]["median"] > 0 and entry["difference"] == 0 and "ratio" not in entry
        if HAS_TORCH:
            assert 0 < case["sides"]["eager"]["difference"] < 1e-5 and case["sides"]["eager"]["ratio"]["median"] > 0
    assert "compact  jax" in capsys.readouterr().out


def test_unequal_pictures_are_not_timed(monkeypatch):
    monkeypatch.setattr(enlarge, "_torch", lambda *_: lambda x: np.zeros((1, 48, 48, 3), np.float32))
    with pytest.raises(UserError, match="pictures differ: .*, at most 0.0001 is expected"):
        enlarge.measure(enlarge.SMOKE["compact"], ["jax", "eager"], 1)


@pytest.mark.parametrize(("flag", "message"), [
    ("--models=vgg", "--models=vgg: expected rrdb, compact, with commas between\n"),
    ("--sides=tf", "--sides=tf: expected jax, eager, compiled, with commas between\n"),
    ("--repeats=0", "--repeats=0: expected 1 or more\n"),
])  # fmt: skip
def test_a_wrong_flag_is_named(flag, message, capsys):
    assert enlarge.main([flag, "--out=never.json"]) == 2
    assert capsys.readouterr().err == message
