"""Official names and layouts of weights, and ours: the one place that knows both.

Official networks are StyleGAN2-ADA's, StyleGAN3's and R3GAN's in PyTorch: kernels (out, in, height, width), features
flattened as (C, H, W). Ours are (height, width, in, out) and (H, W, C), see `models`.
"""

import re

import numpy as np

Place = tuple[str, tuple[str, ...]]  # collection, path

_NETWORKS = {"mapping": "mapping_network", "synthesis": "synthesis_network"}
_COLLECTIONS = {"w_avg": "w_avg", "noise_const": "noise", "magnitude_ema": "magnitude_ema", "freqs": "fourier",
                "phases": "fourier"}  # fmt: skip
CONSTANTS = ("resample_filter", "up_filter", "down_filter", "transform", "Kernel")  # here part of the architecture
_TOP = {"AggregationLayer": "image", "ExtractionLayer": "image", "EmbeddingLayer": "embed"}


def is_constant(name: str) -> bool:
    """Whether an official entry is a filter or another number of the architecture, which our networks do not store."""
    return name.rpartition(".")[2] in CONSTANTS


def stylegan(name: str, value: np.ndarray) -> tuple[Place, np.ndarray]:
    """Where an entry of StyleGAN2's or StyleGAN3's networks belongs, and its numbers in our layout."""
    parts = name.split(".")
    path, field = tuple(_NETWORKS.get(part, part) for part in parts[:-1]), parts[-1]
    if field == "const":
        value = value.transpose(1, 2, 0)
    if field == "weight":
        field = "kernel"
        if value.ndim == 4:
            value = value.transpose(2, 3, 1, 0)
        elif block := re.fullmatch(r"b(\d+)(?:x(\d+))?\.fc", ".".join(path)):  # of flattened features
            h, w = int(block[1]), int(block[2] or block[1])
            value = value.reshape(len(value), -1, h, w).transpose(2, 3, 1, 0).reshape(-1, len(value))
        else:
            value = value.T
    return (_COLLECTIONS.get(field, "params"), (*path, field)), value


def r3gan(name: str, value: np.ndarray, *, discriminator: bool, stages: int) -> tuple[Place, np.ndarray]:
    """Where an entry of R3GAN's networks of so many stages belongs, and its numbers in our layout."""
    path, value = _r3gan(name.removeprefix("Model."), value, discriminator, stages)
    return ("params", tuple(path)), value


def _r3gan(name: str, value: np.ndarray, discriminator: bool, stages: int) -> tuple[list[str], np.ndarray]:
    if name.split(".")[0] in _TOP:
        return [_TOP[name.split(".")[0]], "kernel"], value.reshape(value.shape[:2]).T
    match = re.fullmatch(r"MainLayers\.(\d+)\.Layers\.(\d+)\.(.*)", name)
    if not match:
        return name.split("."), value
    stage, layer, field = int(match[1]), int(match[2]), match[3]
    level = stages - 1 - stage if discriminator else stage
    if field in ("Basis", "Basis.weight"):
        return ["basis"], value.reshape(value.shape[0], *value.shape[-2:]).transpose(1, 2, 0)
    if field == "LinearLayer.weight":
        return ["project", "kernel"], value.T
    if field == "LinearLayer.Layer.weight":
        return [f"stage{level}_change", "kernel"], value[:, :, 0, 0].T
    block = f"stage{level}_block{layer if discriminator else layer - 1}"
    if field == "LinearLayer2.Layer.weight":
        return [block, "kernel"], value.transpose(2, 3, 1, 0)
    if field in ("LinearLayer1.Layer.weight", "LinearLayer3.Layer.weight"):
        return [block, "expand" if "1" in field else "reduce", "kernel"], value[:, :, 0, 0].T
    if field in ("NonLinearity1.Bias", "NonLinearity2.Bias"):
        return [block, "bias" + field[12]], value
    return [block, *field.split(".")], value
