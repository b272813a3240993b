"""Tells where the time of a training step goes: a table of phases and kinds of operations, from a trace.

    python benchmarks/step_profile.py --models=stylegan2_32 --repeats=3

Plays whole cycles of steps under `jax.profiler`, finds each event's instruction in the compiled program, and from it
the phase and the kind. Prints a table and writes JSON. It is not called `profile.py`: a script's folder comes first
where Python looks, and `import cProfile`, which PyTorch does, would find it in place of the standard library's.
"""

import argparse
import collections
import pathlib
import re
import sys
import tempfile
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # started as a script
    sys.path.insert(0, str(ROOT))

from benchmarks import cases, report  # noqa: E402
from benchmarks.sides import BATCHES, Worker, _clocks, images  # noqa: E402
from gan_jax.errors import UserError  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "step_profile.json"
KINDS = ("convolution", "matrix product", "elementwise", "reduction", "random draws", "copy", "collective",
         "optimizer update", "other")  # fmt: skip
NO_PHASE = "between phases"


def main(arguments: list[str] | None = None) -> int:
    """The command: 0, or 2 after a message for what its user can mend."""
    flags = _flags(arguments)
    try:
        _check(flags)
        found = report.header("step_profile", ("jax", "jaxlib", "flax", "optax", "numpy"), _settings(flags))
        found["models"] = {}
        for name in flags.models:
            found["models"][name] = measure(cases.find(name, flags.smoke, flags.batch), flags)
            print("\n".join(rows(name, found["models"][name], flags.top)), flush=True)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    report.write(found, flags.out)
    return 0


