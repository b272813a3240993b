"""One generator against one discriminator (Goodfellow et al. 2014, arXiv 1406.2661), with or without labels.

Its phases: `discriminator` every step; `penalty`, where a gradient penalty is lazy; `generator` every
`config.every.generator_steps` steps.
"""

import inspect
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax import augment, losses, models, optim, parallel, penalties, specs
from gan_jax import config as configs
from gan_jax.errors import UserError
from gan_jax.layers import pixels, random
from gan_jax.step import Out, Phase, Rng, State

NETS = ("generator", "discriminator")
EMA_NETS = ("generator",)

# The keys that this game adds to a config, with their defaults.
DEFAULTS = {
    "conditional": False,  # whether the players see the labels of the data
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
    "augment": {"name": "none"},  # see `augment.NAMES`: of real and generated images, for the discriminator
    "every": {"generator_steps": 1, "penalty_steps": 1},  # n_critic; above 1, the penalty is lazy
}

NEEDS = {"generator": ("latent_size", "latent")}
WEIGHTS = ("r1_gamma", "r2_gamma", "gradient_penalty", "dragan")

# Independent draws of one phase, see `_draws`.
LATENT, DROPOUT_REAL, DROPOUT_FAKE, FLIP, PENALTY, DROPOUT_GENERATOR, AUGMENT_REAL, AUGMENT_FAKE = DRAWS = range(8)
REAL, FAKE = (DROPOUT_REAL, AUGMENT_REAL), (DROPOUT_FAKE, AUGMENT_FAKE)


def reads(config) -> tuple[str, ...]:
    """The images, and their labels where `config.conditional`."""
    return ("image", "label") if config.conditional else ("image",)


def asks(config) -> tuple[str, ...]:
    """A label for each sample, where `config.conditional`."""
    return ("label",) if config.conditional else ()


def nets(config, spec) -> dict[str, nn.Module]:
    """The two players for data of `spec`.

    Raises:
      UserError: an unknown model or option, or a model that cannot make images of this shape.
    """
    shape = spec["image"].shape
    if config.augment.name != "none" and len(shape) != 3:
        raise UserError(f"config.augment.name={config.augment.name!r}: this data has the shape {shape}; use 'none'")
    built, table = {}, constructors(config)
    for net in NETS:
        constructor, section = table[net], config[net]
        built[net] = configs.build(constructor, section, net, **_data_fields(constructor, section.name, spec))
    return built


def constructors(config) -> dict[str, type]:
    """section -> the class whose fields are its schema: one for each net, and the augmentation."""
    return {net: models.pair(config[net].name)[i] for i, net in enumerate(NETS)} | {"augment": augment.chosen(config)}


def _data_fields(constructor, name: str, spec) -> dict[str, Any]:
    """What the data and the devices decide of a model's fields."""
    takes, shape = inspect.signature(constructor).parameters, spec["image"].shape
    if "shape" in takes:
        fields = {"shape": shape}
    elif len(shape) == 3:
        fields = {"resolution": shape[:2], "channels": shape[2]}
    else:
        raise UserError(f"the model {name!r} makes images, and this data has the shape {shape}; use 'gan'")
    optional = {"num_classes": specs.classes(spec), "axis_name": parallel.AXIS}
    return fields | {key: value for key, value in optional.items() if key in takes}


def init(config, nets: dict, spec, key: jax.Array) -> tuple[dict, dict, Any]:
    """Fresh parameters and variables of both nets, and the memory of an adaptive augmentation."""
    params, variables = {}, {}
    label = jnp.zeros((2,), jnp.int32) if _labelled(nets) else None
    latents, images = (2, nets["generator"].latent_size), (2, *spec["image"].shape)
    inputs = {"generator": jnp.zeros(latents), "discriminator": jnp.zeros(images)}
    for number, (name, net) in enumerate(nets.items()):
        made = dict(net.init(jax.random.fold_in(key, number), inputs[name], label, train=True))
        params[name] = made.pop("params")
        variables[name] = made
    return params, variables, augment.build(config.augment).init()


