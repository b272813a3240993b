"""Inpainting: a generator fills holes of pictures (LaMa: Suvorov et al. 2021, 2109.07161; DeepFillv2: 1806.03589).

The data are whole pictures. Masks are drawn on the device, 1 in the hole, and the generator sees the picture without
its hole, and the mask. Phases: `generator`; then `discriminator`, whose fakes the generator makes anew, after its
update. Nets see pictures in [0, 1]. What a sample shows outside the hole is the picture itself, to the bit.
"""

import inspect
import math
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gan_jax import config as configs
from gan_jax import losses, metrics, models, parallel
from gan_jax.errors import UserError
from gan_jax.games import masked_losses, perceptual
from gan_jax.games.players import EMA_NETS, NETS, InTraining
from gan_jax.layers import masks, pixels, random
from gan_jax.specs import Field
from gan_jax.step import Out, Phase, Rng, State

__all__ = ["EMA_NETS", "NETS"]

EMA_COPIED = ("batch_stats",)
MASKED, MASK = "masked", "mask"  # the fields that samples are made from: the picture, grey in its hole, and the hole
DEFAULTS = {
    "inpainting": {
        "masks": "mixed",  # or free_form, boxes, centre: see `layers.masks`; all numbers are of pixels
        **masks.FreeForm()._asdict(),  # strokes, segments, lengths, widths, angles
        "boxes": masks.Boxes().boxes,
        "box_sides": masks.Boxes().sides,
        "margin": masks.Boxes().margin,
        "centre": (0, 0),  # height and width of the hole in the middle; 0: half of the picture's
        "composite": False,  # the discriminator is shown the picture with its hole filled, not all that was made
        "shows_mask": False,  # the discriminator sees the mask, too
    },
    "loss": {
        "name": "non_saturating",  # or another of `losses.NAMES`: of the adversarial term
        "criterion": "l1",  # or l2: of the distance to the picture
        "known": 10.0,  # weights of the generator's terms: that distance outside the hole
        "missing": 0.0,  # and inside it
        "coarse": 0.0,  # factor of both distances for the first stage of a generator that has two
        "adversarial": 10.0,
        "matching": 100.0,  # of the discriminator's maps
        "matching_known": False,  # they are compared outside the hole alone
        "perceptual": 0.0,
        "r1": 0.001,  # factor of the discriminator's squared gradient at pictures
        **masked_losses.Hole()._asdict(),  # how the adversarial terms treat the hole
    },
    "perceptual": perceptual.DEFAULTS | {"criterion": "l2"},
}
NEEDS = {"generator": ("fills",)}
WEIGHTS = ("known", "missing", "coarse", "adversarial", "matching", "perceptual")
FLIP, FIRST_OF_MASKS = 0, 1  # independent draws of a sample, the same in both phases
GREY = 128  # of the hole in what is shown


class Rules(NamedTuple):
    """What both losses go by."""

    nets: dict[str, nn.Module]
    game: losses.Adversarial
    hole: masked_losses.Hole
    masks: masks.Rule
    flip: bool
    composite: bool
    shows_mask: bool
    criterion: str
    matching_known: bool
    of_features: Callable[[Any, jax.Array, jax.Array], dict[str, jax.Array]]


def reads(config) -> tuple[str, ...]:
    """The whole pictures."""
    return ("image",)


def asks(config) -> tuple[str, ...]:
    """A picture and the mask of its hole."""
    return MASKED, MASK


def target(config) -> str:
    """The whole picture."""
    return "image"


def derived(config, spec: dict[str, Field]) -> dict[str, Field]:
    """The picture with its hole, and the mask."""
    height, width, channels = spec["image"].shape
    return {MASKED: Field("image", (height, width, channels)), MASK: Field("mask", (height, width, 1))}


def derive(config, examples: dict[str, Any]) -> dict[str, Any]:
    """uint8 pictures, grey in their holes, and masks, 255 there; a picture has the same mask wherever it stands."""
    images = np.asarray(examples["image"])
    numbers = np.array([zlib.crc32(image.tobytes()) for image in images], np.uint32)
    key = jax.random.fold_in(jax.random.key(config.seed), zlib.crc32(b"masks"))
    hole = jax.device_get(_held_out_masks(key, numbers, images.shape[1:3], rule(config)))
    return {MASKED: np.where(hole, np.uint8(GREY), images), MASK: np.where(hole, np.uint8(255), np.uint8(0))}


