"""Creative adversarial networks: images like those of the data, and of none of their styles.

CAN (Elgammal et al. 2017, arXiv 1706.07068). One head of the discriminator tells reals from fakes, another tells the
styles of reals, which are their classes. The generator sees no labels: it is to be taken for real, and to leave the
second head undecided. Phases: `discriminator`, then `generator`, both at every step.
"""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax import augment, losses, specs
from gan_jax import config as configs
from gan_jax.errors import UserError
from gan_jax.games import players
from gan_jax.games.players import EMA_NETS, NETS, InTraining, constructors, latents
from gan_jax.games.unconditional import decode, sample
from gan_jax.layers import random
from gan_jax.step import Out, Phase, Rng, State

__all__ = ["EMA_NETS", "NETS", "constructors", "decode", "latents", "sample"]

# The keys that this game adds to a config, with their defaults.
DEFAULTS = {
    "augment": players.DEFAULTS["augment"],
    "loss": {
        "name": "non_saturating",  # see `losses.NAMES`: of the head that tells reals from fakes
        "options": {},  # of that loss
        "ambiguity": 1.0,  # weight of the term that keeps the style undecided; 0: a plain GAN beside a classifier
        "ambiguity_form": "categorical",  # or `binary`, as in the paper's equation, see `ambiguity`
    },
}
NEEDS = {"generator": ("latent_size", "latent"), "discriminator": ("heads", "num_classes")}
EVERY_CLASS = True  # its discriminator would learn that a style without images is never right
FORMS = ("categorical", "binary")

LATENT, FLIP, AUGMENT_REAL, AUGMENT_FAKE = range(4)  # independent draws of one phase


class Rules(NamedTuple):
    """What the losses need beside their arguments."""

    nets: dict[str, nn.Module]
    game: losses.Adversarial
    augmentation: augment.Augmentation
    flip: bool
    batch_size: int  # over all devices
    form: str  # of the ambiguity


def reads(config) -> tuple[str, ...]:
    """Images and their styles."""
    return "image", "label"


def asks(config) -> tuple[str, ...]:
    """Nothing: the generator draws by itself."""
    return ()


def nets(config, spec: specs.Spec) -> dict[str, nn.Module]:
    """Both players for images of `spec`; the discriminator alone knows of the classes.

    Raises:
      UserError: as `players.build`, or a discriminator without a head for classes.
    """
    generator = players.build(config, {"image": spec["image"]})["generator"]
    discriminator = players.build(config, spec)["discriminator"]
    if discriminator.heads is None:
        raise UserError(f"the game 'creative' needs a discriminator with a head for classes, and "
                        f"{config.discriminator.name!r} has none; take can")
    return {"generator": generator, "discriminator": discriminator}


def init(config, nets: dict, spec: specs.Spec, key: jax.Array) -> tuple[dict, dict, Any]:
    """Fresh parameters and variables of both nets, and the memory of an adaptive augmentation."""
    return *players.init(nets, spec, key), augment.build(config.augment).init()


def phases(config, nets: dict) -> tuple[Phase, ...]:
    """The table of moves for `config.loss`.

    Raises:
      UserError: an unknown loss or form, a loss whose generator looks at reals, or a weight below 0.
    """
    configs.check_range(config, "0 or more", "loss.ambiguity")
    loss = config.loss
    if loss.ambiguity_form not in FORMS:
        raise UserError(f"config.loss.ambiguity_form={loss.ambiguity_form!r}: expected one of {', '.join(FORMS)}")
    game = losses.adversarial(loss.name, **loss.options.to_dict())
    if game.needs_real:
        raise UserError(f"config.loss.name={loss.name!r}: it compares fakes with reals, and the game 'creative' shows "
                        "its generator none; take non_saturating, or another")
    rules = Rules(nets, game, augment.build(config.augment), config.data.flip, config.batch_size, loss.ambiguity_form)
    weights = (("ambiguity", loss.ambiguity),) if loss.ambiguity else ()
    return (
        Phase("discriminator", partial(_discriminator_loss, rules=rules), ("discriminator",), "discriminator"),
        Phase("generator", partial(_generator_loss, rules=rules), ("generator",), "generator", weights=weights),
    )


