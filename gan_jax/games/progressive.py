"""Progressive growing (Karras et al. 2018, arXiv 1710.10196; Karras et al. 2019, arXiv 1812.04948).

The players start at a low resolution. Each further one fades in over `growth.transition_images` images while lod, the
level of detail, falls by one, and is trained for `growth.training_images` more. Real images are faded likewise. The
level of a stage is static; lod is a function of the images seen. Optimizers start afresh when a fade begins and when
it ends.

Its phases: `discriminator` and `generator`, one step each. Beside the generator's parameters the averaged net keeps
`growth`, the lod that it has reached, so that samples are drawn as the generator is, enlarged to the full resolution.
"""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax import config as configs
from gan_jax import losses, models, penalties
from gan_jax.errors import UserError
from gan_jax.games import Stage
from gan_jax.layers import pixels, random
from gan_jax.layers.rescale import downscale, fade, sizes, upscale
from gan_jax.step import Out, Phase, Rng, State

NETS = ("generator", "discriminator")
EMA_NETS = ("generator",)
EMA_COPIED = ("growth", "w_avg", "noise")

# The keys that this game adds to a config, with their defaults.
DEFAULTS = {
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

# Independent draws of one phase: folded into each sample's key, or into the batch's.
LATENT, FLIP, PENALTY, NOISE, MIXED_LATENT, MIXED_LAYER, IS_MIXED = range(7)


class Play(NamedTuple):
    """What the losses of one stage share."""

    nets: dict[str, nn.Module]
    level: int  # of the stage
    first: int  # level at which the run starts
    growth: Any  # config.growth
    loss: Any  # config.loss
    flip: bool


def nets(config, spec) -> dict[str, nn.Module]:
    """The two players for images of `spec.shape` and `spec.num_classes`.

    Raises:
      UserError: an unknown model or option, one that does not grow, or data without pixels.
    """
    if len(spec.shape) != 3:
        raise UserError(f"config.game='progressive' makes images, and this data has the shape {tuple(spec.shape)}")
    data = {"resolution": tuple(spec.shape[:2]), "channels": spec.shape[2], "num_classes": spec.num_classes}
    built = {}
    for net, constructor in constructors(config).items():
        if not hasattr(constructor, "levels"):
            raise UserError(f"config.{net}.name={config[net].name!r} does not grow: take progan or stylegan1")
        built[net] = configs.build(constructor, config[net], net, **data)
    return built


def constructors(config) -> dict[str, type]:
    """net -> the class whose fields are the schema of its config section."""
    return {net: models.pair(config[net].name)[i] for i, net in enumerate(NETS)}


def init(config, nets: dict, spec, key: jax.Array) -> tuple[dict, dict, Any]:
    """Fresh parameters of all resolutions; no memory."""
    params, variables = {}, {}
    label = jnp.zeros((2,), jnp.int32) if spec.num_classes else None
    inputs = {"generator": jnp.zeros((2, nets["generator"].latent_size)), "discriminator": jnp.zeros((2, *spec.shape))}
    for number, (name, net) in enumerate(nets.items()):
        made = dict(net.init(jax.random.fold_in(key, number), inputs[name], label, train=True))
        params[name] = made.pop("params")
        variables[name] = made
    variables["generator"]["growth"] = {"lod": jnp.float32(_first_level(config.growth, spec.shape[:2]))}
    return params, variables, ()


def stages(config, spec) -> tuple[Stage, ...]:
    """One stage for each resolution and one for each fade, the last without an end.

    At n images, with t and f the training and transition images and i = n // (t + f), lod is the first level
    less i less max(n - i (t + f) - t, 0) / f, at least 0. Each stage is where the integers about lod are the same.

    Raises:
      UserError: durations, batch sizes or an initial resolution that make no sense.
    """
    growth, first = config.growth, _first_level(config.growth, spec.shape[:2])
    training, transition = growth.training_images, growth.transition_images
    if first and (training < 0 or transition < 0 or training + transition < 1):
        raise UserError(
            f"config.growth.training_images={training}, transition_images={transition}: expected 0 or more, not both 0"
        )
    result = []
    for level in range(first, -1, -1):
        begin = (first - level) * (training + transition)
        if level < first and transition:
            result.append(_stage(config, spec, level, begin - transition + 1, begin))
        end = begin + training + (1 if transition else 0) if level else 2**31 - 1
        result.append(_stage(config, spec, level, begin, end))
    return tuple(result)


def _stage(config, spec, level: int, start: int, end: int) -> Stage:
    growth, side = config.growth, min(spec.shape[:2]) >> level
    batch_size = dict(growth.batch_sizes).get(side, config.batch_size)
    batch_size -= batch_size % growth.devices
    limit = dict(growth.device_batch_limits).get(side, batch_size) * growth.devices
    batch_size = min(batch_size, limit)
    if batch_size < 1:
        raise UserError(f"config.growth: at {side} pixels no image is left of the batch; see batch_sizes and devices")
    return Stage(batch_size, start, end, level, dict(growth.learning_rates).get(side, 1.0))


def _first_level(growth, resolution) -> int:
    """Halvings from the data's resolution to the initial one."""
    sides = [min(size) for size in sizes(tuple(resolution))]
    if growth.initial_resolution not in sides:
        raise UserError(
            f"config.growth.initial_resolution={growth.initial_resolution}: images of {resolution[0]}x{resolution[1]} "
            f"grow through {', '.join(map(str, sides))}"
        )
    return len(sides) - 1 - sides.index(growth.initial_resolution)


def level_of_detail(growth, first: int, images: jax.Array) -> jax.Array:
    """lod after so many images, float32; `first` is the level at which the run starts. See `stages`."""
    if not first:
        return jnp.float32(0)
    duration = growth.training_images + growth.transition_images
    whole = images // duration
    into = jnp.maximum(images - whole * duration - growth.training_images, 0)
    return jnp.maximum((first - whole) - into.astype(jnp.float32) / max(growth.transition_images, 1), 0.0)


def phases(config, nets: dict, stage: Stage) -> tuple[Phase, ...]:
    """The table of moves at the stage's level.

    Raises:
      UserError: an unknown loss.
    """
    game = losses.adversarial(config.loss.name, **config.loss.options.to_dict())
    first = _first_level(config.growth, nets["generator"].resolution)
    play = Play(nets, stage.level, first, config.growth, config.loss, config.data.flip)
    table = {"discriminator": _discriminator_phase, "generator": _generator_phase}
    return tuple(Phase(net, partial(loss, play=play, game=game), (net,), net) for net, loss in table.items())


def _discriminator_phase(params, state: State, batch: dict, rng: Rng, *, play: Play, game):
    lod = _lod(play, state)
    fake, moved = _fakes(play, params, state, batch, rng, lod)
    real = batch["image"]
    if play.flip:
        real = pixels.random_flip(real, random.fold(rng.samples, FLIP))
    real = reals(real, play.level, lod)
    share = random.uniform(random.fold(rng.samples, PENALTY), ())
    fake, label = jax.lax.stop_gradient(fake), batch.get("label")
    loss, metrics = discriminator_loss(play, game, params["discriminator"], real, fake, label, lod, share)
    return loss, Out(metrics | {"lod": moved["growth"]["lod"]}, {"generator": moved})


def _generator_phase(params, state: State, batch: dict, rng: Rng, *, play: Play, game):
    lod = _lod(play, state)
    fake, moved = _fakes(play, params, state, batch, rng, lod)
    loss, metrics = generator_loss(play, game, params["discriminator"], fake, batch.get("label"), lod)
    return loss, Out(metrics, {"generator": moved})


def _lod(play: Play, state: State) -> jax.Array | None:
    """The level of detail; None in a stage that fades nothing in."""
    return level_of_detail(play.growth, play.first, state.images) if play.level < play.first else None


def reals(images: jax.Array, level: int, lod: jax.Array | float | None) -> jax.Array:
    """Real images (B, H, W, C), uint8 or in [-1, 1], as the discriminator sees them at `level`: halved by averaging
    squares of pixels, and faded with those of the next smaller resolution by the fraction of lod."""
    x = downscale(pixels.normalise(images), 2**level)
    return x if lod is None else fade(x, upscale(downscale(x)), lod - level)


def _fakes(play: Play, params, state: State, batch: dict, rng: Rng, lod) -> tuple[jax.Array, dict]:
    """Images at the level, and the generator's new collections; latents `z` of the batch where it carries them."""
    net, own = play.nets["generator"], dict(state.variables["generator"])
    growth = {"lod": jnp.float32(play.level) if lod is None else lod}
    own.pop("growth")
    moving = [name for name in own if name == "w_avg"]
    options = {"keys": random.fold(rng.samples, NOISE), "lod": lod, "level": play.level}
    if hasattr(net, "num_ws") and play.loss.style_mixing:
        options["mixing"] = _mixing(net, play, rng)
    z = batch["z"] if "z" in batch else latents(net, rng.samples)
    variables = {"params": params["generator"], **own}
    images, moved = net.apply(variables, z, batch.get("label"), train=True, mutable=moving, **options)
    return images, {**own, **moved, "growth": growth}


def _mixing(net, play: Play, rng: Rng) -> tuple[jax.Array, jax.Array]:
    """Other latents, and the layer from which they style, one for the batch (Karras et al. 2019, section 3.1)."""
    layers = net.num_ws - 2 * play.level
    first = jax.random.randint(jax.random.fold_in(rng.key, MIXED_LAYER), (), 1, layers)
    mixed = jax.random.uniform(jax.random.fold_in(rng.key, IS_MIXED)) < play.loss.style_mixing
    other = random.normal(random.fold(rng.samples, MIXED_LATENT), (net.latent_size,))
    return other, jnp.where(mixed, first, layers)


def discriminator_loss(
    play: Play,
    game: losses.Adversarial,
    params: dict,  # of the discriminator
    real: jax.Array,  # (B, h, w, C) at the level
    fake: jax.Array,  # likewise, without gradient to the generator
    label: jax.Array | None,  # (B,) or (B, num_classes), of both
    lod: jax.Array | float | None,
    share: jax.Array,  # (B,) in [0, 1), of the generated image where the gradient is penalised
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The discriminator's loss, and its terms by name.

    Gradients are those with respect to images of full size: a pixel at level l stands for 4^l equal ones, each with
    1 / 4^l of its gradient, so that squared norms are 4^l times smaller.
    """
    weights, scale = play.loss, 2.0**play.level

    def logits(x):
        return judge(play, params, x, label, lod)[0]

    real_logits, real_classes = judge(play, params, real, label, lod)
    fake_logits, fake_classes = judge(play, params, fake, label, lod)
    terms = {f"loss_{name}": value.mean() for name, value in game.discriminator(real_logits, fake_logits).items()}
    if weights.drift:
        terms["drift"] = weights.drift * jnp.mean(jnp.square(real_logits))
    if real_classes is not None:
        terms["loss_class"] = weights.class_weight * (
            class_loss(real_classes, label).mean() + class_loss(fake_classes, label).mean()
        )
    if weights.gradient_penalty:
        target = weights.gradient_target
        values = penalties.gradient_penalty(logits, real, fake, 1 - share, target=scale * target)
        terms["gradient_penalty"] = weights.gradient_penalty / (scale * target) ** 2 * values.mean()
    if weights.r1_gamma:
        terms["r1"] = penalties.r1(logits, real, gamma=weights.r1_gamma / scale**2).mean()
    if weights.r2_gamma:
        terms["r2"] = penalties.r2(logits, fake, gamma=weights.r2_gamma / scale**2).mean()
    return sum(terms.values()), terms | {"real_logit": real_logits.mean(), "fake_logit": fake_logits.mean()}


def generator_loss(
    play: Play,
    game: losses.Adversarial,
    params: dict,  # of the discriminator
    fake: jax.Array,  # (B, h, w, C) at the level
    label: jax.Array | None,  # (B,) or (B, num_classes)
    lod: jax.Array | float | None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The generator's loss, and its terms by name. Raises UserError for a loss that compares with real images."""
    if game.needs_real:
        raise UserError(f"config.loss.name={play.loss.name!r} looks at real images too, which this game does not offer")
    logits, classes = judge(play, params, fake, label, lod)
    terms = {"loss_fake": game.generator(None, logits).mean()}
    if classes is not None:
        terms["loss_class"] = play.loss.class_weight * class_loss(classes, label).mean()
    return sum(terms.values()), terms | {"fake_logit": logits.mean()}


def judge(play: Play, params: dict, x: jax.Array, label, lod) -> tuple[jax.Array, jax.Array | None]:
    """Logits (B,), and class logits (B, num_classes) where the discriminator has such and they count."""
    net, options = play.nets["discriminator"], {"lod": lod, "level": play.level}
    if net.num_classes and play.loss.class_weight and net.heads is not None:
        return net.apply({"params": params}, x, method="heads", **options)
    return net.apply({"params": params}, x, label, train=True, **options), None


def class_loss(logits: jax.Array, label: jax.Array) -> jax.Array:
    """Cross-entropy (B,) of class logits (B, K) with labels (B,) or their shares (B, K) (Odena et al. 2017)."""
    target = jax.nn.one_hot(label, logits.shape[-1]) if label.ndim == 1 else label
    return -jnp.sum(target * jax.nn.log_softmax(logits), -1)


def sample(nets: dict, ema: dict, keys: jax.Array, labels: jax.Array | None, **options) -> jax.Array:
    """Images (B, *shape) in about [-1, 1] from the averaged generator as far as it has grown, of full size.

    Sample i depends on keys[i] and labels[i] alone, noise included. `options` are those of `truncate`.
    """
    return _draw(nets, ema, latents(nets["generator"], keys), labels, keys, options)


def decode(nets: dict, ema: dict, z: jax.Array, labels: jax.Array | None, **options) -> jax.Array:
    """As `sample`, for given latents z (B, latent_size), with the constant noise."""
    return _draw(nets, ema, z, labels, None, options)


def _draw(nets, ema, z, labels, keys, options):
    net, (own, lod) = nets["generator"], _grown(ema)
    if options:
        noise = "const" if keys is None else "random"
        return paint(nets, ema, styles(nets, ema, z, labels, **options), keys, noise=noise)
    keys = None if keys is None else random.fold(keys, NOISE)
    return net.apply(own, z, labels if net.num_classes else None, train=False, keys=keys, lod=lod)


def styles(
    nets: dict, ema: dict, z: jax.Array, labels: jax.Array | None, *, psi: float = 1.0, cutoff: int | None = None
) -> jax.Array:
    """Styles ws (B, num_ws, w_size) of latents z (B, latent_size), for generators with such; see `truncate`."""
    net, label = nets["generator"], labels if nets["generator"].num_classes else None
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


def truncate(nets: dict, psi: float, cutoff: int | None) -> dict[str, Any]:
    """The options of `sample` and `decode` for a truncation.

    Raises:
      UserError: a generator without styles, or a cutoff beyond its layers.
    """
    layers = getattr(nets["generator"], "num_ws", 0)
    if not layers:
        raise UserError(f"--truncation={psi}: this generator has no styles; leave the flag out")
    if cutoff is not None and not 0 <= cutoff <= layers:
        raise UserError(f"--truncation={psi},{cutoff}: this generator has {layers} layers; give 0 to {layers}")
    return {"psi": psi, "cutoff": cutoff}


def latents(generator: nn.Module, keys: jax.Array) -> jax.Array:
    """z (B, latent_size), N(0, 1), each row from its own key."""
    return random.normal(random.fold(keys, LATENT), (generator.latent_size,))