@partial(jax.jit, static_argnums=(2, 3))
def _held_out_masks(key: jax.Array, numbers: jax.Array, size: tuple[int, int], rule: masks.Rule) -> jax.Array:
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)
    return masks.make(_of_masks(random.draw(keys, _streams(rule)), rule), len(numbers), size, rule) > 0


def _streams(rule: masks.Rule) -> dict[int, random.Draw]:
    return {FLIP: random.UNIFORM, **dict(enumerate(masks.wanted(rule).values(), FIRST_OF_MASKS))}


def _of_masks(draws: dict[int, jax.Array], rule: masks.Rule) -> dict[str, jax.Array]:
    return {name: draws[number] for number, name in enumerate(masks.wanted(rule), FIRST_OF_MASKS)}


def baselines(config, train) -> dict[str, Callable[[dict], np.ndarray]]:
    """The biharmonic equation's solution in the hole, and the mean of what is known."""
    return {"biharmonic": partial(_filled, metrics.biharmonic), "mean": partial(_filled, metrics.mean_of_known)}


def _filled(method: Callable, given: dict[str, np.ndarray]) -> np.ndarray:
    return method(np.asarray(given[MASKED]), np.asarray(given[MASK]) > 127)


def rule(config) -> masks.Rule:
    """The section `inpainting` as a rule. Raises UserError for a kind that there is not, or numbers out of range."""
    section = config.inpainting
    if section.masks not in masks.KINDS:
        raise UserError(f"config.inpainting.masks={section.masks!r}: expected one of {', '.join(masks.KINDS)}")
    for key in ("strokes", "segments", "lengths", "widths", "boxes", "box_sides"):
        masks.check(f"config.inpainting.{key}", section[key], 1)
    masks.check("config.inpainting.centre", sorted(section.centre), 0)
    configs.check_range(config, "0 or more", "inpainting.margin")
    configs.check_range(config, "1 or more", "inpainting.angles")
    pairs = {key: tuple(section[key]) for key in ("strokes", "segments", "lengths", "widths")}
    free_form = masks.FreeForm(**pairs, angles=section.angles)
    boxes = masks.Boxes(tuple(section.boxes), tuple(section.box_sides), section.margin)
    return masks.Rule(section.masks, free_form, boxes, tuple(section.centre))


def constructors(config) -> dict[str, type]:
    """Section -> the class whose fields are its schema."""
    return {net: models.classes(config[net].name)[net] for net in NETS}


def nets(config, spec: dict[str, Field]) -> dict[str, nn.Module]:
    """Generator and discriminator for pictures of `spec`.

    Raises:
      UserError: data that are no images, holes that do not fit into them, or an unknown network or option.
    """
    field = spec["image"]
    if field.kind != "image":
        raise UserError(f"the game 'inpainting' needs images, not {field.kind} of the shape {field.shape}")
    _check_room(rule(config), field.shape)
    players = {}
    for net, constructor in constructors(config).items():
        fields = {"channels": field.shape[2]} if net == "generator" else {}
        if "axis_name" in inspect.signature(constructor).parameters:
            fields["axis_name"] = parallel.AXIS
        players[net] = configs.build(constructor, config[net], net, **fields)
    return players


def _check_room(rule: masks.Rule, shape: tuple[int, ...]) -> None:
    room = min(shape[:2]) - 2 * rule.boxes.margin
    if rule.kind in ("mixed", "boxes") and room < rule.boxes.sides[0]:
        raise UserError(
            f"config.inpainting.box_sides={rule.boxes.sides} with margin={rule.boxes.margin}: pictures of "
            f"{shape[0]}x{shape[1]} have room for {max(room, 0)} pixels; give smaller ones"
        )
    if rule.kind == "centre" and any(side >= length for side, length in zip(rule.centre, shape, strict=False)):
        raise UserError(
            f"config.inpainting.centre={rule.centre}: pictures of {shape[0]}x{shape[1]} have no room for it"
        )


