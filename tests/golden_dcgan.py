"""Recorded DCGAN numbers (golden/dcgan.npz, PyTorch examples network) in this project's names and layouts."""

import json
import pathlib
from typing import Any, NamedTuple

import numpy as np

from gan_jax.models import dcgan

# torch name within `main` -> ours; the number of a BatchNorm follows its layer's
_LAYERS = {
    "G": {0: "stem", 3: "up0", 6: "up1", 9: "up2", 12: "image"},
    "D": {0: "down0", 2: "down1", 5: "down2", 8: "down3", 11: "head"},
}
_NORMS = {net: {n + 1: f"{name}_norm" for n, name in layers.items()} for net, layers in _LAYERS.items()}
_FIELDS = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}


class Golden(NamedTuple):
    generator: dcgan.Generator
    discriminator: dcgan.Discriminator
    params: dict[str, Any]  # 'G', 'D' -> parameters
    batch_stats: dict[str, Any]  # 'G', 'D' -> running statistics
    z: np.ndarray  # (3, N, nz), index = step
    real: np.ndarray  # (3, N, 64, 64, 3)
    npz: dict[str, np.ndarray]  # every recorded array under its own name


def load() -> Golden:
    """Networks, their parameters and statistics, inputs, and all recorded arrays."""
    with np.load(pathlib.Path(__file__).parent / "golden" / "dcgan.npz", allow_pickle=False) as file:
        npz = {key: file[key] for key in file.files}
    config = json.loads(str(npz["meta"]))["config"]
    generator = dcgan.Generator(resolution=64, channels=config["nc"], width=config["ngf"], latent_size=config["nz"])
    discriminator = dcgan.Discriminator(resolution=64, channels=config["nc"], width=config["ndf"])
    return Golden(
        generator=generator,
        discriminator=discriminator,
        params={net: tree(npz, f"params/{net}/", net) for net in "GD"},
        batch_stats={net: tree(npz, f"params/{net}/", net, statistics=True) for net in "GD"},
        z=npz["in/z"][..., 0, 0],
        real=npz["in/real"].transpose(0, 1, 3, 4, 2),
        npz=npz,
    )


def tree(npz: dict[str, np.ndarray], prefix: str, net: str, statistics: bool = False) -> dict[str, Any]:
    """Parameters (or gradients, or with `statistics` the running values) of 'G' or 'D' under `prefix`."""
    out: dict[str, Any] = {}
    for key, value in npz.items():
        if not key.startswith(prefix) or key.endswith("num_batches_tracked"):
            continue
        _, number, field = key.removeprefix(prefix).split(".")
        if field.startswith("running") != statistics:
            continue
        if value.ndim == 4:  # D: OIHW -> HWIO; G's transposed convolutions: [in, out, kh, kw] -> (kh, kw, in, out)
            order = (2, 3, 0, 1) if net == "G" else (2, 3, 1, 0)
            out[_LAYERS[net][int(number)]] = {"kernel": value.transpose(order)}
        else:
            out.setdefault(_NORMS[net][int(number)], {})[_FIELDS[field]] = value
    return out
