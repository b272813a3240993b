"""What the soak does to a run: at one instant, and what is mended when its processes have ended."""

import contextlib
import pathlib
import random
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from benchmarks.soak_chain import Attempt, Chain

LATER = ("compile", "step", "sample", "evaluate", "save")  # from when on the folder is the run's
TRAINING = LATER[1:]
PHASES = ("start", *LATER)
PEER_SECONDS = 60.0  # in which a process ends whose neighbour has died
ONE_LINE = (1, 2)  # exit codes that come with one line of error
DAY = 86_400.0
# Lines of standard error that are no word of ours: of the libraries in C++ when another process is gone.
_NOISE = re.compile(r"[IWEF]\d{4} |\*\*\* |\s+@|#|WARNING: All log messages before absl|\s*$")


class Harm(NamedTuple):
    """One harm, as it was drawn."""

    kind: str  # of `KINDS`
    phase: str  # of `PHASES`
    occurrence: int  # of the phase, from the start on
    fraction: float  # of the phase's length, after its beginning
    count: int  # of processes
    target: int  # process that is meant, where one is
    chance: float  # in [0, 1), for the harm's own choice


class Kind(NamedTuple):
    """A kind of harm."""

    apply: Callable[[Chain, Attempt, Harm], Iterator[None]]  # harms, yields, and mends when the processes have ended
    weight: int  # how often it is drawn
    phases: tuple[str, ...] = PHASES
    counts: tuple[int, ...] = (1, 2)  # of processes
    data: str = "points"
    may_fail: bool = True  # whether the command may end with one line of error
    needs_mount: bool = False
    needs_steps: int = 0  # checkpoints that have to be there before
    leaves_one: bool = False  # whether one process is ended and the other one has to follow
    damages: bool = False  # whether the newest checkpoint may be unreadable afterwards


class Fault(Exception):
    """What should not have been seen."""


# Signals.


def sigkill(chain: Chain, attempt: Attempt, harm: Harm) -> Iterator[None]:
    """SIGKILL to all processes."""
    attempt.send(signal.SIGKILL)
    yield


def sigterm(chain: Chain, attempt: Attempt, harm: Harm) -> Iterator[None]:
    """SIGTERM to all processes, or of two that have met to one alone."""
    is_one = harm.phase != "start" and harm.chance < 0.5
    attempt.send(signal.SIGTERM, harm.target if is_one else None)
    yield


def sigterm_sigkill(chain: Chain, attempt: Attempt, harm: Harm) -> Iterator[None]:
    """SIGTERM to all, and SIGKILL before or after they have saved."""
    attempt.send(signal.SIGTERM)
    time.sleep(0.5 * harm.chance**2)
    attempt.send(signal.SIGKILL)
    yield


def one_killed(chain: Chain, attempt: Attempt, harm: Harm) -> Iterator[None]:
    """SIGKILL to one of two that have met; before, the other one would wait for it as for one that comes late."""
    attempt.send(signal.SIGKILL, harm.target)
    yield


# Disks.


