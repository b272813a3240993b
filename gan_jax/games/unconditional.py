"""One generator against one discriminator (Goodfellow et al. 2014, arXiv 1406.2661), with or without labels.

Its phases: `discriminator` every step; `penalty`, where a gradient penalty is lazy; `generator` every
`config.every.generator_steps` steps.
"""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax import augment, losses, optim, parallel, penalties
from gan_jax import config as configs
from gan_jax.games import players
from gan_jax.games.players import EMA_NETS, NETS, asks, constructors, latents, reads  # noqa: F401, parts of a game
from gan_jax.games.players import threshold as truncate  # noqa: F401, the same
from gan_jax.layers import random
from gan_jax.step import Out, Phase, Rng, State

# The keys that this game adds to a config, with their defaults.
DEFAULTS = {
    **players.DEFAULTS,
    "loss": {
        "name": "non_saturating",  # see `losses.NAMES`
        "options": {},  # of that loss, such as real_target
        "r1_gamma": 0.0,
        "r2_gamma": 0.0,
        "gradient_penalty": 0.0,  # lambda of WGAN-GP
        "dragan": 0.0,  # lambda of DRAGAN
        "penalty_decay_images": 0.0,  # the weights of penalties fall over them, along a cosine; 0: they stay
        "penalty_final_factor": 1.0,  # share of the weights that is left at the end
        "shared_fakes": False,  # the generator descends on the fakes that the discriminator has just seen
    },
    "every": {"generator_steps": 1, "penalty_steps": 1},  # n_critic; above 1, the penalty is lazy
}

NEEDS = {"generator": ("latent_size", "latent")}
WEIGHTS = ("r1_gamma", "r2_gamma", "gradient_penalty", "dragan")

# Independent draws of one phase, see `_draws`.
LATENT, DROPOUT_REAL, DROPOUT_FAKE, FLIP, PENALTY, DROPOUT_GENERATOR, AUGMENT_REAL, AUGMENT_FAKE = DRAWS = range(8)
REAL, FAKE = (DROPOUT_REAL, AUGMENT_REAL), (DROPOUT_FAKE, AUGMENT_FAKE)


class Rules(NamedTuple):
    """What the losses need beside their arguments."""

    nets: dict[str, nn.Module]
    game: losses.Adversarial
    augmentation: augment.Augmentation
    flip: bool
    batch_size: int  # over all devices
    penalty_steps: int  # config.every.penalty_steps
    decay: dict[str, float]  # of the weights of penalties, see `_decayed`


def nets(config, spec) -> dict[str, nn.Module]:
    """The two players for data of `spec`, see `players.build`."""
    return players.build(config, spec, points="gan")


def init(config, nets: dict, spec, key: jax.Array) -> tuple[dict, dict, Any]:
    """Fresh parameters and variables of both nets, and the memory of an adaptive augmentation."""
    return *players.init(nets, spec, key), augment.build(config.augment).init()


def phases(config, nets: dict) -> tuple[Phase, ...]:
    """The table of moves for `config.loss`.

    Raises:
      UserError: an unknown loss, or a period or weight out of range.
    """
    configs.check_range(config, "1 or more", "every.generator_steps", "every.penalty_steps")
    configs.check_range(config, "0 or more", *(f"loss.{weight}" for weight in WEIGHTS))
    configs.check_range(config, "0 or more", "loss.penalty_decay_images", "loss.penalty_final_factor")
    loss, every = config.loss, config.every
    weights = tuple((name, loss[name]) for name in WEIGHTS if loss[name])
    lazy = every.penalty_steps > 1 and bool(weights)
    rules = Rules(
        nets, losses.adversarial(loss.name, **loss.options.to_dict()), augment.build(config.augment),
        config.data.flip, config.batch_size, every.penalty_steps,
        dict(end=loss.penalty_final_factor, length=loss.penalty_decay_images),
    )  # fmt: skip
    couples = getattr(nets["discriminator"], "couples_samples", True)
    joint = {name for name, _ in weights} == {"r1_gamma", "r2_gamma"} and not lazy and not couples

    def phase(name: str, loss_fn, player: str, period: int = 1, weights: tuple = (), draws: str = "") -> Phase:
        return Phase(name, partial(loss_fn, rules=rules), (player,), player, period, draws, weights)

    table = [
        phase("discriminator", _joint_discriminator_loss if joint else _discriminator_loss, "discriminator",
              weights=() if lazy else weights)
    ]  # fmt: skip
    if lazy:
        table.append(phase("penalty", _lazy_penalty, "discriminator", every.penalty_steps, weights))
    draws = "discriminator" if loss.shared_fakes else ""  # XLA then computes the forward that both have once
    return (*table, phase("generator", _generator_loss, "generator", every.generator_steps, draws=draws))


