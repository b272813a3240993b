"""Self-attention between the pixels of a map (Zhang et al. 2018, SAGAN, arXiv 1805.08318, section 3)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax.layers.linear import Conv


class SelfAttention(nn.Module, kw_only=True):
    """x (B, h, w, C) + gamma * attention(x), in the dtype of x; the learned gamma begins at 0.

    Every pixel has a query (C / 8 features), whose products with the keys of all others weigh, by a softmax, the sum of
    their values (C / 2 features). Keys and values are the largest of each two by two pixels, as in BigGAN. The four 1x1
    convolutions have no biases. h and w are even.
    """

    weights: dict  # arguments of the convolutions

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        batch, height, width, channels = x.shape
        assert height % 2 == 0 and width % 2 == 0, x.shape
        narrow, half = max(channels // 8, 1), max(channels // 2, 1)

        def conv(name, features, x):
            return Conv(features, 1, use_bias=False, name=name, **self.weights)(x, train)

        query = conv("query", narrow, x).reshape(batch, height * width, narrow)
        key, value = (_pooled(conv(name, n, x)) for name, n in (("key", narrow), ("value", half)))
        products = jnp.einsum("bqc,bkc->bqk", query, key)
        shares = jax.nn.softmax(products.astype(jnp.promote_types(x.dtype, jnp.float32)), -1).astype(value.dtype)
        summed = jnp.einsum("bqk,bkc->bqc", shares, value).reshape(batch, height, width, half)
        gamma = self.param("gamma", nn.initializers.zeros, (), jnp.float32)
        return x + gamma.astype(x.dtype) * conv("out", channels, summed).astype(x.dtype)


def _pooled(x: jax.Array) -> jax.Array:
    """The largest of each two by two pixels: (B, h, w, C) -> (B, h w / 4, C)."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).max((2, 4)).reshape(batch, -1, channels)
