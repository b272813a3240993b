"""Times what passes before training: `import gan_jax.cli`, `launch.py --help`, and the command until its first step.

    python benchmarks/startup.py --experiments=experiments/digits_dcgan.py,experiments/digits_stylegan2.py --starts=3
    python benchmarks/startup.py --experiments=experiments/ffhq_stylegan2.py:F_256 --override=data.name=folder:faces \
        --xla_flags="" --xla_flags=--xla_gpu_autotune_level=2 --images=16000

Prints a table and writes JSON. Every start is the real `launch.py train` in a folder of its own. `cold` begins with
empty folders for programs, packed images and TFDS sets; `cached` is another run right after it, with the same folders.
It has begun when the line of its first step is printed; then the process is ended. With `--images` a third run, cached
too, goes on for so many images and tells its rate: what is saved at the start may be lost in each step.
"""

import itertools
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # started as a script
    sys.path.insert(0, str(ROOT))

from benchmarks import report as reports  # noqa: E402
from gan_jax import config as configs  # noqa: E402
from gan_jax.errors import UserError  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "startup.json"
COMMANDS = {"import gan_jax.cli": ("-c", "import gan_jax.cli"), "launch.py --help": ("launch.py", "--help")}
BARS = {"import gan_jax.cli": 1.5, "launch.py --help": 2.0}  # seconds, for the median
KINDS = ("cold", "cached")
PARTS = ("import", "lowering", "compilation", "prepare", "step")
# What Python's -X importtime and JAX_LOG_COMPILES print: microseconds of a module alone, and seconds of a program.
_IMPORT = re.compile(r"import time:\s*(\d+) \|")
_WHAT = {"jaxpr to MLIR module conversion": "lowering", "XLA compilation": "compilation"}
_PROGRAM = re.compile(rf"Finished (?P<what>{'|'.join(_WHAT)}) .* in (?P<seconds>\S+) sec")
_HEADLINE = re.compile(r"(new run|resumed at .*): .* parameters; ")
_STEP = re.compile(r"\s*(?P<images>\d+) images\s+(?P<rate>\S+) images/s ")
LOGS = 4  # lines of a run that tells its rate: the first holds the first step


def main(arguments: list[str] | None = None) -> int:
    """The command: 0, or 2 after a message for what its user can mend."""
    return reports.command(_report, _flags(arguments))


def _report(flags) -> dict:
    _check(flags)
    report = reports.header("startup", ("jax", "jaxlib", "flax", "orbax-checkpoint"), _settings(flags))
    report |= {"commands": commands(flags.repeats), "starts": {}}
    print("\n".join(command_rows(report["commands"])), flush=True)
    began = time.monotonic()
    for experiment, xla_flags in itertools.product(flags.experiments, flags.xla_flags):
        if flags.seconds and time.monotonic() - began > flags.seconds:
            print(f"{flags.seconds:g} s are over: {experiment} {xla_flags} was not started")
            continue
        name = f"{experiment} {xla_flags}".strip()
        way = Way(experiment, tuple(flags.override), xla_flags)
        report["starts"][name] = starts(way, flags.starts, flags.images)
        print("\n".join(start_rows(name, report["starts"][name])), flush=True)
        reports.write(report, flags.out)
    return report


def _flags(arguments):
    repeats = 5, "of the import and of --help, in turn"
    parser = reports.parser(__doc__, RESULTS, repeats=repeats, smoke="a tiny experiment, once")
    add = parser.add_argument
    default = ("experiments/digits_dcgan.py", "experiments/digits_stylegan2.py")
    add("--experiments", type=lambda text: tuple(text.split(",")), default=default, help="FILE.py[:variant],...")
    add("--starts", type=int, default=3, help="of each experiment, cold and cached in turn")
    add("--override", action="append", default=[], help="KEY=VALUE of the config; may be repeated")
    add("--xla_flags", action="append", help="flags of XLA beside those of the environment; each is timed in turn")
    add("--images", type=int, default=0, help="of a run that tells its rate; 0: none")
    add("--seconds", type=float, default=0.0, help="after which nothing more is started; 0: no end")
    flags = reports.parse(parser, arguments, repeats=1, starts=1, experiments=("experiments/mixture_gan.py:smoke",))
    flags.xla_flags = flags.xla_flags or [""]
    return flags


