"""The fields of our models that official weights were made for, read from their names and shapes.

What shapes cannot tell is taken from the arguments that the network was made with, where the file has them. Filters
that the file holds are compared with those of the architecture.
"""

import math
import re
from typing import Any

import numpy as np

from gan_jax.errors import UserError
from gan_jax.interop import arguments
from gan_jax.interop.networks import Network
from gan_jax.models.blocks import features_at
from gan_jax.models.stylegan3_design import filter_design, layer_table, layer_taps

Fields = dict[str, Any]
_MOST_TAPS, _MOST_MARGIN = 64, 256


def family(tensors: dict[str, np.ndarray]) -> str:
    """'stylegan2', 'stylegan3' or 'r3gan', by the names of a network's tensors. Raises UserError for another."""
    names = [name.removeprefix("Model.") for name in tensors]
    if any(name.startswith("synthesis.input.") for name in names):
        return "stylegan3"
    if any(re.match(r"(synthesis\.)?b\d+\.", name) for name in names):
        return "stylegan2"
    if any(name.startswith("MainLayers.") for name in names):
        return "r3gan"
    raise UserError(f"tensors of no network that is known: {', '.join(names[:5])}")


def fields(network: Network, kind: str, *, discriminator: bool) -> Fields:
    """Fields of the generator or discriminator of that family.

    Raises:
      UserError: tensors that are missing, arguments that our models do not know, filters of another design.
    """
    try:
        if kind == "r3gan":
            return r3gan(network, discriminator=discriminator)
        if discriminator:
            return stylegan2_discriminator(network)
        return (stylegan2 if kind == "stylegan2" else stylegan3)(network)
    except (LookupError, ArithmeticError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        what = "discriminator" if discriminator else "generator"
        raise UserError(f"the {what}'s tensors are not those of {kind}: {type(error).__name__}: {error}") from error


def _mapping(network: Network, prefix: str = "mapping.") -> Fields:
    """Fields of a mapping network; its widths are all those of w."""
    tensors = network.tensors
    layers = len([name for name in tensors if re.fullmatch(re.escape(prefix) + r"fc\d+\.weight", name)])
    embed = tensors.get(f"{prefix}embed.weight")
    classes, embedded = (embed.shape[1], embed.shape[0]) if embed is not None else (0, 0)
    settings: Fields = {"num_classes": classes, "mapping_layers": layers}
    if f"{prefix}w_avg" in tensors:
        first = tensors.get(f"{prefix}fc0.weight")
        w_size = tensors[f"{prefix}w_avg"].shape[0]
        settings |= {"w_size": w_size, "latent_size": (first.shape[1] if first is not None else w_size) - embedded}
    elif not classes:  # a discriminator without labels has no mapping network
        return {"num_classes": 0}
    names = {"lr_multiplier": "mapping_lr_multiplier", "w_avg_beta": "w_avg_beta"}
    kwargs = arguments.taken(dict(network.kwargs), "mapping_kwargs")
    expected = {"num_layers": layers, "activation": "lrelu", "embed_features": embedded or None,
                "layer_features": settings.get("w_size"), "lr_multiplier": 0.01}  # fmt: skip
    return settings | arguments.fields(kwargs, names if "w_size" in settings else {}, expected)


def _blocks(tensors: dict[str, np.ndarray], prefix: str) -> list[str]:
    """Names of the blocks, the smallest first: b4, b8, ..."""
    names = {match[1] for name in tensors if (match := re.match(re.escape(prefix) + r"(b\d+)\.", name))}
    blocks = sorted(names, key=lambda name: int(name[1:]))
    if blocks != [f"b{4 * 2**level}" for level in range(len(blocks))] or len(blocks) < 2:
        raise UserError(f"blocks {', '.join(blocks)} are not those of a network from 4 pixels on")
    return blocks


def _widths(widths: list[int], kwargs: dict) -> Fields:
    """channel_base and channel_max of a network with these features, the smallest resolution's first."""
    top, last = max(widths), len(widths) - 1
    overrides = {key: kwargs[key] for key in ("channel_base", "channel_max") if kwargs.get(key) is not None}
    settings = {"channel_base": widths[last] * 4 * 2**last, "channel_max": top}
    settings |= {key: arguments.number(key, value) for key, value in overrides.items()}
    if [features_at(level, **settings) for level in range(last + 1)] != widths:
        raise UserError(f"blocks of {widths} features do not follow a base and a maximum: {settings}")
    return settings


def _taps(tensors: dict[str, np.ndarray], name: str) -> Fields:
    """The one resampling filter of a network, whose buffers end with `name`; {} where it holds none."""
    filters = {key: value for key, value in tensors.items() if key.rpartition(".")[2] == name}
    if not filters:
        return {}
    key, first = next(iter(filters.items()))
    if max(first.shape) > _MOST_TAPS:
        raise UserError(f"the resampling filter {key} has the shape {first.shape}; at most {_MOST_TAPS} taps")
    for other, value in filters.items():
        if value.shape != first.shape or not np.allclose(value, first, atol=1e-6):
            raise UserError(f"resampling filters {key} and {other} differ, which is not supported")
    taps = first.astype(np.float64)
    taps = taps.sum(1) if taps.ndim == 2 else taps
    if first.ndim == 2 and not np.allclose(np.outer(taps, taps) / taps.sum() ** 2, first / first.sum(), atol=1e-6):
        raise UserError(f"the resampling filter {key} is not separable, which is not supported")
    scaled = taps / np.abs(taps[taps != 0]).min()
    taps = np.rint(scaled) if np.allclose(scaled, np.rint(scaled), atol=1e-4) else taps / taps.sum()
    return {"taps": tuple(int(n) if n == int(n) else float(n) for n in taps)}


_BLOCK_KWARGS = {"use_fp16": ..., "fp16_channels_last": ..., "resample_filter": ..., "use_noise": True,
                 "activation": "lrelu", "fused_modconv_default": ..., "freeze_layers": ...}  # fmt: skip
_SHARED = {"img_resolution": ..., "img_channels": ..., "c_dim": ..., "z_dim": ..., "w_dim": ..., "num_fp16_res": ...,
           "channel_base": ..., "channel_max": ..., "architecture": ..., "mapping_kwargs": ...}  # fmt: skip


def _clamp(network: Network) -> Fields:
    """conv_clamp as the network's parts have it, for a file without the argument."""
    attributes = {name: value for name, value in network.attributes.items() if name == "conv_clamp"}
    return arguments.fields(attributes, {"conv_clamp": "conv_clamp"}, {})


def stylegan2(network: Network) -> Fields:
    """Fields of `models.stylegan2.Generator`."""
    tensors = network.tensors
    blocks = [f"synthesis.{name}" for name in _blocks(tensors, "synthesis.")]
    architecture = "skip" if f"{blocks[0]}.torgb.weight" in tensors else "orig"
    if f"{blocks[1]}.skip.weight" in tensors:
        architecture = "resnet"
    kwargs = dict(network.kwargs)
    kwargs |= arguments.taken(kwargs, "synthesis_kwargs")
    kwargs |= arguments.taken(kwargs, "block_kwargs")
    settings = {
        "resolution": int(blocks[-1].rpartition("b")[2]),
        "channels": tensors[f"{blocks[-1]}.torgb.weight"].shape[0],
        "architecture": architecture,
        **_mapping(network),
        **_widths([tensors[f"{name}.conv1.weight"].shape[0] for name in blocks], kwargs),
        **_taps(tensors, "resample_filter"),
        **_clamp(network),
    }
    return settings | arguments.fields(kwargs, {"conv_clamp": "conv_clamp"}, _BLOCK_KWARGS | _SHARED)


def stylegan2_discriminator(network: Network) -> Fields:
    """Fields of `models.stylegan2_discriminator.Discriminator`."""
    tensors = network.tensors
    blocks = _blocks(tensors, "")
    architecture = "skip" if f"{blocks[0]}.fromrgb.weight" in tensors else "orig"
    if f"{blocks[-1]}.skip.weight" in tensors:
        architecture = "resnet"
    last = tensors["b4.conv.weight"].shape
    width = tensors["b4.out.weight"].shape[0]
    kwargs = dict(network.kwargs)
    epilogue = arguments.taken(kwargs, "epilogue_kwargs")
    kwargs |= arguments.taken(kwargs, "block_kwargs")
    settings = {
        "resolution": int(blocks[-1][1:]),
        "channels": tensors[f"{blocks[-1]}.fromrgb.weight"].shape[1],
        "architecture": architecture,
        **_mapping(network),
        **_widths([last[0], *(tensors[f"{name}.conv0.weight"].shape[0] for name in blocks[1:])], kwargs),
        "mbstd_channels": last[1] - last[0],
        **_taps(tensors, "resample_filter"),
        **_clamp(network),
    }
    if settings["num_classes"] and width != last[0]:
        settings["mapping_size"] = width
    same = {"mbstd_num_channels": settings["mbstd_channels"], "activation": "lrelu"}
    settings |= arguments.fields(epilogue, {"mbstd_group_size": "mbstd_group"}, same)
    expected = _BLOCK_KWARGS | _SHARED | {"cmap_dim": ...}
    return settings | arguments.fields(kwargs, {"conv_clamp": "conv_clamp"}, expected)


_STYLEGAN3 = {name: name for name in ("channel_base", "channel_max", "num_critical", "first_cutoff", "first_stopband",
              "filter_size", "output_scale", "conv_clamp", "magnitude_ema_beta")}  # fmt: skip
_STYLEGAN3 |= {"last_stopband_rel": "last_stopband", "lrelu_upsampling": "upsampling"}


def stylegan3(network: Network) -> Fields:
    """Fields of `models.stylegan3.Generator`."""
    tensors, kwargs = network.tensors, dict(network.kwargs)
    kwargs |= arguments.taken(kwargs, "synthesis_kwargs")
    table = {m[0]: m for name in tensors if (m := re.match(r"synthesis\.(L(\d+)_(\d+)_(\d+))", name))}
    rows = sorted((int(m[2]), int(m[3]), int(m[4]), m[0]) for m in table.values())
    _, side, channels, _ = rows[-1]
    kernel = tensors[f"{rows[0][3]}.weight"].shape[2]
    radial = [value.ndim == 2 for name, value in tensors.items() if name.endswith(".down_filter")]
    kwarg_fields = {
        "channel_max": max(row[2] for row in rows),
        **arguments.fields(
            kwargs,
            _STYLEGAN3,
            {
                "conv_kernel": kernel,
                "use_radial_filters": ...,
                "margin_size": ...,
                "num_layers": len(rows) - 1,
                **_SHARED,
            },
        ),
    }
    bands = {name: kwarg_fields[name] for name in ("num_critical", "first_cutoff", "first_stopband", "last_stopband")
             if name in kwarg_fields}  # fmt: skip
    design = filter_design(side, num_layers=len(rows) - 1, **bands)
    settings = {
        "resolution": side,
        "channels": channels,
        "num_layers": len(rows) - 1,
        "kernel_size": kernel,
        "margin": round((rows[0][1] - design.rates[0]) / 2),
        "radial_filters": any(radial) if radial else bool(kwargs.get("use_radial_filters", kernel == 1)),
        "channel_base": _base([row[2] for row in rows[:-1]], design.cutoffs, kwarg_fields["channel_max"]),
        **_mapping(network),
        **kwarg_fields,
    }
    if not 0 <= settings["margin"] <= _MOST_MARGIN:
        raise UserError(f"{rows[0][3]} has a margin of {settings['margin']}; expected 0 to {_MOST_MARGIN}")
    _check_design(settings, [row[3] for row in rows], tensors)
    return settings


def _base(widths: list[int], cutoffs: np.ndarray, most: int) -> int:
    """The channel_base for which rint(min(base / 2 / cutoff, most)) are these widths; a power of two if one fits."""
    low, high = 0.0, math.inf
    for n, cutoff in zip(widths, cutoffs, strict=False):
        low = max(low, (n - 0.5) * 2 * cutoff)
        high = min(high, (n + 0.5) * 2 * cutoff) if n < most else high
    power = 2 ** math.ceil(math.log2(low))
    return power if power <= high else round((low + high) / 2)


def _check_design(settings: Fields, names: list[str], tensors: dict[str, np.ndarray]) -> None:
    """Raises UserError where the layers of these fields have other names or filters than those of the file."""
    parameters = layer_table.__kwdefaults__.keys() | {"resolution", "channels"}
    table = layer_table(**{name: value for name, value in settings.items() if name in parameters})
    expected = [f"synthesis.{layer.name}" for layer in table]
    if expected != names:
        raise UserError(f"its layers {_brief(names)} are not those of its arguments, {_brief(expected)}")
    for name, layer in zip(names, table, strict=True):
        for side, taps in zip(("up", "down"), layer_taps(layer), strict=True):
            file_taps = tensors.get(f"{name}.{side}_filter")
            if file_taps is None:
                continue
            if taps is None or file_taps.shape != taps.shape or np.abs(file_taps - taps).max() > 1e-5:
                raise UserError(f"{name}.{side}_filter is not the filter of this layer's design")
    shift = tensors.get("synthesis.input.transform")
    if shift is not None and not np.allclose(shift, np.eye(3)):
        raise UserError("synthesis.input.transform moves the picture; reset it before the network is saved")


def _brief(names: list[str]) -> str:
    return ", ".join(name.removeprefix("synthesis.") for name in names)


def r3gan(network: Network, *, discriminator: bool) -> Fields:
    """Fields of `models.r3gan.Generator` or `Discriminator`."""
    tensors = {name.removeprefix("Model."): value for name, value in network.tensors.items()}
    grouped: dict[int, list[np.ndarray]] = {}  # stage -> (expanding, grouped) kernels of its blocks
    for name, value in tensors.items():
        if match := re.fullmatch(r"MainLayers\.(\d+)\.Layers\.(\d+)\.LinearLayer2\.Layer\.weight", name):
            expand = tensors[name.replace("LinearLayer2", "LinearLayer1")]
            grouped.setdefault(int(match[1]), []).append((expand.shape[1], *value.shape[:2]))
    rows = [grouped[stage] for stage in range(len(grouped))]
    rows = rows[::-1] if discriminator else rows
    (basis,) = (value for name, value in tensors.items() if re.search(r"\.Basis(\.weight)?$", name))
    (project,) = (value for name, value in tensors.items() if re.search(r"Layers\.\d+\.LinearLayer\.weight$", name))
    embed = tensors.get("EmbeddingLayer.weight")
    settings = {
        "resolution": basis.shape[-1] * 2 ** (len(rows) - 1),
        "channels": tensors["ExtractionLayer.Layer.weight"].shape[1] if discriminator
        else tensors["AggregationLayer.Layer.weight"].shape[0],
        "num_classes": embed.shape[1] if embed is not None else 0,
        "widths": tuple(row[0][0] for row in rows),
        "blocks": tuple(len(row) for row in rows),
        "cardinalities": tuple(row[0][1] // row[0][2] for row in rows),
        "expansion": rows[0][0][1] // rows[0][0][0],
        **_taps(tensors, "Kernel"),
    }  # fmt: skip
    if embed is not None:
        settings["embed_size"] = embed.shape[0]
    if not discriminator:
        settings["latent_size"] = project.shape[1] - (embed.shape[0] if embed is not None else 0)
    return settings
