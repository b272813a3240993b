"""A short run of the fuzz of each reader, its corpus, and that it finds what is there to be found."""

import json
import pathlib
import signal
import sys

import numpy as np
import pytest

from benchmarks import fuzz, fuzz_inputs
from gan_jax.errors import UserError

LINUX = pathlib.Path("/proc/self/clear_refs").exists()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("reader", fuzz.READERS)
def test_the_first_inputs_of_each_reader_and_its_corpus(reader):
    corpus = fuzz.corpus_of(fuzz.CORPUS, reader)
    outcomes = list(fuzz.play(reader, 0, -len(corpus), 200, corpus))
    assert len(outcomes) == 200 + len(corpus)
    assert not [outcome for outcome in outcomes if outcome.finding]
    kinds = [outcome.kind for outcome in outcomes]
    assert kinds.count("value") >= 10 and kinds.count("refused") >= 10


def test_the_corpus_is_small():
    files = [path for path in fuzz.CORPUS.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} <= set(fuzz.READERS) and all(path.suffix == ".bin" for path in files)
    assert sum(path.stat().st_size for path in files) < 30_000


@pytest.mark.parametrize("kind", fuzz_inputs.KINDS)
def test_a_number_is_an_input(kind):
    first, again = (fuzz.content(kind, 3, 7, []) for _ in range(2))
    assert first == again != fuzz.content(kind, 3, 8, [])


def _raising(error: BaseException):
    def fail():
        raise error

    return lambda path: iter([lambda: None, fail])


def _from_memory():
    try:
        raise MemoryError
    except MemoryError as error:
        raise UserError("x.bin: damaged") from error


@pytest.mark.parametrize(("reader", "finding"), [
    (_raising(KeyError("a")), "KeyError in test_benchmarks_fuzz.py:"),
    (_raising(UserError("two\nlines")), "a message that is not one line"),
    (_raising(UserError("\x1b")), "a message that is not one line"),
    (_raising(SystemExit(1)), "SystemExit in"), (lambda path: iter([_from_memory]), "MemoryError in"),
    pytest.param(lambda path: iter([lambda: np.ones(15_000_000).sum()]), "MiB of memory",
                 marks=pytest.mark.skipif(not LINUX, reason="the system does not tell a peak of memory")),
    (_raising(UserError("x.bin: damaged")), ""),
])  # fmt: skip
def test_what_is_a_finding(monkeypatch, reader, finding):
    monkeypatch.setitem(fuzz.READERS, "npz", reader)
    (outcome,) = fuzz.play("npz", 0, 0, 1, [])
    assert (outcome.kind == "finding") == bool(finding)
    assert finding in outcome.finding if finding else outcome.finding == ""


def test_limits_are_lowered_for_the_run_alone():
    before = [getattr(room, name) for room, name in fuzz.LOWERED]
    with fuzz.lowered():
        assert [getattr(room, name) for room, name in fuzz.LOWERED] == list(fuzz.LOWERED.values())
    assert [getattr(room, name) for room, name in fuzz.LOWERED] == before


@pytest.mark.skipif(not LINUX, reason="the process is limited as Linux does it")
def test_smoke_writes_what_was_read(tmp_path, capsys):
    (tmp_path / "corpus" / "npz").mkdir(parents=True)
    (tmp_path / "corpus" / "npz" / "0.bin").write_bytes(b"no zip")
    out = tmp_path / "fuzz.json"
    assert fuzz.main(["--smoke", "--readers=npz", f"--corpus={tmp_path / 'corpus'}", f"--out={out}"]) == 0
    report = json.loads(out.read_text())
    assert report["benchmark"] == "fuzz" and {"numpy", "pillow", "safetensors"} <= report["versions"].keys()
    one = report["readers"]["npz"]
    assert one["inputs"] == one["values"] + one["refused"] == 31 and one["of_corpus"] == 1 and one["findings"] == []
    assert "npz" in capsys.readouterr().out


def test_a_process_that_ends_is_a_finding_and_its_input_is_kept(tmp_path, monkeypatch):
    """It reads one input, and is ended by the timer while it reads the second."""
    code = (f"import os, signal; print({json.dumps(json.dumps(fuzz.Outcome(0, 'value')))}, flush=True); "
            "os.kill(os.getpid(), signal.SIGPROF)")  # fmt: skip
    monkeypatch.setattr(fuzz, "_command", lambda reader, flags, first: [sys.executable, "-c", code])
    flags = fuzz._flags(["--repeats=2", f"--corpus={tmp_path}", "--out=never.json"])
    result = fuzz.fuzz("npz", flags, 1.0)
    (finding,) = result["findings"]
    assert result["inputs"] == 2 and finding["number"] == 1 and signal.SIGPROF.name in finding["finding"]
    assert (tmp_path / "npz" / finding["file"]).read_bytes() == fuzz.content("npz", 0, 1, [])


@pytest.mark.parametrize("flag", ("--readers=npz,gif", "--repeats=-1", "--minutes=0"))
def test_wrong_flags_are_named(flag, capsys):
    assert fuzz.main([flag, "--out=never.json"]) == 2
    assert flag in capsys.readouterr().err
