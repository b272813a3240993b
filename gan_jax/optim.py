"""Optimizers: an optax chain per player from its config section, rates of images seen, running averages."""

import difflib
import inspect
import itertools
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gan_jax import flat
from gan_jax.errors import UserError

SCHEDULES = ("constant", "linear", "cosine", "exponential")
RATES = ("learning_rate", "warmup_images", "warmup_factor", "decay_begin_images", "decay_images", "decay_rate",
         "final_factor")  # fmt: skip
# Their step is not proportional to the learning rate, or they need more than gradients.
_UNFIT = ("fromage", "lbfgs", "polyak_sgd", "rprop")
# They treat every element by itself, so that all arrays of a net can be one vector.
ELEMENTWISE = (
    "adabelief", "adadelta", "adagrad", "adam", "adamax", "adamaxw", "adamw", "amsgrad", "lion", "nadam", "nadamw",
    "radam", "rmsprop", "sgd", "sign_sgd", "yogi",
)  # fmt: skip


class Settings(NamedTuple):
    """A player's config section, `config.optim.<player>`: all its keys with their defaults."""

    name: str = "adam"  # an optimizer of optax: adam, adamw, sgd, rmsprop, lion, ...
    learning_rate: float = 2e-4  # at its highest
    b1: float = 0.5  # decay of the first moment, where the optimizer has one
    b2: float = 0.999  # decay of the second moment, where the optimizer has one
    b2_final: float = 0.0  # b2 at the decay's end, to which it moves along a cosine; 0: it stays
    eps: float = 1e-8  # where the optimizer has one
    momentum: float = 0.0  # where the optimizer has one (sgd, rmsprop)
    weight_decay: float = 0.0  # decoupled, times the learning rate, with any optimizer
    l2: float = 0.0  # added to the gradient, times the parameter, before the optimizer
    clip_norm: float = 0.0  # global norm to which gradients are clipped; 0 for none
    schedule: str = "constant"  # one of SCHEDULES
    warmup_images: float = 0  # the rate rises linearly over them
    warmup_factor: float = 0.0  # share of the learning rate from which it rises
    decay_begin_images: float = 0  # images before the decay begins
    decay_images: float = 0  # length of the linear or cosine decay; 0 for up to total_images
    decay_rate: float = 1.000004  # exponential: the rate is divided by it every batch
    final_factor: float = 0.0  # share of the learning rate at the decay's end, or the exponential's floor
    options: Mapping[str, Any] = {}  # further arguments of the optax constructor
    frozen: tuple[str, ...] = ()  # parameters that do not move: paths such as 'b32/conv0', with all below them


class Optimizer(NamedTuple):
    """One player's optimizer; its learning rate is a function of images seen, not of its own updates."""

    at: Callable[[jax.Array], optax.GradientTransformation]  # images -> updates at learning rate 1, to be scaled
    learning_rate: Callable[..., jax.Array]  # images, and any of `rates` by name -> float32 scalar
    rates: Mapping[str, Any] = {}  # numbers of the learning rate that a program takes as inputs
    elementwise: bool = False  # whether it treats every element by itself

    def at_rates(self, rates: Mapping[str, Any]) -> "Optimizer":
        """The same with these numbers, which may be traced, in place of its own `rates`."""
        return self._replace(learning_rate=partial(self.learning_rate, **rates), rates=rates)

    def init(self, params: Any) -> Any:
        """A fresh optimizer state for `params`."""
        return self.at(jnp.int32(0)).init(params)

    def update(self, grads: Any, opt_state: Any, params: Any, images: jax.Array) -> tuple[Any, Any]:
        """(updates to be added to `params`, new state), where `images` images were seen before this step."""
        updates, opt_state = self.at(images).update(grads, opt_state, params)
        rate = self.learning_rate(images)
        return jax.tree.map(lambda u: (rate * u).astype(u.dtype), updates), opt_state


