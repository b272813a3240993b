"""The experiments that come with the package, by name: their files, and what each says of itself."""

import ast
import difflib
import pathlib

from gan_jax.errors import MissingPathError


def folder() -> pathlib.Path:
    """Where they lie: within an installed package, or beside the package in a checkout."""
    package = pathlib.Path(__file__).resolve().parent
    inside = package / "experiments"
    return inside if inside.is_dir() else package.parent / "experiments"


def names() -> list[str]:
    """Their names, sorted."""
    return sorted(file.stem for file in folder().glob("*.py"))


def find(path: str) -> pathlib.Path:
    """The file of an experiment.

    Args:
      path: a name such as `digits_dcgan`, or the path of a file.
    Raises:
      MissingPathError: neither; it names the nearest.
    """
    file = pathlib.Path(path)
    if file.suffix or len(file.parts) != 1:
        if file.is_file():
            return file
        near = difflib.get_close_matches(file.name, [one.name for one in file.parent.glob("*.py")], 3, 0.4)
        by_name = difflib.get_close_matches(file.stem, names(), 1, 0.4)
        near += [f"{name}, which --config takes by its name" for name in by_name if f"{name}.py" not in near]
        raise MissingPathError(f"no file {path}" + (f"; nearest: {', '.join(near)}" if near else ""))
    if path not in names():
        near = difflib.get_close_matches(path, names(), 1, 0.4)
        hint = f"; did you mean {near[0]}?" if near else "."
        own = f" A file of your own is {path}.py." if pathlib.Path(f"{path}.py").is_file() else ""
        raise MissingPathError(f"no experiment {path}{hint} There are {', '.join(names())}.{own}")
    return folder() / f"{path}.py"


def summaries() -> dict[str, str]:
    """The first line of each one's docstring, by name; none of them is run."""
    return {name: _summary(folder() / f"{name}.py") for name in names()}


def _summary(file: pathlib.Path) -> str:
    return (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n")[0]
