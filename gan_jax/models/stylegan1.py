"""The first StyleGAN (Karras et al. 2019, arXiv 1812.04948), as its own code has it, with the paper's configs.

Growing, `level` and `lod` are those of `progan`, and kernels are stored raw as there. Configs of the paper's table 1:

| | what the networks are |
| --- | --- |
| A | `progan` |
| B | styles, noise, instance_norm and const_input off, pixel_norm on, mapping_layers 0: ProGAN with blurs |
| C | const_input and noise off |
| D | noise off |
| E, F | the defaults; F mixes styles in training |

Collections of the generator beside its parameters: 'w_avg', the running mean of w; 'noise', constant noise images.
"""

import itertools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax.errors import UserError
from gan_jax.layers import random
from gan_jax.layers.activation import bias_act
from gan_jax.layers.channels import along_channels
from gan_jax.layers.equalized import EqualDense
from gan_jax.layers.fir import normalised, upfirdn2d
from gan_jax.layers.norm import instance_norm, pixel_norm
from gan_jax.layers.rescale import ScaledConv, fade, features, sizes, upscale
from gan_jax.models import progan
from gan_jax.models.blocks import block_dtype, check_choice, wide
from gan_jax.models.mapping import one_hot, truncate
from gan_jax.models.progan import ROOT

NONLINEARITIES = ("lrelu", "relu")  # both with the gain sqrt(2), in the kernels' scale
FUSED_FROM = 128  # pixels of the larger side from which 'auto' fuses


