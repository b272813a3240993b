"""StyleGAN2 (Karras et al. 2020, arXiv 1912.04958) as configured by StyleGAN2-ADA (arXiv 2006.06676).

A mapping network turns z and a label into one style w for each layer; a synthesis network turns styles into an image by
modulated convolutions, with noise inputs and, as architecture 'skip', one RGB image per resolution that are summed up.
Parameters are stored unscaled, one for one the official ones: mapping_network/{embed, fc0, ...}, and
synthesis_network/b4/{const, conv1, torgb}, b8/{conv0, conv1, skip, torgb}, ... Beside them are the collections `w_avg`,
the running mean of w, and `noise`, constant noise images.
"""

import itertools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax.layers import random
from gan_jax.layers.activation import bias_act
from gan_jax.layers.equalized import EqualConv, EqualDense
from gan_jax.layers.fir import normalised, upsample2d
from gan_jax.layers.modulated import modulated_conv
from gan_jax.models.blocks import Size, block_dtype, block_name, check_choice, features_at, plan, wide
from gan_jax.models.mapping import Mapping
from gan_jax.models.stylegan2_discriminator import Discriminator

__all__ = ("Generator", "Discriminator")

ARCHITECTURES = ("skip", "resnet", "orig")
NOISE = ("const", "random", "none")


class SynthesisLayer(nn.Module, kw_only=True):
    """x (B, h, w, I), style (B, S) -> (B, h * up, w * up, features): modulated 3x3 convolution, noise, leaky ReLU."""

    features: int
    up: int = 1
    taps: tuple[float, ...] = (1, 3, 3, 1)
    clamp: float = 0.0  # 0: none

    @nn.compact
    def __call__(self, x: jax.Array, w: jax.Array, noise: jax.Array | str | None, gain: float = 1.0) -> jax.Array:
        b, height, width, channels = x.shape
        styles = EqualDense(channels, bias_init=1.0, name="affine")(w)
        kernel = self.param("kernel", nn.initializers.normal(1.0), (3, 3, channels, self.features), jnp.float32)
        strength = self.param("noise_strength", nn.initializers.zeros, (), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        size = (height * self.up, width * self.up)
        constant = self.variable(
            "noise", "noise_const", lambda: jax.random.normal(self.make_rng("params"), size, jnp.float32)
        )
        if isinstance(noise, str):
            noise = constant.value[None, :, :, None]
        if noise is not None:
            noise = noise * strength
        x = modulated_conv(x, kernel, styles, up=self.up, taps=normalised(self.taps), noise=noise)
        clamp = self.clamp * gain if self.clamp else None
        return bias_act(x, bias, gain=math.sqrt(2) * gain, clamp=clamp)


class ToRGB(nn.Module, kw_only=True):
    """x (B, h, w, I) and a style (B, S) -> image (B, h, w, channels): modulated 1x1 convolution, not demodulated."""

    channels: int
    clamp: float = 0.0  # 0: none

    @nn.compact
    def __call__(self, x: jax.Array, w: jax.Array) -> jax.Array:
        features = x.shape[-1]
        styles = EqualDense(features, bias_init=1.0, name="affine")(w) / math.sqrt(features)
        kernel = self.param("kernel", nn.initializers.normal(1.0), (1, 1, features, self.channels), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.channels,), jnp.float32)
        x = modulated_conv(x, kernel, styles, demodulate=False)
        return bias_act(x, bias, activation="linear", clamp=self.clamp or None)


