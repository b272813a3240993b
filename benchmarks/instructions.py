"""Instructions of a compiled program, their phase and kind, and how long each ran in a trace."""

import collections
import pathlib
import re
from typing import NamedTuple

KINDS = ("convolution", "matrix product", "elementwise", "reduction", "random draws", "copy", "collective",
         "optimizer update", "other")  # fmt: skip
NO_PHASE = "between phases"


# A compiled program's text: which phase and kind an instruction is.


class Instruction(NamedTuple):
    """One instruction of a compiled program."""

    opcode: str
    names: tuple[str, ...]  # of operands
    phase: str
    kind: str
    path: str


class Line(NamedTuple):
    """One instruction as the text has it."""

    computation: str
    opcode: str
    operands: tuple[str, ...]
    calls: tuple[str, ...]  # computations
    target: str  # of a custom call
    path: str
    frame: int  # number of its stack frame in the text's tables; 0 for none
    fusion: str  # its kind, such as kLoop; empty for other instructions
    trips: int  # of a loop, where they are known, else 1


_HEADER = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (?:.*? )?([a-z][\w\-]*)\((.*)$")
_CALLS = re.compile(r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_ATTRIBUTES = (re.compile('custom_call_target="([^"]*)"'), re.compile('op_name="([^"]*)"'),
               re.compile(r"stack_frame_id=(\d+)"), re.compile(r"kind=(k\w+)"),
               re.compile(r'"known_trip_count":\{"n":"(\d+)"'))  # fmt: skip
_COLLECTIVE = re.compile(r"(all-reduce|all-gather|all-to-all|reduce-scatter|collective-\w+|ragged-all-to-all)")
_RANDOM = re.compile(r"threefry|_normal|_uniform|_bernoulli|random_bits|erf_inv|_gumbel|_randint")
_MOVES = frozenset("copy copy-start copy-done transpose reshape slice concatenate reverse dynamic-slice "
                   "dynamic-update-slice broadcast".split())  # fmt: skip
NOTHING = frozenset("parameter constant bitcast tuple get-tuple-element".split())
_CONTAINERS = ("while", "conditional", "call")  # their time is that of what they run


def instructions(text: str, phases: tuple[str, ...]) -> dict[str, Instruction]:
    """name -> instruction, of a compiled program's text.

    What the compiler added without a name from the code counts to the phase that its operands, its users or the loop
    around it belong to.
    """
    lines = parse(text)
    inside = collections.defaultdict(list)
    for line in lines.values():
        inside[line.computation].append(line)
    phase = {name: _phase(line, inside, phases) for name, line in lines.items()}
    spread(lines, phase)
    return {name: Instruction(line.opcode, line.operands, phase[name] or NO_PHASE, _kind(line, inside), line.path)
            for name, line in lines.items()}  # fmt: skip


def parse(text: str) -> dict[str, Line]:
    """name -> instruction as it stands there, of a compiled program's text."""
    lines, computation = {}, ""
    for row in text.splitlines():
        if header := _HEADER.match(row):
            computation = header[1]
        elif match := _INSTRUCTION.match(row):
            name, opcode, tail = match.groups()
            operands = re.findall(r"%([\w.\-]+)", tail.split("), ", 1)[0])
            calls = _CALLS.findall(tail)
            for branches in _BRANCHES.findall(tail):
                calls += [branch.strip(" %") for branch in branches.split(",")]
            attributes = [match[1] if (match := pattern.search(tail)) else "" for pattern in _ATTRIBUTES]
            target, path, frame, fusion, trips = attributes
            lines[name] = Line(computation, opcode, tuple(operands), tuple(calls), target, path, int(frame or 0),
                               fusion, int(trips or 1))  # fmt: skip
    return lines


def entry(text: str) -> str:
    """The name of the computation that a program begins with."""
    return re.search(r"^ENTRY %?([\w.\-]+) ", text, re.MULTILINE)[1]


def _phase(line: Line, inside: dict, phases: tuple[str, ...]) -> str:
    """The first phase in the instruction's path, else the most frequent in what it calls; empty for none."""
    from gan_jax.step import AVERAGE

    parts = _parts(line.path)
    if AVERAGE in parts:
        return NO_PHASE
    scopes = [part for part in parts if part in phases]
    if scopes:
        return scopes[0]
    if line.opcode == "fusion":
        called = [_phase(one, inside, phases) for name in line.calls for one in inside[name]]
        counted = collections.Counter(phase for phase in called if phase)
        return counted.most_common(1)[0][0] if counted else ""
    return ""


def _parts(path: str) -> list[str]:
    """The scopes of a/b/c, or of (a/b:a/c) where several instructions were merged."""
    return [part.lstrip("(") for part in re.split("[/:]", path)]


def spread(lines: dict[str, Line], phase: dict[str, str]) -> None:
    """Fills in empty phases, or whatever is known of each instruction, from operands, users and callers."""
    users, callers = collections.defaultdict(list), {}
    for name, line in lines.items():
        for operand in line.operands:
            users[operand].append(name)
        callers |= dict.fromkeys(line.calls, name)
    for _ in range(4):  # chains of what the compiler adds are short
        for name in [name for name in lines if not phase[name]]:
            near = [*lines[name].operands, *users[name], callers.get(lines[name].computation, "")]
            phase[name] = next((phase[other] for other in near if phase.get(other)), "")


def _kind(line: Line, inside: dict) -> str:
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
    return "copy" if opcodes - NOTHING <= _MOVES else "elementwise"


def _opcodes(line: Line, inside: dict) -> set[str]:
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

    by_device: dict[bool, list[Event]] = {True: [], False: []}
    for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
        device = plane.name.startswith("/device:")
        for line in plane.lines:
            if not device or line.name.startswith("Stream"):  # other lines of a device tell the same once more
                by_device[device] += line_events(line.events)
    return _with_ends(by_device[True] or by_device[False])


def line_events(line) -> list[tuple]:
    """(start, end, module, instruction, its number, whether it is the end of an asynchronous one) of a thread."""
    rows = []
    for event in line:
        if event.name.startswith("end: "):
            stats = dict(event.stats)
            rows.append((event.start_ns, event.start_ns, "", event.name[5:], stats.get("_c"), True))
        elif "hlo_op" in (stats := dict(event.stats)):
            module = re.sub(r"\(.*", "", str(stats.get("hlo_module", "")))
            end = event.start_ns + event.duration_ns
            rows.append((event.start_ns, end, module, stats["hlo_op"], stats.get("_p"), False))
    return rows


def _with_ends(rows: list[tuple]) -> list[Event]:
    """On the CPU an instruction that several threads share begins in one event and is done at another."""
    ends = {(name, number): end for _, end, _, name, number, last in rows if last}
    return [Event(start, max(end, ends.get((name, number), end)), module, name)
            for start, end, module, name, number, last in rows if not last]  # fmt: skip


def share_out(ran: list[Event]) -> dict[tuple[str, str], float]:
    """(module, instruction) -> seconds: every moment is shared equally by the instructions that run in it.

    So the sum is the time in which anything ran. Loops count only where nothing runs in them.
    """
    changes = sorted((moment, step, number) for number, one in enumerate(ran)
                     for moment, step in ((one.start, 1), (one.end, -1)))  # fmt: skip
    seconds: dict[tuple[str, str], float] = collections.defaultdict(float)
    running: set[int] = set()
    last = 0.0
    for moment, step, number in changes:
        inner = [one for one in running if not _contains(ran[one])] or running
        for one in inner:
            seconds[ran[one].module, ran[one].instruction] += (moment - last) / len(inner) / 1e9
        last = moment
        running.add(number) if step > 0 else running.discard(number)
    return dict(seconds)


def _contains(event: Event) -> bool:
    return event.instruction.split(".")[0] in _CONTAINERS
