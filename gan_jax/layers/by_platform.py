"""One of two computations, by the platform that a program is lowered for.

As `lax.platform_dependent`, which leaves two branchings with all their branches in a program for each of its uses.
"""

from collections.abc import Callable
from functools import partial

import jax
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir

_primitive = Primitive("by_platform")


def by_platform(*operands: jax.Array, cpu: Callable, default: Callable) -> jax.Array:
    """cpu(*operands) on a CPU, else default(*operands): one array. Without derivatives; those are the caller's."""
    return _primitive.bind(*operands, cpu=cpu, default=default)


@_primitive.def_impl
def _outside_of_programs(*operands, cpu, default):
    return jax.jit(partial(by_platform, cpu=cpu, default=default))(*operands)


@_primitive.def_abstract_eval
def _type(*operands, cpu, default):
    result = jax.eval_shape(default, *(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in operands))
    return operands[0].update(shape=result.shape, dtype=result.dtype)  # varies over the same axes of the mesh


def _batched(operands, axes, *, cpu, default):
    return by_platform(*operands, cpu=jax.vmap(cpu, axes), default=jax.vmap(default, axes)), 0


batching.primitive_batchers[_primitive] = _batched
for _platform in ("cpu", None):
    mlir.register_lowering(
        _primitive,
        mlir.lower_fun(
            lambda *operands, cpu, default, on=_platform: (cpu if on else default)(*operands), multiple_results=False
        ),
        platform=_platform,
    )
