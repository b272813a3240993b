"""State dicts of PyTorch programs for pictures: how each kind is told by its names, and where its tensors belong."""

import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from gan_jax.errors import UserError
from gan_jax.weights import containers
from gan_jax.weights.pickles import Tensor

Tensors = dict[str, np.ndarray]  # by the file's name
Fields = dict[str, Any]  # of our model
_FIRST = ("params_ema", "params", "state_dict", "model", "module")  # names around a state dict, the better one first
_PLAYERS = ("generator", "discriminator")  # prefixes in a checkpoint of both
_UNUSED = ("num_batches_tracked", "weight_v", "filt")  # counted batches, further singular vectors, fixed filters
_DEEPEST = 4  # containers in containers
_KINDS = Tensor | np.ndarray
_STATISTICS = {"running_mean": "mean", "running_var": "var"}


class Layout(NamedTuple):
    """A kind of network of other programs.

    Fields:
      model, role: of ours, such as 'esrgan' and 'generator'.
      game: that its generator is sampled by.
      is_kind: names -> whether they are of this kind.
      fields: tensors -> fields of our model; LookupError, ValueError where they are not of this kind after all.
      channels: tensors -> channels of the pictures that it takes and makes; a discriminator makes 0.
      places: fields -> {name of the file's module: path of ours}.
      transposed: fields -> what paths of transposed convolutions begin with; '' where there are none.
    """

    model: str
    role: str
    game: str
    is_kind: Callable[[set[str]], bool]
    fields: Callable[[Tensors], Fields]
    channels: Callable[[Tensors, Fields], tuple[int, int]]
    places: Callable[[Fields], dict[str, str]]
    transposed: Callable[[Fields], str] = lambda fields: ""


class Player(NamedTuple):
    """A network of a file, in our names and layouts."""

    layout: Layout
    fields: Fields
    channels: tuple[int, int]
    arrays: dict[str, np.ndarray]  # by `<collection>/<path>`


def state_dicts(contents: containers.Contents) -> tuple[list[Tensors], list[str]]:
    """(the state dicts of a file, names of what else is in it); no numbers are read yet where torch wrote the file.

    Of several versions of one network the averaged one is taken, `params_ema`. A checkpoint of a generator and its
    discriminator has their names as prefixes; what has neither is left out.
    """
    value, others = contents.value, []
    for _ in range(_DEEPEST):
        inner = next((key for key in _FIRST if isinstance(value.get(key), dict)), "") if isinstance(value, dict) else ""
        if not inner:
            break
        others += [str(key) for key in value if key != inner]
        value = value[inner]
    if not isinstance(value, dict):
        return [], []
    tensors = {key: item for key, item in value.items() if isinstance(key, str) and isinstance(item, _KINDS)}
    others += [str(key) for key in value if key not in tensors]
    for _ in range(_DEEPEST if all(name.startswith("module.") for name in tensors) else 0):
        tensors = {name.removeprefix("module."): item for name, item in tensors.items()}
    split = {
        net: {name.removeprefix(f"{net}."): item for name, item in tensors.items() if name.startswith(f"{net}.")}
        for net in _PLAYERS
    }
    if not split["generator"]:
        return [tensors], others
    others += sorted({name.partition(".")[0] for name in tensors} - set(_PLAYERS))
    return [part for part in split.values() if part], others


def player(layout: Layout, tensors: Tensors, numbers: Callable) -> Player:
    """A network of this layout.

    Args:
      layout: whose `is_kind` holds.
      tensors: of the file, their numbers unread.
      numbers: tensor -> array.
    Raises:
      UserError: tensors that are missing, of strange shapes, or of no layer of the network.
      Damaged: tensors without their numbers.
    """
    arrays = {name: numbers(tensor) for name, tensor in tensors.items()}
    try:
        fields = layout.fields(arrays)
        channels = layout.channels(arrays, fields)
        return Player(layout, fields, channels, _placed(layout, fields, arrays))
    except (LookupError, ArithmeticError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        reason = f"{error.args[0]} is missing" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"
        raise UserError(f"its tensors are not those of a {layout.role} of {layout.model}: {reason}") from error


def _placed(layout: Layout, fields: Fields, tensors: Tensors) -> dict[str, np.ndarray]:
    places, arrays, strays = layout.places(fields), {}, []
    has_statistics = fields.get("norm") != "instance"  # files of PyTorch before 0.4 have some that nothing reads
    for name, value in tensors.items():
        module, _, field = name.rpartition(".")
        if field in _UNUSED or (field in _STATISTICS and not has_statistics):
            continue
        if module not in places:
            strays.append(name)
            continue
        key, value = _converted(places[module], field, value, layout.transposed(fields))
        if key in arrays:
            raise UserError(f"two tensors of the file belong to {key}")
        arrays[key] = value
    if strays:
        more = f" and {len(strays) - 5} more" if len(strays) > 5 else ""
        raise UserError(
            f"it is a {layout.role} of {layout.model} ({described(fields)}), and these tensors belong to no layer of "
            f"it: {', '.join(strays[:5])}{more}"
        )
    return arrays


def _converted(path: str, field: str, value: np.ndarray, transposed: str) -> tuple[str, np.ndarray]:
    """`<collection>/<path>` of a tensor, and its numbers: kernels (height, width, in, out), dense ones (in, out)."""
    if field in _STATISTICS:
        return f"batch_stats/{path}/{_STATISTICS[field]}", value
    if field == "weight_u":
        return f"spectral/{path}/u", value
    if field in ("weight", "weight_orig") and value.ndim == 4:
        is_transposed = transposed and path.startswith(transposed)
        return f"params/{path}/kernel", value.transpose((2, 3, 0, 1) if is_transposed else (2, 3, 1, 0))
    if field == "weight" and value.ndim == 2:
        return f"params/{path}/kernel", value.T
    if field == "weight":
        return f"params/{path}/{'slope' if path.endswith('prelu') else 'scale'}", value
    return f"params/{path}/{field}", value


def described(fields: Fields) -> str:
    """Fields for a message."""
    return ", ".join(f"{key}={value}" for key, value in fields.items())


def count(names: Iterable[str], pattern: str) -> int:
    """How many different numbers the names have where the pattern's first group is; they have to be 0, 1, 2, ...

    Raises:
      ValueError: one is missing.
    """
    numbers = {int(match[1]) for name in names if (match := re.match(pattern, name))}
    if numbers != set(range(len(numbers))):
        raise ValueError(f"layers {sorted(numbers)[:5]} where 0, 1, 2 and so on were expected")
    return len(numbers)


def highest(tensors: Tensors) -> int:
    """The highest number that a module has which the network itself holds, such as `body.16` or `model.16`.

    Raises:
      ValueError: it is out of all proportion to the number of tensors.
    """
    number = max(int(match[1]) for name in tensors if (match := re.match(r"[a-z]+\.(\d+)\.", name)))
    if number > 8 * len(tensors):
        raise ValueError(f"a layer of the number {number} among {len(tensors)} tensors")
    return number
