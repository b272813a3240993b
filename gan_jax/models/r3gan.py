"""R3GAN (Huang et al. 2024, arXiv 2501.05441), Config E: residual networks of grouped convolutions, nothing normalised.

A stage is one resolution: a transition between resolutions, and residual blocks. Both players hold stages from the base
(`stage0`, 4 to 7 pixels a side) to the image; the discriminator plays them backwards. Parameters are stored as they are
used, without a scale at run time.
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax.errors import UserError
from gan_jax.layers.activation import bias_act
from gan_jax.layers.conv import conv
from gan_jax.layers.fir import downsample2d, normalised, upsample2d
from gan_jax.models.blocks import Size, block_dtype, check_choice, plan, wide
from gan_jax.models.mapping import one_hot

_SLOPE = 0.2
_GROUP = 16  # channels of a group where cardinalities are not given


class Linear(nn.Module, kw_only=True):
    """Linear map of (..., I) to (..., features), without bias; a 1x1 convolution of images."""

    features: int
    gain: float = 1.0  # of the initial kernel: N(0, gain^2 / I)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", _scaled(self.gain, x.shape[-1]), (x.shape[-1], self.features), jnp.float32)
        flat = x.reshape(-1, x.shape[-1]) @ kernel.astype(x.dtype)  # else its transpose is slow on CPU
        return flat.reshape(*x.shape[:-1], self.features)


class Residual(nn.Module, kw_only=True):
    """x + f(x) of (B, h, w, C): 1x1 to wider, leaky ReLU, 3x3 in groups, leaky ReLU, 1x1 back, which begins at zero.

    Fixup's scale (Zhang et al. 2019) of the other kernels: gain blocks^(-1/4), as f has three layers.
    """

    cardinality: int  # groups
    expansion: int  # of the width
    blocks: int  # in the whole network

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        features, groups = x.shape[-1] * self.expansion, self.cardinality
        gain = math.sqrt(2 / (1 + _SLOPE**2)) * self.blocks**-0.25
        y = Linear(features=features, gain=gain, name="expand")(x)
        y = self._activate(y, "bias1")
        shape = (3, 3, features // groups, features)
        kernel = self.param("kernel", _scaled(gain, math.prod(shape[:3])), shape, jnp.float32)
        y = conv(y, kernel.astype(y.dtype), padding=((1, 1), (1, 1)), groups=groups)
        y = self._activate(y, "bias2")
        return x + Linear(features=x.shape[-1], gain=0.0, name="reduce")(y)

    def _activate(self, x: jax.Array, name: str) -> jax.Array:
        bias = self.param(name, nn.initializers.zeros, (x.shape[-1],), jnp.float32)
        return bias_act(x, bias, alpha=_SLOPE, gain=1.0)


class Generator(nn.Module, kw_only=True):
    """z (B, latent_size), label (B,) or (B, num_classes) -> images (B, H, W, channels), float32, not limited.

    Raises:
      UserError: widths, blocks or cardinalities that do not fit the resolution or each other.
    """

    resolution: Size = 32  # of the images: side, or (height, width)
    channels: int = 3  # of the images
    num_classes: int = 0  # 0: unconditional, labels are ignored
    latent_size: int = 64
    latent: str = "normal"  # distribution of z: 'normal' | 'uniform' in [-1, 1]
    embed_size: int = 64  # of a label, behind z
    width: int = 768  # of every stage
    widths: tuple[int, ...] = ()  # of each stage, from the base on; (): `width`
    blocks: tuple[int, ...] = ()  # residual blocks of each stage; (): 2
    cardinalities: tuple[int, ...] = ()  # groups of each stage; (): 16 channels a group
    expansion: int = 2  # of the width, inside a block
    taps: tuple[float, ...] = (1, 3, 3, 1)  # of the resampling filter, brought to sum 1
    num_bf16_res: int = 0  # highest resolutions that compute in bfloat16

    def __post_init__(self):
        check_choice("latent", self.latent, ("normal", "uniform"))
        stages(self)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, z: jax.Array, label: jax.Array | None = None, *, train: bool = False, keys: jax.Array | None = None
    ) -> jax.Array:
        base, table = stages(self)
        z = wide(z)
        if self.num_classes:
            z = jnp.concatenate([z, _embed(self, label, self.embed_size)], -1)
        for level, (features, _, _) in enumerate(table):
            if level == 0:
                basis = self.param("basis", nn.initializers.normal(1.0), (*base, features), jnp.float32)
                x = basis * Linear(features=features, name="project")(z)[:, None, None, :]
            else:
                x = _to_dtype(x, block_dtype(level, len(table) - 1, self.num_bf16_res))
                if x.shape[-1] != features:
                    x = Linear(features=features, name=f"stage{level}_change")(x)
                x = upsample2d(x, normalised(self.taps))
            x = _blocks(self, x, level, table)
        return wide(Linear(features=self.channels, name="image")(x))


class Discriminator(nn.Module, kw_only=True):
    """Images (B, H, W, channels), label (B,) or (B, num_classes) -> logits (B,), float32.

    A conditional logit is the inner product of the embedded label and as many features.

    Raises:
      UserError: as the `Generator`.
    """

    resolution: Size = 32  # of the images: side, or (height, width)
    channels: int = 3  # of the images
    num_classes: int = 0  # 0: unconditional, labels are ignored
    embed_size: int = 0  # of a label; 0: as wide as the base
    width: int = 768  # of every stage
    widths: tuple[int, ...] = ()  # of each stage, from the base on; (): `width`
    blocks: tuple[int, ...] = ()  # residual blocks of each stage, from the base on; (): 2
    cardinalities: tuple[int, ...] = ()  # groups of each stage, from the base on; (): 16 channels a group
    expansion: int = 2  # of the width, inside a block
    taps: tuple[float, ...] = (1, 3, 3, 1)  # of the resampling filter, brought to sum 1
    num_bf16_res: int = 0  # highest resolutions that compute in bfloat16

    couples_samples = False  # a logit depends on its own image alone: real and fake images may share a batch

    def __post_init__(self):
        stages(self)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: jax.Array, label: jax.Array | None = None, *, train: bool = False, keys: jax.Array | None = None
    ) -> jax.Array:
        base, table = stages(self)
        for level in reversed(range(len(table))):
            x = _to_dtype(x, block_dtype(level, len(table) - 1, self.num_bf16_res))
            if level == len(table) - 1:
                x = Linear(features=table[level][0], name="image")(x)
            x = _blocks(self, x, level, table)
            if level:
                x = downsample2d(x, normalised(self.taps))
                if x.shape[-1] != table[level - 1][0]:
                    x = Linear(features=table[level - 1][0], name=f"stage{level}_change")(x)
        basis = self.param("basis", _scaled(1.0, math.prod(base)), (*base, x.shape[-1]), jnp.float32)
        x = jnp.sum(x * basis.astype(x.dtype), (1, 2))  # (B, C): a window as large as the image, channel by channel
        if not self.num_classes:
            return Linear(features=1, name="project")(x)[:, 0]
        size = self.embed_size or table[0][0]
        return jnp.sum(Linear(features=size, name="project")(x) * _embed(self, label, size), -1)


def stages(model: Generator | Discriminator) -> tuple[tuple[int, int], tuple[tuple[int, int, int], ...]]:
    """(base (h, w), (width, blocks, cardinality) of each stage from the base on).

    Raises:
      UserError: lists of different lengths, or groups that do not divide the features.
    """
    base, levels = plan(model.resolution)
    count = levels + 1
    widths = tuple(model.widths) or (model.width,) * count
    blocks = tuple(model.blocks) or (2,) * count
    cardinalities = tuple(model.cardinalities) or tuple(max(n * model.expansion // _GROUP, 1) for n in widths)
    for name, values in (("widths", widths), ("blocks", blocks), ("cardinalities", cardinalities)):
        if len(values) != count:
            raise UserError(f"{name} {values}: resolution {model.resolution} has {count} stages; give one number each")
    for features, groups in zip(widths, cardinalities, strict=True):
        if features < 1 or groups < 1 or features * model.expansion % groups:
            raise UserError(
                f"cardinality {groups} does not divide width {features} times expansion {model.expansion}; "
                "choose widths and cardinalities that fit"
            )
    return base, tuple(zip(widths, blocks, cardinalities, strict=True))


def _blocks(model, x, level, table):
    _, count, cardinality = table[level]
    total = sum(blocks for _, blocks, _ in table)
    for i in range(count):
        options = dict(cardinality=cardinality, expansion=model.expansion, blocks=total)
        x = Residual(**options, name=f"stage{level}_block{i}", parent=model)(x)
    return x


def _embed(model, label, size):
    assert label is not None, "a conditional network needs labels"
    hot = one_hot(label, model.num_classes)
    return Linear(features=size, name="embed", parent=model)(hot)


def _to_dtype(x, dtype):
    return wide(x) if dtype is None else x.astype(dtype)


def _scaled(gain: float, fan_in: int) -> Callable:
    return nn.initializers.normal(gain / math.sqrt(fan_in)) if gain else nn.initializers.zeros
