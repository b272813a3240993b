"""Recorded StyleGAN2 numbers (golden/sg2_*.npz) in this project's names and layouts."""

import json
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from flax import traverse_util

from gan_jax.interop import names
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


def tree(npz: dict[str, np.ndarray], prefix: str) -> dict[str, Any]:
    """{collection: nested dict} of the state dict, gradients or moments under `prefix`."""
    entries = {key.removeprefix(prefix): value for key, value in npz.items() if key.startswith(prefix)}
    return nested(names.stylegan(name, value) for name, value in entries.items() if not names.is_constant(name))


def nested(entries: Iterable[tuple[names.Place, np.ndarray]]) -> dict[str, Any]:
    """{collection: nested dict} of places and arrays."""
    return traverse_util.unflatten_dict({(collection, *path): value for (collection, path), value in entries})


def images(value: np.ndarray) -> np.ndarray:
    """NCHW -> NHWC, any leading axes before the batch."""
    return np.moveaxis(value, -3, -1)


def regroup(count: int, group: int) -> np.ndarray:
    """Official positions of the samples, in the order in which contiguous groups hold the official strided ones."""
    group = min(group or count, count)
    return np.arange(count).reshape(group, count // group).T.reshape(-1)
