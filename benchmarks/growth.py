"""Tells how the cost of an image grows with resolution, batch and number of devices, as a table and three plots.

    python benchmarks/growth.py --parts=resolution,batch,devices --repeats=3

Times whole cycles of training steps of narrow networks, each point in a process of its own, and counts the all-reduces
of the compiled programs. Devices are virtual ones of the CPU: they share its cores, so that a fixed batch over more of
them gains nothing. What is measured there is the cost of dealing it out: smaller shards, what every device does again
(the optimizers, the averaged networks), and sums over memory that all share. A network is not measured.
"""

import collections
import math
import pathlib
import re
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # started as a script
    sys.path.insert(0, str(ROOT))

from benchmarks import cases, report  # noqa: E402
from benchmarks.sides import Worker  # noqa: E402
from benchmarks.step_profile import Steps  # noqa: E402
from gan_jax.errors import UserError  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "growth.json"
PLOTS = ROOT / "docs" / "images"
FAMILIES = {  # name -> (case, resolutions, batch while resolution grows, resolution while batch and devices grow)
    "stylegan2": ("stylegan2_32", (16, 32, 64, 128), 8, 32),
    "dcgan": ("dcgan_32", (32, 64, 128), 32, 32),
}
NARROW = {"stylegan2": {"channel_base": 2048, "channel_max": 64}, "dcgan": {"width": 16}}
BATCHES, DEVICES, DEALT = (4, 8, 16, 32, 64), (1, 2, 4, 8), 32  # `DEALT`: the batch that is dealt over devices
PARTS = ("resolution", "batch", "devices")
NOTE = ("Virtual devices share the cores of one CPU. Measured: dealing a fixed batch out, what every device repeats, "
        "and sums over shared memory. Not measured: a speed-up by more devices, a network between them.")  # fmt: skip
SIZES = {"f32": 4, "bf16": 2, "f16": 2, "f64": 8, "s32": 4, "u32": 4, "s64": 8, "u64": 8, "pred": 1, "s8": 1, "u8": 1}


def main(arguments: list[str] | None = None) -> int:
    """The command: 0, or 2 after a message for what its user can mend."""
    return report.command(_report, _flags(arguments))


def _report(flags) -> dict:
    _check(flags)
    result = report.header("growth", ("jax", "jaxlib", "flax", "optax", "numpy", "matplotlib"), _settings(flags))
    result |= {"note": NOTE, "parts": {part: {} for part in flags.parts}}
    for part in flags.parts:
        for family in flags.families:
            print("\n".join(head(part, family)), flush=True)
            points = result["parts"][part][family] = []
            for place in places(part, family, flags):
                points.append(measure(family, *place, flags))
                print(row(part, points), flush=True)
    if "devices" in flags.parts:
        print(NOTE)
    for file in plot(result["parts"], flags.plots) if flags.plots else ():
        print(f"written: {file}")
    return result


def _flags(arguments):
    parser = report.parser(__doc__, RESULTS, repeats=(3, "cycles timed at each point"), smoke="tiny networks, once")
    add, words = parser.add_argument, {"type": lambda text: tuple(text.split(","))}
    numbers = {"type": lambda text: tuple(map(int, text.split(",")))}
    add("--parts", **words, default=PARTS, help=f"of {','.join(PARTS)}")
    add("--families", **words, default=tuple(FAMILIES), help=f"of {','.join(FAMILIES)}")
    add("--batches", **numbers, default=BATCHES, help="of the part batch, " + ",".join(map(str, BATCHES)))
    add("--devices", **numbers, default=DEVICES, help="of the part devices, " + ",".join(map(str, DEVICES)))
    add("--plots", type=pathlib.Path, help=f"folder of the plots, by default {PLOTS.relative_to(ROOT)}")
    flags = report.parse(parser, arguments, repeats=1, batches=(8,), devices=(1, 2))
    if not flags.smoke and flags.plots is None:
        flags.plots = PLOTS
    return flags


def _check(flags) -> None:
    for name, choices in (("parts", PARTS), ("families", FAMILIES)):
        values = getattr(flags, name)
        if not set(values) <= set(choices):
            raise UserError(f"--{name}={','.join(values)}: expected some of {','.join(choices)}")
    if flags.repeats < 1:
        raise UserError(f"--repeats={flags.repeats}: expected 1 or more")
    for batch in flags.batches:
        if batch < 4 or batch % 4:
            raise UserError(f"--batches={batch}: expected multiples of 4")
    for count in flags.devices:
        if count < 1 or DEALT % (4 * count):
            raise UserError(f"--devices={count}: expected some of 1,2,4,8, for 4 images of {DEALT} on each at least")


