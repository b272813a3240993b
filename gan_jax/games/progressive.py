"""Progressive growing (Karras et al. 2018, arXiv 1710.10196; Karras et al. 2019, arXiv 1812.04948).

The players start at a low resolution. Each further one fades in over `growth.transition_images` images while lod, the
level of detail, falls by one, and is trained for `growth.training_images` more. Real images are faded likewise. The
level of a stage is static; lod is a function of the images seen. Optimizers start afresh when a fade begins and when
it ends.

Its phases: `discriminator` and `generator`, one step each. Beside the generator's parameters the averaged net keeps
`growth`, the lod that it has reached, so that samples are drawn as the generator is, enlarged to the full resolution.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax import augment, losses, penalties
from gan_jax import config as configs
from gan_jax.errors import UserError
from gan_jax.games import Stage, players
from gan_jax.games.growth import first_level, level_of_detail, stages  # noqa: F401, `stages` is a part of a game
from gan_jax.games.players import (  # noqa: F401, parts of a game
    EMA_NETS,
    LATENT,
    NETS,
    asks,
    class_loss,
    constructors,
    latents,
    reads,
    truncate,
)
from gan_jax.layers import pixels, random
from gan_jax.layers.rescale import downscale, fade, upscale
from gan_jax.step import Out, Phase, Rng, State

EMA_COPIED = ("growth", "w_avg", "noise")

# The keys that this game adds to a config, with their defaults.
DEFAULTS = {
    **players.DEFAULTS,
    "loss": {
        "name": "wasserstein",  # see `losses.NAMES`
        "options": {},  # of that loss
        "gradient_penalty": 10.0,  # lambda of WGAN-GP
        "gradient_target": 1.0,  # norm that the gradient should have; the penalty is divided by its square
        "drift": 1e-3,  # weight of D(x)^2 at real images
        "r1_gamma": 0.0,
        "r2_gamma": 0.0,
        "class_weight": 1.0,  # of the cross-entropy of class logits, where the discriminator has such (AC-GAN)
        "style_mixing": 0.9,  # share of batches whose later layers have other latents' styles, where there are styles
    },
    "growth": {
        "initial_resolution": 4,  # shorter side at which the run starts
        "training_images": 600_000,  # images at each resolution, once it is faded in
        "transition_images": 600_000,  # images over which a resolution is faded in; 0: at once
        "batch_sizes": (),  # (shorter side, batch size) pairs; `batch_size` elsewhere
        "learning_rates": (),  # (shorter side, factor of the learning rates) pairs; 1 elsewhere
        "device_batch_limits": (),  # (shorter side, largest batch on one of `devices`) pairs
        "devices": 1,  # that the batch sizes are meant for; the run itself may have others
    },
}

WEIGHTS = ("gradient_penalty", "drift", "r1_gamma", "r2_gamma", "class_weight")

NEEDS = {
    "generator": ("levels", "latent_size", "num_classes", "resolution"),
    "discriminator": ("levels", "num_classes", "heads"),
}

# Independent draws of one phase beside `LATENT`, see `_draws`; of the batch `MIXED_LAYER` and `IS_MIXED`.
FLIP, PENALTY, NOISE, MIXED_LATENT, MIXED_LAYER, IS_MIXED, AUGMENT_REAL, AUGMENT_FAKE = range(LATENT + 1, 9)

View = Callable[[jax.Array], jax.Array]  # images -> what the discriminator sees of them


class Rules(NamedTuple):
    """What the losses of one stage share."""

    nets: dict[str, nn.Module]
    level: int  # of the stage
    first: int  # level at which the run starts
    growth: Any  # config.growth
    loss: Any  # config.loss
    flip: bool
    augmentation: augment.Augmentation
    batch_size: int  # over all devices
    weights: Mapping[str, Any] = {}  # numbers of the loss, traced ones, that stand for those of config.loss

    @property
    def mixes(self) -> bool:
        """Whether some layers have other latents' styles."""
        return hasattr(self.nets["generator"], "num_ws") and self.loss.style_mixing > 0

    def weight(self, name: str) -> Any:
        """The number of a term of the loss. Whether there is the term at all is for config.loss to say."""
        return self.weights.get(name, self.loss[name])


