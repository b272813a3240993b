"""Bias, activation, gain and clamp in one call, as StyleGAN2's layers end (Karras et al. 2020)."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from gan_jax.errors import UserError

_ROOT = math.sqrt(2)
# name: (function of x and alpha, default alpha, default gain: keeps the second moment of N(0, 1) about 1)
_ACTIVATIONS: dict[str, tuple[Callable, float, float]] = {
    "linear": (lambda x, _: x, 0.0, 1.0),
    "relu": (lambda x, _: jax.nn.relu(x), 0.0, _ROOT),
    "lrelu": (lambda x, alpha: jnp.where(x > 0, x, x * alpha), 0.2, _ROOT),
    "tanh": (lambda x, _: jnp.tanh(x), 0.0, 1.0),
    "sigmoid": (lambda x, _: jax.nn.sigmoid(x), 0.0, 1.0),
    "elu": (lambda x, _: jax.nn.elu(x), 0.0, 1.0),
    "selu": (lambda x, _: jax.nn.selu(x), 0.0, 1.0),
    "softplus": (lambda x, _: jax.nn.softplus(x), 0.0, 1.0),
    "swish": (lambda x, _: x * jax.nn.sigmoid(x), 0.0, _ROOT),
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
    function, default_alpha, default_gain = _look_up(activation)
    if bias is not None:
        assert bias.shape == x.shape[-1:], (bias.shape, x.shape)
        x = x + bias.astype(x.dtype)
    x = function(x, default_alpha if alpha is None else alpha)
    gain = default_gain if gain is None else gain
    if gain != 1:
        x = x * gain
    if clamp is not None:
        x = jnp.where(jnp.abs(x) > clamp, jnp.sign(x) * clamp, x)
    return x


def activation_gain(activation: str) -> float:
    """The gain that `bias_act` applies by default: sqrt(2) for relu, lrelu and swish, else 1."""
    return _look_up(activation)[2]


def _look_up(activation: str) -> tuple[Callable, float, float]:
    if activation not in _ACTIVATIONS:
        raise UserError(f"activation {activation!r} is unknown; choose one of {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[activation]
