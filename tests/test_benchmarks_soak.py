"""The soak: its smoke form harms a run, and it sees what it is there to see."""

import json
import os
import random
import re
import signal
import time
from collections import Counter
from types import SimpleNamespace

import pytest

from benchmarks import soak, soak_chain, soak_harms, soak_run
from benchmarks.soak_harms import KINDS, PHASES, Fault, Harm
from gan_jax import logs
from gan_jax.errors import UserError
from tests import settings


def test_smoke_harms_a_run_and_writes_what_became_of_it(tmp_path, capsys):
    out = tmp_path / "results" / "soak.json"
    assert soak.main(["--smoke", f"--out={out}"]) == 0, capsys.readouterr().out
    report = json.loads(out.read_text())
    assert report["benchmark"] == "soak" and report["settings"]["smoke"] and report["settings"]["processes"] == [1]
    assert report["outcomes"]["fault"] == 0 and sum(report["outcomes"].values()) == report["kills"]
    events = {event["kind"]: event for event in report["events"]}
    missed = {text.partition(",")[0] for text in report["not_reached"]}  # where this machine is busy
    assert {"SIGKILL", "SIGTERM"} & events.keys()
    assert events.keys() | missed == {"SIGKILL", "SIGTERM", "checkpoint truncated", "log's disk full"}
    for kind, event in events.items():
        assert event["fell_in"] in PHASES and 0 <= event["step"] <= 32
        if kind != "log's disk full":
            ends = {"SIGTERM": (75, 0)}.get(kind, (-signal.SIGKILL, 0))
            assert event["outcome"] == "equal" and (event["codes"][0] in ends or event["fell_in"] == "start")
        elif event["outcome"] == "clear error":
            assert event["codes"] == [2]
            assert re.match(r"error: /run/\S+: cannot be written: No space", event["message"])
    counted = Counter((event["kind"], event["fell_in"], event["outcome"]) for event in report["events"])
    assert counted == {
        (kind, phase, name): count
        for kind, cells in report["table"].items()
        for phase, cell in cells.items()
        for name, count in cell.items()
    }
    printed = capsys.readouterr().out
    assert f"{report['kills']} harms in" in printed and "0 fault" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_all_that_the_loop_says_it_does_is_a_phase():
    source = "".join((settings.ROOT / "gan_jax" / name).read_text() for name in ("train.py", "cli.py"))
    texts = set(re.findall(r'(?:_now|output\.doing)\("([^"]*)"\)', source))
    assert len(texts) > 6 and texts <= soak_chain.PHASES.keys()
    assert set(soak_chain.PHASES.values()) == set(PHASES)


def test_a_plan_has_every_kind_as_often_as_its_weight_says():
    harms = soak_harms.plan(200, 0, (1, 2), tuple(KINDS))
    assert harms == soak_harms.plan(200, 0, (1, 2), tuple(KINDS)) != soak_harms.plan(200, 1, (1, 2), tuple(KINDS))
    counts, total = Counter(harm.kind for harm in harms), sum(kind.weight for kind in KINDS.values())
    assert all(abs(counts[name] - 200 * kind.weight / total) < 2 for name, kind in KINDS.items())
    assert {(harm.phase, harm.count) for harm in harms if harm.kind == "SIGKILL"} == {
        (phase, count) for phase in PHASES for count in (1, 2)
    }
    assert all(harm.phase in KINDS[harm.kind].phases and harm.count in KINDS[harm.kind].counts for harm in harms)
    assert all(harm.target < harm.count for harm in harms) and 50 < sum(harm.count == 2 for harm in harms) < 100
    assert {harm.kind for harm in soak_harms.plan(len(KINDS), 0, (1, 2), tuple(KINDS))} == KINDS.keys()
    assert "one of two killed" not in {harm.kind for harm in soak_harms.plan(50, 0, (1,), tuple(KINDS))}


ERROR = "error: /run: no room. Make room\n"
WARNED = "warning: something\nE1201 15:00:00.000000  77 coordination.cc:1] gone\n"


