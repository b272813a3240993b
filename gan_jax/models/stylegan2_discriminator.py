"""The discriminator of StyleGAN2 (Karras et al. 2020, arXiv 1912.04958), which StyleGAN3 shares.

Parameters are stored unscaled, one for one the official ones: b32/{fromrgb, conv0, conv1, skip}, ...,
b4/{conv, fc, out}, mapping_network/{embed, fc0, ...}. Blocks are named by their resolution, see `blocks.block_name`.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax.errors import UserError
from gan_jax.layers.equalized import EqualConv, EqualDense
from gan_jax.layers.fir import downsample2d, normalised
from gan_jax.layers.minibatch_stddev import minibatch_stddev
from gan_jax.models.blocks import Size, block_dtype, block_name, check_choice, features_at, plan, wide
from gan_jax.models.mapping import Mapping

ARCHITECTURES = ("resnet", "skip", "orig")


class DiscriminatorBlock(nn.Module, kw_only=True):
    """One resolution of the discriminator: (x, image) -> (x at half the size, image at half the size or None)."""

    features: int  # of the first layer
    features_out: int
    architecture: str
    taps: tuple[float, ...]
    clamp: float
    dtype: jnp.dtype | None  # of the computation; None: at least float32

    @nn.compact
    def __call__(self, x, image):
        options = dict(taps=self.taps, clamp=self.clamp or None, dtype=self.dtype)
        x = x if x is None or self.dtype else wide(x)
        if x is None or self.architecture == "skip":
            rgb = EqualConv(self.features, 1, "lrelu", name="fromrgb", **options)(image)
            x = rgb if x is None else x.astype(rgb.dtype) + rgb
            image = downsample2d(image, normalised(self.taps)) if self.architecture == "skip" else None
        gain = math.sqrt(0.5) if self.architecture == "resnet" else 1.0
        if self.architecture == "resnet":
            plain = dict(options, clamp=None, use_bias=False)
            skip = EqualConv(self.features_out, 1, down=2, gain=gain, name="skip", **plain)(x)
        x = EqualConv(self.features, 3, "lrelu", name="conv0", **options)(x)
        x = EqualConv(self.features_out, 3, "lrelu", down=2, gain=gain, name="conv1", **options)(x)
        return (skip + x if self.architecture == "resnet" else x), image


class DiscriminatorEpilogue(nn.Module, kw_only=True):
    """The last resolution of the discriminator: (x, image) -> features (B, features_out)."""

    features_out: int
    architecture: str
    mbstd_group: int
    mbstd_channels: int
    clamp: float

    @nn.compact
    def __call__(self, x, image):
        x = wide(x)
        features = x.shape[-1]
        if self.architecture == "skip":
            x = x + EqualConv(features, 1, "lrelu", name="fromrgb")(image)
        if self.mbstd_channels:
            group = min(self.mbstd_group or len(x), len(x))
            if len(x) % group:
                raise UserError(f"a device's batch of {len(x)} is not a multiple of mbstd_group={group}; change either")
            x = minibatch_stddev(x, group_size=group, channels=self.mbstd_channels)
        x = EqualConv(features, 3, "lrelu", clamp=self.clamp or None, name="conv")(x)
        x = EqualDense(features, "lrelu", name="fc")(x.reshape(len(x), -1))
        return EqualDense(self.features_out, name="out")(x)


class Discriminator(nn.Module, kw_only=True):
    """Images (B, H, W, channels), label -> logits (B,), float32.

    A conditional discriminator returns <features, m(label)> / sqrt(size of m) with m its own mapping network, after
    Miyato and Koyama (2018). Labels are as for the generator.
    """

    resolution: Size = 256  # of the images: side, or (height, width)
    channels: int = 3  # of the images
    num_classes: int = 0  # 0: unconditional, labels are ignored
    architecture: str = "resnet"  # 'resnet' | 'skip': sees the image at every resolution | 'orig': plain layers
    channel_base: int = 32768  # features times resolution
    channel_max: int = 512  # features at most
    mapping_layers: int = 8  # of a conditional one
    mapping_size: int = 0  # entries of its mapped label; 0: the features of the last block
    mbstd_group: int = 4  # samples among which the standard deviation is taken; 0: the whole batch
    mbstd_channels: int = 1  # standard deviations that are appended; 0: none
    conv_clamp: float = 0.0  # limit of every layer's output, 256 with low precision; 0: none
    num_bf16_res: int = 0  # highest resolutions that compute in bfloat16
    taps: tuple[float, ...] = (1, 3, 3, 1)  # low-pass filter of the resampling

    def __post_init__(self):
        check_choice("architecture", self.architecture, ARCHITECTURES)
        plan(self.resolution)
        super().__post_init__()

    @property
    def sample_groups(self) -> dict[str, int]:
        """Field -> neighbours of a batch that are seen together; 0: all."""
        return {"mbstd_group": self.mbstd_group} if self.mbstd_channels else {}

    def layers(self) -> tuple[str, ...]:
        """Paths of the blocks' layers from the image on, in the order in which transfer learning freezes them."""
        base, levels = plan(self.resolution)
        paths = []
        for level in range(levels, 0, -1):
            names = ["fromrgb"] if level == levels or self.architecture == "skip" else []
            names += ["conv0", "conv1"] + (["skip"] if self.architecture == "resnet" else [])
            paths += [f"{block_name(tuple(n * 2**level for n in base))}/{name}" for name in names]
        return tuple(paths)

    @nn.compact
    def __call__(
        self, x: jax.Array, label: jax.Array | None = None, *, train: bool = True, keys: jax.Array | None = None
    ) -> jax.Array:
        base, levels = plan(self.resolution)
        size = tuple(n * 2**levels for n in base)
        assert x.shape[1:] == (*size, self.channels), (x.shape, size, self.channels)
        image, x = wide(x), None
        shared = dict(architecture=self.architecture, clamp=self.conv_clamp)
        features = [features_at(level, self.channel_base, self.channel_max) for level in range(levels + 1)]
        for level in range(levels, 0, -1):
            block = DiscriminatorBlock(
                features=features[level],
                features_out=features[level - 1],
                taps=self.taps,
                dtype=block_dtype(level, levels, self.num_bf16_res),
                name=block_name(tuple(n * 2**level for n in base)),
                **shared,
            )
            x, image = block(x, image)
        width = (self.mapping_size or features[0]) if self.num_classes else 1
        mbstd = dict(mbstd_group=self.mbstd_group, mbstd_channels=self.mbstd_channels)
        logits = DiscriminatorEpilogue(features_out=width, name=block_name(base), **mbstd, **shared)(x, image)
        if not self.num_classes:
            return logits[:, 0]
        mapped = Mapping(
            features=width, num_classes=self.num_classes, layers=self.mapping_layers, name="mapping_network"
        )(None, label)
        return jnp.sum(logits * mapped, -1) / math.sqrt(width)
