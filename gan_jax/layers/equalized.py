"""Layers with an equalized learning rate (Karras et al. 2018, section 4.1).

Kernels are stored as N(0, 1) and scaled by gain / sqrt(fan-in) whenever they are used, so that Adam moves all
of them at the same relative speed. Parameters are float32 under 'kernel' and 'bias', unscaled; `dtype` is
that of the computation and of the output.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax.layers.activation import activation_gain, bias_act
from gan_jax.layers.conv import Pair, as_pair
from gan_jax.layers.fir import normalised
from gan_jax.layers.modulated import resample_conv


def he_scale(fan_in: int, gain: float = 1.0) -> float:
    """gain / sqrt(fan_in), which multiplies a stored kernel; gain sqrt(2) before a ReLU is He et al.'s."""
    return gain / fan_in**0.5


class EqualDense(nn.Module):
    """Linear map of (..., I) to (..., features), then bias and activation.

    act(x @ (kernel * lr_multiplier * weight_gain / sqrt(I)) + bias * lr_multiplier)
    """

    features: int
    activation: str = "linear"  # see `bias_act`
    use_bias: bool = True
    lr_multiplier: float = 1.0  # the kernel is stored divided by it, and learns this much slower
    weight_init_std: float = 1.0  # of the initial kernel times lr_multiplier
    bias_init: float | tuple[float, ...] = 0.0  # initial bias, as it is added
    weight_gain: float = 1.0  # of the equalized scale
    activation_gain: float | None = None  # None: the activation's own
    dtype: jnp.dtype | None = None  # None: that of x

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape, rate = (x.shape[-1], self.features), self.lr_multiplier
        kernel = self.param("kernel", nn.initializers.normal(self.weight_init_std / rate), shape, jnp.float32)
        bias = None
        if self.use_bias:
            start = jnp.broadcast_to(jnp.asarray(self.bias_init, jnp.float32) / rate, (self.features,))
            bias = self.param("bias", lambda _: start)
            bias = bias if rate == 1 else bias * rate
        dtype = self.dtype or x.dtype
        kernel = kernel * (he_scale(shape[0], self.weight_gain) * rate)
        x = x.astype(dtype) @ kernel.astype(dtype)
        return bias_act(x, bias, activation=self.activation, gain=self.activation_gain)


class EqualConv(nn.Module):
    """Convolution of (B, H, W, I) to (B, H * up / down, W * up / down, features), low-passed where resampled.

    As StyleGAN2's: kernels are correlated, those of enlarging layers convolved; after bias and activation
    come its own gain times `gain`, then the clamp to clamp * gain.
    """

    features: int
    kernel_size: int | Pair
    activation: str = "linear"  # see `bias_act`
    use_bias: bool = True
    up: int = 1
    down: int = 1
    taps: tuple[float, ...] | None = (1, 3, 3, 1)  # low-pass filter, brought to sum 1
    gain: float = 1.0  # of the output
    clamp: float | None = None
    weight_gain: float = 1.0  # of the equalized scale
    dtype: jnp.dtype | None = None  # None: that of x

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        h, w = as_pair(self.kernel_size)
        shape = (h, w, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.normal(1.0), shape, jnp.float32)
        bias = None
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        dtype = self.dtype or x.dtype
        kernel = (kernel * he_scale(h * w * x.shape[-1], self.weight_gain)).astype(dtype)
        x = resample_conv(
            x.astype(dtype),
            kernel,
            up=self.up,
            down=self.down,
            taps=None if self.taps is None else normalised(self.taps),
            padding=((h // 2, h // 2), (w // 2, w // 2)),
            flip_weight=self.up == 1,
        )
        gain = activation_gain(self.activation) * self.gain
        clamp = None if self.clamp is None else self.clamp * self.gain
        return bias_act(x, bias, activation=self.activation, gain=gain, clamp=clamp)
