"""Layouts of LaMa's networks, as its authors' program keeps them in a checkpoint of Lightning."""

import re

from gan_jax.interop.layouts import Fields, Layout, Tensors, count

GAME = "inpainting"
_SPECTRAL = {"conv1.0": "reduce", "conv1.1": "reduce_norm", "conv2": "expand"}
_SPECTRAL |= {f"{theirs}.conv_layer": f"{ours}/conv" for theirs, ours in (("fu", "unit"), ("lfu", "local_unit"))}
_SPECTRAL |= {f"{theirs}.bn": f"{ours}/norm" for theirs, ours in (("fu", "unit"), ("lfu", "local_unit"))}
_CONV = {"ffc.convl2l": "local", "ffc.convl2g": "local_to_global", "ffc.convg2l": "global_to_local",
         "bn_l": "local_norm", "bn_g": "global_norm"}  # fmt: skip
_CONV |= {f"ffc.convg2g.{theirs}": f"spectral/{ours}" for theirs, ours in _SPECTRAL.items()}


def _fields(tensors: Tensors) -> Fields:
    """What shapes tell; that the output is a sigmoid's they do not, and it is the model's default."""
    halvings = len({name.split(".")[1] for name in tensors if re.match(r"model\.\d+\.ffc\.", name)}) - 1
    blocks = len({name.split(".")[1] for name in tensors if re.match(r"model\.\d+\.conv1\.", name)})
    last = f"model.{1 + halvings}.ffc.conv"
    of_local, of_global = (len(tensors.get(f"{last}{name}.weight", ())) for name in ("l2l", "l2g"))
    share = of_global / (of_local + of_global)
    local_unit = any(".lfu." in name for name in tensors)
    width = len(tensors["model.1.ffc.convl2l.weight"])
    return {"width": width, "halvings": halvings, "blocks": blocks, "share": share, "local_unit": local_unit}


def _channels(tensors: Tensors, fields: Fields) -> tuple[int, int]:
    """Those of the picture, and its mask, come in."""
    return tensors["model.1.ffc.convl2l.weight"].shape[1], len(tensors[f"model.{_image(fields)}.weight"])


def _image(fields: Fields) -> int:
    return 4 + 4 * fields["halvings"] + fields["blocks"]


def _places(fields: Fields) -> dict[str, str]:
    halvings, blocks = fields["halvings"], fields["blocks"]
    convs = {"model.1": "stem"} | {f"model.{2 + i}": f"down{i}" for i in range(halvings)}
    halves = ((i, half) for i in range(blocks) for half in (0, 1))
    convs |= {f"model.{2 + halvings + i}.conv{half + 1}": f"block{i}_conv{half}" for i, half in halves}
    places = {f"{name}.{theirs}": f"{path}/{ours}" for name, path in convs.items() for theirs, ours in _CONV.items()}
    for i in range(halvings):
        up = 3 + halvings + blocks + 3 * i
        places |= {f"model.{up}": f"up{i}", f"model.{up + 1}": f"up{i}_norm"}
    return places | {f"model.{_image(fields)}": "image"}


def _discriminator_places(fields: Fields) -> dict[str, str]:
    head = fields["layers"] + 1
    places = {f"model{i}.0": f"conv{i}" for i in range(head)} | {f"model{head}.0": "head"}
    return places | {f"model{i}.1": f"conv{i}_norm" for i in range(1, head)}


LAYOUTS = (
    Layout("lama", "generator", GAME, lambda names: "model.1.ffc.convl2l.weight" in names, _fields, _channels, _places,
           lambda fields: "up"),
    Layout(
        "lama", "discriminator", GAME, lambda names: {"model0.0.weight", "model1.0.weight"} <= names,
        lambda tensors: {"width": len(tensors["model0.0.weight"]), "layers": count(tensors, r"model(\d+)\.") - 2},
        lambda tensors, _: (tensors["model0.0.weight"].shape[1], 0), _discriminator_places,
    ),
)  # fmt: skip
