"""What games of one generator against one discriminator share: their sections, nets, fresh arrays, reals and labels."""

import inspect
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax import augment, models, parallel, specs
from gan_jax import config as configs
from gan_jax.errors import UserError
from gan_jax.layers import pixels, random
from gan_jax.step import State

NETS = ("generator", "discriminator")
EMA_NETS = ("generator",)
LATENT = 0  # the draw of latents, in every game

# The keys that each of these games has, with their defaults.
DEFAULTS = {
    "conditional": False,  # whether the players see the labels of the data
    "augment": {"name": "none"},  # see `augment.NAMES`: of real and generated images, for the discriminator
}


def reads(config) -> tuple[str, ...]:
    """The images, and their labels where `config.conditional`."""
    return ("image", "label") if config.conditional else ("image",)


def asks(config) -> tuple[str, ...]:
    """A label for each sample, where `config.conditional`."""
    return ("label",) if config.conditional else ()


def constructors(config) -> dict[str, type]:
    """Section -> the class whose fields are its schema: one for each net, and the augmentation."""
    return {net: models.classes(config[net].name)[net] for net in NETS} | {"augment": augment.chosen(config)}


class InTraining:
    """Nets in training, whose collections pass from one use to the next."""

    def __init__(self, nets: dict, params: dict, state: State):
        self.nets, self.params, self.variables = nets, params, dict(state.variables)

    def play(self, name: str, x: jax.Array, method: str | None = None, **options: Any) -> Any:
        """What a net, or one of its methods, makes of x and of its other inputs, by name; its collections move."""
        own = self.variables[name]
        options |= {"train": True, "mutable": list(own), "method": method}
        out, new = self.nets[name].apply({"params": self.params[name], **own}, x, **options)
        self.variables[name] = dict(new)
        return out


def build(config, spec, *, points: str = "") -> dict[str, nn.Module]:
    """The two players for data of `spec`.

    Args:
      points: a model of this game for data that are no images; empty: it has none.
    Raises:
      UserError: an unknown model or option, or a model that cannot make images of this shape.
    """
    shape, players, classes = spec["image"].shape, {}, constructors(config)
    if config.augment.name != "none" and len(shape) != 3:
        raise UserError(f"config.augment.name={config.augment.name!r}: this data has the shape {shape}; use 'none'")
    for net in NETS:
        if len(shape) != 3 and "shape" not in inspect.signature(classes[net]).parameters:
            raise UserError(
                f"the model {config[net].name!r} of config.game={config.game!r} makes images, and this data has the "
                f"shape {shape}" + (f"; use {points!r}" if points else "")
            )
        fields = _data_fields(classes[net], spec)
        players[net] = configs.build(classes[net], config[net], net, **fields)
    return players


def _data_fields(constructor, spec) -> dict[str, Any]:
    """What the data and the devices decide of a model's fields."""
    takes, shape = inspect.signature(constructor).parameters, spec["image"].shape
    fields = {"shape": shape} if "shape" in takes else {"resolution": shape[:2], "channels": shape[2]}
    optional = {"num_classes": specs.classes(spec), "axis_name": parallel.AXIS}
    return fields | {key: value for key, value in optional.items() if key in takes}


def init(nets: dict, spec, key: jax.Array) -> tuple[dict, dict]:
    """Fresh parameters and other collections of both nets, each by net."""
    params, variables = {}, {}
    label = jnp.zeros((2,), jnp.int32) if labelled(nets) else None
    inputs = {"generator": (nets["generator"].latent_size,), "discriminator": spec["image"].shape}
    for number, (name, net) in enumerate(nets.items()):
        zeros = jnp.zeros((2, *inputs[name]))
        collections = dict(net.init(jax.random.fold_in(key, number), zeros, label, train=True))
        params[name] = collections.pop("params")
        variables[name] = collections
    return params, variables


def latents(generator: nn.Module, keys: jax.Array) -> jax.Array:
    """z (B, latent_size), each row from its own key: N(0, 1), or U(-1, 1) where `generator.latent` says uniform."""
    keys, shape = random.fold(keys, LATENT), (generator.latent_size,)
    return spread(generator, getattr(random, latent_draw(generator).kind)(keys, shape))


def latent_draw(generator: nn.Module) -> random.Draw:
    """What a phase draws for a latent, before `spread`."""
    return random.Draw(getattr(generator, "latent", "normal"), (generator.latent_size,))


