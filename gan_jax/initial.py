"""Fresh parameters without a compiler: a network's `init` is traced, and numpy computes what its parameters need.

Compiled, the initialisers of a StyleGAN2 are fifty draws of random numbers of twenty shapes, each expanded into a
hundred operations: a quarter of a minute for what takes milliseconds. Here `init` is traced alone, the forward pass
that no parameter needs is left out, and each remaining operation is numpy's; what numpy has no rule for runs on JAX,
one by one. Random bits are those of JAX's Threefry (Salmon et al. 2011), so that a seed means the same draws.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.extend import core

_CHUNK = 1 << 15  # counters at a time, so that they stay in a core's cache


def evaluate(function: Callable, *arguments: Any) -> Any:
    """What `function(*arguments)` returns, as numpy arrays; only what its results need is computed.

    Args:
      function: traceable by JAX, of arrays and typed keys.
      arguments: pytrees of arrays and keys.
    Returns:
      The function's tree; its leaves are numpy arrays, and keys where it returns keys.
    """
    if jax.config.jax_default_prng_impl != "threefry2x32" or not jax.config.jax_threefry_partitionable:
        return jax.device_get(jax.jit(function)(*arguments))
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
    inputs = [_on_host(x) for x in jax.tree.leaves(arguments)]
    outputs = _run(closed, inputs)
    leaves = [_typed(x, var.aval) for x, var in zip(outputs, closed.jaxpr.outvars, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves)


def _run(closed: core.ClosedJaxpr, inputs: list) -> list:
    """Values of a jaxpr's outputs. A key is its data, uint32 (..., 2), throughout."""
    jaxpr = closed.jaxpr
    values = dict(zip(jaxpr.constvars, map(_on_host, closed.consts), strict=True))
    values |= dict(zip(jaxpr.invars, inputs, strict=True))

    def read(atom):
        return np.asarray(atom.val) if isinstance(atom, core.Literal) else values[atom]

    for equation in _needed(jaxpr):
        results = _apply(equation, [read(atom) for atom in equation.invars])
        values |= dict(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _needed(jaxpr) -> list:
    """The equations that some output depends on, in order."""
    atoms = {atom for atom in jaxpr.outvars if not isinstance(atom, core.Literal)}
    equations = []
    for equation in reversed(jaxpr.eqns):
        if any(var in atoms for var in equation.outvars):
            equations.append(equation)
            atoms.update(atom for atom in equation.invars if not isinstance(atom, core.Literal))
    return equations[::-1]


def _apply(equation, inputs: list) -> list:
    name, params = equation.primitive.name, equation.params
    if name in ("jit", "pjit"):
        return _run(params["jaxpr"], inputs)
    if name in _RULES and _in_scope(equation):
        out = equation.outvars[0].aval
        result = np.asarray(_RULES[name](*inputs, **({"out": out, "params": params} if name in _BY_SHAPE else {})))
        return [result.astype(np.uint32 if _is_key(out) else out.dtype, copy=False)]
    return _on_jax(equation, inputs)


def _in_scope(equation) -> bool:
    """Whether a rule holds for these operands: single keys and 32 bits, and not what numpy and JAX do differently."""
    name, operands = equation.primitive.name, [atom.aval for atom in equation.invars]
    if name in ("random_wrap", "random_unwrap"):
        return True
    if name.startswith("random_"):
        return equation.params.get("bit_width", 32) == 32 and all(operand.shape == () for operand in operands)
    if any(map(_is_key, (*operands, *(var.aval for var in equation.outvars)))):
        return False
    kinds = {"div": np.inexact, "shift_right_logical": np.unsignedinteger}
    return name not in kinds or np.issubdtype(operands[0].dtype, kinds[name])


def _on_jax(equation, inputs: list) -> list:
    """What numpy has no rule for, as a jaxpr of that one equation."""
    variables = {atom: x for atom, x in zip(equation.invars, inputs, strict=True) if not isinstance(atom, core.Literal)}
    jaxpr = core.Jaxpr((), list(variables), equation.outvars, [equation], equation.effects)
    function = core.jaxpr_as_fun(core.ClosedJaxpr(jaxpr, ()))
    results = function(*(_typed(x, atom.aval) for atom, x in variables.items()))
    return [_on_host(x) for x in results]


def _is_key(aval) -> bool:
    return jax.dtypes.issubdtype(aval.dtype, jax.dtypes.prng_key)


def _on_host(x):
    if hasattr(x, "dtype") and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
        return np.asarray(jax.random.key_data(x))
    return np.asarray(x)


def _typed(x: np.ndarray, aval):
    return jax.random.wrap_key_data(x) if _is_key(aval) else x


def threefry(key: np.ndarray, high: np.ndarray, low: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Threefry-2x32 with 20 rounds (Salmon et al. 2011): two words of 32 bits for each counter (high, low).

    Args:
      key: uint32 (2,).
      high, low: uint32 (N,), both of one shape.
    """
    keys = (key[0], key[1], key[0] ^ key[1] ^ np.uint32(0x1BD11BDA))
    x, y = high + keys[0], low + keys[1]
    spare = np.empty_like(y)
    for block in range(5):
        for turn in ((13, 15, 26, 6), (17, 29, 16, 24))[block % 2]:
            x += y
            np.right_shift(y, np.uint32(32 - turn), out=spare)
            np.left_shift(y, np.uint32(turn), out=y)
            y |= spare
            y ^= x
        x += keys[(block + 1) % 3]
        y += keys[(block + 2) % 3] + np.uint32(block + 1)
    return x, y


def _bits(key, *, out, params):
    """Word i is that of the counter i, whatever the shape."""
    words = np.empty(out.size, np.uint32)
    for begin in range(0, out.size, _CHUNK):
        counters = np.arange(begin, min(begin + _CHUNK, out.size), dtype=np.uint64)
        x, y = threefry(key, (counters >> np.uint64(32)).astype(np.uint32), counters.astype(np.uint32))
        np.bitwise_xor(x, y, out=words[begin : begin + _CHUNK])
    return words.reshape(out.shape)


def _fold_in(key, data):
    x, y = threefry(key, np.zeros(1, np.uint32), np.asarray(data, np.uint32).reshape(1))
    return np.concatenate([x, y])


def _split(key, *, out, params):
    counters = np.arange(out.size, dtype=np.uint32)
    return np.stack(threefry(key, np.zeros_like(counters), counters), -1).reshape(*out.shape, 2)


def _broadcast(x, *rest, out, params):
    places = params["broadcast_dimensions"]
    shape = [1] * len(out.shape)
    for place, side in zip(places, x.shape, strict=True):
        shape[place] = side
    return np.broadcast_to(x.reshape(shape), out.shape)


def _window(params) -> tuple[slice, ...]:
    steps = params["strides"] or (1,) * len(params["start_indices"])
    return tuple(map(slice, params["start_indices"], params["limit_indices"], steps))


def _bitcast(x, *, out, params):
    return np.ascontiguousarray(x).view(out.dtype)


def _erf_inv(x: np.ndarray) -> np.ndarray:
    """Giles' approximation in single precision (2010, "Approximating the erfinv function"), as XLA has it."""
    x = x.astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        w = -np.log1p(-x * x)
        near = _polynomial(_NEAR_ZERO, w - np.float32(2.5))
        far = _polynomial(_NEAR_ONE, np.sqrt(w) - np.float32(3))
        return np.where(np.abs(x) == 1, x * np.float32(np.inf), np.where(w < 5, near, far) * x)


def _polynomial(coefficients: tuple[float, ...], x: np.ndarray) -> np.ndarray:
    total = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        total = total * x + np.float32(coefficient)
    return total


_NEAR_ZERO = (2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503,
              -0.00417768164, 0.246640727, 1.50140941)  # fmt: skip
_NEAR_ONE = (-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613,
             0.00943887047, 1.00167406, 2.83297682)  # fmt: skip
_RULES = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "max": np.maximum, "min": np.minimum, "neg": np.negative,
    "sqrt": np.sqrt, "square": np.square, "erf_inv": _erf_inv, "or": np.bitwise_or, "and": np.bitwise_and,
    "xor": np.bitwise_xor, "shift_right_logical": np.right_shift, "copy": np.asarray, "copy_p": np.asarray,
    "random_fold_in": _fold_in, "random_bits": _bits, "random_split": _split, "broadcast_in_dim": _broadcast,
    "bitcast_convert_type": _bitcast,
    "div": np.divide, "random_seed": lambda seed, **_: np.array([0, int(seed) % 2**32], np.uint32),
    "random_unwrap": np.asarray,
    "random_wrap": lambda data, **_: data,
    "convert_element_type": lambda x, *, out, params: x.astype(out.dtype),
    "cos": np.cos, "sin": np.sin, "slice": lambda x, *, out, params: x[_window(params)],
    "reduce_sum": lambda x, *, out, params: x.sum(tuple(params["axes"]), dtype=out.dtype),
    "reshape": lambda x, *rest, out, params: x.reshape(out.shape),
    "squeeze": lambda x, *, out, params: x.reshape(out.shape),
}  # fmt: skip
_BY_SHAPE = frozenset(
    "random_bits random_split random_seed random_wrap broadcast_in_dim bitcast_convert_type convert_element_type "
    "reduce_sum reshape slice squeeze".split()
)
