"""Digests of State, by which a damaged checkpoint is known."""

import hashlib
import json

import jax
import jax.numpy as jnp
from jax import lax


def digest(state, run: dict | None = None) -> str:
    """SHA-256 over paths, shapes, types and checksums of every array, and over `run`.

    The checksums are taken on the device, from this process's first copy of each array, so that only a few bytes
    of each array come to the host. A changed bit always shows; swapped elements do but for one case in 2^64.
    """
    return seal(state, run or {})[0]


def seal(state, run: dict) -> tuple[str, list[str]]:
    """The digest, and the paths of arrays with NaN or infinity in them."""
    leaves = jax.tree_util.tree_leaves_with_path(jax.tree.map(lambda x: x.addressable_data(0), state))
    checked = jax.device_get([_checksums(array) for _, array in leaves])
    sha = hashlib.sha256(json.dumps(run, sort_keys=True).encode())
    poisoned = []
    for (path, array), (sums, finite) in zip(leaves, checked, strict=True):
        name = jax.tree_util.keystr(path)
        sha.update(f"{name} {array.shape} {array.dtype} {sums[0]:08x} {sums[1]:08x}".encode())
        if not finite:
            poisoned.append(name)
    return sha.hexdigest(), poisoned


@jax.jit
def _checksums(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Two sums modulo 2^32 of an array's words, uint32 (2,), and whether all of it is finite.

    Each is the sum over i of mix(word_i xor mix(i + salt)): for a fixed i a bijection of the word, so that one
    changed word never hides. One program serves all arrays of a shape: parameters, their averages and moments. All is
    found in one reduction, which compiles in half the time of three.
    """
    words = _words(x)
    places = lax.iota(jnp.uint32, words.size)
    first, second = (_mix(words ^ _mix(places + jnp.uint32(salt))) for salt in (0, 0x9E3779B9))
    broken = ~jnp.isfinite(x) if jnp.issubdtype(x.dtype, jnp.inexact) else jnp.zeros(x.shape, bool)
    broken = jnp.repeat(broken.reshape(-1), max(words.size // max(x.size, 1), 1))  # wider types have several words
    start = (jnp.uint32(0), jnp.uint32(0), jnp.bool_(False))
    *sums, one = lax.reduce((first, second, broken), start, lambda a, b: (a[0] + b[0], a[1] + b[1], a[2] | b[2]), (0,))
    return jnp.stack(sums), ~one


def _words(x: jax.Array) -> jax.Array:
    """The bits of any array as uint32 words, (N,)."""
    if x.dtype == jnp.bool_:
        return x.reshape(-1).astype(jnp.uint32)
    bits = min(8 * x.dtype.itemsize, 32)  # wider types become two words an element
    return lax.bitcast_convert_type(x.reshape(-1), f"uint{bits}").reshape(-1).astype(jnp.uint32)


def _mix(h: jax.Array) -> jax.Array:
    """The finaliser of MurmurHash3 (Appleby 2011), a bijection of 32 bits."""
    h = (h ^ (h >> 16)) * jnp.uint32(0x85EBCA6B)
    h = (h ^ (h >> 13)) * jnp.uint32(0xC2B2AE35)
    return h ^ (h >> 16)
