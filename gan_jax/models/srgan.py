"""The networks of SRGAN (Ledig et al. 2017, arXiv 1609.04802): a small picture to a large one, and one logit an image.

The generator is SRResNet: residual blocks with batch normalisation and learned slopes, sub-pixel layers. As many
programs do, and not as the paper, it ends in a tanh, and the discriminator averages its last map, so that pictures of
any size have one logit. All pictures are in [0, 1].
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax.errors import UserError
from gan_jax.layers.activation import PRelu
from gan_jax.layers.enlarge import shuffle
from gan_jax.layers.linear import Conv, Dense
from gan_jax.layers.norm import BatchNorm
from gan_jax.models.blocks import check_least
from gan_jax.models.esrgan import ONE, UNIFORM

FOUR = ((4, 4), (4, 4))  # rows and columns of zeros on every side


class Generator(nn.Module, kw_only=True):
    """x (B, h, w, C) in [0, 1] -> pictures (B, h * scale, w * scale, channels), float32 in [0, 1].

    Raises:
      UserError: a scale that is no power of two.
    """

    channels: int = 3  # of the pictures that it makes; those that it sees have any number
    scale: int = 4  # a power of two
    width: int = 64  # features
    blocks: int = 16  # residual ones
    axis_name: str | None = None  # mesh axis of BatchNorm
    dtype: jnp.dtype = jnp.float32  # of the computation

    def __post_init__(self):
        check_least(self, {"channels": 1, "width": 1, "blocks": 0, "scale": 1})
        if self.scale & (self.scale - 1):
            raise UserError(f"scale={self.scale}: this generator enlarges by powers of two")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        def conv(features, name, x, kernel=3, padding=ONE):
            return Conv(features, kernel, padding=padding, kernel_init=UNIFORM, dtype=self.dtype, name=name)(x)

        def norm(name, x):
            return BatchNorm(axis_name=self.axis_name, dtype=self.dtype, name=name)(x, not train)

        first = PRelu(name="stem_prelu")(conv(self.width, "stem", x.astype(self.dtype), 9, FOUR))
        y = first
        for i in range(self.blocks):
            inner = norm(f"block{i}_norm0", conv(self.width, f"block{i}_conv0", y))
            inner = conv(self.width, f"block{i}_conv1", PRelu(name=f"block{i}_prelu")(inner))
            y = y + norm(f"block{i}_norm1", inner)
        y = first + norm("trunk_norm", conv(self.width, "trunk", y))
        for i in range(self.scale.bit_length() - 1):
            y = PRelu(name=f"up{i}_prelu")(shuffle(conv(4 * self.width, f"up{i}", y), 2))
        y = conv(self.channels, "image", y, 9, FOUR).astype(jnp.float32)
        return (jnp.tanh(y) + 1) / 2


class Discriminator(nn.Module, kw_only=True):
    """x (B, H, W, C) in [0, 1], of any size -> logits (B,), float32."""

    features: tuple[int, ...] = (64, 128, 256, 512)  # of each two layers, the second of which halves the sides
    hidden: int = 1024  # features of the layer in front of the logit
    axis_name: str | None = None  # mesh axis of BatchNorm
    dtype: jnp.dtype = jnp.float32  # of the computation

    @property
    def couples_samples(self) -> bool:
        """A logit depends on the other pictures of its batch, by their statistics."""
        return True

    def __post_init__(self):
        check_least(self, {"hidden": 1})
        if not self.features or min(self.features) < 1:
            raise UserError(f"features={self.features}: expected one number or more, each 1 or more")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        options = {"padding": ONE, "kernel_init": UNIFORM, "dtype": self.dtype}
        x = x.astype(self.dtype)
        for i, features in enumerate(self.features):
            for j in range(2):
                x = Conv(features, 3, 1 + j, name=f"conv{i}_{j}", **options)(x)
                if (i, j) != (0, 0):
                    name = f"conv{i}_{j}_norm"
                    x = BatchNorm(axis_name=self.axis_name, dtype=self.dtype, name=name)(x, not train)
                x = nn.leaky_relu(x, 0.2)
        x = Dense(self.hidden, kernel_init=UNIFORM, dtype=self.dtype, name="hidden")(x.mean((1, 2)))
        x = Dense(1, kernel_init=UNIFORM, dtype=self.dtype, name="head")(nn.leaky_relu(x, 0.2))
        return x[:, 0].astype(jnp.float32)
