"""Paired translation: each example is a picture and what it is to become (pix2pix: Isola et al. 2017, 1611.07004).

A generator, and a discriminator that sees the source beside the picture. Phases: `discriminator`, then `generator`,
which is judged by the discriminator that has just learned, and pulled towards the right picture by an L1 term.
"""

import math
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gan_jax import config as configs
from gan_jax import losses, metrics, models, parallel
from gan_jax.errors import UserError
from gan_jax.games.players import EMA_NETS, NETS
from gan_jax.layers import pixels, random
from gan_jax.specs import Field
from gan_jax.step import Out, Phase, Rng, State

__all__ = ["EMA_NETS", "NETS"]

EMA_COPIED = ("batch_stats",)
SOURCE, TARGET = "source", "image"
DEFAULTS = {
    "paired": {"jitter": 0},  # pixels by which both pictures are enlarged, and cut at random to their size again
    "loss": {
        "name": "non_saturating",  # or least_squares, or another of `losses.NAMES`
        "options": {},  # of that loss
        "l1": 100.0,  # weight of |G(source) - image|
        "discriminator": 0.5,  # factor of the discriminator's loss, which slows it down
    },
}
NEEDS = {"generator": ("translates",)}
LARGEST_LINEAR, MOST_FITTED = 1 << 10, 10_000  # of the linear baseline: values of a source, pairs
FLIP, JITTER, DROPOUT, JUDGE = range(4)  # independent draws, those of a sample the same in both phases
DRAWS = {FLIP: random.UNIFORM, JITTER: random.Draw("uniform", (2,)), DROPOUT: random.KEY, JUDGE: random.KEY}


class Rules(NamedTuple):
    """What the losses need beside their arguments."""

    nets: dict[str, nn.Module]
    game: losses.Adversarial
    flip: bool
    jitter: int


def reads(config) -> tuple[str, ...]:
    """The pictures of a pair."""
    return SOURCE, TARGET


def asks(config) -> tuple[str, ...]:
    """A source."""
    return (SOURCE,)


def target(config) -> str:
    """The other picture of the pair."""
    return TARGET


def baselines(config, train) -> dict:
    """The source as it is, and the best linear map of all its pixels where the pictures are small."""
    table, (source, image) = {}, (train.spec[name].shape for name in (SOURCE, TARGET))
    if source == image:
        table["copy"] = lambda given: given[SOURCE]
    if train.size and math.prod(source) <= LARGEST_LINEAR:
        pairs = train.examples(np.arange(min(train.size, MOST_FITTED)))
        ridge = metrics.ridge_regression(pairs[SOURCE], pairs[TARGET])
        table["ridge"] = lambda given: ridge.predict(given[SOURCE])
    return table


def constructors(config) -> dict[str, type]:
    """Section -> the class whose fields are its schema."""
    return {net: models.classes(config[net].name)[net] for net in NETS}


def nets(config, spec: dict[str, Field]) -> dict[str, nn.Module]:
    """Generator and discriminator for pairs of `spec`.

    Raises:
      UserError: independent sets, fields that are no images of one size, or an unknown network or option.
    """
    if "parts" in config.data:
        raise UserError("the game 'paired' needs pairs, and config.data.parts are independent sets: give one set of "
                        "pairs, such as a folder with config.data.pair; or take the game 'translation'")
    source, image = spec[SOURCE], spec[TARGET]
    if {source.kind, image.kind} != {"image"} or source.shape[:2] != image.shape[:2]:
        raise UserError(f"the game 'paired' needs images of one size, not {source.shape} and {image.shape}")
    table, common = constructors(config), {"axis_name": parallel.AXIS}
    common = {"generator": common | {"channels": image.shape[2]}, "discriminator": common}
    return {net: configs.build(table[net], config[net], net, **common[net]) for net in NETS}


def init(config, nets: dict, spec: dict[str, Field], key: jax.Array) -> tuple[dict, dict, None]:
    """Fresh parameters and collections of both."""
    params, variables = {}, {}
    source, image = (jnp.zeros((1, *spec[name].shape)) for name in (SOURCE, TARGET))
    for number, (name, x) in enumerate((("generator", source), ("discriminator", _stacked(source, image)))):
        collections = dict(nets[name].init(jax.random.fold_in(key, number), x, train=True))
        params[name] = collections.pop("params")
        variables[name] = collections
    return params, variables, None


