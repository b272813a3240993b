"""The networks of CycleGAN (Zhu et al. 2017, arXiv 1703.10593): images to images, and logits of patches.

The generator is the residual network of Johnson et al. 2016 (arXiv 1603.08155) as CycleGAN changed it (its appendix):
two halvings, residual blocks, two doublings, with reflected borders. The discriminator is `patchgan`'s, of patches of
70x70 pixels by default. Biases and paddings are as there. CUT has the same networks with other changes of size, see
`cut`.
"""

from collections.abc import Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax.errors import UserError
from gan_jax.layers.dropout import dropout
from gan_jax.layers.enlarge import bilinear
from gan_jax.layers.linear import Conv, ConvTranspose
from gan_jax.layers.pad import reflect
from gan_jax.layers.random import fold
from gan_jax.models.patchgan import KERNELS, ONE, Discriminator, blurred, check, normalised

__all__ = ["Discriminator", "Generator"]


class Block(nn.Module, kw_only=True):
    """x (B, h, w, C) -> x + y of the same shape; y: 3x3, norm, ReLU, dropout, 3x3, norm, with reflected borders."""

    norm: str
    dropout: float
    kernels: str
    axis_name: str | None
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, keys: jax.Array | None = None) -> jax.Array:
        options = {"padding": "VALID", "use_bias": self.norm != "batch"}
        options |= {"kernel_init": KERNELS[self.kernels], "dtype": self.dtype}
        y = Conv(x.shape[-1], 3, name="conv0", **options)(reflect(x, 1))
        y = nn.relu(normalised(self, y, "norm0", train))
        if train and self.dropout and keys is not None:
            y = dropout(y, keys, self.dropout)
        y = Conv(x.shape[-1], 3, name="conv1", **options)(reflect(y, 1))
        return x + normalised(self, y, "norm1", train)


class Generator(nn.Module, kw_only=True):
    """x (B, H, W, C) in [-1, 1] -> images (B, H, W, channels), float32 in [-1, 1].

    With `layers`, some of `encoder`, it gives their maps instead: {name: (B, h, w, features), float32}.

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
    antialias_down: bool = False  # halvings are blurs behind the layers, see `patchgan.blurred`; else strides
    antialias_up: bool = False  # doublings are bilinear, in front of the layers; else transposed convolutions
    kernels: str = "normal"  # at first: N(0, .02^2), or 'xavier': N(0, .02^2 * 2 / (fan in + fan out))
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

    @property
    def encoder(self) -> tuple[str, ...]:
        """Names of the maps that `layers` may ask for, the first ones first.

        `input` is the image with its border; a layer's own name stands for what it gives, and `<layer>_norm` for that
        behind normalisation and ReLU.
        """
        convs = ("stem", *(f"down{i}" for i in range(self.halvings)))
        pairs = [name for conv in convs for name in (conv, f"{conv}_norm")]
        return ("input", *pairs, *(f"block{i}" for i in range(self.blocks)))

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool, keys: jax.Array | None = None, layers: tuple[str, ...] = ()
    ) -> jax.Array | dict[str, jax.Array]:
        self._check_size(*x.shape[1:3])
        maps = {}
        for name, y in self._encoded(x.astype(self.dtype), train, keys):
            x = y
            if name in layers:
                maps[name] = y.astype(jnp.float32)
            if layers and len(maps) == len(set(layers)):
                return maps
        assert not layers, (layers, self.encoder)
        return self._decoded(x, train)

    def _encoded(self, x: jax.Array, train: bool, keys: jax.Array | None) -> Iterator[tuple[str, jax.Array]]:
        """(name, map) of the input, of each layer and of each block in turn."""
        x = reflect(x, 3)
        yield "input", x
        x = Conv(self.width, 7, padding="VALID", name="stem", **self._options())(x)
        yield "stem", x
        x = self._activated(x, "stem_norm", train)
        yield "stem_norm", x
        for i in range(self.halvings):
            stride = 1 if self.antialias_down else 2
            x = Conv(self.width * 2 ** (i + 1), 3, stride, ONE, name=f"down{i}", **self._options())(x)
            yield f"down{i}", x
            x = self._activated(x, f"down{i}_norm", train)
            yield f"down{i}_norm", x
            x = blurred(x) if self.antialias_down else x
        common = {"norm": self.norm, "dropout": self.dropout, "kernels": self.kernels}
        common |= {"axis_name": self.axis_name, "dtype": self.dtype}
        for i in range(self.blocks):
            of_block = fold(keys, i) if train and self.dropout and keys is not None else None
            x = Block(name=f"block{i}", **common)(x, train=train, keys=of_block)
            yield f"block{i}", x
        if not self.blocks:
            yield "", x

    def _decoded(self, x: jax.Array, train: bool) -> jax.Array:
        for i in range(self.halvings):
            features = self.width * 2 ** (self.halvings - 1 - i)
            if self.antialias_up:
                x = Conv(features, 3, 1, ONE, name=f"up{i}", **self._options())(bilinear(x, 2))
            else:  # torch's padding 1 with output_padding 1: the last row and column are not cut off.
                x = ConvTranspose(features, 3, 2, ((1, 0), (1, 0)), name=f"up{i}", **self._options())(x)
            x = self._activated(x, f"up{i}_norm", train)
        options = self._options() | {"use_bias": True}
        x = Conv(self.channels, 7, padding="VALID", name="image", **options)(reflect(x, 3))
        return jnp.tanh(x.astype(jnp.float32))

    def _options(self) -> dict:
        return {"use_bias": self.norm != "batch", "kernel_init": KERNELS[self.kernels], "dtype": self.dtype}

    def _activated(self, x: jax.Array, name: str, train: bool) -> jax.Array:
        return nn.relu(normalised(self, x, name, train))

    def _check_size(self, height: int, width: int) -> None:
        unit = 2**self.halvings
        smallest = max(4, 2 * unit if self.blocks else unit)
        if height % unit or width % unit or min(height, width) < smallest:
            raise UserError(
                f"images of {height}x{width}: expected sides that are multiples of {unit}, from {smallest} on"
            )
