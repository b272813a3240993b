"""Unpaired translation between two domains, a and b (CycleGAN: Zhu et al. 2017, arXiv 1703.10593).

Two generators and two discriminators. Phases: `generators`, both under one optimizer; `discriminators`, likewise, on
the fakes that the generators have just been judged by, exchanged with earlier ones.
"""

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax import config as configs
from gan_jax import losses, models, parallel
from gan_jax.errors import UserError
from gan_jax.games import domains
from gan_jax.games.domains import DOMAINS, reads
from gan_jax.layers import pixels
from gan_jax.specs import Field
from gan_jax.step import Out, Phase, Rng, State

__all__ = ["reads"]

NETS = ("generator", "discriminator")  # sections: both generators are built alike, and both discriminators
EMA_NETS = ("generator_ab", "generator_ba")
EMA_COPIED = ("batch_stats",)
DEFAULTS = {
    "translation": {
        "direction": "ab",  # of samples: ab, from the domain a to b, or ba
        "jitter": 0,  # pixels by which images are enlarged, and cut at random to their size again
    },
    "loss": {
        "cycle_a": 10.0,  # weight of |F(G(a)) - a|
        "cycle_b": 10.0,  # and of |G(F(b)) - b|
        "identity": 0.5,  # weight of |F(a) - a| and |G(b) - b|, as a share of the cycles' weights; 0: no such term
        "pool": 50,  # earlier fakes that a discriminator may see again; 0: none
    },
}
NEEDS = {"generator_ab": ("translates",), "generator_ba": ("translates",)}
SAMPLE_KEYS = {"direction": "translation.direction"}
WEIGHTS = ("cycle_a", "cycle_b", "identity")

POOL, DROPOUT = range(domains.FREE, domains.FREE + 2)  # draws beside those of the domains


class Pool(NamedTuple):
    """Earlier fakes of one domain, and what the discriminator is to see of them and of the newest ones."""

    images: jax.Array  # (size, H, W, C)
    filled: jax.Array  # int32, how many of them are images
    shown: jax.Array  # (batch, H, W, C)


def asks(config) -> tuple[str, ...]:
    """A picture of the domain that is translated."""
    return (config.translation.direction[:1],)


def drawn(config) -> str:
    """The domain into which is translated."""
    return config.translation.direction[1:]


def returns(config) -> tuple[str, ...]:
    """The domain that is translated: the second array is the way back to it."""
    return asks(config)


def constructors(config) -> dict[str, type]:
    """Section -> the class whose fields are its schema."""
    return {net: models.classes(config[net].name)[net] for net in NETS}


def nets(config, spec: dict[str, Field]) -> dict[str, nn.Module]:
    """Both generators and both discriminators, for pictures of `spec["a"]` and `spec["b"]`.

    Raises:
      UserError: no such direction or network, or domains that differ where the identity term compares them.
    """
    if config.translation.direction not in ("ab", "ba"):
        raise UserError(f"config.translation.direction={config.translation.direction!r}: expected ab or ba")
    shapes = domains.shapes(spec, "translation")
    if config.loss.identity and shapes["a"] != shapes["b"]:
        raise UserError(
            f"config.loss.identity={config.loss.identity}: compares images of {shapes['a']} with those of "
            f"{shapes['b']}; set it to 0, or give both domains as many channels"
        )
    table = constructors(config)
    players = {}
    for domain, other in ("ab", "ba"):
        players[f"generator_{domain}{other}"] = configs.build(
            table["generator"], config.generator, "generator", channels=shapes[other][2], axis_name=parallel.AXIS
        )
    for domain in DOMAINS:
        players[f"discriminator_{domain}"] = configs.build(
            table["discriminator"], config.discriminator, "discriminator", axis_name=parallel.AXIS
        )
    return players


def init(config, nets: dict, spec: dict[str, Field], key: jax.Array) -> tuple[dict, dict, dict[str, Pool]]:
    """Fresh parameters and collections of the four, and an empty pool for each domain."""
    params, variables, images = {}, {}, {d: jnp.zeros((1, *spec[d].shape)) for d in DOMAINS}
    for number, (name, net) in enumerate(nets.items()):
        domain = name.partition("_")[2][0]  # that it looks at
        collections = dict(net.init(jax.random.fold_in(key, number), images[domain], train=True))
        params[name] = collections.pop("params")
        variables[name] = collections
    return params, variables, {d: _empty(config.loss.pool, config.batch_size, spec[d].shape) for d in DOMAINS}


def _empty(size: int, batch_size: int, shape: tuple[int, ...]) -> Pool:
    return Pool(jnp.zeros((size, *shape)), jnp.int32(0), jnp.zeros((batch_size, *shape)))


def phases(config, nets: dict) -> tuple[Phase, ...]:
    """The table of moves for `config.loss`. Raises UserError for a number out of range, or micro-batches."""
    configs.check_range(config, "0 or more", *(f"loss.{name}" for name in (*WEIGHTS, "pool")))
    if config.accumulate != 1:
        raise UserError(f"config.accumulate={config.accumulate}: the game 'translation' shows its discriminators what "
                        "its generators have made of the whole batch; expected 1")
    weights = tuple((name, config.loss[name]) for name in WEIGHTS if config.loss[name])
    configs.check_range(config, "0 or more", "translation.jitter")
    pictures = partial(domains.pictures, flips=domains.flips(config), jitter=config.translation.jitter)
    common = dict(nets=nets, reals=pictures)
    of_generators = partial(_generators_loss, **common, weights=dict(weights))
    of_discriminators = partial(_discriminators_loss, **common)
    generators, discriminators = EMA_NETS, tuple(f"discriminator_{domain}" for domain in DOMAINS)
    return (
        Phase("generators", of_generators, generators, "generators", weights=weights),
        Phase("discriminators", of_discriminators, discriminators, "discriminators", draws="generators"),
    )