@pytest.mark.parametrize(
    "kind, codes, signals, errors, expected",
    [
        ("SIGKILL", (-9,), ({9},), "", "equal"),
        ("SIGKILL", (-9,), (set(),), "", "process 0 ended with -9"),  # killed by somebody else
        ("SIGTERM", (0,), ({15},), "", "equal"),
        ("SIGTERM", (75,), ({15},), "", "equal"),  # stopped, and may go on
        ("disk full", (75,), (set(),), "", "process 0 ended with 75"),
        ("SIGTERM", (2,), ({15},), ERROR, "process 0 ended with 2"),
        ("SIGTERM", (-15,), ({15},), "", "process 0 ended with -15"),  # in a step it is heeded
        ("SIGTERM", (75, 1), ({15}, set()), ERROR, "process 1 ended with 1"),
        ("SIGKILL after SIGTERM", (-9, 1), ({15, 9}, {15, 9}), ERROR, "clear error"),
        ("disk full", (2,), (set(),), ERROR, "clear error"),
        ("disk full", (2,), (set(),), WARNED + ERROR, "clear error"),
        ("disk full", (2,), (set(),), ERROR + ERROR, "2 lines"),
        ("disk full", (2,), (set(),), "", "0 lines"),
        ("disk full", (1,), (set(),), "Traceback (most recent call last):\nOSError: no room\n", "2 lines"),
        ("disk full", (-6,), (set(),), ERROR, "process 0 ended with -6"),
        ("one of two killed", (-9, 1), ({9}, set()), ERROR, "clear error"),
        ("one of two killed", (-9, None), ({9}, set()), "", "process 1 did not end"),
    ],
)
def test_ends_are_judged(kind, codes, signals, errors, expected):
    attempt = SimpleNamespace(signals=list(signals), errors=lambda number: errors, output=lambda number: "")
    try:
        said, _ = soak_harms.judged(attempt, list(codes), Harm(kind, "step", 1, 0.0, len(codes), 0, 0.0))
    except Fault as fault:
        said = str(fault)
    assert expected in said


@pytest.fixture
def chain(tmp_path, monkeypatch):
    """A complete run of 32 steps whose State is the number of its newest checkpoint, and what it should have been."""
    chain = soak_chain.Chain(tmp_path / "run", tmp_path / "cache", 1, "points", steps=32, mounted=False)
    for folder in ("checkpoints/24", "checkpoints/32", "samples"):
        (chain.run / folder).mkdir(parents=True)
    logs.append_line(chain.run / "metrics.jsonl", {"step": 32, "loss": 0.5, "images_per_second": time.time()})
    logs.append_line(chain.run / "evaluations.jsonl", {"step": 32, "value": 0.5, "seconds": time.time()})
    (chain.run / "samples" / "reals.png").write_bytes(b"picture")

    def restored(chain, step):
        file = chain.run / "checkpoints" / str(step) / "broken"
        if file.exists() and not file.read_text():
            raise UserError(f"{step}: this checkpoint cannot be read")
        return file.read_text() if file.exists() else str(step)

    for module in (soak_chain, soak):
        monkeypatch.setattr(module, "restored", restored)
    rows = {"metrics.jsonl": [{"step": 32, "loss": 0.5}], "evaluations.jsonl": [{"step": 32, "value": 0.5}]}
    whole = SimpleNamespace(digest=str, rows=rows, pictures={"reals.png": b"picture"})
    return chain, whole


def test_a_run_that_ends_otherwise_is_told(chain):
    chain, whole = chain
    assert soak_chain.unlike(chain, whole) == ""
    logs.append_line(chain.run / "metrics.jsonl", {"step": 32, "loss": 0.5})
    assert 'metrics.jsonl has other lines: [{"step": 32, "loss": 0.5}, null]' in soak_chain.unlike(chain, whole)
    logs.drop_lines_after(chain.run / "metrics.jsonl", -1)
    logs.append_line(chain.run / "metrics.jsonl", {"step": 32, "loss": 0.5})
    (chain.run / "samples" / "reals.png").write_bytes(b"pictures")
    assert soak_chain.unlike(chain, whole) == "samples differ: reals.png"
    (chain.run / "checkpoints" / "32" / "broken").write_text("33")
    assert soak_chain.unlike(chain, whole) == "its final State is another one"
    (chain.run / "checkpoints" / "32").rename(chain.run / "checkpoints" / "31.orbax-checkpoint-tmp")
    assert soak_chain.unlike(chain, whole) == "its newest checkpoint is of step 24" and chain.is_saving()


