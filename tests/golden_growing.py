"""Recorded ProGAN and StyleGAN 1 numbers (golden/progan_*.npz, stylegan1_*.npz) in this project's names and layouts."""

import json
import pathlib
import re
from typing import Any

import numpy as np

GOLDEN = pathlib.Path(__file__).parent / "golden"
# layers of the base block; the others are Conv0, Conv1, Conv0_up and Conv1_down
_BASE = {"Const": "base_input", "Dense": "base_dense", "Conv": "base_conv", "Dense0": "base_dense", "Dense1": "head"}


def load(name: str) -> tuple[dict[str, np.ndarray], dict]:
    """Every recorded array under its own name, and the file's meta data."""
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
        npz = {key: file[key] for key in file.files}
    return npz, json.loads(str(npz.pop("meta")))


def fields(kwargs: dict, **more) -> dict:
    """The recorded constructor arguments that ProGAN and StyleGAN 1 share, as fields of our networks."""
    names = {"resolution": "resolution", "num_channels": "channels", "label_size": "num_classes",
             "fmap_base": "feature_base", "fmap_max": "feature_max"}  # fmt: skip
    return {ours: kwargs[theirs] for theirs, ours in names.items()} | more


def tree(npz: dict[str, np.ndarray], prefix: str, resolution: int = 32) -> dict[str, Any]:
    """Parameters or gradients of one network under `prefix`, nested as ours are."""
    out: dict[str, Any] = {}
    for key, value in npz.items():
        if key.startswith(prefix):
            path, value = rename(key.removeprefix(prefix), value, resolution)
            if path is not None:
                node = out
                for part in path[:-1]:
                    node = node.setdefault(part, {})
                node[path[-1]] = value
    return out


def rename(name: str, value: np.ndarray, resolution: int) -> tuple[tuple[str, ...] | None, np.ndarray]:
    """Our path of an official variable, and its value in our layout; None for what is no parameter."""
    parts = name.split("/")
    if parts[0] == "dlatent_avg" or parts[-1].startswith("noise"):
        return None, value
    net = {"G_mapping": ("mapping_network",), "G_synthesis": ("synthesis_network",)}.get(parts[0], ())
    *layers, kind = parts[1:] if net else parts
    if net == ("mapping_network",):
        if layers == ["LabelConcat"]:
            return ("mapping_network", "label_embedding"), value
        return ("mapping_network", layers[0].lower(), {"weight": "kernel"}.get(kind, kind)), value
    if match := re.fullmatch(r"(To|From)RGB_lod(\d+)", layers[0]):
        side = resolution >> int(match[2])
        image = "to_image" if match[1] == "To" else "from_image"
        return (*net, f"{side}x{side}_{image}", {"weight": "kernel"}.get(kind, kind)), value
    style = bool(net)
    extra = layers.pop() if layers[-1] in ("Noise", "StyleMod") else ""
    block, layer = layers
    ours = _BASE.get(layer) or f"{block}_conv{re.match(r'Conv(.)', layer)[1]}"
    if kind == "const":
        return (*net, "const"), value.transpose(0, 2, 3, 1)
    if extra == "Noise":
        return (*net, f"{ours}_noise"), value
    if extra == "StyleMod":
        return (*net, f"{ours}_style", {"weight": "kernel"}.get(kind, kind)), value
    if kind == "bias" and (style or layer == "Dense"):
        return (*net, f"{ours}_bias"), value
    return (*net, ours, {"weight": "kernel"}.get(kind, kind)), value


def transposed(params: dict) -> dict:
    """ProGAN's fused enlarging kernels, stored (kh, kw, out, in), as (kh, kw, in, out)."""
    swapped = {}
    for name, layer in params.items():
        if re.fullmatch(r"\d+x\d+_conv0", name):
            layer = {**layer, "kernel": layer["kernel"].swapaxes(2, 3)}
        swapped[name] = layer
    return swapped


def strided_to_neighbours(batch: int, group: int) -> np.ndarray:
    """Order that makes the official code's groups, samples batch / group apart, neighbours."""
    group = min(group, batch)
    return np.arange(batch).reshape(group, batch // group).T.ravel()


def assert_close(actual, expected, tolerance: float, name: str = "") -> None:
    """Largest difference at most `tolerance` of the expectation's largest value."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, (name, actual.shape, expected.shape)
    scale = max(np.abs(expected).max(initial=0.0), 1e-12)
    assert np.abs(actual - expected).max(initial=0.0) <= tolerance * scale, (
        f"{name}: {np.abs(actual - expected).max() / scale:.2e} of the largest value"
    )


def assert_trees_close(actual: dict, expected: dict, tolerance: float, path: str = "") -> None:
    """`assert_close` leaf by leaf; both trees have the same names."""
    assert set(actual) == set(expected), (path, set(actual) ^ set(expected))
    for key, value in expected.items():
        if isinstance(value, dict):
            assert_trees_close(actual[key], value, tolerance, f"{path}/{key}")
        else:
            assert_close(actual[key], value, tolerance, f"{path}/{key}")
