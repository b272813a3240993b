"""The house's rules, read from the source: imports run downward, public names are explained, files short."""

import ast
import graphlib
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "gan_jax"

# From the top floor to the ground. A file imports from the floors below its own and from its own sub-package.
FLOORS = (
    ("cli", "api"),  # the commands, and the same from Python
    ("train", "sweeps"),  # the loop, and engines that start many of it
    ("evaluate", "interop", "overview", "sweep"),
    ("sample",),
    ("painter",),
    ("sample_flags", "programs", "sweep_flags"),
    ("enlarge_files", "fill_files", "labelled_files"),
    ("enlarge", "films", "picture_files"),
    ("folders",),  # a run on disk
    ("runs",),  # config -> players, phases, State
    ("run_data",),  # config -> data
    ("games", "lowered"),
    ("models", "step", "losses", "penalties", "augment"),
    ("layers", "optim", "features"),
    ("flat", "initial", "processes"),  # a net's arrays as one vector; fresh values without compiler; a run's processes
    # leaves
    ("metrics", "data", "checkpoint", "parallel", "logs", "output", "images", "latents", "config", "weights",
     "provenance", "trace", "help", "loggers", "lock", "tiles", "signals"),
    ("specs", "modules", "cache", "catalog", "digests", "archives", "ffmpeg"),
    ("paths",),  # as people write them
    ("errors", "__init__"),
)
# Narrower than their floor allows.
ONLY = {
    "models": {"layers", "modules", "errors"},  # plain arrays in and out: no loss, config or State
    "layers": {"errors"},
    "features": {"errors", "cache", "weights"},
    "losses": {"errors"},
    "penalties": {"errors"},
    "sweep_flags": {"errors", "config"},
    "sweeps": {"sweep", "sweep_flags", "evaluate", "lock", "logs", "signals", "errors"},
    "sweep": {"errors", "logs", "sweep_flags", "signals", "cache", "provenance", "processes"},  # starts runs
}  # fmt: skip
HEAVY = tuple("jax flax optax orbax tensorflow_datasets grain matplotlib sklearn skimage safetensors optuna".split())
LONGEST_FILE, LONGEST_FUNCTION = 400, 70  # lines

FILES = sorted(PACKAGE.rglob("*.py"))
FLOOR = {unit: number for number, floor in enumerate(FLOORS) for unit in floor}


def _name(file):
    """gan_jax/data/fit.py -> gan_jax.data.fit; a package's __init__.py -> the package."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _unit(module):
    """gan_jax.data.fit -> data."""
    return (module.split(".") + ["__init__"])[1]


def _tree(file):
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


def _imports(file, modules):
    """(line, module) of every import in a file that can run: those inside functions too, those for editors not."""
    tree = _tree(file)
    for_editors = {id(node) for block in ast.walk(tree) if isinstance(block, ast.If)
                   and ast.unparse(block.test) == "TYPE_CHECKING" for node in block.body}  # fmt: skip
    for node in ast.walk(tree):
        if id(node) in for_editors:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield node.lineno, inner if inner in modules else node.module


MODULES = {_name(file): file for file in FILES}
INTERNAL = {name: [(line, to) for line, to in _imports(file, MODULES) if to.split(".")[0] == "gan_jax"]
            for name, file in MODULES.items()}  # fmt: skip


def test_every_file_has_its_floor():
    assert {_unit(name) for name in MODULES} <= FLOOR.keys()


@pytest.mark.parametrize("unit", sorted({_unit(name) for name in MODULES}))
def test_imports_run_downward(unit):
    wrong = []
    for name, imports in INTERNAL.items():
        for line, to in imports:
            other = _unit(to)
            if _unit(name) != unit or other == unit:
                continue
            allowed = ONLY.get(unit)
            if FLOOR[other] <= FLOOR[unit] or (allowed is not None and other not in allowed):
                wrong.append(f"{MODULES[name].relative_to(ROOT)}:{line} imports {to}")
    assert not wrong, "\n".join(wrong)


def test_only_the_commands_and_the_python_interface_import_the_loop():
    users = {name for name, imports in INTERNAL.items() if any(_unit(to) == "train" for _, to in imports)}
    assert users == {"gan_jax.cli", "gan_jax.api.training"}


def test_no_file_imports_itself_in_a_circle():
    graph = {name: {to for _, to in imports} - {name} for name, imports in INTERNAL.items()}
    for name, imports in graph.items():  # a package's own files do not count as users of its __init__
        graph[name] = {to for to in imports if not name.startswith(to + ".")}
    list(graphlib.TopologicalSorter(graph).static_order())


def test_experiments_import_ml_collections_and_each_other_alone():
    files = sorted((ROOT / "experiments").glob("*.py"))
    assert files
    allowed = {"ml_collections", *(file.stem for file in files)}
    wrong = [f"{file.name}:{line} imports {to}" for file in files for line, to in _imports(file, ())
             if to.split(".")[0] not in allowed]  # fmt: skip
    assert not wrong, "\n".join(wrong)


def test_the_command_line_imports_nothing_heavy():
    code = f"import gan_jax.cli, sys; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.strip() == "", done.stdout + done.stderr


def test_the_package_alone_imports_nothing_heavy():
    """And no numpy; its names are there all the same."""
    code = f"""
import sys, gan_jax
print(*[m for m in ("numpy", *{HEAVY!r}) if m in sys.modules])
assert {{"open_run", "train", "fid", "UserError", "__version__"}} <= set(dir(gan_jax))
assert not hasattr(gan_jax, "nothing")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.strip() == "", done.stdout + done.stderr


def _public(body):
    """Public functions and classes of a body, and those of its classes."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from _public(node.body)


@pytest.mark.parametrize("file", FILES, ids=_name)
def test_every_public_name_has_a_docstring(file):
    tree = _tree(file)
    assert ast.get_docstring(tree), "the module has none"
    missing = [node for node in _public(tree.body) if not ast.get_docstring(node)]
    assert not missing, [f"{node.name}, line {node.lineno}" for node in missing]


@pytest.mark.parametrize("file", FILES, ids=_name)
def test_files_and_functions_stay_short(file):
    lines = len(file.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST_FILE, f"{lines} lines"
    functions = [node for node in ast.walk(_tree(file)) if isinstance(node, ast.FunctionDef)]
    long = [node for node in functions if node.end_lineno - node.lineno >= LONGEST_FUNCTION]
    assert not long, [f"{node.name}: {node.end_lineno - node.lineno + 1} lines" for node in long]