def spread(generator: nn.Module, drawn: jax.Array) -> jax.Array:
    """Latents of what was drawn: U(0, 1) becomes U(-1, 1)."""
    return 2 * drawn - 1 if latent_draw(generator).kind == "uniform" else drawn


def labelled(nets: dict) -> bool:
    """Whether the players take labels."""
    return getattr(nets["generator"], "num_classes", 0) > 0


def labels(nets: dict, batch: dict, phase: str = "") -> jax.Array | None:
    """The batch's labels, or `<phase>/label`, those of a phase's own where it carries them (parity tests do)."""
    return batch.get(f"{phase}/label", batch["label"]) if labelled(nets) else None


def reals(batch: dict, uniform: jax.Array, flip: bool, name: str = "image") -> jax.Array:
    """The batch's images, or clips of the field `name`, in [-1, 1]; where `flip`, those with `uniform` (B,) below 1/2
    are mirrored."""
    images = pixels.normalise(batch[name])
    return pixels.random_flip(images, uniform) if flip else images


def class_loss(logits: jax.Array, label: jax.Array) -> jax.Array:
    """Cross-entropy (B,) of class logits (B, K) with labels (B,) or their shares (B, K) (Odena et al. 2017)."""
    target = jax.nn.one_hot(label, logits.shape[-1]) if label.ndim == 1 else label
    return -jnp.sum(target * jax.nn.log_softmax(logits), -1)


def observed(rules: Any, state: State, real_logits: jax.Array) -> tuple[dict[str, jax.Array], Any]:
    """What a game whose memory is its augmentation's logs of it, and the new memory; None where nothing adapts.

    Args:
      rules: the game's, with `augmentation` and `batch_size`.
      state: before the step.
      real_logits: (B,), of the augmented reals.
    """
    augmentation, terms = rules.augmentation, {}
    if type(augmentation) is not augment.Augmentation:
        terms = {"augment_p": augmentation.strength(state.memory, state.images)}
    return terms, augmentation.observe(state.memory, jax.lax.stop_gradient(real_logits), rules.batch_size)


def truncate(nets: dict, psi: float, cutoff: int | None) -> dict[str, Any]:
    """Options of `sample`, `decode` and `styles` that move styles towards their mean, see `models.mapping.truncate`.

    Raises:
      UserError: a generator without styles, or a cutoff beyond its layers.
    """
    if psi == 1:  # as they are
        return {}
    layers = getattr(nets["generator"], "num_ws", 0)
    if not layers:
        raise UserError(f"--truncation={psi}: this generator has no styles; leave the flag out")
    if cutoff is not None and not 0 <= cutoff <= layers:
        raise UserError(
            f"--truncation={psi},{cutoff}: this generator has {layers} layers; give a cutoff of 0 to {layers}"
        )
    return {"psi": psi, "cutoff": cutoff}


def threshold(nets: dict, psi: float, cutoff: int | None) -> dict[str, float]:
    """Options of `sample` and `decode` that draw latents from within +-psi, see `truncated`.

    Raises:
      UserError: latents that are not normal, a psi of 0 or less, or a cutoff, which is of layers.
    """
    if latent_draw(nets["generator"]).kind != "normal":
        raise UserError(f"--truncation={psi}: this generator's latents are uniform, within +-1; leave the flag out")
    if psi <= 0 or cutoff is not None:
        flag = f"{psi}" if cutoff is None else f"{psi},{cutoff}"
        raise UserError(f"--truncation={flag}: expected one number above 0, the largest entry of a latent: this "
                        "generator has no styles, whose layers are counted")
    return {"threshold": psi}


def truncated(z: jax.Array, threshold: float | None) -> jax.Array:
    """Latents of N(0, 1) as those of N(0, 1) within +-threshold, of any shape; None: as they are.

    It is what drawing again whatever lies outside comes to (Brock et al. 2018, section 3.1), as a monotone map of each
    entry: P(|x| < |z|) of the normal becomes that of the truncated one.
    """
    if threshold is None:
        return z
    root = math.sqrt(2)
    inside = jax.lax.erf(z / root) * math.erf(threshold / root)
    return jnp.clip(root * jax.lax.erf_inv(inside), -threshold, threshold)
