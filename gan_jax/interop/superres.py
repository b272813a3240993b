"""Layouts of networks that enlarge: ESRGAN's and Real-ESRGAN's, as their authors and BasicSR have published them."""

from collections.abc import Callable

from gan_jax.errors import UserError
from gan_jax.interop.layouts import Fields, Layout, Tensors, count, highest
from gan_jax.models.esrgan import INNER

GAME = "super_resolution"
_BETWEEN = {(2, 4): 4, (1, 4): 2, (1, 9): 3, (0, 1): 1}  # MSRResNet: its enlarging layers, and their factor: scale

# Modules of an RRDBNet: first, a dense block's, behind the blocks, two enlargements, two last ones.
_BASICSR = ("conv_first", "body.{}.rdb{}.conv{}", "conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last")
_ESRGAN = ("conv_first", "RRDB_trunk.{}.RDB{}.conv{}", "trunk_conv", "upconv1", "upconv2", "HRconv", "conv_last")
_OLD = ("model.0", "model.1.sub.{}.RDB{}.conv{}.0", "model.1.sub.{blocks}", "model.3", "model.6", "model.8", "model.10")


def _rrdbnet(names: tuple[str, ...], sign: str) -> Layout:
    """RRDBNet under one of its three namings; `sign` is a tensor that it has, and no other layout."""
    first, dense, behind, *ups, high, last = names
    pattern = dense.partition("{}")[0].replace(".", r"\.") + r"(\d+)\.[Rr]"

    def fields(tensors: Tensors) -> Fields:
        blocks = count(tensors, pattern)
        width, inputs = len(tensors[f"{first}.weight"]), channels(tensors, {})[0]
        growth = {"growth": len(tensors[f"{dense.format(0, 1, 1)}.weight"])} if blocks else {}
        (scale,) = (s for s, side in INNER.items() if inputs * side**2 == tensors[f"{first}.weight"].shape[1])
        return {"scale": scale, "width": width, "blocks": blocks, **growth}

    def channels(tensors: Tensors, _: Fields) -> tuple[int, int]:
        """As many come out as go in: what it takes more are squares of pixels."""
        inputs, outputs = tensors[f"{first}.weight"].shape[1], len(tensors[f"{last}.weight"])
        if inputs not in [outputs * side**2 for side in INNER.values()]:
            raise UserError(f"a network that makes {outputs} channels of {inputs}, which is not supported")
        return outputs, outputs

    def places(fields: Fields) -> dict[str, str]:
        table = {first: "stem", behind.format(blocks=fields["blocks"]): "trunk", high: "last", last: "image"}
        table |= {up: f"up{i}" for i, up in enumerate(ups)}
        parts = ((i, j, k) for i in range(fields["blocks"]) for j in (1, 2, 3) for k in (1, 2, 3, 4, 5))
        return table | {dense.format(i, j, k): f"block{i}/dense{j}/conv{k}" for i, j, k in parts}

    return Layout("esrgan", "generator", GAME, _has(sign), fields, channels, places)


def _has(*names: str) -> Callable[[set[str]], bool]:
    return lambda all_names: all(name in all_names for name in names)


def _compact_fields(tensors: Tensors) -> Fields:
    first, last = tensors["body.0.weight"], highest(tensors)  # convolutions have the even places
    inputs, layers = first.shape[1], last // 2 - 1
    scale = round((len(tensors[f"body.{last}.weight"]) / inputs) ** 0.5)
    return {"scale": scale, "width": len(first), "layers": layers}


def _compact_channels(tensors: Tensors, fields: Fields) -> tuple[int, int]:
    outputs = len(tensors[f"body.{highest(tensors)}.weight"]) / fields["scale"] ** 2
    if outputs != tensors["body.0.weight"].shape[1]:
        raise UserError(
            f"a network that makes {outputs:g} channels of {tensors['body.0.weight'].shape[1]}, which is not supported"
        )
    return int(outputs), int(outputs)


def _compact_places(fields: Fields) -> dict[str, str]:
    names = ["stem", *(f"conv{i}" for i in range(fields["layers"]))]
    table = {f"body.{2 * i}": name for i, name in enumerate(names)}
    table |= {f"body.{2 * i + 1}": f"{name}_prelu" for i, name in enumerate(names)}
    return table | {f"body.{2 * len(names)}": "image"}


def _msr_fields(tensors: Tensors) -> Fields:
    width, ups = len(tensors["conv_first.weight"]), [f"upconv{i}.weight" for i in (1, 2)]
    factors = [len(tensors[name]) // width for name in ups if name in tensors]
    scale = _BETWEEN.get((len(factors), max(factors, default=1)))
    if not scale:
        raise UserError(f"enlarging layers of {factors} times the features, which is not supported")
    return {"scale": scale, "width": width, "blocks": count(tensors, r"body\.(\d+)\.conv1\.")}


def _msr_channels(tensors: Tensors, _: Fields) -> tuple[int, int]:
    return tensors["conv_first.weight"].shape[1], len(tensors["conv_last.weight"])


def _msr_places(fields: Fields) -> dict[str, str]:
    table = {"conv_first": "stem", "conv_hr": "last", "conv_last": "image", "upconv1": "up0", "upconv2": "up1"}
    pairs = ((i, j) for i in range(fields["blocks"]) for j in (0, 1))
    return table | {f"body.{i}.conv{j + 1}": f"block{i}_conv{j}" for i, j in pairs}


def _unet_places(_: Fields) -> dict[str, str]:
    ours = ("stem", "down0", "down1", "down2", "up2", "up1", "up0", "last0", "last1", "head")
    return {f"conv{i}": name for i, name in enumerate(ours)}


_COMPACT = Layout(
    "real_esrgan", "generator", GAME,
    lambda names: {"body.0.weight", "body.2.weight"} <= names and "conv_first.weight" not in names,
    _compact_fields, _compact_channels, _compact_places,
)  # fmt: skip
_MSRRESNET = Layout(
    "msrgan", "generator", GAME,
    lambda names: {"conv_first.weight", "body.0.conv1.weight", "conv_hr.weight"} <= names,
    _msr_fields, _msr_channels, _msr_places,
)  # fmt: skip
_UNET = Layout(
    "real_esrgan", "discriminator", GAME, _has("conv0.weight", "conv1.weight_orig", "conv9.weight"),
    lambda tensors: {"width": len(tensors["conv0.weight"])},
    lambda tensors, _: (tensors["conv0.weight"].shape[1], 0), _unet_places,
)  # fmt: skip
LAYOUTS = (
    _rrdbnet(_BASICSR, "conv_body.weight"), _rrdbnet(_ESRGAN, "trunk_conv.weight"),
    _rrdbnet(_OLD, "model.1.sub.0.RDB1.conv1.0.weight"), _COMPACT, _MSRRESNET, _UNET,
)  # fmt: skip