def phases(config, nets: dict) -> tuple[Phase, ...]:
    """The table of moves for `config.loss`.

    Raises:
      UserError: an unknown loss, or a period or weight out of range.
    """
    configs.check_range(config, "1 or more", "every.generator_steps", "every.penalty_steps")
    configs.check_range(config, "0 or more", *(f"loss.{weight}" for weight in WEIGHTS))
    configs.check_range(config, "0 or more", "loss.penalty_decay_images", "loss.penalty_final_factor")
    loss = config.loss
    game = losses.adversarial(loss.name, **loss.options.to_dict())
    every = config.every
    weights = {k: loss[k] for k in WEIGHTS if loss[k]}
    lazy = every.penalty_steps > 1 and bool(weights)
    common = dict(nets=nets, flip=config.data.flip, augmentation=augment.build(config.augment))
    decay = dict(end=loss.penalty_final_factor, length=loss.penalty_decay_images)
    penalty = partial(_penalty, decay=decay, **common) if weights else None
    loss_fn = partial(_discriminator_loss, penalty=None if lazy else penalty)
    couples = getattr(nets["discriminator"], "couples_samples", True)
    if set(weights) == {"r1_gamma", "r2_gamma"} and not lazy and not couples:
        loss_fn = partial(_joint_discriminator_loss, decay=decay)
    numbers = tuple(weights.items())
    of_main, of_lazy = ((), numbers) if lazy else (numbers, ())
    loss_fn = partial(loss_fn, game=game, batch_size=config.batch_size, weights=dict(of_main), **common)
    table = [Phase("discriminator", loss_fn, ("discriminator",), "discriminator", weights=of_main)]
    if lazy:
        loss_fn = partial(
            _lazy_penalty, penalty=penalty, every=every.penalty_steps, weights=dict(of_lazy), **common
        )
        table.append(Phase("penalty", loss_fn, ("discriminator",), "discriminator", every.penalty_steps, "", of_lazy))
    loss_fn = partial(_generator_loss, game=game, **common)
    draws = "discriminator" if loss.shared_fakes else ""  # XLA then computes the forward that both have once
    return (*table, Phase("generator", loss_fn, ("generator",), "generator", every.generator_steps, draws))


def sample(nets: dict, ema: dict, keys: jax.Array, given: dict) -> dict[str, jax.Array]:
    """`image` (B, *shape) in [-1, 1] from the averaged generator; sample i depends on keys[i] and its label alone."""
    return {"image": decode(nets, ema, latents(nets["generator"], keys), given.get("label"))}


def decode(nets: dict, ema: dict, z: jax.Array, labels: jax.Array | None) -> jax.Array:
    """Images (B, *shape) in [-1, 1] for given latents z (B, latent_size)."""
    return nets["generator"].apply(ema["generator"], z, labels if _labelled(nets) else None, train=False)


def latents(generator: nn.Module, keys: jax.Array) -> jax.Array:
    """z (B, latent_size), each row from its own key: N(0, 1), or U(-1, 1) where `generator.latent` says uniform."""
    keys = random.fold(keys, LATENT)
    if generator.latent == "uniform":
        return random.uniform(keys, (generator.latent_size,), minval=-1.0, maxval=1.0)
    return random.normal(keys, (generator.latent_size,))


def _draws(nets: dict, rng: Rng) -> dict[int, jax.Array]:
    """What a phase draws for each sample, the same in every phase: those with the same randomness then make it once."""
    net = nets["generator"]
    of_latents = random.Draw(net.latent, (net.latent_size,))
    draws = random.draw(rng.samples, dict.fromkeys(DRAWS, random.KEY) | {LATENT: of_latents, FLIP: random.UNIFORM})
    return draws | ({LATENT: 2 * draws[LATENT] - 1} if net.latent == "uniform" else {})


def _labelled(nets: dict) -> bool:
    return getattr(nets["generator"], "num_classes", 0) > 0


def _play(net: nn.Module, params, variables, x, label, keys) -> tuple[jax.Array, dict]:
    """Applies a net in training mode: (output, its new collections)."""
    out, new = net.apply({"params": params, **variables}, x, label, train=True, keys=keys, mutable=list(variables))
    return out, dict(new)


def _reals(batch: dict, draws: dict, flip: bool) -> jax.Array:
    images = pixels.normalise(batch["image"])
    return pixels.random_flip(images, draws[FLIP]) if flip else images


def _fakes(nets: dict, params: dict, state: State, batch: dict, draws: dict) -> tuple[jax.Array, dict]:
    """Images from this batch's own latents `z` where it carries them (parity tests do), else from fresh ones."""
    net = nets["generator"]
    z, keys = batch.get("z", draws[LATENT]), draws[DROPOUT_GENERATOR]
    return _play(net, params["generator"], state.variables["generator"], z, _label(nets, batch), keys)


def _label(nets: dict, batch: dict) -> jax.Array | None:
    return batch["label"] if _labelled(nets) else None


def _judge(nets, augmentation, params, variables, images, state, batch, draws, *sides) -> tuple[jax.Array, dict]:
    """The discriminator's logits of augmented images, and its new collections; `sides` are the parts of the batch."""
    dropout, augmented = (jnp.concatenate([draws[side[i]] for side in sides]) for i in range(2))
    images = augmentation(images, augmented, augmentation.strength(state.memory, state.images))
    label = _label(nets, batch)
    if label is not None:
        label = jnp.concatenate([label] * len(sides))
    return _play(nets["discriminator"], params["discriminator"], variables, images, label, dropout)


