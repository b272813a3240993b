"""Layouts of pix2pix's, CycleGAN's and CUT's networks, as their authors' programs write them (`latest_net_*.pth`)."""

import re
from collections.abc import Callable

import numpy as np

from gan_jax.errors import UserError
from gan_jax.interop.layouts import Fields, Layout, Tensors, highest

GAME = "paired"  # of one generator; two, there and back, are of the game 'translation'
CONTRASTIVE = "contrastive"  # of CUT's
_DEEPEST = 5  # halvings of a U-Net without dropout; each further one has dropout
_FIRST = 10  # module of a ResNet's first block, where halvings are strides
_TAPS = {3: [0.25, 0.5, 0.25], 4: [0.25, 0.75, 0.75, 0.25]}  # of a row of CUT's filters, by their side


def _norm(tensors: Tensors, biased: str) -> str:
    """'batch' where norms have scales, else 'instance', whose convolutions have biases, that of `biased` too."""
    if any(value.ndim == 1 for name, value in tensors.items() if name.endswith(".weight")):
        return "batch"
    if f"{biased}.bias" not in tensors:
        raise UserError("a network without norms, which is not supported")
    return "instance"


def _inner(i: int) -> str:
    """The modules of a U-Net's i-th halving, from 1 on; each lies in the one before."""
    return "model.model.1" + ".model.3" * (i - 1) + ".model"


def _unet_fields(tensors: Tensors) -> Fields:
    depth = 1
    while f"{_inner(depth)}.1.weight" in tensors:
        depth += 1
    norm = _norm(tensors, f"{_inner(1)}.1")
    width = len(tensors["model.model.0.weight"])
    dropout = {"dropout_start": 1, "dropout_layers": max(depth - _DEEPEST, 0)}
    return {"width": width, "depth": depth, "norm": norm, **dropout}


def _unet_places(fields: Fields) -> dict[str, str]:
    places, depth = {"model.model.0": "down0", "model.model.3": "up0"}, fields["depth"]
    for i in range(1, depth):
        inner, is_last = _inner(i), i == depth - 1
        up = 3 if is_last else 5
        places |= {f"{inner}.1": f"down{i}", f"{inner}.{up}": f"up{i}", f"{inner}.{up + 1}": f"up{i}_norm"}
        places |= {} if is_last else {f"{inner}.2": f"down{i}_norm"}
    return places


def _unet_channels(tensors: Tensors, _: Fields) -> tuple[int, int]:
    return tensors["model.model.0.weight"].shape[1], tensors["model.model.3.weight"].shape[1]


def _resnet_fields(tensors: Tensors) -> Fields:
    filters = _filters(tensors)
    blurs = {"antialias_down": 3 in filters, "antialias_up": 4 in filters} if filters else {}
    first = _FIRST + (2 if 3 in filters else 0)
    blocks = {int(match[1]) for name in tensors if (match := re.match(r"model\.(\d+)\.conv_block\.", name))}
    if blocks != set(range(first, first + len(blocks))):
        raise ValueError(f"residual blocks at {sorted(blocks)}, where {first} and so on were expected")
    later = tensors.get(f"model.{first}.conv_block.6.weight")  # of the second half; without dropout a norm's
    dropout = {"dropout": 0.5} if later is not None and later.ndim == 4 else {}
    width, norm = len(tensors["model.1.weight"]), _norm(tensors, "model.1")
    return {"width": width, "blocks": len(blocks), "norm": norm, **blurs, **dropout}


def _resnet_convs(fields: Fields) -> dict[int, str]:
    """Module -> ours, of the convolutions outside of the blocks, and of the first block. Filters are modules, too."""
    down, up = fields.get("antialias_down", False), fields.get("antialias_up", False)
    convs, place = {1: "stem"}, 4
    for i in range(2):
        convs[place] = f"down{i}"
        place += 4 if down else 3
    convs[place], place = "block0", place + fields["blocks"]
    for i in range(2):
        convs[place + up] = f"up{i}"  # behind its filter
        place += 4 if up else 3
    return convs | {place + 1: "image"}


