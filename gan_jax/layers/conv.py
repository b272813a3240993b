"""Convolutions closed under differentiation.

Three bilinear maps, each a `custom_vjp` whose derivatives are the other two, so that reverse derivatives of
any order are again plain convolutions. JAX's own derivatives of strided and transposed convolutions have
reversed and dilated windows as large as the image, which XLA computes slowly. The scheme is that of NVIDIA's
`conv2d_gradfix` (Karras et al. 2020, official code), written for NHWC / HWIO. As for every `custom_vjp` there
is no forward-mode derivative.

    _conv(x, w)    x (B, H, W, I), w (kh, kw, I, O) -> (B, h, w, O)
    _tconv(g, w)   its transpose in x: g (B, h, w, O) -> (B, H, W, I)
    _wgrad(x, g)   its transpose in w: -> (kh, kw, I, O)

With groups, output channels of group k see the input channels of group k alone: w is (kh, kw, I / groups, O).

Each map is one operation of XLA. What a CPU does instead stands in `layers.conv_cpu`, which each map asks once.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from gan_jax.layers import conv_cpu
from gan_jax.layers.by_platform import by_platform
from gan_jax.layers.channels import varying_axes

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]
Triple = tuple[int, int, int]
Padding3D = tuple[Pair, Pair, Pair]
_NHWC = ("NHWC", "HWIO", "NHWC")


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
    x, w = _same_dtype_and_axes(x, w)
    return _conv(x, w, as_pair(stride), _pads(padding), groups)


def conv_dilated(x: jax.Array, w: jax.Array, dilation: int, padding: Padding = ((0, 0), (0, 0))) -> jax.Array:
    """`conv` of x (B, H, W, I) with w (kh, kw, I, O), whose values lie `dilation` pixels apart.

    It is one convolution of the pictures that every `dilation`-th row and column make.
    """
    x = jnp.pad(x, ((0, 0), *_pads(padding), (0, 0)))
    sides = tuple(n - (k - 1) * dilation for n, k in zip(x.shape[1:3], w.shape[:2], strict=True))
    x = jnp.pad(x, ((0, 0), *((0, -n % dilation) for n in x.shape[1:3]), (0, 0)))
    batch, height, width, channels = x.shape
    rows, columns = height // dilation, width // dilation
    x = x.reshape(batch, rows, dilation, columns, dilation, channels).transpose(2, 4, 0, 1, 3, 5)
    y = conv(x.reshape(-1, rows, columns, channels), w)
    rows, columns = y.shape[1:3]
    y = y.reshape(dilation, dilation, batch, rows, columns, -1).transpose(2, 3, 0, 4, 1, 5)
    return y.reshape(batch, rows * dilation, columns * dilation, -1)[:, : sides[0], : sides[1]]


def conv_3d(x: jax.Array, w: jax.Array, stride: Triple = (1, 1, 1), padding: Padding3D = ((0, 0),) * 3) -> jax.Array:
    """Correlation of clips x (B, T, H, W, I) with w (kt, kh, kw, I, O) -> (B, t, h, w, O), sizes as `conv`'s.

    It is one `conv` of all frames: what the kernel's kt frames see lies along the channels. So its derivatives are
    plain convolutions, too, and it has whatever a platform does for those. It costs memory for kt copies of x.
    """
    assert x.ndim == w.ndim == 5 and x.shape[4] == w.shape[3], (x.shape, w.shape)
    x = jnp.pad(x, ((0, 0), padding[0], (0, 0), (0, 0), (0, 0)))
    taps, step = w.shape[0], stride[0]
    count = (x.shape[1] - taps) // step + 1
    x = jnp.concatenate([x[:, tap : tap + (count - 1) * step + 1 : step] for tap in range(taps)], -1)
    w = jnp.moveaxis(w, 0, 2).reshape(*w.shape[1:3], taps * w.shape[3], w.shape[4])
    y = conv(x.reshape(-1, *x.shape[2:]), w, tuple(stride[1:]), padding[1:])
    return y.reshape(-1, count, *y.shape[1:])


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
    x, w = _same_dtype_and_axes(x, w)
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


def _same_dtype_and_axes(x: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array]:
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
    if _covers_image(x.shape[1:3], w, padding, groups):
        y = x.reshape(x.shape[0], -1) @ w.reshape(-1, w.shape[3])
        return y[:, None, None, :]

    def plain(x, w):
        return _correlate(x, w, groups, window_strides=stride, padding=padding)

    size = jax.eval_shape(plain, x, w).shape
    ungrouped = partial(_conv, stride=stride, padding=padding, groups=1)
    return _on_platform(x, w, conv_cpu.conv(x, w, size, stride, padding, groups, ungrouped), plain)


def _on_platform(a: jax.Array, b: jax.Array, cpu: Callable | None, default: Callable) -> jax.Array:
    """default(a, b), or on a CPU what it has instead."""
    return default(a, b) if cpu is None else by_platform(a, b, cpu=cpu, default=default)


def _correlate(x, w, groups, **options):
    return lax.conv_general_dilated(x, w, dimension_numbers=_NHWC, feature_group_count=groups, **options)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4, 5))
def _tconv(g, w, stride, padding, size, groups):
    if _covers_image(size, w, padding, groups):
        x = g[:, 0, 0, :] @ w.reshape(-1, w.shape[3]).T
        return x.reshape(g.shape[0], *w.shape[:3])

    def plain(g, w):
        return _dilated(g, w, stride, padding, size, groups)

    ungrouped = partial(_tconv, stride=stride, padding=padding, size=size, groups=1)
    return _on_platform(g, w, conv_cpu.tconv(g, w, stride, padding, size, groups, ungrouped), plain)


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
        pads.append((low, k + (m - 1) * s - n - low))  # g, dilated, has as many places in x as there are taps

    def plain(x, g):
        # XLA:GPU recognises cuDNN's backward-filter convolution by this layout, that of JAX's own derivative.
        numbers, options = ("CHWN", "IHWO", "HWNC"), {"window_strides": (1, 1), "padding": pads, "rhs_dilation": stride}
        return lax.conv_general_dilated(x, g, dimension_numbers=numbers, batch_group_count=groups, **options)

    ungrouped = partial(_wgrad, stride=stride, padding=padding, kernel=kernel, groups=1)
    return _on_platform(x, g, conv_cpu.wgrad(x, g, stride, padding, pads, kernel, groups, ungrouped), plain)


def _covers_image(size, w, padding, groups):
    """Whether the window is the image: a matrix product, which spares `_tconv` its products with padding."""
    return groups == 1 and size == w.shape[:2] and padding == ((0, 0), (0, 0))


def _conv_forward(x, w, stride, padding, groups):
    return _conv(x, w, stride, padding, groups), (x, w)


def _conv_backward(stride, padding, groups, residuals, g):
    x, w = residuals
    return (
        _tconv(g, w, stride, padding, x.shape[1:3], groups),
        _wgrad(x, g, stride, padding, w.shape[:2], groups),
    )


def _tconv_forward(g, w, stride, padding, size, groups):
    return _tconv(g, w, stride, padding, size, groups), (g, w)


def _tconv_backward(stride, padding, size, groups, residuals, x):
    g, w = residuals
    return _checked_shape(_conv(x, w, stride, padding, groups), g), _wgrad(x, g, stride, padding, w.shape[:2], groups)


def _wgrad_forward(x, g, stride, padding, kernel, groups):
    return _wgrad(x, g, stride, padding, kernel, groups), (x, g)


def _wgrad_backward(stride, padding, kernel, groups, residuals, w):
    x, g = residuals
    return (
        _tconv(g, w, stride, padding, x.shape[1:3], groups),
        _checked_shape(_conv(x, w, stride, padding, groups), g),
    )


def _checked_shape(y, like):
    assert y.shape == like.shape, (y.shape, like.shape)
    return y


_conv.defvjp(_conv_forward, _conv_backward)
_tconv.defvjp(_tconv_forward, _tconv_backward)
_wgrad.defvjp(_wgrad_forward, _wgrad_backward)