def optimizer(section: Mapping[str, Any], *, batch_size: int, total_images: int, lazy: int = 0) -> Optimizer:
    """Builds a player's optimizer: clipping, L2, the optax optimizer, decoupled weight decay, learning rate.

    Args:
      section: keys of `Settings`; what is missing has its default.
      batch_size: images per step, over all devices.
      total_images: length of the run, where decays end by default.
      lazy: k where the player takes a second, regularising step every k steps with the same optimizer:
        StyleGAN2 (1912.04958), appendix B. With c = k / (k + 1) the learning rate is multiplied by c and
        decay rates become beta^c. 0 or 1 for none.
    Returns:
      An `Optimizer`.
    Raises:
      UserError: unknown keys, names or options, or numbers out of range.
    """
    for key in section:
        if key not in Settings._fields:
            raise UserError(f"unknown optimizer setting {key!r}: {_expected(key, Settings._fields)}")
    settings = Settings(**section)
    correction = lazy / (lazy + 1) if lazy > 1 else 1.0
    rates = _schedule(settings, total_images)
    peak = settings.learning_rate * correction
    if not (math.isfinite(peak) and peak >= 0):
        raise UserError(f"learning_rate={settings.learning_rate}: expected a finite number, 0 or more")
    fixed = _transformation(settings, correction)  # made in any case, so that wrong settings are found at once
    moving = partial(
        _with_b2, settings, correction, settings.decay_images or total_images - settings.decay_begin_images
    )
    at = moving if settings.b2_final else lambda _: fixed
    if isinstance(settings.frozen, str):
        raise UserError(f"frozen={settings.frozen!r}: expected a tuple of paths, such as ({settings.frozen!r},)")
    if settings.frozen:
        at = _freezing(at, tuple(settings.frozen))
    rates = {"peak": peak, **rates}
    learning_rate = partial(_learning_rate, name=settings.schedule, batch_size=batch_size, **rates)
    of_one_type = not any("dtype" in option for option in settings.options)  # a vector of moments has one type
    return Optimizer(at, learning_rate, rates, settings.name in ELEMENTWISE and of_one_type)


def _freezing(at: Callable, frozen: tuple[str, ...]) -> Callable:
    """`at`, with neither gradients into nor updates out of what is frozen: Mo et al. 2020 (2002.10964), Freeze-D."""

    def moving(params: Any) -> Any:
        """1 where a parameter of {net: tree} moves, 0 where it is frozen. Raises UserError for a path that is none."""
        matched, layers = set(), set()

        def of(path):
            layers.add(jax.tree_util.keystr(path[:-1], simple=True, separator="/"))
            name = jax.tree_util.keystr(path, simple=True, separator="/") + "/"
            hits = [prefix for prefix in frozen if name.startswith(prefix.strip("/") + "/")]
            matched.update(hits)
            return 0.0 if hits else 1.0

        def of_net(tree):
            if not flat.is_flat(tree):
                return jax.tree_util.tree_map_with_path(lambda path, _: of(path), tree)
            return flat.Flat(_stretches([(of(path), size) for path, size in flat.segments(tree)]), tree.layout)

        mask = {net: of_net(tree) for net, tree in params.items()}
        if missing := [prefix for prefix in frozen if prefix not in matched]:
            raise UserError(f"frozen={missing[0]!r}: no such parameters; there are {', '.join(sorted(layers))}")
        return mask

    def masked(images: jax.Array) -> optax.GradientTransformation:
        inner = at(images)

        def update(grads, state, params):
            mask = moving(params)
            updates, state = inner.update(jax.tree.map(jnp.multiply, grads, mask), state, params)
            return jax.tree.map(jnp.multiply, updates, mask), state

        return optax.GradientTransformation(lambda params: (moving(params), inner.init(params))[1], update)

    return masked


def _stretches(stretches: list[tuple[float, int]]) -> jax.Array:
    """A vector of so many equal elements after so many others; neighbours of one value are one stretch."""
    groups = itertools.groupby(stretches, key=lambda stretch: stretch[0])
    return jnp.concatenate([jnp.full(sum(size for _, size in group), value) for value, group in groups])


