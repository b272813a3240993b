"""Counts what a phase's program holds, before XLA and after it, and times tracing, lowering and compilation.

    python benchmarks/programs.py --families=stylegan2 --forms=smoke,paper
    python benchmarks/programs.py --families=stylegan2 --forms=paper --platform=cuda

Prints a table and writes JSON. Nothing is run: arrays have shapes and types alone, so that a paper's own form needs no
memory for them, and a GPU's programs no GPU (but JAX's CUDA plugin and its libraries). `docs/benchmarks.md` tells how
operations, instructions and kernels are counted.
"""

import os
import pathlib
import resource
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # started as a script
    sys.path.insert(0, str(ROOT))

from benchmarks import operations  # noqa: E402
from benchmarks import report as reports  # noqa: E402
from benchmarks.sides import Worker  # noqa: E402
from gan_jax.errors import UserError  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
TARGET = ROOT / "benchmarks" / "targets" / "h200.txtpb"
PARTS = ("trace", "lower", "compile")
COUNTS = ("operations", "instructions", "kernels")


class Form(NamedTuple):
    """A family's networks at a size."""

    experiment: str  # in `experiments/`
    shape: tuple[int, ...]  # of an image, or of a point
    classes: int = 0  # of the labels


def _forms(experiment: str, variant: str, *, smoke: int, paper: int, classes: int = 0) -> dict[str, Form]:
    """The forms of a family, with the side of their images in pixels."""
    return {
        form: Form(f"{experiment}.py:{name}", (side, side, 3), classes)
        for form, name, side in (("smoke", "smoke", smoke), ("paper", variant, paper))
    }


FAMILIES = {  # family -> form -> what is built
    "gan_mlp": {"smoke": Form("mixture_gan.py:smoke", (2,)), "paper": Form("mixture_gan.py", (2,))},
    "dcgan": _forms("celeba_dcgan", "", smoke=64, paper=64),
    "sngan": _forms("cifar10_sngan", "", smoke=8, paper=32),
    "progan": _forms("celebahq_progan", "1024", smoke=8, paper=1024),
    "stylegan1": _forms("ffhq_stylegan", "F", smoke=8, paper=1024),
    "stylegan2": _forms("ffhq_stylegan2", "F_256", smoke=8, paper=256),
    "stylegan3": _forms("stylegan3", "t", smoke=16, paper=1024),
    "r3gan": _forms("r3gan", "cifar10", smoke=8, paper=32, classes=10),
}
FORMS = ("smoke", "paper")


def program(run, name: str, mesh) -> tuple[Callable, tuple]:
    """The program of a phase, or of a step's end, as `train` makes it: (jitted function, arguments without values)."""
    import jax

    from gan_jax import parallel, programs, runs
    from gan_jax import step as steps

    calls = programs.Programs(mesh, {}, {}, phases=True)
    keys = calls.keys_of(run, (() if name == programs.FINISH else (name,),))  # a step's end is its last program
    key = next(key for key in keys if key[1] == name)
    numbers = steps.hyper(run.phases, run.optimizers, seed=run.config.seed, ema=run.ema)
    everywhere = parallel.replicated(mesh)
    numbers = jax.tree.map(lambda x: jax.ShapeDtypeStruct((), x.dtype, sharding=everywhere), numbers)
    state = runs.packed_shapes(run, runs.abstract_state(run, mesh), mesh)
    return calls.jitted(run, key), (state, _batch(run, mesh), numbers)


def names(run) -> tuple[str, ...]:
    """What has a program of its own: the phases in their order, and the end of a step."""
    from gan_jax import programs

    return (*(phase.name for phase in run.phases), programs.FINISH)


