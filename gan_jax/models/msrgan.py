"""The networks of MSRGAN, SRGAN without batch normalisation in its generator, as BasicSR trains it beside ESRGAN.

The generator is MSRResNet (Wang et al. 2018, arXiv 1809.00219, after Lim et al. 2017, 1707.02921): what it makes is
added to the picture enlarged bilinearly. The discriminator is ESRGAN's. All pictures are in [0, 1].
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax.errors import UserError
from gan_jax.layers.enlarge import bilinear, shuffle
from gan_jax.layers.linear import Conv
from gan_jax.models.blocks import check_least
from gan_jax.models.esrgan import ONE, SMALL, UNIFORM, Discriminator

__all__ = ("Discriminator", "Generator")
STEPS = {1: (), 2: (2,), 3: (3,), 4: (2, 2)}  # scale: factors by which it enlarges, one after another


class Generator(nn.Module, kw_only=True):
    """x (B, h, w, channels) in [0, 1] -> pictures (B, h * scale, w * scale, channels), float32, not clipped.

    Raises:
      UserError: a scale that it has no form for.
    """

    channels: int = 3  # of the pictures that it sees and makes
    scale: int = 4  # 1 to 4
    width: int = 64  # features
    blocks: int = 16  # residual ones
    dtype: jnp.dtype = jnp.float32  # of the computation

    def __post_init__(self):
        check_least(self, {"channels": 1, "width": 1, "blocks": 0})
        if self.scale not in STEPS:
            raise UserError(f"scale={self.scale}: this generator enlarges by {', '.join(map(str, STEPS))}")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        def conv(features, name, x, init=SMALL):
            return Conv(features, 3, padding=ONE, kernel_init=init, dtype=self.dtype, name=name)(x)

        x = x.astype(self.dtype)
        y = nn.leaky_relu(conv(self.width, "stem", x), 0.1)
        for i in range(self.blocks):
            inner = nn.relu(conv(self.width, f"block{i}_conv0", y))
            y = y + conv(self.width, f"block{i}_conv1", inner)
        for i, factor in enumerate(STEPS[self.scale]):
            y = conv(self.width * factor**2, f"up{i}", y, UNIFORM)
            y = nn.leaky_relu(shuffle(y, factor), 0.1)
        y = nn.leaky_relu(conv(self.width, "last", y), 0.1)
        return (conv(self.channels, "image", y) + bilinear(x, self.scale)).astype(jnp.float32)
