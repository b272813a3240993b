"""Times what passes before training: `import gan_jax.cli`, `launch.py --help`, and the command until its first step.

    python benchmarks/startup.py --experiments=experiments/digits_dcgan.py,experiments/digits_stylegan2.py --starts=3

Prints a table and writes JSON. Every start is the real `launch.py train` in a folder of its own. `cold` begins with
empty folders for programs, packed images and TFDS sets; `cached` is another run right after it, with the same folders.
It has begun when the line of its first step is printed; then the process is ended.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

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
_STEP = re.compile(r"\s*\d+ images\s+\S+ images/s ")


def main(arguments: list[str] | None = None) -> int:
    """The command: 0, or 2 after a message for what its user can mend."""
    return reports.command(_report, _flags(arguments))


def _report(flags) -> dict:
    _check(flags)
    report = reports.header("startup", ("jax", "jaxlib", "flax", "orbax-checkpoint"), _settings(flags))
    report |= {"commands": commands(flags.repeats), "starts": {}}
    print("\n".join(command_rows(report["commands"])), flush=True)
    for experiment in flags.experiments:
        report["starts"][experiment] = starts(experiment, flags.starts)
        print("\n".join(start_rows(experiment, report["starts"][experiment])), flush=True)
    return report


def _flags(arguments):
    repeats = 5, "of the import and of --help, in turn"
    parser = reports.parser(__doc__, RESULTS, repeats=repeats, smoke="a tiny experiment, once")
    add = parser.add_argument
    default = ("experiments/digits_dcgan.py", "experiments/digits_stylegan2.py")
    add("--experiments", type=lambda text: tuple(text.split(",")), default=default, help="FILE.py[:variant],...")
    add("--starts", type=int, default=3, help="of each experiment, cold and cached in turn")
    return reports.parse(parser, arguments, repeats=1, starts=1, experiments=("experiments/mixture_gan.py:smoke",))


def _check(flags) -> None:
    for name in ("repeats", "starts"):
        if getattr(flags, name) < 1:
            raise UserError(f"--{name}={getattr(flags, name)}: expected 1 or more")
    for experiment in flags.experiments:
        configs.load(str(ROOT / experiment))


def _settings(flags) -> dict:
    kept = {key: getattr(flags, key) for key in ("repeats", "starts", "smoke")}
    return {**kept, "xla_flags": os.environ.get("XLA_FLAGS", ""), "platforms": os.environ.get("JAX_PLATFORMS", "")}


def commands(repeats: int) -> dict[str, dict]:
    """Seconds of each short command in a fresh interpreter, and whether its bar is kept. Raises UserError."""
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(repeats):
        for name, words in COMMANDS.items():
            began = time.perf_counter()
            done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
            taken[name].append(time.perf_counter() - began)
            if done.returncode:
                raise UserError(f"{name} failed: {_last(done.stderr.splitlines())}")
    spreads = {name: reports.spread(values) for name, values in taken.items()}
    return {
        name: {"seconds": spread, "bar_seconds": BARS[name], "kept": spread["median"] <= BARS[name]}
        for name, spread in spreads.items()
    }


def starts(experiment: str, count: int) -> dict[str, dict]:
    """`count` cold and as many cached starts of an experiment, in turn. Raises UserError."""
    taken: dict[str, list[dict]] = {kind: [] for kind in KINDS}
    for _ in range(count):
        with tempfile.TemporaryDirectory(prefix="gan_jax_startup_") as folder:
            for kind in KINDS:
                taken[kind].append(start(experiment, pathlib.Path(folder), kind))
    result = {}
    for kind, runs in taken.items():
        result[kind] = {"first_step": reports.spread([run["first_step"] for run in runs])}
        result[kind]["parts"] = {part: reports.spread([run["parts"][part] for run in runs]) for part in PARTS}
        result[kind]["programs"] = [run["programs"] for run in runs]
    return result


def start(experiment: str, folder: pathlib.Path, kind: str) -> dict:
    """One start, ended after its first step, in which every phase is due.

    Args:
      experiment: FILE.py[:variant].
      folder: holds the caches, and the run's own folder.
      kind: names the run's folder.
    Returns:
      What `measured` finds.
    Raises:
      UserError: the command ended before its first step.
    """
    command = [sys.executable, "-X", "importtime", "launch.py", "train", f"--config={experiment}"]
    command += [f"--workdir={folder / kind}", "--config.every.log_images=1"]
    began, lines = time.perf_counter(), []
    with subprocess.Popen(
        command, cwd=ROOT, env=_environment(folder), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            for line in process.stdout:
                lines.append((time.perf_counter() - began, line))
                if _STEP.match(line):
                    return measured(lines)
        finally:
            process.kill()
    raise UserError(f"{' '.join(command)}: ended before its first step: {_last([line for _, line in lines])}")


def _environment(folder: pathlib.Path) -> dict[str, str]:
    """Ours, with caches of its own and nothing else in their place."""
    kept = {key: value for key, value in os.environ.items() if key != "JAX_COMPILATION_CACHE_DIR"}
    own = {"GAN_JAX_CACHE_DIR": str(folder / "cache"), "GAN_JAX_DATA_DIR": str(folder / "data")}
    return {**kept, **own, "JAX_LOG_COMPILES": "1"}


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
        if found := _IMPORT.search(line):
            part, seconds = "import", int(found[1]) / 1e6
        elif found := _PROGRAM.search(line):
            part, seconds = _WHAT[found["what"]], float(found["seconds"])
            programs += part == "compilation"
        else:
            continue
        parts[part] += seconds
        parts["prepare" if at <= headline else "step"] -= seconds
    return {"first_step": total, "parts": {part: max(s, 0.0) for part, s in parts.items()}, "programs": programs}


def _last(lines: list[str]) -> str:
    told = [line.strip() for line in lines if line.strip() and not _IMPORT.search(line)]
    return told[-1][:300] if told else "it printed nothing"


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
    for kind, row in kinds.items():
        parts = [row["parts"][part]["median"] for part in PARTS]
        told = "{:9.2f} {:9.2f} {:12.2f} {:9.2f} {:9.2f}".format(*parts)
        lines.append(f"  {kind:6}     {_columns(row['first_step'])} {told}")
    return lines


def _columns(spread: dict) -> str:
    return f"{spread['median']:8.2f} {spread['low']:7.2f}..{spread['high']:<7.2f}"


if __name__ == "__main__":
    sys.exit(main())
