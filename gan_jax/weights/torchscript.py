"""Networks that TorchScript has saved: the tensors of a tree of records, by the names that a state dict would have."""

from typing import Any

from gan_jax.weights.pickles import Damaged, Record, Tensor

_MOST, _DEEPEST = 100_000, 60  # attributes in all, and networks in networks


def is_network(value: Any) -> bool:
    """Whether what a file holds is such a network."""
    return isinstance(value, Record) and value.origin.startswith("__torch__") and isinstance(value.state, dict)


def tensors(network: Record) -> dict[str, Tensor]:
    """The parameters and buffers of a network, such as `transformer.resblocks.0.ln_1.weight`.

    Raises:
      Damaged: networks within themselves, or names that are none.
    """
    result: dict[str, Tensor] = {}
    stack: list[tuple[tuple[str, ...], Record]] = [((), network)]
    count = 0
    while stack:
        path, part = stack.pop()
        count += len(part.state)
        if len(path) > _DEEPEST or count > _MOST:
            raise Damaged("networks within networks without end")
        for name, value in part.state.items():
            if not isinstance(name, str):
                raise Damaged("an attribute whose name is no text")
            if isinstance(value, Tensor):
                result[".".join((*path, name))] = value
            elif is_network(value):
                stack.append(((*path, name), value))
    return result