def init(config, nets: dict, spec: dict[str, Field], key: jax.Array) -> tuple[dict, dict, None]:
    """Fresh parameters and collections of both."""
    params, variables = {}, {}
    image, mask = jnp.zeros((1, *spec["image"].shape)), jnp.zeros((1, *spec["image"].shape[:2], 1))
    inputs = {"generator": _beside(image, mask), "discriminator": _beside(image, mask, config.inpainting.shows_mask)}
    for number, (name, x) in enumerate(inputs.items()):
        collections = dict(nets[name].init(jax.random.fold_in(key, number), x, train=True))
        params[name] = collections.pop("params")
        variables[name] = collections
    return params, variables, None


def fixed(config) -> dict[str, Any]:
    """The network whose maps are compared, where a term needs it."""
    return {"features": perceptual.variables(config.perceptual)} if config.loss.perceptual else {}


def phases(config, nets: dict) -> tuple[Phase, ...]:
    """The table of moves. Raises UserError for losses that there are not, or that these nets cannot give."""
    loss = config.loss
    configs.check_range(config, "0 or more", *(f"loss.{name}" for name in (*WEIGHTS, "r1", "extra")))
    weights = tuple((name, loss[name]) for name in WEIGHTS if loss[name])
    if not set(dict(weights)) - {"coarse"}:
        names = ", ".join(name for name in WEIGHTS if name != "coarse")
        raise UserError(f"config.loss has no term: set one of {names} above 0")
    if loss.criterion not in masked_losses.CRITERIA:
        names = ", ".join(masked_losses.CRITERIA)
        raise UserError(f"config.loss.criterion={loss.criterion!r}: expected one of {names}")
    for key, net, offer in (("matching", "discriminator", "maps"), ("coarse", "generator", "stages")):
        if loss[key] and not hasattr(nets[net], offer):
            others = ", ".join(models.offering(net, (offer,)))
            raise UserError(f"config.loss.{key}={loss[key]}: {config[net].name!r} has no {offer}; give 0, or take a "
                            f"{net} that has: {others}")
    hole = masked_losses.Hole(**{key: loss[key] for key in masked_losses.Hole._fields})
    masked_losses.check(hole, "config.loss")
    perceptual.check(config.perceptual)
    rules = Rules(
        nets, losses.adversarial(loss.name), hole, rule(config), config.data.flip, config.inpainting.composite,
        config.inpainting.shows_mask, loss.criterion, loss.matching_known, perceptual.terms(config.perceptual),
    )  # fmt: skip
    generator = Phase("generator", partial(_generator_loss, rules=rules), ("generator",), "generator", weights=weights)
    if not (loss.adversarial or loss.matching):
        return (generator,)
    r1 = (("r1", loss.r1),) if loss.r1 else ()
    play = partial(_discriminator_loss, rules=rules)
    phase = Phase("discriminator", play, ("discriminator",), "discriminator", draws="generator", weights=r1)
    return generator, phase