class Generator(nn.Module, kw_only=True):
    """z (B, latent_size), label (B,) or (B, num_classes) -> images (B, H, W, channels), not bounded."""

    resolution: int | tuple[int, int] = 32  # of the images: side, or (height, width)
    channels: int = 3  # of the images
    num_classes: int = 0  # 0: unconditional, labels are ignored
    latent_size: int = 512  # entries of z
    w_size: int = 512  # entries of w
    mapping_layers: int = 8  # 0: w is z, normalised
    mapping_features: int = 512
    mapping_lr_multiplier: float = 0.01
    mapping_nonlinearity: str = "lrelu"  # of the mapping: 'lrelu', of slope 0.2, or 'relu'
    normalize_latents: bool = True
    w_avg_beta: float = 0.995  # weight of the old running mean of w
    feature_base: int = 8192  # features of stage i: base / 2^(i * decay), at most `feature_max`
    feature_decay: float = 1.0
    feature_max: int = 512
    styles: bool = True  # scale and shift each layer by w
    nonlinearity: str = "lrelu"  # of the synthesis, as of the mapping
    const_input: bool = True  # a learned image at the base; else the base is made from w
    noise: bool = True  # add noise to each layer
    pixel_norm: bool = False
    instance_norm: bool = True
    blur: tuple[float, ...] = (1.0, 2.0, 1.0)  # filter after doubling; (): none
    fused_scale: str = "auto"  # doubling and convolution as one: 'always' | 'never' | 'auto', from 128 pixels on
    grow: bool = True  # an image layer at every resolution; else at the last one only
    num_bf16_res: int = 0  # highest resolutions that compute in bfloat16
    dtype: jnp.dtype = jnp.float32  # of the synthesis elsewhere

    def __post_init__(self):
        sizes(self.resolution)
        _check(self.fused_scale)
        check_choice("nonlinearity", self.nonlinearity, NONLINEARITIES)
        check_choice("mapping_nonlinearity", self.mapping_nonlinearity, NONLINEARITIES)
        if not self.mapping_layers and self.w_size != self.latent_size * (1 + bool(self.num_classes)):
            raise UserError(
                f"mapping_layers=0 with w_size={self.w_size}: w is z then; set w_size={self.latent_size}"
            )
        super().__post_init__()

    @property
    def levels(self) -> int:
        """How often the full resolution can be halved."""
        return len(sizes(self.resolution)) - 1

    @property
    def num_ws(self) -> int:
        """Styles of an image: one a layer, two a resolution."""
        return 2 * (self.levels + 1)

    def setup(self):
        """Makes the two halves."""
        self.mapping_network = Mapping(
            features=self.w_size,
            width=self.mapping_features,
            layers=self.mapping_layers,
            lr_multiplier=self.mapping_lr_multiplier,
            nonlinearity=self.mapping_nonlinearity,
            num_classes=self.num_classes,
            normalize=self.normalize_latents,
        )
        names = ("resolution", "channels", "feature_base", "feature_decay", "feature_max", "styles", "nonlinearity",
                 "const_input", "noise", "pixel_norm", "instance_norm", "blur", "fused_scale", "grow",
                 "num_bf16_res", "dtype")  # fmt: skip
        self.synthesis_network = Synthesis(**{name: getattr(self, name) for name in names})
        self.average = self.variable("w_avg", "w_avg", jnp.zeros, (self.w_size,), jnp.float32)

    def __call__(
        self,
        z: jax.Array,
        label: jax.Array | None = None,
        *,
        train: bool,  # whether the running mean of w moves, where its collection is mutable
        keys: jax.Array | None = None,  # of the noise, (B,); None: the constant noise
        lod: jax.Array | float | None = None,  # see `progan`
        level: int | None = None,
        mixing: tuple[jax.Array, jax.Array] | None = None,  # other z (B, latent_size), first layer that they style
    ) -> jax.Array:
        return self.synthesis(self.mapping(z, label, train=train, mixing=mixing), keys=keys, lod=lod, level=level)

    def mapping(
        self,
        z: jax.Array,
        label: jax.Array | None = None,
        *,
        train: bool = False,
        mixing: tuple[jax.Array, jax.Array] | None = None,
        psi: float | jax.Array = 1.0,
        cutoff: int | None = None,
    ) -> jax.Array:
        """Styles ws (B, num_ws, w_size), from `mixing`'s layer on of its latents; see `truncate` for psi and cutoff."""
        assert z.shape[1:] == (self.latent_size,), (z.shape, self.latent_size)
        w = self.mapping_network(z, label)
        if train and not self.is_initializing() and self.is_mutable_collection("w_avg"):
            batch_mean = jax.lax.stop_gradient(jnp.mean(w, 0))
            self.average.value = batch_mean + (self.average.value - batch_mean) * self.w_avg_beta
        ws = jnp.broadcast_to(w[:, None], (len(w), self.num_ws, self.w_size))
        if mixing is not None:
            other, first = mixing
            ws = jnp.where(jnp.arange(self.num_ws)[:, None] < first, ws, self.mapping_network(other, label)[:, None])
        return truncate(ws, self.average.value, psi, cutoff)

    def synthesis(
        self,
        ws: jax.Array,
        *,
        keys: jax.Array | None = None,
        lod: jax.Array | float | None = None,
        level: int | None = None,
    ) -> jax.Array:
        """Images of styles ws (B, num_ws, w_size); the rest as in `__call__`."""
        assert ws.shape[1:] == (self.num_ws, self.w_size), (ws.shape, self.num_ws, self.w_size)
        return self.synthesis_network(ws, keys=keys, lod=lod, level=level)


class Mapping(nn.Module, kw_only=True):
    """z (B, latent_size), labels -> w (B, features). Both are normalised together, unlike StyleGAN2's."""

    features: int
    width: int  # of the hidden layers
    layers: int
    lr_multiplier: float
    nonlinearity: str
    num_classes: int
    normalize: bool

    @nn.compact
    def __call__(self, z: jax.Array, label: jax.Array | None) -> jax.Array:
        if self.num_classes:
            shape = (self.num_classes, z.shape[-1])
            embed = self.param("label_embedding", nn.initializers.normal(1.0), shape, jnp.float32)
            z = jnp.concatenate([z, one_hot(label, self.num_classes).astype(z.dtype) @ embed], -1)
        w = pixel_norm(z) if self.normalize else z
        for layer in range(self.layers):
            w = EqualDense(
                self.features if layer == self.layers - 1 else self.width,
                activation=self.nonlinearity,
                lr_multiplier=self.lr_multiplier,
                weight_gain=ROOT,
                activation_gain=1.0,
                name=f"dense{layer}",
            )(w)
        return w


