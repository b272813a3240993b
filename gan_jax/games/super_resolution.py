"""Super-resolution: a generator enlarges small pictures (SRGAN, 1609.04802; ESRGAN, 1809.00219).

The data are the large pictures; the small ones are made of them on the device. A run has one of two stages, by its
losses: without the adversarial one there is a generator alone, such as a pixel loss prepares; with it a discriminator,
too, and `config.transfer.workdir` names the run that prepared the generator. Phases: `generator`; `discriminator`, on
what the generator made before its update. Nets see pictures in [0, 1], as published ones do.
"""

import inspect
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gan_jax import config as configs
from gan_jax import losses, models, parallel
from gan_jax.errors import UserError
from gan_jax.games import perceptual
from gan_jax.games.players import EMA_NETS, NETS, InTraining
from gan_jax.layers import degradation, pixels, random, second_order
from gan_jax.specs import Field
from gan_jax.step import Out, Phase, Rng, State

__all__ = ["EMA_NETS", "NETS"]

EMA_COPIED = ("batch_stats",)
LOW = "low_resolution"  # the field that samples are made from
AVERAGE = "relativistic_average"
DEFAULTS = {
    "super_resolution": {
        "crop": 0,  # side of the squares that are cut at random out of the data's pictures; 0: whole pictures
        "degradation": "bicubic",  # how they become small; or real: blur, noise and JPEG twice, as in Real-ESRGAN
        "turn": False,  # pictures are turned by quarters and mirrored at random, beside data.flip
        "sharpen": False,  # what the generator aims at is sharpened; the discriminator's reals are not
    },
    "loss": {
        "name": AVERAGE,  # or one of `losses.NAMES`: of the adversarial term
        "criterion": "l1",  # or l2: of the pixel term
        "pixel": 1.0,  # weights of the generator's terms; 0: no such term
        "perceptual": 0.0,
        "texture": 0.0,
        "adversarial": 0.0,  # 0: the generator has no adversary, which is the first of two stages
    },
    "perceptual": perceptual.DEFAULTS,
}
NEEDS = {"generator": ("scale",)}
WEIGHTS = ("pixel", "perceptual", "texture", "adversarial")
OF_FEATURES = ("perceptual", "texture")

SHARPEN_ABOVE = 25  # pixels of a side; half of the blur's window
CORNER, SYMMETRY, CHAIN = range(3)  # independent draws of a sample
DEGRADATIONS = ("bicubic", "real")


class _Rules(NamedTuple):
    """What both phases go by."""

    nets: dict[str, nn.Module]
    pictures: Callable[[dict, Rng], tuple[jax.Array, jax.Array, jax.Array]]  # small, large, what is aimed at
    adversarial: losses.Adversarial
    is_average: bool  # whether logits are compared with means of others
    pixel: Callable[[jax.Array, jax.Array], jax.Array]
    of_features: Callable[[Any, jax.Array, jax.Array], dict[str, jax.Array]]


def reads(config) -> tuple[str, ...]:
    """The large pictures."""
    return ("image",)


def asks(config) -> tuple[str, ...]:
    """A small picture."""
    return (LOW,)


def target(config) -> str:
    """The large picture."""
    return "image"


def enlarges(config) -> int:
    """How many times the sides of a small picture, which may have any size."""
    return config.generator.scale


def baselines(config, train) -> dict[str, Callable[[dict], Any]]:
    """The small pictures, enlarged by the same cubic that made them."""
    enlarge = partial(_enlarged, scale=config.generator.scale)
    return {"bicubic": lambda given: jax.device_get(enlarge(jnp.asarray(given[LOW])))}


@partial(jax.jit, static_argnames="scale")
def _enlarged(images: jax.Array, *, scale: int) -> jax.Array:
    return pixels.quantise(2 * degradation.bicubic(_unit(images), scale) - 1)


