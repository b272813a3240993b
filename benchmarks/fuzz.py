"""Reads files of others that are damaged or hostile, and says what is neither a value nor an error that names the file.

    python benchmarks/fuzz.py --minutes=10 --readers=pickle,safetensors,zip,png,npz,picture

Prints a table and writes JSON. An input is a function of (seed, reader, number), see `fuzz_inputs.py`; those of the
corpus come first. Each is read by a process of its own that may take GIB of memory more, and a *finding* is: another
exception than UserError, one whose message is not one line, one whose cause is memory that was asked for and not there,
a peak of memory above BOUND and TIMES the input, more than SECONDS, the end of the process. The smallest input of each
is kept in the corpus by its hash. Limits of the readers are lowered so far that BOUND can tell whether they hold.
"""

import contextlib
import functools
import hashlib
import json
import os
import pathlib
import random
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # started as a script
    sys.path.insert(0, str(ROOT))

from PIL import Image  # noqa: E402

from benchmarks import fuzz_inputs  # noqa: E402
from benchmarks import report as reports  # noqa: E402
from gan_jax import archives, latents, metrics  # noqa: E402
from gan_jax.data import files, folder, pictures  # noqa: E402
from gan_jax.data.fit import Fit, decode  # noqa: E402
from gan_jax.data.source import Source  # noqa: E402
from gan_jax.errors import UserError, shown  # noqa: E402
from gan_jax.interop import importer  # noqa: E402
from gan_jax.weights import containers  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "fuzz.json"
CORPUS = ROOT / "tests" / "fuzz_corpus"
BOUND, TIMES = 1 << 26, 8  # bytes that a reader may take, and so many times its input
GIB, SECONDS = 1, 10
PATIENCE = 300  # seconds without a sign of the process that reads, which may have to wait for a processor
LOWERED = {(files, "MOST_BYTES"): 1 << 23, (archives, "ROOM"): 1 << 23, (Image, "MAX_IMAGE_PIXELS"): 1 << 17}
FIT = Fit(8, 8, 3, "center", 0, "lanczos")
PACKAGES = ("numpy", "pillow", "safetensors")


# The readers: of a path, the calls that read it, one after another. They raise UserError.


def _weights(path: pathlib.Path) -> Iterator[Callable]:
    contents: list[containers.Contents] = []
    yield lambda: contents.append(containers.read_file(path))

    def networks():
        with importer._errors_about(str(path)):
            importer._read(contents)

    if contents:
        yield networks


def _zip(path: pathlib.Path) -> Iterator[Callable]:
    sources: list[Source] = []
    yield lambda: sources.append(folder.open_folder(str(path), split="train", fit=FIT))
    for source in sources:
        for index in range(min(source.count, 8)):
            yield functools.partial(source.read, index)


def _picture(path: pathlib.Path) -> Iterator[Callable]:
    data = path.read_bytes()
    yield functools.partial(pictures.look, data, path.name)
    yield functools.partial(pictures.read, data, path.name)
    yield functools.partial(decode, data, FIT, path.name, upright=True)


def _arrays(path: pathlib.Path) -> Iterator[Callable]:
    yield functools.partial(metrics.load_moments, path)
    yield functools.partial(latents.load, str(path), 4, 2)


READERS: dict[str, Callable[[pathlib.Path], Iterator[Callable]]] = {
    "pickle": _weights, "safetensors": _weights, "zip": _zip, "png": _picture, "npz": _arrays, "picture": _picture,
}  # fmt: skip


# One input.


class Outcome(NamedTuple):
    """What came of an input."""

    number: int  # negative: of the corpus
    kind: str  # value, refused or finding
    finding: str = ""  # what it is, the same for inputs of one fault
    peak: int = 0  # bytes of memory above those before


def read(reader: str, path: pathlib.Path) -> tuple[str, str]:
    """(kind, finding) of one file; a value where one call of its reader gives one."""
    kinds = set()
    for call in READERS[reader](path):
        try:
            call()
            kinds.add("value")
        except UserError as error:
            if finding := _wrong(error):
                return "finding", finding
            kinds.add("refused")
        except BaseException as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{pathlib.Path(frame.filename).name}:{frame.lineno}"
            return "finding", f"{type(error).__name__} in {place}: {shown(error)[:100]}"
    return ("value" if "value" in kinds else "refused"), ""