class SynthesisBlock(nn.Module, kw_only=True):
    """One resolution of the generator: (x, image, styles) -> (x, image), both twice as large but in the first block."""

    features: int
    channels: int  # of the image
    size: tuple[int, int]  # of the constant, for the first block
    first: bool
    last: bool
    architecture: str
    taps: tuple[float, ...]
    clamp: float
    dtype: jnp.dtype | None  # of the computation; None: at least float32

    @nn.compact
    def __call__(self, x, image, ws, noises):
        options = dict(features=self.features, taps=self.taps, clamp=self.clamp)
        if self.first:
            x = self.param("const", nn.initializers.normal(1.0), (*self.size, self.features), jnp.float32)
            x = jnp.broadcast_to(x.astype(ws.dtype), (ws.shape[0], *x.shape))
            x = SynthesisLayer(**options, name="conv1")(x, ws[:, 0], noises[0])
        else:
            x, gain = wide(x) if self.dtype is None else x.astype(self.dtype), 1.0
            if self.architecture == "resnet":
                gain = math.sqrt(0.5)
                skip = EqualConv(self.features, 1, use_bias=False, up=2, taps=self.taps, gain=gain, name="skip")(x)
            x = SynthesisLayer(up=2, **options, name="conv0")(x, ws[:, 0], noises[0])
            x = SynthesisLayer(**options, name="conv1")(x, ws[:, 1], noises[1], gain)
            if self.architecture == "resnet":
                x = skip + x
        if image is not None:
            image = upsample2d(image, normalised(self.taps))
        if self.last or self.architecture == "skip":
            rgb = wide(ToRGB(channels=self.channels, clamp=self.clamp, name="torgb")(x, ws[:, -1]))
            image = rgb if image is None else image + rgb
        return x, image


class Synthesis(nn.Module, kw_only=True):
    """Styles ws (B, num_ws, w_size) -> images (B, H, W, channels), float32. The fields are those of `Generator`."""

    resolution: Size
    channels: int
    architecture: str
    channel_base: int
    channel_max: int
    conv_clamp: float
    num_bf16_res: int
    taps: tuple[float, ...]

    @nn.compact
    def __call__(
        self, ws: jax.Array, *, keys: jax.Array | None = None, noise: str | dict[str, jax.Array] = "const"
    ) -> jax.Array:
        base, levels = plan(self.resolution)
        _check_noise(noise, keys)
        if isinstance(noise, str) and noise == "random":
            noise = _draw(keys, base, levels)
        x = image = None
        index = 0  # of the style
        for level in range(levels + 1):
            size = tuple(n * 2**level for n in base)
            name, convs = block_name(size), 2 if level else 1
            noises = [_noise(noise, f"{name}/conv{n}") for n in range(2 - convs, 2)]
            block = SynthesisBlock(
                features=features_at(level, self.channel_base, self.channel_max),
                channels=self.channels,
                size=base,
                first=level == 0,
                last=level == levels,
                architecture=self.architecture,
                taps=self.taps,
                clamp=self.conv_clamp,
                dtype=block_dtype(level, levels, self.num_bf16_res),
                name=name,
            )
            x, image = block(x, image, ws[:, index : index + convs + 1], noises)
            index += convs
        return image


