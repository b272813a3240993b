"""Harms runs at random instants of every phase, lets them go on, and compares what they leave with a whole run.

    python benchmarks/soak.py --kills=200

Prints a table and writes JSON. A tiny run is started by the real command, on one process and on two, and harmed: by
signals, disks, damaged files, the clock, its data, another run (`soak_harms.py`). The same command then goes on, is
harmed again, and so to the end. After each harm the newest checkpoint must hold, bit for bit, what the run that was
never harmed had at that step. In the end State, lines and samples must be those of that run. Each harm counts as

    equal         nothing but what was asked for: stopped or killed, and the end is that of the whole run
    clear error   exit code 1 or 2 and one line, the last good checkpoint was left, and the end is that of the whole run
    fault         anything else

The disks are tmpfs, which root alone can mount; without them two kinds are left out, and a line says so.
"""

import contextlib
import dataclasses
import itertools
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent import futures

ROOT = pathlib.Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # started as a script
    sys.path.insert(0, str(ROOT))

from benchmarks import report as reports  # noqa: E402
from benchmarks.soak_chain import (  # noqa: E402
    EVERY_STEP,
    LIMIT_SECONDS,
    SETTINGS,
    Attempt,
    Chain,
    Whole,
    lengths,
    restored,
    unlike,
)
from benchmarks.soak_harms import KINDS, PEER_SECONDS, PHASES, Fault, Harm, Kind, judged, plan  # noqa: E402
from gan_jax import parallel  # noqa: E402
from gan_jax.errors import UserError  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "soak.json"
OUTCOMES = ("equal", "clear error", "fault")
TRIES = 3  # of a harm for whose instant a run was over too soon
HARMS_OF_A_LANE = 12
REACH = {"save": 3.0}  # times the loop's own part of a phase: the background goes on with it
SMOKE = ("SIGKILL", "SIGTERM", "checkpoint truncated", "log's disk full")


def main(arguments: list[str] | None = None) -> int:
    """The command: 0, 1 where there are faults, or 2 after a message for what its user can mend."""
    outcomes: Counter = Counter()

    def measure(flags) -> dict:
        report = _report(flags)
        outcomes.update(report["outcomes"])
        return report

    return reports.command(measure, _flags(arguments)) or int(outcomes["fault"] > 0)


def _flags(arguments):
    parser = reports.parser(__doc__, RESULTS, smoke="a few kinds, once each, on one process")
    add = parser.add_argument
    add("--kills", type=int, default=200, help="harms in all")
    add("--seed", type=int, default=0, help="of kinds, phases and instants")
    add("--processes", type=_numbers, default=(1, 2), help="of a run: 1,2 or one of them")
    add("--harms", type=lambda text: tuple(text.split(",")), default=tuple(KINDS), help="kinds, with commas between")
    add("--steps", type=int, default=48, help="length of a run")
    add("--jobs", type=int, default=2, help="runs that are harmed side by side")
    add("--folder", type=pathlib.Path, help="where the runs lie; by default in the system's for temporary files")
    add("--keep", type=pathlib.Path, help="folder for copies of runs with faults; by default none are kept")
    return reports.parse(parser, arguments, kills=len(SMOKE), processes=(1,), harms=SMOKE, jobs=1, steps=32)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _check(flags) -> None:
    for name, least in (("kills", 1), ("jobs", 1), ("steps", 24)):  # a run that is shorter has not all phases
        if getattr(flags, name) < least:
            raise UserError(f"--{name}={getattr(flags, name)}: expected {least} or more")
    if not set(flags.processes) <= {1, 2}:
        raise UserError(f"--processes={','.join(map(str, flags.processes))}: expected 1, 2 or 1,2")
    if unknown := set(flags.harms) - set(KINDS):
        raise UserError(f"--harms={','.join(sorted(unknown))}: expected of {', '.join(KINDS)}")
    if flags.folder is not None and not flags.folder.is_dir():
        raise UserError(f"--folder={flags.folder}: no such folder")


