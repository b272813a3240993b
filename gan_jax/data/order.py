"""Random order and random numbers as pure functions of (seed, index): nothing is carried along."""

import functools
from collections.abc import Callable

import numpy as np

_MASK = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, the increment of SplitMix64


def _mix(z):
    """The finaliser of SplitMix64 (Steele, Lea & Flood 2014, 'Fast splittable pseudorandom generators')."""
    if isinstance(z, int):
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        return z ^ (z >> 31)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def bits(counters: np.ndarray, *key: int) -> np.ndarray:
    """64 random bits for each counter: SplitMix64 at random access, the same on every machine.

    Args:
      counters: (N,) non-negative integers.
      key: integers that choose the sequence, such as seed and epoch.
    Returns:
      uint64 (N,); element i depends on counters[i] and key only.
    """
    state = 0
    for word in key:
        state = _mix((state + _GAMMA + _mix((word + _GAMMA) & _MASK)) & _MASK)
    steps = (np.asarray(counters).astype(np.uint64) + np.uint64(1)) * np.uint64(_GAMMA)
    return _mix(steps + np.uint64(state))


def uniform(counters: np.ndarray, *key: int) -> np.ndarray:
    """float64 (N,) in [0, 1), 53 bits each, from `bits(counters, *key)`."""
    return (bits(counters, *key) >> np.uint64(11)) * 2.0**-53


def permutation(count: int, seed: int, epoch: int) -> np.ndarray:
    """The order of one epoch: int64 (count,), each of 0 .. count-1 once."""
    return np.argsort(bits(np.arange(count), seed, epoch), kind="stable")


def shuffled(count: int, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """The endless shuffled order over `count` examples, a new permutation each epoch.

    Args:
      count: number of examples.
      seed: seed of the order.
    Returns:
      a function from positions in the stream, int (N,), to indices of examples, int64 (N,). Position p lies
      in epoch p // count. It keeps two permutations, so that batches across the border of epochs stay cheap.
    """
    epoch_order = functools.lru_cache(maxsize=2)(lambda epoch: permutation(count, seed, epoch))

    def indices(positions: np.ndarray) -> np.ndarray:
        epochs, within = np.divmod(np.asarray(positions, np.int64), count)
        out = np.empty(within.shape, np.int64)
        for epoch in np.unique(epochs):
            in_epoch = epochs == epoch
            out[in_epoch] = epoch_order(int(epoch))[within[in_epoch]]
        return out

    return indices
