"""Convolutions closed under differentiation.

Three bilinear maps, each a `custom_vjp` whose derivatives are the other two, so that reverse derivatives of
any order are again plain convolutions. JAX's own derivatives of strided and transposed convolutions have
reversed and dilated windows as large as the image, which XLA computes slowly. The scheme is that of NVIDIA's
`conv2d_gradfix` (Karras et al. 2020, official code), written for NHWC / HWIO. As for every `custom_vjp` there
is no forward-mode derivative.

    _conv(x, w)    x (B, H, W, I), w (kh, kw, I, O) -> (B, h, w, O)
    _tconv(g, w)   its transpose in x: g (B, h, w, O) -> (B, H, W, I)
    _wgrad(x, g)   its transpose in w: -> (kh, kw, I, O)

On the CPU `layers.winograd` computes those that gain by it, with fewer products.

With groups, output channels of group k see the input channels of group k alone: w is (kh, kw, I / groups, O).
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from gan_jax.layers import winograd
from gan_jax.layers.by_platform import by_platform
from gan_jax.layers.channels import varying_axes

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]
_NHWC = ("NHWC", "HWIO", "NHWC")
_FEW_GROUPS = 8  # up to here XLA:CPU is faster, up to fourfold, with zeros between the groups
_PART = 32  # channels at which many groups are dealt into parts, again with zeros between a part's groups


def conv(
    x: jax.Array,
    w: jax.Array,
    stride: int | Pair = 1,
    padding: Padding = ((0, 0), (0, 0)),
    groups: int = 1,
) -> jax.Array:
    """Correlation of x (B, H, W, I) with w (kh, kw, I / groups, O) -> (B, h, w, O).

    h = (H + top + bottom - kh) // sh + 1. `stride` is one number or (vertical, horizontal), and `padding` is
    ((top, bottom), (left, right)).
    """
    assert x.ndim == w.ndim == 4 and x.shape[3] == w.shape[2] * groups, (x.shape, w.shape, groups)
    assert w.shape[3] % groups == 0, (w.shape, groups)
    x, w = _alike(x, w)
    return _conv(x, w, as_pair(stride), _pads(padding), groups)


def conv_transpose(
    x: jax.Array,
    w: jax.Array,
    stride: int | Pair = 1,
    padding: Padding = ((0, 0), (0, 0)),
    output_padding: int | Pair = 0,
) -> jax.Array:
    """Transposed convolution of x (B, h, w, I) with w (kh, kw, I, O) -> (B, H, W, O).

    H = (h - 1) * sh + kh - top - bottom + output_padding, as `torch.nn.ConvTranspose2d`. The kernel is not
    flipped: torch's weight [I, O, kh, kw] is `w.transpose(2, 3, 0, 1)`. `padding` is that of the convolution
    whose transpose it is.
    """
    assert x.ndim == w.ndim == 4 and x.shape[3] == w.shape[2], (x.shape, w.shape)
    stride, padding, extra = as_pair(stride), _pads(padding), as_pair(output_padding)
    assert all(0 <= e < max(s, 2) for e, s in zip(extra, stride, strict=True)), (extra, stride)
    size = tuple(
        (n - 1) * s + k - sum(p) + e
        for n, s, k, p, e in zip(x.shape[1:3], stride, w.shape[:2], padding, extra, strict=True)
    )
    x, w = _alike(x, w)
    return _tconv(x, jnp.swapaxes(w, 2, 3), stride, padding, size, 1)


def same_padding(size: Pair, kernel: Pair, stride: Pair) -> Padding:
    """TensorFlow's 'SAME' padding over `size`: ceil(size / stride) outputs, an odd row goes after."""
    total = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(size, kernel, stride, strict=True)]
    return tuple((t // 2, t - t // 2) for t in total)


def as_pair(value: int | Pair) -> Pair:
    """(vertical, horizontal); one number stands for both."""
    return (value, value) if isinstance(value, int) else tuple(value)


def _pads(padding: Padding) -> Padding:
    (top, bottom), (left, right) = padding
    return (top, bottom), (left, right)


def _alike(x: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Gives both operands the same type: dtype, and under `shard_map` the same varying mesh axes.

    A `custom_vjp` must return cotangents of its inputs' types; a replicated operand is cast here, so that its
    gradient is summed over the devices as for any other operation of JAX.
    """
    dtype = jnp.promote_types(x.dtype, w.dtype)
    x, w = x.astype(dtype), w.astype(dtype)
    of_x, of_w = varying_axes(x), varying_axes(w)
    if of_w - of_x:
        x = lax.pcast(x, tuple(of_w - of_x), to="varying")
    if of_x - of_w:
        w = lax.pcast(w, tuple(of_x - of_w), to="varying")
    return x, w


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _conv(x, w, stride, padding, groups):
    if _whole(x.shape[1:3], w, padding, groups):
        y = x.reshape(x.shape[0], -1) @ w.reshape(-1, w.shape[3])
        return y[:, None, None, :]

    def plain(x, w):
        return _correlate(x, w, groups, window_strides=stride, padding=padding)

    size = jax.eval_shape(plain, x, w).shape
    if count := _parts(x.shape, size, w.shape[:2], groups):
        of_part = partial(_conv, stride=stride, padding=padding, groups=1)
        return by_platform(x, w, cpu=partial(_in_parts, of_part, count, groups), default=plain)
    if _pointwise(w.shape[:2], stride, padding, groups):
        return by_platform(x, w, cpu=lambda x, w: x @ w[0, 0], default=plain)
    if _fewer_products("conv", x, x.shape, size, w.shape[:2], stride, groups):
        fewer = partial(winograd.conv, stride=stride, padding=padding)
        return by_platform(x, w, cpu=partial(_in_float32, fewer), default=plain)
    return plain(x, w)


def _fewer_products(kind, operand, x, g, kernel, stride, groups):
    """Whether `winograd` has the map of these shapes, and XLA:CPU gains by it."""
    known = operand.dtype in (jnp.float32, jnp.bfloat16)
    return groups == 1 and known and winograd.pays(kind, x, g, kernel, stride)


def _in_float32(bilinear, a, b):
    """XLA:CPU computes bfloat16 so, too; results are rounded once."""
    return bilinear(a.astype(jnp.float32), b.astype(jnp.float32)).astype(a.dtype)


def _correlate(x, w, groups, **options):
    return lax.conv_general_dilated(x, w, dimension_numbers=_NHWC, feature_group_count=groups, **options)


def _parts(x, g, kernel, groups):
    """Into how many parts of whole groups a convolution of shapes x and g is dealt on the CPU; 0: left to XLA."""
    if groups == 1 or not all(isinstance(side, int) for side in (*x, *g)):
        return 0
    narrow, products = min(x[3], g[3]) // groups, math.prod(g) * math.prod(kernel) * (x[3] // groups)
    enough = _PART if products >= winograd.LEAST_PRODUCTS else narrow * groups
    size = next(n for n in range(1, groups + 1) if groups % n == 0 and (n * narrow >= enough or n == groups))
    return groups // size if size <= _FEW_GROUPS else 0


@jax.named_scope(winograd.SCOPE)
def _in_parts(of_part, count, groups, x, w):
    """x (B, H, W, C) with w (kh, kw, c, O), part by part: `of_part` takes a kernel that is zero between groups."""
    def one(part):
        x, w = part
        return of_part(x, _spread(w, groups // count))

    if count == 1:
        return one((x, w))
    return _joined(lax.map(one, (_dealt(x, count), _dealt(w, count))))


def _dealt(x, count):
    """(..., C) -> (count, ..., C / count)"""
    return jnp.moveaxis(x.reshape(*x.shape[:-1], count, -1), -2, 0)


def _joined(x):
    x = jnp.moveaxis(x, 0, -2)
    return x.reshape(*x.shape[:-2], -1)


def _spread(w, groups):
    """(kh, kw, I / groups, O) -> (kh, kw, I, O), zero where input and output are of different groups."""
    kh, kw, i, o = w.shape
    same = jnp.eye(groups, dtype=bool)[:, None, :, None]
    return jnp.where(same, w.reshape(kh, kw, 1, i, groups, o // groups), 0).reshape(kh, kw, groups * i, o)


def _gathered(w, groups):
    """The transpose of `_spread`."""
    kh, kw, i, o = w.shape
    w = w.reshape(kh, kw, groups, i // groups, groups, o // groups)
    return jnp.diagonal(w, axis1=2, axis2=4).swapaxes(3, 4).reshape(kh, kw, i // groups, o)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4, 5))
def _tconv(g, w, stride, padding, size, groups):
    if _whole(size, w, padding, groups):
        x = g[:, 0, 0, :] @ w.reshape(-1, w.shape[3]).T
        return x.reshape(g.shape[0], *w.shape[:3])

    def plain(g, w):
        return _dilated(g, w, stride, padding, size, groups)

    shape = (g.shape[0], *size, w.shape[2] * groups)
    if count := _parts(shape, g.shape, w.shape[:2], groups):
        of_part = partial(_tconv, stride=stride, padding=padding, size=size, groups=1)
        return by_platform(g, w, cpu=partial(_in_parts, of_part, count, groups), default=plain)
    if _pointwise(w.shape[:2], stride, padding, groups) and size == g.shape[1:3]:
        return by_platform(g, w, cpu=lambda g, w: g @ w[0, 0].T, default=plain)
    if _fewer_products("tconv", g, shape, g.shape, w.shape[:2], stride, groups):
        fewer = partial(winograd.tconv, stride=stride, padding=padding, size=size)
        return by_platform(g, w, cpu=partial(_in_float32, fewer), default=plain)
    return plain(g, w)


def _dilated(g, w, stride, padding, size, groups):
    """XLA's transposed convolution: that of g with zeros between its pixels."""
    pads = []
    for n, k, s, (low, _), out in zip(g.shape[1:3], w.shape[:2], stride, padding, size, strict=True):
        before = k - 1 - low
        pads.append((before, out - ((n - 1) * s + 1) - before + k - 1))
    # The reversal comes last: XLA:GPU recognises cuDNN's backward-input convolution by it.
    flipped = lax.rev(_swapped(w, groups), (0, 1))
    return _correlate(g, flipped, groups, window_strides=(1, 1), padding=pads, lhs_dilation=stride)


def _swapped(w, groups):
    """(kh, kw, I / groups, O) -> (kh, kw, O / groups, I)."""
    kh, kw, i, o = w.shape
    w = w.reshape(kh, kw, i, groups, o // groups)
    return w.transpose(0, 1, 4, 3, 2).reshape(kh, kw, o // groups, groups * i)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4, 5))
def _wgrad(x, g, stride, padding, kernel, groups):
    pads = []
    for n, m, k, s, (low, _) in zip(x.shape[1:3], g.shape[1:3], kernel, stride, padding, strict=True):
        pads.append((low, k + (m - 1) * s - n - low))
    options = {"window_strides": (1, 1), "padding": pads, "rhs_dilation": stride}

    def direct(x, g):
        numbers = ("CHWN", "IHWO", "HWNC")
        return lax.conv_general_dilated(x, g, dimension_numbers=numbers, batch_group_count=groups, **options)

    if count := _parts(x.shape, g.shape, kernel, groups):
        def canonical(x, g):
            def one(part):
                return _gathered(_wgrad(*part, stride, padding, kernel, 1), groups // count)

            return _joined(lax.map(one, (_dealt(x, count), _dealt(g, count)))) if count > 1 else one((x, g))
    elif _fewer_products("wgrad", x, x.shape, g.shape, kernel, stride, groups):
        canonical = partial(_in_float32, partial(winograd.wgrad, stride=stride, padding=padding, kernel=kernel))
    elif _pointwise(kernel, stride, padding, groups):
        def canonical(x, g):
            wide = jnp.promote_types(x.dtype, jnp.float32)
            w = jnp.matmul(x.reshape(-1, x.shape[3]).T, g.reshape(-1, g.shape[3]), preferred_element_type=wide)
            return w.astype(x.dtype)[None, None]
    else:
        canonical = partial(_canonical_wgrad, kernel=kernel, groups=groups, options=options)
    # XLA:CPU rewrites other layouts than NHWC / HWIO outside of loops only, and computes the rest slowly;
    # XLA:GPU recognises cuDNN's backward-filter convolution by the layout of JAX's own derivative.
    return by_platform(x, g, cpu=canonical, default=direct)


def _canonical_wgrad(x, g, kernel, groups, options):
    """`_wgrad` in forms that XLA:CPU computes fast."""
    (b, h, w, c), dtype = x.shape, x.dtype
    wide = jnp.promote_types(dtype, jnp.float32)  # bfloat16 takes up to five times as long
    x, g = x.astype(wide), g.astype(wide)
    dilated = partial(lax.conv_general_dilated, dimension_numbers=_NHWC)
    if groups == 1 and options["rhs_dilation"] == (1, 1) and g.shape[1] * g.shape[2] > h * w:
        # XLA would make the larger one the image itself, in a layout that takes it a hundred times as long.
        pads = [(k - 1 - low, k - 1 - high) for k, (low, high) in zip(kernel, options["padding"], strict=True)]
        options = options | {"padding": pads}
        reverse = dilated(g.transpose(3, 1, 2, 0), x.transpose(1, 2, 0, 3), **options)
        return reverse[:, ::-1, ::-1].transpose(1, 2, 3, 0).astype(dtype)
    x = x.reshape(b, h, w, groups, c // groups).transpose(4, 1, 2, 3, 0)
    x, g = x.reshape(c // groups, h, w, groups * b), g.transpose(1, 2, 0, 3)
    return dilated(x, g, feature_group_count=groups, **options).transpose(1, 2, 0, 3).astype(dtype)


def _pointwise(kernel, stride, padding, groups):
    """Whether it is a matrix product at every pixel. XLA:CPU, unlike others, does not see that."""
    return groups == 1 and (*kernel, *stride) == (1, 1, 1, 1) and padding == ((0, 0), (0, 0))


def _whole(size, w, padding, groups):
    """Whether the window is the image: a matrix product, which spares `_tconv` its products with padding."""
    return groups == 1 and size == w.shape[:2] and padding == ((0, 0), (0, 0))


def _conv_forward(x, w, stride, padding, groups):
    return _conv(x, w, stride, padding, groups), (x, w)


def _conv_backward(stride, padding, groups, saved, g):
    x, w = saved
    return (
        _tconv(g, w, stride, padding, x.shape[1:3], groups),
        _wgrad(x, g, stride, padding, w.shape[:2], groups),
    )


def _tconv_forward(g, w, stride, padding, size, groups):
    return _tconv(g, w, stride, padding, size, groups), (g, w)


def _tconv_backward(stride, padding, size, groups, saved, x):
    g, w = saved
    return _exact(_conv(x, w, stride, padding, groups), g), _wgrad(x, g, stride, padding, w.shape[:2], groups)


def _wgrad_forward(x, g, stride, padding, kernel, groups):
    return _wgrad(x, g, stride, padding, kernel, groups), (x, g)


def _wgrad_backward(stride, padding, kernel, groups, saved, w):
    x, g = saved
    return (
        _tconv(g, w, stride, padding, x.shape[1:3], groups),
        _exact(_conv(x, w, stride, padding, groups), g),
    )


def _exact(y, like):
    assert y.shape == like.shape, (y.shape, like.shape)
    return y


_conv.defvjp(_conv_forward, _conv_backward)
_tconv.defvjp(_tconv_forward, _tconv_backward)
_wgrad.defvjp(_wgrad_forward, _wgrad_backward)
