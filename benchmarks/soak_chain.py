"""A run of the soak: started again and again in one folder until it is complete, and compared with a whole one."""

import contextlib
import hashlib
import itertools
import json
import os
import pathlib
import select
import socket
import subprocess
import sys
import threading
import time
from typing import NamedTuple

import jax
import numpy as np

from gan_jax import folders, logs, parallel, runs

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROGRAM = ROOT / "benchmarks" / "soak_run.py"
BATCH = 256
# Lines, samples, measurements and checkpoints lie at steps of their own, and together at some.
SETTINGS = {
    "batch_size": BATCH, "grid": 64, "evaluation.samples": 512,
    "generator.widths": "(32,32)", "discriminator.widths": "(32,32)",
    "every.log_images": 6 * BATCH, "every.sample_images": 24 * BATCH, "every.evaluate_images": 24 * BATCH,
    "every.checkpoint_images": 8 * BATCH,
}  # fmt: skip
EVERY_STEP = {"every.checkpoint_images": BATCH, "checkpoints.keep": 1000}
PICTURES = {"data.resolution": 8, "data.channels": 1, "evaluation.metrics": "()"}
PHASES = {  # what the loop says that it does -> the phase of a run; of what processes say who meet, `start`
    "starting JAX": "start", "train: at work": "start", "opening the data": "start",
    "making or restoring the networks": "compile", "loading what the metrics need": "compile",
    "training": "step", "": "step", "drawing samples": "sample", "measuring": "evaluate",
    "saving a checkpoint": "save",
}  # fmt: skip
LIMIT_SECONDS = 240.0  # until a process counts as hung
_VARIABLE = ("images_per_second", "seconds")  # of rows; all else is the same in every run
_READING = threading.Lock()  # lanes restore one at a time


class Told(NamedTuple):
    """A phase, and when it began, by the system's monotonic clock."""

    phase: str
    began: float


