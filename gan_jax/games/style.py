"""StyleGAN2's game (Karras et al. 2020, arXiv 1912.04958), with augmentation (arXiv 2006.06676); also StyleGAN3's.

Its phases, in order: `generator` on the non-saturating logistic loss; `path_length`, every
`config.every.path_length_steps` steps; `discriminator`; `penalty`, R1 every `config.every.penalty_steps` steps. A lazy
phase weighs as much more as it is played more seldom, and its player's optimizer is corrected for it (appendix B). A
weight of 0 leaves its phase out.

A generator is `separable`, see `models`: it has two methods, `mapping(z, label, *, train, psi, cutoff)` -> styles
(B, num_ws, w_size), which moves the running mean of w where `train`, and `synthesis(ws, *, train, keys, noise)` ->
images. Where its running means are to move in some phases only, its class names them, `moving_phases`.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax import augment, losses, parallel, penalties
from gan_jax import config as configs
from gan_jax.errors import UserError
from gan_jax.games import players
from gan_jax.games.players import (  # noqa: F401, parts of a game
    EMA_NETS,
    LATENT,
    NETS,
    asks,
    constructors,
    latents,
    reads,
    truncate,
)
from gan_jax.layers import random
from gan_jax.layers.fir import blur
from gan_jax.models import stylegan2
from gan_jax.step import Out, Phase, State

EMA_COPIED = ("w_avg", "magnitude_ema")

# The keys that this game adds to a config, with their defaults.
DEFAULTS = {
    **players.DEFAULTS,
    "loss": {
        "r1_gamma": 10.0,
        "path_length_weight": 2.0,
        "path_length_decay": 0.01,  # how fast the target length follows the mean length
        "path_length_shrink": 2,  # one of so many samples has its path measured
        "blur_sigma": 0.0,  # pixels; low-pass filter of all that the discriminator sees (StyleGAN3-R: 10), at first
        "blur_fade_images": 200_000,  # images over which it fades out
    },
    "every": {"path_length_steps": 4, "penalty_steps": 16},
    "style": {
        "mixing": 0.9,  # share of samples with the styles of two latents
        "noise": "random",  # in training: one of `stylegan2.NOISE`
    },
}

NEEDS = {"generator": ("latent_size", "num_classes", "num_ws", "mapping", "synthesis", "separable")}

# Independent draws of one phase beside `LATENT`, see `_draws`.
MIX, SECOND_LATENT, NOISE, FLIP, AUGMENT_REAL, AUGMENT_FAKE, PATH = range(LATENT + 1, 8)


class Rules(NamedTuple):
    """What the losses need beside their arguments."""

    nets: dict[str, nn.Module]
    loss: Any  # config.loss
    style: Any  # config.style
    augmentation: augment.Augmentation
    flip: bool
    batch_size: int  # over all devices


def nets(config, spec) -> dict[str, nn.Module]:
    """The two players for images of `spec`, see `players.build`."""
    return players.build(config, spec)


def init(config, nets: dict, spec, key: jax.Array) -> tuple[dict, dict, Any]:
    """Fresh parameters and variables of both nets; memory is the mean path length and what the augmentation keeps."""
    return *players.init(nets, spec, key), {"pl_mean": jnp.float32(0), "augment": augment.build(config.augment).init()}


def phases(config, nets: dict) -> tuple[Phase, ...]:
    """The table of moves.

    Raises:
      UserError: a period, weight or share out of range, or an unknown noise.
    """
    _check(config)
    loss, every, style = config.loss, config.every, config.style
    rules = Rules(nets, loss, style, augment.build(config.augment), config.data.flip, config.batch_size)

    def phase(name: str, loss_fn, player: str, period: int = 1, weights: tuple[str, ...] = ()) -> Phase:
        numbers = tuple((weight, loss[weight]) for weight in weights)
        return Phase(name, partial(loss_fn, rules=rules, every=period), (player,), player, period, weights=numbers)

    table = [phase("generator", _generator_loss, "generator")]
    if loss.path_length_weight:
        weights = ("path_length_weight", "path_length_decay")
        table.append(phase("path_length", _path_length_loss, "generator", every.path_length_steps, weights))
    table.append(phase("discriminator", _discriminator_loss, "discriminator"))
    if loss.r1_gamma:
        table.append(phase("penalty", _penalty_loss, "discriminator", every.penalty_steps, ("r1_gamma",)))
    return tuple(table)


def _check(config) -> None:
    """Raises UserError as `phases` does."""
    periods = ("every.path_length_steps", "every.penalty_steps")
    configs.check_range(config, "1 or more", *periods, "loss.path_length_shrink")
    configs.check_range(config, "0 or more", "loss.r1_gamma", "loss.path_length_weight", "loss.blur_sigma")
    configs.check_range(config, "above 0" if config.loss.blur_sigma else "0 or more", "loss.blur_fade_images")
    configs.check_range(config, "0 to 1", "loss.path_length_decay", "style.mixing")
    if config.style.noise not in stylegan2.NOISE:
        raise UserError(f"config.style.noise={config.style.noise!r}: expected one of {', '.join(stylegan2.NOISE)}")


def groups(config) -> dict[str, int]:
    """See `games.groups`: the samples of which one has its path measured."""
    return {"loss.path_length_shrink": config.loss.path_length_shrink} if config.loss.path_length_weight else {}


def sample(
    nets: dict, ema: dict, keys: jax.Array, given: dict, *, psi: float = 1.0, cutoff: int | None = None
) -> dict[str, jax.Array]:
    """`image` (B, H, W, C) of the averaged generator; sample i and its noise depend on keys[i] and its label alone."""
    ws = styles(nets, ema, latents(nets["generator"], keys), given.get("label"), psi=psi, cutoff=cutoff)
    return {"image": paint(nets, ema, ws, keys, noise="random")}


def decode(
    nets: dict, ema: dict, z: jax.Array, labels: jax.Array | None, *, psi: float = 1.0, cutoff: int | None = None
) -> jax.Array:
    """Images (B, H, W, C) of latents z (B, latent_size), with constant noise; for psi and cutoff see `truncate`."""
    return paint(nets, ema, styles(nets, ema, z, labels, psi=psi, cutoff=cutoff))


def styles(
    nets: dict, ema: dict, z: jax.Array, labels: jax.Array | None, *, psi: float = 1.0, cutoff: int | None = None
) -> jax.Array:
    """Styles ws (B, num_ws, w_size) of latents z (B, latent_size); for psi and cutoff see `truncate`."""
    label = labels if players.labelled(nets) else None
    return nets["generator"].apply(ema["generator"], z, label, psi=psi, cutoff=cutoff, method="mapping")


def paint(nets: dict, ema: dict, ws: jax.Array, keys: jax.Array | None = None, *, noise: str = "const") -> jax.Array:
    """Images (B, H, W, C) of styles ws (B, num_ws, w_size); noise is 'const', 'none', or 'random' from keys (B,)."""
    keys = random.fold(keys, NOISE) if noise == "random" else None
    return nets["generator"].apply(ema["generator"], ws, keys=keys, noise=noise, method="synthesis")


def mix(ws: jax.Array, other: jax.Array, draws: jax.Array, share: float) -> jax.Array:
    """Style mixing (Karras et al. 2019, section 3.1): from a random layer on, a share of samples has other styles.

    Args:
      ws: styles, (B, num_ws, S).
      other: styles of second latents, (B, num_ws, S).
      draws: U(0, 1), (B, 2): whether, and from which of the layers 1 to num_ws - 1 on.
      share: probability that a sample is mixed.
    """
    layers = ws.shape[1]
    start = 1 + jnp.floor(draws[:, 1] * (layers - 1)).astype(jnp.int32)
    start = jnp.where(draws[:, 0] < share, start, layers)
    return jnp.where((jnp.arange(layers) >= start[:, None])[..., None], other, ws)


def _draws(keys: jax.Array, rules: Rules, *numbers: int) -> dict[int, jax.Array]:
    """What a phase draws for each sample, from its key (B,); what is drawn in large numbers has keys of its own."""
    net = rules.nets["generator"]
    latents = dict.fromkeys((LATENT, SECOND_LATENT), players.latent_draw(net))
    others = {**latents, MIX: random.Draw("uniform", (2,)), FLIP: random.UNIFORM}
    drawn = random.draw(keys, {number: others.get(number, random.KEY) for number in numbers})
    return drawn | {number: players.spread(net, drawn[number]) for number in latents if number in drawn}


def _of_fakes(rules: Rules) -> tuple[int, ...]:
    """The draws of generated images."""
    return (LATENT, NOISE) + ((SECOND_LATENT, MIX) if rules.style.mixing else ())


def _styles(params, state: State, batch: dict, draws: dict, rules: Rules, phase: str, rows: slice = slice(None)):
    """Styles of fresh latents, mixed, and the collections of the generator with its running means moved.

    A batch may carry the latents `<phase>/z` and labels `<phase>/label` of its generated images; parity tests do.
    """
    net, variables = rules.nets["generator"], state.variables["generator"]
    label = players.labels(rules.nets, batch, phase)
    z = [batch[f"{phase}/z"][rows] if f"{phase}/z" in batch else draws[LATENT]]
    count = len(z[0])
    if rules.style.mixing:
        z.append(draws[SECOND_LATENT])
    labels = None if label is None else jnp.concatenate([label[rows]] * (2 if rules.style.mixing else 1))
    apply = partial(net.apply, {"params": params["generator"], **variables}, method="mapping")
    # Both latents of a sample pass the mapping network at once; the first move its running mean.
    ws, new = apply(jnp.concatenate(z), labels, train=_moves(net, phase), counted=count, mutable=list(variables))
    if rules.style.mixing:
        ws = mix(ws[:count], ws[count:], draws[MIX], rules.style.mixing)
    return ws, variables | dict(new)


def _moves(net: nn.Module, phase: str) -> bool:
    return phase in getattr(net, "moving_phases", (phase,))


def _paint(params, variables: dict, ws: jax.Array, draws: dict, rules: Rules, phase: str):
    """Images of styles, and the collections of the generator."""
    net = rules.nets["generator"]
    images, new = net.apply(
        {"params": params["generator"], **variables},
        ws,
        train=_moves(net, phase),
        keys=draws[NOISE],
        noise=rules.style.noise,
        mutable=list(variables),
        method="synthesis",
    )
    return images, variables | dict(new)


def _fakes(params, state, batch, draws, rules, phase) -> tuple[jax.Array, dict]:
    ws, variables = _styles(params, state, batch, draws, rules, phase)
    return _paint(params, variables, ws, draws, rules, phase)


def _strength(state: State, rules: Rules) -> jax.Array:
    return rules.augmentation.strength(state.memory["augment"], state.images)


def _logits(params, state: State, images: jax.Array, label, keys: jax.Array, rules: Rules) -> jax.Array:
    """What the discriminator says of images, blurred and augmented first."""
    if rules.loss.blur_sigma:
        left = 1 - state.images.astype(jnp.float32) / rules.loss.blur_fade_images
        images = blur(images, rules.loss.blur_sigma * jnp.maximum(left, 0), largest=rules.loss.blur_sigma)
    images = rules.augmentation(images, keys, _strength(state, rules))
    variables = {"params": params["discriminator"], **state.variables["discriminator"]}
    return rules.nets["discriminator"].apply(variables, images, label, train=True, keys=keys)


def _generator_loss(params, state, batch, rng, *, rules, every):
    """softplus(-D(G(z)))"""
    draws = _draws(rng.samples, rules, *_of_fakes(rules), AUGMENT_FAKE)
    label = players.labels(rules.nets, batch, "generator")
    fake, variables = _fakes(params, state, batch, draws, rules, "generator")
    logits = _logits(params, state, fake, label, draws[AUGMENT_FAKE], rules)
    loss = losses.adversarial("non_saturating").generator(None, logits).mean()
    return loss, Out({"fake_logit": logits.mean()}, {"generator": variables})


def _path_length_loss(params, state, batch, rng, *, rules, every, weights=None):
    """weight (length - mean length)^2, of one in `path_length_shrink` samples.

    Those are the same on any number of devices, where a device's share of the batch is a multiple of the shrinkage. The
    gradient passes through the running mean too, as in the official code.
    """
    weights, rows = weights or rules.loss, slice(None, None, rules.loss.path_length_shrink)
    draws = _draws(rng.samples[rows], rules, *_of_fakes(rules), PATH)
    ws, variables = _styles(params, state, batch, draws, rules, "path_length", rows)
    shape = batch["image"].shape[1:]
    if "path_length/noise" in batch:
        noise = batch["path_length/noise"][rows]
    else:
        noise = random.normal(draws[PATH], shape)

    def paint(ws):
        return _paint(params, variables, ws, draws, rules, "path_length")

    lengths, variables = penalties.path_lengths(paint, ws, noise / math.sqrt(shape[0] * shape[1]))
    mean = parallel.mean(lengths.mean())
    target = state.memory["pl_mean"] + weights["path_length_decay"] * (mean - state.memory["pl_mean"])
    value = weights["path_length_weight"] * jnp.square(lengths - target).mean()
    memory = state.memory | {"pl_mean": jax.lax.stop_gradient(target)}
    return every * value, Out({"penalty": value, "length": mean}, {"generator": variables}, memory)


def _discriminator_loss(params, state, batch, rng, *, rules, every):
    """softplus(D(G(z))) + softplus(-D(x))"""
    draws = _draws(rng.samples, rules, *_of_fakes(rules), FLIP, AUGMENT_REAL, AUGMENT_FAKE)
    label = players.labels(rules.nets, batch, "discriminator")
    fake, variables = _fakes(params, state, batch, draws, rules, "discriminator")
    fake, real = jax.lax.stop_gradient(fake), players.reals(batch, draws[FLIP], rules.flip)
    # In one batch they are slower by 5% or more on a CPU.
    fake_logits = _logits(params, state, fake, label, draws[AUGMENT_FAKE], rules)
    real_logits = _logits(params, state, real, players.labels(rules.nets, batch), draws[AUGMENT_REAL], rules)
    terms = losses.adversarial("non_saturating").discriminator(real_logits, fake_logits)
    metrics = {f"loss_{name}": value.mean() for name, value in terms.items()}
    loss = sum(metrics.values())
    metrics |= {"real_logit": real_logits.mean(), "fake_logit": fake_logits.mean()}
    metrics |= {"real_sign": jnp.sign(real_logits).mean(), "augment": _strength(state, rules)}
    seen = rules.augmentation.observe(state.memory["augment"], jax.lax.stop_gradient(real_logits), rules.batch_size)
    memory = None if seen is None else state.memory | {"augment": seen}
    return loss, Out(metrics, {"generator": variables}, memory)


def _penalty_loss(params, state, batch, rng, *, rules, every, weights=None):
    """R1 with respect to the real images as they are before blur and augmentation."""
    weights = weights or rules.loss
    draws = _draws(rng.samples, rules, FLIP, AUGMENT_REAL)

    def logits(x):
        return _logits(params, state, x, players.labels(rules.nets, batch), draws[AUGMENT_REAL], rules)

    value = penalties.r1(logits, players.reals(batch, draws[FLIP], rules.flip), gamma=weights["r1_gamma"]).mean()
    return every * value, Out({"r1": value}, {})