def _discriminator_loss(
    params, state, batch, rng, *, nets, game, penalty, flip, augmentation, batch_size, weights
):
    """Real and fake images pass in two batches, so that batch normalisation sees them apart (DCGAN, section 3)."""
    draws = _draws(nets, rng)
    fake, _ = _fakes(nets, params, state, batch, draws)  # the generator's own statistics move in its own phase
    fake = jax.lax.stop_gradient(fake)
    real = _reals(batch, draws, flip)
    judge = partial(_judge, nets, augmentation, params)
    real_logits, variables = judge(state.variables["discriminator"], real, state, batch, draws, REAL)
    fake_logits, variables = judge(variables, fake, state, batch, draws, FAKE)
    loss, metrics = _verdict(game, real_logits, fake_logits)
    if penalty is not None:
        value, more = penalty(params, state, batch, draws, weights=weights, real=real, fake=fake)
        loss, metrics = loss + value, metrics | more
    return loss, _out(augmentation, state, real_logits, batch_size, metrics, variables)


def _joint_discriminator_loss(params, state, batch, rng, *, nets, game, decay, flip, augmentation, batch_size, weights):
    """Loss, R1 and R2 from one pass over real and fake images together, for a discriminator that sees each alone."""
    draws = _draws(nets, rng)
    fake, _ = _fakes(nets, params, state, batch, draws)
    real = _reals(batch, draws, flip)
    variables = state.variables["discriminator"]

    def logits(x):
        return _judge(nets, augmentation, params, variables, x, state, batch, draws, REAL, FAKE)[0]

    weights = _decayed(weights, state.images, **decay)
    values, both = penalties.r1_and_r2(logits, real, jax.lax.stop_gradient(fake), **weights)
    loss, metrics = _verdict(game, *both)
    metrics |= {name: value.mean() for name, value in zip(("r1", "r2"), values, strict=True)}
    loss = loss + metrics["r1"] + metrics["r2"]
    return loss, _out(augmentation, state, both[0], batch_size, metrics, variables)


def _verdict(game, real_logits, fake_logits) -> tuple[jax.Array, dict]:
    terms = {f"loss_{name}": value.mean() for name, value in game.discriminator(real_logits, fake_logits).items()}
    return sum(terms.values()), {**terms, "real_logit": real_logits.mean(), "fake_logit": fake_logits.mean()}


def _out(augmentation, state, real_logits, batch_size, metrics, variables) -> Out:
    if type(augmentation) is not augment.Augmentation:
        metrics = metrics | {"augment_p": augmentation.strength(state.memory, state.images)}
    memory = augmentation.observe(state.memory, real_logits, batch_size)
    return Out(metrics, {"discriminator": variables}, memory)


def _generator_loss(params, state, batch, rng, *, nets, game, flip, augmentation):
    draws = _draws(nets, rng)
    fake, own = _fakes(nets, params, state, batch, draws)
    judge = partial(_judge, nets, augmentation, params)
    variables, real_logits = state.variables["discriminator"], None
    if game.needs_real:
        real_logits, variables = judge(variables, _reals(batch, draws, flip), state, batch, draws, REAL)
    fake_logits, variables = judge(variables, fake, state, batch, draws, FAKE)
    loss = game.generator(real_logits, fake_logits).mean()
    return loss, Out({"fake_logit": fake_logits.mean()}, {"generator": own, "discriminator": variables})


def _lazy_penalty(params, state, batch, rng, *, nets, penalty, every, flip, augmentation, weights):
    """The penalty alone, `every` times as strong because it is played that much more seldom (StyleGAN2, appendix B)."""
    draws = _draws(nets, rng)
    real = _reals(batch, draws, flip)
    fake, _ = _fakes(nets, params, state, batch, draws)
    fake = jax.lax.stop_gradient(fake)
    value, metrics = penalty(params, state, batch, draws, weights=weights, real=real, fake=fake)
    return value * every, Out(metrics, {})


def _range(real: jax.Array) -> dict[str, float]:
    """Where DRAGAN's perturbed samples are clipped: images to [-1, 1], points nowhere."""
    return {} if real.ndim == 4 else {"low": -jnp.inf, "high": jnp.inf}


def _decayed(weights: dict, images: jax.Array, *, end: float, length: float) -> dict:
    """Weights of penalties after so many images."""
    factor = optim.cosine(images, 1.0, end, length) if length else 1.0
    return {name: value * factor for name, value in weights.items()}


def _penalty(params, state, batch, draws, *, nets, weights, decay, flip, augmentation, real, fake):
    """(weighted sum of the penalties asked for, each of them by name), with respect to the images not yet augmented.

    Generated images are augmented with their own keys, as in the loss; what lies near reals or on the way from
    them to generated ones with those of the reals.
    """
    weights = _decayed(weights, state.images, **decay)

    def logits(x, side=REAL):
        return _judge(nets, augmentation, params, state.variables["discriminator"], x, state, batch, draws, side)[0]

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
