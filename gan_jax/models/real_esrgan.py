"""Networks of Real-ESRGAN (Wang et al. 2021, arXiv 2107.10833): a compact generator, and one logit a pixel.

The compact generator is SRVGGNetCompact, of the published models for animation and for pictures in general; the large
one of RealESRGAN_x4plus is ESRGAN's. The discriminator is a U-Net with spectral normalisation. All pictures are in
[0, 1].
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax.errors import UserError
from gan_jax.layers.activation import PRelu
from gan_jax.layers.enlarge import bilinear, shuffle
from gan_jax.layers.linear import Conv
from gan_jax.layers.rescale import upscale
from gan_jax.models.blocks import check_choice, check_least
from gan_jax.models.esrgan import ONE, UNIFORM


class Generator(nn.Module, kw_only=True):
    """x (B, h, w, channels) in [0, 1] -> pictures (B, h * scale, w * scale, channels), float32, not clipped.

    All convolutions are of small size; what they make is added to the picture whose pixels are repeated.
    """

    channels: int = 3  # of the pictures that it sees and makes
    scale: int = 4  # 1 or more
    width: int = 64  # features
    layers: int = 16  # between the first and the last; the published one for pictures in general has 32
    activation: str = "prelu"  # 'prelu', a slope for each channel | 'relu' | 'leaky_relu' of 0.1
    dtype: jnp.dtype = jnp.float32  # of the computation

    def __post_init__(self):
        check_least(self, {"channels": 1, "width": 1, "layers": 0, "scale": 1})
        check_choice("activation", self.activation, ("prelu", "relu", "leaky_relu"))
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        def conv(features, name, x):
            return Conv(features, 3, padding=ONE, kernel_init=UNIFORM, dtype=self.dtype, name=name)(x)

        x = x.astype(self.dtype)
        y = self._activated(conv(self.width, "stem", x), "stem")
        for i in range(self.layers):
            y = self._activated(conv(self.width, f"conv{i}", y), f"conv{i}")
        y = shuffle(conv(self.channels * self.scale**2, "image", y), self.scale)
        return (y + upscale(x, self.scale)).astype(jnp.float32)

    def _activated(self, x: jax.Array, name: str) -> jax.Array:
        if self.activation == "prelu":
            return PRelu(per_channel=True, name=f"{name}_prelu")(x)
        return nn.relu(x) if self.activation == "relu" else nn.leaky_relu(x, 0.1)


class Discriminator(nn.Module, kw_only=True):
    """x (B, H, W, C) in [0, 1] -> logits of pixels (B, H, W, 1), float32.

    Raises:
      UserError: sides that are no multiples of 8.
    """

    width: int = 64  # features at full size; doubled with each of three halvings
    skips: bool = True  # maps on the way down are added on the way up
    axis_name: str | None = None  # mesh axis over which spectral vectors are kept equal
    dtype: jnp.dtype = jnp.float32  # of the computation

    def __post_init__(self):
        check_least(self, {"width": 1})
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        if any(n % 8 or not n for n in x.shape[1:3]):
            raise UserError(f"pictures of {x.shape[1]}x{x.shape[2]}: expected sides that are multiples of 8")
        plain = {"padding": ONE, "kernel_init": UNIFORM, "dtype": self.dtype}

        def activated(features, name, x, kernel=3, stride=1):
            options = plain | {"use_bias": False, "spectral_norm": True, "axis_name": self.axis_name}
            return nn.leaky_relu(Conv(features, kernel, stride, name=name, **options)(x, train), 0.2)

        x = nn.leaky_relu(Conv(self.width, 3, name="stem", **plain)(x.astype(self.dtype)), 0.2)
        maps = []
        for i in range(3):
            maps.append(x)
            x = activated(self.width * 2 ** (i + 1), f"down{i}", x, 4, 2)
        for i in reversed(range(3)):
            x = activated(self.width * 2**i, f"up{i}", bilinear(x, 2))
            x = x + maps[i] if self.skips else x
        x = activated(self.width, "last1", activated(self.width, "last0", x))
        return Conv(1, 3, name="head", **plain)(x).astype(jnp.float32)
