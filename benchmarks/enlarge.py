"""Times how fast pictures are enlarged, in tiles, by gan_jax and by the same networks in PyTorch, eager and compiled.

    pip install torch
    python benchmarks/enlarge.py --repeats=3

All sides play the same tiles of the same picture with the same weights, in one process; their pictures must be equal
first. Prints a table and writes JSON.
"""

import os
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # started as a script
    sys.path.insert(0, str(ROOT))

from benchmarks import report as reports  # noqa: E402
from gan_jax.errors import UserError  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "enlarge.json"
SIDES = ("jax", "eager", "compiled")
TOLERANCE = 1e-4  # of the largest value
SCALE = 4


class Case(NamedTuple):
    """A published network and the picture that it enlarges by four."""

    model: str  # of gan_jax.models
    options: dict[str, Any]  # of its generator
    reference: str  # the class of benchmarks.reference.superres_torch
    size: tuple[int, int]  # of the picture
    window: int  # side of the tiles, margins included
    margin: int


CASES = {
    "rrdb": Case("esrgan", {}, "RRDBNet", (96, 160), 64, 8),
    "compact": Case("real_esrgan", {}, "SRVGGNetCompact", (192, 320), 128, 16),
}
SMOKE = {
    "rrdb": CASES["rrdb"]._replace(options={"width": 8, "blocks": 1, "growth": 4}, size=(12, 20), window=12, margin=2),
    "compact": CASES["compact"]._replace(options={"width": 8, "layers": 1}, size=(12, 20), window=12, margin=2),
}


def main(arguments: list[str] | None = None) -> int:
    """The command: 0, or 2 after a message for what its user can mend."""
    return reports.command(_report, _flags(arguments))


def _flags(arguments):
    repeats = (3, "pictures timed of each side, in turn")
    parser = reports.parser(__doc__, RESULTS, repeats=repeats, smoke="tiny networks")
    parser.add_argument("--models", default=",".join(CASES), help=f"of {', '.join(CASES)}")
    parser.add_argument("--sides", default=",".join(SIDES), help=f"of {', '.join(SIDES)}; those of PyTorch need it")
    parser.add_argument("--channels_last", action="store_true", help="PyTorch's other layout")
    return reports.parse(parser, arguments, repeats=1)


def _report(flags) -> dict:
    models, sides = flags.models.split(","), flags.sides.split(",")
    for name, values, choices in (("models", models, CASES), ("sides", sides, SIDES)):
        if wrong := [value for value in values if value not in choices]:
            raise UserError(f"--{name}={wrong[0]}: expected {', '.join(choices)}, with commas between")
    if flags.repeats < 1:
        raise UserError(f"--repeats={flags.repeats}: expected 1 or more")
    os.environ["JAX_PLATFORMS"] = "cpu"
    packages = ("jax", "jaxlib", "numpy", *(("torch",) if set(sides) - {"jax"} else ()))
    settings = {"device": "cpu", "precision": "float32", "threads": reports.cores(), "repeats": flags.repeats,
                "channels_last": flags.channels_last, "smoke": flags.smoke}  # fmt: skip
    report = reports.header("enlarge", packages, settings)
    report["cases"] = []
    print(f"{'':8} {'side':9} {'MP/s':>8} {'(range)':>17} {'ratio':>6} {'(range)':>13} {'MP/CPU s':>9} {'first s':>8}")
    for model in models:
        measured = measure((SMOKE if flags.smoke else CASES)[model], sides, flags.repeats, flags.channels_last)
        report["cases"].append({"case": model, **measured})
        for line in rows(model, measured):
            print(line, flush=True)
    return report