def _wrong(error: UserError) -> str:
    """What is wrong with an error of ours; '' where nothing is."""
    text = str(error)
    if "\n" in text or shown(text) != text or len(text) > 2000:
        return f"a message that is not one line: {shown(text)[:100]!r}"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError):
            frame = traceback.extract_tb(cause.__traceback__)[-1]
            return f"MemoryError in {pathlib.Path(frame.filename).name}:{frame.lineno}"
        cause = cause.__cause__ or cause.__context__
    return ""


def content(reader: str, seed: int, number: int, corpus: list[pathlib.Path]) -> bytes:
    """The input of that number; those of the corpus have negative ones."""
    if number < 0:
        return corpus[number].read_bytes()
    return fuzz_inputs.make(reader, random.Random(f"{seed}/{reader}/{number}"))


@contextlib.contextmanager
def lowered() -> Iterator[None]:
    """Puts the readers' limits so low that an input of a few kB can meet them."""
    before = {(room, name): getattr(room, name) for room, name in LOWERED}
    try:
        for (room, name), value in LOWERED.items():
            setattr(room, name, value)
        yield
    finally:
        for (room, name), value in before.items():
            setattr(room, name, value)


def play(reader: str, seed: int, first: int, count: int, corpus: list[pathlib.Path]) -> Iterator[Outcome]:
    """Reads inputs one after another in this process, and measures the memory of each where the system tells it."""
    with tempfile.TemporaryDirectory(prefix="gan_jax_fuzz_") as place, lowered():
        path = pathlib.Path(place) / "input.png"
        for number in range(first, count):
            data = content(reader, seed, number, corpus)
            path.write_bytes(data)
            with _peak() as peak, _timer():
                kind, finding = read(reader, path)
            most = BOUND + TIMES * len(data)
            if kind != "finding" and peak[0] > most:
                kind, finding = "finding", f"{peak[0] >> 20} MiB of memory"
            yield Outcome(number, kind, finding, peak[0])


@contextlib.contextmanager
def _peak() -> Iterator[list[int]]:
    """A list of one number: bytes by which the memory of this process grew at most within the block; Linux tells it."""
    result = [0]
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = _memory("VmRSS")
    except OSError:
        yield result
        return
    yield result
    result[0] = max(_memory("VmHWM") - before, 0)


@contextlib.contextmanager
def _timer() -> Iterator[None]:
    """Ends this process by a signal where the block takes more than SECONDS of its processor."""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _memory(key: str) -> int:
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


# The program: a process that reads, and this one, which watches it.


def main(arguments: list[str] | None = None) -> int:
    """The command: 0, or 2 after a message for what its user can mend."""
    flags = _flags(arguments)
    return _work(flags) if flags.worker else reports.command(_report, flags)


def _flags(arguments):
    repeats = 0, "inputs of each reader; 0 for as many as --minutes allow"
    parser = reports.parser(__doc__, RESULTS, repeats=repeats, smoke="a few inputs of each reader")
    add = parser.add_argument
    add("--minutes", type=float, default=10.0, help="of all readers together")
    add("--readers", default=",".join(READERS), help="which ones, with commas between")
    add("--seed", type=int, default=0, help="of the inputs")
    add("--corpus", type=pathlib.Path, default=CORPUS, help="folder of inputs that are read first, and of findings")
    add("--worker", default="", help="a reader: reads its inputs from --first on, and writes a line for each")
    add("--first", type=int, default=0, help="number of the worker's first input")
    return reports.parse(parser, arguments, repeats=30)


def _work(flags) -> int:
    corpus = corpus_of(flags.corpus, flags.worker)
    list(play(flags.worker, -1, 0, 5, []))  # imports what is imported late
    limit = _memory("VmSize") + GIB * 2**30
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for outcome in play(flags.worker, flags.seed, flags.first, flags.repeats or sys.maxsize, corpus):
        print(json.dumps(outcome), flush=True)
    return 0


def corpus_of(place: pathlib.Path, reader: str) -> list[pathlib.Path]:
    """The inputs that are kept of a reader."""
    return sorted((place / reader).glob("*.bin"))


