"""A block of transformers with the norm in front of each layer, as vision transformers and CLIP's text tower share it.

Attention by Vaswani et al. 2017 (1706.03762); the norm's place by Radford et al. 2019 (GPT-2).
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

MLP_RATIO = 4


def gelu(x: jax.Array) -> jax.Array:
    """x times the normal distribution's cumulative function of x (Hendrycks and Gimpel 2016, 1606.08415)."""
    return nn.gelu(x, approximate=False)


def quick_gelu(x: jax.Array) -> jax.Array:
    """x sigmoid(1.702 x), the same authors' approximation."""
    return x * nn.sigmoid(1.702 * x)


class Block(nn.Module):
    """Attention and a feed-forward layer, each behind a norm and added to tokens (B, N, D)."""

    heads: int
    precision: Any
    epsilon: float  # of the norms
    activation: Callable[[jax.Array], jax.Array] = gelu
    causal: bool = False  # a token attends to itself and to those before it

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        b, n, d = x.shape

        def dense(features, name):
            return nn.Dense(features, precision=self.precision, name=name)

        qkv = dense(3 * d, "qkv")(norm("norm1", self.epsilon)(x)).reshape(b, n, 3, self.heads, d // self.heads)
        attended = _attend(*jnp.moveaxis(qkv, 2, 0), self.precision, self.causal)
        x = x + dense(d, "proj")(attended.reshape(b, n, d))
        hidden = self.activation(dense(MLP_RATIO * d, "fc1")(norm("norm2", self.epsilon)(x)))
        return x + dense(d, "fc2")(hidden)


def norm(name: str, epsilon: float) -> nn.LayerNorm:
    """A norm over the last axis."""
    # the variance about the mean: E[x^2] - E[x]^2 loses digits on the large tokens of deep blocks
    return nn.LayerNorm(epsilon=epsilon, use_fast_variance=False, name=name)


def _attend(q: jax.Array, k: jax.Array, v: jax.Array, precision, causal: bool) -> jax.Array:
    """softmax(q k^T / sqrt(d)) v; all (B, N, heads, d)."""
    scores = jnp.einsum("bnhd,bmhd->bhnm", q * (1 / math.sqrt(q.shape[-1])), k, precision=precision)
    if causal:
        scores = jnp.where(jnp.tri(q.shape[1], dtype=bool), scores, -jnp.inf)
    return jnp.einsum("bhnm,bmhd->bnhd", nn.softmax(scores), v, precision=precision)


# Weights

def norm_from(state: Mapping[str, np.ndarray], path: str) -> dict:
    """Variables of `norm` from PyTorch's LayerNorm of that name."""
    return {"scale": state[path + ".weight"], "bias": state[path + ".bias"]}


def dense_from(state: Mapping[str, np.ndarray], path: str, scale: np.ndarray | float = 1.0) -> dict:
    """Variables of a dense layer from PyTorch's Linear of that name, the result times `scale`, a number or (out,)."""
    return {"kernel": state[path + ".weight"].T * scale, "bias": state[path + ".bias"] * scale}
