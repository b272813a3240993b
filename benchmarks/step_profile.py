"""Tells where the time of a training step goes: a table of phases and kinds of operations, from a trace.

    python benchmarks/step_profile.py --models=stylegan2_32 --repeats=3

Plays whole cycles of steps under `jax.profiler`, finds each event's instruction in the compiled program, and from it
the phase and the kind. Prints a table and writes JSON. It is not called `profile.py`: a script's folder comes first
where Python looks, and `import cProfile`, which PyTorch does, would find it in place of the standard library's.
"""

import pathlib
import sys
import tempfile
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # started as a script
    sys.path.insert(0, str(ROOT))

from benchmarks import cases, report  # noqa: E402
from benchmarks.instructions import KINDS, NO_PHASE, Instruction, events, instructions, share_out  # noqa: E402
from benchmarks.sides import BATCHES, Worker, _clocks, batch, devices_of  # noqa: E402
from gan_jax.errors import UserError  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "step_profile.json"


def main(arguments: list[str] | None = None) -> int:
    """The command: 0, or 2 after a message for what its user can mend."""
    return report.command(_report, _flags(arguments))


def _report(flags) -> dict:
    _check(flags)
    result = report.header("step_profile", ("jax", "jaxlib", "flax", "optax", "numpy"), _settings(flags))
    result["models"] = {}
    for name in flags.models:
        result["models"][name] = measure(cases.find(name, flags.smoke, flags.batch), flags)
        print("\n".join(rows(name, result["models"][name], flags.top)), flush=True)
    return result


def _flags(arguments):
    repeats = 3, "cycles traced; the table is that of the median one"
    parser = report.parser(__doc__, RESULTS, repeats=repeats, smoke="tiny networks, one repeat")
    add, words = parser.add_argument, {"type": lambda text: tuple(text.split(","))}
    add("--models", **words, default=("stylegan2_32",), help=f"of {','.join(cases.names())}")
    add("--batch", type=int, default=0, help="another batch than the case's own")
    add("--top", type=int, default=10, help="instructions listed, the longest first")
    add("--platform", default="cpu", help="cpu or cuda")
    return report.parse(parser, arguments, repeats=1)


def _check(flags) -> None:
    for name in flags.models:
        if name not in cases.names():
            raise UserError(f"--models={name}: expected some of {','.join(cases.names())}")
    for name, least in (("repeats", 1), ("batch", 0), ("top", 0)):
        if getattr(flags, name) < least:
            raise UserError(f"--{name}={getattr(flags, name)}: expected {least} or more")
    if flags.platform not in ("cpu", "cuda"):
        raise UserError(f"--platform={flags.platform}: expected cpu or cuda")


def _settings(flags) -> dict:
    return {"device": flags.platform, "precision": "float32", "threads": report.cores(), "repeats": flags.repeats,
            "smoke": flags.smoke}  # fmt: skip


