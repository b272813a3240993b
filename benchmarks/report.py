"""What every benchmark's JSON says beside its numbers: machine, versions, settings, load; and how repeats are told."""

import argparse
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable

from gan_jax.errors import UserError


def parser(
    doc: str, results: pathlib.Path, *, smoke: str, repeats: tuple[int, str] | None = None
) -> argparse.ArgumentParser:
    """The flags that every benchmark has; it adds its own.

    Args:
      doc: of the benchmark's module.
      results: the JSON file that is written by default.
      smoke: what the smoke form is.
      repeats: how many by default, and of what; None for one that repeats nothing.
    """
    options = argparse.ArgumentParser(description=doc.splitlines()[0])
    if repeats:
        options.add_argument("--repeats", type=int, default=repeats[0], help=repeats[1])
    options.add_argument("--smoke", action="store_true", help=f"{smoke}, nothing written unless --out is given")
    options.add_argument("--out", type=pathlib.Path, help=f"JSON file, by default benchmarks/results/{results.name}")
    options.set_defaults(results=results)
    return options


def parse(parser: argparse.ArgumentParser, arguments: list[str] | None, **smoke) -> argparse.Namespace:
    """The flags given, with `smoke`'s values in smoke form; else the report goes to its usual file."""
    flags = parser.parse_args(arguments)
    if flags.smoke:
        vars(flags).update(smoke)
    elif flags.out is None:
        flags.out = flags.results
    return flags


def command(measure: Callable[[argparse.Namespace], dict], flags: argparse.Namespace) -> int:
    """Measures and writes the report: 0, or 2 after a message for what the command's user can mend."""
    try:
        _writable(flags.out)
        report = measure(flags)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    write(report, flags.out)
    return 0


def _writable(out: pathlib.Path | None) -> None:
    """Raises UserError where no file can be written there, before anything is measured."""
    if out is None:
        return
    existed = out.exists()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.open("a", encoding="utf-8").close()
        if not existed:
            out.unlink(missing_ok=True)  # another benchmark may have asked for it, too
    except OSError as error:
        raise UserError(f"--out={out} cannot be written ({error.strerror}); give another file") from error


def header(name: str, packages: tuple[str, ...], settings: dict) -> dict:
    """The beginning of a report; the benchmark adds what it measures.

    Args:
      name: of the benchmark.
      packages: distributions whose versions matter.
      settings: JSON values, everything that was chosen.
    """
    return {
        "benchmark": name,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "code": revision(),
        "machine": machine(),
        "versions": {"python": platform.python_version(), **{p: importlib.metadata.version(p) for p in packages}},
        "settings": settings,
        "load_average": {"before": load_average()},
    }


def write(report: dict, out: pathlib.Path | None) -> None:
    """Notes the load at the end, and writes the report where a file is given."""
    report["load_average"]["after"] = load_average()
    if out:
        out.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        print(f"written: {out}")


def spread(values: list[float]) -> dict:
    """Repeats of one quantity, in the order in which they were taken."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values), "all": list(values)}


def machine() -> dict:
    """Processor, cores of this process, memory, system and NVIDIA's GPUs."""
    model = platform.processor() or platform.machine()
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        models = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        model = models[0] if models else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    computer = {"cpu": model, "cores": cores(), "memory_gib": round(memory / 2**30, 1), "system": platform.system()}
    return computer | ({"gpus": gpus()} if gpus() else {})


def gpus() -> list[str]:
    """Name, memory and driver of each GPU, by NVIDIA's driver; JAX, which would take their memory, is not asked."""
    command = ("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return []


def revision() -> str:
    """The commit of what is measured, with `-dirty` where the code differs from it; "" outside of git."""
    root = pathlib.Path(__file__).parents[1]

    def git(*words):
        return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "gan_jax", "experiments", "benchmarks", ":!benchmarks/results")
        return git("rev-parse", "--short=12", "HEAD") + ("-dirty" if changed else "")
    except FileNotFoundError:
        return ""


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load_average() -> list[float]:
    """Processes that wanted a core over the last 1, 5 and 15 minutes."""
    return list(os.getloadavg())