def _settings(flags) -> dict:
    return {"device": "cpu", "precision": "float32", "threads": report.cores(), "repeats": flags.repeats,
            "smoke": flags.smoke, "networks": {} if flags.smoke else {name: NARROW[name] for name in flags.families},
            }  # fmt: skip


def places(part: str, family: str, flags) -> list[tuple[int, int, int]]:
    """(resolution, batch, devices) of the points of one line of a plot."""
    _, resolutions, batch, resolution = FAMILIES[family]
    if flags.smoke:
        resolutions, batch, resolution = (8, 16), 8, 8
    if part == "resolution":
        return [(side, batch, 1) for side in resolutions]
    if part == "batch":
        return [(resolution, size, 1) for size in flags.batches]
    return [(resolution, 8 if flags.smoke else DEALT, count) for count in flags.devices]


def case_at(family: str, resolution: int, batch: int, smoke: bool = False) -> cases.Case:
    """A narrow case of the family; StyleGAN2's layers have fewer channels the larger they are, DCGAN's more at 4 px."""
    case = cases.find(FAMILIES[family][0], smoke)
    case.config["batch_size"], case.config["data"] = batch, {"name": f"synthetic:{resolution}"}
    if "r1_gamma" in case.config["loss"]:
        case.config["loss"]["r1_gamma"] = 0.0002 * resolution**2 / batch
    if not smoke:
        for net in ("generator", "discriminator"):
            case.config[net] |= NARROW[family]
    return case._replace(shape=(resolution, resolution, 3))


def measure(family: str, resolution: int, batch: int, devices: int, flags) -> dict:
    """One point, as it stands in the JSON."""
    case = case_at(family, resolution, batch, flags.smoke)
    worker = Worker(Growing, case, devices)
    try:
        cycle = case.cycle()
        began = time.perf_counter()
        programs = worker.call("programs_of", cycle)
        compiled = time.perf_counter() - began
        worker.call("play", cycle)  # warms up
        walls, cpus = zip(*(worker.call("play", cycle) for _ in range(flags.repeats)), strict=True)
        sums, sizes = zip(*(worker.call("sum_gradients", 5) for _ in range(flags.repeats)), strict=True)
    finally:
        worker.close()
    count = batch * case.steps
    return {
        "resolution": resolution,
        "batch": batch,
        "devices": devices,
        "steps_per_cycle": case.steps,
        "ms_per_image": report.spread([1e3 * wall / count for wall in walls]),
        "cpu_ms_per_image": report.spread([1e3 * cpu / count for cpu in cpus]),
        "ms_per_step": report.spread([1e3 * wall / case.steps for wall in walls]),
        "all_reduce_alone_ms_per_step": report.spread([1e3 * seconds for seconds in sums]),
        "all_reduce_alone_bytes": sizes[0],
        "compile_seconds": compiled,
        "programs": programs,
        "all_reduces_per_step": sum(one["steps"] * one["all_reduces"] for one in programs.values()) / case.steps,
        "all_reduce_bytes_per_step": sum(one["steps"] * one["all_reduce_bytes"] for one in programs.values())
        / case.steps,
    }


class Growing(Steps):
    """The steps of a case on some devices, and what they sum over them."""

    def programs_of(self, cycle: list[tuple[str, ...]]) -> dict[str, dict]:
        """phases joined by + -> how many steps of the cycle play them, what they sum, and what they must."""
        import jax

        programs = {}
        for due, count in collections.Counter(cycle).items():
            number, size = all_reduces(self.compile(due).as_text())
            nets = [net for phase in self.run.phases if phase.name in due for net in phase.nets]
            gradients = sum(x.size * x.dtype.itemsize for net in nets for x in jax.tree.leaves(self.state.params[net]))
            programs["+".join(due)] = {"steps": count, "all_reduces": number, "all_reduce_bytes": size,
                                    "gradient_bytes": gradients}  # fmt: skip
        return programs

    def sum_gradients(self, repeats: int) -> tuple[float, int]:
        """Seconds and bytes of summing all networks' parameters, as a step does the gradients of each player once."""
        import jax
        from jax.sharding import PartitionSpec

        from gan_jax import parallel

        if ("sum",) not in self.programs:
            everywhere = PartitionSpec()

            def mean(tree):
                return parallel.mean(parallel.vary(tree))

            mapped = jax.shard_map(mean, mesh=self.mesh, in_specs=(everywhere,), out_specs=everywhere)
            self.programs["sum",] = jax.jit(mapped).lower(self.state.params).compile()
            jax.block_until_ready(self.programs["sum",](self.state.params))
        began = time.perf_counter()
        for _ in range(repeats):
            jax.block_until_ready(self.programs["sum",](self.state.params))
        return (time.perf_counter() - began) / repeats, all_reduces(self.programs["sum",].as_text())[1]