def _report(flags) -> dict:
    readers = flags.readers.split(",")
    for name in readers:
        if name not in READERS:
            raise UserError(f"--readers={flags.readers}: {name!r} is none; expected some of {','.join(READERS)}")
    if flags.repeats < 0 or not flags.minutes > 0:
        raise UserError(f"--repeats={flags.repeats} --minutes={flags.minutes}: expected 0 or more, and more than 0")
    settings = {"minutes": flags.minutes, "seed": flags.seed, "repeats": flags.repeats, "smoke": flags.smoke,
                "bound_bytes": BOUND, "times_input": TIMES, "gib": GIB, "seconds": SECONDS,
                "lowered": {f"{room.__name__}.{name}": value for (room, name), value in LOWERED.items()}}  # fmt: skip
    report = reports.header("fuzz", PACKAGES, settings)
    results = report["readers"] = {}
    print(f"{'reader':12} {'inputs':>8} {'values':>8} {'refused':>8} {'findings':>8} {'peak MiB':>8} {'seconds':>8}")
    for name in readers:
        one = results[name] = fuzz(name, flags, 60 * flags.minutes / len(readers))
        print(f"{name:12} {one['inputs']:8} {one['values']:8} {one['refused']:8} {len(one['findings']):8} "
              f"{one['peak_mib']:8.1f} {one['seconds']:8.1f}", flush=True)  # fmt: skip
    return report


def fuzz(reader: str, flags, seconds: float) -> dict[str, Any]:
    """Reads the corpus and then inputs for so many seconds, or so many; a process that ended is started again."""
    began, corpus = time.monotonic(), corpus_of(flags.corpus, reader)
    counts, peak, findings = {"value": 0, "refused": 0, "finding": 0}, 0, {}
    number = -len(corpus)

    def is_over() -> bool:
        return number >= flags.repeats if flags.repeats else time.monotonic() - began > seconds and number >= 0

    while not is_over():
        with _Worker(reader, flags, number) as worker:
            while not is_over() and (outcome := worker.next(number)) is not None:
                counts[outcome.kind] += 1
                peak, number = max(peak, outcome.peak), outcome.number + 1
                if outcome.finding:
                    data = content(reader, flags.seed, outcome.number, corpus)
                    _keep(findings, outcome, data, flags.corpus / reader)
    return {"inputs": sum(counts.values()), "values": counts["value"], "refused": counts["refused"],
            "of_corpus": len(corpus), "peak_mib": peak / 2**20, "findings": list(findings.values()),
            "seconds": time.monotonic() - began}  # fmt: skip


def _keep(findings: dict[str, dict], outcome: Outcome, data: bytes, place: pathlib.Path) -> None:
    """Keeps the smallest input of each finding."""
    last = findings.get(outcome.finding.partition(": ")[0])
    if last and last["bytes"] <= len(data):
        return
    name = f"{hashlib.sha256(data).hexdigest()[:16]}.bin"
    place.mkdir(parents=True, exist_ok=True)
    (place / name).write_bytes(data)
    if last and last["number"] >= 0:  # found now, and larger
        (place / last["file"]).unlink(missing_ok=True)
    findings[outcome.finding.partition(": ")[0]] = {
        "finding": outcome.finding, "file": name, "bytes": len(data), "number": outcome.number
    }  # fmt: skip
    print(f"finding: {place / name}, {len(data)} bytes, number {outcome.number}: {outcome.finding}", flush=True)


def _command(reader: str, flags, first: int) -> list[str]:
    words = {"worker": reader, "seed": flags.seed, "first": first, "repeats": flags.repeats, "corpus": flags.corpus}
    return [sys.executable, __file__, *(f"--{name}={value}" for name, value in words.items())]


class _Worker:
    """A process that reads inputs, see `_work`."""

    def __init__(self, reader: str, flags, first: int):
        self._errors = tempfile.TemporaryFile()
        environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
        options = {"stdout": subprocess.PIPE, "stderr": self._errors, "env": environment}
        self._process = subprocess.Popen(_command(reader, flags, first), **options)

    def __enter__(self) -> "_Worker":
        return self

    def __exit__(self, *rest) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def next(self, number: int) -> Outcome | None:
        """What came of the input of that number. After a finding of which the process has ended it gives None."""
        if self._process.poll() is not None and not self._ready(0.0):
            return None
        if not self._ready(PATIENCE):
            self._process.kill()
        elif line := self._process.stdout.readline():
            return Outcome(*json.loads(line))
        code = self._process.wait()
        self._errors.seek(0)
        words = self._errors.read().decode(errors="replace").strip().splitlines() or [""]
        if code > 0:
            raise UserError(f"the process that reads has failed: {words[-1]}")
        return Outcome(number, "finding", f"the process was ended by {signal.Signals(-code).name}")

    def _ready(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        return bool(ready)


if __name__ == "__main__":
    sys.exit(main())
