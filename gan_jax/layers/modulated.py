"""Convolution with resampling, and convolutions modulated by styles (Karras et al. 2020 and 2021).

A modulated kernel s_i w_{kio} differs from sample to sample. Here the activations are scaled instead, before
and after one convolution that all samples share: no grouped convolution, no kernels per sample.
"""

import jax
import jax.numpy as jnp
from jax import lax

from gan_jax.layers.channels import along_channels
from gan_jax.layers.conv import Padding, conv, conv_transpose
from gan_jax.layers.fir import Taps, as_padding, kernel_size, upfirdn2d


def resample_conv(
    x: jax.Array,
    w: jax.Array,
    *,
    up: int = 1,
    down: int = 1,
    taps: Taps = None,
    padding: int | Padding = 0,
    flip_weight: bool = True,
    flip_filter: bool = False,
) -> jax.Array:
    """Enlarges x (B, H, W, I) by `up`, convolves with w (kh, kw, I, O), shrinks by `down` -> (B, h, w, O).

    The image is low-passed with `taps` (K,) or (kh, kw) of sum 1 after zeros are inserted and before it is
    decimated. `padding` is in pixels of the enlarged image and kh // 2 keeps it at H * up / down. w is a
    correlation kernel, without `flip_weight` it is a convolution kernel (rotated by 180 degrees); the filter
    is a convolution unless `flip_filter`. Filters and convolution commute: the cheapest order is taken.
    """

    def fir(x, **options):
        return upfirdn2d(x, taps, flip=flip_filter, **options)

    pads = _total_padding(as_padding(padding), taps, up, down)
    point = w.shape[:2] == (1, 1)
    if up == down == 1:
        return conv(x, w if flip_weight else w[::-1, ::-1], 1, pads)
    if point and up == 1:
        return conv(fir(x, down=down, padding=pads), w)
    if point and down == 1:
        return fir(conv(x, w), up=up, padding=pads, gain=up**2)
    if up == 1:
        return conv(fir(x, padding=pads), w if flip_weight else w[::-1, ::-1], down)
    # The transposed convolution is a convolution of the zero-inserted image, with k - 1 zeros before it.
    x = conv_transpose(x, w[::-1, ::-1] if flip_weight else w, up)
    pads = tuple((low - k + 1, high - k + up) for (low, high), k in zip(pads, w.shape[:2], strict=True))
    x = fir(x, padding=pads, gain=up**2)
    return fir(x, down=down) if down > 1 else x


def modulated_conv(
    x: jax.Array,
    w: jax.Array,
    styles: jax.Array,
    *,
    up: int = 1,
    down: int = 1,
    taps: Taps = None,
    padding: int | Padding | None = None,  # None: kh // 2
    demodulate: bool = True,
    flip_weight: bool | None = None,  # None: correlation, but convolution where `up` > 1, as the networks
    noise: jax.Array | None = None,
) -> jax.Array:
    """StyleGAN2's modulated convolution (eq. 1, 3) of x (B, H, W, I), w (kh, kw, I, O), styles (B, I).

    Sample b is convolved with s_bi w_kio, divided under `demodulate` by sqrt(sum_ki (s_bi w_kio)^2 + 1e-8),
    which is computed in float32. `noise`, of a shape that broadcasts to (B, h, w, 1), is added afterwards.
    `resample_conv` tells the rest.
    """
    assert styles.shape == (x.shape[0], x.shape[3]), (styles.shape, x.shape)
    if demodulate:
        styles, w = _wide(styles), _wide(w)
        if x.dtype == jnp.float16:  # demodulation undoes both: they only keep sums within float16's range
            size = w.shape[0] * w.shape[1] * w.shape[2]
            w = w / (jnp.max(jnp.abs(w), (0, 1, 2), keepdims=True) * size**0.5)
            styles = styles / jnp.max(jnp.abs(styles), 1, keepdims=True)
        scale = _demodulation(w, styles)
    padding = tuple((k // 2, k // 2) for k in w.shape[:2]) if padding is None else padding
    flip_weight = up == 1 if flip_weight is None else flip_weight
    x = x * along_channels(styles, x)
    options = {"up": up, "down": down, "taps": taps, "padding": padding, "flip_weight": flip_weight}
    y = resample_conv(x, w.astype(x.dtype), **options)
    if demodulate:
        y = y * along_channels(scale, y)
    return y if noise is None else y + noise.astype(y.dtype)


def modulated_conv3(
    x: jax.Array,
    w: jax.Array,
    styles: jax.Array,
    *,
    padding: int | Padding = 0,
    demodulate: bool = True,
    input_gain: jax.Array | None = None,
) -> jax.Array:
    """StyleGAN3's modulated convolution of x (B, H, W, I), w (kh, kw, I, O), styles (B, I) -> (B, h, w, O).

    Under `demodulate`, w is first brought to unit mean square per output and the styles to unit mean square
    over the whole array. `input_gain`, a scalar, (I,) or (B, I), scales the input and is not demodulated.
    """
    assert styles.shape == (x.shape[0], x.shape[3]), (styles.shape, x.shape)
    if demodulate:
        styles, w = _wide(styles), _wide(w)
        w = w * lax.rsqrt(jnp.mean(jnp.square(w), (0, 1, 2), keepdims=True))
        styles = styles * lax.rsqrt(jnp.mean(jnp.square(styles)))
        scale = _demodulation(w, styles)
    if input_gain is not None:
        styles = styles * input_gain
    y = conv(x * along_channels(styles, x), w.astype(x.dtype), 1, as_padding(padding))
    return y * along_channels(scale, y) if demodulate else y


def _demodulation(w: jax.Array, styles: jax.Array) -> jax.Array:
    """1 / |s_b w_o| (B, O) of w (kh, kw, I, O) and styles (B, I), without the kernel of each sample."""
    energy = jnp.sum(jnp.square(w), (0, 1))
    return lax.rsqrt(jnp.matmul(jnp.square(styles), energy, precision="highest") + 1e-8)


def _wide(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _total_padding(padding: Padding, taps: Taps, up: int, down: int) -> Padding:
    """Zeros around the zero-inserted image for the convolution and both filters together."""
    result = []
    for (low, high), k in zip(padding, kernel_size(taps), strict=True):
        if up > 1:
            low, high = low + (k + up - 1) // 2, high + (k - up) // 2
        if down > 1:
            low, high = low + (k - down + 1) // 2, high + (k - down) // 2
        result.append((low, high))
    return tuple(result)