def sample(nets: dict, ema: dict, keys: jax.Array, given: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """The given pictures (B, H, W, C) of any size, with their holes filled; what is known stays as it is."""
    net, images = nets["generator"], pixels.normalise(given[MASKED])
    mask, size = (given[MASK] > 127).astype(jnp.float32), images.shape[1:3]
    x = _beside((images + 1) / 2 * (1 - mask), mask)
    pads = [_border(length, net.multiple) for length in size]
    x = jnp.pad(x, ((0, 0), *((0, pad) for pad in pads), (0, 0)), mode="reflect")
    filled = net.apply(ema["generator"], x, train=False)[:, : size[0], : size[1]]
    return {"image": jnp.where(mask > 0, 2 * filled - 1, images)}


def _border(length: int, multiple: int) -> int:
    """Pixels to the next multiple, and at least twice that."""
    return max(math.ceil(length / multiple), 2) * multiple - length


def _beside(image: jax.Array, mask: jax.Array, shown: bool = True) -> jax.Array:
    return jnp.concatenate([image, mask], -1) if shown else image


def _pictures(batch: dict, rng: Rng, rules: Rules) -> tuple[jax.Array, jax.Array]:
    """Pictures in [0, 1] and masks. A batch may carry its masks (parity tests do)."""
    draws = random.draw(rng.samples, _streams(rules.masks))
    images = (pixels.normalise(batch["image"]) + 1) / 2
    if rules.flip:
        images = pixels.random_flip(images, draws[FLIP])
    if MASK in batch:
        return images, batch[MASK]
    return images, masks.make(_of_masks(draws, rules.masks), len(images), images.shape[1:3], rules.masks)


class _Players(InTraining):
    """What the two do in this game."""

    def __init__(self, params: dict, state: State, rules: Rules):
        super().__init__(rules.nets, params, state)
        self.rules = rules

    def fill(self, image: jax.Array, mask: jax.Array, method: str | None = None) -> Any:
        """What the generator makes of pictures without their holes."""
        return self.play("generator", _beside(image * (1 - mask), mask), method)

    def judge(self, image: jax.Array, mask: jax.Array) -> tuple[jax.Array, tuple]:
        """(logits, maps) of whole pictures; no maps where the discriminator has none."""
        x = _beside(image, mask, self.rules.shows_mask)
        if hasattr(self.rules.nets["discriminator"], "maps"):
            return self.play("discriminator", x, "maps")
        return self.play("discriminator", x), ()

    def shown(self, filled: jax.Array, image: jax.Array, mask: jax.Array) -> jax.Array:
        """What the discriminator is shown of what was made."""
        return mask * filled + (1 - mask) * image if self.rules.composite else filled


def _generator_loss(params, state: State, batch, rng: Rng, *, rules: Rules, weights: dict | None = None):
    """The weighted sum of the terms whose weight is not 0; the discriminator's collections move with it."""
    weights, players = weights or {}, _Players(params, state, rules)
    image, mask = _pictures(batch, rng, rules)
    distance = partial(
        masked_losses.distance, image=image, mask=mask, criterion=rules.criterion,
        known=weights.get("known", 0.0), missing=weights.get("missing", 0.0),
    )  # fmt: skip
    terms, loss = {}, 0.0
    if "coarse" in weights:
        filled, coarse = players.fill(image, mask, "stages")
        terms["coarse"] = distance(coarse)
    else:
        filled = players.fill(image, mask)
    if "known" in weights or "missing" in weights:
        terms["distance"] = distance(filled)
        loss = terms["distance"]
    if "adversarial" in weights or "matching" in weights:
        real, of_real = players.judge(image, mask)
        fake, of_fake = players.judge(players.shown(filled, image, mask), mask)
        term = masked_losses.generator(rules.game, real, fake, mask, rules.hole)
        terms["adversarial"] = term.mean()
        if "matching" in weights:
            terms["matching"] = masked_losses.matching(of_fake, of_real, mask if rules.matching_known else None)
    if "perceptual" in weights:
        terms["perceptual"] = rules.of_features(params["features"], filled, image)["perceptual"]
    loss += sum(weights[name] * terms[name] for name in terms if name in weights)
    return loss, Out(terms, players.variables)


def _discriminator_loss(params, state: State, batch, rng: Rng, *, rules: Rules, weights: dict | None = None):
    """On pictures, and on what the generator makes now; its running statistics move once more."""
    players = _Players(params, state, rules)
    image, mask = _pictures(batch, rng, rules)
    filled = jax.lax.stop_gradient(players.fill(image, mask))

    def total(image):
        logits, _ = players.judge(image, mask)
        return logits.sum(), (logits, players.variables)

    terms = {}
    if weights:
        slope, (real, players.variables) = jax.grad(total, has_aux=True)(image)
        terms["r1"] = jnp.square(slope).sum((1, 2, 3)).mean()
    else:
        real, _ = players.judge(image, mask)
    fake, _ = players.judge(players.shown(filled, image, mask), mask)
    of_logits = masked_losses.discriminator(rules.game, real, fake, mask, rules.hole)
    terms |= {name: term.mean() for name, term in of_logits.items()}
    loss = sum(terms[name] for name in of_logits)
    if weights:
        loss += weights["r1"] * terms["r1"]
    return loss, Out({"real_logit": real.mean(), "fake_logit": fake.mean(), **terms}, players.variables)