def measure(case: cases.Case, flags) -> dict:
    """Everything about one case, as it stands in the JSON."""
    worker = Worker(Steps, case, 1, flags.platform)
    try:
        cycle = case.cycle()
        worker.call("play", cycle)  # compiles and warms up
        plain = [worker.call("play", cycle)[0] for _ in range(flags.repeats)]
        traced = [worker.call("trace", cycle) for _ in range(flags.repeats)]
        config = worker.call("settings")
    finally:
        worker.close()
    walls = [wall for wall, _ in traced]
    wall, times = sorted(traced, key=lambda pair: pair[0])[(len(traced) - 1) // 2]
    return {
        "config": config,
        "shape": case.shape,
        "steps_per_cycle": case.steps,
        "played": {phase: sum(phase in due for due in cycle) for phase in case.phases},
        "wall_ms_per_step": report.spread([1e3 * s / case.steps for s in plain]),
        "traced_wall_ms_per_step": report.spread([1e3 * s / case.steps for s in walls]),
        **table(times, tuple(case.phases), wall, case.steps),
    }


class InstructionTime(NamedTuple):
    """The time of one instruction in a cycle."""

    seconds: float
    program: str  # its phases, joined by +
    instruction: str
    phase: str
    kind: str
    path: str  # where it comes from in the code, as JAX names it


def table(times: list[InstructionTime], phases: tuple[str, ...], wall: float, steps: int) -> dict:
    """Sums of phases and kinds in ms a step, the share of `wall` seconds that they are, and the instructions."""
    sums: dict[str, dict[str, float]] = {phase: dict.fromkeys(KINDS, 0.0) for phase in (*phases, NO_PHASE)}
    for one in times:
        sums[one.phase][one.kind] += 1e3 * one.seconds / steps
    total = sum(one.seconds for one in times)
    longest = sorted(times, key=lambda one: -one.seconds)
    return {
        "ms_per_step": sums,
        "total_ms_per_step": 1e3 * total / steps,
        "accounted_share_of_wall": total / wall,
        "instructions": [{"ms_per_step": 1e3 * one.seconds / steps, **one._asdict()} for one in longest[:100]],
    }


def rows(name: str, result: dict, top: int) -> list[str]:
    """Lines of the table for one case."""
    sums, total = result["ms_per_step"], result["total_ms_per_step"]
    kinds = [kind for kind in KINDS if any(row[kind] for row in sums.values())]
    lines = [f"{name}: ms per step over a cycle of {result['steps_per_cycle']} steps",
             "{:16}".format("") + "".join(f"{kind:>17}" for kind in (*kinds, "all", "%", "each time"))]  # fmt: skip
    for phase, row in sums.items():
        if any(row.values()):
            steps = result["steps_per_cycle"]
            each = sum(row.values()) * steps / result["played"].get(phase, steps)
            values = [*(row[kind] for kind in kinds), sum(row.values()), 100 * sum(row.values()) / total, each]
            lines.append(f"{phase:16}" + "".join(f"{value:17.2f}" for value in values))
    columns = [sum(row[kind] for row in sums.values()) for kind in kinds]
    lines.append(f"{'all':16}" + "".join(f"{value:17.2f}" for value in (*columns, total, 100.0)))
    lines.append(f"{'%':16}" + "".join(f"{100 * value / total:17.2f}" for value in (*columns, total)))
    wall, traced = (result[key]["median"] for key in ("wall_ms_per_step", "traced_wall_ms_per_step"))
    lines.append(f"{result['accounted_share_of_wall']:.1%} of the traced wall time, {traced:.2f} ms per step; "
                 f"{wall:.2f} untraced")  # fmt: skip
    for one in result["instructions"][:top]:
        where = one["path"].split("/", 2)[-1]  # without the program and the phase
        lines.append(f"{one['ms_per_step']:9.2f} ms  {one['phase']}, {one['kind']}: {one['instruction']}  {where}")
    return lines


class Steps:
    """The run that `train` would build from a case's config, on some devices, with its programs compiled beforehand."""

    def __init__(self, case: cases.Case, devices: int = 1, platform: str = "cpu"):
        import os

        os.environ["JAX_PLATFORMS"] = platform
        import jax
        from ml_collections import ConfigDict

        from gan_jax import config as configs
        from gan_jax import parallel, runs

        jax.config.update("jax_enable_compilation_cache", False)  # a program from there may have older names
        if platform == "cpu":
            jax.config.update("jax_num_cpu_devices", devices)
        parallel.silence()
        self.config = configs.complete(ConfigDict(case.config), runs.defaults)
        self.run = runs.build(self.config, case.spec())
        self.mesh = parallel.make_mesh(devices_of(platform)[:devices])
        self.state = parallel.replicate(runs.pack(self.run, runs.fresh_state(self.run), self.mesh), self.mesh)
        self.batches = [parallel.shard_batch(batch(case, n), self.mesh) for n in range(BATCHES)]
        self.programs: dict[tuple[str, ...], Any] = {}

    def settings(self) -> dict:
        """The complete config."""
        return self.config.to_dict()

    def compile(self, due: tuple[str, ...]):
        """The program of these phases; its name in a trace is that of its phases."""
        from gan_jax import parallel
        from gan_jax import step as steps

        if due not in self.programs:
            phases = tuple(phase for phase in self.run.phases if phase.name in due)
            assert tuple(phase.name for phase in phases) == due, (phases, due)
            step = steps.make_step(phases, self.run.optimizers, seed=self.config.seed, ema=self.run.ema)
            step.__name__ = _program_name(due)
            mapped = parallel.data_parallel(step, self.mesh, self.config.parallel)
            self.programs[due] = mapped.lower(self.state, self.batches[0]).compile()
        return self.programs[due]

    def play(self, cycle: list[tuple[str, ...]]) -> tuple[float, float]:
        """(seconds, CPU seconds of all threads) of these steps, from the first dispatch to the last result."""
        import jax

        programs = [self.compile(due) for due in cycle]
        began = _clocks()
        for number, program in enumerate(programs):
            self.state, metrics = program(self.state, self.batches[number % BATCHES])
        jax.block_until_ready((self.state, metrics))
        ended = _clocks()
        return ended[0] - began[0], ended[1] - began[1]

    def trace(self, cycle: list[tuple[str, ...]]) -> tuple[float, list[InstructionTime]]:
        """Seconds of a cycle that is traced, and what of them each instruction took."""
        import jax

        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0
        with tempfile.TemporaryDirectory() as folder:
            with jax.profiler.trace(folder, profiler_options=options):
                wall, _ = self.play(cycle)
            (file,) = pathlib.Path(folder).rglob("*.xplane.pb")
            seconds_by_name = share_out(events(file))
        phases = tuple(phase.name for phase in self.run.phases)
        programs = {f"jit_{_program_name(due)}": ("+".join(due), instructions(program.as_text(), phases))
                 for due, program in self.programs.items()}  # fmt: skip
        times = []
        for (module, name), seconds in seconds_by_name.items():
            if module in programs:
                program, by_name = programs[module]
                one = by_name.get(name, Instruction("", (), NO_PHASE, "other", ""))
                times.append(InstructionTime(seconds, program, name, one.phase, one.kind, one.path))
        return wall, times


def _program_name(due: tuple[str, ...]) -> str:
    return "__".join(due)


if __name__ == "__main__":
    sys.exit(main())