class Synthesis(nn.Module, kw_only=True):
    """Styles w (B, layers, D) -> images (B, H, W, channels); fields as in `Generator`."""

    resolution: int | tuple[int, int]
    channels: int
    feature_base: int
    feature_decay: float
    feature_max: int
    styles: bool
    nonlinearity: str
    const_input: bool
    noise: bool
    pixel_norm: bool
    instance_norm: bool
    blur: tuple[float, ...]
    fused_scale: str
    grow: bool
    num_bf16_res: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, w: jax.Array, *, keys=None, lod=None, level=None) -> jax.Array:
        grid = sizes(self.resolution)
        levels = len(grid) - 1
        assert self.grow or not level, "this generator does not grow"
        fading = self.grow and (lod is not None or self.is_initializing())
        resolutions = grid[: levels + 1 - (level or 0)]
        noises = _draw(keys, resolutions) if self.noise and keys is not None else None
        x, images = None, None
        for stage, (h, w_) in enumerate(resolutions):
            halvings, size = levels - stage, f"{h}x{w_}"
            x = self._block(x, stage, size, w, noises) if stage else self._base(w, noises)
            if (halvings <= (level or 0) + 1 or level is None) if fading else halvings == (level or 0):
                rgb = wide(ScaledConv(self.channels, 1, gain=1.0, dtype=x.dtype, name=f"{size}_to_image")(x))
                images = rgb if images is None else fade(rgb, upscale(images), 0.0 if lod is None else lod - halvings)
        return images

    def _base(self, w, noises):
        h, w_ = sizes(self.resolution)[0]
        n = self._features(1)
        if self.const_input:
            x = self.param("const", nn.initializers.ones, (1, h, w_, n), jnp.float32)
            x = jnp.broadcast_to(x, (len(w), h, w_, n)).astype(self.dtype)
        else:
            options = {"use_bias": False, "weight_gain": ROOT / 4, "dtype": self.dtype}
            x = EqualDense(n * h * w_, name="base_dense", **options)(w[:, 0])
            x = x.reshape(-1, n, h, w_).transpose(0, 2, 3, 1)
        x = self._finish(x, 0, "base_input", w, noises)
        x = ScaledConv(n, use_bias=False, dtype=self.dtype, name="base_conv")(x)
        return self._finish(x, 1, "base_conv", w, noises)

    def _block(self, x, stage, size, w, noises):
        n = self._features(stage + 1)
        dtype = block_dtype(stage, len(sizes(self.resolution)) - 1, self.num_bf16_res) or self.dtype
        options = {"use_bias": False, "dtype": dtype}
        fused = is_fused(self.fused_scale, 2 * min(x.shape[1:3]))
        x = ScaledConv(n, resample="up", fused=fused, name=f"{size}_conv0", **options)(x)
        x = self._finish(low_pass(x, self.blur), 2 * stage, f"{size}_conv0", w, noises)
        x = ScaledConv(n, name=f"{size}_conv1", **options)(x)
        return self._finish(x, 2 * stage + 1, f"{size}_conv1", w, noises)

    def _finish(self, x, layer, name, w, noises):
        """Noise, bias, activation, normalisation, style: what follows every convolution."""
        n, zeros = x.shape[-1], nn.initializers.zeros
        if self.noise:
            image = self._noise_image(layer, x.shape[1:3], noises)
            x = x + (image * self.param(f"{name}_noise", zeros, (n,), jnp.float32)).astype(x.dtype)
        x = bias_act(x, self.param(f"{name}_bias", zeros, (n,), jnp.float32), activation=self.nonlinearity, gain=1.0)
        x = pixel_norm(x) if self.pixel_norm else x
        x = instance_norm(x, 1e-8) if self.instance_norm else x
        if self.styles:
            style = EqualDense(2 * n, name=f"{name}_style")(w[:, layer]).astype(x.dtype)
            x = x * along_channels(style[:, :n] + 1, x) + along_channels(style[:, n:], x)
        return x

    def _noise_image(self, layer, size, noises):
        """Each sample's (B, h, w, 1), or the constant one (1, h, w, 1)."""

        def start():
            return jax.random.normal(self.make_rng("params"), (1, *size, 1), jnp.float32)

        constant = self.variable("noise", f"layer{layer}", start).value
        return constant if noises is None else noises[layer]

    def _features(self, stage: int) -> int:
        return features(stage, self.feature_base, self.feature_decay, self.feature_max)