def nets(config, spec) -> dict[str, nn.Module]:
    """The two players for images of `spec`, see `players.build`."""
    return players.build(config, spec)


def init(config, nets: dict, spec, key: jax.Array) -> tuple[dict, dict, Any]:
    """Fresh parameters of all resolutions, and the memory of an adaptive augmentation."""
    params, variables = players.init(nets, spec, key)
    variables["generator"]["growth"] = {"lod": jnp.float32(first_level(config.growth, spec["image"].shape[:2]))}
    return params, variables, augment.build(config.augment).init()


def phases(config, nets: dict, stage: Stage) -> tuple[Phase, ...]:
    """The table of moves at the stage's level.

    Raises:
      UserError: an unknown loss, one that compares with real images, or a weight out of range.
    """
    configs.check_range(config, "0 or more", *(f"loss.{weight}" for weight in WEIGHTS))
    configs.check_range(config, "above 0", "loss.gradient_target")
    configs.check_range(config, "0 to 1", "loss.style_mixing")
    game = losses.adversarial(config.loss.name, **config.loss.options.to_dict())
    if game.needs_real:
        raise UserError(f"config.loss.name={config.loss.name!r}: the generator's loss sees no real images in this game")
    augmentation = augment.build(config.augment)
    first = first_level(config.growth, nets["generator"].resolution)
    shared = (config.growth, config.loss, config.data.flip, augmentation, stage.batch_size)
    rules = Rules(nets, stage.level, first, *shared)
    table = {"discriminator": _discriminator_phase, "generator": _generator_phase}
    numbers = tuple((name, config.loss[name]) for name in (*WEIGHTS, "gradient_target") if config.loss[name])
    common = dict(rules=rules, game=game, weights=dict(numbers))
    return tuple(Phase(net, partial(loss, **common), (net,), net, weights=numbers) for net, loss in table.items())


def _discriminator_phase(params, state: State, batch: dict, rng: Rng, *, rules: Rules, game, weights):
    rules = rules._replace(weights=weights)
    lod, draws = _lod(rules, state), _draws(rules, rng)
    fake, moved = _fakes(rules, params, state, batch, rng, draws, lod)
    real = reals(players.reals(batch, draws[FLIP], rules.flip), rules.level, lod)
    fake, label = jax.lax.stop_gradient(fake), batch.get("label")
    views = (_view(rules, state, draws[AUGMENT_REAL]), _view(rules, state, draws[AUGMENT_FAKE]))
    arguments = (params["discriminator"], real, fake, label, lod, draws[PENALTY], views)
    loss, metrics, logits = discriminator_loss(rules, game, *arguments)
    metrics |= {"lod": moved["growth"]["lod"]}
    terms, memory = players.observed(rules, state, logits)
    return loss, Out(metrics | terms, {"generator": moved}, memory)


def _generator_phase(params, state: State, batch: dict, rng: Rng, *, rules: Rules, game, weights):
    rules = rules._replace(weights=weights)
    lod, draws = _lod(rules, state), _draws(rules, rng)
    fake, moved = _fakes(rules, params, state, batch, rng, draws, lod)
    view = _view(rules, state, draws[AUGMENT_FAKE])
    loss, metrics = generator_loss(rules, game, params["discriminator"], fake, batch.get("label"), lod, view)
    return loss, Out(metrics, {"generator": moved})


def _draws(rules: Rules, rng: Rng) -> dict[int, jax.Array]:
    """What a phase draws for each sample."""
    net = rules.nets["generator"]
    latents = (LATENT, MIXED_LATENT) if rules.mixes else (LATENT,)
    draws = dict.fromkeys(latents, players.latent_draw(net)) | dict.fromkeys((FLIP, PENALTY), random.UNIFORM)
    drawn = random.draw(rng.samples, draws | dict.fromkeys((NOISE, AUGMENT_REAL, AUGMENT_FAKE), random.KEY))
    return drawn | {number: players.spread(net, drawn[number]) for number in latents}


def _view(rules: Rules, state: State, keys: jax.Array) -> View:
    """Augments a batch; the same way every time."""
    strength = rules.augmentation.strength(state.memory, state.images)
    return lambda images: rules.augmentation(images, keys, strength)


