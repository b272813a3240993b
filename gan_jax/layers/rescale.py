"""Halving and doubling as ProGAN and the first StyleGAN do it (Karras et al. 2018 and 2019): boxes and repeats.

A convolution beside a change of size may be fused with it: its kernel, spread over two by two pixels, is one
strided or transposed convolution of a quarter of the work. With zeros outside the image both forms are the same
sum away from its border.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax.errors import UserError
from gan_jax.layers.channels import along_channels
from gan_jax.layers.conv import Pair, as_pair, conv, conv_transpose
from gan_jax.layers.equalized import he_scale


def upscale(x: jax.Array, factor: int = 2) -> jax.Array:
    """Repeats every pixel: (B, H, W, C) -> (B, H * factor, W * factor, C)."""
    if factor == 1:
        return x
    b, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None, :], (b, h, factor, w, factor, c))
    return x.reshape(b, h * factor, w * factor, c)


def downscale(x: jax.Array, factor: int = 2) -> jax.Array:
    """Averages squares of pixels: (B, H, W, C) -> (B, H / factor, W / factor, C); factor divides H and W."""
    if factor == 1:
        return x
    b, h, w, c = x.shape
    assert h % factor == 0 and w % factor == 0, (x.shape, factor)
    return jnp.mean(x.reshape(b, h // factor, factor, w // factor, factor, c), (2, 4))


def fade(new: jax.Array, old: jax.Array, share: jax.Array | float) -> jax.Array:
    """(1 - share) new + share old, `share` clipped to [0, 1]; exactly one of the two at either end."""
    share = jnp.clip(share, 0, 1)
    return ((1 - share) * new + share * old).astype(new.dtype)


def sizes(resolution: int | Pair) -> tuple[Pair, ...]:
    """(height, width) of every stage from the base to `resolution`, each twice the one before.

    The base is what is left after halving while both sides are even and 4 or more remain: 4x4 for powers of two.

    Raises:
      UserError: sides below 4.
    """
    size = as_pair(resolution)
    if min(size) < 4:
        raise UserError(f"resolution {resolution}: this model needs sides of 4 or more")
    halvings = 0
    while all(n % 2 ** (halvings + 1) == 0 and n // 2 ** (halvings + 1) >= 4 for n in size):
        halvings += 1
    return tuple((size[0] >> n, size[1] >> n) for n in range(halvings, -1, -1))


def features(stage: int, base: int, decay: float, largest: int) -> int:
    """Feature maps of a stage: base / 2^(stage * decay), at most `largest`. Stage 1 is the base block."""
    return max(min(int(base / 2 ** (stage * decay)), largest), 1)


class ScaledConv(nn.Module):
    """Equalized convolution of (B, H, W, I) that keeps, doubles or halves the size -> (B, h, w, features).

    The kernel (k, k, I, features) is stored raw and used times gain / sqrt(k * k * I). There is no activation.
    """

    features: int
    kernel_size: int = 3
    gain: float = math.sqrt(2)
    resample: str = ""  # '' | 'up' | 'down'
    fused: bool = False  # the change of size in one convolution with the kernel
    use_bias: bool = True
    dtype: jnp.dtype | None = None  # of the computation; None: that of x

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        k, dtype = self.kernel_size, self.dtype or x.dtype
        shape = (k, k, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.normal(1.0), shape, jnp.float32)
        kernel = (kernel * he_scale(k * k * x.shape[-1], self.gain)).astype(dtype)
        x, pads = x.astype(dtype), ((k // 2, k // 2), (k // 2, k // 2))
        around = ((1, 1), (1, 1))  # what is left of the padding by k // 2 once the kernel is one wider
        if not self.resample:
            x = conv(x, kernel, 1, pads)
        elif not self.fused:
            x = conv(upscale(x), kernel, 1, pads) if self.resample == "up" else downscale(conv(x, kernel, 1, pads))
        elif self.resample == "up":
            assert k == 3, k
            x = conv_transpose(x, _spread(kernel), 2, around)
        else:
            assert k == 3, k
            x = conv(x, _spread(kernel) / 4, 2, around)
        if self.use_bias:
            x = x + along_channels(self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32), x)
        return x


def _spread(kernel: jax.Array) -> jax.Array:
    """The kernel (k, k, I, O) convolved with two by two ones -> (k + 1, k + 1, I, O)."""
    padded = jnp.pad(kernel, ((1, 1), (1, 1), (0, 0), (0, 0)))
    return padded[1:, 1:] + padded[:-1, 1:] + padded[1:, :-1] + padded[:-1, :-1]
