"""Recorded StyleGAN3 networks: what their files hold, brought to this project's names and layouts."""

import inspect
import json
import pathlib

import numpy as np

from gan_jax.models.stylegan3 import Generator
from gan_jax.models.stylegan3_design import layer_table
from tests import golden_stylegan2

FOLDER = pathlib.Path(__file__).parent / "golden"
FIELDS = {"img_resolution": "resolution", "img_channels": "channels", "c_dim": "num_classes", "z_dim": "latent_size",
          "w_dim": "w_size", "conv_kernel": "kernel_size", "use_radial_filters": "radial_filters",
          "margin_size": "margin"}  # fmt: skip


def load(name: str) -> tuple[dict[str, np.ndarray], dict]:
    """(arrays, meta) of a file of recorded numbers."""
    with np.load(FOLDER / f"{name}.npz") as npz:
        arrays = dict(npz)
    return arrays, json.loads(str(arrays.pop("meta")))


def generator(kwargs: dict, **overrides) -> Generator:
    """The generator of recorded constructor arguments."""
    fields = {FIELDS.get(key, key): value for key, value in kwargs.items()}
    fields["mapping_layers"] = fields.pop("mapping_kwargs")["num_layers"]
    return Generator(**{**fields, **overrides})


def design(model: Generator) -> dict:
    """The fields of a generator that are arguments of `layer_table`."""
    return {name: getattr(model, name) for name in inspect.signature(layer_table).parameters}


def variables(arrays: dict[str, np.ndarray], prefix: str) -> dict:
    """All arrays under a prefix as {'params': ..., 'w_avg': ..., ...}."""
    return golden_stylegan2.tree(arrays, prefix)


def nhwc(images: np.ndarray) -> np.ndarray:
    """(B, C, H, W) -> (B, H, W, C)."""
    return images.transpose(0, 2, 3, 1)
