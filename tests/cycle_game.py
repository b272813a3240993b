"""A CycleGAN-shaped game of tiny networks (Zhu et al. 2017, arXiv 1703.10593) for gan_jax's own loop.

It is a game module as `gan_jax.games` describes them, and an experiment file at once. Its two domains come
from one data set: A holds the images, B other images of the same batch, inverted and moved by one pixel.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from gan_jax import config as configs
from gan_jax import losses, parallel
from gan_jax.games.translation import Pool, query
from gan_jax.layers import pixels, random
from gan_jax.layers.linear import Conv
from gan_jax.step import Out, Phase

NETS = ("generator", "discriminator")
EMA_NETS = ("generator_ab", "generator_ba")
DEFAULTS = {"loss": {"cycle": 10.0, "identity": 5.0, "pool": 6}}


def get_config(variant: str = "") -> ConfigDict:
    """Sixty steps of eight images of 8x8 pixels."""
    sgd = {"name": "sgd", "learning_rate": 0.02}
    return ConfigDict(
        {
            "game": "cycle",
            "total_images": 480,
            "batch_size": 8,
            "grid": 4,
            "data": {"name": "synthetic:40", "resolution": 8, "channels": 1},
            "generator": {"name": "tiny", "width": 8},
            "discriminator": {"name": "tiny", "width": 4},
            "optim": {"generators": sgd, "discriminator_a": sgd, "discriminator_b": sgd},
            "ema": {"half_life_images": 40.0},
            "every": {"log_images": 8, "sample_images": 10**6, "checkpoint_images": 10**6},
        }
    )


class Generator(nn.Module):
    """(B, H, W, C) -> (B, H, W, C) in [-1, 1]; two 3x3 convolutions."""

    channels: int
    width: int = 8

    @nn.compact
    def __call__(self, x):
        x = nn.leaky_relu(Conv(self.width, 3)(x), 0.2)
        return jnp.tanh(Conv(self.channels, 3)(x))


class Discriminator(nn.Module):
    """(B, H, W, C) -> (B, H / 2, W / 2, 1), logits of patches."""

    width: int = 4

    @nn.compact
    def __call__(self, x):
        return Conv(1, 3)(nn.leaky_relu(Conv(self.width, 3, stride=2)(x), 0.2))


def reads(config) -> tuple[str, ...]:
    """The images, of which it makes both domains."""
    return ("image",)


def asks(config) -> tuple[str, ...]:
    """Nothing."""
    return ()


def constructors(config) -> dict[str, type]:
    """Both generators are of one section, both discriminators of the other."""
    return {"generator": Generator, "discriminator": Discriminator}


def nets(config, spec) -> dict[str, nn.Module]:
    """Two generators and two discriminators, for images of `spec["image"].shape`."""
    generator = configs.build(Generator, config.generator, "generator", channels=spec["image"].shape[-1])
    discriminator = configs.build(Discriminator, config.discriminator, "discriminator")
    return dict(generator_ab=generator, generator_ba=generator,
                discriminator_a=discriminator, discriminator_b=discriminator)  # fmt: skip


def init(config, nets, spec, key):
    """Parameters of the four, and an empty pool for each discriminator."""
    image = jnp.zeros((1, *spec["image"].shape))
    keys = jax.random.split(key, len(nets))
    params = {name: net.init(k, image)["params"] for (name, net), k in zip(nets.items(), keys, strict=True)}
    sizes = (config.loss.pool, config.batch_size // config.accumulate)
    stored, shown = (jnp.zeros((size, *spec["image"].shape)) for size in sizes)
    return params, {}, {domain: Pool(stored, jnp.int32(0), shown) for domain in "ab"}


def phases(config, nets) -> tuple[Phase, ...]:
    """Both generators under one optimizer, then each discriminator."""
    loss = partial(_generators_loss, nets=nets, cycle=config.loss.cycle, identity=config.loss.identity)
    table = [Phase("generators", loss, ("generator_ab", "generator_ba"), "generators")]
    for domain in "ab":
        name = f"discriminator_{domain}"
        table.append(Phase(name, partial(_discriminator_loss, nets=nets, domain=domain), (name,), name))
    return tuple(table)


def sample(nets, ema, keys, given):
    """Noise of domain A, translated to B."""
    noise = random.uniform(keys, (8, 8, 1), minval=-1.0, maxval=1.0)
    return {"image": nets["generator_ab"].apply(ema["generator_ab"], noise)}


def domains(batch) -> dict[str, jax.Array]:
    """The images of both domains for this device's rows; B is made of each row's follower in the batch."""
    a = pixels.normalise(batch["image"])
    follower = jnp.roll(parallel.gather(a), -1, axis=0)[parallel.sample_index(len(a))]
    return {"a": a, "b": jnp.roll(-follower, 1, axis=2)}


def _generators_loss(params, state, batch, rng, *, nets, cycle, identity):
    """Zhu et al. 2017, eq. 3, with least squares and the identity term of section 5.2."""
    real = domains(batch)
    game = losses.adversarial("least_squares", scale=1.0)
    terms = {"adversarial": 0.0, "cycle": 0.0, "identity": 0.0}
    for source, target in ("ab", "ba"):
        names = (f"generator_{source}{target}", f"generator_{target}{source}", f"discriminator_{target}")
        there, back, judge = (partial(nets[name].apply, {"params": params[name]}) for name in names)
        fake = there(real[source])
        terms["adversarial"] += game.generator(None, judge(fake)).mean()
        terms["cycle"] += jnp.abs(back(fake) - real[source]).mean()
        terms["identity"] += jnp.abs(there(real[target]) - real[target]).mean()
    loss = terms["adversarial"] + cycle * terms["cycle"] + identity * terms["identity"]
    return loss, Out(terms, {})


def _discriminator_loss(params, state, batch, rng, *, nets, domain):
    """Half of the least-squares loss, on fakes from the pool, which sees those of all devices in order."""
    real, source = domains(batch), "ab".replace(domain, "")
    name = f"generator_{source}{domain}"
    fake = jax.lax.stop_gradient(nets[name].apply({"params": params[name]}, real[source]))
    every = parallel.gather(fake)
    size = max(state.memory[domain].images.shape[0], 1)
    uniform = jax.random.uniform(jax.random.fold_in(rng.key, 0), (len(every),))
    slots = jax.random.randint(jax.random.fold_in(rng.key, 1), (len(every),), 0, size)
    pool = query(state.memory[domain], every, uniform, slots)
    fake = pool.shown[parallel.sample_index(len(fake))]
    logits = partial(nets[f"discriminator_{domain}"].apply, {"params": params[f"discriminator_{domain}"]})
    terms = losses.adversarial("least_squares").discriminator(logits(real[domain]), logits(fake))
    loss = sum(term.mean() for term in terms.values())
    return loss, Out({"fake_logit": logits(fake).mean()}, {}, {**state.memory, domain: pool})
