"""Recorded numbers of BasicSR, Real-ESRGAN and an SRGAN in this project's names and layouts.

`sr_rrdbnet_*`, `sr_msrresnet_*`, `sr_srvggnetcompact` and `sr_srgan` are generators, `sr_vggstyle_discriminator` and
`sr_unet_discriminator_sn` discriminators, `sr_*_step*` two steps of training each, `sr_losses` losses; `layout_*.json`
list every tensor of published files.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.golden_cyclegan import images, layout, load

__all__ = ("COMPACT", "MSRRESNET", "RRDBNET", "SRGAN_D", "SRGAN_G", "UNET_D", "VGG_D", "images", "layout", "load",
           "values", "variables")  # fmt: skip
Names = tuple[tuple[str, str], ...]  # pattern of a torch module's whole name -> path of ours
RRDBNET: Names = (
    (r"conv_first", "stem"), (r"conv_body", "trunk"), (r"conv_hr", "last"), (r"conv_last", "image"),
    (r"conv_up([12])", r"up<\1>"), (r"body\.(\d+)\.rdb(\d)\.conv(\d)", r"block\1/dense\2/conv\3"),
)  # fmt: skip
MSRRESNET: Names = (
    (r"conv_first", "stem"), (r"conv_hr", "last"), (r"conv_last", "image"), (r"upconv([12])", r"up<\1>"),
    (r"body\.(\d+)\.conv([12])", r"block\1_conv<\2>"),
)  # fmt: skip
VGG_D: Names = (
    (r"linear1", "hidden"), (r"linear2", "head"), (r"conv(\d_\d)", r"conv\1"), (r"bn(\d_\d)", r"conv\1_norm"),
)  # fmt: skip
UNET_D: Names = (
    (r"conv0", "stem"), (r"conv9", "head"), (r"conv([1-3])", r"down<\1>"), (r"conv4", "up2"), (r"conv5", "up1"),
    (r"conv6", "up0"), (r"conv7", "last0"), (r"conv8", "last1"),
)  # fmt: skip


_HALVES = (("conv1", "conv0"), ("bn1", "norm0"), ("prelu", "prelu"), ("conv2", "conv1"), ("bn2", "norm1"))


def _srgan_generator(scale: int) -> Names:
    """Of five residual blocks; the last layer comes behind one or two enlargements."""
    last = scale.bit_length() - 1
    blocks = tuple(
        (rf"block{i + 2}\.{theirs}", f"block{i}_{ours}")
        for i in range(5)
        for theirs, ours in _HALVES
    )
    return (
        (r"block1\.0", "stem"), (r"block1\.1", "stem_prelu"), *blocks,
        (r"block7\.0", "trunk"), (r"block7\.1", "trunk_norm"),
        (r"block8\.(\d)\.conv", r"up\1"), (r"block8\.(\d)\.prelu", r"up\1_prelu"), (rf"block8\.{last}", "image"),
    )  # fmt: skip


SRGAN_G = _srgan_generator(4)
SRGAN_D: Names = (
    (r"net\.0", "conv0_0"),
    *((rf"net\.{3 * i - 1}", f"conv{i // 2}_{i % 2}") for i in range(1, 8)),
    *((rf"net\.{3 * i}", f"conv{i // 2}_{i % 2}_norm") for i in range(1, 8)),
    (r"net\.24", "hidden"), (r"net\.26", "head"),
)  # fmt: skip


def compact(layers: int) -> Names:
    """Of SRVGGNetCompact: convolutions at even places, slopes at odd ones."""
    names = ("stem", *(f"conv{i}" for i in range(layers)))
    table = [(rf"body\.{2 * i}", name) for i, name in enumerate(names)]
    table += [(rf"body\.{2 * i + 1}", f"{name}_prelu") for i, name in enumerate(names)]
    return (*table, (rf"body\.{2 * len(names)}", "image"))


COMPACT = compact(3)
_FIELDS = {
    "weight": ("params", "scale"),
    "weight_orig": ("params", "kernel"),
    "weight_u": ("spectral", "u"),
    "bias": ("params", "bias"),
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
}


def variables(arrays: Mapping[str, np.ndarray], prefix: str, names: Names) -> dict[str, Any]:
    """Collections of a network from the arrays under `prefix`: 'params' (or gradients), 'batch_stats' and 'spectral'.

    The right singular vectors, which the networks here do not keep, are left out.
    """
    collections: dict[str, Any] = {}
    for key, value in arrays.items():
        module, _, field = key.removeprefix(prefix).rpartition(".")
        if not key.startswith(prefix) or not module or field in ("weight_v", "num_batches_tracked"):
            continue
        place = _place(module, names)
        collection, ours = _FIELDS[field]
        if value.ndim == 4 and place in ("hidden", "head") and value.shape[2:] == (1, 1) and names is SRGAN_D:
            value = value[:, :, 0, 0]  # 1x1 convolutions of one pixel
        if value.ndim in (2, 4):  # OIHW -> HWIO, (out, in) -> (in, out)
            ours, value = "kernel", value.transpose((2, 3, 1, 0) if value.ndim == 4 else (1, 0))
        elif place.endswith("prelu"):
            ours = "slope"
        branch = collections.setdefault(collection, {})
        for part in place.split("/"):
            branch = branch.setdefault(part, {})
        branch[ours] = value
    return collections


def _place(module: str, names: Names) -> str:
    """The path of ours; a number in angle brackets counts from 0."""
    for pattern, ours in names:
        if match := re.fullmatch(pattern, module):
            return re.sub(r"<(\d+)>", lambda number: str(int(number[1]) - 1), match.expand(ours))
    raise KeyError(module)


def values(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, float]:
    """Numbers under a prefix, by what follows it."""
    return {key.removeprefix(prefix): float(value) for key, value in arrays.items() if key.startswith(prefix)}
