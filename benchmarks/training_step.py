"""Times a training step of gan_jax beside the same step in PyTorch, on a CPU or a GPU.

    python benchmarks/training_step.py --models=stylegan2_32,dcgan_32,dcgan_64 --repeats=5

Prints a table and writes JSON. Before anything is timed, both sides must give equal images, logits, losses, penalties
and norms of gradients and updates for equal weights and draws. `docs/benchmarks.md` tells how to read the result.
"""

import collections
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
from benchmarks.sides import JaxSide, TorchSide, Worker  # noqa: E402
from gan_jax.errors import UserError  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
COMPARED = ("stylegan2_32", "dcgan_32", "dcgan_64")  # by default
MATRIX = {True: 256, False: 4096}  # side of the matrices whose product is the machine's measure; with --smoke, without
# Largest difference, relative to the largest value. In a step, a few inputs of leaky ReLUs lie so near to zero that
# rounding puts them on different sides, and each moves the gradient at its pixels; all other pixels agree to 1e-7.
TOLERANCE = {"outputs": 1e-4, "steps": 1e-3}


def main(arguments: list[str] | None = None) -> int:
    """The command: 0, or 2 after a message for what its user can mend."""
    return reports.command(_report, _flags(arguments))


def _report(flags) -> dict:
    _check(flags)
    report = _header(flags)
    for name in flags.models:
        report["models"][name] = measure(cases.find(name, flags.smoke, flags.batch), flags)
        print("\n".join(rows(name, report["models"][name])), flush=True)
    return report


def _flags(arguments):
    repeats = 5, "cycles timed on each side, in turn"
    parser = reports.parser(__doc__, RESULTS / "training_step_cpu.json", repeats=repeats, smoke="tiny networks, once")
    add, words = parser.add_argument, {"type": lambda text: tuple(text.split(","))}
    add("--models", **words, default=COMPARED, help=f"of {','.join(cases.names())}")
    add("--batch", type=int, default=0, help="another batch than the case's own")
    add("--weighted", action="store_true", help="each set of phases once, counted as often as a cycle has it")
    add("--platform", default="cpu", help="cpu or cuda; the reference of StyleGAN2 knows the CPU alone")
    add("--sides", **words, default=("jax", "torch"), help="jax,torch, or jax alone")
    add("--phases", action="store_true", help="time each phase alone too")
    add("--compile", action="store_true", help="torch.compile, but for the penalties")
    add("--channels-last", action="store_true", help="PyTorch's other layout of images")
    add("--shared-fakes", action="store_true", help="both players of DCGAN see the same fakes, as in PyTorch's example")
    flags = reports.parse(parser, arguments, repeats=1)
    if flags.out == flags.results:
        flags.out = RESULTS / f"training_step_{flags.platform}.json"
    return flags


def _check(flags) -> None:
    for name in flags.models:
        if name not in cases.names():
            raise UserError(f"--models={name}: expected some of {','.join(cases.names())}")
    if flags.sides not in (("jax",), ("jax", "torch")):
        raise UserError(f"--sides={','.join(flags.sides)}: expected jax,torch or jax")
    if flags.platform not in ("cpu", "cuda"):
        raise UserError(f"--platform={flags.platform}: expected cpu or cuda")
    for name, least in (("repeats", 1), ("batch", 0)):
        if getattr(flags, name) < least:
            raise UserError(f"--{name}={getattr(flags, name)}: expected {least} or more")
    if flags.phases and flags.shared_fakes:
        raise UserError("--phases --shared-fakes: the generator's phase alone has no fakes to share; give one of both")
    if flags.shared_fakes and not all(name.startswith("dcgan") for name in flags.models):
        raise UserError(f"--shared-fakes --models={','.join(flags.models)}: expected DCGANs alone")
    if "torch" in flags.sides and importlib.util.find_spec("torch") is None:
        raise UserError("PyTorch is not installed: pip install torch, or time gan_jax alone with --sides=jax")


def measure(case: cases.Case, flags) -> dict:
    """Everything about one case, as it stands in the JSON.

    Raises:
      UserError: the two sides do not compute the same.
    """
    if flags.shared_fakes:
        case.config["loss"]["shared_fakes"] = True
    beside = "torch" in flags.sides and case.reference and (flags.platform == "cpu" or case.reference == "dcgan_torch")
    workers, cycle = {"jax": Worker(JaxSide, case, flags.platform, 0.5 if beside else 0.9)}, case.cycle()
    try:
        config = workers["jax"].call("settings")
        result = {"config": config, "shape": case.shape, "steps_per_cycle": case.steps, "weighted": flags.weighted}
        result["device"] = workers["jax"].call("device")
        if beside:
            options = {"channels_last": flags.channels_last, "compiled": flags.compile}
            if case.reference == "dcgan_torch":
                options |= {"shared_fakes": flags.shared_fakes, "device": flags.platform}
            weights = workers["jax"].call("weights")
            workers["torch"] = Worker(TorchSide, case, config, weights, reports.cores(), options)
            result["differences"] = _compare(workers)
        result |= _time(workers, cycle, flags.repeats, config["batch_size"], flags.weighted)
        flops, rate = workers["jax"].call("flops", cycle), workers["jax"].call("matrix_rate", *_matrix(flags))
        speed = result["jax"]["images_per_second"]["median"] / (config["batch_size"] * len(cycle))
        result["jax"] |= {"gflop_per_image": flops / config["batch_size"] / len(cycle) / 1e9,
                          "gflops": flops * speed / 1e9, "matrix_gflops": rate / 1e9,
                          "share_of_matrix_rate": flops * speed / rate}
        if flags.phases:
            count = max(case.steps // 4, 1)
            result["phases"] = {
                phase: _time(workers, [(phase,)] * count, flags.repeats, config["batch_size"]) for phase in case.phases
            }
        return result
    finally:
        for worker in workers.values():
            worker.close()


def _matrix(flags) -> tuple[int, str]:
    """Side and type of the matrices: what the platform multiplies fastest."""
    size = MATRIX[flags.smoke]
    return (size, "float32") if flags.platform == "cpu" else (2 * size, "bfloat16")


def _compare(workers: dict) -> dict[str, float]:
    """The largest relative difference of every quantity that both sides compute. Raises UserError."""
    errors = {}
    for method, tolerance in (("outputs", TOLERANCE["outputs"]), ("check_steps", TOLERANCE["steps"])):
        ours, theirs = (workers[side].call(method) for side in ("jax", "torch"))
        for name in theirs:
            a, b = np.asarray(ours[name], np.float64), np.asarray(theirs[name], np.float64)
            assert a.shape == b.shape, (name, a.shape, b.shape)
            errors[name] = float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-12))
            if not errors[name] <= tolerance:
                raise UserError(f"{name}: the sides differ by {errors[name]:.1e}, at most {tolerance} is expected")
    return errors


