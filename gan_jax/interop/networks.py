"""Which networks a file holds: their tensors by official name, and the arguments that they were made with."""

import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from gan_jax import specs
from gan_jax.errors import UserError
from gan_jax.interop import rosinality
from gan_jax.weights.containers import reader
from gan_jax.weights.pickles import Damaged, Module, Record, Tensor, brief

UNKNOWN_DATA = "folder:its-training-images"  # of a network that comes without an experiment
LARGEST = 2**14  # side of images, and their channels
ROLES = {
    "G": "G", "g": "G", "netG": "G", "generator": "G",
    "D": "D", "d": "D", "netD": "D", "discriminator": "D",
    "G_ema": "G_ema", "g_ema": "G_ema", "ema": "G_ema", "generator_ema": "G_ema",
}  # fmt: skip
_WRAPPERS = ("state_dict", "module", "model", "params")  # names around a state dict that tell nothing
_OPTIMIZER = {"state", "param_groups"}  # entries of a state dict of torch's optimizers
_STUDIOGAN = re.compile(r"linear[01]\.(weight|bias)")  # of its DCGAN, ResNet and BigGAN
_MOST, _DEEPEST = 100_000, 60  # entries of a file, and containers in containers


class Weights(NamedTuple):
    """What files hold: arrays to put in place of fresh ones, and what they say of the run that they are for."""

    spec: specs.Spec
    params: dict[str, dict[str, np.ndarray]]  # net -> arrays by `<collection>/<path>`
    ema: dict[str, dict[str, np.ndarray]]
    description: str  # for the terminal
    base: dict[str, Any] = {}  # config of a run without an experiment
    fields: dict[str, dict] = {}  # section of nets -> the model's name and fields; they replace an experiment's
    keys: dict[str, Any] = {}  # dotted key -> value, which replaces an experiment's
    fits_any: bool = False  # the networks take pictures of any size: an experiment's data tell it
    config: ConfigDict | None = None  # of our own files
    data: dict[str, Any] | None = None  # summary of theirs


@dataclasses.dataclass
class Network:
    """One network of a file."""

    tensors: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)  # by official name
    kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)  # of its constructor; {} where unknown
    attributes: dict[str, Any] = dataclasses.field(default_factory=dict)  # numbers and words of its parts, by last name


def find(value: Any, size: int = 2**40) -> tuple[dict[str, Network], list[str]]:
    """({'G', 'D', 'G_ema' as far as the file has them: network}, names of what else is in it).

    Args:
      value: of a file, see `containers.read_file`.
      size: of the file, bytes.
    Raises:
      UserError: nothing that is known as a network.
      Damaged: tensors without their numbers, networks within themselves.
    """
    numbers = reader(size)
    if _is_module(value):
        network = _of_module(value, numbers)
        return {_role(network.tensors): network}, []
    if not isinstance(value, dict):
        raise UserError(f"expected networks or their tensors, and this file holds a {type(value).__name__}")
    modules = {key: item for key, item in value.items() if _is_module(item)}
    if modules:
        networks = {ROLES[key]: _of_module(item, numbers) for key, item in modules.items() if key in ROLES}
        others = [brief(key) for key in value if key not in ROLES]
    else:
        networks, others = _of_tensors(value, numbers)
    if not networks:
        names = ", ".join(map(brief, list(value)[:5])) or "nothing"
        raise UserError(f"no generator or discriminator in this file: it holds {names}")
    return networks, others


def _is_module(value: Any) -> bool:
    return isinstance(value, Module) or (
        isinstance(value, Record) and isinstance(value.state, dict) and "_parameters" in value.state
    )


def _of_module(module: Module | Record, numbers: Callable) -> Network:
    init_kwargs = module.state.get("_init_kwargs")
    network = Network(kwargs=dict(init_kwargs) if isinstance(init_kwargs, dict) else {})
    if module.state.get("_init_args"):
        raise UserError("a network that was made with arguments without names, which is not supported")
    for path, state in _parts(module):
        skipped = state.get("_non_persistent_buffers_set")
        skipped = skipped if isinstance(skipped, set) else ()
        for section in ("_parameters", "_buffers"):
            for name, tensor in _dict(state.get(section)).items():
                if isinstance(tensor, Tensor) and name not in skipped:
                    network.tensors[".".join((*path, _name(name)))] = numbers(tensor)
        for name, item in state.items():
            if isinstance(item, str | int | float):
                network.attributes.setdefault(_name(name), item)
    return network