def measure(case: Case, sides: list[str], repeats: int, channels_last: bool = False) -> dict:
    """What each side takes, and PyTorch's times over ours of the same repeat.

    Raises:
      UserError: pictures differ.
    """
    weights, programs, firsts, results = _weights(case), {}, {}, {}
    pixels = np.random.default_rng(1).random((*case.size, 3), np.float32)
    for side in sides:
        programs[side] = _jax(case, weights) if side == "jax" else _torch(case, weights, side, channels_last)
        began = time.perf_counter()
        results[side] = _enlarged(side, programs[side], pixels, case)
        firsts[side] = time.perf_counter() - began
    differences = {side: _difference(results[sides[0]], result) for side, result in results.items()}
    if max(differences.values()) > TOLERANCE:
        raise UserError(f"pictures differ: {differences}, at most {TOLERANCE} is expected")
    times, cpu = {side: [] for side in sides}, {side: [] for side in sides}
    for _ in range(repeats):
        for side, program in programs.items():
            began = time.perf_counter(), time.process_time()
            _enlarged(side, program, pixels, case)
            times[side].append(time.perf_counter() - began[0])
            cpu[side].append(time.process_time() - began[1])
    size = SCALE**2 * case.size[0] * case.size[1] / 1e6
    entries = {side: {"megapixels_per_second": reports.spread([size / t for t in times[side]]),
                      "megapixels_per_cpu_second": reports.spread([size / t for t in cpu[side]]),
                      "first_seconds": firsts[side], "difference": differences[side]} for side in sides}  # fmt: skip
    for side in set(sides) - {"jax"} if "jax" in sides else ():
        pairs = zip(times[side], times["jax"], strict=True)
        entries[side]["ratio"] = reports.spread([theirs / ours for theirs, ours in pairs])
    return {"model": case.model, "options": case.options, "size": case.size, "window": case.window,
            "margin": case.margin, "sides": entries}  # fmt: skip


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max() / np.abs(a).max())


def _enlarged(side: str, program: Callable, pixels: np.ndarray, case: Case) -> np.ndarray:
    import jax

    from gan_jax import enlarge, tiles

    result = np.empty((SCALE * case.size[0], SCALE * case.size[1], 3), np.float32)
    plan, at_once = tiles.Plan(1, case.window, case.margin), enlarge.at_once(jax.devices()[0]) if side == "jax" else 1
    for rows, columns, part in tiles.tiled(program, pixels, plan, SCALE, at_once=at_once):
        result[rows, columns] = part
    return result


def _net(case: Case):
    import importlib

    return importlib.import_module(f"gan_jax.models.{case.model}").Generator(**case.options)


def _weights(case: Case) -> dict:
    """The same random ones for all sides, as loud as keep a picture's contrast through the layers."""
    import jax
    import jax.numpy as jnp

    net, rng = _net(case), np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False))

    def fill(path, leaf):
        values = rng.standard_normal(leaf.shape, np.float32)
        return values / np.sqrt(np.prod(leaf.shape[:-1])) if path[-1].key == "kernel" else 0.1 * values

    return jax.tree_util.tree_map_with_path(fill, shapes)


def _jax(case: Case, weights: dict) -> Callable:
    """As `gan_jax.enlarge` has it."""
    import jax

    from gan_jax import tiles
    from gan_jax.layers import winograd

    net, here = _net(case), jax.device_put(weights)

    def network(weights, x):
        with winograd.without():
            return net.apply(weights, x, train=False)

    program = jax.jit(network)
    return tiles.compiled_once(lambda x: np.asarray(program(here, x)))


def _torch(case: Case, weights: dict, side: str, channels_last: bool) -> Callable:
    try:
        import torch
    except ImportError:
        raise UserError("--sides: PyTorch is not installed; pip install torch, or give --sides=jax") from None
    from benchmarks.reference import superres_torch

    torch.set_num_threads(reports.cores())
    layout = torch.channels_last if channels_last else torch.contiguous_format
    net = getattr(superres_torch, case.reference)(weights["params"]).eval().to(memory_format=layout)
    play = torch.compile(net) if side == "compiled" else net

    def program(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            planes = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(memory_format=layout)
            return play(planes).permute(0, 2, 3, 1).contiguous().numpy()

    return program


def rows(model: str, measured: dict) -> list[str]:
    """Lines of the table."""
    lines = []
    for side, entry in measured["sides"].items():
        speed, ratio = entry["megapixels_per_second"], entry.get("ratio")
        spread = f"({speed['low']:.4f}..{speed['high']:.4f})"
        ratios = ("", "") if ratio is None else (f"{ratio['median']:.2f}", f"({ratio['low']:.2f}..{ratio['high']:.2f})")
        lines.append(f"{model:8} {side:9} {speed['median']:8.4f} {spread:>17} {ratios[0]:>6} {ratios[1]:>13} "
                     f"{entry['megapixels_per_cpu_second']['median']:9.4f} {entry['first_seconds']:8.1f}")  # fmt: skip
    return lines


if __name__ == "__main__":
    sys.exit(main())