def _time(workers: dict, cycle: list, repeats: int, batch_size: int, weighted: bool = False) -> dict:
    """Images per second of each side, in turn; what the first cycle took longer is compilation and warming up.

    Where `weighted`, each set of phases is played once, and its time counts as often as the cycle has the set.
    """
    rounds = collections.Counter(cycle).items() if weighted else [(cycle, 1)]

    def play(worker):
        parts = [(worker.call("play", [due] if weighted else due), times) for due, times in rounds]
        return tuple(sum(part[clock] * times for part, times in parts) for clock in range(2)), parts

    prepared = {side: worker.call("prepare", cycle) for side, worker in workers.items()}
    begun = {side: play(worker)[1] for side, worker in workers.items()}
    cycles: dict[str, list[tuple[float, float]]] = {side: [] for side in workers}
    once: dict[str, list[float]] = {side: [] for side in workers}
    for _ in range(repeats):
        for side, worker in workers.items():
            total, parts = play(worker)
            cycles[side].append(total)
            once[side].append(sum(part[0] for part, _ in parts))
    count = batch_size * len(cycle)
    result = {}
    for side, worker in workers.items():
        walls, cpus = zip(*cycles[side], strict=True)
        result[side] = {
            "images_per_second": reports.spread([count / s for s in walls]),
            "images_per_cpu_second": reports.spread([count / s for s in cpus]),
            "compile_seconds": prepared[side]
            + max(sum(part[0] for part, _ in begun[side]) - statistics.median(once[side]), 0.0),
            "peak_mib": worker.call("peak"),
        }
    if "torch" in workers:
        for number, name in enumerate(("ratio", "ratio_cpu")):
            pairs = zip(cycles["jax"], cycles["torch"], strict=True)
            result[name] = reports.spread([theirs[number] / ours[number] for ours, theirs in pairs])
    return result


def rows(name: str, result: dict) -> list[str]:
    """Lines of the table for one case."""
    columns = "images/s", "range", "images/CPU s", "compile s", "peak MiB"
    lines = ["{:24} {:6} {:>10} {:>18} {:>12} {:>10} {:>9}".format("", "", *columns)]
    for part, measured in ((name, result), *((f"  {k}", v) for k, v in result.get("phases", {}).items())):
        for side in ("jax", "torch"):
            if side in measured:
                m = measured[side]
                speeds = f"{_columns(m['images_per_second'])} {m['images_per_cpu_second']['median']:12.2f}"
                costs = f"{m['compile_seconds']:10.1f} {m['peak_mib']:9.0f}"
                lines.append(f"{part:24} {side:6} {speeds} {costs}")
        if "ratio" in measured:
            lines.append(f"{part:24} {'ratio':6} {_columns(measured['ratio'])} {measured['ratio_cpu']['median']:12.2f}")
    jax_side = result["jax"]
    if "gflops" in jax_side:
        lines.append(f"{jax_side['gflop_per_image']:.3g} GFLOP an image, {jax_side['gflops']:.4g} GFLOP/s: "
                     f"{jax_side['share_of_matrix_rate']:.0%} of a matrix product's {jax_side['matrix_gflops']:.4g}")
    if "differences" in result:
        errors = result["differences"]
        worst = max(errors, key=errors.get)
        lines.append(f"equal on both sides: {', '.join(errors)}; largest difference {errors[worst]:.1e} ({worst})")
    return lines


def _columns(spread: dict) -> str:
    return f"{spread['median']:10.2f} {spread['low']:8.2f}..{spread['high']:<8.2f}"


def _header(flags) -> dict:
    packages = ("jax", "jaxlib", "flax", "optax", "numpy", *(p for p in ("torch",) if p in flags.sides))
    settings = {
        "device": flags.platform,
        "precision": "float32",
        "threads": reports.cores(),
        "repeats": flags.repeats,
        "smoke": flags.smoke,
        "torch_compile": flags.compile,
        "torch_channels_last": flags.channels_last,
        "shared_fakes": flags.shared_fakes,
    }
    return {**reports.header("training_step", packages, settings), "models": {}}


if __name__ == "__main__":
    sys.exit(main())
