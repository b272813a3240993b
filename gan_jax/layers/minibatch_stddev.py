"""Minibatch standard deviation (Karras et al. 2018, section 3)."""

import jax
import jax.numpy as jnp


def minibatch_stddev(x: jax.Array, *, group_size: int | None = 4, channels: int = 1) -> jax.Array:
    """Appends to x (B, H, W, C) how much it varies in its group -> (B, H, W, C + channels).

    The standard deviation sqrt(var + 1e-8) over the samples of a group is averaged over all pixels and over
    C / channels neighbouring features, which gives `channels` numbers per group. A group is `group_size`
    neighbours of the batch (None: all of it; capped at B), so that none crosses a device; the official code
    takes samples B / group_size apart instead. B must be a multiple of the group, C of `channels`.
    """
    b, h, w, c = x.shape
    group = b if group_size is None else min(group_size, b)
    assert b % group == 0, f"a batch of {b} is not a multiple of the group size {group}"
    assert c % channels == 0, f"{c} features are not a multiple of {channels} channels"
    y = x.astype(jnp.promote_types(x.dtype, jnp.float32)).reshape(b // group, group, h, w, channels, -1)
    y = y - jnp.mean(y, 1, keepdims=True)
    y = jnp.sqrt(jnp.mean(jnp.square(y), 1) + 1e-8)
    y = jnp.mean(y, (1, 2, 4)).astype(x.dtype)  # (groups, channels)
    y = jnp.broadcast_to(y[:, None, None, None], (b // group, group, h, w, channels))
    return jnp.concatenate([x, y.reshape(b, h, w, channels)], -1)
