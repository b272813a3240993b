"""Unpaired translation from the domain a to b by contrast of patches (CUT: Park et al. 2020, arXiv 2007.15651).

One generator, one discriminator, and heads on maps of the generator's own encoder: a patch of the translation is to be
told from the other patches of its picture by what stood at its place before. Phases: `discriminator`, then `generator`
with the heads, judged by the discriminator that has just learned. The authors give the heads an Adam of their own; of
one rate it is the same as one Adam of both.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax import config as configs
from gan_jax import losses, models, parallel
from gan_jax.errors import UserError
from gan_jax.games import domains
from gan_jax.games.domains import reads
from gan_jax.games.players import EMA_NETS, NETS
from gan_jax.layers import pixels
from gan_jax.layers.random import uniform
from gan_jax.models.cut import Heads
from gan_jax.specs import Field
from gan_jax.step import Out, Phase, Rng, State

__all__ = ["EMA_NETS", "NETS", "reads"]

EMA_COPIED = ("batch_stats",)
SOURCE, TARGET = domains.DOMAINS
DEFAULTS = {
    "contrastive": {
        "layers": ("input", "down0", "down1", "block0", "block4"),  # of the generator's encoder, that heads look at
        "patches": 256,  # of each map, at most; drawn anew for each step, the same of all pictures of a batch
        "width": 256,  # of the heads
        "temperature": 0.07,  # that similarities are divided by
        "mirror": False,  # the generator sees half of the pictures mirrored, and is to do the same there (FastCUT)
        "jitter": 0,  # pixels by which images are enlarged, and cut at random to their size again
    },
    "loss": {
        "nce_a": 0.5,  # weight of the contrast of a translation with its source; 10 in FastCUT
        "nce_b": 0.5,  # and of what b's own pictures become with these; 0: no such term, as in FastCUT
    },
}
NEEDS = {"generator": ("translates", "encoder")}
WEIGHTS = ("nce_a", "nce_b")
OWN = -10.0  # similarity of a patch with itself among the negatives, which is to count for nothing
MIRROR, DROPOUT, PATCHES = range(domains.FREE, domains.FREE + 3)  # draws beside those of the domains
TRANSLATION, IDENTITY, QUERY, KEY = range(4)  # uses of the generator, two more for the contrast of b


class Rules(NamedTuple):
    """What the losses need beside their arguments."""

    nets: dict[str, nn.Module]
    reals: Callable[[dict, Rng], dict[str, jax.Array]]
    layers: tuple[str, ...]
    patches: int
    temperature: float
    mirror: bool


def asks(config) -> tuple[str, ...]:
    """A picture of the domain a."""
    return (SOURCE,)


def drawn(config) -> str:
    """The domain b."""
    return TARGET


def constructors(config) -> dict[str, type]:
    """Section -> the class whose fields are its schema."""
    return {net: models.classes(config[net].name)[net] for net in NETS}


def nets(config, spec: dict[str, Field]) -> dict[str, nn.Module]:
    """Generator, discriminator and heads, for pictures of `spec["a"]` and `spec["b"]`.

    Raises:
      UserError: domains that differ, as one encoder sees both; no such network, or no such layer of the generator.
    """
    shapes = domains.shapes(spec, "contrastive")
    if shapes[SOURCE] != shapes[TARGET]:
        raise UserError(f"the game 'contrastive' needs domains of as many channels, not {shapes[SOURCE]} and "
                        f"{shapes[TARGET]}; set config.data.parts.*.channels")
    table, common = constructors(config), {"axis_name": parallel.AXIS}
    common = {"generator": common | {"channels": shapes[TARGET][2]}, "discriminator": common}
    players = {net: configs.build(table[net], config[net], net, **common[net]) for net in NETS}
    layers, encoder = tuple(config.contrastive.layers), players["generator"].encoder
    if not layers or set(layers) - set(encoder):
        raise UserError(f"config.contrastive.layers={layers}: expected some of {', '.join(encoder)}")
    configs.check_range(config, "1 or more", "contrastive.patches", "contrastive.width")
    return players | {"heads": Heads(width=config.contrastive.width)}


def init(config, nets: dict, spec: dict[str, Field], key: jax.Array) -> tuple[dict, dict, None]:
    """Fresh parameters and collections of the three."""
    image, params, variables = jnp.zeros((1, *spec[SOURCE].shape)), {}, {}
    maps = jax.eval_shape(partial(_maps, nets["generator"], tuple(config.contrastive.layers)), key, image)
    maps = {name: jnp.zeros(one.shape) for name, one in maps.items()}
    for number, name in enumerate((*NETS, "heads")):
        options = ({"features": maps},) if name == "heads" else ({"x": image, "train": True},)
        collections = dict(nets[name].init(jax.random.fold_in(key, number), **options[0]))
        params[name] = collections.pop("params")
        variables[name] = collections
    return params, variables, None


def _maps(generator: nn.Module, layers: tuple[str, ...], key: jax.Array, image: jax.Array) -> dict[str, jax.Array]:
    return generator.init_with_output(key, image, train=True, layers=layers)[0]


def phases(config, nets: dict) -> tuple[Phase, ...]:
    """The table of moves. Raises UserError for a number out of range."""
    configs.check_range(config, "0 or more", "contrastive.jitter", *(f"loss.{name}" for name in WEIGHTS))
    if not config.contrastive.temperature > 0:
        raise UserError(f"config.contrastive.temperature={config.contrastive.temperature}: expected more than 0")
    own = config.contrastive
    rules = Rules(
        nets, partial(domains.pictures, flips=domains.flips(config), jitter=own.jitter), tuple(own.layers),
        own.patches, own.temperature, own.mirror,
    )  # fmt: skip
    weights = tuple((name, config.loss[name]) for name in WEIGHTS if config.loss[name])
    discriminator, generator = partial(_discriminator_loss, rules=rules), partial(_generator_loss, rules=rules)
    return (
        Phase("discriminator", discriminator, ("discriminator",), "discriminator"),
        Phase("generator", generator, ("generator", "heads"), "generator", draws="discriminator", weights=weights),
    )


def sample(nets: dict, ema: dict, keys: jax.Array, given: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """The given pictures (B, H, W, C) of a, translated."""
    return {TARGET: nets["generator"].apply(ema["generator"], pixels.normalise(given[SOURCE]), train=False)}


class _Pass:
    """One step's pictures, and the nets in training: a net's collections are those of before the step in every use.

    The generator's statistics are those of the translation alone, which is what it is sampled for.
    """

    def __init__(self, params, state: State, batch: dict, rng: Rng, rules: Rules):
        self.params, self.variables, self.rules, self.rng, self.batch = params, state.variables, rules, rng, batch
        self.reals = rules.reals(batch, rng)
        self.mirror = batch.get("mirror")  # draws (B,) that a batch may carry, as parity tests do
        if self.mirror is None and rules.mirror:
            self.mirror = uniform(domains.draw(rng.samples, MIRROR, 0), ())

    def play(self, net: str, x: jax.Array, variables: Any = None, **options) -> tuple[Any, dict]:
        """(what a net makes of x, its new collections)."""
        variables = self.variables[net] if variables is None else variables
        out, new = self.rules.nets[net].apply(
            {"params": self.params[net], **variables}, x, train=True, mutable=list(variables), **options
        )
        return out, dict(new)

    def translated(self, domain: str, use: int) -> tuple[jax.Array, dict]:
        """What the generator makes of a domain's pictures, mirrored where the draws say so, and its collections."""
        keys = domains.draw(self.rng.samples, DROPOUT, use)
        return self.play("generator", self.mirrored(self.reals[domain]), keys=keys)

    def mirrored(self, x: jax.Array) -> jax.Array:
        return pixels.random_flip(x, self.mirror) if self.rules.mirror else x

    def contrast(self, domain: str, output: jax.Array) -> jax.Array:
        """Mean over layers and patches of what tells places of the output from others, see `patch_nce`."""
        number = domains.DOMAINS.index(domain)
        keys = [domains.draw(self.rng.samples, DROPOUT, use + 2 * number) for use in (QUERY, KEY)]
        of_output, _ = self.play("generator", output, layers=self.rules.layers, keys=keys[0])
        of_source, _ = self.play("generator", self.reals[domain], layers=self.rules.layers, keys=keys[1])
        of_output = {layer: self.mirrored(x) for layer, x in of_output.items()}
        places = self._places(domain, {layer: x.shape[1] * x.shape[2] for layer, x in of_output.items()})
        heads = partial(self.rules.nets["heads"].apply, {"params": self.params["heads"]})
        queries, keys = heads(patches(of_output, places)), heads(patches(jax.lax.stop_gradient(of_source), places))
        each = [patch_nce(queries[layer], keys[layer], self.rules.temperature).mean() for layer in queries]
        return sum(each) / len(each)

    def _places(self, domain: str, sizes: dict[str, int]) -> dict[str, jax.Array]:
        """Places (n,) in each layer's map, all different; those of the batch's row 0 where it carries such."""
        if f"places_{domain}" in self.batch:
            return dict(zip(self.rules.layers, self.batch[f"places_{domain}"][0], strict=True))
        base, result = domains.DOMAINS.index(domain) * len(sizes), {}
        for number, (layer, size) in enumerate(sizes.items()):
            key = jax.random.fold_in(self.rng.key, PATCHES * domains.MOST + base + number)
            result[layer] = jax.lax.top_k(jax.random.uniform(key, (size,)), min(self.rules.patches, size))[1]
        return result


