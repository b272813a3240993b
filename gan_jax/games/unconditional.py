"""One generator against one discriminator (Goodfellow et al. 2014, arXiv 1406.2661), with labels where the data has them.

Its phases: `discriminator` every step; `penalty`, where a gradient penalty is lazy; `generator` every
`config.every.generator_steps` steps.
"""

import inspect
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax import config as configs
from gan_jax import losses, models, parallel, penalties
from gan_jax.errors import UserError
from gan_jax.layers import pixels, random
from gan_jax.step import Out, Phase, Rng, State

NETS = ("generator", "discriminator")
EMA_NETS = ("generator",)

# The keys that this game adds to a config, with their defaults.
DEFAULTS = {
    "loss": {
        "name": "non_saturating",  # see `losses.NAMES`
        "options": {},  # of that loss, such as real_target
        "r1_gamma": 0.0,
        "r2_gamma": 0.0,
        "gradient_penalty": 0.0,  # lambda of WGAN-GP
        "dragan": 0.0,  # lambda of DRAGAN
    },
    "every": {"generator_steps": 1, "penalty_steps": 1},  # n_critic; above 1, the penalty is lazy
}

# Independent draws of one phase: folded into each sample's key.
LATENT, DROPOUT_REAL, DROPOUT_FAKE, FLIP, PENALTY, DROPOUT_GENERATOR = range(6)


def nets(config, spec) -> dict[str, nn.Module]:
    """The two players for data of `spec.shape` and `spec.num_classes`.

    Raises:
      UserError: an unknown model or option, or a model that cannot make images of this shape.
    """
    built = {}
    for net, constructor in constructors(config).items():
        section = config[net]
        built[net] = configs.build(constructor, section, net, **_data_fields(constructor, section.name, spec))
    return built


def constructors(config) -> dict[str, type]:
    """net -> the class whose fields are the schema of its config section."""
    return {net: models.pair(config[net].name)[i] for i, net in enumerate(NETS)}


def _data_fields(constructor, name: str, spec) -> dict[str, Any]:
    """What the data and the devices decide of a model's fields."""
    takes = inspect.signature(constructor).parameters
    if "shape" in takes:
        fields = {"shape": tuple(spec.shape)}
    elif len(spec.shape) == 3:
        fields = {"resolution": tuple(spec.shape[:2]), "channels": spec.shape[2]}
    else:
        raise UserError(f"the model {name!r} makes images, and this data has the shape {tuple(spec.shape)}; use 'gan'")
    optional = {"num_classes": spec.num_classes, "axis_name": parallel.AXIS}
    return fields | {key: value for key, value in optional.items() if key in takes}


def init(config, nets: dict, spec, key: jax.Array) -> tuple[dict, dict, Any]:
    """Fresh parameters and variables of both nets; no memory."""
    params, variables = {}, {}
    label = jnp.zeros((2,), jnp.int32) if _labelled(nets) else None
    inputs = {"generator": jnp.zeros((2, nets["generator"].latent_size)), "discriminator": jnp.zeros((2, *spec.shape))}
    for number, (name, net) in enumerate(nets.items()):
        made = dict(net.init(jax.random.fold_in(key, number), inputs[name], label, train=True))
        params[name] = made.pop("params")
        variables[name] = made
    return params, variables, ()


def phases(config, nets: dict) -> tuple[Phase, ...]:
    """The table of moves for `config.loss`.

    Raises:
      UserError: an unknown loss, or a period below one step.
    """
    loss = config.loss
    game = losses.adversarial(loss.name, **loss.options.to_dict())
    every = config.every
    for key in ("generator_steps", "penalty_steps"):
        if every[key] < 1:
            raise UserError(f"config.every.{key}={every[key]}: expected 1 or more")
    weights = {k: loss[k] for k in ("r1_gamma", "r2_gamma", "gradient_penalty", "dragan") if loss[k]}
    lazy = every.penalty_steps > 1 and bool(weights)
    common = dict(nets=nets, flip=config.data.flip)
    penalty = partial(_penalty, weights=weights, **common) if weights else None
    table = [
        Phase(
            "discriminator",
            partial(_discriminator_loss, game=game, penalty=None if lazy else penalty, **common),
            ("discriminator",),
            "discriminator",
        )
    ]
    if lazy:
        loss_fn = partial(_lazy_penalty, penalty=penalty, every=every.penalty_steps, **common)
        table.append(Phase("penalty", loss_fn, ("discriminator",), "discriminator", every.penalty_steps))
    loss_fn = partial(_generator_loss, game=game, **common)
    return (*table, Phase("generator", loss_fn, ("generator",), "generator", every.generator_steps))


def sample(nets: dict, ema: dict, keys: jax.Array, labels: jax.Array | None) -> jax.Array:
    """Images (B, *shape) in [-1, 1] from the averaged generator; sample i depends on keys[i] and labels[i] alone."""
    return decode(nets, ema, latents(nets["generator"], keys), labels)


def decode(nets: dict, ema: dict, z: jax.Array, labels: jax.Array | None) -> jax.Array:
    """Images (B, *shape) in [-1, 1] for given latents z (B, latent_size)."""
    return nets["generator"].apply(ema["generator"], z, labels if _labelled(nets) else None, train=False)