def disk_full(chain: Chain, attempt: Attempt, harm: Harm) -> Iterator[None]:
    """The run's disk is filled to its last byte."""
    ballast = chain.disk / "ballast"
    with open(ballast, "wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while file.write(b"\0" * size) == size:
                    pass
    yield
    ballast.unlink()


def read_only(chain: Chain, attempt: Attempt, harm: Harm) -> Iterator[None]:
    """The run's disk takes nothing more, but for files that are open."""
    disk = str(chain.disk)
    subprocess.run(["mount", "--bind", "-o", "ro", disk, disk], check=True)
    yield
    subprocess.run(["umount", disk], check=True)


def log_full(chain: Chain, attempt: Attempt, harm: Harm) -> Iterator[None]:
    """One of the run's files of lines lies on a full disk."""
    name = ("metrics.jsonl", "evaluations.jsonl", "log.txt")[int(3 * harm.chance)]
    file, parts = chain.run / name, []
    chain.run.mkdir(exist_ok=True)
    while not file.is_symlink():  # a line that is written meanwhile makes the file anew
        with contextlib.suppress(FileNotFoundError):
            parts.append(file.rename(chain.disk / f"{name}.{len(parts)}"))
        with contextlib.suppress(FileExistsError):
            file.symlink_to("/dev/full")
    yield
    if file.is_symlink():
        file.unlink()
    if parts:
        file.write_bytes(b"".join(part.read_bytes() for part in parts))
    for part in parts:
        part.unlink()


# Files.


def truncated(chain: Chain, attempt: Attempt, harm: Harm) -> Iterator[None]:
    """SIGKILL, and a file of the newest checkpoint is cut, emptied, changed or gone."""
    attempt.send(signal.SIGKILL)
    yield
    draw = random.Random(harm.chance)
    newest = chain.run / "checkpoints" / str(chain.steps()[0])
    file = draw.choice(sorted(path for path in newest.rglob("*") if path.is_file()))
    damage(file, draw)


def damage(file: pathlib.Path, draw: random.Random) -> None:
    """Cuts a file, empties it, changes a bit of it, or takes it away."""
    data, way = bytearray(file.read_bytes()), draw.choice(("cut", "emptied", "changed", "gone"))
    if way == "gone" or not data:
        file.unlink()
    elif way == "changed":
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        file.write_bytes(data)
    else:
        file.write_bytes(data[: draw.randrange(len(data)) if way == "cut" else 0])


def data_lost(chain: Chain, attempt: Attempt, harm: Harm) -> Iterator[None]:
    """A picture of the data is gone, until the processes have ended."""
    files = sorted(chain.pictures.iterdir())
    file = files[int(len(files) * harm.chance)]
    aside = chain.folder / file.name
    file.rename(aside)
    yield
    aside.rename(file)


def rename_fails(chain: Chain, attempt: Attempt, harm: Harm) -> Iterator[None]:
    """The next renaming fails once, as a network file system lets it."""
    names = ("ESTALE", "ENOTEMPTY", "EBUSY", "EIO")
    attempt.harm(f"rename {names[int(len(names) * harm.chance)]}")
    yield


def removal_fails(chain: Chain, attempt: Attempt, harm: Harm) -> Iterator[None]:
    """The next folder that is removed keeps a file, which a network file system calls .nfs and more."""
    attempt.harm("rmdir ENOTEMPTY")
    yield


# Clock and company.


def clock_back(chain: Chain, attempt: Attempt, harm: Harm) -> Iterator[None]:
    """The clock is set back by up to 400 days, then SIGKILL; it stays there for the starts to come."""
    seconds = -round(400 * DAY * harm.chance) - 1
    attempt.harm(f"clock {seconds}")
    time.sleep(0.3 * harm.chance)
    attempt.send(signal.SIGKILL)
    yield
    chain.clock += seconds


def two_runs(chain: Chain, attempt: Attempt, harm: Harm) -> Iterator[None]:
    """The same command in the same folder, while the first one stands still: it is refused, and names the first."""
    attempt.send(signal.SIGSTOP)
    second = chain.start(count=1)
    (code,) = second.end()
    attempt.send(signal.SIGCONT)
    owner, said = f"process {attempt.processes[0].pid} on ", second.errors(0)
    if code != 2 or owner not in said or one_line(said):
        raise Fault(f"a second run in the folder ended with {code}: {said[-300:]}")
    yield


KINDS = {
    "SIGKILL": Kind(sigkill, 50, may_fail=False),
    "SIGTERM": Kind(sigterm, 30, may_fail=False),
    "SIGKILL after SIGTERM": Kind(sigterm_sigkill, 24, may_fail=False),
    "one of two killed": Kind(one_killed, 24, phases=LATER, counts=(2,), leaves_one=True),
    "disk full": Kind(disk_full, 16, needs_mount=True),
    "disk read-only": Kind(read_only, 12, needs_mount=True),
    "log's disk full": Kind(log_full, 8, phases=LATER),
    "checkpoint truncated": Kind(truncated, 14, phases=TRAINING, may_fail=False, needs_steps=2, damages=True),
    "clock set back": Kind(clock_back, 8, may_fail=False),
    "data lose a file": Kind(data_lost, 4, data="pictures", needs_steps=1),  # before, it was never a part of them
    "two runs in a folder": Kind(two_runs, 4, phases=LATER, may_fail=False),
    "rename fails": Kind(rename_fails, 8),
    "removal fails": Kind(removal_fails, 6),
}


def plan(kills: int, seed: int, counts: tuple[int, ...], names: tuple[str, ...]) -> list[Harm]:
    """Draws harms: each kind once and then as often as its weight says, its phases and numbers of processes in turn.

    Args:
      kills: how many.
      seed: the same harms for the same seed.
      counts: of processes that a run may have.
      names: of `KINDS`; one that no such run can suffer is left out.
    """
    draw = random.Random(seed)
    weights = {name: KINDS[name].weight for name in names if set(KINDS[name].counts) & set(counts)}
    turns = {name: [] for name in weights}
    harms = []
    for number in range(kills):
        # First each kind once, then the one that is furthest behind its share.
        counts_of = Counter(harm.kind for harm in harms)
        total = sum(weights.values())
        name = max(weights, key=lambda one: (not counts_of[one], weights[one] * (number + 1) - total * counts_of[one]))
        if not turns[name]:
            own = [count for count in KINDS[name].counts if count in counts]
            own = [1, 1, 2] if own == [1, 2] else own  # two processes take three times as long
            turns[name] = [(phase, count) for phase in KINDS[name].phases for count in own]
            draw.shuffle(turns[name])
        phase, count = turns[name].pop()
        occurrence = 1 if phase in ("start", "compile") else draw.randint(1, 2)
        harms.append(Harm(name, phase, occurrence, draw.random(), count, draw.randrange(count), draw.random()))
    return harms


def one_line(errors: str) -> str:
    """What is wrong with a command's standard error as one line of error; '' where nothing is."""
    lines = [line for line in errors.splitlines() if not _NOISE.match(line) and not line.startswith("warning: ")]
    if len(lines) == 1 and lines[0].startswith(("error: ", "diverged: ")):
        return ""
    return f"{len(lines)} lines: {' / '.join(lines)[-600:]}"


def judged(attempt: Attempt, codes: list[int | None], harm: Harm) -> tuple[str, str]:
    """How the processes of a start ended: `equal` or `clear error`, and the line of error.

    Raises:
      Fault: one hung, ended with a code that says nothing, or told more or less than one line.
    """
    is_stopped = any(signal.SIGTERM in signals for signals in attempt.signals)
    kind = KINDS[harm.kind]
    is_killed = any(signal.SIGKILL in signals for signals in attempt.signals)
    may_fail = kind.may_fail or kind.leaves_one or (is_killed and len(codes) > 1)  # the neighbour of a killed one
    message = ""
    for number, code in enumerate(codes):
        errors = attempt.errors(number)
        if code is None:
            raise Fault(f"process {number} did not end: {errors[-300:]}")
        if code == 0 or (code == 75 and is_stopped):
            continue
        # SIGTERM has its usual effect in the first and last moments alone, while Python itself starts and ends.
        is_at_an_end = harm.phase == "start" or "\ncomplete at " in attempt.output(number)
        if -code in attempt.signals[number] and (-code != signal.SIGTERM or is_at_an_end):
            continue
        if not (may_fail and code in ONE_LINE):
            raise Fault(f"process {number} ended with {code}: {errors[-600:]}")
        if fault := one_line(errors):
            raise Fault(f"process {number} ended with {code} and {fault}")
        message = message or next(line for line in errors.splitlines() if line.startswith(("error: ", "diverged: ")))
    return ("clear error" if message else "equal"), message