def _flags(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    words = {"type": lambda text: tuple(text.split(","))}
    add("--models", **words, default=("stylegan2_32",), help=f"of {','.join(cases.names())}")
    add("--repeats", type=int, default=3, help="cycles traced; the table is that of the median one")
    add("--batch", type=int, default=0, help="another batch than the case's own")
    add("--top", type=int, default=10, help="instructions listed, the longest first")
    add("--platform", default="cpu", help="cpu or cuda")
    add("--smoke", action="store_true", help="tiny networks, one repeat, nothing written unless --out is given")
    add("--out", type=pathlib.Path, help=f"JSON file, by default {RESULTS.relative_to(ROOT)}")
    flags = parser.parse_args(arguments)
    if flags.smoke:
        flags.repeats = 1
    elif flags.out is None:
        flags.out = RESULTS
    return flags


def _check(flags) -> None:
    for name in flags.models:
        if name not in cases.names():
            raise UserError(f"--models={name}: expected some of {','.join(cases.names())}")
    for name, least in (("repeats", 1), ("top", 0)):
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
    wall, spent = sorted(traced, key=lambda pair: pair[0])[(len(traced) - 1) // 2]
    return {
        "config": config,
        "shape": case.shape,
        "steps_per_cycle": case.steps,
        "played": {phase: sum(phase in due for due in cycle) for phase in case.phases},
        "wall_ms_per_step": report.spread([1e3 * s / case.steps for s in plain]),
        "traced_wall_ms_per_step": report.spread([1e3 * s / case.steps for s in walls]),
        **table(spent, tuple(case.phases), wall, case.steps),
    }


class Spent(NamedTuple):
    """The time of one instruction in a cycle."""

    seconds: float
    program: str  # its phases, joined by +
    instruction: str
    phase: str
    kind: str
    path: str  # where it comes from in the code, as JAX names it


def table(spent: list[Spent], phases: tuple[str, ...], wall: float, steps: int) -> dict:
    """Sums of phases and kinds in ms a step, the share of `wall` seconds that they are, and the instructions."""
    sums: dict[str, dict[str, float]] = {phase: dict.fromkeys(KINDS, 0.0) for phase in (*phases, NO_PHASE)}
    for one in spent:
        sums[one.phase][one.kind] += 1e3 * one.seconds / steps
    total = sum(one.seconds for one in spent)
    longest = sorted(spent, key=lambda one: -one.seconds)
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
        self.run = runs.build(self.config, runs.Spec(case.shape, case.classes))
        self.mesh = parallel.make_mesh(jax.devices()[:devices])
        state = jax.jit(lambda: runs.init_state(self.run))()
        self.state = jax.device_put(state, parallel.replicated(self.mesh))
        self.batches = [parallel.shard_batch({"image": images(case, n)}, self.mesh) for n in range(BATCHES)]
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

    def trace(self, cycle: list[tuple[str, ...]]) -> tuple[float, list[Spent]]:
        """Seconds of a cycle that is traced, and what of them each instruction took."""
        import jax

        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0
        with tempfile.TemporaryDirectory() as folder:
            with jax.profiler.trace(folder, profiler_options=options):
                wall, _ = self.play(cycle)
            (file,) = pathlib.Path(folder).rglob("*.xplane.pb")
            taken = share_out(events(file))
        phases = tuple(phase.name for phase in self.run.phases)
        known = {f"jit_{_program_name(due)}": ("+".join(due), instructions(program.as_text(), phases))
                 for due, program in self.programs.items()}  # fmt: skip
        spent = []
        for (module, name), seconds in taken.items():
            if module in known:
                program, found = known[module]
                one = found.get(name, Instruction("", (), NO_PHASE, "other", ""))
                spent.append(Spent(seconds, program, name, one.phase, one.kind, one.path))
        return wall, spent


def _program_name(due: tuple[str, ...]) -> str:
    return "__".join(due)


# A compiled program's text: which phase and kind an instruction is.


class Instruction(NamedTuple):
    """One instruction of a compiled program."""

    opcode: str
    names: tuple[str, ...]  # of operands
    phase: str
    kind: str
    path: str


class _Line(NamedTuple):
    computation: str
    opcode: str
    operands: tuple[str, ...]
    calls: tuple[str, ...]  # computations
    target: str  # of a custom call
    path: str


_HEADER = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (?:.*? )?([a-z][\w\-]*)\((.*)$")
_CALLS = re.compile(r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_COLLECTIVE = re.compile(r"(all-reduce|all-gather|all-to-all|reduce-scatter|collective-\w+|ragged-all-to-all)")
_RANDOM = re.compile(r"threefry|_normal|_uniform|_bernoulli|random_bits|erf_inv|_gumbel|_randint")
_MOVES = frozenset("copy copy-start copy-done transpose reshape slice concatenate reverse dynamic-slice "
                   "dynamic-update-slice broadcast".split())  # fmt: skip
_NOTHING = frozenset("parameter constant bitcast tuple get-tuple-element".split())
_CONTAINERS = ("while", "conditional", "call")  # their time is that of what they run


def instructions(text: str, phases: tuple[str, ...]) -> dict[str, Instruction]:
    """name -> instruction, of a compiled program's text.

    What the compiler added without a name from the code counts to the phase that its operands, its users or the loop
    around it belong to.
    """
    lines = _lines(text)
    inside = collections.defaultdict(list)
    for line in lines.values():
        inside[line.computation].append(line)
    phase = {name: _phase(line, inside, phases) for name, line in lines.items()}
    _spread_phases(lines, phase)
    return {name: Instruction(line.opcode, line.operands, phase[name] or NO_PHASE, _kind(line, inside), line.path)
            for name, line in lines.items()}  # fmt: skip


def _lines(text: str) -> dict[str, _Line]:
    lines, computation = {}, ""
    for row in text.splitlines():
        if header := _HEADER.match(row):
            computation = header[1]
        elif found := _INSTRUCTION.match(row):
            name, opcode, rest = found.groups()
            operands = re.findall(r"%([\w.\-]+)", rest.split("), ", 1)[0])
            calls = _CALLS.findall(rest)
            for branches in _BRANCHES.findall(rest):
                calls += [branch.strip(" %") for branch in branches.split(",")]
            target, path = (re.search(rf'{key}="([^"]*)"', rest) for key in ("custom_call_target", "op_name"))
            lines[name] = _Line(computation, opcode, tuple(operands), tuple(calls), target[1] if target else "",
                                path[1] if path else "")  # fmt: skip
    return lines


def _phase(line: _Line, inside: dict, phases: tuple[str, ...]) -> str:
    """The first phase in the instruction's path, else the most frequent in what it calls; empty for none."""
    from gan_jax.step import AVERAGE

    parts = _parts(line.path)
    if AVERAGE in parts:
        return NO_PHASE
    named = [part for part in parts if part in phases]
    if named:
        return named[0]
    if line.opcode == "fusion":
        called = [_phase(one, inside, phases) for name in line.calls for one in inside[name]]
        counted = collections.Counter(phase for phase in called if phase)
        return counted.most_common(1)[0][0] if counted else ""
    return ""


def _parts(path: str) -> list[str]:
    """The scopes of a/b/c, or of (a/b:a/c) where several instructions were merged."""
    return [part.lstrip("(") for part in re.split("[/:]", path)]


def _spread_phases(lines: dict[str, _Line], phase: dict[str, str]) -> None:
    """Fills in empty phases from operands, users and callers."""
    users, callers = collections.defaultdict(list), {}
    for name, line in lines.items():
        for operand in line.operands:
            users[operand].append(name)
        callers |= dict.fromkeys(line.calls, name)
    for _ in range(4):  # chains of what the compiler adds are short
        for name in [name for name in lines if not phase[name]]:
            near = [*lines[name].operands, *users[name], callers.get(lines[name].computation, "")]
            phase[name] = next((phase[other] for other in near if phase.get(other)), "")


def _kind(line: _Line, inside: dict) -> str:
    from gan_jax.step import AVERAGE, UPDATE

    if _COLLECTIVE.match(line.opcode):
        return "collective"
    if {UPDATE, AVERAGE} & set(_parts(line.path)):
        return "optimizer update"
    if line.opcode == "custom-call":
        if "conv" in line.target.lower():
            return "convolution"
        return "matrix product" if re.search("gemm|matmul|dot", line.target.lower()) else "other"
    opcodes = _opcodes(line, inside)
    for opcode, kind in (("convolution", "convolution"), ("dot", "matrix product")):
        if opcode in opcodes:
            return kind
    if _RANDOM.search(line.path):
        return "random draws"
    if opcodes & {"reduce", "reduce-window", "select-and-scatter"}:
        return "reduction"
    if opcodes & {"sort", "gather", "scatter", "custom-call", "while", "conditional"}:
        return "other"
    return "copy" if opcodes - _NOTHING <= _MOVES else "elementwise"


def _opcodes(line: _Line, inside: dict) -> set[str]:
    """Those of the instruction, or of all that it calls where it is a fusion or a call."""
    if line.opcode not in ("fusion", "call"):
        return {line.opcode}
    return set().union(*(_opcodes(one, inside) for name in line.calls for one in inside[name]))


# A trace: which instruction ran when.


class Event(NamedTuple):
    """An instruction that ran from `start` to `end`, in nanoseconds."""

    start: float
    end: float
    module: str
    instruction: str


def events(file: pathlib.Path) -> list[Event]:
    """The instructions of a trace, those of accelerators where there are any."""
    import jax

    found: dict[bool, list[Event]] = {True: [], False: []}
    for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
        device = plane.name.startswith("/device:")
        for line in plane.lines:
            if not device or line.name.startswith("Stream"):  # other lines of a device tell the same once more
                found[device] += line_events(line.events)
    return _with_ends(found[True] or found[False])


def line_events(line) -> list[tuple]:
    """(start, end, module, instruction, its number, whether it is the end of an asynchronous one) of a thread."""
    found = []
    for event in line:
        if event.name.startswith("end: "):
            stats = dict(event.stats)
            found.append((event.start_ns, event.start_ns, "", event.name[5:], stats.get("_c"), True))
        elif "hlo_op" in (stats := dict(event.stats)):
            module = re.sub(r"\(.*", "", str(stats.get("hlo_module", "")))
            end = event.start_ns + event.duration_ns
            found.append((event.start_ns, end, module, stats["hlo_op"], stats.get("_p"), False))
    return found


def _with_ends(found: list[tuple]) -> list[Event]:
    """On the CPU an instruction that several threads share begins in one event and is done at another."""
    done = {(name, number): end for _, end, _, name, number, last in found if last}
    return [Event(start, max(end, done.get((name, number), end)), module, name)
            for start, end, module, name, number, last in found if not last]  # fmt: skip


def share_out(ran: list[Event]) -> dict[tuple[str, str], float]:
    """(module, instruction) -> seconds: every moment is shared equally by the instructions that run in it.

    So the sum is the time in which anything ran. Loops count only where nothing runs in them.
    """
    changes = sorted((moment, step, number) for number, one in enumerate(ran)
                     for moment, step in ((one.start, 1), (one.end, -1)))  # fmt: skip
    taken: dict[tuple[str, str], float] = collections.defaultdict(float)
    running: set[int] = set()
    last = 0.0
    for moment, step, number in changes:
        inner = [one for one in running if not _contains(ran[one])] or running
        for one in inner:
            taken[ran[one].module, ran[one].instruction] += (moment - last) / len(inner) / 1e9
        last = moment
        running.add(number) if step > 0 else running.discard(number)
    return dict(taken)


def _contains(event: Event) -> bool:
    return event.instruction.split(".")[0] in _CONTAINERS


if __name__ == "__main__":
    sys.exit(main())
