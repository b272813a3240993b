"""Recorded numbers of DF-GAN's published program in this project's names and layouts.

`dfgan` are its networks with their outputs, and gradients of the losses and of the penalty alone; `dfgan_train_step`
two steps of training.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.golden_cyclegan import close, images, load

__all__ = ("close", "images", "load", "trees", "variables")
PLACES = (  # pattern of a torch tensor's whole name -> path of ours
    (r"fc\.(\w+)", r"stem/\1"), (r"to_rgb\.1\.(\w+)", r"image/\1"), (r"GBlocks\.(\d)\.c_sc\.(\w+)", r"block\1/skip/\2"),
    (r"GBlocks\.(\d)\.c1\.(\w+)", r"block\1/conv0/\2"), (r"GBlocks\.(\d)\.c2\.(\w+)", r"block\1/conv1/\2"),
    (r"GBlocks\.(\d)\.fuse1\.(affine\d)\.fc_(.*)", r"block\1/fusion0/\2/\3"),
    (r"GBlocks\.(\d)\.fuse2\.(affine\d)\.fc_(.*)", r"block\1/fusion1/\2/\3"),
    (r"conv_img\.(\w+)", r"stem/\1"), (r"DBlocks\.(\d)\.gamma", r"block\1/gamma"),
    (r"DBlocks\.(\d)\.conv_s\.(\w+)", r"block\1/skip/\2"), (r"DBlocks\.(\d)\.conv_r\.0\.(\w+)", r"block\1/conv0/\2"),
    (r"DBlocks\.(\d)\.conv_r\.2\.(\w+)", r"block\1/conv1/\2"),
    (r"joint_conv\.0\.(\w+)", r"joint/\1"), (r"joint_conv\.2\.(\w+)", r"head/\1"),
)  # fmt: skip
AFFINE = ((r"(gamma|beta)\.linear2\.bias", r"\1_bias"), (r"(gamma|beta)\.linear1", r"\g<1>0"),
          (r"(gamma|beta)\.linear2", r"\g<1>1"))  # fmt: skip


def variables(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, Any]:
    """Parameters of one network, or their gradients, from the arrays under `prefix`."""
    tree: dict[str, Any] = {}
    for key, value in arrays.items():
        if not key.startswith(prefix):
            continue
        place = _place(key.removeprefix(prefix))
        if value.ndim > 1:
            place = place.replace(".weight", "/weight").replace("weight", "kernel")
            value = value.transpose((2, 3, 1, 0) if value.ndim == 4 else (1, 0))
        if place.startswith("stem") and "fc" in key.removeprefix(prefix):  # (C, 4, 4) -> (4, 4, C)
            value = np.moveaxis(value.reshape(*value.shape[:-1], -1, 4, 4), -3, -1).reshape(value.shape)
        *parents, name = place.replace(".", "/").split("/")
        branch = tree
        for part in parents:
            branch = branch.setdefault(part, {})
        branch[name] = value
    return tree


def trees(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, Any]:
    """net -> its tree: D and C of the program are one discriminator."""
    return {
        "generator": variables(arrays, f"{prefix}/G/"),
        "discriminator": variables(arrays, f"{prefix}/D/") | variables(arrays, f"{prefix}/C/"),
    }


def _place(name: str) -> str:
    for pattern, ours in PLACES:
        if match := re.fullmatch(pattern, name):
            place = match.expand(ours)
            for theirs, short in AFFINE:
                place = re.sub(theirs, short, place)
            return place
    raise KeyError(name)