class Attempt:
    """The processes of one start, what phases the first one tells, and what was done to them."""

    def __init__(self, words: list[str], count: int, environment: dict[str, str], outputs: pathlib.Path):
        """Starts them.

        Args:
          words: of the command, after the program's name.
          count: of processes, which are to meet where they are several.
          environment: of all.
          outputs: folder for what they print.
        """
        self.began, self.told, self.signals = time.monotonic(), [], [set() for _ in range(count)]
        self._tells, tells = os.pipe()
        self._rest, self._outputs = b"", outputs
        meeting = ["--coordinator=127.0.0.1:" + str(_port()), f"--num_processes={count}"] if count > 1 else []
        self.processes = []
        for number in range(count):
            own = [*meeting, f"--process_id={number}"] if meeting else []
            first = {"env": {**environment, "SOAK_TELLS": str(tells)}, "pass_fds": (tells,)}
            with open(self._file(number, "out"), "w") as out, open(self._file(number, "err"), "w") as err:
                self.processes.append(subprocess.Popen(
                    [sys.executable, str(PROGRAM), *words, *own], cwd=ROOT, stdin=subprocess.PIPE, stdout=out,
                    stderr=err, **({"env": environment} if number else first),
                ))  # fmt: skip
        os.close(tells)

    def _file(self, number: int, kind: str) -> pathlib.Path:
        return self._outputs / f"{number}.{kind}"

    def output(self, number: int) -> str:
        """What a process has printed on standard output."""
        return self._file(number, "out").read_text(errors="replace")

    def errors(self, number: int) -> str:
        """What a process has printed on standard error."""
        return self._file(number, "err").read_text(errors="replace")

    def wait_for(self, phase: str, occurrence: int) -> bool:
        """Waits until a phase begins for this time; whether it did before the first process ended."""
        until = time.monotonic() + LIMIT_SECONDS
        while self.times(phase) < occurrence:
            if time.monotonic() > until or not self.listen(1.0):
                return False
        return True

    def times(self, phase: str) -> int:
        """How often a phase has begun."""
        return sum(told.phase == phase for told in self.told)

    def listen(self, seconds: float) -> bool:
        """Waits for what is told, at most so long; False where nothing more will come."""
        if not select.select([self._tells], [], [], seconds)[0]:
            return True
        received = os.read(self._tells, 1 << 16)
        *lines, self._rest = (self._rest + received).split(b"\n")
        for line in lines:
            began, _, text = line.decode().partition(" ")
            phase = PHASES.get(text, "start")
            if not self.told or self.told[-1].phase != phase:
                self.told.append(Told(phase, float(began)))
        return bool(received)

    def phase_at(self, instant: float) -> str:
        """The phase in which an instant fell, once the processes have ended."""
        while self.listen(1.0):
            pass
        return next((told.phase for told in reversed(self.told) if told.began <= instant), "start")

    def send(self, number: int, target: int | None = None) -> None:
        """Sends a signal to one process, or to all where no target is named."""
        for index, process in enumerate(self.processes):
            if target in (None, index):
                self.signals[index].add(number)
                process.send_signal(number)

    def harm(self, line: str) -> None:
        """Tells the processes to fail from inside, see `soak_run`."""
        for process in self.processes:
            with contextlib.suppress(BrokenPipeError):
                os.write(process.stdin.fileno(), f"{line}\n".encode())

    def end(self, limit: float = LIMIT_SECONDS) -> list[int | None]:
        """Waits for all processes; their exit codes, None of one that had to be killed after so many seconds."""
        until, codes = time.monotonic() + limit, []
        for process in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(until - time.monotonic(), 0.1))
            codes.append(process.poll())
        self.close()
        return codes

    def close(self) -> None:
        """Ends what is left."""
        for process in self.processes:
            process.kill()
            process.wait()
            process.stdin.close()


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Chain:
    """One run's folder, on a small disk of its own where that can be had, and how its command is given."""

    def __init__(self, folder: pathlib.Path, cache: pathlib.Path, count: int, data: str, *, steps: int, mounted: bool):
        """Makes its disk.

        Args:
          folder: holds the run, its data and what its processes print.
          cache: of compiled programs.
          count: of processes.
          data: of `DATA`.
          steps: the run's length.
          mounted: whether the run lies on a tmpfs, which `close` takes away.
        """
        self.folder, self.cache, self.count, self.data, self.mounted = folder, cache, count, data, mounted
        self.length = steps
        self.disk, self.pictures = folder / "disk", folder / "pictures"
        self.run = self.disk / "run"
        self.clock, self.good = 0.0, 0  # seconds that its clock is set by; the newest good checkpoint's step
        self.starts, self.events = 0, []  # of its command; what was done to it
        self.disk.mkdir(parents=True)
        if mounted:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "soak", str(self.disk)], check=True)
        if data == "pictures":
            _write_pictures(self.pictures)

    def close(self) -> None:
        """Takes its disk away."""
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.disk)], check=False)
        self.mounted = False

    def plain(self, text: str) -> str:
        """A message without this machine's paths and name."""
        return text.replace(str(self.disk), "").replace(str(self.folder), "").replace(socket.gethostname(), "HOST")

    def start(self, count: int = 0, **settings) -> Attempt:
        """The command, by all processes or so many, with other settings beside the chain's own."""
        values = {
            **SETTINGS,
            "total_images": self.length * BATCH,
            **(PICTURES if self.data == "pictures" else {}),
            **settings,
        }
        if self.data == "pictures":
            values["data.name"] = f"folder:{self.pictures}"
        words = ["train", f"--config={ROOT / 'experiments' / 'mixture_gan.py'}:smoke", f"--workdir={self.run}"]
        words += [f"--config.{key}={value}" for key, value in values.items()]
        self.starts += 1
        outputs = self.folder / f"start{self.starts:03}"
        outputs.mkdir()
        return Attempt(words, count or self.count, self._environment(), outputs)

    def _environment(self) -> dict[str, str]:
        """Ours, with one device, the chain's cache, and what `soak_run` is told."""
        inherited = {key: value for key, value in os.environ.items() if key != "JAX_COMPILATION_CACHE_DIR"}
        flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if "device_count" not in flag]
        settings = {"XLA_FLAGS": " ".join(flags), "GAN_JAX_CACHE_DIR": str(self.cache), "JAX_PLATFORMS": "cpu"}
        if self.clock:
            settings["SOAK_CLOCK"] = str(self.clock)
        if self.data == "pictures":
            settings["SOAK_UNPACKED"] = "1"
        return {**inherited, **settings}

    def steps(self) -> list[int]:
        """Of its complete checkpoints, newest first."""
        names = (path.name for path in (self.run / "checkpoints").glob("*"))
        return sorted(map(int, filter(str.isdecimal, names)), reverse=True)

    def is_saving(self) -> bool:
        """Whether a checkpoint is begun and not complete."""
        return any(not path.name.isdecimal() for path in (self.run / "checkpoints").glob("*"))


