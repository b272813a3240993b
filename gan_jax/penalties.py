"""Gradient penalties of discriminators: pure functions of (logits_fn, inputs), one value per sample.

`logits_fn(x)` closes over the parameters and returns logits of shape (B,) or maps (B, ...). All penalties
differentiate the sum of all logits with respect to the inputs, as every published implementation does; where
the discriminator couples the samples of a batch (batch norm in train mode, minibatch stddev) the gradient
holds that coupling too.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def squared_gradient_norm(logits_fn: Callable, x: Any) -> jax.Array:
    """Per-sample sum of squares of d sum(logits) / dx, reduced in float32.

    Args:
      logits_fn: x -> logits.
      x: inputs, (B, ...), or a tree of such, whose gradients are one vector.
    Returns:
      (B,).
    """
    return _squared_gradient_norm(logits_fn, x)[0]


def _squared_gradient_norm(logits_fn: Callable, x: Any) -> tuple[jax.Array, jax.Array]:
    """`squared_gradient_norm`, and the logits of the same forward pass."""

    def total(x):
        logits = logits_fn(x)
        return jnp.sum(logits.astype(jnp.promote_types(logits.dtype, jnp.float32))), logits

    grads, logits = jax.grad(total, has_aux=True)(x)
    grads = [g.astype(jnp.promote_types(g.dtype, jnp.float32)) for g in jax.tree.leaves(grads)]
    return sum(jnp.sum(jnp.square(g), axis=tuple(range(1, g.ndim))) for g in grads), logits


def r1(logits_fn: Callable, real: jax.Array, *, gamma: float | jax.Array) -> jax.Array:
    """Mescheder et al. (1801.04406), eq. 9: gamma / 2 |d D(x) / dx|^2 at real images, factor included.

    Args:
      logits_fn: (B, ...) -> logits.
      real: images, (B, ...).
      gamma: weight; may be traced, for schedules. A phase that runs every k steps multiplies by k itself.
    Returns:
      (B,).
    """
    return 0.5 * gamma * squared_gradient_norm(logits_fn, real)


def r2(logits_fn: Callable, fake: jax.Array, *, gamma: float | jax.Array) -> jax.Array:
    """Mescheder et al. (1801.04406), eq. 10: as `r1`, at generated images.

    Args:
      logits_fn: (B, ...) -> logits.
      fake: generated images, (B, ...); the caller cuts the gradient to the generator.
      gamma: weight; may be traced.
    Returns:
      (B,).
    """
    return 0.5 * gamma * squared_gradient_norm(logits_fn, fake)


def r1_and_r2(
    logits_fn: Callable,  # (2B, ...) -> logits (2B,), in which no sample sees another
    real: jax.Array,  # (B, ...)
    fake: jax.Array,  # (B, ...), without gradient to the generator
    *,
    r1_gamma: float | jax.Array,
    r2_gamma: float | jax.Array,
):
    """`r1` and `r2` from one backward pass over real and generated images together (R3GAN, 2501.05441, eq. 3 and 4).

    Returns:
      ((r1, r2), (real_logits, fake_logits)), each (B,); the logits come from the same forward pass.
    """
    assert real.shape == fake.shape, (real.shape, fake.shape)
    squares, logits = _squared_gradient_norm(logits_fn, jnp.concatenate([real, fake]))
    at_real, at_fake = jnp.split(squares, 2)
    return (0.5 * r1_gamma * at_real, 0.5 * r2_gamma * at_fake), tuple(jnp.split(logits, 2))


def gradient_penalty(
    logits_fn: Callable,  # (B, ...) -> logits
    real: jax.Array,  # (B, ...)
    fake: jax.Array,  # (B, ...), without gradient to the generator
    alpha: jax.Array,  # B uniform numbers in [0, 1), the share of the real image
    *,
    target: float = 1.0,  # norm that the gradient should have
    epsilon: float = 0.0,  # added to the squared norm under the root
):
    """WGAN-GP, Gulrajani et al. (1704.00028), eq. 3.

    (|d D(x) / dx| - target)^2 at x = alpha real + (1 - alpha) fake. The weight (lambda, 10 in the paper) is
    the caller's. Variants: real + a (fake - real) is alpha = 1 - a; compare_gan has epsilon 1e-4; ProGAN
    divides by target^2 as well.

    Returns:
      (B,).
    """
    assert real.shape == fake.shape and alpha.size == real.shape[0], (real.shape, fake.shape, alpha.shape)
    alpha = alpha.reshape(-1, *(1,) * (real.ndim - 1))
    return _norm_penalty(logits_fn, alpha * real + (1 - alpha) * fake, target, epsilon)


def dragan(
    logits_fn: Callable,  # (B, ...) -> logits
    real: jax.Array,  # (B, ...)
    noise: jax.Array,  # (B, ...), uniform in [0, 1), one number per element
    *,
    axis_name: str | None = None,  # mesh axis over which the batch is dealt, or None for one device
    low: float = -1.0,  # range of the data, to which the perturbed images are clipped
    high: float = 1.0,
    target: float = 1.0,  # norm that the gradient should have
    epsilon: float = 1e-4,  # added to the squared norm under the root
):
    """DRAGAN, Kodali et al. (1705.07215): (|d D(x) / dx| - target)^2 near the real images.

    The perturbation is that of compare_gan: std (noise - 1/2), then clipped, where std is the standard
    deviation of all elements of the global batch. The weight is the caller's.

    Returns:
      (B,).
    """
    assert real.shape == noise.shape, (real.shape, noise.shape)
    near = jnp.clip(real + batch_std(real, axis_name=axis_name) * (noise - 0.5), low, high)
    return _norm_penalty(logits_fn, near, target, epsilon)


def matching_aware(
    logits_fn: Callable,  # (images, sentences) -> logits (B,)
    images: jax.Array,  # (B, ...), real ones
    sentences: jax.Array,  # (B, S), their own
    *,
    power: float = 6.0,  # of the norm, 2 or more
) -> tuple[jax.Array, jax.Array]:
    """DF-GAN, Tao et al. (2008.05865), eq. 1: |(d D / dx, d D / ds)|^power, both gradients as one vector.

    The weight (k, 2 in the paper) is the caller's. No epsilon is needed: at an even power there is no root.

    Returns:
      (B,), and the logits (B,) of the same forward pass.
    """
    assert power >= 2, power
    squares, logits = _squared_gradient_norm(lambda both: logits_fn(*both), (images, sentences))
    return squares ** (power / 2), logits


def path_lengths(images_fn: Callable, ws: jax.Array, noise: jax.Array) -> tuple[jax.Array, Any]:
    """StyleGAN2 (1912.04958), eq. 4: |J^T y|, how far an image moves with its styles, in the random direction y.

    Args:
      images_fn: ws -> (images (B, H, W, C), aux).
      ws: styles, (B, layers, S).
      noise: y, N(0, 1) / sqrt(H W), of the images' shape.
    Returns:
      (B,), the root over the layers' mean of squared gradient norms, and aux.
    """

    def projection(ws):
        images, aux = images_fn(ws)
        assert images.shape == noise.shape, (images.shape, noise.shape)
        return jnp.sum(images * noise), aux

    grads, aux = jax.grad(projection, has_aux=True)(ws)
    return _safe_sqrt(jnp.mean(jnp.sum(jnp.square(grads), 2), 1)), aux


def batch_std(x: jax.Array, *, axis_name: str | None = None) -> jax.Array:
    """Standard deviation of all elements of the global batch (divided by their number), a scalar.

    Args:
      x: this device's shard, (B, ...); shards are of equal size.
      axis_name: mesh axis over which the moments are averaged, or None for one device.
    """

    def average(value):
        value = jnp.mean(value)
        return lax.pmean(value, axis_name) if axis_name else value

    return jnp.sqrt(average(jnp.square(x - average(x))))


def _norm_penalty(logits_fn, x, target, epsilon):
    return jnp.square(_safe_sqrt(squared_gradient_norm(logits_fn, x) + epsilon) - target)


def _safe_sqrt(x: jax.Array) -> jax.Array:
    """Square root whose derivative at 0 is 0: a discriminator that is flat at a sample must not yield NaN."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)
