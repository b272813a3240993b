"""Layouts of pix2pix's and CycleGAN's networks, as pytorch-CycleGAN-and-pix2pix writes them (`latest_net_*.pth`)."""

import re

from gan_jax.errors import UserError
from gan_jax.interop.layouts import Fields, Layout, Tensors

GAME = "paired"  # of one generator; two, there and back, are of the game 'translation'
_DEEPEST = 5  # halvings of a U-Net without dropout; each further one has dropout
_FIRST = 10  # module of a ResNet's first block


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
    blocks = {int(match[1]) for name in tensors if (match := re.match(r"model\.(\d+)\.conv_block\.", name))}
    _check_plain(tensors)
    if blocks != set(range(_FIRST, _FIRST + len(blocks))):
        raise ValueError(f"residual blocks at {sorted(blocks)}, where {_FIRST} and so on were expected")
    later = tensors.get(f"model.{_FIRST}.conv_block.6.weight")  # of the second half; without dropout a norm's
    dropout = {"dropout": 0.5} if later is not None and later.ndim == 4 else {}
    width = len(tensors["model.1.weight"])
    return {"width": width, "blocks": len(blocks), "norm": _norm(tensors, "model.1"), **dropout}


def _resnet_places(fields: Fields) -> dict[str, str]:
    """Dropout moves the second half of a block by one."""
    up, second = _FIRST + fields["blocks"], 6 if fields.get("dropout") else 5
    convs = {1: "stem", 4: "down0", 7: "down1", up: "up0", up + 3: "up1", up + 7: "image"}
    places = {f"model.{i}": name for i, name in convs.items()}
    places |= {f"model.{i + 1}": f"{name}_norm" for i, name in convs.items() if name != "image"}
    halves = ((1, "conv0"), (2, "norm0"), (second, "conv1"), (second + 1, "norm1"))
    inner = {(i, j): name for i in range(fields["blocks"]) for j, name in halves}
    return places | {f"model.{_FIRST + i}.conv_block.{j}": f"block{i}/{name}" for (i, j), name in inner.items()}


def _resnet_channels(tensors: Tensors, fields: Fields) -> tuple[int, int]:
    return tensors["model.1.weight"].shape[1], len(tensors[f"model.{_FIRST + fields['blocks'] + 7}.weight"])


def _check_plain(tensors: Tensors) -> None:
    if any(name.endswith(".filt") for name in tensors):
        raise UserError("a network of CUT with filters against aliasing, which no model here has")


def _patch_fields(tensors: Tensors) -> Fields:
    _check_plain(tensors)
    layers = (max(int(name.split(".")[1]) for name in tensors) - 2) // 3
    if layers < 1:
        raise ValueError("no layer of stride 2")
    return {"width": len(tensors["model.0.weight"]), "layers": layers, "norm": _norm(tensors, "model.2")}


def _pixel_fields(tensors: Tensors) -> Fields:
    return {"width": len(tensors["net.0.weight"]), "layers": 0, "norm": _norm(tensors, "net.2")}


def _patch_places(fields: Fields) -> dict[str, str]:
    net, last = ("model", fields["layers"]) if fields["layers"] else ("net", 1)
    places = {f"{net}.0": "conv0", f"{net}.{3 * last + 2}": "head"}
    for i in range(1, last + 1):
        places |= {f"{net}.{3 * i - 1}": f"conv{i}", f"{net}.{3 * i}": f"conv{i}_norm"}
    return places


def _discriminator(net: str, fields) -> Layout:
    def is_kind(names: set[str]) -> bool:
        return {f"{net}.0.weight", f"{net}.2.weight"} <= names and not any(n.startswith(f"{net}.1.") for n in names)

    def channels(tensors: Tensors, _: Fields) -> tuple[int, int]:
        return tensors[f"{net}.0.weight"].shape[1], 0

    return Layout("pix2pix", "discriminator", GAME, is_kind, fields, channels, _patch_places)


LAYOUTS = (
    Layout("pix2pix", "generator", GAME, lambda names: "model.model.0.weight" in names, _unet_fields, _unet_channels,
           _unet_places, "up"),
    Layout("cyclegan", "generator", GAME, lambda names: any(".conv_block.1." in name for name in names),
           _resnet_fields, _resnet_channels, _resnet_places, "up"),
    _discriminator("model", _patch_fields), _discriminator("net", _pixel_fields),
)  # fmt: skip