def ambiguity(logits: jax.Array, form: str = "categorical") -> jax.Array:
    """How far from undecided a softmax over K styles is: least where all have the probability 1 / K.

    Args:
      logits: (B, K), K at least 2.
      form: `categorical`, the cross-entropy of the uniform distribution, -sum_k 1/K log p_k, at least log K; or
        `binary`, that of K questions, -sum_k [1/K log p_k + (1 - 1/K) log(1 - p_k)], the paper's equation 3.
    Returns:
      (B,), at least float32.
    """
    x = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    classes = x.shape[-1]
    total = jax.nn.logsumexp(x, axis=-1, keepdims=True)
    value = -(x - total).mean(-1)
    if form == "binary":  # 1 - p_k is the sum of the others: where p_k is nearly 1, log(1 - p_k) has no digits left
        others = jnp.where(jnp.eye(classes, dtype=bool), -jnp.inf, x[:, None, :])
        value = value - (1 - 1 / classes) * (jax.nn.logsumexp(others, axis=-1) - total).sum(-1)
    return value


def _begin(rules: Rules, params: dict, state: State, batch: dict, rng: Rng) -> tuple[InTraining, jax.Array, dict]:
    """(nets, fakes, draws): from this batch's own latents `z` where it carries them (parity tests do)."""
    net, both = rules.nets["generator"], InTraining(rules.nets, params, state)
    others = {FLIP: random.UNIFORM, AUGMENT_REAL: random.KEY, AUGMENT_FAKE: random.KEY}
    draws = random.draw(rng.samples, others | {LATENT: players.latent_draw(net)})
    return both, both.play("generator", batch.get("z", players.spread(net, draws[LATENT]))), draws


def _judge(rules: Rules, both: InTraining, state: State, images: jax.Array, keys: jax.Array):
    """Logits (B,) and class logits (B, K) of augmented images."""
    strength = rules.augmentation.strength(state.memory, state.images)
    return both.play("discriminator", rules.augmentation(images, keys, strength), method="heads")


def _discriminator_loss(params, state, batch, rng, *, rules: Rules):
    """Reals and fakes pass in two batches; styles are learned from reals alone."""
    both, fake, draws = _begin(rules, params, state, batch, rng)
    real = players.reals(batch, draws[FLIP], rules.flip)
    real_logits, styles = _judge(rules, both, state, real, draws[AUGMENT_REAL])
    fake_logits, _ = _judge(rules, both, state, jax.lax.stop_gradient(fake), draws[AUGMENT_FAKE])
    terms = {f"loss_{name}": x.mean() for name, x in rules.game.discriminator(real_logits, fake_logits).items()}
    terms["loss_style"] = players.class_loss(styles, batch["label"]).mean()
    metrics = {
        "style_accuracy": (styles.argmax(-1) == batch["label"]).mean(),
        "real_probability": jax.nn.sigmoid(real_logits).mean(),
        "fake_probability": jax.nn.sigmoid(fake_logits).mean(),  # the realism of the fakes
    }
    observed, memory = players.observed(rules, state, real_logits)
    variables = {"discriminator": both.variables["discriminator"]}  # the generator's move in its own phase
    return sum(terms.values()), Out(terms | metrics | observed, variables, memory)


def _generator_loss(params, state, batch, rng, *, rules: Rules, weights: dict | None = None):
    both, fake, draws = _begin(rules, params, state, batch, rng)
    logits, styles = _judge(rules, both, state, fake, draws[AUGMENT_FAKE])
    loss = rules.game.generator(None, logits).mean()
    terms = {"adversarial": loss, "ambiguity": ambiguity(styles, rules.form).mean()}
    if weights:
        loss = loss + weights["ambiguity"] * terms["ambiguity"]
    return loss, Out(terms, dict(both.variables))
