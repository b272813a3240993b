"""Reads networks that make pictures of pictures, in one or several files: `superres`, `translators`, `inpainters`."""

from typing import Any, NamedTuple

import numpy as np

from gan_jax.errors import UserError
from gan_jax.interop import inpainters, layouts, superres, translators
from gan_jax.interop.layouts import Layout, Player
from gan_jax.interop.networks import LARGEST, UNKNOWN_DATA, Weights
from gan_jax.specs import Field
from gan_jax.weights import containers
from gan_jax.weights.pickles import brief

LAYOUTS = (*superres.LAYOUTS, *translators.LAYOUTS, *inpainters.LAYOUTS)
_SIDE = 256  # of the pictures in training, where an experiment does not say
_LOW = 32  # side of the small squares of super-resolution
_SUPER_RESOLUTION = {"name": "adam", "learning_rate": 1e-4, "b1": 0.9, "b2": 0.99}  # Real-ESRGAN's
_INPAINTERS = {"name": "adam", "learning_rate": 1e-3, "b1": 0.9, "b2": 0.999, "clip_norm": 1.0}  # LaMa's
_TRANSLATORS = {"name": "adam", "learning_rate": 2e-4, "b1": 0.5, "b2": 0.999}  # pix2pix's and CycleGAN's


class _Players(NamedTuple):
    generators: list[Player]
    discriminators: list[Player]


def read(contents: list[containers.Contents]) -> Weights | None:
    """What the files hold for a run, in the order in which they were named; None of files of other kinds.

    One generator is of its layout's game. Two translators are a CycleGAN's, from a to b and back; its discriminators
    come in the order of the published program, which calls the one of b `D_A`.

    Raises:
      UserError: networks that do not belong to one run, or tensors that do not fit.
      Damaged: tensors without their numbers.
    """
    parts = [(layouts.state_dicts(content), content.size) for content in contents]
    kinds = [[(_kind(tensors), tensors) for tensors in dicts] for (dicts, _), _ in parts]
    if not any(layout for file in kinds for layout, _ in file):
        return None
    players, others = _Players([], []), [name for (_, names), _ in parts for name in names]
    for file, (_, size) in zip(kinds, parts, strict=True):
        numbers = containers.reader(size)
        for layout, tensors in file:
            if layout is None:
                names = ", ".join(map(brief, list(tensors)[:5])) or "nothing"
                raise UserError(f"one of the files holds no network that is known beside the other: {names}")
            player = layouts.player(layout, tensors, numbers)
            (players.generators if layout.role == "generator" else players.discriminators).append(player)
    weights = _weights(players)
    omission = f"; left out: {', '.join(map(brief, others[:5]))}" if others else ""
    return weights._replace(description=_description(players) + omission)


def _kind(tensors: dict[str, Any]) -> Layout | None:
    names = set(tensors)
    return next((layout for layout in LAYOUTS if layout.is_kind(names)), None)


def _description(players: _Players) -> str:
    lines = (f"{p.layout.role} ({p.layout.model}, {layouts.described(p.fields)})" for each in players for p in each)
    return "; ".join(lines)


def _weights(players: _Players) -> Weights:
    generators, discriminators = players
    names = ", ".join(f"a {p.layout.role} of {p.layout.model}" for p in (*generators, *discriminators))
    if not generators:
        raise UserError(f"{names} alone; expected a generator too: --from=GENERATOR,DISCRIMINATOR")
    if len({p.layout.game for p in (*generators, *discriminators)}) > 1:
        raise UserError(f"{names}: these are of different games; give the files of one run")
    pairs = {(1, 0), (1, 1), (2, 0), (2, 2)} if generators[0].layout.game == translators.GAME else {(1, 0), (1, 1)}
    if (len(generators), len(discriminators)) not in pairs:
        raise UserError(f"{names}: expected one generator, or a CycleGAN's two, each with a discriminator or without")
    if len(generators) == 2:
        return _translation(*generators, *discriminators)
    return _RUNS[generators[0].layout.game](*generators, *discriminators)


def _super_resolution(generator: Player, discriminator: Player | None = None) -> Weights:
    """A run whose generator has an adversary where the file has one; without it its loss is of pixels alone."""
    crop, channels = _LOW * generator.fields["scale"], generator.channels[1]
    base = {
        "game": superres.GAME, "batch_size": 16, "grid": 16,
        "data": {"name": UNKNOWN_DATA, "resolution": 2 * crop, "channels": channels},
        "super_resolution": {"crop": crop, "turn": True},
        "discriminator": {"name": "real_esrgan"},
        "loss": {"name": "non_saturating", "pixel": 1.0, "adversarial": 0.1 if discriminator else 0.0},
        "optim": {net: dict(_SUPER_RESOLUTION) for net in ("generator", "discriminator")},
        "ema": {"decay": 0.999},
    }  # fmt: skip
    spec = {"image": Field("image", (2 * crop, 2 * crop, channels))}
    return _joined(spec, base, {"generator": generator}, {"discriminator": (discriminator, channels)})


def _paired(generator: Player, discriminator: Player | None = None) -> Weights:
    """A run that turns a source into a picture; what a CycleGAN's one direction is, too."""
    inputs, outputs = generator.channels
    side = max(_SIDE, 2 ** generator.fields.get("depth", 0))
    base = {
        "game": "paired", "batch_size": 1, "grid": 16,
        "data": {"name": UNKNOWN_DATA, "resolution": side, "channels": inputs, "filter": "bicubic"},
        "discriminator": {"name": "pix2pix", "norm": generator.fields["norm"]},
        "optim": {net: dict(_TRANSLATORS) for net in ("generator", "discriminator")},
    }  # fmt: skip
    spec = {"source": Field("image", (side, side, inputs)), "image": Field("image", (side, side, outputs))}
    return _joined(spec, base, {"generator": generator}, {"discriminator": (discriminator, inputs + outputs)})


