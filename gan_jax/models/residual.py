"""Residual blocks that double or halve the size, as SNGAN and BigGAN have them (arXiv 1802.05957, 1809.11096)."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax.layers.linear import Conv, Dense
from gan_jax.layers.norm import BatchNorm, ConditionalBatchNorm
from gan_jax.layers.rescale import downscale, upscale
from gan_jax.models.mapping import one_hot


class UpBlock(nn.Module, kw_only=True):
    """x (B, h, w, I) -> (B, 2h, 2w, features): norm, ReLU, doubling, 3x3, norm, ReLU, 3x3; beside it doubling, 1x1.

    With a condition (B, D) its norms are conditional ones. The 1x1 comes before its doubling, which gives the same.
    Without `up` nothing is doubled, and x itself stands beside where its shape stays.
    """

    features: int
    norm: dict  # arguments of the normalisations
    weights: dict  # arguments of every layer but their initialisers
    kernel_init: Callable  # of the 3x3
    skip_init: Callable  # of the 1x1
    up: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, condition: jax.Array | None = None) -> jax.Array:
        resized = upscale if self.up else lambda x: x
        y = nn.relu(normalised(x, condition, train, name="norm0", **self.norm))
        y = Conv(self.features, 3, kernel_init=self.kernel_init, name="conv0", **self.weights)(resized(y), train)
        y = nn.relu(normalised(y, condition, train, name="norm1", **self.norm))
        y = Conv(self.features, 3, kernel_init=self.kernel_init, name="conv1", **self.weights)(y, train)
        if self.up or x.shape[-1] != self.features:
            x = Conv(self.features, 1, kernel_init=self.skip_init, name="skip", **self.weights)(x, train)
        return y + resized(x)


class DownBlock(nn.Module, kw_only=True):
    """x (B, h, w, I) -> (B, h', w', features): ReLU, 3x3, ReLU, 3x3, halving by averages where `down`.

    Beside it halving and 1x1, or x itself where its shape stays. A network's first block sees images, without ReLU.
    """

    features: int
    down: bool
    first: bool
    weights: dict  # arguments of every layer but their initialisers
    kernel_init: Callable  # of the 3x3
    skip_init: Callable  # of the 1x1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = x if self.first else nn.relu(x)
        y = Conv(self.features, 3, kernel_init=self.kernel_init, name="conv0", **self.weights)(y, train)
        y = Conv(self.features, 3, kernel_init=self.kernel_init, name="conv1", **self.weights)(nn.relu(y), train)
        skip = x
        if self.down:
            y, skip = downscale(y), downscale(x)
        if self.down or x.shape[-1] != self.features:
            skip = Conv(self.features, 1, kernel_init=self.skip_init, name="skip", **self.weights)(skip, train)
        return y + skip


def pooled_logits(
    x: jax.Array, label: jax.Array | None, train: bool, *, num_classes: int, weights: dict[str, Any]
) -> jax.Array:
    """Logits (B,), float32, of x (B, h, w, C): past a ReLU summed over its pixels, then the linear map `head`.

    With classes the projection <embed(label), sum> is added (Miyato and Koyama 2018, arXiv 1802.05637, eq. 4).

    Args:
      label: (B,), or vectors (B, num_classes); None where there are no classes.
      weights: arguments of both maps, which belong to the module that calls.
    """
    h = jnp.sum(nn.relu(x).astype(jnp.float32), (1, 2)).astype(x.dtype)
    logits = Dense(1, name="head", **weights)(h, train)[:, 0].astype(jnp.float32)
    if not num_classes:
        return logits
    assert label is not None, "a conditional discriminator needs labels"
    embed = Dense(h.shape[-1], use_bias=False, name="embed", **weights)
    rows = embed(one_hot(label, num_classes, x.dtype), train)
    return logits + jnp.sum(rows.astype(jnp.float32) * h.astype(jnp.float32), -1)


def normalised(x: jax.Array, condition: jax.Array | None, train: bool, **options: Any) -> jax.Array:
    """x after a `BatchNorm`, or with a condition (B, D) a `ConditionalBatchNorm`, that has these arguments."""
    if condition is None:
        return BatchNorm(**options)(x, not train)
    return ConditionalBatchNorm(**options)(x, condition, not train)
