"""Times every stage of evaluation in gan_jax beside torch-fidelity and pytorch-fid, on the CPU.

    python benchmarks/metrics.py --images=64 --batches=16,32 --repeats=3

Prints a table and writes JSON. Before anything is timed, all sides must give equal resized images and equal Inception
features for equal images and weights; the distances of the timed calls are compared afterwards.
"""

import importlib.util
import pathlib
import statistics
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # started as a script
    sys.path.insert(0, str(ROOT))

from benchmarks import cases  # noqa: E402
from benchmarks import report as reports  # noqa: E402
from benchmarks.metrics_sides import SIDES, WAYS, Play, Work  # noqa: E402
from benchmarks.sides import Worker  # noqa: E402
from gan_jax.errors import UserError  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "metrics.json"
OURS = "gan_jax"
STAGES = SIDES[OURS].stages
DISTANCES = ("frechet", "kid")
NEEDED = {  # by side: modules, and the line that installs them
    "torch-fidelity": (("torch", "torchvision", "torch_fidelity"), "pip install torch torchvision torch-fidelity"),
    "pytorch-fid": (("torch", "torchvision", "pytorch_fid"), "pip install torch torchvision pytorch-fid"),
}
# Largest difference, relative to the largest value; torch-fidelity takes its kernel distance in float32.
TOLERANCE = {"resize": 1e-5, "resize_features": 1e-4, "frechet": 1e-6, "kid_mean": 1e-3, "kid_std": 1e-2}
QUIET = 0.2  # range of repeats over their median, above which they are to be repeated


def main(arguments: list[str] | None = None) -> int:
    """The command: 0, or 2 after a message for what its user can mend."""
    return reports.command(_report, _flags(arguments))


def _report(flags) -> dict:
    _check(flags)
    sides, left_out = _available(flags.sides)
    report, workers = _header(flags, sides, left_out), {}
    print("\n".join(left_out), end="\n" if left_out else "", flush=True)
    try:
        for side in sides:
            workers[side] = Worker(SIDES[side], work(flags))
            if "frechet" not in workers[side].call("offers"):
                report["left_out"].append(f"the Frechet distance of {side} is left out: pip install 'scipy<1.18'")
                print(report["left_out"][-1], flush=True)
        measure(workers, report, flags)
    finally:
        for worker in workers.values():
            worker.close()
    return report


def _flags(arguments):
    repeats, smoke = (3, "calls timed on each side, in turn"), "few images, Inception's first layers"
    parser = reports.parser(__doc__, RESULTS, repeats=repeats, smoke=smoke)
    add, words = parser.add_argument, {"type": lambda text: tuple(text.split(","))}
    add("--sides", **words, default=tuple(SIDES), help=f"gan_jax, and some of {','.join(NEEDED)}")
    add("--stages", **words, default=STAGES, help=f"of {','.join(STAGES)}")
    add("--images", type=int, default=64, help="of one timed call")
    add("--batches", type=lambda text: tuple(map(int, text.split(","))), default=(16, 32), help="sizes, 16,32")
    add("--devices", type=int, default=1, help="of the CPU that gan_jax shards over")
    return reports.parse(parser, arguments, repeats=1, images=4, batches=(4,))


def _check(flags) -> None:
    if flags.sides[:1] != (OURS,) or not set(flags.sides) <= set(SIDES):
        raise UserError(f"--sides={','.join(flags.sides)}: expected {OURS} first, then some of {','.join(NEEDED)}")
    if not set(flags.stages) <= set(STAGES):
        raise UserError(f"--stages={','.join(flags.stages)}: expected some of {','.join(STAGES)}")
    for name in ("images", "repeats", "devices"):
        if getattr(flags, name) < 1:
            raise UserError(f"--{name}={getattr(flags, name)}: expected 1 or more")
    for batch in flags.batches:
        if batch < 4 or flags.images % batch or batch % flags.devices:
            raise UserError(f"--batches={batch}: expected 4 or more, a divisor of the {flags.images} images and a "
                            f"multiple of the {flags.devices} devices")


def _available(sides: tuple[str, ...]) -> tuple[tuple[str, ...], list[str]]:
    """(sides whose packages are installed, a line for each that is left out)."""
    installed, lines = [], []
    for side in sides:
        modules, line = NEEDED.get(side, ((), ""))
        missing = [module for module in modules if importlib.util.find_spec(module) is None]
        if missing:
            lines.append(f"{side} is left out, {', '.join(missing)} is not installed: {line}")
        else:
            installed.append(side)
    return tuple(installed), lines


def work(flags) -> Work:
    """What all sides are given; with --smoke, little of everything."""
    case = cases.find("stylegan2_32", flags.smoke)
    if not flags.smoke:
        case = case._replace(shape=(64, 64, 3), config=case.config | {"data": {"name": "synthetic:64"}})
    common = {"images": flags.images, "threads": reports.cores(), "devices": flags.devices, "generator": case}
    if flags.smoke:
        return Work(**common, size=24, output="64", rows=40, dim=8, subsets=3, subset_size=20)
    return Work(**common, size=256, output="2048", rows=5000, dim=2048, subsets=100, subset_size=1000)