def _report(flags) -> dict:
    _check(flags)
    parallel.silence()
    with tempfile.TemporaryDirectory(prefix="gan_jax_soak_", dir=flags.folder) as folder:
        base = pathlib.Path(folder)
        is_mounted = any(KINDS[name].needs_mount for name in flags.harms) and _can_mount(base)
        names = tuple(name for name in flags.harms if is_mounted or not KINDS[name].needs_mount)
        left_out = [name for name in flags.harms if name not in names]
        if left_out:
            print(f"left out, for no tmpfs can be mounted (by root alone): {', '.join(left_out)}")
        harms = plan(flags.kills, flags.seed, flags.processes, names)
        settings = {key: getattr(flags, key) for key in ("kills", "seed", "processes", "steps", "jobs", "smoke")}
        settings |= {"harms": list(names), "left_out": left_out, "run": SETTINGS}
        report = reports.header("soak", ("jax", "jaxlib", "orbax-checkpoint", "numpy"), settings)
        began = time.monotonic()
        with contextlib.closing(Soak(base, flags.steps, is_mounted=is_mounted, keep=flags.keep)) as soak:
            soak.play(harms, flags.jobs)
        report |= summary(soak)
        report["seconds"] = round(time.monotonic() - began, 1)
    print("\n".join(table(report)), flush=True)
    return report


def _can_mount(folder: pathlib.Path) -> bool:
    place = folder / "probe"
    place.mkdir()
    with contextlib.suppress(OSError):
        if not subprocess.run(["mount", "-t", "tmpfs", "soak", str(place)], capture_output=True).returncode:
            subprocess.run(["umount", str(place)], check=True)
            return True
    return False


@dataclasses.dataclass
class Event:
    """A harm, and what became of it."""

    harm: Harm
    fell_in: str = ""  # the phase that the run was in
    codes: list[int | None] = dataclasses.field(default_factory=list)  # with which its processes ended
    outcome: str = "fault"  # of `OUTCOMES`
    message: str = ""  # the line of error, or what the fault is
    step: int = 0  # of the newest good checkpoint afterwards
    in_write: bool = False  # whether a checkpoint was begun and not complete
    is_complete: bool = False  # whether the run came to its end all the same
    seconds: float = 0.0  # of the whole start
    ended_after: float = 0.0  # seconds from the harm to the end of the last process

    def row(self) -> dict:
        """For the report."""
        row = {"kind": self.harm.kind, "drawn": self.harm.phase, "fell_in": self.fell_in, "processes": self.harm.count}
        row |= {"outcome": self.outcome, "codes": self.codes, "step": self.step, "in_write": self.in_write}
        row |= {"seconds": round(self.seconds, 1), "ended_after": round(self.ended_after, 1)}
        return row | ({"message": self.message} if self.message else {})