def _plain(images: jax.Array) -> jax.Array:
    return images


def _lod(rules: Rules, state: State) -> jax.Array | None:
    """The level of detail; None in a stage that fades nothing in."""
    return level_of_detail(rules.growth, rules.first, state.images) if rules.level < rules.first else None


def reals(images: jax.Array, level: int, lod: jax.Array | float | None) -> jax.Array:
    """Real images (B, H, W, C), uint8 or in [-1, 1], as the discriminator sees them at `level`: halved by averaging
    squares of pixels, and faded with those of the next smaller resolution by the fraction of lod."""
    x = downscale(pixels.normalise(images), 2**level)
    return x if lod is None else fade(x, upscale(downscale(x)), lod - level)


def _fakes(rules: Rules, params, state: State, batch: dict, rng: Rng, draws: dict, lod) -> tuple[jax.Array, dict]:
    """Images at the level, and the generator's new collections; latents `z` of the batch where it carries them."""
    net, own = rules.nets["generator"], dict(state.variables["generator"])
    growth = {"lod": jnp.float32(rules.level) if lod is None else lod}
    own.pop("growth")
    moving = [name for name in own if name == "w_avg"]
    options = {"keys": draws[NOISE], "lod": lod, "level": rules.level}
    if rules.mixes:
        options["mixing"] = draws[MIXED_LATENT], _mixed_layer(net, rules, rng)
    z = batch.get("z", draws[LATENT])
    variables = {"params": params["generator"], **own}
    images, moved = net.apply(variables, z, batch.get("label"), train=True, mutable=moving, **options)
    return images, {**own, **moved, "growth": growth}


def _mixed_layer(net, rules: Rules, rng: Rng) -> jax.Array:
    """From which layer on other latents style, one for the batch (Karras et al. 2019, section 3.1)."""
    layers = net.num_ws - 2 * rules.level
    draws = random.draw(rng.key[None], dict.fromkeys((MIXED_LAYER, IS_MIXED), random.UNIFORM))
    first = 1 + jnp.floor(draws[MIXED_LAYER][0] * (layers - 1)).astype(jnp.int32)
    return jnp.where(draws[IS_MIXED][0] < rules.loss.style_mixing, first, layers)


def discriminator_loss(
    rules: Rules,
    game: losses.Adversarial,
    params: dict,  # of the discriminator
    real: jax.Array,  # (B, h, w, C) at the level
    fake: jax.Array,  # likewise, without gradient to the generator
    label: jax.Array | None,  # (B,) or (B, num_classes), of both
    lod: jax.Array | float | None,
    share: jax.Array,  # (B,) in [0, 1), of the generated image where the gradient is penalised
    views: tuple[View, View] = (_plain, _plain),  # of real and generated images
) -> tuple[jax.Array, dict[str, jax.Array], jax.Array]:
    """The discriminator's loss, its terms by name, and the logits (B,) of the real images.

    Penalties are of gradients with respect to images before they are augmented.

    Gradients are those with respect to images of full size: a pixel at level l stands for 4^l equal ones, each with
    1 / 4^l of its gradient, so that squared norms are 4^l times smaller.
    """
    terms_of, weight, scale = rules.loss, rules.weight, 2.0**rules.level

    def logits(x, view=views[0]):
        return judge(rules, params, view(x), label, lod)[0]

    real_logits, real_classes = judge(rules, params, views[0](real), label, lod)
    fake_logits, fake_classes = judge(rules, params, views[1](fake), label, lod)
    terms = {f"loss_{name}": value.mean() for name, value in game.discriminator(real_logits, fake_logits).items()}
    if terms_of.drift:
        terms["drift"] = weight("drift") * jnp.mean(jnp.square(real_logits))
    if real_classes is not None:
        terms["loss_class"] = weight("class_weight") * (
            class_loss(real_classes, label).mean() + class_loss(fake_classes, label).mean()
        )
    if terms_of.gradient_penalty:
        target = weight("gradient_target")
        values = penalties.gradient_penalty(logits, real, fake, 1 - share, target=scale * target)
        terms["gradient_penalty"] = weight("gradient_penalty") / (scale * target) ** 2 * values.mean()
    if terms_of.r1_gamma:
        terms["r1"] = penalties.r1(logits, real, gamma=weight("r1_gamma") / scale**2).mean()
    if terms_of.r2_gamma:
        terms["r2"] = penalties.r2(partial(logits, view=views[1]), fake, gamma=weight("r2_gamma") / scale**2).mean()
    logit_means = {"real_logit": real_logits.mean(), "fake_logit": fake_logits.mean()}
    return sum(terms.values()), terms | logit_means, real_logits


