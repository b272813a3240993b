"""Normalisations: of the batch over all devices, with what a condition makes of it; of pixels and of instances."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from gan_jax.layers.channels import along_channels
from gan_jax.layers.linear import Dense


class BatchNorm(nn.Module):
    """Normalises x (..., C) over all axes but the last and over `axis_name`; running values in 'batch_stats'.

    The batch is normalised with the biased variance, the running variance is the unbiased one of the global
    batch (as torch). Statistics are float32 (float64 for float64 inputs), in two passes: mean, then centred
    second moment. `batch_stats` is updated in training wherever the collection is mutable. The running values
    come from `pmean`, so they are replicated under `shard_map`. Initialisation runs no collective.
    """

    momentum: float = 0.9  # weight of the old running value
    epsilon: float = 1e-5  # added to the variance
    axis_name: str | None = None  # mesh axis to average over; None: this device's batch alone
    scale_init: Callable = nn.initializers.ones
    dtype: jnp.dtype | None = None  # of the output; None: of x
    evaluates_alone: bool = False  # in evaluation each sample has its own mean and variance, not the running ones
    affine: bool = True  # whether what is normalised is scaled and moved, a channel each

    @nn.compact
    def __call__(self, x: jax.Array, use_running_average: bool) -> jax.Array:
        channels = x.shape[-1]
        scale, bias = jnp.ones(channels, jnp.float32), jnp.zeros(channels, jnp.float32)
        if self.affine:
            scale = self.param("scale", self.scale_init, (channels,), jnp.float32)
            bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,), jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,), jnp.float32)
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        if use_running_average and self.evaluates_alone:
            y = instance_norm(wide, self.epsilon) * along_channels(scale, wide) + along_channels(bias, wide)
            return y.astype(self.dtype or x.dtype)
        if use_running_average:
            centred, var = wide - along_channels(running_mean.value, wide), running_var.value
        else:
            mean, centred, var, count = self._moments(wide)
            if self.is_mutable_collection("batch_stats") and not self.is_initializing():
                unbiased = var * (count / max(count - 1, 1))
                self._update(running_mean, mean)
                self._update(running_var, unbiased)
        scale = lax.rsqrt(var + self.epsilon) * scale
        y = centred * along_channels(scale, wide) + along_channels(bias, wide)
        return y.astype(self.dtype or x.dtype)

    def _moments(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, int]:
        """Mean, what differs from it, variance, and of how many values."""
        axes = tuple(range(x.ndim - 1))
        count = x.size // x.shape[-1]
        across = self.axis_name if not self.is_initializing() else None
        mean = jnp.mean(x, axes)
        if across:
            mean = lax.pmean(mean, across)
            count *= lax.psum(1, across)
        centred = x - along_channels(mean, x)
        var = jnp.mean(jnp.square(centred), axes)
        if across:
            var = lax.pmean(var, across)
        return mean, centred, var, count

    def _update(self, running: nn.Variable, value: jax.Array) -> None:
        value = lax.stop_gradient(value).astype(running.value.dtype)
        running.value = running.value + (1 - self.momentum) * (value - running.value)


def film(x: jax.Array, scale: jax.Array, offset: jax.Array) -> jax.Array:
    """scale * x + offset of x (B, ..., C), in its dtype (FiLM: Perez et al. 2018, arXiv 1709.07871, eq. 2).

    Args:
      scale, offset: (B, C), of each sample; or (C,), the same for all.
    """
    return x * along_channels(scale, x) + along_channels(offset, x)


class ConditionalBatchNorm(nn.Module):
    """`BatchNorm` of x (B, ..., C), scaled by 1 + scale(c) and moved by offset(c), linear in a condition c (B, D).

    Of a one-hot label the maps are tables of a scale and an offset for each class and channel (de Vries et al. 2017,
    arXiv 1707.00683; Miyato and Koyama 2018, arXiv 1802.05637). BigGAN's condition is an embedding of the class, shared
    by all layers, beside a part of the latent (Brock et al. 2018, arXiv 1809.11096, appendix B). The maps have no
    biases.
    """

    momentum: float = 0.9  # weight of the old running value
    epsilon: float = 1e-5  # added to the variance
    axis_name: str | None = None  # mesh axis of the statistics, and of the spectral vectors
    spectral_norm: bool = False  # of both maps
    scale_init: Callable = nn.initializers.zeros  # of the map's kernel (D, C): zeros make every scale 1
    offset_init: Callable = nn.initializers.zeros
    dtype: jnp.dtype | None = None  # of the output; None: of x

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array, use_running_average: bool) -> jax.Array:
        assert condition.ndim == 2 and len(condition) == len(x), (x.shape, condition.shape)
        options = {"use_bias": False, "spectral_norm": self.spectral_norm, "axis_name": self.axis_name}
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        condition, train = condition.astype(wide.dtype), not use_running_average
        scale = Dense(x.shape[-1], kernel_init=self.scale_init, name="scale", **options)(condition, train)
        offset = Dense(x.shape[-1], kernel_init=self.offset_init, name="offset", **options)(condition, train)
        norm = BatchNorm(self.momentum, self.epsilon, self.axis_name, affine=False, name="norm")
        return film(norm(wide, use_running_average), 1 + scale, offset).astype(self.dtype or x.dtype)


def pixel_norm(x: jax.Array, epsilon: float = 1e-8) -> jax.Array:
    """x (..., C) divided by sqrt(mean over C of x^2 + epsilon), in float32 (Karras et al. 2018)."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return (wide * lax.rsqrt(jnp.mean(jnp.square(wide), -1, keepdims=True) + epsilon)).astype(x.dtype)


def instance_norm(x: jax.Array, epsilon: float = 1e-5) -> jax.Array:
    """x (B, H, W, C) with mean 0 and variance 1 over the pixels of each sample and channel, in float32."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    wide = wide - jnp.mean(wide, (1, 2), keepdims=True)
    return (wide * lax.rsqrt(jnp.mean(jnp.square(wide), (1, 2), keepdims=True) + epsilon)).astype(x.dtype)