def all_reduces(text: str) -> tuple[int, int]:
    """(how many, bytes of one device that they sum) in a compiled program's text."""
    kinds = re.findall(r"= (.*?) all-reduce(?:-start)?\(", text)
    shapes = [shape for kind in kinds for shape in re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", kind)]
    counts = [(SIZES[name], math.prod(map(int, filter(None, sides.split(","))))) for name, sides in shapes]
    return len(kinds), sum(size * count for size, count in counts)


def head(part: str, family: str) -> list[str]:
    """The table's first lines for one family."""
    names = f"{'ms/image':>10} {'range':>20} {'CPU ms/image':>13} {'all-reduces':>12} {'MB':>8} {'alone, ms/step':>15}"
    return [f"{family}, by {part}", f"{'px':>5} {'batch':>6} {'devices':>8} {names} {'over the first':>15}"]


def row(part: str, points: list[dict]) -> str:
    """The table's line of the last point; its cost is told in that of the part's first one, too."""
    one = points[-1]
    wall = one["ms_per_image"]
    times = f"{wall['median']:10.3f} {wall['low']:9.3f}..{wall['high']:<9.3f} {one['cpu_ms_per_image']['median']:13.3f}"
    sums = f"{one['all_reduces_per_step']:12.1f} {one['all_reduce_bytes_per_step'] / 1e6:8.2f}"
    alone = f"{one['all_reduce_alone_ms_per_step']['median']:15.2f}"
    ratio = wall["median"] / points[0]["ms_per_image"]["median"]
    return f"{one['resolution']:5} {one['batch']:6} {one['devices']:8} {times} {sums} {alone} {ratio:15.2f}"


def plot(parts: dict[str, dict[str, list[dict]]], folder: pathlib.Path) -> list[pathlib.Path]:
    """Writes a plot of each part, and returns the files. Points are medians, bars reach from lowest to highest."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    folder.mkdir(parents=True, exist_ok=True)
    labels = {"resolution": "resolution (px)", "batch": "batch (images)", "devices": "virtual devices on one CPU"}
    files = []
    for part, families in parts.items():
        figure, axes = pyplot.subplots(figsize=(5, 3.5), layout="constrained")
        for number, (family, points) in enumerate(families.items()):
            _line(axes, part, family, points, f"C{number}")
        axes.set_xscale("log", base=2)
        if part != "devices":
            axes.set_yscale("log", subs=())
            axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
        else:
            axes.set_ylim(bottom=0)
        ticks = sorted({point[part] for points in families.values() for point in points})
        axes.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
        axes.set_xlabel(labels[part])
        axes.set_ylabel("ms per step" if part == "devices" else "ms per image")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize="small")
        files.append(folder / f"growth_{part}.png")
        figure.savefig(files[-1], dpi=150)
        pyplot.close(figure)
    return files


def _line(axes, part: str, family: str, points: list[dict], color: str) -> None:
    """One family's costs; over devices those of the whole step, and of its all-reduce alone, dashed."""
    keys = {"ms_per_image": ("-", "")}
    if part == "devices":
        keys = {"ms_per_step": ("-", ", step"), "all_reduce_alone_ms_per_step": ("--", ", all-reduce alone")}
    fixed = {"resolution": f"batch {points[0]['batch']}", "batch": f"{points[0]['resolution']} px",
             "devices": f"{points[0]['resolution']} px, batch {points[0]['batch']}"}[part]  # fmt: skip
    for key, (style, words) in keys.items():
        middle = [point[key]["median"] for point in points]
        ranges = [[m - point[key]["low"] for m, point in zip(middle, points, strict=True)],
                  [point[key]["high"] - m for m, point in zip(middle, points, strict=True)]]  # fmt: skip
        label = f"{family}{words} ({fixed})"
        axes.errorbar([point[part] for point in points], middle, ranges, label=label, color=color, linestyle=style,
                      marker="o", markersize=3, capsize=2)  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
