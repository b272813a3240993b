"""Operations of a program as JAX lowered it, and instructions as XLA compiled it, each by the scope it belongs to."""

import collections
import functools
import re
from collections.abc import Iterator
from typing import NamedTuple

from benchmarks import instructions

SCOPES = ("networks forward", "networks backward", "penalty", "augmentation", "resampling", "fewer products",
          "random draws", "optimizer", "running average", "norms and checks", "means over devices",
          "other")  # fmt: skip


class Count(NamedTuple):
    """How many there are, in all, by scope and by kind."""

    all: int
    scopes: dict[str, int]
    kinds: dict[str, int]

    @classmethod
    def of(cls, scopes: collections.Counter, kinds: collections.Counter) -> "Count":
        """Scopes in their order, kinds with the most frequent first."""
        return cls(scopes.total(), {name: scopes[name] for name in SCOPES if scopes[name]}, dict(kinds.most_common()))


# Which scope: the names that JAX gives an operation (transformations, modules, named scopes), and the Python functions
# that made it, innermost first. Both survive differentiation and compilation.

_FRAME = re.compile(r'"([^"]+)"\("([^"]+)":')  # function and file, in an MLIR location
_PLACES = (  # (scope, functions @ files); the first that any frame matches
    ("augmentation", re.compile(r"@.*/augment/\w+\.py$")),
    ("resampling", re.compile(r"@.*/layers/fir\.py$|^(upscale|downscale|_spread)@.*/layers/rescale\.py$")),
    ("random draws", re.compile(r"@.*/layers/random\.py$")),
    ("norms and checks", re.compile(r"^(global_norm|norms?|_norms?|finite|_finite)\b.*@.*/(optim|step)\.py$")),
    ("means over devices", re.compile(r"^mean\b.*@.*/parallel\.py$")),
)
_PENALTIES = re.compile(r"@.*/penalties\.py$")
_RANDOM = re.compile(r"threefry|random_|_normal\b|_normal_real|_uniform|_bernoulli|erf_inv|_gumbel|_randint")
_TWICE = re.compile(r"jvp\((?:vmap\()*(?:jvp|transpose)\(")  # a derivative, or what it needs, differentiated again


def scope(path: str, frames: tuple[str, ...]) -> str:
    """One of `SCOPES`, or "" where neither tells.

    Args:
      path: such as `jit(step)/generator/transpose(jvp(Generator))/b8/conv0/mul`.
      frames: `function@file` each, innermost first.
    """
    from gan_jax.layers.winograd import SCOPE
    from gan_jax.step import AVERAGE, UPDATE

    if _RANDOM.search(path):
        return "random draws"
    if SCOPE in path.split("/"):
        return "fewer products"
    for name, place in _PLACES:
        if any(place.search(frame) for frame in frames):
            return name
    parts = path.split("/")
    for name, applies in (
        ("optimizer", UPDATE in parts),
        ("running average", AVERAGE in parts),
        ("penalty", _TWICE.search(path) or (frames and _PENALTIES.search(frames[0]))),
        ("networks backward", "transpose(" in path),
        ("networks forward", "jvp(" in path),
    ):
        if applies:
            return name
    return ""


# Before XLA: StableHLO.

_ENDS = ("func.return", "stablehlo.return")
Body = list[tuple[str, str, str]]  # (operation, scope or "", function that it calls or "")


def lowered(module) -> tuple[Count, int]:
    """The operations of an MLIR module of StableHLO, and how many they are where every call is its function's body.

    Everything that does something is counted once as it is written, constants, calls and what loops, branches and
    reductions hold with it; terminators and functions themselves are none. A function that does not tell its scope
    has that of its first call.
    """
    bodies = {op.attributes["sym_name"].value: _body(op) for op in module.operation.regions[0].blocks[0]
              if op.operation.name == "func.func"}  # fmt: skip
    scopes, kinds = collections.Counter(), collections.Counter()
    for operation, where in _with_callees("main", "other", bodies, set()):
        scopes[where] += 1
        kinds[operation.removeprefix("stablehlo.")] += 1

    @functools.cache
    def expanded(function: str) -> int:
        return sum(expanded(called) if called else 1 for _, _, called in bodies[function])

    return Count.of(scopes, kinds), expanded("main")


def _body(function) -> Body:
    return list(_operations(function.operation, ""))


def _operations(parent, around: str) -> Iterator[tuple[str, str, str]]:
    """What a parent's regions hold, and so on; what does not tell its scope has that of the operation around it."""
    for region in parent.regions:
        for block in region:
            for op in block:
                op = op.operation
                if op.name in _ENDS:
                    continue
                called = op.attributes["callee"].value if op.name == "func.call" else ""
                place = "random draws" if _RANDOM.search(called) else _located(op) or around
                yield op.name, place, called
                yield from _operations(op, place)


def _located(op) -> str:
    """The scope that the operation's location tells; a constant's is its first user's."""
    if op.name == "stablehlo.constant":
        op = next((use.owner.operation for use in op.results[0].uses), op)
    return _located_at(str(op.location))