def _check(flags) -> None:
    for name in ("repeats", "starts"):
        if getattr(flags, name) < 1:
            raise UserError(f"--{name}={getattr(flags, name)}: expected 1 or more")
    for pair in flags.override:
        if "=" not in pair:
            raise UserError(f"--override={pair}: expected KEY=VALUE")
    for experiment in flags.experiments:
        configs.load(str(ROOT / experiment))


def _settings(flags) -> dict:
    values = {key: getattr(flags, key) for key in ("repeats", "starts", "smoke", "override", "images")}
    return {**values, "xla_flags": os.environ.get("XLA_FLAGS", ""), "platforms": os.environ.get("JAX_PLATFORMS", "")}


def commands(repeats: int) -> dict[str, dict]:
    """Seconds of each short command in a fresh interpreter, and whether its bar is kept. Raises UserError."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(repeats):
        for name, words in COMMANDS.items():
            began = time.perf_counter()
            process = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
            seconds[name].append(time.perf_counter() - began)
            if process.returncode:
                raise UserError(f"{name} failed: {_last(process.stderr.splitlines())}")
    spreads = {name: reports.spread(values) for name, values in seconds.items()}
    return {
        name: {"seconds": spread, "bar_seconds": BARS[name], "kept": spread["median"] <= BARS[name]}
        for name, spread in spreads.items()
    }


class Way(NamedTuple):
    """How a run is started."""

    experiment: str  # FILE.py[:variant]
    overrides: tuple[str, ...] = ()  # KEY=VALUE of its config
    xla_flags: str = ""  # beside those of the environment

    def command(self, workdir: pathlib.Path, log_images: int) -> list[str]:
        """The words after the interpreter's name."""
        words = ["launch.py", "train", f"--config={self.experiment}", f"--workdir={workdir}"]
        return [*words, f"--config.every.log_images={log_images}", *(f"--config.{pair}" for pair in self.overrides)]


def starts(way: Way, count: int, images: int = 0) -> dict[str, dict]:
    """`count` cold and as many cached starts, in turn, and the rate over so many images. Raises UserError."""
    measurements: dict[str, list[dict]] = {kind: [] for kind in KINDS}
    rates = []
    for _ in range(count):
        with tempfile.TemporaryDirectory(prefix="gan_jax_startup_") as folder:
            for kind in KINDS:
                measurements[kind].append(start(way, pathlib.Path(folder), kind))
            if images:
                rates.append(rate(way, pathlib.Path(folder), images))
    result = {}
    for kind, runs in measurements.items():
        result[kind] = {"first_step": reports.spread([run["first_step"] for run in runs])}
        result[kind]["parts"] = {part: reports.spread([run["parts"][part] for run in runs]) for part in PARTS}
        result[kind]["programs"] = [run["programs"] for run in runs]
    return result | ({"images_per_second": reports.spread(rates)} if images else {})


def start(way: Way, folder: pathlib.Path, kind: str) -> dict:
    """One start, ended after its first step, in which every phase is due.

    Args:
      way: what is started, and how.
      folder: holds the caches, and the run's own folder.
      kind: names the run's folder.
    Returns:
      What `measured` finds.
    Raises:
      UserError: the command ended before its first step.
    """
    lines = []
    for seconds, line in _output(["-X", "importtime", *way.command(folder / kind, 1)], _environment(folder, way)):
        lines.append((seconds, line))
        if _STEP.match(line):
            return measured(lines)
    raise UserError(f"{way.experiment}: ended before its first step: {_last([line for _, line in lines])}")