def derived(config, spec: dict[str, Field]) -> dict[str, Field]:
    """The small pictures, which are made of the data's."""
    height, width, channels = spec["image"].shape
    return {LOW: Field("image", (height // config.generator.scale, width // config.generator.scale, channels))}


def derive(config, examples: dict[str, Any]) -> dict[str, Any]:
    """uint8 small pictures of examples of the data; by the same rule as in training.

    What is drawn for one is a function of its pixels, so that a held-out picture has the same small one every time.
    """
    images, scale = examples["image"], config.generator.scale
    if config.super_resolution.degradation == "bicubic":
        return {LOW: jax.device_get(_small(jnp.asarray(images), None, scale=scale))}
    keys = [jax.random.key(zlib.crc32(np.ascontiguousarray(image)), impl="threefry2x32") for image in images]
    small = partial(_small, scale=scale, sharpen=config.super_resolution.sharpen)
    small = [small(image[None], key[None]) for image, key in zip(images, keys, strict=True)]
    return {LOW: np.concatenate(jax.device_get(small))}


@partial(jax.jit, static_argnames=("scale", "sharpen"))
def _small(images: jax.Array, keys: jax.Array | None, *, scale: int, sharpen: bool = False) -> jax.Array:
    large = degradation.sharpened(_unit(images)) if sharpen else _unit(images)
    return jnp.round(_degraded(large, keys, scale) * 255).astype(jnp.uint8)


def _degraded(images: jax.Array, keys: jax.Array | None, scale: int) -> jax.Array:
    """Pictures in [0, 1], made small: by the cubic where there are no keys."""
    if keys is None:
        return degradation.low_resolution(images, scale)
    return second_order.degraded(images, keys, scale)


def constructors(config) -> dict[str, type]:
    """Section -> the class whose fields are its schema."""
    return {net: models.classes(config[net].name)[net] for net in NETS}


def nets(config, spec: dict[str, Field]) -> dict[str, nn.Module]:
    """The generator, and the discriminator where the loss has an adversarial term.

    Raises:
      UserError: data that are no images, or whose sides do not fit.
    """
    field, classes = spec["image"], constructors(config)
    if field.kind != "image":
        raise UserError(f"the game 'super_resolution' needs images, not {field.kind} of the shape {field.shape}")
    configs.check_range(config, "0 or more", "super_resolution.crop", *(f"loss.{name}" for name in WEIGHTS))
    shape = _shape(config, field.shape)
    players = {}
    for net in NETS if config.loss.adversarial else NETS[:1]:
        fields = {"channels": shape[2]} if net == "generator" else {}
        if "axis_name" in inspect.signature(classes[net]).parameters:
            fields["axis_name"] = parallel.AXIS
        players[net] = configs.build(classes[net], config[net], net, **fields)
    scale = players["generator"].scale
    if config.super_resolution.degradation not in DEGRADATIONS:
        raise UserError(f"config.super_resolution.degradation={config.super_resolution.degradation!r}: expected one of "
                        f"{', '.join(DEGRADATIONS)}")
    if config.super_resolution.degradation == "real" and shape[2] not in (1, 3):
        raise UserError(f"config.super_resolution.degradation='real': writes JPEG, which has 1 or 3 channels, not "
                        f"{shape[2]}")
    if any(side % scale for side in (*shape[:2], *field.shape[:2])):
        raise UserError(
            f"pictures of {shape[0]}x{shape[1]}, of data of {field.shape[0]}x{field.shape[1]}: config.generator.scale="
            f"{scale} needs sides that are its multiples"
        )
    return players


def _shape(config, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Of the large pictures in training. Raises UserError where they cannot be cut or turned like that."""
    crop = config.super_resolution.crop
    if crop > min(shape[:2]):
        raise UserError(f"config.super_resolution.crop={crop}: the data's pictures are {shape[0]}x{shape[1]}")
    shape = (crop, crop, shape[2]) if crop else tuple(shape)
    if config.super_resolution.turn and shape[0] != shape[1]:
        raise UserError(
            f"config.super_resolution.turn=True: pictures of {shape[0]}x{shape[1]} cannot be turned; set "
            "config.super_resolution.crop, or turn=False"
        )
    if config.super_resolution.sharpen and min(shape[:2]) <= SHARPEN_ABOVE:
        raise UserError(
            f"config.super_resolution.sharpen=True: pictures of {shape[0]}x{shape[1]} are too small for its blur; give "
            f"sides above {SHARPEN_ABOVE}, or sharpen=False"
        )
    return shape


def init(config, nets: dict, spec: dict[str, Field], key: jax.Array) -> tuple[dict, dict, dict]:
    """Fresh parameters and collections; room for what the discriminator is shown where there is one."""
    shape, params, variables = _shape(config, spec["image"].shape), {}, {}
    scale = nets["generator"].scale
    inputs = {"generator": (shape[0] // scale, shape[1] // scale, shape[2]), "discriminator": shape}
    for number, (name, net) in enumerate(nets.items()):
        collections = dict(net.init(jax.random.fold_in(key, number), jnp.zeros((1, *inputs[name])), train=True))
        params[name] = collections.pop("params")
        variables[name] = collections
    return params, variables, {"shown": jnp.zeros((config.batch_size, *shape))} if "discriminator" in nets else {}


def fixed(config) -> dict[str, Any]:
    """The network whose maps are compared, where a term needs it."""
    return {"features": perceptual.variables(config.perceptual)} if _compares_features(config) else {}


def _compares_features(config) -> bool:
    return any(config.loss[name] for name in OF_FEATURES)


def phases(config, nets: dict) -> tuple[Phase, ...]:
    """The table of moves. Raises UserError for losses that there are not, or micro-batches with a discriminator."""
    weights = tuple((name, config.loss[name]) for name in WEIGHTS if config.loss[name])
    if not weights:
        raise UserError(f"config.loss has no term: set one of {', '.join(WEIGHTS)} above 0")
    if config.accumulate != 1 and config.loss.adversarial:
        raise UserError(f"config.accumulate={config.accumulate}: the game 'super_resolution' shows its discriminator "
                        "what its generator has made of the whole batch; expected 1")
    perceptual.check(config.perceptual)
    look = config.super_resolution
    pictures = partial(
        _pictures, scale=nets["generator"].scale, crop=look.crop, turn=look.turn, flip=config.data.flip,
        sharpen=look.sharpen, real=look.degradation == "real",
    )  # fmt: skip
    rules = _Rules(
        nets, pictures, _adversarial(config.loss.name), config.loss.name == AVERAGE,
        perceptual.criterion(config.loss.criterion, "config.loss.criterion"), perceptual.terms(config.perceptual),
    )  # fmt: skip
    generator = partial(_generator_loss, rules=rules, weights=dict(weights))
    table = (Phase("generator", generator, ("generator",), "generator", weights=weights),)
    if not config.loss.adversarial:
        return table
    discriminator = partial(_discriminator_loss, rules=rules)
    return *table, Phase("discriminator", discriminator, ("discriminator",), "discriminator", draws="generator")


def _adversarial(name: str) -> losses.Adversarial:
    if name == AVERAGE:
        return losses.relativistic_average(lambda logits: parallel.mean(logits.mean()))
    try:
        return losses.adversarial(name)
    except UserError as error:
        raise UserError(f"config.loss.name: {error}, or {AVERAGE}") from error


def sample(nets: dict, ema: dict, keys: jax.Array, given: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """The small pictures (B, h, w, C), enlarged."""
    return {"image": 2 * nets["generator"].apply(ema["generator"], _unit(given[LOW]), train=False) - 1}


def _unit(images: jax.Array) -> jax.Array:
    """uint8 -> float32 in [0, 1]."""
    return (pixels.normalise(images) + 1) / 2


def _pictures(
    batch: dict, rng: Rng, *, scale: int, crop: int, turn: bool, flip: bool, sharpen: bool, real: bool = False
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Small pictures, large ones, and what is aimed at: the large ones, or sharper ones. All are in [0, 1].

    A batch may carry its small pictures, and others that are aimed at (parity tests do). With `real`, what is aimed at
    is degraded, as in Real-ESRGAN.
    """
    large = _unit(batch["image"])
    kinds = {CORNER: random.Draw("uniform", (2,)), SYMMETRY: random.Draw("uniform", (3,))}
    draws = random.draw(rng.samples, kinds | ({CHAIN: random.KEY} if real else {}))
    if crop:
        large = cut(large, draws[CORNER], crop)
    mirror, upside_down, swap = jnp.moveaxis(draws[SYMMETRY], -1, 0)
    if flip:
        large = pixels.random_flip(large, mirror)
    if turn:
        large = _where(upside_down, large[:, ::-1], large)
        large = _where(swap, large.transpose(0, 2, 1, 3), large)
    target = degradation.sharpened(large) if sharpen else large
    target = _unit(batch["target"]) if "target" in batch else target
    if LOW in batch:
        return _unit(batch[LOW]), large, target
    return _degraded(target if real else large, draws.get(CHAIN), scale), large, target


def _where(draws: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.where((draws < 0.5)[:, None, None, None], a, b)


def cut(images: jax.Array, draws: jax.Array, side: int) -> jax.Array:
    """Squares of images (B, H, W, C), of corners that draws (B, 2), U(0, 1), tell: all places are equally likely."""
    room = jnp.array([length - side + 1 for length in images.shape[1:3]])
    corners = jnp.floor(draws * room).astype(jnp.int32)

    def one(image, corner):
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), (side, side, image.shape[2]))

    return jax.vmap(one)(images, corners)


def _generator_loss(params, state: State, batch, rng: Rng, *, rules: _Rules, weights):
    """The weighted sum of the terms whose weight is not 0; the discriminator's collections move with it."""
    small, large, target = rules.pictures(batch, rng)
    players = InTraining(rules.nets, params, state)
    enlarged = players.play("generator", small)
    terms = {"pixel": rules.pixel(enlarged, target)}
    if any(name in weights for name in OF_FEATURES):
        terms |= rules.of_features(params["features"], enlarged, target)
    memory = None
    if "adversarial" in weights:
        real_logits = players.play("discriminator", large) if rules.adversarial.needs_real else None
        terms["adversarial"] = rules.adversarial.generator(real_logits, players.play("discriminator", enlarged)).mean()
        memory = {"shown": parallel.gather(jax.lax.stop_gradient(enlarged))}
    loss = sum(weights[name] * term for name, term in terms.items() if name in weights)
    return loss, Out({name: term for name, term in terms.items() if name in weights}, players.variables, memory)


def _discriminator_loss(params, state: State, batch, rng: Rng, *, rules: _Rules):
    """On what the generator made before its update. Where logits are compared with means, the published program asks
    for the fakes' mean before it looks at the reals, and spectral vectors move each time."""
    _, large, _ = rules.pictures(batch, rng)
    players = InTraining(rules.nets, params, state)
    fake = state.memory["shown"][parallel.sample_index(len(large))]
    earlier = players.play("discriminator", fake) if rules.is_average else None
    real_logits, fake_logits = players.play("discriminator", large), players.play("discriminator", fake)
    terms = rules.adversarial.discriminator(real_logits, fake_logits)
    if rules.is_average:
        terms["real"] = rules.adversarial.discriminator(real_logits, earlier)["real"]
    terms = {name: term.mean() for name, term in terms.items()}
    metrics = {"real_logit": real_logits.mean(), "fake_logit": fake_logits.mean(), **terms}
    return sum(terms.values()), Out(metrics, {"discriminator": players.variables["discriminator"]})
