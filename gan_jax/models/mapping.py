"""The mapping network of the StyleGAN family (Karras et al. 2019, arXiv 1812.04948): latents and labels to styles."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from gan_jax.layers.equalized import EqualDense
from gan_jax.models.blocks import wide


class Mapping(nn.Module, kw_only=True):
    """z (B, latent_size) and labels -> styles w (B, features), or (B, copies, features) where copies > 0.

    z and the embedded label are each brought to unit mean square and concatenated; either may be missing. In training
    mode the running mean of w moves, where the collection `w_avg` is mutable.
    """

    features: int  # entries of w
    num_classes: int = 0  # 0: unconditional
    layers: int = 8
    lr_multiplier: float = 0.01
    copies: int = 0  # of w, one for each layer that has a style
    w_avg_beta: float = 0.0  # weight of the old mean; 0: no running mean

    @nn.compact
    def __call__(
        self,
        z: jax.Array | None,
        label: jax.Array | None = None,
        *,
        train: bool = False,
        psi: float | jax.Array = 1.0,
        cutoff: int | None = None,
        counted: int | None = None,  # samples, from the first on, whose mean the running mean follows; None: all
    ) -> jax.Array:
        x = [] if z is None else [normalise_second_moment(wide(z))]
        if self.num_classes:
            assert label is not None, "a conditional network needs labels"
            hot = one_hot(label, self.num_classes, x[0].dtype if x else None)
            x.append(normalise_second_moment(EqualDense(self.features, name="embed")(hot)))
        x = jnp.concatenate(x, axis=-1)
        for i in range(self.layers):
            x = EqualDense(self.features, "lrelu", lr_multiplier=self.lr_multiplier, name=f"fc{i}")(x)
        average = None
        if self.w_avg_beta:
            average = self.variable("w_avg", "w_avg", jnp.zeros, (self.features,), jnp.float32)
            if train and not self.is_initializing() and self.is_mutable_collection("w_avg"):
                mean = lax.stop_gradient(jnp.mean(x[:counted], 0))
                average.value = mean + self.w_avg_beta * (average.value - mean)
        if not self.copies:
            return x
        x = lax.broadcast_in_dim(x, (x.shape[0], self.copies, x.shape[1]), (0, 2))
        return x if average is None else truncate(x, average.value, psi, cutoff)


def truncate(ws: jax.Array, average: jax.Array, psi: float | jax.Array, cutoff: int | None = None) -> jax.Array:
    """Moves styles ws (B, num_ws, S) towards their mean (S,) (Karras et al. 2019, appendix B).

    w -> average + psi (w - average), in the first `cutoff` layers, or in all.
    """
    if isinstance(psi, int | float) and psi == 1:
        return ws
    count = ws.shape[1] if cutoff is None else cutoff
    moved = average + psi * (ws - average)
    return jnp.where((jnp.arange(ws.shape[1]) < count)[:, None], moved, ws)


def normalise_second_moment(x: jax.Array) -> jax.Array:
    """x / sqrt(mean(x^2) + 1e-8) over the last axis."""
    return x * lax.rsqrt(jnp.mean(jnp.square(x), -1, keepdims=True) + 1e-8)


def one_hot(label: jax.Array, num_classes: int, dtype: jnp.dtype | None = None) -> jax.Array:
    """Classes (B,), or one- or multi-hot vectors (B, num_classes), as vectors of floats."""
    dtype = dtype or jnp.float32
    if label.ndim == 1:
        return jax.nn.one_hot(label, num_classes, dtype=dtype)
    assert label.shape[1:] == (num_classes,), (label.shape, num_classes)
    return label.astype(dtype)