def measure(workers: dict, report: dict, flags) -> None:
    """Fills the report's `differences`, `stages` and `peak_rss_mib`, and prints what it finds.

    Raises:
      UserError: two sides do not compute the same.
    """
    differences = report["differences"]
    for side, way in WAYS.items():
        if side in workers:
            errors = _differences(*(workers[name].call("check", way, flags.batches[0]) for name in (OURS, side)))
            differences[side] = errors
            words = ", ".join(f"{name} {value:.1e}" for name, value in errors.items())
            print(f"{side}: largest relative difference of {words}", flush=True)
    print("{:26} {:11} {:>5}  {:14} {:>10} {:>19} {:>7} {:>6}".format(
        "stage", "resize as", "batch", "side", "images/s", "range", "ratio", "CPU"))
    values = {}
    for play, sides in plays(workers, flags):
        entry = _time(workers, play, sides, flags)
        report["stages"].append(entry)
        print("\n".join(rows(entry)), flush=True)
    for side, worker in workers.items():
        values[side] = worker.call("values")
        report["peak_rss_mib"][side] = worker.call("peak")
    for side in set(workers) - {OURS}:
        side_values = values[side]
        if side_values:
            differences[side] |= _differences({name: values[OURS][name] for name in side_values}, side_values)
    noisy = [entry for entry in report["stages"] if _noise(entry) > QUIET]
    for entry in noisy:
        print(f"{_title(entry)}: repeats range over {_noise(entry):.0%} of their median; repeat it on a quiet machine")


def _differences(ours: dict, theirs: dict) -> dict[str, float]:
    """The largest relative difference of each quantity. Raises UserError."""
    errors = {}
    for name in theirs:
        a, b = np.asarray(ours[name], np.float64), np.asarray(theirs[name], np.float64)
        assert a.shape == b.shape, (name, a.shape, b.shape)
        errors[name] = float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-12))
        if not errors[name] <= TOLERANCE[name]:
            raise UserError(f"{name}: the sides differ by {errors[name]:.1e}, at most {TOLERANCE[name]} is expected")
    return errors


def plays(workers: dict, flags):
    """(what is timed, sides that take part), in the order of the stages; only equal work stands side by side."""
    offers = {side: worker.call("offers") for side, worker in workers.items()}
    for stage in flags.stages:
        if stage in DISTANCES:
            yield Play(stage), tuple(side for side in workers if stage in offers[side])
            continue
        for batch in flags.batches:
            if stage == "generate_resize_features":
                yield Play(stage, "tf1", batch), (OURS,)
            elif stage == "features":
                yield Play(stage, "tf1", batch), tuple(workers)  # the packages differ only in a scale of pixels
            else:
                for way in WAYS.values():
                    others = tuple(side for side in workers if WAYS.get(side) == way)
                    if others or way == "tf1":
                        yield Play(stage, way, batch), (OURS, *others)


def _time(workers: dict, play: Play, sides: tuple[str, ...], flags) -> dict:
    """Speeds of the sides in turn, and their times over gan_jax's in neighbouring calls."""
    taken = {side: [] for side in sides}
    first = {}
    if play.batch:  # compilation and warming up; the distances compile nothing
        first = {side: workers[side].call("play", play, play.batch)[0] for side in sides}
    for _ in range(flags.repeats):
        for side in sides:
            taken[side].append(workers[side].call("play", play, flags.images))
    result = {**play._asdict(), "unit": "images/s" if play.batch else "seconds", "sides": {}}
    for side, times in taken.items():
        walls, cpus = zip(*times, strict=True)
        ours = taken[OURS]
        speeds = [flags.images / wall for wall in walls] if play.batch else walls
        name = "speed" if play.batch else "time"
        measured = {name: reports.spread(list(speeds)), "cpu_seconds": reports.spread(list(cpus))}
        if side in first:
            share = play.batch / flags.images
            measured["compile_seconds"] = max(first[side] - share * statistics.median(walls), 0.0)
        if side != OURS:
            for number, name in enumerate(("ratio", "ratio_cpu")):
                pairs = zip(times, ours, strict=True)
                measured[name] = reports.spread([other[number] / base[number] for other, base in pairs])
        result["sides"][side] = measured
    return result


def rows(entry: dict) -> list[str]:
    """Lines of the table for one stage."""
    lines = []
    for side, measured in entry["sides"].items():
        spread = measured["speed" if entry["batch"] else "time"]
        unit = "" if entry["batch"] else " s"
        name, way, batch = (entry["stage"], entry["way"], entry["batch"] or "") if side == OURS else ("", "", "")
        line = f"{name:26} {way:11} {batch:>5}  {side:14} {spread['median']:8.2f}{unit or '  '}"
        line += f" {spread['low']:8.2f}..{spread['high']:<8.2f}"
        if "ratio" in measured:
            line += f" {measured['ratio']['median']:8.2f} {measured['ratio_cpu']['median']:6.2f}"
        lines.append(line)
    return lines


def _noise(entry: dict) -> float:
    """The widest range of a side's repeats, over their median."""
    spreads = [measured["speed" if entry["batch"] else "time"] for measured in entry["sides"].values()]
    return max((spread["high"] - spread["low"]) / spread["median"] for spread in spreads)


def _title(entry: dict) -> str:
    return " ".join(str(entry[key]) for key in ("stage", "way", "batch") if entry[key])


def _header(flags, sides: tuple[str, ...], left_out: list[str]) -> dict:
    task = work(flags)
    packages = ("jax", "jaxlib", "flax", "numpy")
    if len(sides) > 1:
        packages += ("torch", "scipy", *(side for side in sides if side != OURS))
    generator = {"resolution": task.generator.shape[0], **task.generator.config["generator"]}
    settings = {
        "device": "cpu", "precision": "float32", "repeats": flags.repeats, "smoke": flags.smoke,
        **{key: value for key, value in task._asdict().items() if key != "generator"}, "generator": generator,
    }
    results = {"left_out": left_out, "differences": {}, "stages": [], "peak_rss_mib": {}}
    return {**reports.header("metrics", packages, settings), **results}


if __name__ == "__main__":
    sys.exit(main())
