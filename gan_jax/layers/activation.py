"""Bias, activation, gain and clamp in one call, as StyleGAN2's layers end (Karras et al. 2020); learned slopes."""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from gan_jax.errors import UserError
from gan_jax.layers.channels import along_channels

_ROOT = math.sqrt(2)
_SLOPE = 0.2


def leaky_relu(x: jax.Array, alpha: float, gain: float = 1.0) -> jax.Array:
    """gain * x where x is positive, else gain * alpha * x; of any shape.

    As a product with the slope, whose derivatives of any order are such products again.
    """
    if alpha == 1:
        return x if gain == 1 else x * gain
    return x * lax.select(x > 0, lax.full_like(x, gain), lax.full_like(x, gain * alpha))


class PRelu(nn.Module):
    """x (..., C) where positive, else slope * x (He et al. 2015, arXiv 1502.01852); one slope, or one a channel."""

    per_channel: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (x.shape[-1],) if self.per_channel else (1,)
        slope = self.param("slope", nn.initializers.constant(0.25), shape, jnp.float32)
        return jnp.where(x > 0, x, along_channels(jnp.broadcast_to(slope, x.shape[-1:]), x) * x)


# name: (function of x, default gain: keeps the second moment of N(0, 1) about 1)
_ACTIVATIONS: dict[str, tuple[Callable, float]] = {
    "linear": (lambda x: x, 1.0),
    "relu": (jax.nn.relu, _ROOT),
    "lrelu": (leaky_relu, _ROOT),  # it takes a slope and the gain besides
    "tanh": (jnp.tanh, 1.0),
    "sigmoid": (jax.nn.sigmoid, 1.0),
    "elu": (jax.nn.elu, 1.0),
    "selu": (jax.nn.selu, 1.0),
    "softplus": (jax.nn.softplus, 1.0),
    "swish": (lambda x: x * jax.nn.sigmoid(x), _ROOT),
}


def bias_act(
    x: jax.Array,
    bias: jax.Array | None = None,
    *,
    activation: str = "lrelu",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
) -> jax.Array:
    """clamp(gain * activation(x + bias)) of x (..., C) with bias (C,), in the dtype of x.

    `alpha` is the slope of 'lrelu' (0.2). `gain` None is the activation's own: sqrt(2) for relu, lrelu and
    swish, else 1. `clamp` limits the result to [-clamp, clamp]; its gradient is 1 on the limits, as torch's.

    Raises UserError for an unknown activation.
    """
    function, default_gain = _look_up(activation)
    gain = default_gain if gain is None else gain
    if bias is not None:
        assert bias.shape == x.shape[-1:], (bias.shape, x.shape)
        x = x + along_channels(bias, x)
    if activation == "lrelu":
        x = function(x, _SLOPE if alpha is None else alpha, gain)
    else:
        x = function(x)
        x = x if gain == 1 else x * gain
    if clamp is not None:
        x = jnp.where(jnp.abs(x) > clamp, jnp.sign(x) * clamp, x)
    return x


def activation_gain(activation: str) -> float:
    """The gain that `bias_act` applies by default: sqrt(2) for relu, lrelu and swish, else 1."""
    return _look_up(activation)[1]


def _look_up(activation: str) -> tuple[Callable, float]:
    if activation not in _ACTIVATIONS:
        raise UserError(f"activation {activation!r} is unknown; choose one of {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[activation]