def phases(config, nets: dict) -> tuple[Phase, ...]:
    """The table of moves for `config.loss`. Raises UserError for an unknown loss, or a number out of range."""
    configs.check_range(config, "0 or more", "loss.l1", "loss.discriminator", "paired.jitter")
    loss, options = config.loss, config.loss.options.to_dict()
    if loss.name == "least_squares":
        options = {"scale": 1.0} | options  # the factor is `loss.discriminator`, and the generator's is 1
    rules = Rules(nets, losses.adversarial(loss.name, **options), config.data.flip, config.paired.jitter)
    table = []
    for player, play, name in (
        ("discriminator", _discriminator_loss, "discriminator"), ("generator", _generator_loss, "l1")
    ):  # fmt: skip
        weights = ((name, loss[name]),) if loss[name] else ()
        play = partial(play, rules=rules)
        table.append(Phase(player, play, (player,), player, draws="discriminator", weights=weights))
    return tuple(table)


def sample(nets: dict, ema: dict, keys: jax.Array, given: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """What the given sources (B, H, W, C) become; the noise of the dropout is that of their keys."""
    keys = random.draw(keys, {DROPOUT: random.KEY})[DROPOUT]
    return {TARGET: nets["generator"].apply(ema["generator"], pixels.normalise(given[SOURCE]), train=False, keys=keys)}


def _stacked(source: jax.Array, image: jax.Array) -> jax.Array:
    return jnp.concatenate([source, image], axis=-1)


def _pair(rules: Rules, batch: dict, draws: dict) -> tuple[jax.Array, jax.Array]:
    """Source and picture in [-1, 1], moved and mirrored alike."""
    both, channels = _stacked(*(pixels.normalise(batch[name]) for name in (SOURCE, TARGET))), batch[SOURCE].shape[-1]
    if rules.jitter:
        both = pixels.jittered(both, jnp.floor(draws[JITTER] * (rules.jitter + 1)), rules.jitter)
    if rules.flip:
        both = pixels.random_flip(both, draws[FLIP])
    return both[..., :channels], both[..., channels:]


def _play(net: nn.Module, params, variables, x, keys) -> tuple[jax.Array, dict]:
    """Applies a net in training mode: (output, its new collections)."""
    out, new = net.apply({"params": params, **variables}, x, train=True, keys=keys, mutable=list(variables))
    return out, dict(new)


def _begin(params, state: State, batch, rng: Rng, rules: Rules):
    """(source, image, fake, the generator's new collections, the discriminator as (collections, pictures) -> ...)."""
    draws = random.draw(rng.samples, DRAWS)
    source, image = _pair(rules, batch, draws)
    fake, moved = _play(
        rules.nets["generator"], params["generator"], state.variables["generator"], source, draws[DROPOUT]
    )

    def judge(variables, pictures):
        return _play(
            rules.nets["discriminator"], params["discriminator"], variables, _stacked(source, pictures), draws[JUDGE]
        )

    return image, fake, moved, judge


def _discriminator_loss(params, state, batch, rng, *, rules: Rules, weights: dict | None = None):
    """Fakes and reals pass in two batches; the generator's own statistics move in its own phase."""
    image, fake, _, judge = _begin(params, state, batch, rng, rules)
    fake_logits, variables = judge(state.variables["discriminator"], jax.lax.stop_gradient(fake))
    real_logits, variables = judge(variables, image)
    terms = {f"loss_{name}": value.mean() for name, value in rules.game.discriminator(real_logits, fake_logits).items()}
    loss = (weights or {}).get("discriminator", 0.0) * sum(terms.values())
    terms |= {"real_logit": real_logits.mean(), "fake_logit": fake_logits.mean()}
    return loss, Out(terms, {"discriminator": variables})


def _generator_loss(params, state, batch, rng, *, rules: Rules, weights: dict | None = None):
    """The adversarial term, and the L1 distance to the right picture."""
    image, fake, moved, judge = _begin(params, state, batch, rng, rules)
    fake_logits, variables = judge(state.variables["discriminator"], fake)
    real_logits = None
    if rules.game.needs_real:
        real_logits, variables = judge(variables, image)
    terms = {"adversarial": rules.game.generator(real_logits, fake_logits).mean(), "l1": jnp.abs(fake - image).mean()}
    loss = terms["adversarial"]
    if weights:
        loss = loss + weights["l1"] * terms["l1"]
    return loss, Out(terms, {"generator": moved, "discriminator": variables})
