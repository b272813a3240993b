"""The networks of EnhanceNet (Sajjadi et al. 2017, arXiv 1612.07919): a small picture to a large one, and one logit.

The generator makes what is missing of the picture that a cubic enlarges: residual blocks without normalisation at the
small size, then pixels that are repeated, with a convolution behind each step. All pictures are in [0, 1].
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax.errors import UserError
from gan_jax.layers.degradation import bicubic
from gan_jax.layers.linear import Conv, Dense
from gan_jax.layers.rescale import upscale
from gan_jax.models.blocks import check_least
from gan_jax.models.esrgan import ONE, UNIFORM
from gan_jax.models.msrgan import STEPS


class Generator(nn.Module, kw_only=True):
    """x (B, h, w, channels) in [0, 1] -> pictures (B, h * scale, w * scale, channels), float32, not clipped.

    Raises:
      UserError: a scale that it has no form for.
    """

    channels: int = 3  # of the pictures that it sees and makes
    scale: int = 4  # 1 to 4
    width: int = 64  # features
    blocks: int = 10  # residual ones
    dtype: jnp.dtype = jnp.float32  # of the computation

    def __post_init__(self):
        check_least(self, {"channels": 1, "width": 1, "blocks": 0})
        if self.scale not in STEPS:
            raise UserError(f"scale={self.scale}: this generator enlarges by {', '.join(map(str, STEPS))}")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        def conv(name, y, features=self.width):
            return Conv(features, 3, padding=ONE, kernel_init=UNIFORM, dtype=self.dtype, name=name)(y)

        y = nn.relu(conv("stem", x.astype(self.dtype)))
        for i in range(self.blocks):
            y = y + conv(f"block{i}_conv1", nn.relu(conv(f"block{i}_conv0", y)))
        for i, factor in enumerate(STEPS[self.scale]):
            y = nn.relu(conv(f"up{i}", upscale(y, factor)))
        residual = conv("image", nn.relu(conv("last", y)), self.channels).astype(jnp.float32)
        return bicubic(x.astype(jnp.float32), self.scale) + residual


class Discriminator(nn.Module, kw_only=True):
    """x (B, H, W, C) in [0, 1] -> logits (B,), float32.

    Its dense layer is as large as the map that is left: pictures have the size of those that it was initialised for,
    128x128 in the paper.

    Raises:
      UserError: sides that are no multiples of 2 ** halvings.
    """

    width: int = 32  # features at full size; doubled with each halving
    halvings: int = 5
    hidden: int = 1024  # features of the layer in front of the logit
    dtype: jnp.dtype = jnp.float32  # of the computation

    def __post_init__(self):
        check_least(self, {"width": 1, "halvings": 1, "hidden": 1})
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        unit = 2**self.halvings
        if any(n % unit or not n for n in x.shape[1:3]):
            raise UserError(f"pictures of {x.shape[1]}x{x.shape[2]}: expected sides that are multiples of {unit}")
        options = {"padding": ONE, "kernel_init": UNIFORM, "dtype": self.dtype}
        x = x.astype(self.dtype)
        for i in range(self.halvings):
            for j in range(2):
                x = nn.leaky_relu(Conv(self.width * 2**i, 3, 1 + j, name=f"conv{i}_{j}", **options)(x), 0.2)
        x = Dense(self.hidden, kernel_init=UNIFORM, dtype=self.dtype, name="hidden")(x.reshape(len(x), -1))
        x = Dense(1, kernel_init=UNIFORM, dtype=self.dtype, name="head")(nn.leaky_relu(x, 0.2))
        return x[:, 0].astype(jnp.float32)