def _with_b2(settings: Settings, correction: float, length: float, images: jax.Array) -> optax.GradientTransformation:
    """The transformation with the b2 of this moment, for the decay and for the correction of the bias (R3GAN)."""
    b2 = cosine(images - settings.decay_begin_images, settings.b2, settings.b2_final, length)
    return _transformation(settings, correction, b2)


def _transformation(settings: Settings, correction: float, b2: jax.Array | None = None) -> optax.GradientTransformation:
    constructor = _constructor(settings.name)
    arguments = _arguments(settings, constructor)
    accepted = inspect.signature(constructor).parameters
    if b2 is not None:
        arguments["b2"] = b2
    for rate in ("b1", "b2", "b3", "decay", "momentum"):
        value = arguments.get(rate, accepted[rate].default) if rate in accepted else None
        if value is not None and correction != 1.0:
            arguments[rate] = value**correction
    parts = [constructor(learning_rate=1.0, **arguments)]
    if settings.clip_norm or settings.l2:
        clip = optax.clip_by_global_norm(settings.clip_norm) if settings.clip_norm else optax.identity()
        parts = [clip, optax.add_decayed_weights(settings.l2), *parts]
    if settings.weight_decay and "weight_decay" not in accepted:
        parts.append(optax.add_decayed_weights(-settings.weight_decay))  # updates are already descending
    return optax.chain(*parts)


def _constructor(name: str) -> Callable[..., optax.GradientTransformation]:
    constructor = None if name.startswith(("_", "scale_by")) else getattr(optax, name, None)
    try:
        first = next(iter(inspect.signature(constructor).parameters), "")
    except (TypeError, ValueError):
        first = ""
    if first != "learning_rate" or name in _UNFIT:
        common = ("adam", "adamw", "sgd", "rmsprop", "adabelief", "nadam", "radam", "lion", "lamb", "yogi")
        raise UserError(
            f"optimizer name={name!r}: {_expected(name, common)}; or any other optax optimizer whose step is "
            "proportional to its learning_rate"
        )
    return constructor


def _arguments(settings: Settings, constructor: Callable) -> dict[str, Any]:
    """The standard settings that the constructor knows, and the section's own options."""
    accepted = inspect.signature(constructor).parameters
    standard = ("b1", "b2", "eps", "momentum", "weight_decay")
    arguments = {key: getattr(settings, key) for key in standard if key in accepted}
    if not settings.momentum and "momentum" in accepted and accepted["momentum"].default is None:
        arguments["momentum"] = None  # a momentum of 0 would keep a buffer for nothing
    for rate in ("b1", "b2", "momentum"):
        if not 0 <= getattr(settings, rate) < 1:
            raise UserError(f"{rate}={getattr(settings, rate)}: expected a number in [0, 1)")
    if settings.b2_final and ("b2" not in accepted or not 0 < settings.b2_final < 1):
        raise UserError(f"b2_final={settings.b2_final}: expected a number in (0, 1), and an optimizer that has b2")
    for key in ("eps", "weight_decay", "l2", "clip_norm"):
        if getattr(settings, key) < 0:
            raise UserError(f"{key}={getattr(settings, key)}: expected 0 or more")
    free = tuple(name for name in accepted if name not in arguments and name != "learning_rate")
    for option in settings.options:
        if option in Settings._fields:
            raise UserError(f"options.{option}: set `{option}` in the optimizer's section itself")
        if option not in free:
            raise UserError(f"{settings.name} has no option {option!r}: {_expected(option, free)}")
    return {**arguments, **settings.options}


