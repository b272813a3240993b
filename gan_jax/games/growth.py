"""When a growing game grows: its stages, and the level of detail at so many images (Karras et al. 2018, 1710.10196)."""

import math

import jax
import jax.numpy as jnp

from gan_jax import config as configs
from gan_jax.errors import UserError
from gan_jax.games import Stage
from gan_jax.layers.rescale import sizes


def stages(config, spec) -> tuple[Stage, ...]:
    """One stage for each resolution and one for each fade, the last without an end.

    At n images, with t and f the training and transition images and i = n // (t + f), lod is the first level
    less i less max(n - i (t + f) - t, 0) / f, at least 0. Each stage is where the integers about lod are the same.

    Raises:
      UserError: durations, batch sizes or an initial resolution that make no sense.
    """
    configs.check_range(config, "1 or more", "growth.devices")
    growth, first = config.growth, first_level(config.growth, spec["image"].shape[:2])
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
    growth, side = config.growth, min(spec["image"].shape[:2]) >> level
    batch_size = _by_side(growth, "batch_sizes").get(side, config.batch_size)
    batch_size -= batch_size % growth.devices
    limit = _by_side(growth, "device_batch_limits").get(side, batch_size) * growth.devices
    batch_size = min(batch_size, limit)
    if batch_size < 1:
        raise UserError(f"config.growth: at {side} pixels no image is left of the batch; see batch_sizes and devices")
    rates = _by_side(growth, "learning_rates", kind=int | float, least=0)
    return Stage(batch_size, start, end, level, rates.get(side, 1.0))


def _by_side(growth, key: str, *, kind=int, least: int = 1) -> dict[int, float]:
    """A setting of `growth` by resolution. Raises UserError where it is not pairs of numbers."""
    pairs = growth[key]
    try:
        numbers = dict(pairs)
        sound = all(isinstance(v, kind) and least <= v < math.inf and isinstance(k, int) for k, v in numbers.items())
    except (TypeError, ValueError):
        sound = False
    if not sound:
        what = f"(shorter side, {'whole ' if kind is int else ''}number) pairs, the number {least} or more"
        raise UserError(f"config.growth.{key}={pairs!r}: expected {what}, such as ((8, 2), (16, 1)) or ((8, 2),)")
    return numbers


def first_level(growth, resolution) -> int:
    """Halvings from the data's resolution to the initial one. Raises UserError where there is no such number."""
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