DATA = ("points", "pictures")


def _write_pictures(folder: pathlib.Path) -> None:
    """Sixteen pictures of 8x8, the same in every chain, of one time."""
    from PIL import Image

    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(16):
        file = folder / f"{number:02}.png"
        Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(file)
        os.utime(file, (1e9, 1e9))


class Whole:
    """What a run leaves that was never harmed, with a checkpoint of each step."""

    def __init__(self, chain: Chain, lengths: dict[str, float]):
        """`chain`: complete, with all checkpoints; `lengths`: phase -> median seconds."""
        self.lengths, self.rows, self.pictures = lengths, rows(chain), pictures(chain)
        self._chain, self._digests = chain, {}

    def digest(self, step: int) -> str:
        """Of State, position, data and sums after a step."""
        if step not in self._digests:
            self._digests[step] = restored(self._chain, step)
        return self._digests[step]


def restored(chain: Chain, step: int) -> str:
    """SHA-256 of a checkpoint's State, bit for bit, and of its position, data and sums, read as `train` reads it.

    Raises:
      UserError: it cannot be read.
    """
    with _READING:
        config, spec, _ = folders.read_folder(chain.run)
        mesh = parallel.make_mesh(jax.devices()[:1])
        loaded = folders.restore(runs.build(config, spec), chain.run, mesh, step)
        saved = {key: loaded.run[key] for key in ("position", "data", "sums")}  # and not what was measured
        digest = hashlib.sha256(json.dumps(saved, sort_keys=True).encode())
        for path, leaf in jax.tree_util.tree_leaves_with_path(loaded.state):
            array = np.asarray(leaf)
            digest.update(f"{jax.tree_util.keystr(path)} {array.shape} {array.dtype}".encode() + array.tobytes())
        return digest.hexdigest()


def rows(chain: Chain) -> dict[str, list[dict]]:
    """The lines of a run, without what is of one run alone."""
    files = {name: logs.read_lines(chain.run / name) for name in ("metrics.jsonl", "evaluations.jsonl")}
    return {
        name: [{key: value for key, value in row.items() if key not in _VARIABLE} for row in lines]
        for name, lines in files.items()
    }


def pictures(chain: Chain) -> dict[str, bytes]:
    """The files of its samples."""
    return {path.name: path.read_bytes() for path in sorted((chain.run / "samples").glob("[!.]*"))}


def unlike(chain: Chain, whole: Whole) -> str:
    """What of a complete run is not as in the whole one; '' where all is."""
    newest = max(chain.steps(), default=0)
    if newest != chain.length:
        return f"its newest checkpoint is of step {newest}"
    if restored(chain, newest) != whole.digest(newest):
        return "its final State is another one"
    for name, lines in rows(chain).items():
        if lines != whole.rows[name]:
            return f"{name} has other lines: {json.dumps(_first_difference(lines, whole.rows[name]))}"
    ours = pictures(chain)
    names = [name for name in ours.keys() | whole.pictures.keys() if ours.get(name) != whole.pictures.get(name)]
    return f"samples differ: {', '.join(sorted(names))}" if names else ""


def _first_difference(ours: list[dict], theirs: list[dict]) -> list:
    for index in range(max(len(ours), len(theirs))):
        pair = [lines[index] if index < len(lines) else None for lines in (ours, theirs)]
        if pair[0] != pair[1]:
            return pair
    return []


def lengths(attempt: Attempt) -> dict[str, float]:
    """Median seconds of each phase of a start, but for its last."""
    seconds: dict[str, list[float]] = {}
    for told, after in itertools.pairwise(attempt.told):
        seconds.setdefault(told.phase, []).append(after.began - told.began)
    return {phase: sorted(values)[len(values) // 2] for phase, values in seconds.items()}