class Soak:
    """All runs of one soak: the whole ones, and those that are harmed."""

    def __init__(self, base: pathlib.Path, steps: int, *, is_mounted: bool, keep: pathlib.Path | None = None):
        """`base` is their folder, `steps` their length; whether disks are mounted; where to `keep` what has faults."""
        self.base, self.steps, self.is_mounted, self.keep = base, steps, is_mounted, keep
        self.wholes: dict[tuple[int, str], Whole] = {}
        self.events: list[Event] = []
        self.chains: list[Chain] = []
        self.not_reached: list[str] = []  # harms for whose instant every run was over too soon

    def play(self, harms: list[Harm], jobs: int) -> None:
        """Plays all harms in lanes, side by side."""
        lanes: dict[tuple[int, str], list[list[Harm]]] = {}
        for harm in harms:
            own = lanes.setdefault((harm.count, KINDS[harm.kind].data), [[]])
            if len(own[-1]) == HARMS_OF_A_LANE:
                own.append([])
            own[-1].append(harm)
        for count, data in sorted(lanes):
            self.wholes[count, data] = self._whole(count, data)
        with futures.ThreadPoolExecutor(jobs) as pool:
            slowest_first = sorted(itertools.chain(*lanes.values()), key=lambda lane: -lane[0].count)
            for done in [pool.submit(self._lane, lane) for lane in slowest_first]:
                done.result()

    def close(self) -> None:
        """Takes all disks away."""
        for chain in self.chains:
            chain.close()

    def _chain(self, count: int, data: str) -> Chain:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="run", dir=self.base))
        chain = Chain(folder, self.base / "cache", count, data, steps=self.steps, mounted=self.is_mounted)
        self.chains.append(chain)
        return chain

    def _whole(self, count: int, data: str) -> Whole:
        """A run as the harmed ones are, which tells how long its phases take, and one with a checkpoint a step."""
        plain, full = (self._chain(count, data) for _ in range(2))
        with contextlib.closing(plain):
            first = _unharmed(plain)
            _unharmed(full, **EVERY_STEP)
            first.phase_at(0.0)
            whole = Whole(full, lengths(first))
            if difference := unlike(plain, whole):
                raise UserError(f"two runs that were not harmed differ: {difference}")
        return whole

    def _lane(self, harms: list[Harm]) -> None:
        """Plays harms one after another, in one folder until its run is complete, then in the next one."""
        chain = None
        try:
            for harm in harms:
                for number in range(TRIES):
                    if number:  # in a new folder: as soon as may be
                        harm = harm._replace(occurrence=1, fraction=harm.fraction / 2)  # noqa: PLW2901
                    chain = chain or self._chain(harm.count, KINDS[harm.kind].data)
                    event = self._harmed(chain, harm)
                    if event is None or event.is_complete or event.outcome == "fault":
                        chain.close()
                        chain = None
                    if event:
                        break
                else:
                    self.not_reached.append(f"{harm.kind}, {harm.phase}")
                    print(f"{harm.kind}, {harm.phase}: the run was over before, {TRIES} times", flush=True)
            if chain:
                self._go_on(chain, chain.start())
        finally:
            if chain:
                chain.close()

    def _harmed(self, chain: Chain, harm: Harm) -> Event | None:
        """One start, harmed at its instant; None where the run was complete before."""
        if harm.phase == "compile":  # nothing is compiled yet
            chain.cache = chain.folder / f"cache{len(chain.events)}"
        attempt, kind, event = chain.start(), KINDS[harm.kind], Event(harm)
        try:
            if not self._is_reached(chain, attempt, harm):
                self._go_on(chain, attempt)
                return None
            instant = time.monotonic()
            with contextlib.contextmanager(kind.apply)(chain, attempt, harm):
                event.codes = attempt.end(PEER_SECONDS if kind.leaves_one else LIMIT_SECONDS)
                event.in_write = chain.is_saving()
            event.ended_after = time.monotonic() - instant
            event.fell_in = attempt.phase_at(instant)
            event.outcome, event.message = judged(attempt, event.codes, harm)
            event.step = self._good_step(chain, kind)
        except Fault as fault:
            event.outcome, event.message = "fault", str(fault)
        finally:
            attempt.close()
            event.seconds = time.monotonic() - attempt.began
        event.message = chain.plain(event.message)
        is_over = event.codes[:1] == [0] and "complete at" in attempt.output(0)
        event.is_complete = is_over and not kind.damages
        chain.events.append(event)
        self.events.append(event)
        print(line(event), flush=True)
        if event.outcome == "fault":
            self._keep(chain)
        elif event.is_complete:
            self._compare(chain)
        return event

    def _is_reached(self, chain: Chain, attempt: Attempt, harm: Harm) -> bool:
        """Waits for the instant of a harm; whether the run goes on then."""
        needed = KINDS[harm.kind].needs_steps
        while needed and len(chain.steps()) < needed:
            if not attempt.listen(0.01):
                return False
        before = attempt.times(harm.phase) if needed else 0
        if not attempt.wait_for(harm.phase, before + harm.occurrence):
            return False
        length = self.wholes[chain.count, chain.data].lengths.get(harm.phase, 0.0)
        time.sleep(harm.fraction * REACH.get(harm.phase, 1.0) * length)
        return attempt.processes[0].poll() is None

    def _good_step(self, chain: Chain, kind: Kind) -> int:
        """The step of the newest checkpoint, 0 where there is none yet; a damaged one is passed over.

        Raises:
          Fault: it cannot be read, is of another State than the whole run's, or a good one was lost.
        """
        whole, good = self.wholes[chain.count, chain.data], 0
        for step in chain.steps():
            try:
                digest = restored(chain, step)
            except UserError as error:
                if kind.damages and step == chain.steps()[0]:
                    continue
                raise Fault(f"after it a checkpoint cannot be read: {error}") from error
            if digest != whole.digest(step):
                raise Fault(f"the checkpoint of step {step} is another State than the whole run's")
            good = step
            break
        if good < chain.good and not kind.damages:
            raise Fault(f"the good checkpoint of step {chain.good} is lost, the newest is of step {good}")
        chain.good = good
        return good

    def _go_on(self, chain: Chain, attempt: Attempt) -> None:
        """Lets a start come to its end, which must be the run's."""
        codes = attempt.end()
        if any(codes):
            self._blame(chain, f"the same command did not go on, {codes}: {attempt.errors(0)[-600:]}")
        else:
            self._compare(chain)

    def _compare(self, chain: Chain) -> None:
        try:
            difference = unlike(chain, self.wholes[chain.count, chain.data])
        except UserError as error:
            difference = f"what it left cannot be read: {error}"
        if difference:
            self._blame(chain, f"the run came to its end, and {difference}")

    def _blame(self, chain: Chain, what: str) -> None:
        """A run that did not end as the whole one speaks against all that was done to it."""
        what = chain.plain(what)
        print(f"fault after {len(chain.events)} harms: {what}", flush=True)
        for event in chain.events:
            event.outcome, event.message = "fault", f"{event.message} {what}".strip()
        self._keep(chain)

    def _keep(self, chain: Chain) -> None:
        if self.keep:
            shutil.copytree(chain.folder, self.keep / chain.folder.name, symlinks=True)