def _resnet_places(fields: Fields) -> dict[str, str]:
    """Dropout moves the second half of a block by one."""
    convs = _resnet_convs(fields)
    (first,) = (place for place, name in convs.items() if name == "block0")
    del convs[first]
    places = {f"model.{i}": name for i, name in convs.items()}
    places |= {f"model.{i + 1}": f"{name}_norm" for i, name in convs.items() if name != "image"}
    second = 6 if fields.get("dropout") else 5
    halves = ((1, "conv0"), (2, "norm0"), (second, "conv1"), (second + 1, "norm1"))
    inner = {(i, j): name for i in range(fields["blocks"]) for j, name in halves}
    return places | {f"model.{first + i}.conv_block.{j}": f"block{i}/{name}" for (i, j), name in inner.items()}


def _resnet_channels(tensors: Tensors, fields: Fields) -> tuple[int, int]:
    (image,) = (place for place, name in _resnet_convs(fields).items() if name == "image")
    return tensors["model.1.weight"].shape[1], len(tensors[f"model.{image}.weight"])


def _filters(tensors: Tensors) -> set[int]:
    """Sides of CUT's filters: 3 for blurs in front of halvings, 4 for doublings. Raises UserError for other filters."""
    sides = set()
    for name, value in tensors.items():
        if name.endswith(".filt"):
            side = value.shape[-1]
            taps = np.float32(_TAPS.get(side, [np.nan] * side))
            if value.shape[1:] != (1, side, side) or not np.allclose(value, np.outer(taps, taps), atol=1e-4):
                raise UserError(f"the filter {name} is none of CUT's")
            sides.add(side)
    return sides


def _patch_fields(tensors: Tensors) -> Fields:
    step = 4 if _filters(tensors) else 3  # modules of a layer
    layers = (highest(tensors) - 2) // step
    if layers < 1:
        raise ValueError("no layer that halves the sides")
    blurs = {"antialias": True} if step == 4 else {}
    norm = _norm(tensors, f"model.{step - 1}")
    return {"width": len(tensors["model.0.weight"]), "layers": layers, "norm": norm, **blurs}


def _pixel_fields(tensors: Tensors) -> Fields:
    return {"width": len(tensors["net.0.weight"]), "layers": 0, "norm": _norm(tensors, "net.2")}


def _patch_places(fields: Fields) -> dict[str, str]:
    net, last = ("model", fields["layers"]) if fields["layers"] else ("net", 1)
    step = 4 if fields.get("antialias") else 3
    places = {f"{net}.0": "conv0", f"{net}.{step * last + 2}": "head"}
    for i in range(1, last + 1):
        places |= {f"{net}.{step * i - 1}": f"conv{i}", f"{net}.{step * i}": f"conv{i}_norm"}
    return places


def _discriminator(model: str, game: str, signs: set[str], fields: Callable[[Tensors], Fields]) -> Layout:
    net = min(signs).partition(".")[0]

    def is_kind(names: set[str]) -> bool:
        return signs <= names and not any(name.startswith(f"{net}.1.") for name in names)

    def channels(tensors: Tensors, _: Fields) -> tuple[int, int]:
        return tensors[f"{net}.0.weight"].shape[1], 0

    return Layout(model, "discriminator", game, is_kind, fields, channels, _patch_places)


def _resnet(model: str, game: str, *, has_filters: bool) -> Layout:
    def is_kind(names: set[str]) -> bool:
        return any(".conv_block.1." in n for n in names) and any(n.endswith(".filt") for n in names) == has_filters

    def transposed(fields: Fields) -> str:
        return "" if fields.get("antialias_up") else "up"

    return Layout(
        model, "generator", game, is_kind, _resnet_fields, _resnet_channels, _resnet_places, transposed
    )  # fmt: skip


LAYOUTS = (
    Layout("pix2pix", "generator", GAME, lambda names: "model.model.0.weight" in names, _unet_fields, _unet_channels,
           _unet_places, lambda fields: "up"),
    _resnet("cyclegan", GAME, has_filters=False),
    _resnet("cut", CONTRASTIVE, has_filters=True),
    _discriminator("pix2pix", GAME, {"model.0.weight", "model.2.weight"}, _patch_fields),
    _discriminator("cut", CONTRASTIVE, {"model.0.weight", "model.2.filt", "model.3.weight"}, _patch_fields),
    _discriminator("pix2pix", GAME, {"net.0.weight", "net.2.weight"}, _pixel_fields),
)  # fmt: skip
