"""StyleGAN3's filtered nonlinearity and its low-pass filters (Karras et al. 2021, appendix C)."""

import math

import jax
import numpy as np

from gan_jax.layers.activation import bias_act
from gan_jax.layers.conv import Padding
from gan_jax.layers.fir import Taps, upfirdn2d


def filtered_lrelu(
    x: jax.Array,
    bias: jax.Array | None = None,
    *,
    up_taps: Taps = None,  # (K,) separable, (kh, kw), or None: identity
    down_taps: Taps = None,
    up: int = 1,
    down: int = 1,
    padding: int | Padding = 0,  # ((top, bottom), (left, right)) on the enlarged image; negative crops
    gain: float = math.sqrt(2),
    slope: float = 0.2,
    clamp: float | None = None,
    flip: bool = False,  # filter by correlation instead of convolution
) -> jax.Array:
    """Leaky ReLU at a higher sampling rate: x (B, H, W, C), bias (C,) -> (B, h, w, C).

    Adds the bias, enlarges by `up` (times up ** 2), takes clamp(gain * lrelu), filters and shrinks by `down`;
    h = (H * up + top + bottom - (up taps - 1) - (down taps - 1) + down - 1) // down.
    """
    x = bias_act(x, bias, activation="linear")
    x = upfirdn2d(x, up_taps, up=up, padding=padding, gain=up**2, flip=flip)
    x = bias_act(x, activation="lrelu", alpha=slope, gain=gain, clamp=clamp)
    return upfirdn2d(x, down_taps, down=down, flip=flip)


def lowpass_taps(
    numtaps: int,
    cutoff: float,
    width: float,
    fs: float,
    *,
    radial: bool = False,
) -> np.ndarray | None:
    """Kaiser-windowed low-pass filter of DC gain 1: (numtaps,), radial (numtaps, numtaps), None for one tap.

    `cutoff` and the transition band's `width` have the units of the sampling rate `fs`, with 0 < cutoff <
    fs / 2. The ideal filters are sinc(2 fc t) and, rotationally symmetric, jinc: J1(2 pi fc r) / r.
    """
    assert numtaps >= 1 and 0 < cutoff < fs / 2, (numtaps, cutoff, fs)
    if numtaps == 1:
        return None
    window = np.kaiser(numtaps, _kaiser_beta(numtaps, width / (fs / 2)))
    t = (np.arange(numtaps) - (numtaps - 1) / 2) / fs
    if radial:
        from scipy.special import j1

        r = np.pi * np.hypot(t[:, None], t)
        safe = np.where(r > 0, r, 1)
        taps = np.where(r > 0, j1(2 * cutoff * safe) / safe, cutoff) * np.outer(window, window)
    else:
        taps = np.sinc(2 * cutoff * t) * window
    return taps / taps.sum()


def _kaiser_beta(numtaps: int, width: float) -> float:
    """Kaiser's formula: the window of `numtaps` whose transition takes `width` of the band up to fs / 2."""
    attenuation = 2.285 * (numtaps - 1) * np.pi * width + 7.95  # decibels
    if attenuation > 50:
        return 0.1102 * (attenuation - 8.7)
    if attenuation > 21:
        return 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    return 0.0