def _batch(run, mesh) -> dict[str, Any]:
    import jax
    import jax.numpy as jnp

    from gan_jax import parallel, specs

    accumulate, size = run.config.accumulate, run.stage.batch_size
    images = run.spec["image"].shape, jnp.uint8 if len(run.spec["image"].shape) == 3 else jnp.float32
    arrays = {"image": images} | ({"label": ((), jnp.int32)} if specs.classes(run.spec) else {})
    return {
        name: jax.ShapeDtypeStruct(
            (accumulate, size // accumulate, *shape), kind, sharding=parallel.batch_sharding(mesh)
        )
        for name, (shape, kind) in arrays.items()
    }


def build(form: Form):
    """The run of a form in its last stage, where nothing fades in and everything has its full size."""
    from gan_jax import games, runs, specs

    config = runs.load_config(str(ROOT / "experiments" / form.experiment))
    spec = specs.labelled(form.shape, form.classes)
    return runs.build(config, spec, games.stages(games.find(config.game), config, spec)[-1])


class Builder:
    """Builds the programs of a form, in a process of its own."""

    def __init__(self, form: Form, platform: str):
        os.environ["JAX_PLATFORMS"] = "cpu"  # for a GPU too: it is not there
        import jax

        from gan_jax import parallel

        jax.config.update("jax_enable_compilation_cache", False)  # compilation is measured
        parallel.silence()
        self.platform = platform
        self.run = build(form)
        self.mesh = parallel.make_mesh(jax.devices()[:1] if platform == "cpu" else _absent_gpu())

    def phases(self) -> tuple[str, ...]:
        """Names, in the order in which they are played."""
        return names(self.run)

    def measure(self, phase: str, compiled: bool) -> dict:
        """Counts of one phase's program, and seconds to make it; those before XLA alone where not `compiled`."""
        fn, arguments = program(self.run, phase, self.mesh)
        traced, seconds = _timed(lambda: fn.trace(*arguments))
        times = {"trace": seconds}
        lowered, times["lower"] = _timed(lambda: traced.lower(lowering_platforms=(self.platform,)))
        count, expanded = operations.lowered(lowered.compiler_ir("stablehlo"))
        result = {"operations": count._asdict(), "operations_with_calls_expanded": expanded}
        if compiled:
            executable, times["compile"] = _timed(lowered.compile)
            instructions, kernels, started = operations.compiled(executable.as_text())
            result |= {"instructions": instructions._asdict(), "kernels": kernels._asdict()}
            result["kernels_started_in_a_call"] = started
        return {**result, "seconds": times}


def _cpu_seconds() -> float:
    """Of this process and those that it has waited for; `os.times` counts in hundredths."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _timed(make: Callable) -> tuple[Any, dict[str, float]]:
    """What is made, and seconds: by the clock, and of all threads, and of the assembler's processes, together."""
    wall, cpu = time.perf_counter(), _cpu_seconds()
    result = make()
    return result, {"wall": time.perf_counter() - wall, "cpu": _cpu_seconds() - cpu}


def _absent_gpu() -> list:
    """A device to compile for. Raises UserError where JAX cannot compile for a GPU."""
    from jax.experimental import topologies

    try:
        topology = topologies.get_topology_desc(
            platform="cuda", topology_name="h200", topology="1x1x1", target_config=TARGET.read_text()
        )
    except (NotImplementedError, RuntimeError) as error:
        raise UserError(
            f"--platform=cuda: JAX's CUDA plugin is not there, or cannot compile without a GPU ({error}): "
            "pip install 'jax[cuda13]' of the same version as jax; no GPU is needed"
        ) from None
    return list(topology.devices)


def main(arguments: list[str] | None = None) -> int:
    """The command: 0, or 2 after a message for what its user can mend."""
    return reports.command(_report, _flags(arguments))


def _flags(arguments):
    repeats = 1, "of the seconds, each in a process of its own"
    results, smoke = RESULTS / "programs.json", "the smallest family's smoke form"
    parser = reports.parser(__doc__, results, repeats=repeats, smoke=smoke)
    add, words = parser.add_argument, {"type": lambda text: tuple(text.split(","))}
    add("--families", **words, default=tuple(FAMILIES), help=f"of {','.join(FAMILIES)}")
    add("--forms", **words, default=FORMS, help="smoke (the experiment's tiny variant), paper (its full size), or both")
    add("--platform", default="cpu", help="cpu, or cuda: for an H200, which need not be there")
    add("--no-compile", action="store_true", help="what there is before XLA, alone")
    flags = reports.parse(parser, arguments, repeats=1, families=("gan_mlp",), forms=("smoke",))
    if flags.out == flags.results and flags.platform != "cpu":
        flags.out = RESULTS / f"programs_{flags.platform}.json"
    return flags


def _check(flags) -> None:
    for flag, values, choices in (("families", flags.families, FAMILIES), ("forms", flags.forms, FORMS),
                               ("platform", (flags.platform,), ("cpu", "cuda"))):  # fmt: skip
        for name in values:
            if name not in choices:
                raise UserError(f"--{flag}={name}: expected some of {','.join(choices)}")
    if flags.repeats < 1:
        raise UserError(f"--repeats={flags.repeats}: expected 1 or more")


def _report(flags) -> dict:
    _check(flags)
    settings = {"platform": flags.platform, "repeats": flags.repeats, "smoke": flags.smoke}
    settings |= {"compiled": not flags.no_compile, "xla_flags": os.environ.get("XLA_FLAGS", "")}
    report = reports.header("programs", ("jax", "jaxlib", "flax", "optax"), settings) | {"families": {}}
    for family in flags.families:
        report["families"][family] = {}
        for form in flags.forms:
            result = measure(FAMILIES[family][form], flags.platform, flags.repeats, not flags.no_compile)
            report["families"][family][form] = result
            print("\n".join((*rows(f"{family} {form}", result["phases"]), *scope_rows(result["phases"]))), flush=True)
    return report


def measure(form: Form, platform: str, repeats: int, compiled: bool) -> dict:
    """Every phase of a form, as it stands in the JSON: counts, which are the same each time, and seconds."""
    by_phase: dict[str, list[dict]] = {}
    for _ in range(repeats):
        worker = Worker(Builder, form, platform)
        try:
            for phase in worker.call("phases"):
                by_phase.setdefault(phase, []).append(worker.call("measure", phase, compiled))
        finally:
            worker.close()
    phases = {}
    for phase, measurements in by_phase.items():
        seconds = {part: {clock: reports.spread([one["seconds"][part][clock] for one in measurements])
                          for clock in ("wall", "cpu")} for part in measurements[0]["seconds"]}  # fmt: skip
        phases[phase] = measurements[0] | {"seconds": seconds}
    return {**form._asdict(), "phases": phases}


def rows(title: str, phases: dict[str, dict]) -> list[str]:
    """Lines of the table: a phase's counts, and seconds by the clock and of all threads."""
    columns = "operations", "expanded", "instructions", "kernels", "started", *(f"{part} s (CPU)" for part in PARTS)
    lines = ["{:24} {:>10} {:>9} {:>12} {:>8} {:>8} {:>16} {:>16} {:>16}".format(title, *columns)]
    for phase, result in phases.items():
        counts = [result["operations"]["all"], result["operations_with_calls_expanded"]]
        counts += [result[name]["all"] if name in result else "" for name in COUNTS[1:]]
        counts.append(result.get("kernels_started_in_a_call", ""))
        seconds = [result["seconds"].get(part) for part in PARTS]
        cells = [f"{one['wall']['median']:8.2f} ({one['cpu']['median']:.2f})" if one else "" for one in seconds]
        lines.append("  {:22} {:>10} {:>9} {:>12} {:>8} {:>8} {:>16} {:>16} {:>16}".format(phase, *counts, *cells))
    return lines


def scope_rows(phases: dict[str, dict]) -> Iterator[str]:
    """Lines of the second table: each scope's operations, instructions and kernels in every phase."""
    counts = [name for name in COUNTS if all(name in result for result in phases.values())]
    yield "  {:22} {}".format("/".join(name[:4] for name in counts), " ".join(f"{phase:>20}" for phase in phases))
    for scope in operations.SCOPES:
        cells = ["/".join(str(result[name]["scopes"].get(scope, 0)) for name in counts) for result in phases.values()]
        yield "  {:22} {}".format(scope, " ".join(f"{one:>20}" for one in cells))


if __name__ == "__main__":
    sys.exit(main())
