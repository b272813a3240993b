"""Times single convolutions on the CPU with and without the algorithms of fewer products, forward and both gradients.

    python benchmarks/convolutions.py --repeats=7

Prints a table and writes JSON: what `gan_jax.layers.winograd.pays` goes by.
"""

import os
import pathlib
import sys
import time
from typing import NamedTuple
from unittest import mock

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # started as a script
    sys.path.insert(0, str(ROOT))

from benchmarks import report as reports  # noqa: E402
from gan_jax.errors import UserError  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "convolutions.json"
KINDS = ("conv", "tconv", "wgrad")
TOLERANCE = 1e-5  # of the largest value


class Shape(NamedTuple):
    """A convolution with one pixel of zeros around square images."""

    batch: int
    size: int  # pixels of its input
    inputs: int  # channels
    outputs: int
    kernel: int
    stride: int

    def __str__(self) -> str:
        sides = f"{self.batch} x {self.size}x{self.size}, {self.inputs} -> {self.outputs}"
        return f"{sides}, {self.kernel}x{self.kernel} / {self.stride}"


SHAPES = tuple(Shape(*numbers) for numbers in (
    (64, 64, 3, 64, 4, 2), (64, 32, 64, 128, 4, 2), (64, 16, 128, 256, 4, 2), (64, 8, 256, 512, 4, 2),
    (64, 32, 16, 32, 4, 2), (8, 32, 128, 128, 3, 1), (8, 16, 128, 128, 3, 1), (8, 8, 128, 128, 3, 1),
    (8, 4, 512, 512, 3, 1), (16, 32, 64, 64, 3, 1), (32, 32, 32, 32, 3, 1), (4, 64, 64, 64, 3, 1),
))  # fmt: skip
SMOKE = (Shape(2, 8, 3, 4, 4, 2), Shape(2, 8, 4, 4, 3, 1))


def main(arguments: list[str] | None = None) -> int:
    """The command: 0, or 2 after a message for what its user can mend."""
    return reports.command(_report, _flags(arguments))


def _report(flags) -> dict:
    if flags.repeats < 1:
        raise UserError(f"--repeats={flags.repeats}: expected 1 or more")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    settings = {"device": "cpu", "precision": "float32", "threads": reports.cores(), "repeats": flags.repeats}
    report = reports.header("convolutions", ("jax", "jaxlib", "numpy"), settings | {"smoke": flags.smoke})
    report["shapes"] = []
    print("{:38} {:6} {:>9} {:>9} {:>19} {:>6}".format("", "", "XLA's ms", "fewer ms", "ratio (range)", "taken"))
    for shape in SMOKE if flags.smoke else SHAPES:
        for kind in KINDS:
            report["shapes"].append(measure(shape, kind, flags.repeats))
            print(row(report["shapes"][-1]), flush=True)
    return report


def _flags(arguments):
    parser = reports.parser(__doc__, RESULTS, repeats=(7, "calls timed of each, in turn"), smoke="tiny shapes, once")
    return reports.parse(parser, arguments, repeats=1)


def measure(shape: Shape, kind: str, repeats: int) -> dict:
    """Milliseconds of one map both ways, and whether `pays` takes the second.

    Raises:
      UserError: they do not give the same.
    """
    import jax

    from gan_jax.layers import winograd

    arrays, call, sides = _map(shape, kind)
    programs = {}
    for way, pays in (("plain", False), ("fewer", True)):
        with mock.patch.object(winograd, "pays", lambda *_, pays=pays: pays):
            programs[way] = jax.jit(lambda *operands: call(*operands)).lower(*arrays).compile()  # a jit of its own each
    results = {way: np.asarray(program(*arrays)) for way, program in programs.items()}
    difference = float(np.abs(results["fewer"] - results["plain"]).max() / np.abs(results["plain"]).max())
    if difference > TOLERANCE:
        raise UserError(f"{shape} {kind}: results differ by {difference:.1e}, at most {TOLERANCE} is expected")
    times: dict[str, list[float]] = {way: [] for way in programs}
    for _ in range(repeats):
        for way, program in programs.items():
            began = time.perf_counter()
            jax.block_until_ready(program(*arrays))
            times[way].append(1e3 * (time.perf_counter() - began))
    ratios = [plain / fewer for plain, fewer in zip(times["plain"], times["fewer"], strict=True)]
    kernel, stride = (shape.kernel,) * 2, (shape.stride,) * 2
    return {"shape": shape._asdict(), "kind": kind, "difference": difference, "ratio": reports.spread(ratios),
            "taken": winograd.pays(kind, *sides, kernel, stride),
            **{f"{way}_milliseconds": reports.spread(values) for way, values in times.items()}}


def _map(shape: Shape, kind: str):
    """(its operands, the map of `layers.conv`, shapes of the convolution's input and output)."""
    from gan_jax.layers import conv as layers

    rng, small = np.random.default_rng(0), shape.size // shape.stride
    x, w, g = (rng.standard_normal(sides, np.float32) for sides in (
        (shape.batch, shape.size, shape.size, shape.inputs), (shape.kernel,) * 2 + (shape.inputs, shape.outputs),
        (shape.batch, small, small, shape.outputs)))  # fmt: skip
    stride, padding = (shape.stride,) * 2, ((1, 1), (1, 1))
    maps = {
        "conv": ((x, w), lambda x, w: layers._conv(x, w, stride, padding, 1)),
        "tconv": ((g, w), lambda g, w: layers._tconv(g, w, stride, padding, x.shape[1:3], 1)),
        "wgrad": ((x, g), lambda x, g: layers._wgrad(x, g, stride, padding, w.shape[:2], 1)),
    }
    return *maps[kind], (x.shape, g.shape)


def row(measured: dict) -> str:
    """A line of the table."""
    plain, fewer, ratio = (measured[key] for key in ("plain_milliseconds", "fewer_milliseconds", "ratio"))
    name = str(Shape(**measured["shape"]))
    spread = f"{ratio['median']:.2f} ({ratio['low']:.2f}..{ratio['high']:.2f})"
    mark = "yes" if measured["taken"] else "no"
    return f"{name:38} {measured['kind']:6} {plain['median']:9.2f} {fewer['median']:9.2f} {spread:>19} {mark:>6}"


if __name__ == "__main__":
    sys.exit(main())