def generator_loss(
    rules: Rules,
    game: losses.Adversarial,
    params: dict,  # of the discriminator
    fake: jax.Array,  # (B, h, w, C) at the level
    label: jax.Array | None,  # (B,) or (B, num_classes)
    lod: jax.Array | float | None,
    view: View = _plain,  # of generated images
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The generator's loss, and its terms by name."""
    logits, classes = judge(rules, params, view(fake), label, lod)
    terms = {"loss_fake": game.generator(None, logits).mean()}
    if classes is not None:
        terms["loss_class"] = rules.weight("class_weight") * class_loss(classes, label).mean()
    return sum(terms.values()), terms | {"fake_logit": logits.mean()}


def judge(rules: Rules, params: dict, x: jax.Array, label, lod) -> tuple[jax.Array, jax.Array | None]:
    """Logits (B,), and class logits (B, num_classes) where the discriminator has such and they count."""
    net, options = rules.nets["discriminator"], {"lod": lod, "level": rules.level}
    if net.num_classes and rules.loss.class_weight and net.heads is not None:
        return net.apply({"params": params}, x, method="heads", **options)
    return net.apply({"params": params}, x, label, train=True, **options), None


def sample(nets: dict, ema: dict, keys: jax.Array, given: dict, **options) -> dict[str, jax.Array]:
    """`image` (B, *shape) in about [-1, 1] from the averaged generator as far as it has grown, of full size.

    Sample i depends on keys[i] and its label alone, noise included. `options` are those of `truncate`.
    """
    return {"image": _draw(nets, ema, latents(nets["generator"], keys), given.get("label"), keys, options)}


def decode(nets: dict, ema: dict, z: jax.Array, labels: jax.Array | None, **options) -> jax.Array:
    """As `sample`, for given latents z (B, latent_size), with the constant noise."""
    return _draw(nets, ema, z, labels, None, options)


def _draw(nets, ema, z, labels, keys, options):
    net, (own, lod) = nets["generator"], _grown(ema)
    if options:
        noise = "const" if keys is None else "random"
        return paint(nets, ema, styles(nets, ema, z, labels, **options), keys, noise=noise)
    keys = None if keys is None else random.fold(keys, NOISE)
    return net.apply(own, z, labels if players.labelled(nets) else None, train=False, keys=keys, lod=lod)


def styles(
    nets: dict, ema: dict, z: jax.Array, labels: jax.Array | None, *, psi: float = 1.0, cutoff: int | None = None
) -> jax.Array:
    """Styles ws (B, num_ws, w_size) of latents z (B, latent_size), for generators with such; see `truncate`."""
    net, label = nets["generator"], labels if players.labelled(nets) else None
    return net.apply(_grown(ema)[0], z, label, psi=psi, cutoff=cutoff, method="mapping")


def paint(nets: dict, ema: dict, ws: jax.Array, keys: jax.Array | None = None, *, noise: str = "const") -> jax.Array:
    """Images (B, *shape) of styles ws (B, num_ws, w_size); noise is 'const', 'none', or 'random' from keys (B,)."""
    own, lod = _grown(ema)
    if noise == "none" and "noise" in own:
        own["noise"] = jax.tree.map(jnp.zeros_like, own["noise"])
    keys = random.fold(keys, NOISE) if noise == "random" else None
    return nets["generator"].apply(own, ws, keys=keys, lod=lod, method="synthesis")


def _grown(ema: dict) -> tuple[dict, jax.Array]:
    """The averaged generator's collections, and the lod that it has reached."""
    own = dict(ema["generator"])
    return own, own.pop("growth")["lod"]