def _unharmed(chain: Chain, **settings) -> Attempt:
    attempt = chain.start(**settings)
    if any(codes := attempt.end()):
        raise UserError(f"a run that was not harmed ended with {codes}: {attempt.errors(0)[-600:]}")
    return attempt


def summary(soak: Soak) -> dict:
    """What the report tells of a soak that was played."""
    events = soak.events
    counted = {name: sum(event.outcome == name for event in events) for name in OUTCOMES}
    cells: dict[str, dict[str, dict[str, int]]] = {}
    for event in events:
        cell = cells.setdefault(event.harm.kind, {}).setdefault(event.fell_in or event.harm.phase, {})
        cell[event.outcome] = cell.get(event.outcome, 0) + 1
    ends = [event.ended_after for event in events if KINDS[event.harm.kind].leaves_one]
    return {
        "kills": len(events),
        "not_reached": soak.not_reached,
        "outcomes": counted,
        "of_processes": {str(n): sum(event.harm.count == n for event in events) for n in (1, 2)},
        "starts": sum(chain.starts for chain in soak.chains),
        "in_write": sum(event.in_write for event in events),
        "longest_after_a_peer": round(max(ends, default=0.0), 1),
        "table": {kind: cells[kind] for kind in KINDS if kind in cells},
        "phase_seconds": {
            f"{data}, processes {count}": {phase: round(seconds, 4) for phase, seconds in whole.lengths.items()}
            for (count, data), whole in soak.wholes.items()
        },
        "events": [event.row() for event in events],
    }


def line(event: Event) -> str:
    """One harm, for a person."""
    harm = event.harm
    where = f"{harm.count} process{'es' * (harm.count > 1)}, {event.fell_in or harm.phase}"
    return f"{harm.kind}, {where}: {event.outcome}, step {event.step}  {event.message}".rstrip()


def table(report: dict) -> list[str]:
    """Lines of the table: kinds of harm by the phase in which they fell, `equal`, `+clear error` and `!fault`."""
    width = max(map(len, report["table"]), default=0)
    lines = [f"{'':{width}}" + "".join(f"{phase:>10}" for phase in PHASES)]
    for kind, cells in report["table"].items():
        lines.append(f"{kind:{width}}" + "".join(f"{_cell(cells.get(phase, {})):>10}" for phase in PHASES))
    counts = ", ".join(f"{count} {name}" for name, count in report["outcomes"].items())
    lines.append("in a cell: equal + clear error ! fault")
    return [*lines, f"{report['kills']} harms in {report['seconds']:.0f} s, {report['in_write']} of them while a "
                    f"checkpoint was written: {counts}"]  # fmt: skip


def _cell(counts: dict[str, int]) -> str:
    signs = {"equal": "", "clear error": "+", "fault": "!"}
    return "".join(f"{sign}{counts[name]}" for name, sign in signs.items() if counts.get(name)) or "."


if __name__ == "__main__":
    sys.exit(main())
