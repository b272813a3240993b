"""SNGAN's residual networks (Miyato et al. 2018, arXiv 1802.05957); the defaults are those for CIFAR-10.

Every weight of the discriminator is divided by its largest singular value; the generator normalises batches. With
labels they are the networks of cGANs with projection (Miyato and Koyama 2018, arXiv 1802.05637; mimicry's cGAN-PD): the
generator's blocks have a scale and an offset of each class, the discriminator projects on a vector of the class.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax.errors import UserError
from gan_jax.layers.conv import Pair, as_pair
from gan_jax.layers.linear import Conv, Dense
from gan_jax.models.blocks import check_choice
from gan_jax.models.mapping import one_hot
from gan_jax.models.residual import DownBlock, UpBlock, normalised, pooled_logits

GLOROT = nn.initializers.glorot_uniform()
GLOROT_ROOT2 = nn.initializers.variance_scaling(2.0, "fan_avg", "uniform")  # sqrt(2) times as wide
INITS = {"kernel_init": GLOROT_ROOT2, "skip_init": GLOROT}  # of the blocks


class Generator(nn.Module, kw_only=True):
    """z (B, latent_size), label (B,) -> images (B, H, W, channels), float32 in [-1, 1].

    Raises:
      UserError: a size that the blocks' doublings do not divide.
    """

    resolution: int | Pair = 32  # of the images: side, or (height, width)
    channels: int = 3  # of the images
    num_classes: int = 0  # 0: unconditional, labels are ignored
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
        condition, tables = None, {}
        if self.num_classes:
            assert label is not None, "a conditional generator needs labels"
            condition, tables = one_hot(label, self.num_classes), {"scale_init": nn.initializers.normal(0.02)}
        options = {"kernel_init": GLOROT, "dtype": self.dtype}
        x = Dense(math.prod(base) * self.widths[0], name="stem", **options)(z)
        x = x.reshape(-1, *base, self.widths[0])
        for i, features in enumerate(self.widths):
            block = {"features": features, "norm": norm | tables, "weights": {"dtype": self.dtype}}
            x = UpBlock(**block, **INITS, name=f"block{i}")(x, train, condition)
        x = nn.relu(normalised(x, None, train, **norm, name="norm"))
        return jnp.tanh(Conv(self.channels, 3, name="image", **options)(x).astype(jnp.float32))


class Discriminator(nn.Module, kw_only=True):
    """Images (B, H, W, channels), label (B,) -> logits (B,), float32, see `residual.pooled_logits`.

    Raises:
      UserError: a size that the halvings do not divide, or more halvings than blocks.
    """

    resolution: int | Pair = 32  # of the images: side, or (height, width)
    channels: int = 3  # of the images
    num_classes: int = 0  # 0: unconditional, labels are ignored
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
            x = DownBlock(**options, **INITS, name=f"block{i}")(x, train)
        return pooled_logits(
            x, label, train, num_classes=self.num_classes, weights={**weights, "kernel_init": GLOROT}
        )


def _check(model: nn.Module, halvings: int) -> None:
    if not model.widths or min(model.widths) < 1:
        raise UserError(f"widths={model.widths}: expected one number of 1 or more for each block")
    if any(n % 2**halvings for n in as_pair(model.resolution)):
        raise UserError(f"resolution {model.resolution}: expected multiples of {2**halvings}, for {halvings} halvings")
