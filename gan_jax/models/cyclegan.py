"""The networks of CycleGAN (Zhu et al. 2017, arXiv 1703.10593): images to images, and logits of patches.

The generator is the residual network of Johnson et al. 2016 (arXiv 1603.08155) as CycleGAN changed it (its appendix):
two halvings, residual blocks, two doublings, with reflected borders. The discriminator is `patchgan`'s, of patches of
70x70 pixels by default. Biases and paddings are as there.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax.errors import UserError
from gan_jax.layers.dropout import dropout
from gan_jax.layers.linear import Conv, ConvTranspose
from gan_jax.layers.random import fold
from gan_jax.models.patchgan import ONE, WEIGHTS, Discriminator, check, normalised

__all__ = ["Discriminator", "Generator"]


class Block(nn.Module, kw_only=True):
    """x (B, h, w, C) -> x + y of the same shape; y: 3x3, norm, ReLU, dropout, 3x3, norm, with reflected borders."""

    norm: str
    dropout: float
    axis_name: str | None
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, keys: jax.Array | None = None) -> jax.Array:
        options = {"padding": "VALID", "use_bias": self.norm != "batch", "kernel_init": WEIGHTS, "dtype": self.dtype}
        y = Conv(x.shape[-1], 3, name="conv0", **options)(_reflect(x, 1))
        y = nn.relu(normalised(self, y, "norm0", train))
        if train and self.dropout and keys is not None:
            y = dropout(y, keys, self.dropout)
        y = Conv(x.shape[-1], 3, name="conv1", **options)(_reflect(y, 1))
        return x + normalised(self, y, "norm1", train)


class Generator(nn.Module, kw_only=True):
    """x (B, H, W, C) in [-1, 1] -> images (B, H, W, channels), float32 in [-1, 1].

    Raises:
      UserError: sides that are no multiples of 2 ** halvings, or too small to be reflected: below 4, or below 2 where
        the blocks are.
    """

    channels: int = 3  # of the images that it makes; those that it sees have any number
    width: int = 64  # features at full size; doubled with each halving
    halvings: int = 2  # of the sides in front of the blocks, and doublings behind them; CycleGAN has 2
    blocks: int = 9  # residual ones; CycleGAN has 6 for 128x128, 9 from 256x256 on
    norm: str = "instance"  # 'instance': without parameters | 'batch': with scale and bias | 'none'
    dropout: float = 0.0  # inside each block, where keys are given
    axis_name: str | None = None  # mesh axis of BatchNorm
    dtype: jnp.dtype = jnp.float32  # of the computation

    def __post_init__(self):
        check(self, {"channels": 1, "width": 1, "halvings": 0, "blocks": 0})
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout={self.dropout}: expected 0 or more and below 1")
        super().__post_init__()

    @property
    def translates(self) -> bool:
        """It takes images."""
        return True

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, keys: jax.Array | None = None) -> jax.Array:
        self._check_size(*x.shape[1:3])
        bias = self.norm != "batch"
        options = {"kernel_init": WEIGHTS, "dtype": self.dtype}
        common = {"norm": self.norm, "dropout": self.dropout, "axis_name": self.axis_name, "dtype": self.dtype}

        def activated(x, name):
            return nn.relu(normalised(self, x, name, train))

        x = _reflect(x.astype(self.dtype), 3)
        x = Conv(self.width, 7, padding="VALID", use_bias=bias, name="stem", **options)(x)
        x = activated(x, "stem_norm")
        for i in range(self.halvings):
            x = Conv(self.width * 2 ** (i + 1), 3, 2, ONE, bias, name=f"down{i}", **options)(x)
            x = activated(x, f"down{i}_norm")
        for i in range(self.blocks):
            of_block = fold(keys, i) if train and self.dropout and keys is not None else None
            x = Block(name=f"block{i}", **common)(x, train=train, keys=of_block)
        for i in range(self.halvings):
            # torch's padding 1 with output_padding 1: the last row and column are not cut off.
            features = self.width * 2 ** (self.halvings - 1 - i)
            x = ConvTranspose(features, 3, 2, ((1, 0), (1, 0)), bias, name=f"up{i}", **options)(x)
            x = activated(x, f"up{i}_norm")
        x = Conv(self.channels, 7, padding="VALID", name="image", **options)(_reflect(x, 3))
        return jnp.tanh(x.astype(jnp.float32))

    def _check_size(self, height: int, width: int) -> None:
        unit = 2**self.halvings
        smallest = max(4, 2 * unit if self.blocks else unit)
        if height % unit or width % unit or min(height, width) < smallest:
            raise UserError(
                f"images of {height}x{width}: expected sides that are multiples of {unit}, from {smallest} on"
            )


def _reflect(x: jax.Array, border: int) -> jax.Array:
    """x (B, h, w, C) with so many rows and columns more on every side: mirrored, the outermost of x not repeated."""
    return jnp.pad(x, ((0, 0), (border, border), (border, border), (0, 0)), mode="reflect")
