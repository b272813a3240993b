"""Recorded numbers of pytorch-CycleGAN-and-pix2pix in this project's names and layouts.

`cyclegan_resnet6_*` are generators of 6 blocks, `patchgan_*` four discriminators each; `cyclegan_gradients` holds small
networks with their gradients under the same names, `cyclegan_step` two steps of training; `layout_*.json` list every
tensor of full-size networks.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

GOLDEN = pathlib.Path(__file__).parent / "golden"
Place = tuple[str, ...]  # module names from the network down
# torch field -> collection and name of ours; a kernel is told from a scale by its dimensions
_FIELDS = {
    "weight": ("params", "scale"),
    "bias": ("params", "bias"),
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
}


def load(name: str) -> dict[str, np.ndarray]:
    """Every array of a recording under its own name."""
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def layout(name: str) -> dict[str, np.ndarray]:
    """Zeros, without memory, for every tensor of a full-size network."""
    record = json.loads((GOLDEN / f"layout_{name}.json").read_text(encoding="utf-8"))
    return {key: np.broadcast_to(np.float32(0), shape) for key, shape in record["keys"].items()}


def generator_places(blocks: int, dropout: bool = False) -> dict[str, Place]:
    """torch module -> place of ours, for a ResNet generator; dropout moves the second half of a block by one."""
    up = 10 + blocks
    convs = {1: "stem", 4: "down0", 7: "down1", up: "up0", up + 3: "up1", up + 7: "image"}
    places = {f"model.{n}": (name,) for n, name in convs.items()}
    places |= {f"model.{n + 1}": (f"{name}_norm",) for n, name in convs.items() if name != "image"}
    second = 6 if dropout else 5
    for i in range(blocks):
        for n, name in ((1, "conv0"), (2, "norm0"), (second, "conv1"), (second + 1, "norm1")):
            places[f"model.{10 + i}.conv_block.{n}"] = (f"block{i}", name)
    return places


def discriminator_places(layers: int) -> dict[str, Place]:
    """torch module -> place of ours, for a patch discriminator; 0 layers are the 1x1 network."""
    net, last = ("model", layers) if layers else ("net", 1)
    places = {f"{net}.0": ("conv0",), f"{net}.{3 * last + 2}": ("head",)}
    for i in range(1, last + 1):
        places |= {f"{net}.{3 * i - 1}": (f"conv{i}",), f"{net}.{3 * i}": (f"conv{i}_norm",)}
    return places


def variables(arrays: Mapping[str, np.ndarray], prefix: str, places: Mapping[str, Place]) -> dict[str, Any]:
    """Collections of a network from the arrays under `prefix`: 'params' (or gradients) and 'batch_stats'.

    Args:
      arrays: a recording, or a layout.
      prefix: of the network's own names, as 'params/' or 'grad/G_A/'.
      places: of `generator_places` or `discriminator_places`.
    """
    collections: dict[str, Any] = {}
    for key, value in arrays.items():
        if not key.startswith(prefix) or key.endswith("num_batches_tracked"):
            continue
        module, _, torch_field = key.removeprefix(prefix).rpartition(".")
        place = places[module]
        collection, field = _FIELDS[torch_field]
        if value.ndim == 4:  # OIHW -> HWIO; transposed convolutions [in, out, kh, kw] -> (kh, kw, in, out)
            field, value = "kernel", value.transpose((2, 3, 0, 1) if place[0].startswith("up") else (2, 3, 1, 0))
        branch = collections.setdefault(collection, {})
        for name in place:
            branch = branch.setdefault(name, {})
        branch[field] = value
    return collections


def images(array: np.ndarray) -> np.ndarray:
    """(B, C, H, W) -> (B, H, W, C)."""
    return np.moveaxis(array, 1, -1)
