"""The networks of pix2pix (Isola et al. 2017, arXiv 1611.07004): pictures to pictures of the same size.

The generator is a U-Net (appendix 6.1.1): halvings down to one pixel and doublings back, where each doubling also sees
the features of its size on the way down. The discriminator is `patchgan`'s; a game shows it the source and the picture
as one. The paper trains and draws batches of one, so that its batch normalisation is over one picture in both: here a
picture is drawn with its own statistics whatever stands beside it, and the dropout, the paper's only noise, stays on.
Dropout is where the paper has it, in the first layers of the way back; the authors' PyTorch program has it one layer
later.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax.errors import UserError
from gan_jax.layers.dropout import dropout
from gan_jax.layers.linear import Conv, ConvTranspose
from gan_jax.layers.random import fold
from gan_jax.models import patchgan
from gan_jax.models.blocks import check_choice
from gan_jax.models.patchgan import ONE, WEIGHTS, check, normalised


class Generator(nn.Module, kw_only=True):
    """x (B, H, W, C) in [-1, 1] -> images (B, H, W, channels), float32 in [-1, 1]; keys (B,) are those of the dropout.

    Raises:
      UserError: sides that cannot be halved so often.
    """

    channels: int = 3  # of the images that it makes; those that it sees have any number
    width: int = 64  # features after the first halving; doubled with each, up to eightfold
    depth: int = 0  # halvings; 0: as many as the sides allow, 8 for 256 pixels
    norm: str = "batch"  # with scale and bias | 'instance': without | 'none'; the first and the smallest have none
    statistics: str = "picture"  # of a batch normalisation where a picture is drawn: its own, or 'running' ones
    dropout: float = 0.5  # in the first layers of the way back, where keys are given
    dropout_layers: int = 3
    dropout_start: int = 0  # layers of the way back before them; the authors' PyTorch program has 1
    axis_name: str | None = None  # mesh axis of BatchNorm
    dtype: jnp.dtype = jnp.float32  # of the computation

    def __post_init__(self):
        check(self, {"channels": 1, "width": 1, "depth": 0, "dropout_layers": 0, "dropout_start": 0})
        check_choice("statistics", self.statistics, ("picture", "running"))
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout={self.dropout}: expected 0 or more and below 1")
        super().__post_init__()

    @property
    def translates(self) -> bool:
        """It takes images."""
        return True

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, keys: jax.Array | None = None) -> jax.Array:
        depth = self._depth(*x.shape[1:3])
        options = {"kernel_size": 4, "stride": 2, "padding": ONE, "kernel_init": WEIGHTS, "dtype": self.dtype}
        bias = self.norm != "batch"
        x, skips = x.astype(self.dtype), []
        for i in range(depth):
            if i > 0:
                skips.append(x)
                x = nn.leaky_relu(x, 0.2)
            x = Conv(self.width * min(2**i, 8), use_bias=bias, name=f"down{i}", **options)(x)
            if 0 < i < depth - 1:
                x = normalised(self, x, f"down{i}_norm", train)
        for i in reversed(range(1, depth)):
            features = self.width * min(2 ** (i - 1), 8)
            x = ConvTranspose(features, use_bias=bias, name=f"up{i}", **options)(nn.relu(x))
            x = normalised(self, x, f"up{i}_norm", train)
            if keys is not None and self.dropout and 0 < depth - i - self.dropout_start <= self.dropout_layers:
                x = dropout(x, fold(keys, i), self.dropout)
            x = jnp.concatenate([skips.pop(), x], axis=-1)
        x = ConvTranspose(self.channels, name="up0", **options)(nn.relu(x))
        return jnp.tanh(x.astype(jnp.float32))

    def _depth(self, height: int, width: int) -> int:
        most = 0
        while 2**most < min(height, width) and height % 2 ** (most + 1) == width % 2 ** (most + 1) == 0:
            most += 1
        depth = self.depth or most
        if not 0 < depth <= most:
            unit = 2 ** max(depth, 1)
            raise UserError(f"images of {height}x{width}: a U-Net of {max(depth, 1)} halvings expects sides that are "
                            f"multiples of {unit}")
        return depth


class Discriminator(patchgan.Discriminator, kw_only=True):
    """See `patchgan.Discriminator`: here of source and picture, stacked along the channels (B, H, W, 2 C)."""

    norm: str = "batch"  # or 'instance', 'none'; see `patchgan.normalised`; the first layer has none