def _parts(module: Module | Record) -> Iterator[tuple[tuple[str, ...], dict]]:
    """(path, attributes) of a network and all networks within it."""
    stack = [((), module)]
    for _ in range(_MOST):
        if not stack:
            return
        path, part = stack.pop()
        yield path, part.state
        if len(path) > _DEEPEST or len(stack) > _MOST:
            break
        children = [(name, item) for name, item in _dict(part.state.get("_modules")).items() if item is not None]
        if not all(_is_module(item) for _, item in children):
            raise Damaged(f"something else than networks within {'.'.join(path) or 'a network'}")
        stack += [((*path, _name(name)), item) for name, item in children]
    raise Damaged("networks within networks without end")


def _name(name: Any) -> str:
    if not isinstance(name, str | int) or (isinstance(name, int) and name.bit_length() > 64):
        raise Damaged(f"{brief(name)} where a name was expected")
    return str(name)


def _dict(value: Any) -> dict:
    if value is not None and not isinstance(value, dict):
        raise Damaged(f"a {type(value).__name__} where a network's parts were expected")
    return value or {}


def _of_tensors(value: dict, numbers: Callable) -> tuple[dict[str, Network], list[str]]:
    """Networks of a state dict, or of a dict of such, told apart by the first part of their names; others' keys."""
    networks: dict[str, Network] = {}
    single = Network()
    optimizers = [key for key, item in value.items() if isinstance(item, dict) and item.keys() == _OPTIMIZER]
    value = {key: item for key, item in value.items() if key not in optimizers}
    for name, tensor in _flat(value):
        parts = name.split(".")
        while len(parts) > 1 and parts[0] in _WRAPPERS:
            parts.pop(0)
        network = single
        if len(parts) > 1 and parts[0] in ROLES:
            network = networks.setdefault(ROLES[parts.pop(0)], Network())
            while len(parts) > 1 and parts[0] in _WRAPPERS:
                parts.pop(0)
        if ".".join(parts) in network.tensors:
            raise UserError(f"the tensor {name} is in the file twice")
        network.tensors[".".join(parts)] = numbers(tensor)
    if networks and rosinality.AVERAGE in single.tensors:
        average = single.tensors.pop(rosinality.AVERAGE)
        for role in networks.keys() & {"G", "G_ema"}:
            networks[role].tensors[rosinality.AVERAGE] = average
    for network in (single, *networks.values()):
        network.tensors = rosinality.official(network.tensors)
    if single.tensors and networks:
        strays = list(single.tensors)
        raise UserError(f"tensors that belong to no network: {', '.join(strays[:5])}")
    if single.tensors:
        networks[_role(single.tensors)] = single
    others = [key for key, item in value.items() if not isinstance(item, dict | Tensor | np.ndarray)]
    return networks, [brief(key) for key in (*optimizers, *others)]


def _flat(value: dict) -> Iterator[tuple[str, Any]]:
    """(name, tensor) of nested dicts, names joined by dots; everything else is left out."""
    stack = [((), value)]
    for _ in range(_MOST):
        if not stack:
            return
        path, item = stack.pop()
        if isinstance(item, Tensor | np.ndarray):
            yield ".".join(path), item
        elif isinstance(item, dict):
            if len(path) > _DEEPEST or len(stack) > _MOST:
                break
            stack += [((*path, _name(name)), inner) for name, inner in reversed(item.items())]
    raise Damaged("dicts within dicts without end")


def _role(tensors: dict) -> str:
    """The role of a network that is alone in its file: 'G_ema' or 'D'."""
    if any(name.startswith("synthesis.") or ".AggregationLayer." in f".{name}" for name in tensors):
        return "G_ema"
    if any(name.endswith(".out.weight") or ".ExtractionLayer." in f".{name}" for name in tensors):
        return "D"
    if any(name.startswith("blocks.0.0.") for name in tensors) and any(map(_STUDIOGAN.match, tensors)):
        what = "a network of StudioGAN's whose layers no model here has"
        raise UserError(f"{what}; of StudioGAN only StyleGAN2 is imported")
    names = ", ".join(list(tensors)[:5]) or "none"
    raise UserError(
        f"these tensors are of no network that is known: {names}; docs/interop.md lists the networks that are read"
    )