def _translation(there: Player, back: Player, of_b: Player | None = None, of_a: Player | None = None) -> Weights:
    """A run of both directions."""
    for what, (one, other) in {"generators": (there, back), "discriminators": (of_b, of_a)}.items():
        if one and (one.layout.model, one.fields) != (other.layout.model, other.fields):
            both = " and ".join(f"{p.layout.model} ({layouts.described(p.fields)})" for p in (one, other))
            raise UserError(f"the two {what} differ: {both}")
    if back.channels != there.channels[::-1]:
        ways = [f"from {inputs} channels to {outputs}" for inputs, outputs in (there.channels, back.channels)]
        raise UserError(f"generators {' and '.join(ways)}; expected one direction and the other")
    sizes = dict(zip("ab", there.channels, strict=True))
    look = {"name": UNKNOWN_DATA, "resolution": _SIDE, "filter": "bicubic"}
    base = {
        "game": "translation", "batch_size": 1, "grid": 16,
        "data": {"parts": {part: {**look, "channels": channels} for part, channels in sizes.items()}},
        "discriminator": {"name": "cyclegan", "norm": there.fields["norm"]},
        "loss": {"identity": 0.5 if sizes["a"] == sizes["b"] else 0.0},
        "optim": {player: dict(_TRANSLATORS) for player in ("generators", "discriminators")},
    }  # fmt: skip
    spec = {part: Field("image", (_SIDE, _SIDE, channels)) for part, channels in sizes.items()}
    discriminators = {"discriminator_a": (of_a, sizes["a"]), "discriminator_b": (of_b, sizes["b"])}
    return _joined(spec, base, {"generator_ab": there, "generator_ba": back}, discriminators)


def _contrastive(generator: Player, discriminator: Player | None = None) -> Weights:
    """A run of CUT; the heads, which training alone needs, are fresh."""
    inputs, outputs = generator.channels
    if inputs != outputs:
        raise UserError(f"a generator of CUT from {inputs} channels to {outputs}, which is not supported")
    look = {"name": UNKNOWN_DATA, "resolution": _SIDE, "filter": "bicubic", "channels": inputs}
    last = min(4, generator.fields["blocks"] - 1)
    base = {
        "game": translators.CONTRASTIVE, "batch_size": 1, "grid": 16,
        "data": {"parts": {part: dict(look) for part in ("a", "b")}},
        "contrastive": {"layers": ("input", "down0", "down1", "block0", *((f"block{last}",) if last else ()))},
        "discriminator": {"name": "cut", "norm": generator.fields["norm"]},
        "optim": {net: dict(_TRANSLATORS) for net in ("generator", "discriminator")},
    }  # fmt: skip
    spec = {part: Field("image", (_SIDE, _SIDE, inputs)) for part in ("a", "b")}
    return _joined(spec, base, {"generator": generator}, {"discriminator": (discriminator, outputs)})


def _inpainting(generator: Player, discriminator: Player | None = None) -> Weights:
    """A run that fills holes, with the optimizers of LaMa's program."""
    inputs, outputs = generator.channels
    if inputs != outputs + 1:
        raise UserError(f"a generator of LaMa from {inputs} channels to {outputs}; expected one more, of the mask")
    base = {
        "game": inpainters.GAME, "batch_size": 30, "grid": 8,
        "data": {"name": UNKNOWN_DATA, "resolution": _SIDE, "channels": outputs},
        "discriminator": {"name": "lama"},
        "optim": {"generator": dict(_INPAINTERS), "discriminator": {**_INPAINTERS, "learning_rate": 1e-4}},
        "ema": {"half_life_images": 0.0},
    }  # fmt: skip
    spec = {"image": Field("image", (_SIDE, _SIDE, outputs))}
    return _joined(spec, base, {"generator": generator}, {"discriminator": (discriminator, outputs)})


def _joined(
    spec, base: dict, generators: dict[str, Player], discriminators: dict[str, tuple[Player | None, int]]
) -> Weights:
    """Weights of these nets, of which all those of a section are built alike.

    Args:
      spec, base: of the run.
      generators: by net.
      discriminators: by net, None where the files have none, and the channels of what it is shown.
    Raises:
      UserError: a discriminator takes other channels; pictures beyond all bounds.
    """
    largest = max(max(field.shape) for field in spec.values())
    if largest > LARGEST:
        raise UserError(f"pictures of {largest} pixels or channels are larger than any that are known")
    players = dict(generators)
    for net, (player, channels) in discriminators.items():
        if player and player.channels[0] != channels:
            raise UserError(
                f"the discriminator takes {player.channels[0]} channels, and the generator's pictures have {channels}"
            )
        players |= {net: player} if player else {}
    fields = {p.layout.role: {"name": p.layout.model, **p.fields} for p in players.values()}
    if "discriminator" in fields and base["discriminator"]["name"] == "cyclegan":  # pix2pix's under another name
        fields["discriminator"]["name"] = "cyclegan"
    params: dict[str, dict[str, np.ndarray]] = {net: dict(player.arrays) for net, player in players.items()}
    ema = {net: dict(player.arrays) for net, player in generators.items()}
    return Weights(spec, params, ema, "", base=base, fields=fields, fits_any=True)


_RUNS = {
    superres.GAME: _super_resolution, translators.GAME: _paired, translators.CONTRASTIVE: _contrastive,
    inpainters.GAME: _inpainting,
}  # fmt: skip
