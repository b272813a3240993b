"""Recorded StyleGAN2 numbers (golden/sg2_*.npz) in this project's names and layouts."""

import json
import pathlib
import re
from typing import Any

import numpy as np

from gan_jax.models import stylegan2

FOLDER = pathlib.Path(__file__).parent / "golden"


def load(name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """(every recorded array under its own name, meta)."""
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
        npz = {key: file[key] for key in file.files}
    return npz, json.loads(str(npz.pop("meta")))


def generator(kwargs: dict) -> stylegan2.Generator:
    """The Generator of the official constructor's arguments."""
    synthesis, mapping = kwargs.get("synthesis_kwargs", {}), kwargs.get("mapping_kwargs", {})
    return stylegan2.Generator(
        resolution=kwargs["img_resolution"],
        channels=kwargs["img_channels"],
        num_classes=kwargs["c_dim"],
        latent_size=kwargs["z_dim"],
        w_size=kwargs["w_dim"],
        mapping_layers=mapping.get("num_layers", 8),
        architecture=synthesis.get("architecture", "skip"),
        channel_base=synthesis["channel_base"],
        channel_max=synthesis["channel_max"],
        conv_clamp=synthesis.get("conv_clamp") or 0.0,
    )


def discriminator(kwargs: dict) -> stylegan2.Discriminator:
    """The Discriminator of the official constructor's arguments."""
    epilogue = kwargs.get("epilogue_kwargs", {})
    return stylegan2.Discriminator(
        resolution=kwargs["img_resolution"],
        channels=kwargs["img_channels"],
        num_classes=kwargs["c_dim"],
        architecture=kwargs.get("architecture", "resnet"),
        channel_base=kwargs["channel_base"],
        channel_max=kwargs["channel_max"],
        mapping_layers=kwargs.get("mapping_kwargs", {}).get("num_layers", 8),
        mbstd_group=epilogue.get("mbstd_group_size", 4) or 0,
        conv_clamp=kwargs.get("conv_clamp") or 0.0,
    )


def convert(name: str, value: np.ndarray) -> tuple[str, tuple[str, ...], np.ndarray] | None:
    """(collection, path, array) of an official state-dict entry; None for a resampling filter, which is no variable."""
    parts = name.split(".")
    networks = {"mapping": "mapping_network", "synthesis": "synthesis_network"}
    path, field = tuple(networks.get(part, part) for part in parts[:-1]), parts[-1]
    if field == "resample_filter":
        return None
    if field == "w_avg":
        return "w_avg", (*path, field), value
    if field == "noise_const":
        return "noise", (*path, field), value
    if field == "const":
        value = value.transpose(1, 2, 0)
    if field == "weight":
        field = "kernel"
        if value.ndim == 4:  # OIHW -> HWIO
            value = value.transpose(2, 3, 1, 0)
        elif path[-1] == "fc" and (block := re.fullmatch(r"b(\d+)(?:x(\d+))?", path[-2])):  # flattened CHW -> HWC
            h, w = int(block[1]), int(block[2] or block[1])
            value = value.reshape(len(value), -1, h, w).transpose(2, 3, 1, 0).reshape(-1, len(value))
        else:
            value = value.T
    return "params", (*path, field), value


def tree(npz: dict[str, np.ndarray], prefix: str) -> dict[str, Any]:
    """{collection: nested dict} of the state dict, gradients or moments under `prefix`."""
    out: dict[str, Any] = {}
    for key, value in npz.items():
        entry = convert(key.removeprefix(prefix), value) if key.startswith(prefix) else None
        if entry is None:
            continue
        node = out.setdefault(entry[0], {})
        for part in entry[1][:-1]:
            node = node.setdefault(part, {})
        node[entry[1][-1]] = entry[2]
    return out


def images(value: np.ndarray) -> np.ndarray:
    """NCHW -> NHWC, any leading axes before the batch."""
    return np.moveaxis(value, -3, -1)


def regroup(count: int, group: int) -> np.ndarray:
    """Official positions of the samples, in the order in which contiguous groups hold the official strided ones."""
    group = min(group or count, count)
    return np.arange(count).reshape(group, count // group).T.reshape(-1)