def _schedule(settings: Settings, total_images: int) -> dict[str, float]:
    """The numbers of the learning rate's way, as `_learning_rate` takes them."""
    name, begin, final = settings.schedule, settings.decay_begin_images, settings.final_factor
    if name not in SCHEDULES:
        raise UserError(f"schedule={name!r}: {_expected(name, SCHEDULES)}")
    for key in ("warmup_images", "warmup_factor", "decay_begin_images", "decay_images", "final_factor"):
        if getattr(settings, key) < 0:
            raise UserError(f"{key}={getattr(settings, key)}: expected 0 or more")
    length = settings.decay_images or total_images - begin
    if (name in ("linear", "cosine") or settings.b2_final) and length <= 0:
        raise UserError(
            f"decay_begin_images={begin} with total_images={total_images}: the decay would begin at or after "
            "the end; begin earlier, or set decay_images"
        )
    if settings.decay_rate <= 0:
        raise UserError(f"decay_rate={settings.decay_rate}: expected a number above 0, the divisor per batch")
    rates = {}
    if settings.warmup_images:
        rates = {"warmup": settings.warmup_images, "start": settings.warmup_factor}
    if name == "exponential":
        rates |= {"begin": begin, "final": final, "log_rate": math.log(settings.decay_rate)}
    elif name != "constant":
        rates |= {"begin": begin, "final": final, "length": length}
    return rates


def _learning_rate(
    images: jax.Array,
    *,
    name: str,
    batch_size: int,
    peak,
    warmup=None,
    start=0.0,
    begin=0.0,
    final=0.0,
    length=1.0,
    log_rate=0.0,
) -> jax.Array:
    """float32 scalar after so many images; the numbers may be traced."""
    seen = jnp.asarray(images).astype(jnp.float32)
    rate = jnp.float32(peak)
    if warmup is not None:
        rate = rate * (start + (1 - start) * jnp.minimum(seen / warmup, 1.0))
    if name == "constant":
        return rate
    if name == "exponential":
        batches = jnp.maximum(seen - begin, 0.0) / batch_size
        return rate * jnp.maximum(jnp.exp(-log_rate * batches), final)
    done = jnp.clip((seen - begin) / length, 0.0, 1.0)
    left = 1 - done if name == "linear" else 0.5 + 0.5 * jnp.cos(jnp.pi * done)
    return rate * (final + (1 - final) * left)


def cosine(images: jax.Array, begin: float, end: float, length: float) -> jax.Array:
    """R3GAN's schedule (2501.05441): from `begin` at 0 images to `end` at `length`, along half a cosine; then constant.

    Args:
      images: images seen.
      begin, end: values at the ends.
      length: images in between, above 0.
    Returns:
      float32 scalar.
    """
    done = jnp.clip(jnp.asarray(images).astype(jnp.float32) / length, 0.0, 1.0)
    return end + (begin - end) * (0.5 + 0.5 * jnp.cos(jnp.pi * done))


def ema_decay(
    batch_size: int, half_life_images: float | jax.Array, images: jax.Array, rampup: float | jax.Array | None = None
) -> jax.Array:
    """Decay per step of an exponential moving average, 0.5^(batch / half-life): StyleGAN's rule.

    Args:
      batch_size: images per step.
      half_life_images: images after which a value counts half; 0 makes the average a copy.
      images: images seen before this step.
      rampup: the half-life is at most this share of the images seen; None for no ramp.
    Returns:
      float32 scalar in [0, 1).
    """
    half_life = jnp.float32(half_life_images)
    if rampup is not None:
        half_life = jnp.minimum(half_life, rampup * jnp.asarray(images).astype(jnp.float32))
    return jnp.exp2(-batch_size / jnp.maximum(half_life, 1e-8))


def ema_update(ema: Any, new: Any, decay: float | jax.Array) -> Any:
    """decay * ema + (1 - decay) * new, leaf by leaf: exactly `new` at decay 0. Integer leaves are copied."""

    def lerp(old, new):
        return new + decay * (old - new) if jnp.issubdtype(jnp.result_type(new), jnp.inexact) else new

    return jax.tree.map(lerp, ema, new)


def global_norm(tree: Any) -> jax.Array:
    """Root of the sum of squares of all elements of a tree, float32."""
    squares = [jnp.sum(jnp.square(x.astype(jnp.float32))) for x in jax.tree.leaves(tree)]
    return jnp.sqrt(sum(squares, jnp.float32(0)))


def _expected(word: str, words: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(word, words, n=1)
    return f"expected one of {', '.join(words)}" + (f"; nearest: {close[0]}" if close else "")
