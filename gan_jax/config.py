"""Experiment files, overrides from the command line, and what a resumed run may change."""

import ast
import difflib
import importlib.util
import inspect
import json
import math
import pathlib
import sys
from collections.abc import Callable, Iterable
from typing import Any

import ml_collections
import ml_dtypes  # noqa: F401, makes numpy know bfloat16
import numpy as np

from gan_jax import catalog
from gan_jax.errors import MissingPathError, UserError

# A resumed run may change these: they move no number of the steps that are already done.
SAFE = ("total_images", "every.log_images", "every.sample_images", "every.checkpoint_images", "every.evaluate_images",
        "evaluation", "checkpoints", "grid", "logs", "parallel", "programs", "steps_per_call",
        "resident_data", "perceptual.weights", "perceptual.download", "text.download")  # fmt: skip
DTYPES = ("float32", "bfloat16", "float64")  # in which a net can compute; the last for tests alone
RANGES = {  # what `check_range` can expect of a number
    "0 or more": lambda x: x >= 0,
    "above 0": lambda x: x > 0,
    "1 or more": lambda x: x >= 1,
    "0 to 1": lambda x: 0 <= x <= 1,
    "0 or more and below 1": lambda x: 0 <= x < 1,
}


def load(
    path: str,
    overrides: Iterable[tuple[str, str]] = (),
    defaults: Callable[[ml_collections.ConfigDict], dict] | None = None,
) -> ml_collections.ConfigDict:
    """Reads an experiment file, fills in what it leaves to the defaults, and applies overrides.

    Args:
      path: a name of `catalog` or `FILE.py`, or either with `:variant`; the file defines `get_config(variant='')`.
      overrides: (dotted key, text) pairs, each text read as the type that the key holds.
      defaults: config -> nested dict of every key that something reads, with its default. Overrides that choose what
        is read (`game` and every `name`) are applied before it is asked.
    Returns:
      The complete, locked config.
    Raises:
      MissingPathError: no such name or file.
      UserError: not an experiment file, an unknown variant or key, or text of the wrong type.
    """
    name, _, variant = path.partition(":")
    try:
        file = catalog.find(name)
    except MissingPathError as error:
        raise MissingPathError(f"--config={path}: {error}") from error
    if file.suffix != ".py":
        raise UserError(f"--config={path}: expected an experiment file ending in .py")
    config = _get_config(file, variant)
    if not isinstance(config, ml_collections.ConfigDict):
        raise UserError(f"--config={path}: get_config() returned {type(config).__name__}, expected a ConfigDict")
    return resolve(config, overrides, defaults)


def resolve(
    config: ml_collections.ConfigDict,
    overrides: Iterable[tuple[str, str]] = (),
    defaults: Callable[[ml_collections.ConfigDict], dict] | None = None,
) -> ml_collections.ConfigDict:
    """The second half of `load`: a complete, locked copy of what an experiment states. Raises UserError as it does."""
    config = _unshared(config)
    config.lock()
    overrides = list(overrides)
    choices = [(key, text) for key, text in overrides if key == "game" or key.endswith(".name")]
    for key, text in choices:
        _choose(config, key, text, defaults)
    if defaults is not None:
        complete(config, defaults)
    for key, text in overrides:
        if (key, text) not in choices:
            override(config, key, text)
    return config


def _choose(config: ml_collections.ConfigDict, key: str, text: str, defaults: Callable | None) -> None:
    """`override` of a name; opens its section where the experiment leaves it to the defaults, as `augment`."""
    section, _, last = key.rpartition(".")
    if defaults is not None and section and section not in config and last in (defaults(config).get(section) or {}):
        with config.unlocked():
            config[section] = ml_collections.ConfigDict({last: text})
    else:
        override(config, key, text)