def patches(maps: dict[str, jax.Array], places: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Features (B, n, C) at places (n,) of maps (B, h, w, C), counted row by row."""
    return {layer: x.reshape(len(x), -1, x.shape[-1])[:, places[layer]] for layer, x in maps.items()}


def patch_nce(queries: jax.Array, keys: jax.Array, temperature: float) -> jax.Array:
    """(B, n), how badly each query finds the key of its own place among all of its picture (eq. 4 of the paper).

    Args:
      queries, keys: (B, n, C) of length 1, of the same places; no gradient passes through the keys.
      temperature: that inner products are divided by.
    """
    keys = jax.lax.stop_gradient(keys)
    positive = (queries * keys).sum(-1, keepdims=True)
    similarity = jnp.einsum("bnc,bmc->bnm", queries, keys)
    negatives = jnp.where(jnp.eye(keys.shape[1], dtype=bool), OWN, similarity)
    logits = jnp.concatenate([positive, negatives], -1) / temperature
    return jax.nn.logsumexp(logits, -1) - logits[..., 0]


def _discriminator_loss(params, state: State, batch, rng: Rng, *, rules: Rules):
    """Half of (D(y) - 1)^2 + D(G(x))^2, fakes first, as in the published program."""
    step = _Pass(params, state, batch, rng, rules)
    fake, _ = step.translated(SOURCE, TRANSLATION)
    fake_logits, variables = step.play("discriminator", jax.lax.stop_gradient(fake))
    real_logits, variables = step.play("discriminator", step.reals[TARGET], variables)
    terms = losses.adversarial("least_squares").discriminator(real_logits, fake_logits)
    metrics = {"real_logit": real_logits.mean(), "fake_logit": fake_logits.mean()}
    return sum(term.mean() for term in terms.values()), Out(metrics, {"discriminator": variables})


def _generator_loss(params, state: State, batch, rng: Rng, *, rules: Rules, weights: dict | None = None):
    """(D(G(x)) - 1)^2, and the contrasts of G(x) with x, and of G(y) with y."""
    step, weights = _Pass(params, state, batch, rng, rules), weights or {}
    fake, moved = step.translated(SOURCE, TRANSLATION)
    logits, of_discriminator = step.play("discriminator", fake)
    terms = {"adversarial": losses.adversarial("least_squares", scale=1.0).generator(None, logits).mean()}
    if "nce_a" in weights:
        terms["nce_a"] = step.contrast(SOURCE, fake)
    if "nce_b" in weights:
        terms["nce_b"] = step.contrast(TARGET, step.translated(TARGET, IDENTITY)[0])
    loss = terms["adversarial"] + sum(weight * terms[name] for name, weight in weights.items())
    return loss, Out(terms, {"generator": moved, "discriminator": of_discriminator})
