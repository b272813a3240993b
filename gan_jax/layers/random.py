"""Random numbers per sample: one typed PRNG key each, so that results do not depend on the sharding.

A program grows by a hundred operations with every draw of another size: `draw` makes all that is wanted at once.
"""

import itertools
import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

_STREAM = 1 << 20  # numbers that a stream of `draw` has at most


class Draw(NamedTuple):
    """What is wanted of each sample."""

    kind: str  # 'normal' | 'uniform': float32, N(0, 1) or U[0, 1) | 'key': a key for what draws on its own
    shape: tuple[int, ...] = ()


KEY, UNIFORM = Draw("key"), Draw("uniform")


def draw(keys: jax.Array, draws: Mapping[int, Draw]) -> dict[int, jax.Array]:
    """Independent arrays (B, *shape) from keys (B,), which should serve nothing else.

    Args:
      draws: number of the stream, below 4096 -> what is wanted of it. It does not depend on what else is wanted.
    """
    draws = dict(sorted(draws.items(), key=lambda item: item[1].kind != "normal"))  # those stand together
    sizes = [math.prod(one.shape) for one in draws.values()]
    assert max(sizes) <= _STREAM and max(draws) < 2**32 // _STREAM, (draws, sizes)
    places = np.concatenate([n * _STREAM + np.arange(size) for n, size in zip(draws, sizes, strict=True)])
    count = sum(one.kind == "normal" for one in draws.values())
    normals = sum(sizes[:count])

    words = _words(keys, places.astype(np.uint32))
    parts = _split(words[:, normals:], sizes[count:])
    if count:
        parts = _split(_normal(_bits(words[:, :normals])), sizes[:count]) + parts
    return {
        number: _FINISH[one.kind](part).reshape(-1, *one.shape)
        for (number, one), part in zip(draws.items(), parts, strict=True)
    }


def normal(keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """N(0, 1) float32 of shape (B, *shape) from keys (B,)."""
    return _normal(_numbers(keys, math.prod(shape))).reshape(-1, *shape)


def uniform(keys: jax.Array, shape: tuple[int, ...], minval: float = 0.0, maxval: float = 1.0) -> jax.Array:
    """U[minval, maxval) float32 of shape (B, *shape) from keys (B,)."""
    return _uniform(_numbers(keys, math.prod(shape)), minval, maxval).reshape(-1, *shape)


def fold(keys: jax.Array, data: int | jax.Array) -> jax.Array:
    """New keys (B,), each folded with the same integer: one independent stream per use."""
    return jax.vmap(lambda key: jax.random.fold_in(key, data))(keys)


def _words(keys: jax.Array, places) -> jax.Array:
    """Two random words uint32 at each place, (B, n, 2): those of the key that is folded with it."""
    return jax.random.key_data(jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None))(keys, places))


def _bits(words: jax.Array) -> jax.Array:
    return words[..., 0] ^ words[..., 1]


def _numbers(keys: jax.Array, size: int) -> jax.Array:
    """Random bits, uint32 (B, size): those of `jax.random.bits`."""
    return _bits(_words(keys, lax.iota(jnp.uint32, size)))


def _uniform(bits: jax.Array, minval: float = 0.0, maxval: float = 1.0) -> jax.Array:
    """U[minval, maxval), as `jax.random.uniform` makes it of the same bits: 23 of them behind the point, from 1 on."""
    ones = (bits >> np.uint32(9)) | np.float32(1).view(np.uint32)
    shares = lax.bitcast_convert_type(ones, jnp.float32) - 1
    if (minval, maxval) == (0, 1):
        return shares
    low, high = np.float32(minval), np.float32(maxval)
    return jnp.maximum(low, shares * (high - low) + low)


def _normal(bits: jax.Array) -> jax.Array:
    """N(0, 1) of bits (B, n), as `jax.random.normal` makes it of them.

    In a loop, for XLA:CPU copies what stands outside of one into every fusion that reads it: noise was made again at
    each use, and for every channel.
    """

    def make(bits):
        return np.float32(math.sqrt(2)) * lax.erf_inv(_uniform(bits, np.nextafter(np.float32(-1), np.float32(0))))

    if len(bits) == 1:
        return make(bits)
    parts = next(n for n in range(2, len(bits) + 1) if len(bits) % n == 0)
    return lax.map(make, bits.reshape(parts, -1)).reshape(bits.shape)


def _split(x: jax.Array, sizes: list[int]) -> list[jax.Array]:
    return jnp.split(x, list(itertools.accumulate(sizes[:-1])), axis=1) if sizes else []


_FINISH = {
    "normal": lambda x: x,
    "uniform": lambda words: _uniform(_bits(words)),
    "key": lambda words: jax.random.wrap_key_data(words, impl="threefry2x32"),
}