def _unshared(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """A copy in which no two sections are one object: a dict used twice would be overridden in both places."""
    items = ((key, _unshared(v) if isinstance(v, ml_collections.ConfigDict) else v) for key, v in config.items())
    return ml_collections.ConfigDict(dict(items))


def complete(config: ml_collections.ConfigDict, defaults: Callable[[ml_collections.ConfigDict], dict]):
    """Fills in what a config leaves to `defaults`, see `load`. Raises UserError for a key that nothing reads."""
    readable = defaults(config)
    _reject_unread(config, readable)
    with config.unlocked():
        _fill(config, readable)
    return config


def _reject_unread(config: ml_collections.ConfigDict, readable: dict, prefix: str = "") -> None:
    """Raises UserError for a key of the experiment that nothing reads."""
    for key, value in config.items():
        if key not in readable:
            near = _nearest(key, readable)
            hint = f"; did you mean config.{prefix}{near}?" if near else ""
            raise UserError(f"the experiment sets config.{prefix}{key}, which nothing reads{hint}")
        if isinstance(value, ml_collections.ConfigDict) and isinstance(readable[key], dict) and readable[key]:
            _reject_unread(value, readable[key], f"{prefix}{key}.")


def _fill(config: ml_collections.ConfigDict, readable: dict) -> None:
    for key, value in readable.items():
        if key not in config:
            config[key] = ml_collections.ConfigDict(value) if isinstance(value, dict) else value
        elif isinstance(value, dict) and isinstance(config[key], ml_collections.ConfigDict):
            _fill(config[key], value)


def section(config: ml_collections.ConfigDict, path: str) -> ml_collections.ConfigDict | dict:
    """The section at a dotted path; empty where there is none."""
    for name in path.split("."):
        config = config.get(name) or {}
    return config


def fields(constructor: Callable, without: Iterable[str] = ()) -> dict[str, Any]:
    """Keys and defaults of a config section that is splatted into `constructor`; types become their names."""
    skipped = ("parent", "name", *without)
    values = {k: p.default for k, p in inspect.signature(constructor).parameters.items() if k not in skipped}
    return {k: v.__name__ if isinstance(v, type) else v for k, v in values.items() if v is not inspect.Parameter.empty}


def _get_config(file: pathlib.Path, variant: str) -> Any:
    neighbours, catalogue = str(file.resolve().parent), str(catalog.folder())
    spec = importlib.util.spec_from_file_location(f"experiment_{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, neighbours)  # experiments import their neighbours
    sys.path.append(catalogue)  # a user's copy of one still does
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's file raises is about that file
        raise UserError(f"--config={file}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(neighbours)
        sys.path.remove(catalogue)
    if not hasattr(module, "get_config"):
        raise UserError(f"--config={file}: the file defines no get_config(variant='')")
    try:
        return module.get_config(variant) if variant else module.get_config()
    except Exception as error:  # as above; a variant that the file does not know comes here too
        what = f"{type(error).__name__}: {error}"
        raise UserError(f"--config={file}:{variant}: unknown or failing variant: {what}") from error


def override(config: ml_collections.ConfigDict, key: str, text: str) -> None:
    """Sets one dotted key from text. Raises UserError for an unknown key (naming the nearest) or a wrong type."""
    *sections, last = key.split(".")
    section = config
    if sections and sections[-1] == "options":  # free keys, which their reader checks
        return _set_option(config, sections, last, text)
    for depth, name in enumerate(sections):
        if not isinstance(section, ml_collections.ConfigDict) or name not in section:
            raise _unknown(config, key, ".".join(sections[: depth + 1]))
        section = section[name]
    if not isinstance(section, ml_collections.ConfigDict) or last not in section:
        raise _unknown(config, key, key)
    if isinstance(section[last], ml_collections.ConfigDict):
        raise UserError(f"--config.{key}={text}: this is a section; set one of {', '.join(sorted(section[last]))}")
    with section.ignore_type():  # a resolution may be one number or two
        section[last] = _parse(key, text, section[last])


def _unknown(config, key: str, missing: str) -> UserError:
    keys = [k for k, _ in flatten(config)]
    near = _nearest(key, keys)
    hint = f"; did you mean --config.{near}?" if near else f"; known: {', '.join(keys)}"
    return UserError(f"--config.{key}: config has no key {missing!r}{hint}")


def _nearest(key: str, keys: Iterable[str]) -> str:
    """The known key that was probably meant: one that it abbreviates, as lr does learning_rate, or is spelled like."""
    section, _, last = key.rpartition(".")
    for one in keys:
        place, _, name = one.rpartition(".")
        words = [word for word in name.split("_") if word]
        is_short = len(words) > 1 and "".join(word[0] for word in words) == last
        if place.endswith(section) and (name == last or is_short):
            return one
    return next(iter(difflib.get_close_matches(key, keys, 1, 0.3)), "")


def _parse(key: str, text: str, old: Any) -> Any:
    kind = type(old).__name__
    if isinstance(old, str):
        return text
    if isinstance(old, bool):
        if text.lower() in ("true", "1"):
            return True
        if text.lower() in ("false", "0"):
            return False
        raise UserError(f"--config.{key}={text}: expected True or False")
    try:
        if isinstance(old, int) and not text.startswith("("):
            value = int(text.replace("_", "")) if not _is_whole_float(text) else int(float(text))
        elif isinstance(old, float):
            value = float(text)
        elif isinstance(old, tuple) and all(isinstance(item, str) for item in old) and not text.startswith(("(", "[")):
            value = _items(text)
        else:
            value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        raise UserError(f"--config.{key}={text}: expected {kind}, as in {old!r}") from None
    if isinstance(old, tuple) or text.startswith("("):
        return tuple(value) if isinstance(value, tuple | list) else (value,)
    return value


def _items(text: str) -> tuple:
    """`fd,kd` as words, `256,128` as numbers."""
    items = [item.strip() for item in text.split(",") if item.strip()]
    return tuple(int(item) if item.lstrip("-").isdigit() else item for item in items)


def _set_option(config: ml_collections.ConfigDict, sections: list[str], name: str, text: str) -> None:
    section = config
    for depth, part in enumerate(sections):
        if not isinstance(section, ml_collections.ConfigDict) or part not in section:
            raise _unknown(config, ".".join((*sections, name)), ".".join(sections[: depth + 1]))
        section = section[part]
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    with section.unlocked():
        section[name] = value


def check_range(config: ml_collections.ConfigDict, expected: str, *keys: str) -> None:
    """Raises UserError for the first of the dotted keys that is no finite number as `expected`, one of `RANGES`.

    Keys that the config lacks pass.
    """
    for key, value in flatten(config):
        if key in keys and not (isinstance(value, int | float) and math.isfinite(value) and RANGES[expected](value)):
            raise UserError(f"config.{key}={value!r}: expected a finite number, {expected}")


def _is_whole_float(text: str) -> bool:
    try:
        return "e" in text.lower() and float(text).is_integer()
    except ValueError:
        return False


def flatten(config: ml_collections.ConfigDict, prefix: str = "") -> list[tuple[str, Any]]:
    """All (dotted key, value) pairs, sorted by key."""
    pairs = []
    for key in sorted(config):
        value = config[key]
        if isinstance(value, ml_collections.ConfigDict):
            pairs += flatten(value, f"{prefix}{key}.")
        else:
            pairs.append((prefix + key, value))
    return pairs


def to_json(config: ml_collections.ConfigDict) -> str:
    """The resolved config as readable JSON."""
    return json.dumps(json.loads(config.to_json()), indent=2, sort_keys=True) + "\n"


def from_json(text: str) -> ml_collections.ConfigDict:
    """The inverse of `to_json`; lists come back as tuples. Raises ValueError where the text is no config."""
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, found {type(value).__name__}")
    return ml_collections.ConfigDict(_tuples(value)).lock()


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _tuples(v) for k, v in value.items()}
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def differences(
    old: ml_collections.ConfigDict, new: ml_collections.ConfigDict, safe: tuple[str, ...] = SAFE
) -> list[str]:
    """Lines `key: old -> new` for every key that a resumed run may not change: all but the `safe` keys and sections."""
    before, after = dict(flatten(old)), dict(flatten(new))
    lines = []
    for key in sorted(before | after):
        if any(key == name or key.startswith(name + ".") for name in safe):
            continue
        a, b = before.get(key, "(absent)"), after.get(key, "(absent)")
        if json.dumps(a, default=str) != json.dumps(b, default=str):
            lines.append(f"config.{key}: {a!r} -> {b!r}")
    return lines


def build(constructor: Callable, section: ml_collections.ConfigDict, where: str, **extra: Any) -> Any:
    """Calls a constructor with a config section's keys, so that its signature is the schema.

    Args:
      constructor: function or class; keys named in `extra` may not stand in the section.
      section: its keys become keyword arguments, but for `name`, which chose the constructor.
      where: the section's dotted name, for the message.
      **extra: arguments that the caller decides.
    Raises:
      UserError: a key that the constructor does not take, naming the nearest that it does; or an argument of the
        caller's that it does not take.
    """
    arguments = {k: (v.to_dict() if isinstance(v, ml_collections.ConfigDict) else v) for k, v in section.items()}
    arguments.pop("name", None)
    accepted = [p for p in inspect.signature(constructor).parameters if p not in ("parent", "name", *extra)]
    for key in arguments:
        if key not in accepted:
            near = _nearest(key, accepted)
            hint = f"; did you mean {near!r}?" if near else ""
            what = f"config.{where}.{key} is not an option of {constructor.__name__}{hint}"
            raise UserError(f"{what}; it takes {', '.join(accepted)}")
    if "dtype" in arguments:
        _check_dtype(arguments["dtype"], where)
    refused = [key for key in extra if key not in inspect.signature(constructor).parameters]
    if refused:
        raise UserError(
            f"config.{where}.name={section.get('name')!r} has no {', '.join(refused)}, which the game decides; choose "
            "another model, or another game"
        )
    return constructor(**arguments, **extra)


def _check_dtype(dtype: Any, where: str) -> None:
    """Raises UserError for a type in which a net cannot be trained, as in float16, where gradients become zero."""
    try:
        name = np.dtype(dtype).name
    except TypeError:
        name = ""
    if name == "float16":
        raise UserError(
            f"config.{where}.dtype={dtype!r}: small gradients become zero in float16, and no loss is scaled here; "
            "take bfloat16"
        )
    if name not in DTYPES:
        raise UserError(f"config.{where}.dtype={dtype!r}: expected {' or '.join(DTYPES[:2])}")
