"""DF-GAN (Tao et al. 2020, arXiv 2008.05865): one stage from a sentence's vector and noise to an image.

Every block of the generator is scaled and shifted by functions of noise and sentence, twice before each convolution.
The discriminator makes features of an image alone, and judges them beside the sentence: its answer to one pair is one
logit.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax.errors import UserError
from gan_jax.layers.activation import leaky_relu
from gan_jax.layers.conv import Pair
from gan_jax.layers.linear import Conv, Dense
from gan_jax.layers.rescale import downscale, sizes, upscale
from gan_jax.models.blocks import check_choice, check_least
from gan_jax.models.esrgan import UNIFORM

SLOPE = 0.2  # of every leaky ReLU
MOST = 8  # widths are at most so many times that of the layer beside the image
ZEROS, ONES = nn.initializers.zeros, nn.initializers.ones


class Affine(nn.Module):
    """x (B, h, w, C), condition (B, N) -> gamma(condition) x + beta(condition), two linear layers each (eq. 2).

    It begins as the identity.
    """

    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array) -> jax.Array:
        return x * self._map("gamma", x, condition, ONES) + self._map("beta", x, condition, ZEROS)

    def _map(self, name: str, x: jax.Array, condition: jax.Array, bias) -> jax.Array:
        channels = x.shape[-1]
        hidden = Dense(channels, kernel_init=UNIFORM, dtype=self.dtype, name=f"{name}0")(condition)
        first = self.param(f"{name}_bias", bias, (channels,), jnp.float32)
        y = Dense(channels, False, kernel_init=ZEROS, dtype=self.dtype, name=f"{name}1")(nn.relu(hidden))
        return (y + first.astype(y.dtype))[:, None, None]


class Fusion(nn.Module):
    """Two times `Affine` and a leaky ReLU (section 3.3, the deep text-image fusion block)."""

    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array) -> jax.Array:
        for i in range(2):
            x = leaky_relu(Affine(self.dtype, name=f"affine{i}")(x, condition), SLOPE)
        return x


class UpBlock(nn.Module):
    """x (B, h, w, I), condition (B, N) -> (B, 2h, 2w, features): doubling, fusion and 3x3 twice; beside it 1x1."""

    features: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array) -> jax.Array:
        options = {"kernel_init": UNIFORM, "dtype": self.dtype}
        x = y = upscale(x)
        for i in range(2):
            y = Conv(self.features, 3, name=f"conv{i}", **options)(Fusion(self.dtype, name=f"fusion{i}")(y, condition))
        if x.shape[-1] != self.features:
            x = Conv(self.features, 1, name="skip", **options)(x)
        return x + y


class DownBlock(nn.Module):
    """x (B, h, w, I) -> (B, h / 2, w / 2, features): 4x4 of stride 2, 3x3, times a learned factor that begins at 0.

    Beside it 1x1 and halving by averages. Where no channels are added the 1x1 has no effect, and its weights never
    move; published files have them.
    """

    features: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        options = {"kernel_init": UNIFORM, "dtype": self.dtype}
        y = Conv(self.features, 4, 2, use_bias=False, name="conv0", **options)(x)
        y = Conv(self.features, 3, use_bias=False, name="conv1", **options)(leaky_relu(y, SLOPE))
        gamma = self.param("gamma", ZEROS, (1,), jnp.float32).astype(y.dtype)
        skip = Conv(self.features, 1, name="skip", **options)(x)
        if x.shape[-1] == self.features:
            skip = x
        return downscale(skip) + gamma * leaky_relu(y, SLOPE)


class Generator(nn.Module, kw_only=True):
    """z (B, latent_size), sentence (B, S) -> images (B, H, W, channels), float32 in [-1, 1].

    Raises:
      UserError: a side below 4, see `layers.rescale.sizes`; a truncation out of range, or of uniform latents.
    """

    resolution: int | Pair = 256  # of the images: side, or (height, width)
    channels: int = 3  # of the images
    latent_size: int = 100  # entries of z
    latent: str = "normal"  # distribution of z, read by the game: 'normal' N(0, 1) | 'uniform' U(-1, 1)
    truncation: float = 0.0  # of samples, read by the game: z within 2 deviations, times it; 0: as in training
    width: int = 32  # features beside the image, doubled with each halving, up to 8 times so many
    dtype: jnp.dtype = jnp.float32  # of the computation

    captioned = True  # it takes a sentence's vector
    couples_samples = False  # no sample sees another

    def __post_init__(self):
        check_choice("latent", self.latent, ("normal", "uniform"))
        if not 0 <= self.truncation <= 1:
            raise UserError(f"truncation={self.truncation}: expected 0 to 1")
        if self.truncation and self.latent != "normal":
            raise UserError(f"truncation={self.truncation}: is of normal latents, not {self.latent} ones; set it to 0")
        check_least(self, {"channels": 1, "width": 1})
        sizes(self.resolution)
        super().__post_init__()

    @nn.compact
    def __call__(self, z: jax.Array, sentence: jax.Array, *, train: bool) -> jax.Array:
        assert z.shape[1:] == (self.latent_size,), (z.shape, self.latent_size)
        base, first, *rest = sizes(self.resolution)[0], *reversed(widths(self.resolution, self.width))
        condition = jnp.concatenate([z, sentence], -1).astype(self.dtype)
        x = Dense(math.prod(base) * first, kernel_init=UNIFORM, dtype=self.dtype, name="stem")(z)
        x = x.reshape(-1, *base, first)
        for i, features in enumerate(rest):
            x = UpBlock(features, self.dtype, name=f"block{i}")(x, condition)
        x = Conv(self.channels, 3, kernel_init=UNIFORM, dtype=self.dtype, name="image")(leaky_relu(x, SLOPE))
        return jnp.tanh(x.astype(jnp.float32))


class Discriminator(nn.Module, kw_only=True):
    """Images (B, H, W, channels), sentence (B, S) -> logits (B,), float32; `judge(features(images), sentence)`.

    Raises:
      UserError: a side below 4, see `layers.rescale.sizes`.
    """

    resolution: int | Pair = 256  # of the images: side, or (height, width)
    channels: int = 3  # of the images
    width: int = 32  # features beside the image, doubled with each halving, up to 8 times so many
    dtype: jnp.dtype = jnp.float32  # of the computation

    captioned = True  # it takes a sentence's vector
    couples_samples = False  # no sample sees another

    def __post_init__(self):
        check_least(self, {"channels": 1, "width": 1})
        sizes(self.resolution)
        super().__post_init__()

    def setup(self):
        """Its layers."""
        first, *rest = widths(self.resolution, self.width)
        options = {"kernel_init": UNIFORM, "dtype": self.dtype}
        self.stem = Conv(first, 3, **options)
        self.blocks = [DownBlock(features, self.dtype, name=f"block{i}") for i, features in enumerate(rest)]
        self.joint = Conv(2 * first, 3, use_bias=False, **options)
        self.head = Conv(1, sizes(self.resolution)[0], padding="VALID", use_bias=False, **options)

    def __call__(self, images: jax.Array, sentence: jax.Array, *, train: bool) -> jax.Array:
        return self.judge(self.features(images, train=train), sentence, train=train)

    def features(self, images: jax.Array, *, train: bool) -> jax.Array:
        """The last map (B, h, w, C) of images (B, H, W, channels), of which a pair's logit is made."""
        x = self.stem(images.astype(self.dtype))
        for block in self.blocks:
            x = block(x)
        return x

    def judge(self, features: jax.Array, sentence: jax.Array, *, train: bool) -> jax.Array:
        """Logits (B,), float32, of maps (B, h, w, C) beside sentences (B, S)."""
        places = jnp.broadcast_to(sentence[:, None, None], (*features.shape[:3], sentence.shape[-1]))
        x = self.joint(jnp.concatenate([features, places.astype(features.dtype)], -1))
        return self.head(leaky_relu(x, SLOPE)).reshape(-1).astype(jnp.float32)


def widths(resolution: int | Pair, width: int) -> tuple[int, ...]:
    """Features at each resolution, from the image down to the base."""
    return tuple(width * min(2**i, MOST) for i in range(len(sizes(resolution))))