def latents(generator: nn.Module, keys: jax.Array) -> jax.Array:
    """z (B, latent_size), each row from its own key: N(0, 1), or U(-1, 1) where `generator.latent` says uniform."""
    keys = random.fold(keys, LATENT)
    if generator.latent == "uniform":
        return random.uniform(keys, (generator.latent_size,), minval=-1.0, maxval=1.0)
    return random.normal(keys, (generator.latent_size,))


def _labelled(nets: dict) -> bool:
    return getattr(nets["generator"], "num_classes", 0) > 0


def _play(net: nn.Module, params, variables, x, label, keys) -> tuple[jax.Array, dict]:
    """Applies a net in training mode: (output, its new collections)."""
    out, new = net.apply({"params": params, **variables}, x, label, train=True, keys=keys, mutable=list(variables))
    return out, dict(new)


def _reals(batch: dict, rng: Rng, flip: bool) -> jax.Array:
    images = pixels.normalise(batch["image"])
    return pixels.random_flip(images, random.fold(rng.samples, FLIP)) if flip else images


def _fakes(nets: dict, params: dict, state: State, batch: dict, rng: Rng) -> tuple[jax.Array, dict]:
    """Images from this batch's own latents `z` where it carries them (parity tests do), else from fresh ones."""
    net = nets["generator"]
    z = batch["z"] if "z" in batch else latents(net, rng.samples)
    keys = random.fold(rng.samples, DROPOUT_GENERATOR)
    return _play(net, params["generator"], state.variables["generator"], z, _label(nets, batch), keys)


def _label(nets: dict, batch: dict) -> jax.Array | None:
    return batch["label"] if _labelled(nets) else None


def _discriminator_loss(params, state, batch, rng, *, nets, game, penalty, flip):
    """Real and fake images pass in two batches, so that batch normalisation sees them apart (DCGAN, section 3)."""
    net, label = nets["discriminator"], _label(nets, batch)
    fake, _ = _fakes(nets, params, state, batch, rng)  # the generator's own statistics move in its own phase
    fake = jax.lax.stop_gradient(fake)
    real = _reals(batch, rng, flip)
    own = params["discriminator"]
    variables = state.variables["discriminator"]
    real_logits, variables = _play(net, own, variables, real, label, random.fold(rng.samples, DROPOUT_REAL))
    fake_logits, variables = _play(net, own, variables, fake, label, random.fold(rng.samples, DROPOUT_FAKE))
    terms = {f"loss_{name}": value.mean() for name, value in game.discriminator(real_logits, fake_logits).items()}
    loss = sum(terms.values())
    metrics = {**terms, "real_logit": real_logits.mean(), "fake_logit": fake_logits.mean()}
    if penalty is not None:
        value, more = penalty(params, state, batch, rng, real=real, fake=fake)
        loss, metrics = loss + value, metrics | more
    return loss, Out(metrics, {"discriminator": variables})


def _generator_loss(params, state, batch, rng, *, nets, game, flip):
    fake, own = _fakes(nets, params, state, batch, rng)
    net, label = nets["discriminator"], _label(nets, batch)
    variables, real_logits = state.variables["discriminator"], None
    if game.needs_real:
        real = _reals(batch, rng, flip)
        real_logits, variables = _play(
            net, params["discriminator"], variables, real, label, random.fold(rng.samples, DROPOUT_REAL)
        )
    fake_logits, variables = _play(
        net, params["discriminator"], variables, fake, label, random.fold(rng.samples, DROPOUT_FAKE)
    )
    loss = game.generator(real_logits, fake_logits).mean()
    return loss, Out({"fake_logit": fake_logits.mean()}, {"generator": own, "discriminator": variables})


def _lazy_penalty(params, state, batch, rng, *, nets, penalty, every, flip):
    """The penalty alone, `every` times as strong because it is played that much more seldom (StyleGAN2, appendix B)."""
    real = _reals(batch, rng, flip)
    fake, _ = _fakes(nets, params, state, batch, rng)
    value, metrics = penalty(params, state, batch, rng, real=real, fake=jax.lax.stop_gradient(fake))
    return value * every, Out(metrics, {})


def _penalty(params, state, batch, rng, *, nets, weights, flip, real, fake) -> tuple[jax.Array, dict]:
    """The weighted sum of the penalties asked for, and each of them by name."""
    net, label = nets["discriminator"], _label(nets, batch)
    keys = random.fold(rng.samples, DROPOUT_REAL)

    def logits(x):
        return _play(net, params["discriminator"], state.variables["discriminator"], x, label, keys)[0]

    draws = random.fold(rng.samples, PENALTY)
    values = {}
    if "r1_gamma" in weights:
        values["r1"] = penalties.r1(logits, real, gamma=weights["r1_gamma"]).mean()
    if "r2_gamma" in weights:
        values["r2"] = penalties.r2(logits, fake, gamma=weights["r2_gamma"]).mean()
    if "gradient_penalty" in weights:
        alpha = random.uniform(draws, (1,) * (real.ndim - 1))
        values["gradient_penalty"] = weights["gradient_penalty"] * penalties.gradient_penalty(logits, real, fake, alpha).mean()
    if "dragan" in weights:
        noise = random.uniform(draws, real.shape[1:])
        values["dragan"] = weights["dragan"] * penalties.dragan(logits, real, noise, axis_name=parallel.AXIS).mean()
    return sum(values.values()), values
