"""Times single convolutions on the CPU in three ways, forward and both gradients.

XLA's own, with fewer products (Winograd), and as one product of matrices with what every tap sees (im2col).

    python benchmarks/convolutions.py --repeats=7

Prints a table and writes JSON: what `pays` of `gan_jax.layers.winograd` and of `im2col` go by.
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
WAYS = ("plain", "fewer", "columns")
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
    (4, 2, 256, 256, 4, 2), (4, 4, 512, 256, 4, 2), (4, 8, 256, 256, 4, 2), (64, 2, 256, 256, 4, 2),
    (4, 16, 128, 256, 4, 2), (8, 8, 512, 512, 3, 1), (4, 8, 256, 256, 3, 1), (2, 16, 256, 256, 3, 1),
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
    print("{:38} {:6} {:>9} {:>9} {:>10} {:>9}".format("", "", "XLA's ms", "fewer ms", "columns ms", "taken"))
    for shape in SMOKE if flags.smoke else SHAPES:
        for kind in KINDS:
            report["shapes"].append(measure(shape, kind, flags.repeats))
            print(row(report["shapes"][-1]), flush=True)
    return report


def _flags(arguments):
    parser = reports.parser(__doc__, RESULTS, repeats=(7, "calls timed of each, in turn"), smoke="tiny shapes, once")
    return reports.parse(parser, arguments, repeats=1)


def measure(shape: Shape, kind: str, repeats: int) -> dict:
    """Milliseconds of one map in each way, what they are beside XLA's, and the way that is taken.

    Raises:
      UserError: they do not give the same.
    """
    import jax

    from gan_jax.layers import im2col, winograd

    arrays, call, sides = _map(shape, kind)
    programs = {}
    for way in WAYS:
        with (
            mock.patch.object(winograd, "pays", lambda *_, way=way: way == "fewer"),
            mock.patch.object(im2col, "pays", lambda *_, way=way: way == "columns"),
        ):
            programs[way] = jax.jit(lambda *operands: call(*operands)).lower(*arrays).compile()  # a jit of its own each
    results = {way: np.asarray(program(*arrays)) for way, program in programs.items()}
    largest = np.abs(results["plain"]).max()
    difference = max(float(np.abs(results[way] - results["plain"]).max() / largest) for way in WAYS)
    if difference > TOLERANCE:
        raise UserError(f"{shape} {kind}: results differ by {difference:.1e}, at most {TOLERANCE} is expected")
    times: dict[str, list[float]] = {way: [] for way in programs}
    for _ in range(repeats):
        for way, program in programs.items():
            began = time.perf_counter()
            jax.block_until_ready(program(*arrays))
            times[way].append(1e3 * (time.perf_counter() - began))
    ratios = {way: reports.spread([plain / other for plain, other in zip(times["plain"], times[way], strict=True)])
              for way in WAYS[1:]}  # fmt: skip
    asked = kind, *sides, (shape.kernel,) * 2, (shape.stride,) * 2
    taken = "columns" if im2col.pays(*asked) else "fewer" if winograd.pays(*asked) else "plain"
    return {"shape": shape._asdict(), "kind": kind, "difference": difference, "ratios": ratios, "taken": taken,
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
    times = [measured[f"{way}_milliseconds"]["median"] for way in WAYS]
    name = str(Shape(**measured["shape"]))
    return "{:38} {:6} {:9.2f} {:9.2f} {:10.2f} {:>9}".format(name, measured["kind"], *times, measured["taken"])


if __name__ == "__main__":
    sys.exit(main())