def _draw(keys: jax.Array, grid: list[tuple[int, int]]) -> list[jax.Array]:
    """Noise images (B, h, w, 1) of the two layers at each size, out of one draw: programs grow with every draw."""
    layers = [size for size in grid for _ in range(2)]
    ends = list(itertools.accumulate(math.prod(size) for size in layers))
    parts = jnp.split(random.normal(keys, (ends[-1],)), ends[:-1], axis=1)
    return [part.reshape(-1, *size, 1) for size, part in zip(layers, parts, strict=True)]


class Discriminator(progan.Discriminator, kw_only=True):
    """Images (B, h, w, channels) at `level` -> logits (B,); of labelled images the logit of their label.

    ProGAN's, but for a blur before every halving and the activation after it, as in the generator.
    """

    nonlinearity: str = "lrelu"  # 'lrelu', of slope 0.2, or 'relu'
    blur: tuple[float, ...] = (1.0, 2.0, 1.0)  # filter before halving; (): none
    fused_scale: str = "auto"  # convolution and halving as one: 'always' | 'never' | 'auto', from 128 pixels on

    def __post_init__(self):
        _check(self.fused_scale)
        check_choice("nonlinearity", self.nonlinearity, NONLINEARITIES)
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        label: jax.Array | None = None,
        *,
        train: bool,  # it makes no difference here
        keys: jax.Array | None = None,  # nothing is drawn
        lod: jax.Array | float | None = None,  # see `progan`
        level: int | None = None,
    ) -> jax.Array:
        out = wide(self._outputs(x, lod, level, max(self.num_classes, 1)))
        return jnp.sum(out * one_hot(label, self.num_classes), -1) if self.num_classes else out[:, 0]

    heads = None  # there are no class logits

    def _block(self, x, stage):
        (h, w), dtype = sizes(self.resolution)[stage], self._dtype(stage)
        x = self._activate(ScaledConv(self._features(stage + 1), dtype=dtype, name=f"{h}x{w}_conv0")(x))
        options = {"fused": is_fused(self.fused_scale, min(h, w)), "dtype": dtype, "name": f"{h}x{w}_conv1"}
        return self._activate(ScaledConv(self._features(stage), resample="down", **options)(low_pass(x, self.blur)))


def low_pass(x: jax.Array, taps: tuple[float, ...]) -> jax.Array:
    """x (B, H, W, C) correlated with taps of sum 1 along both axes, at its own size with zeros around it.

    Of an even number of taps one more stands after the pixel than before it. Gradients are those of this very sum:
    more of its taps then stand before the pixel. The official code's are not: it filters them with 'SAME' padding
    too, so that with an even number of taps they come out moved by a pixel. The default number is odd.
    """
    if not taps:
        return x
    ends = ((len(taps) - 1) // 2, len(taps) // 2)
    return upfirdn2d(x, normalised(taps), padding=(ends, ends), flip=True)


def is_fused(setting: str, side: int) -> bool:
    """Whether a change of size between `side` pixels and half of them is fused with its convolution."""
    return side >= FUSED_FROM if setting == "auto" else setting == "always"


def _check(fused_scale: str) -> None:
    if fused_scale not in ("always", "never", "auto"):
        raise UserError(f"fused_scale={fused_scale!r}: expected always, never or auto")

