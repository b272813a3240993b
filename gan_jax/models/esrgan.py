"""The networks of ESRGAN (Wang et al. 2018, arXiv 1809.00219): a small picture to a large one, and one logit an image.

The generator is RRDBNet: residual blocks of three densely connected blocks each, without normalisation. It enlarges by
four; to enlarge less, it takes squares of pixels as channels first. Real-ESRGAN (2107.10833) trains the same network.
The discriminator is the one of SRGAN (1609.04802) for pictures of one size. All pictures are in [0, 1].
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax.errors import UserError
from gan_jax.layers.enlarge import unshuffle
from gan_jax.layers.linear import Conv, Dense
from gan_jax.layers.norm import BatchNorm
from gan_jax.layers.rescale import upscale
from gan_jax.models.blocks import check_least

UNIFORM = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # +-1 / sqrt(fan-in), PyTorch's default
SMALL = nn.initializers.variance_scaling(0.02, "fan_in", "normal")  # of He et al. 2015, times 0.1
ONE = ((1, 1), (1, 1))  # row and column of zeros on every side
RESIDUAL = 0.2  # factor of what a block adds
INNER = {4: 1, 2: 2, 1: 4}  # scale: side of the squares of pixels that become channels


class DenseBlock(nn.Module):
    """x (B, h, w, C) -> x + 0.2 y; y by five convolutions, of which each sees x and all that the ones before made."""

    growth: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        seen = x
        for i in range(1, 5):
            y = Conv(self.growth, 3, padding=ONE, kernel_init=SMALL, dtype=self.dtype, name=f"conv{i}")(seen)
            seen = jnp.concatenate([seen, nn.leaky_relu(y, 0.2)], -1)
        y = Conv(x.shape[-1], 3, padding=ONE, kernel_init=SMALL, dtype=self.dtype, name="conv5")(seen)
        return x + RESIDUAL * y


class Block(nn.Module):
    """x (B, h, w, C) -> x + 0.2 y; y by three dense blocks."""

    growth: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = x
        for i in range(1, 4):
            y = DenseBlock(self.growth, self.dtype, name=f"dense{i}")(y)
        return x + RESIDUAL * y


class Generator(nn.Module, kw_only=True):
    """x (B, h, w, C) in [0, 1] -> pictures (B, h * scale, w * scale, channels), float32, about [0, 1], not clipped.

    Raises:
      UserError: a scale that it has no form for, or sides that its squares of pixels do not divide.
    """

    channels: int = 3  # of the pictures that it makes; those that it sees have any number
    scale: int = 4  # 4, 2 or 1
    width: int = 64  # features
    blocks: int = 23  # residual ones; Real-ESRGAN's for animation has 6
    growth: int = 32  # features that a convolution of a dense block adds
    dtype: jnp.dtype = jnp.float32  # of the computation

    def __post_init__(self):
        check_least(self, {"channels": 1, "width": 1, "blocks": 0, "growth": 1})
        if self.scale not in INNER:
            raise UserError(f"scale={self.scale}: this generator enlarges by {', '.join(map(str, INNER))}")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        side = INNER[self.scale]
        if any(n % side for n in x.shape[1:3]):
            raise UserError(f"pictures of {x.shape[1]}x{x.shape[2]}: expected sides that are multiples of {side}")

        def conv(features, name, x):
            options = {"padding": ONE, "kernel_init": UNIFORM, "dtype": self.dtype}
            return Conv(features, 3, name=name, **options)(x)

        first = conv(self.width, "stem", unshuffle(x.astype(self.dtype), side))
        y = self._deep(first, train)
        x = first + conv(self.width, "trunk", y)
        for i in range(2):
            x = nn.leaky_relu(conv(self.width, f"up{i}", upscale(x)), 0.2)
        x = nn.leaky_relu(conv(self.width, "last", x), 0.2)
        return conv(self.channels, "image", x).astype(jnp.float32)

    def _deep(self, x: jax.Array, train: bool) -> jax.Array:
        """x through the blocks. To draw, they are one program in a loop: 23 of them take the compiler minutes."""
        if train or self.is_initializing():
            for i in range(self.blocks):
                x = Block(self.growth, self.dtype, name=f"block{i}")(x)
            return x
        weights = [self.variables["params"][f"block{i}"] for i in range(self.blocks)]
        if not weights:
            return x
        stacked = jax.tree.map(lambda *arrays: jnp.stack(arrays), *weights)
        block = Block(self.growth, self.dtype, parent=None)
        return jax.lax.scan(lambda x, params: (block.apply({"params": params}, x), None), x, stacked)[0]


class Discriminator(nn.Module, kw_only=True):
    """x (B, H, W, C) in [0, 1] -> logits (B,), float32.

    Its dense layer is as large as the map that is left: pictures have the size of those that it was initialised for,
    128x128 in the paper.

    Raises:
      UserError: sides that are no multiples of 2 ** halvings.
    """

    width: int = 64  # features at full size; doubled with each halving, up to eightfold
    halvings: int = 5  # BasicSR has 6 for 256x256
    hidden: int = 100  # features of the layer in front of the logit
    axis_name: str | None = None  # mesh axis of BatchNorm
    dtype: jnp.dtype = jnp.float32  # of the computation

    @property
    def couples_samples(self) -> bool:
        """A logit depends on the other pictures of its batch, by their statistics."""
        return True

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
            features = self.width * min(2**i, 8)
            for name, kernel, stride in ((f"conv{i}_0", 3, 1), (f"conv{i}_1", 4, 2)):
                is_first = name == "conv0_0"
                x = Conv(features, kernel, stride, use_bias=is_first, name=name, **options)(x)
                if not is_first:
                    x = BatchNorm(axis_name=self.axis_name, dtype=self.dtype, name=f"{name}_norm")(x, not train)
                x = nn.leaky_relu(x, 0.2)
        x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)  # channels, rows, columns, as published weights are ordered
        x = Dense(self.hidden, kernel_init=UNIFORM, dtype=self.dtype, name="hidden")(x)
        x = Dense(1, kernel_init=UNIFORM, dtype=self.dtype, name="head")(nn.leaky_relu(x, 0.2))
        return x[:, 0].astype(jnp.float32)
