"""Recorded numbers of contrastive-unpaired-translation (CUT) in this project's names and layouts.

The generator's gradients in `cut_train_step` and `fastcut_losses_*` are not those of the recorded losses: PyTorch's
instance normalisation on CPUs misreads a gradient whose channels lie last in memory, as that of sampled features does.
`fastcut_gradients` has those of the same step by a program of our own in PyTorch, in which that gradient is copied
first; without the copy it gives the recorded ones. Finite differences agree with it.

`cut_generator_*` and `cut_discriminator_antialias` are networks with gradients, `cut_patchnce` the heads and the
contrast of patches, `cut_train_step` two steps of training, `fastcut_losses_*` one step with and without a mirrored
picture.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tests import golden_cyclegan
from tests.golden_cyclegan import Place, images, layout, load

__all__ = ("DISCRIMINATOR", "LAYERS", "generator_places", "heads", "images", "layout", "load", "variables")
LAYERS = {0: "input", 4: "down0", 8: "down1", 12: "block0", 16: "block4"}  # recorded place -> ours, antialiased
DISCRIMINATOR = {f"model.{n}": (name,) for n, name in
                 ((0, "conv0"), (3, "conv1"), (7, "conv2"), (11, "conv3"), (14, "head"))}  # fmt: skip


def generator_places(blocks: int, *, down: bool = True, up: bool = True) -> dict[str, Place]:
    """torch module -> place of ours, in the order of the layers; a filter of an antialiased one is a layer, too."""
    order: list[str] = ["border", "stem", "stem_norm", "relu"]
    for i in range(2):
        order += [f"down{i}", f"down{i}_norm", "relu", *(["filter"] if down else [])]
    order += [f"block{i}" for i in range(blocks)]
    for i in range(2):
        order += [*(["filter"] if up else []), f"up{i}", f"up{i}_norm", "relu"]
    order += ["border", "image"]
    places: dict[str, Place] = {}
    for number, name in enumerate(order):
        if name.startswith("block"):
            for n, part in ((1, "conv0"), (2, "norm0"), (5, "conv1"), (6, "norm1")):
                places[f"model.{number}.conv_block.{n}"] = (name, part)
        elif name not in ("border", "relu", "filter"):
            places[f"model.{number}"] = (name,)
    return places


def variables(
    arrays: Mapping[str, np.ndarray], prefix: str, places: Mapping[str, Place], *, up: bool = True
) -> dict[str, Any]:
    """As `golden_cyclegan.variables`, without the constant filters; `up`: doublings are filters and convolutions."""
    own = {key: value for key, value in arrays.items() if key.startswith(f"{prefix}model")}
    own = {key: value for key, value in own.items() if not key.endswith(".filt")}
    for key, value in own.items():
        place = places[key.removeprefix(prefix).rpartition(".")[0]] if value.ndim == 4 else ("",)
        if up and place[0].startswith("up"):  # which is taken for a transposed one there
            own[key] = value.swapaxes(0, 1)
    return golden_cyclegan.variables(own, prefix, places)


def heads(arrays: Mapping[str, np.ndarray], prefix: str, layers: tuple[str, ...]) -> dict[str, Any]:
    """Parameters of the heads, or their gradients, from the arrays under `prefix`."""
    result = {}
    for number, layer in enumerate(layers):
        for theirs, ours in ((0, "dense0"), (2, "dense1")):
            kernel, bias = (arrays[f"{prefix}mlp_{number}.{theirs}.{field}"] for field in ("weight", "bias"))
            result[f"{layer}_{ours}"] = {"kernel": kernel.T, "bias": bias}
    return result