@functools.lru_cache(1 << 16)
def _located_at(location: str) -> str:
    path = re.match(r'loc\("([^"]*)"', location)
    frames = tuple(f"{function}@{file}" for function, file in _FRAME.findall(location))
    return scope(path[1] if path else "", frames)


def _with_callees(function: str, around: str, bodies: dict[str, Body], visited: set[str]) -> Iterator[tuple[str, str]]:
    """(operation, scope) of a function and of those that it is the first to call."""
    visited.add(function)
    for operation, where, called in bodies[function]:
        yield operation, where or around
        if called and called not in visited:
            yield from _with_callees(called, where or around, bodies, visited)


# After XLA: HLO.

_TABLE = re.compile(r"^(\d+) (.*)$")
_STARTS_NOTHING = instructions.NOTHING | {"after-all", "add-dependency", "opt-barrier"}
_RUN_INSIDE = ("while", "conditional", "call", "async-start")  # run computations, and are no kernel themselves
_DONE = re.compile(r"-(done|update)$")  # the end of what has been counted where it started


def compiled(text: str) -> tuple[Count, Count, int]:
    """What a compiled program's text holds.

    Returns:
      Its instructions: all but parameters, constants, tuples and views (`bitcast`), those inside fusions with them.
      Its kernels: instructions that start something, each once. They stand in the entry computation and in what it
      runs (loops' bodies and conditions, branches, calls, command buffers), not inside fusions, which are one each.
      How many are started in a call: those in loops count as often as XLA knows the loop to turn, and once where it
      does not; all branches count.
    """
    lines = instructions.parse(text)
    where = _scopes(lines, _frames(text))
    does = {name: line for name, line in lines.items() if line.opcode not in instructions.NOTHING}
    turns = _turns(lines, instructions.entry(text))
    starts = {name: line for name, line in does.items() if line.computation in turns and _starts(line)}
    counts = [Count.of(collections.Counter(where[name] for name in part), collections.Counter(map(kind, part.values())))
             for part, kind in ((does, lambda line: line.opcode), (starts, _kernel))]  # fmt: skip
    return (*counts, sum(turns[line.computation] for line in starts.values()))


def _starts(line: instructions.Line) -> bool:
    return line.opcode not in (*_STARTS_NOTHING, *_RUN_INSIDE) and not _DONE.search(line.opcode)


def _kernel(line: instructions.Line) -> str:
    return line.target or (f"{line.fusion} fusion" if line.fusion else line.opcode)


def _turns(lines: dict[str, instructions.Line], entry: str) -> dict[str, int]:
    """computation -> how often a call of the program runs it, of those that are not inside a kernel."""
    inside = collections.defaultdict(list)
    for line in lines.values():
        inside[line.computation].append(line)
    turns: dict[str, int] = collections.Counter()

    def run(computation: str, times: int) -> None:
        turns[computation] += times
        for line in inside[computation]:
            if line.opcode in _RUN_INSIDE:
                for called in line.calls:
                    run(called, times * (line.trips if line.opcode == "while" else 1))

    run(entry, 1)
    return turns


def _scopes(lines: dict[str, instructions.Line], frames: dict[int, tuple[str, ...]]) -> dict[str, str]:
    """instruction -> scope: its own, else most frequent of what it calls, else of those around and next to it."""
    scopes = {name: scope(line.path, frames.get(line.frame, ())) for name, line in lines.items()}
    inside = collections.defaultdict(collections.Counter)
    for name, line in lines.items():
        if scopes[name]:
            inside[line.computation][scopes[name]] += 1
    for name, line in lines.items():
        if not scopes[name]:
            called = sum((inside[one] for one in line.calls), collections.Counter())
            scopes[name] = called.most_common(1)[0][0] if called else ""
    instructions.spread(lines, scopes)
    return {name: where or "other" for name, where in scopes.items()}


def _frames(text: str) -> dict[int, tuple[str, ...]]:
    """Number of a stack frame -> `function@file` of it and of those that called it, from the tables at the head."""
    tables, rows = collections.defaultdict(dict), None
    for row in text.splitlines():
        if row in ("FileNames", "FunctionNames", "FileLocations", "StackFrames"):
            rows = tables[row]
        elif rows is not None and (match := _TABLE.match(row)):
            rows[int(match[1])] = match[2].strip('"')
        elif row.startswith(("%", "ENTRY")):
            break
    places = {}
    for number, row in tables["FileLocations"].items():
        file, function = (int(re.search(rf"{key}=(\d+)", row)[1]) for key in ("file_name_id", "function_name_id"))
        places[number] = f"{tables['FunctionNames'][function]}@{tables['FileNames'][file]}"
    return _stacks(tables["StackFrames"], places)


def _stacks(table: dict[int, str], places: dict[int, str]) -> dict[int, tuple[str, ...]]:
    stacks, shift = {0: ()}, 0
    for number, row in sorted(table.items()):  # a frame's caller has a smaller number
        place, caller = (re.search(rf"{key}=(\d+)", row) for key in ("file_location_id", "parent_frame_id"))
        caller = int(caller[1]) if caller else 0
        shift = shift or int(number == 1 == caller)  # the first frame has no caller: some versions print it as 1
        stacks[number] = (places[int(place[1])], *stacks.get(caller - shift, ()))
    return stacks