def test_a_checkpoint_that_is_lost_or_of_another_state_is_a_fault(chain, tmp_path):
    chain, whole = chain
    soaked = soak.Soak(tmp_path, 32, is_mounted=False)
    soaked.wholes[1, "points"] = whole
    killed, cut = KINDS["SIGKILL"], KINDS["checkpoint truncated"]
    assert soaked._good_step(chain, killed) == 32 == chain.good
    (chain.run / "checkpoints" / "32" / "broken").write_text("")
    with pytest.raises(Fault, match="cannot be read"):
        soaked._good_step(chain, killed)
    assert soaked._good_step(chain, cut) == 24
    (chain.run / "checkpoints" / "32" / "broken").write_text("33")
    with pytest.raises(Fault, match="step 32 is another State"):
        soaked._good_step(chain, cut)
    (chain.run / "checkpoints" / "32").rename(tmp_path / "lost")
    chain.good = 32
    with pytest.raises(Fault, match="step 32 is lost, the newest is of step 24"):
        soaked._good_step(chain, killed)


def test_a_file_is_damaged(tmp_path):
    ways = set()
    for seed in range(20):
        file = tmp_path / str(seed)
        file.write_bytes(b"0123456789")
        soak_harms.damage(file, random.Random(seed))
        ways.add(-1 if not file.exists() else len(file.read_bytes()))
        assert not file.exists() or file.read_bytes() != b"0123456789"
    assert {-1, 0, 10} < ways


def test_a_renaming_and_a_removal_fail_once(tmp_path, monkeypatch):
    for name in ("rename", "replace", "rmdir"):
        monkeypatch.setattr(os, name, getattr(os, name))
    renames = soak_run.Renames()
    (tmp_path / "a").mkdir()
    renames.fail("rename", 116)
    with pytest.raises(OSError, match="116"):
        (tmp_path / "a").rename(tmp_path / "b")
    (tmp_path / "a").rename(tmp_path / "b")
    renames.fail("rmdir", 39)
    with pytest.raises(OSError, match="39"):
        (tmp_path / "b").rmdir()
    assert [path.name for path in (tmp_path / "b").iterdir()] == [soak_run.SILLY]


def test_a_clock_is_set_back(monkeypatch):
    import datetime

    for module, name in ((time, "time"), (time, "time_ns"), (datetime, "datetime")):
        monkeypatch.setattr(module, name, getattr(module, name))
    before = datetime.datetime.now(datetime.UTC)
    clock = soak_run.Clock(-86_400.0)
    clock.add(-86_400.0)
    after = (time.time(), time.time_ns() / 1e9, datetime.datetime.now(datetime.UTC).timestamp())
    assert all(-172_800 <= now - before.timestamp() < -172_700 for now in after)


def test_a_table_tells_outcomes_by_phase():
    cells = {"SIGKILL": {"save": {"equal": 3, "fault": 1}, "step": {"equal": 2, "clear error": 1}}}
    outcomes = {"equal": 5, "clear error": 1, "fault": 1}
    head, row, *_, last = soak.table({"table": cells, "kills": 7, "seconds": 60.0, "in_write": 2, "outcomes": outcomes})
    assert dict(zip(head.split(), row.split()[1:], strict=True)) == {
        "start": ".", "compile": ".", "step": "2+1", "sample": ".", "evaluate": ".", "save": "3!1"
    }  # fmt: skip
    assert "7 harms in 60 s" in last and "1 fault" in last


@pytest.mark.parametrize("flag", ("--kills=0", "--jobs=0", "--steps=8", "--processes=3", "--harms=SIGILL",
                                  "--folder=nowhere"))  # fmt: skip
def test_wrong_flags_are_named(flag, capsys):
    assert soak.main([flag, "--out=never.json"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and flag in error