class Generator(nn.Module, kw_only=True):
    """z (B, latent_size), label -> images (B, H, W, channels), float32, nominally in [-1, 1].

    Labels are classes int32 (B,) or one- or multi-hot vectors (B, num_classes). The halves are methods of their own:
    `apply(variables, z, label, method="mapping")` and `apply(variables, ws, method="synthesis")`. Called as a whole,
    noise is random in training mode where keys are given, else constant.
    """

    resolution: Size = 256  # of the images: side, or (height, width)
    channels: int = 3  # of the images
    num_classes: int = 0  # 0: unconditional, labels are ignored
    latent_size: int = 512  # entries of z
    w_size: int = 512  # entries of w
    mapping_layers: int = 8
    mapping_lr_multiplier: float = 0.01
    w_avg_beta: float = 0.995  # weight of the old running mean of w
    architecture: str = "skip"  # 'skip': one image per resolution, summed | 'resnet' | 'orig': plain layers
    channel_base: int = 32768  # features times resolution
    channel_max: int = 512  # features at most
    conv_clamp: float = 0.0  # limit of every layer's output, 256 with low precision; 0: none
    num_bf16_res: int = 0  # highest resolutions that compute in bfloat16
    taps: tuple[float, ...] = (1, 3, 3, 1)  # low-pass filter of the resampling

    separable = True

    def __post_init__(self):
        check_choice("architecture", self.architecture, ARCHITECTURES)
        plan(self.resolution)
        super().__post_init__()

    @property
    def num_ws(self) -> int:
        """Styles of an image: one for each 3x3 convolution, and one for the last RGB layer."""
        return 2 * plan(self.resolution)[1] + 2

    def setup(self):
        """Makes the two halves."""
        self.mapping_network = Mapping(
            features=self.w_size,
            num_classes=self.num_classes,
            layers=self.mapping_layers,
            lr_multiplier=self.mapping_lr_multiplier,
            copies=self.num_ws,
            w_avg_beta=self.w_avg_beta,
        )
        names = ("resolution", "channels", "architecture", "channel_base", "channel_max", "conv_clamp", "num_bf16_res")
        self.synthesis_network = Synthesis(taps=self.taps, **{name: getattr(self, name) for name in names})

    def __call__(
        self, z: jax.Array, label: jax.Array | None = None, *, train: bool, keys: jax.Array | None = None
    ) -> jax.Array:
        """Images (B, H, W, channels)."""
        noise = "random" if train and keys is not None else "const"
        return self.synthesis(self.mapping(z, label, train=train), keys=keys, noise=noise)

    def mapping(
        self,
        z: jax.Array,
        label: jax.Array | None = None,
        *,
        train: bool = False,
        psi: float | jax.Array = 1.0,
        cutoff: int | None = None,
        counted: int | None = None,
    ) -> jax.Array:
        """Styles ws (B, num_ws, w_size); see `truncate` for psi and cutoff.

        `train` moves the running mean of w, by the first `counted` samples or by all.
        """
        assert z.shape[1:] == (self.latent_size,), (z.shape, self.latent_size)
        return self.mapping_network(z, label, train=train, psi=psi, cutoff=cutoff, counted=counted)

    def synthesis(
        self,
        ws: jax.Array,
        *,
        train: bool = False,
        keys: jax.Array | None = None,
        noise: str | dict[str, jax.Array] = "const",
    ) -> jax.Array:
        """Images (B, H, W, channels) of styles ws (B, num_ws, w_size), the same in training mode.

        `noise` is 'const', the network's own images; 'random', drawn from keys (B,); 'none'; or a dict of images
        (B, h, w) by layer, such as `b8/conv0`.
        """
        assert ws.shape[1:] == (self.num_ws, self.w_size), (ws.shape, self.num_ws, self.w_size)
        return self.synthesis_network(ws, keys=keys, noise=noise)


def _check_noise(noise, keys) -> None:
    if isinstance(noise, str):
        check_choice("noise", noise, NOISE)
        assert noise != "random" or keys is not None, "random noise needs a key for each sample"


def _draw(keys: jax.Array, base: tuple[int, int], levels: int) -> dict[str, jax.Array]:
    """Noise images (B, h, w) by layer, from the base on out of one draw for each key: programs grow with every draw."""
    sizes = {}
    for level in range(levels + 1):
        size = tuple(n * 2**level for n in base)
        sizes |= {f"{block_name(size)}/conv{n}": size for n in range(0 if level else 1, 2)}
    counts = [math.prod(size) for size in sizes.values()]
    parts = jnp.split(random.normal(keys, (sum(counts),)), list(itertools.accumulate(counts[:-1])), axis=1)
    return {layer: part.reshape(-1, *size) for (layer, size), part in zip(sizes.items(), parts, strict=True)}


def _noise(noise: str | dict[str, jax.Array], layer: str) -> jax.Array | str | None:
    """What one layer is to add: 'const', nothing, or images (B, h, w, 1)."""
    if isinstance(noise, dict):
        return noise[layer][..., None]
    return noise if noise == "const" else None
