"""What XLA:CPU computes instead of the convolutions of `layers.conv`, where it gains by it.

Other platforms see through a product of matrices, know many groups and choose layouts and algorithms themselves. Each
function here takes the operands of one of the three maps, of which it reads shapes and types alone, and returns another
way to the same values, as a function of the operands; None leaves them to XLA. `ungrouped` is the map itself with one
group, for the parts into which groups are dealt.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from gan_jax.layers import im2col, winograd
from gan_jax.layers.winograd import Padding, Pair

_NHWC = ("NHWC", "HWIO", "NHWC")  # the layouts that XLA:CPU computes fast
_FEW_GROUPS = 8  # up to here XLA:CPU is faster, up to fourfold, with zeros between the groups
_PART = 32  # channels at which many groups are dealt into parts, again with zeros between a part's groups


def conv(
    x: jax.Array,  # (B, H, W, I)
    w: jax.Array,  # (kh, kw, I / groups, O)
    size: tuple[int, ...],  # (B, h, w, O), of the result
    stride: Pair,
    padding: Padding,
    groups: int,
    ungrouped: Callable,
) -> Callable | None:
    """Another way to correlate x with w."""
    kernel = w.shape[:2]
    if count := _parts(x.shape, size, kernel, groups):
        return partial(_in_parts, ungrouped, count, groups)
    if _pointwise(kernel, stride, padding, groups):
        return lambda x, w: x @ w[0, 0]
    if algorithm := _algorithm("conv", x.dtype, x.shape, size, kernel, stride, groups):
        return partial(_in_float32, partial(algorithm.conv, stride=stride, padding=padding, size=size[1:3]))
    return None


def tconv(
    g: jax.Array,  # (B, h, w, O)
    w: jax.Array,  # (kh, kw, I / groups, O)
    stride: Pair,
    padding: Padding,
    size: Pair,  # (H, W), of the result
    groups: int,
    ungrouped: Callable,
) -> Callable | None:
    """Another way to the transpose in x."""
    kernel, shape = w.shape[:2], (g.shape[0], *size, w.shape[2] * groups)
    if count := _parts(shape, g.shape, kernel, groups):
        return partial(_in_parts, ungrouped, count, groups)
    if _pointwise(kernel, stride, padding, groups) and size == g.shape[1:3]:
        return lambda g, w: g @ w[0, 0].T
    if algorithm := _algorithm("tconv", g.dtype, shape, g.shape, kernel, stride, groups):
        return partial(_in_float32, partial(algorithm.tconv, stride=stride, padding=padding, size=size))
    return None


def wgrad(
    x: jax.Array,  # (B, H, W, I)
    g: jax.Array,  # (B, h, w, O)
    stride: Pair,
    padding: Padding,
    pads: list[Pair],  # of x, with which g, dilated by the stride, has as many places in it as there are taps
    kernel: Pair,
    groups: int,
    ungrouped: Callable,
) -> Callable:
    """Another way to the transpose in w; there always is one.

    XLA:CPU rewrites other layouts than NHWC / HWIO outside of loops only, and computes the rest slowly.
    """
    if count := _parts(x.shape, g.shape, kernel, groups):
        return partial(_wgrad_in_parts, ungrouped, count, groups)
    if algorithm := _algorithm("wgrad", x.dtype, x.shape, g.shape, kernel, stride, groups):
        return partial(_in_float32, partial(algorithm.wgrad, stride=stride, padding=padding, kernel=kernel))
    if _pointwise(kernel, stride, padding, groups):
        return _pointwise_wgrad
    return partial(_canonical_wgrad, stride=stride, pads=pads, kernel=kernel, groups=groups)


# Fewer products, or products of matrices.


def _algorithm(kind, dtype, x, g, kernel, stride, groups):
    """The module that computes the map of these shapes faster than XLA:CPU; None where none does."""
    if groups != 1 or dtype not in (jnp.float32, jnp.bfloat16):
        return None
    return next((module for module in (im2col, winograd) if module.pays(kind, x, g, kernel, stride)), None)


def _in_float32(bilinear, a, b):
    """XLA:CPU computes bfloat16 so, too; results are rounded once."""
    return bilinear(a.astype(jnp.float32), b.astype(jnp.float32)).astype(a.dtype)


def _pointwise(kernel, stride, padding, groups):
    """Whether it is a matrix product at every pixel. XLA:CPU, unlike others, does not see that."""
    return groups == 1 and (*kernel, *stride) == (1, 1, 1, 1) and padding == ((0, 0), (0, 0))


def _pointwise_wgrad(x, g):
    sums = jnp.promote_types(x.dtype, jnp.float32)
    w = jnp.matmul(x.reshape(-1, x.shape[3]).T, g.reshape(-1, g.shape[3]), preferred_element_type=sums)
    return w.astype(x.dtype)[None, None]


# Groups.


def _parts(x, g, kernel, groups):
    """Into how many parts of whole groups a convolution of shapes x and g is dealt; 0: left to XLA."""
    if groups == 1 or not all(isinstance(side, int) for side in (*x, *g)):
        return 0
    narrow, products = min(x[3], g[3]) // groups, math.prod(g) * math.prod(kernel) * (x[3] // groups)
    least_channels = _PART if products >= winograd.LEAST_PRODUCTS else narrow * groups
    size = next(n for n in range(1, groups + 1) if groups % n == 0 and (n * narrow >= least_channels or n == groups))
    return groups // size if size <= _FEW_GROUPS else 0


@jax.named_scope(winograd.SCOPE)
def _in_parts(ungrouped, count, groups, x, w):
    """x (B, H, W, C) with w (kh, kw, c, O), part by part, each with a kernel that is zero between its groups."""

    def one(part):
        x, w = part
        return ungrouped(x, _block_diagonal(w, groups // count))

    return _map_parts(one, count, x, w)


def _wgrad_in_parts(ungrouped, count, groups, x, g):
    """The gradients of those kernels, without what lies between the groups."""
    return _map_parts(lambda part: _diagonal_blocks(ungrouped(*part), groups // count), count, x, g)


def _map_parts(one, count, a, b):
    if count == 1:
        return one((a, b))
    return _join_channels(lax.map(one, (_split_channels(a, count), _split_channels(b, count))))


def _split_channels(x, count):
    """(..., C) -> (count, ..., C / count)"""
    return jnp.moveaxis(x.reshape(*x.shape[:-1], count, -1), -2, 0)


def _join_channels(x):
    x = jnp.moveaxis(x, 0, -2)
    return x.reshape(*x.shape[:-2], -1)


def _block_diagonal(w, groups):
    """(kh, kw, I / groups, O) -> (kh, kw, I, O), zero where input and output are of different groups."""
    kh, kw, i, o = w.shape
    same = jnp.eye(groups, dtype=bool)[:, None, :, None]
    return jnp.where(same, w.reshape(kh, kw, 1, i, groups, o // groups), 0).reshape(kh, kw, groups * i, o)


def _diagonal_blocks(w, groups):
    """The transpose of `_block_diagonal`."""
    kh, kw, i, o = w.shape
    w = w.reshape(kh, kw, groups, i // groups, groups, o // groups)
    return jnp.diagonal(w, axis1=2, axis2=4).swapaxes(3, 4).reshape(kh, kw, i // groups, o)


# The gradient of the weights.


def _canonical_wgrad(x, g, stride, pads, kernel, groups):
    """As a convolution in the layout that XLA:CPU computes fast, with sums in float32."""
    (b, h, w, c), dtype = x.shape, x.dtype
    wide = jnp.promote_types(dtype, jnp.float32)  # bfloat16 takes up to five times as long
    x, g = x.astype(wide), g.astype(wide)
    dilated = partial(lax.conv_general_dilated, window_strides=(1, 1), rhs_dilation=stride, dimension_numbers=_NHWC)
    if groups == 1 and stride == (1, 1) and g.shape[1] * g.shape[2] > h * w:
        # XLA would make the larger one the image itself, in a layout that takes it a hundred times as long.
        pads = [(k - 1 - low, k - 1 - high) for k, (low, high) in zip(kernel, pads, strict=True)]
        reverse = dilated(g.transpose(3, 1, 2, 0), x.transpose(1, 2, 0, 3), padding=pads)
        return reverse[:, ::-1, ::-1].transpose(1, 2, 3, 0).astype(dtype)
    x = x.reshape(b, h, w, groups, c // groups).transpose(4, 1, 2, 3, 0)
    x, g = x.reshape(c // groups, h, w, groups * b), g.transpose(1, 2, 0, 3)
    return dilated(x, g, feature_group_count=groups, padding=pads).transpose(1, 2, 0, 3).astype(dtype)