def sample(nets: dict, ema: dict, keys: jax.Array, given: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """The given pictures (B, H, W, C) of one domain translated into the other, and back again."""
    ((source, images),) = given.items()
    (target,) = set(DOMAINS) - {source}
    there = _translate(nets, ema, source, target, pixels.normalise(images))
    return {target: there, f"{source}_again": _translate(nets, ema, target, source, there)}


def _translate(nets: dict, ema: dict, source: str, target: str, images: jax.Array) -> jax.Array:
    name = f"generator_{source}{target}"
    return nets[name].apply(ema[name], images, train=False)


class _Players:
    """The nets in training, whose collections pass from one use to the next."""

    def __init__(self, nets: dict, params: dict, state: State, rng: Rng):
        self.nets, self.params, self.variables = nets, params, dict(state.variables)
        self.keys, self.uses = rng.samples, 0

    def __call__(self, name: str, images: jax.Array) -> jax.Array:
        own, self.uses = self.variables.get(name, {}), self.uses + 1
        out, new = self.nets[name].apply(
            {"params": self.params[name], **own}, images, train=True, mutable=list(own),
            keys=domains.draw(self.keys, DROPOUT, self.uses),
        )  # fmt: skip
        self.variables[name] = dict(new)
        return out


def _generators_loss(params, state: State, batch, rng: Rng, *, nets, reals, weights):
    """Eq. 3 of the paper with least squares, and the identity term of its section 5.2."""
    reals, play = reals(batch, rng), _Players(nets, params, state, rng)
    game = losses.adversarial("least_squares", scale=1.0)  # (D(G(x)) - 1)^2
    fakes, terms = {}, {}
    for domain, other in ("ab", "ba"):  # the order in which the published program's running statistics see them
        fakes[other] = play(f"generator_{domain}{other}", reals[domain])
        again = play(f"generator_{other}{domain}", fakes[other])
        terms[f"cycle_{domain}"] = jnp.abs(again - reals[domain]).mean()
    loss = sum(weights[name] * terms[name] for name in terms if name in weights)
    if "identity" in weights:
        for domain, other in ("ab", "ba"):
            same = play(f"generator_{other}{domain}", reals[domain])
            terms[f"identity_{domain}"] = jnp.abs(same - reals[domain]).mean()
            share = weights["identity"] * weights.get(f"cycle_{domain}", 0.0)
            loss = loss + share * terms[f"identity_{domain}"]
    for domain in DOMAINS:
        logits = play(f"discriminator_{domain}", fakes[domain])
        terms[f"adversarial_{domain}"] = game.generator(None, logits).mean()
        loss = loss + terms[f"adversarial_{domain}"]
    return loss, Out(terms, play.variables, _shown(state.memory, fakes, rng))


def _shown(pools: dict[str, Pool], fakes: dict[str, jax.Array], rng: Rng) -> dict[str, Pool]:
    """The pools after the fakes of all devices, in the order of the batch; equal on all of them."""
    result = {}
    for number, domain in enumerate(DOMAINS):
        images = parallel.gather(jax.lax.stop_gradient(fakes[domain]))
        key = jax.random.fold_in(rng.key, POOL * domains.MOST + number)
        size = max(pools[domain].images.shape[0], 1)
        uniform = jax.random.uniform(jax.random.fold_in(key, 0), (len(images),))
        slots = jax.random.randint(jax.random.fold_in(key, 1), (len(images),), 0, size)
        result[domain] = query(pools[domain], images, uniform, slots)
    return result


def query(pool: Pool, images: jax.Array, uniform: jax.Array, slots: jax.Array) -> Pool:
    """The image pool of Shrivastava et al. 2017 (arXiv 1612.07828), as CycleGAN uses it.

    While the pool fills up, an image is stored and shown. Then, where its draw is above one half, it takes the place of
    a stored one, which is shown; otherwise it is shown itself.

    Args:
      pool: images of shape (size, ...).
      images: (B, ...), taken one after another.
      uniform: (B,) draws in [0, 1).
      slots: int (B,), the place to swap with.
    Returns:
      The pool after all of them; its `shown` are (B, ...).
    """
    size = pool.images.shape[0]
    if size == 0:
        return pool._replace(shown=images)

    def one(carry, drawn):
        stored, filled = carry
        image, u, slot = drawn
        filling = filled < size
        swap = ~filling & (u > 0.5)
        place = jnp.where(filling, filled, slot)
        earlier = stored[place]
        stored = stored.at[place].set(jnp.where(filling | swap, image, earlier))
        return (stored, filled + filling), jnp.where(swap, earlier, image)

    (stored, filled), shown = jax.lax.scan(one, (pool.images, pool.filled), (images, uniform, slots))
    return Pool(stored, filled, shown)


def _discriminators_loss(params, state: State, batch, rng: Rng, *, nets, reals):
    """Half of ((D(x) - 1)^2 + D(y)^2) of each domain, y from its pool."""
    reals, play = reals(batch, rng), _Players(nets, params, state, rng)
    game, loss, metrics = losses.adversarial("least_squares"), 0.0, {}
    for domain in DOMAINS:
        name, real = f"discriminator_{domain}", reals[domain]
        fake = state.memory[domain].shown[parallel.sample_index(len(real))]
        real_logits, fake_logits = play(name, real), play(name, fake)
        metrics[f"real_logit_{domain}"], metrics[f"fake_logit_{domain}"] = real_logits.mean(), fake_logits.mean()
        loss = loss + sum(term.mean() for term in game.discriminator(real_logits, fake_logits).values())
    return loss, Out(metrics, {name: play.variables[name] for name in play.nets if name.startswith("disc")})