def sample(
    nets: dict, ema: dict, keys: jax.Array, given: dict, *, threshold: float | None = None
) -> dict[str, jax.Array]:
    """`image` (B, *shape) in [-1, 1] from the averaged generator; sample i depends on keys[i] and its label alone."""
    z = latents(nets["generator"], keys)
    return {"image": decode(nets, ema, z, given.get("label"), threshold=threshold)}


def decode(
    nets: dict, ema: dict, z: jax.Array, labels: jax.Array | None, *, threshold: float | None = None
) -> jax.Array:
    """Images (B, *shape) in [-1, 1] for given latents z (B, latent_size), see `players.truncated` for the threshold."""
    z = players.truncated(z, threshold)
    return nets["generator"].apply(ema["generator"], z, labels if players.labelled(nets) else None, train=False)


def _draws(nets: dict, rng: Rng) -> dict[int, jax.Array]:
    """What a phase draws for each sample, the same in every phase: those with the same randomness then make it once."""
    net, others = nets["generator"], dict.fromkeys(DRAWS, random.KEY)
    draws = random.draw(rng.samples, others | {LATENT: players.latent_draw(net), FLIP: random.UNIFORM})
    return draws | {LATENT: players.spread(net, draws[LATENT])}


def _play(net: nn.Module, params, variables, x, label, keys) -> tuple[jax.Array, dict]:
    """Applies a net in training mode: (output, its new collections)."""
    out, new = net.apply({"params": params, **variables}, x, label, train=True, keys=keys, mutable=list(variables))
    return out, dict(new)


def _fakes(rules: Rules, params: dict, state: State, batch: dict, draws: dict) -> tuple[jax.Array, dict]:
    """Images from this batch's own latents `z` where it carries them (parity tests do), else from fresh ones."""
    net, label = rules.nets["generator"], players.labels(rules.nets, batch)
    z, keys = batch.get("z", draws[LATENT]), draws[DROPOUT_GENERATOR]
    return _play(net, params["generator"], state.variables["generator"], z, label, keys)


def _judge(rules: Rules, params, variables, images, state, batch, draws, *sides) -> tuple[jax.Array, dict]:
    """The discriminator's logits of augmented images, and its new collections; `sides` are the parts of the batch."""
    dropout, augmented = (jnp.concatenate([draws[side[i]] for side in sides]) for i in range(2))
    images = rules.augmentation(images, augmented, rules.augmentation.strength(state.memory, state.images))
    label = players.labels(rules.nets, batch)
    if label is not None:
        label = jnp.concatenate([label] * len(sides))
    return _play(rules.nets["discriminator"], params["discriminator"], variables, images, label, dropout)


def _discriminator_loss(params, state, batch, rng, *, rules: Rules, weights: dict | None = None):
    """Real and fake images pass in two batches, so that batch normalisation sees them apart (DCGAN, section 3).

    `weights` are those of the penalties that belong to this phase.
    """
    draws = _draws(rules.nets, rng)
    fake, _ = _fakes(rules, params, state, batch, draws)  # the generator's own statistics move in its own phase
    fake = jax.lax.stop_gradient(fake)
    real = players.reals(batch, draws[FLIP], rules.flip)
    judge = partial(_judge, rules, params)
    real_logits, variables = judge(state.variables["discriminator"], real, state, batch, draws, REAL)
    fake_logits, variables = judge(variables, fake, state, batch, draws, FAKE)
    loss, metrics = _verdict(rules, real_logits, fake_logits)
    if weights:
        value, terms = _penalty(params, state, batch, draws, rules, weights, real, fake)
        loss, metrics = loss + value, metrics | terms
    return loss, _out(rules, state, real_logits, metrics, variables)


