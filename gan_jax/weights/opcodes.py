"""What a pickle would do, told by its opcodes before any of them is run."""

import pickletools

_REFUSED = ("EXT", "NEXT_BUFFER", "LONG4")  # copyreg's registry, data outside of the file, numbers of any length
_MOST = 1 << 22  # steps of a pickle: each may make an object of a hundred bytes, and takes some microseconds here
_PUT, _GET = ("PUT", "BINPUT", "LONG_BINPUT"), ("GET", "BINGET", "LONG_BINGET")
_KEYS = frozenset(
    ("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES",
     "SHORT_BINBYTES", "BININT", "BININT1", "BININT2", "LONG1", "NONE", "NEWTRUE", "NEWFALSE", "GLOBAL",
     "STACK_GLOBAL")  # the last two become stand-ins, which are hashed by where they lie
)  # fmt: skip


class Damaged(ValueError):
    """The file is not what its beginning says; the message is a part of the one that the user sees."""


def check(file) -> None:
    """Reads one pickle's opcodes from a binary file, up to its end.

    The reader's stack is followed, with the name of the opcode that made a value in the value's place. Keys of dicts
    and items of sets have to be names, short numbers or classes, made so: to hash anything else may take longer than
    the file is long (a tuple of twice a tuple of twice a tuple) or more of the C stack than there is (a tuple in a
    tuple in a tuple).

    Raises:
      Damaged: another key; a place in memory beyond the pickle's length; a step that is refused, or lacks its values;
        more steps than the largest networks have.
    """
    stack: list[str] = []
    marks: list[int] = []  # lengths of the stack
    memory: dict[int, str] = {}
    for number, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        name, before = opcode.name, opcode.stack_before
        if number >= _MOST:
            raise Damaged(f"more than {_MOST:,} steps")
        if name.startswith(_REFUSED):
            raise Damaged(f"the step {name}")
        if name == "MARK":
            marks.append(len(stack))
            continue
        if name == "POP" and marks and marks[-1] == len(stack):
            marks.pop()
            continue
        marked: list[str] = []
        if pickletools.markobject in before:
            if not marks:
                raise Damaged(f"the step {name} without a mark")
            start = marks.pop()
            marked, stack[start:] = stack[start:], []
            before = before[: before.index(pickletools.markobject)]
        start = len(stack) - (1 if name in _PUT else len(before))
        if start < (marks[-1] if marks else 0):
            raise Damaged(f"the step {name} without its values")
        operands, stack[start:] = stack[start:], []
        _check_keys(name, operands, marked)
        stack += _results(name, argument, operands, memory, number) or [name] * len(opcode.stack_after)


def _results(name: str, argument, operands: list[str], memory: dict[int, str], number: int) -> list[str]:
    """What a step leaves of other steps' values, which it may put into the memory; [] of a step with its own."""
    if name in _PUT and int(argument) > number:
        raise Damaged(f"place {argument} after {number} steps")
    if name in _PUT or name == "MEMOIZE":
        memory[len(memory) if name == "MEMOIZE" else int(argument)] = operands[0]
        return operands
    if name in _GET:
        if int(argument) not in memory:
            raise Damaged(f"place {argument}, which is empty")
        return [memory[int(argument)]]
    if name == "LONG1" and argument.bit_length() > 64:
        return ["a long number"]
    return operands * 2 if name == "DUP" else []


def _check_keys(name: str, operands: list[str], marked: list[str]) -> None:
    keys: list[str] = []
    if name == "SETITEM":
        keys = operands[1:2]
    elif name in ("SETITEMS", "DICT"):
        keys = marked[::2]
    elif name in ("ADDITEMS", "FROZENSET"):
        keys = marked
    for key in keys:
        if key not in _KEYS:
            raise Damaged(f"a key that is neither a name nor a short number, made by {key}")
