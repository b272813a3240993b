"""How fast small networks are trained with several steps in a program, and with the data on the device.

    python benchmarks/dispatch.py --repeats=5

Both are options of every run, `config.steps_per_call` and `config.resident_data`. All ways of a case take turns in one
process, each over the same steps of the loop that `train` plays: its stream of batches, its programs, its State.
"""

import math
import pathlib
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # started as a script
    sys.path.insert(0, str(ROOT))

from benchmarks import report as reports  # noqa: E402
from gan_jax.errors import UserError  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "dispatch.json"
CASES = ("mixture_gan", "digits_dcgan:smoke", "digits_dcgan")  # experiments, with variants
COUNTS = (1, 4, 16)
COLUMNS = "{:24} {:>14} {:>8} {:>10} {:>18} {:>10} {:>16} {:>10}"


def main(arguments: list[str] | None = None) -> int:
    """The command: 0, or 2 after a message for what its user can mend."""
    return reports.command(_report, _flags(arguments))


def _report(flags) -> dict:
    import jax

    _check(flags)
    settings = {"device": jax.default_backend(), "precision": "float32", "threads": reports.cores(),
                "repeats": flags.repeats, "seconds": flags.seconds, "smoke": flags.smoke}  # fmt: skip
    report = reports.header("dispatch", ("jax", "jaxlib", "flax", "optax", "numpy"), settings)
    report["cases"] = {}
    names = "steps a call", "data", "images/s", "range", "us a step", "ratio (range)", "compile s"
    print(COLUMNS.format("", *names))
    for name in flags.models:
        report["cases"][name] = measure(name, flags)
        print("\n".join(rows(name, report["cases"][name])), flush=True)
    return report


def _flags(arguments):
    parser = reports.parser(__doc__, RESULTS, repeats=(5, "of each way, in turn"), smoke="two cases, one repeat")
    add = parser.add_argument
    add("--models", type=lambda text: tuple(text.split(",")), default=CASES, help=f"of {','.join(CASES)}")
    add("--counts", type=lambda text: tuple(map(int, text.split(","))), default=COUNTS, help="steps a call, 1,4,16")
    add("--seconds", type=float, default=2.0, help="of one repeat, rounded up to whole cycles and calls")
    return reports.parse(parser, arguments, repeats=1, seconds=0.01, counts=(1, 2), models=CASES[:2])


def _check(flags) -> None:
    for name in flags.models:
        if name not in CASES:
            raise UserError(f"--models={name}: expected some of {','.join(CASES)}")
    if flags.repeats < 1 or min(flags.counts) < 1 or flags.counts[0] != 1:
        raise UserError("--repeats, --counts: expected 1 or more, and 1 as the first of the counts")


class Loop:
    """The loop of `train` over one experiment, without what it writes."""

    def __init__(self, name: str, count: int, resident: bool):
        import jax

        from gan_jax import parallel, programs, run_data, runs

        file, _, variant = name.partition(":")
        overrides = [("steps_per_call", str(count)), ("resident_data", str(resident)), ("every.log_images", "0"),
                     ("every.sample_images", "0"), ("every.checkpoint_images", "0"),
                     ("every.evaluate_images", "0")]  # fmt: skip
        config = runs.load_config(f"{ROOT / 'experiments' / file}.py{':' if variant else ''}{variant}", overrides)
        dataset = run_data.open_data(config)
        self.run = runs.build(config, run_data.data_spec(config, dataset))
        mesh = parallel.make_mesh(jax.devices()[:1])
        self.calls = programs.prepare(self.run, dataset, mesh)
        self.stream = self.calls.stream(self.run, dataset, 0)
        self.state = parallel.replicate(runs.pack(self.run, runs.fresh_state(self.run), mesh), mesh)
        self.step, self.count = 0, count
        self.unit = math.lcm(count, *(phase.every for phase in self.run.phases))  # steps of whole calls and cycles

    def play(self, units: int) -> float:
        """Seconds of so many units, from the first batch to the last result."""
        import jax

        began, end = time.perf_counter(), self.step + units * self.unit
        while self.step < end:
            batch = self.calls.put(self.run, [next(self.stream) for _ in range(self.count)])
            self.state, metrics = self.calls.of(self.run, self.step, self.count)(self.state, batch)
            self.step += self.count
        jax.block_until_ready((self.state, metrics))
        return time.perf_counter() - began

    def close(self) -> None:
        """Ends the stream's thread."""
        self.stream.close()


def measure(name: str, flags) -> dict:
    """Images per second of every way, as it stands in the JSON."""
    ways = [(count, resident) for resident in (False, True) for count in flags.counts]
    if name.startswith("mixture"):  # drawn while it is used: there is nothing to keep
        ways = [(count, resident) for count, resident in ways if not resident]
    loops = {way: Loop(name, *way) for way in ways}
    try:
        first = {way: loop.play(1) for way, loop in loops.items()}
        again = {way: loop.play(1) for way, loop in loops.items()}
        units = {way: max(math.ceil(flags.seconds / again[way]), 1) for way in ways}
        seconds: dict[tuple, list[float]] = {way: [] for way in ways}
        for _ in range(flags.repeats):
            for way, loop in loops.items():
                seconds[way].append(loop.play(units[way]) / units[way] / loop.unit)  # seconds of a step
    finally:
        for loop in loops.values():
            loop.close()
    batch = loops[ways[0]].run.config.batch_size
    return {"batch_size": batch, "ways": [
        {"steps_per_call": count, "resident_data": resident,
         "images_per_second": reports.spread([batch / s for s in seconds[count, resident]]),
         "microseconds_per_step": reports.spread([1e6 * s for s in seconds[count, resident]]),
         "ratio": reports.spread([a / b for a, b in zip(seconds[ways[0]], seconds[count, resident], strict=True)]),
         "compile_seconds": max(first[count, resident] - again[count, resident], 0.0)}
        for count, resident in ways]}  # fmt: skip


def rows(name: str, result: dict) -> list[str]:
    """Lines of the table for one case."""
    lines = []
    for way in result["ways"]:
        speed, ratio = way["images_per_second"], way["ratio"]
        lines.append(COLUMNS.format(
            name, way["steps_per_call"], "device" if way["resident_data"] else "host",
            f"{speed['median']:.0f}", f"{speed['low']:.0f}..{speed['high']:.0f}",
            f"{way['microseconds_per_step']['median']:.0f}",
            f"{ratio['median']:.2f} ({ratio['low']:.2f}..{ratio['high']:.2f})", f"{way['compile_seconds']:.1f}",
        ))  # fmt: skip
        name = ""
    return lines


if __name__ == "__main__":
    sys.exit(main())