def rate(way: Way, folder: pathlib.Path, images: int) -> float:
    """Images/s that a run tells after so many images, over their last quarter. Raises UserError if it ends before."""
    lines = []
    for _, line in _output(way.command(folder / "rate", max(images // LOGS, 1)), _environment(folder, way)):
        lines.append(line)
        if (step := _STEP.match(line)) and int(step["images"]) >= images:
            return float(step["rate"].replace(",", ""))
    raise UserError(f"{way.experiment}: ended before {images} images: {_last(lines)}")


def _output(words: list[str], environment: dict[str, str]) -> Iterator[tuple[float, str]]:
    """(seconds since the start, line) of a Python command, which is killed when no more is read."""
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            for line in process.stdout:
                yield time.perf_counter() - began, line
        finally:
            process.kill()


def _environment(folder: pathlib.Path, way: Way) -> dict[str, str]:
    """Ours, with the flags of that way, caches of its own and nothing else in their place."""
    inherited = {key: value for key, value in os.environ.items() if key != "JAX_COMPILATION_CACHE_DIR"}
    settings = {"GAN_JAX_CACHE_DIR": str(folder / "cache"), "GAN_JAX_DATA_DIR": str(folder / "data")}
    settings["XLA_FLAGS"] = " ".join(filter(None, (os.environ.get("XLA_FLAGS"), way.xla_flags)))
    return {**inherited, **settings, "JAX_LOG_COMPILES": "1"}


def measured(lines: list[tuple[float, str]]) -> dict:
    """What the output of a start tells.

    Args:
      lines: (seconds since the start, text), the last one that of the first step.
    Returns:
      `first_step`, seconds until it was done; `parts`: imports, lowering and compilation of all programs (or fetching
      them), `prepare`, all else before the run's headline (data, folder, State), and `step`, all else after it
      (tracing, and the step itself), 0 where nothing else is left; and `programs`, how many there were. Programs are
      compiled side by side, and while State is drawn, so that the parts add up to more than the whole.
    """
    total = lines[-1][0]
    headline = next((at for at, line in lines if _HEADLINE.match(line)), total)
    parts, programs = dict.fromkeys(PARTS, 0.0), 0
    parts |= {"prepare": headline, "step": total - headline}
    for at, line in lines:
        if match := _IMPORT.search(line):
            part, seconds = "import", int(match[1]) / 1e6
        elif match := _PROGRAM.search(line):
            part, seconds = _WHAT[match["what"]], float(match["seconds"])
            programs += part == "compilation"
        else:
            continue
        parts[part] += seconds
        parts["prepare" if at <= headline else "step"] -= seconds
    return {"first_step": total, "parts": {part: max(s, 0.0) for part, s in parts.items()}, "programs": programs}


def _last(lines: list[str]) -> str:
    texts = [line.strip() for line in lines if line.strip() and not _IMPORT.search(line)]
    return texts[-1][:300] if texts else "it printed nothing"


def command_rows(commands: dict[str, dict]) -> list[str]:
    """Lines of the table of short commands."""
    lines = ["{:32} {:>8} {:>16} {:>6}".format("command", "seconds", "range", "bar")]
    for name, row in commands.items():
        verdict = "kept" if row["kept"] else "NOT kept"
        lines.append(f"{name:32} {_columns(row['seconds'])} {row['bar_seconds']:6.1f} {verdict}")
    return lines


def start_rows(experiment: str, kinds: dict[str, dict]) -> list[str]:
    """Lines of the table of starts for one experiment."""
    columns = "start", "to 1st step", "range", *PARTS
    lines = [experiment, "  {:6} {:>12} {:>16} {:>9} {:>9} {:>12} {:>9} {:>9}".format(*columns)]
    for kind in KINDS:
        row = kinds[kind]
        parts = [row["parts"][part]["median"] for part in PARTS]
        seconds = "{:9.2f} {:9.2f} {:12.2f} {:9.2f} {:9.2f}".format(*parts)
        lines.append(f"  {kind:6}     {_columns(row['first_step'])} {seconds}")
    if "images_per_second" in kinds:
        lines.append(f"  images/s   {_columns(kinds['images_per_second'])}")
    return lines


def _columns(spread: dict) -> str:
    return f"{spread['median']:8.2f} {spread['low']:7.2f}..{spread['high']:<7.2f}"


if __name__ == "__main__":
    sys.exit(main())
