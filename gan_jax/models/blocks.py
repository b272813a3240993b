"""The plan of networks that double or halve the resolution from block to block: sizes, names, widths, precision."""

from typing import Any

import jax
import jax.numpy as jnp

from gan_jax.errors import UserError

Size = int | tuple[int, int]


def plan(resolution: Size) -> tuple[tuple[int, int], int]:
    """(size of the first block, number of doublings): halved while both sides stay even and at least 4.

    Raises:
      UserError: a size that cannot be halved once.
    """
    size = (resolution, resolution) if isinstance(resolution, int) else tuple(resolution)
    levels = 0
    while all(n % 2 ** (levels + 1) == 0 and n // 2 ** (levels + 1) >= 4 for n in size):
        levels += 1
    if not levels:
        raise UserError(f"resolution {resolution}: expected even sides from 8 on, best a power of two times 4 to 7")
    return tuple(n // 2**levels for n in size), levels


def block_name(size: tuple[int, int]) -> str:
    """`b8`, or `b8x12` for height 8 and width 12."""
    return f"b{size[0]}" if size[0] == size[1] else f"b{size[0]}x{size[1]}"


def features_at(level: int, channel_base: int, channel_max: int) -> int:
    """Features of a block `level` doublings above the first, which counts as resolution 4 whatever its size."""
    return min(channel_base // (4 * 2**level), channel_max)


def wide(x: jax.Array) -> jax.Array:
    """x in float32, or float64 where it is."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def block_dtype(level: int, levels: int, num_bf16_res: int) -> jnp.dtype | None:
    """The highest resolutions compute in bfloat16, the first block never."""
    return jnp.bfloat16 if level > max(levels - num_bf16_res, 0) else None


def check_choice(field: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raises UserError where `value` is not among the allowed ones."""
    if value not in allowed:
        raise UserError(f"{field} {value!r} is unknown; expected one of {', '.join(allowed)}")


def check_least(model: Any, smallest: dict[str, int]) -> None:
    """Raises UserError where a field of a model is below its smallest value."""
    for field, least in smallest.items():
        if getattr(model, field) < least:
            raise UserError(f"{field}={getattr(model, field)}: expected {least} or more")


def check_clips(model: str, shape: tuple[int, ...]) -> None:
    """Raises UserError where a model of clips is to make, or judge, something else than (T, H, W, C)."""
    if len(shape) != 4:
        raise UserError(f"the model {model!r} makes clips (frames, height, width, channels), and this data has the "
                        f"shape {tuple(shape)}; take a model of images")  # fmt: skip


def scale_near_one(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    """N(1, .02), as DCGAN and CycleGAN initialise the scale of a batch normalisation."""
    return 1 + 0.02 * jax.random.normal(key, shape, dtype)
