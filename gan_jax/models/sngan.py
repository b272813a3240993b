"""SNGAN's residual networks (Miyato et al. 2018, arXiv 1802.05957); the defaults are those for CIFAR-10.

Every weight of the discriminator is divided by its largest singular value; the generator normalises batches.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax.errors import UserError
from gan_jax.layers.conv import Pair, as_pair
from gan_jax.layers.linear import Conv, Dense
from gan_jax.layers.norm import BatchNorm
from gan_jax.layers.rescale import downscale, upscale
from gan_jax.models.blocks import check_choice

GLOROT = nn.initializers.glorot_uniform()
GLOROT_ROOT2 = nn.initializers.variance_scaling(2.0, "fan_avg", "uniform")  # sqrt(2) times as wide


class GeneratorBlock(nn.Module, kw_only=True):
    """x (B, h, w, I) -> (B, 2h, 2w, features): norm, ReLU, doubling, 3x3, norm, ReLU, 3x3; beside it doubling, 1x1."""

    features: int
    norm: dict  # arguments of the batch normalisation
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        options = {"kernel_init": GLOROT_ROOT2, "dtype": self.dtype}
        y = nn.relu(BatchNorm(**self.norm, name="norm0")(x, use_running_average=not train))
        y = Conv(self.features, 3, name="conv0", **options)(upscale(y))
        y = nn.relu(BatchNorm(**self.norm, name="norm1")(y, use_running_average=not train))
        y = Conv(self.features, 3, name="conv1", **options)(y)
        return y + upscale(Conv(self.features, 1, kernel_init=GLOROT, dtype=self.dtype, name="skip")(x))


class DiscriminatorBlock(nn.Module, kw_only=True):
    """x (B, h, w, I) -> (B, h', w', features): ReLU, 3x3, ReLU, 3x3, halving by averages where `down`.

    Beside it halving and 1x1, or x itself where its shape stays. A network's first block sees images, without ReLU.
    """

    features: int
    down: bool
    first: bool
    weights: dict  # arguments of every layer

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = x if self.first else nn.relu(x)
        y = Conv(self.features, 3, kernel_init=GLOROT_ROOT2, name="conv0", **self.weights)(y, train)
        y = Conv(self.features, 3, kernel_init=GLOROT_ROOT2, name="conv1", **self.weights)(nn.relu(y), train)
        skip = x
        if self.down:
            y, skip = downscale(y), downscale(x)
        if self.down or x.shape[-1] != self.features:
            skip = Conv(self.features, 1, kernel_init=GLOROT, name="skip", **self.weights)(skip, train)
        return y + skip


class Generator(nn.Module, kw_only=True):
    """z (B, latent_size) -> images (B, H, W, channels), float32 in [-1, 1].

    Raises:
      UserError: a size that the blocks' doublings do not divide, or labels.
    """

    resolution: int | Pair = 32  # of the images: side, or (height, width)
    channels: int = 3  # of the images
    num_classes: int = 0  # must be 0: the model is unconditional
    latent_size: int = 128  # entries of z
    latent: str = "normal"  # distribution of z, read by the game: 'normal' N(0, 1) | 'uniform' U(-1, 1)
    widths: tuple[int, ...] = (256, 256, 256)  # features of each block, each doubles the size
    norm_momentum: float = 0.9  # weight of the old running value
    norm_epsilon: float = 1e-5
    axis_name: str | None = None  # mesh axis of BatchNorm
    dtype: jnp.dtype = jnp.float32  # of the computation

    def __post_init__(self):
        check_choice("latent", self.latent, ("normal", "uniform"))
        _check(self, len(self.widths))
        super().__post_init__()

    @nn.compact
    def __call__(
        self, z: jax.Array, label: jax.Array | None = None, *, train: bool, keys: jax.Array | None = None
    ) -> jax.Array:
        assert z.shape[1:] == (self.latent_size,), (z.shape, self.latent_size)
        base = tuple(n >> len(self.widths) for n in as_pair(self.resolution))
        norm = {"momentum": self.norm_momentum, "epsilon": self.norm_epsilon, "axis_name": self.axis_name}
        options = {"kernel_init": GLOROT, "dtype": self.dtype}
        x = Dense(math.prod(base) * self.widths[0], name="stem", **options)(z)
        x = x.reshape(-1, *base, self.widths[0])
        for i, features in enumerate(self.widths):
            x = GeneratorBlock(features=features, norm=norm, dtype=self.dtype, name=f"block{i}")(x, train)
        x = nn.relu(BatchNorm(**norm, name="norm")(x, use_running_average=not train))
        return jnp.tanh(Conv(self.channels, 3, name="image", **options)(x).astype(jnp.float32))


class Discriminator(nn.Module, kw_only=True):
    """Images (B, H, W, channels) -> logits (B,), float32: the last features, summed over pixels, and a linear map.

    Raises:
      UserError: a size that the halvings do not divide, more halvings than blocks, or labels.
    """

    resolution: int | Pair = 32  # of the images: side, or (height, width)
    channels: int = 3  # of the images
    num_classes: int = 0  # must be 0: the model is unconditional
    widths: tuple[int, ...] = (128, 128, 128, 128)  # features of each block
    halvings: int = 2  # the first blocks, which halve the size
    spectral_norm: bool = True  # of every weight
    axis_name: str | None = None  # mesh axis of the spectral vectors
    dtype: jnp.dtype = jnp.float32  # of the computation

    couples_samples = False  # a logit depends on its own image alone

    def __post_init__(self):
        if not 0 <= self.halvings <= len(self.widths):
            raise UserError(f"halvings={self.halvings}: expected 0 to {len(self.widths)}, the number of widths")
        _check(self, self.halvings)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: jax.Array, label: jax.Array | None = None, *, train: bool, keys: jax.Array | None = None
    ) -> jax.Array:
        assert x.shape[1:] == (*as_pair(self.resolution), self.channels), (x.shape, self.resolution)
        weights = {"spectral_norm": self.spectral_norm, "axis_name": self.axis_name, "dtype": self.dtype}
        for i, features in enumerate(self.widths):
            options = {"features": features, "down": i < self.halvings, "first": i == 0, "weights": weights}
            x = DiscriminatorBlock(**options, name=f"block{i}")(x, train)
        x = jnp.sum(nn.relu(x).astype(jnp.float32), (1, 2)).astype(self.dtype)
        return Dense(1, kernel_init=GLOROT, name="head", **weights)(x, train)[:, 0].astype(jnp.float32)


def _check(model: nn.Module, halvings: int) -> None:
    if model.num_classes:
        raise UserError(
            f"num_classes={model.num_classes}: the model 'sngan' takes no labels; play without them, or use a model "
            "that does, such as 'dcgan'"
        )
    if not model.widths or min(model.widths) < 1:
        raise UserError(f"widths={model.widths}: expected one number of 1 or more for each block")
    if any(n % 2**halvings for n in as_pair(model.resolution)):
        raise UserError(f"resolution {model.resolution}: expected multiples of {2**halvings}, for {halvings} halvings")