def _joint_discriminator_loss(params, state, batch, rng, *, rules: Rules, weights: dict):
    """Loss, R1 and R2 from one pass over real and fake images together, for a discriminator that sees each alone."""
    draws = _draws(rules.nets, rng)
    fake, _ = _fakes(rules, params, state, batch, draws)
    real = players.reals(batch, draws[FLIP], rules.flip)
    variables = state.variables["discriminator"]

    def logits(x):
        return _judge(rules, params, variables, x, state, batch, draws, REAL, FAKE)[0]

    weights = _decayed(weights, state.images, **rules.decay)
    values, both = penalties.r1_and_r2(logits, real, jax.lax.stop_gradient(fake), **weights)
    loss, metrics = _verdict(rules, *both)
    metrics |= {name: value.mean() for name, value in zip(("r1", "r2"), values, strict=True)}
    loss = loss + metrics["r1"] + metrics["r2"]
    return loss, _out(rules, state, both[0], metrics, variables)


def _verdict(rules: Rules, real_logits, fake_logits) -> tuple[jax.Array, dict]:
    terms = rules.game.discriminator(real_logits, fake_logits)
    terms = {f"loss_{name}": value.mean() for name, value in terms.items()}
    return sum(terms.values()), {**terms, "real_logit": real_logits.mean(), "fake_logit": fake_logits.mean()}


def _out(rules: Rules, state, real_logits, metrics, variables) -> Out:
    terms, memory = players.observed(rules, state, real_logits)
    return Out(metrics | terms, {"discriminator": variables}, memory)


def _generator_loss(params, state, batch, rng, *, rules: Rules):
    draws = _draws(rules.nets, rng)
    fake, moved = _fakes(rules, params, state, batch, draws)
    judge = partial(_judge, rules, params)
    variables, real_logits = state.variables["discriminator"], None
    if rules.game.needs_real:
        real = players.reals(batch, draws[FLIP], rules.flip)
        real_logits, variables = judge(variables, real, state, batch, draws, REAL)
    fake_logits, variables = judge(variables, fake, state, batch, draws, FAKE)
    loss = rules.game.generator(real_logits, fake_logits).mean()
    return loss, Out({"fake_logit": fake_logits.mean()}, {"generator": moved, "discriminator": variables})


def _lazy_penalty(params, state, batch, rng, *, rules: Rules, weights: dict):
    """The penalty alone, as many times as strong as it is played more seldom (StyleGAN2, appendix B)."""
    draws = _draws(rules.nets, rng)
    real = players.reals(batch, draws[FLIP], rules.flip)
    fake, _ = _fakes(rules, params, state, batch, draws)
    fake = jax.lax.stop_gradient(fake)
    value, metrics = _penalty(params, state, batch, draws, rules, weights, real, fake)
    return value * rules.penalty_steps, Out(metrics, {})


def _range(real: jax.Array) -> dict[str, float]:
    """Where DRAGAN's perturbed samples are clipped: images to [-1, 1], points nowhere."""
    return {} if real.ndim == 4 else {"low": -jnp.inf, "high": jnp.inf}


def _decayed(weights: dict, images: jax.Array, *, end: float, length: float) -> dict:
    """Weights of penalties after so many images."""
    factor = optim.cosine(images, 1.0, end, length) if length else 1.0
    return {name: value * factor for name, value in weights.items()}


def _penalty(params, state, batch, draws, rules: Rules, weights: dict, real, fake) -> tuple[jax.Array, dict]:
    """(weighted sum of the penalties asked for, each of them by name), with respect to the images not yet augmented.

    Generated images are augmented with their own keys, as in the loss; what lies near reals or on the way from
    them to generated ones with those of the reals.
    """
    weights = _decayed(weights, state.images, **rules.decay)

    def logits(x, side=REAL):
        return _judge(rules, params, state.variables["discriminator"], x, state, batch, draws, side)[0]

    values = {}
    if "r1_gamma" in weights:
        values["r1"] = penalties.r1(logits, real, gamma=weights["r1_gamma"]).mean()
    if "r2_gamma" in weights:
        values["r2"] = penalties.r2(partial(logits, side=FAKE), fake, gamma=weights["r2_gamma"]).mean()
    if "gradient_penalty" in weights:
        alpha = random.uniform(draws[PENALTY], (1,) * (real.ndim - 1))
        values["gradient_penalty"] = (
            weights["gradient_penalty"] * penalties.gradient_penalty(logits, real, fake, alpha).mean()
        )
    if "dragan" in weights:
        noise = random.uniform(draws[PENALTY], real.shape[1:])
        values["dragan"] = (
            weights["dragan"] * penalties.dragan(logits, real, noise, axis_name=parallel.AXIS, **_range(real)).mean()
        )
    return sum(values.values()), values
