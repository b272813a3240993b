"""Recorded numbers of LaMa in this project's names and layouts.

`lama_ffc_units` are parts of its generator, `lama_generator_discriminator` both networks with their losses' gradients,
`lama_losses` losses, `lama_train_step` two steps of training, `lama_masks` masks and the numbers that they are made of;
`layout_*.json` list every tensor of published files.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from tests import golden_superres
from tests.golden_cyclegan import close, images, layout, load, shapes

__all__ = ("DISCRIMINATOR", "Names", "close", "generator", "images", "layout", "load", "shapes", "variables")
Names = tuple[tuple[str, str], ...]  # pattern of a torch module's whole name -> path of ours

# Of a spectral transform and of a Fourier convolution, behind the name of the whole.
_SPECTRAL: Names = (
    (r"conv1\.0", "reduce"), (r"conv1\.1", "reduce_norm"), (r"fu\.conv_layer", "unit/conv"), (r"fu\.bn", "unit/norm"),
    (r"lfu\.conv_layer", "local_unit/conv"), (r"lfu\.bn", "local_unit/norm"), (r"conv2", "expand"),
)  # fmt: skip
_CONV: Names = (
    (r"ffc\.convl2l", "local"), (r"ffc\.convl2g", "local_to_global"), (r"ffc\.convg2l", "global_to_local"),
    (r"bn_l", "local_norm"), (r"bn_g", "global_norm"),
    *((rf"ffc\.convg2g\.{theirs}", f"spectral/{ours}") for theirs, ours in _SPECTRAL),
)  # fmt: skip
DISCRIMINATOR: Names = ((r"model(\d)\.0", r"conv\1"), (r"model(\d)\.1", r"conv\1_norm"))


def units() -> Names:
    """Of the Fourier units and spectral transforms that are recorded alone."""
    return (*_SPECTRAL, (r"conv_layer", "conv"), (r"bn", "norm"))


def generator(halvings: int, blocks: int) -> Names:
    """Of a whole generator: torch counts its layers."""
    wholes = [(r"model\.1", "stem"), *((rf"model\.{2 + i}", f"down{i}") for i in range(halvings))]
    for i in range(blocks):
        wholes += [(rf"model\.{2 + halvings + i}\.conv{half + 1}", f"block{i}_conv{half}") for half in range(2)]
    table = [(rf"{name}\.{theirs}", f"{place}/{ours}") for name, place in wholes for theirs, ours in _CONV]
    up = 3 + halvings + blocks
    for i in range(halvings):
        table += [(rf"model\.{up + 3 * i}", f"up{i}"), (rf"model\.{up + 3 * i + 1}", f"up{i}_norm")]
    return (*table, (rf"model\.{up + 3 * halvings + 1}", "image"))


def discriminator(layers: int) -> Names:
    """Of a discriminator: its last layer is the head."""
    return ((rf"model{layers + 1}\.0", "head"), *DISCRIMINATOR)


def variables(arrays: Mapping[str, np.ndarray], prefix: str, names: Names) -> dict[str, Any]:
    """As `golden_superres.variables`; transposed convolutions, `up0` and on, have their inputs' channels first."""
    collections = golden_superres.variables(arrays, prefix, names)
    for name, layer in collections["params"].items():
        if re.fullmatch(r"up\d", name) and "kernel" in layer:  # HW(in)(out), as `conv_transpose` takes it
            layer["kernel"] = layer["kernel"].swapaxes(2, 3)
    return collections
