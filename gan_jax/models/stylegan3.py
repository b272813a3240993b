"""StyleGAN3 (Karras et al. 2021, arXiv 2106.12423), configurations T and R; its discriminator is StyleGAN2's.

Features are samples of continuous, band-limited signals. A Fourier input is turned and shifted by w; every
layer convolves, enlarges, applies its nonlinearity and shrinks again through filters that keep to its band;
all work on a margin around the image. T is equivariant to translation. R, with kernel_size=1, radial_filters
and twice the channels (channel_base 65536, channel_max 1024), is equivariant to rotation too.

Parameters are stored unscaled, one for one the official ones: mapping_network/{embed, fc0, ...},
synthesis_network/input/{kernel, affine} and L<number>_<height>_<features>/{kernel, bias, affine}. Beside them
are the collections `w_avg`, the running mean of w, `magnitude_ema`, the running mean square of each layer's
input, and `fourier`, the constant frequencies and phases of the input.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from gan_jax.layers.conv import Pair
from gan_jax.layers.equalized import EqualDense
from gan_jax.layers.filtered_lrelu import filtered_lrelu
from gan_jax.layers.modulated import modulated_conv3
from gan_jax.models.blocks import Size, wide
from gan_jax.models.mapping import Mapping
from gan_jax.models.stylegan2_discriminator import Discriminator
from gan_jax.models.stylegan3_design import Layer, layer_table, layer_taps

__all__ = ("Generator", "Discriminator")

_DESIGN = (  # the fields that are `layer_table`'s arguments
    "resolution", "channels", "channel_base", "channel_max", "num_layers", "num_critical", "first_cutoff",
    "first_stopband", "last_stopband", "margin", "kernel_size", "filter_size", "upsampling", "radial_filters",
)  # fmt: skip


class FourierInput(nn.Module, kw_only=True):
    """Style (B, S) -> (B, h, w, features): sine waves of the continuous plane, turned and shifted by the style.

    The style's affine map (c, s, x, y), divided by |(c, s)|, is a rotation by (c, s) after a shift by -(x, y); it
    starts as the identity. Waves fade out from the bandwidth to half the sampling rate.
    """

    features: int
    size: Pair
    rate: float
    bandwidth: float

    @nn.compact
    def __call__(self, w: jax.Array, transform: jax.Array | None = None) -> jax.Array:
        freqs = self.variable("fourier", "freqs", self._draw_freqs).value.astype(w.dtype)
        phases = self.variable("fourier", "phases", self._draw_phases).value.astype(w.dtype)
        kernel = self.param("kernel", nn.initializers.normal(1.0), (self.features, self.features), jnp.float32)
        t = EqualDense(4, weight_init_std=0.0, bias_init=(1.0, 0.0, 0.0, 0.0), name="affine")(w)
        matrix = style_matrix(t)
        if transform is not None:
            matrix = jnp.matmul(matrix, transform.astype(w.dtype), precision="highest")
        phases = phases + jnp.einsum("fd,bd->bf", freqs, matrix[:, :2, 2], precision="highest")
        freqs = jnp.einsum("fd,bde->bfe", freqs, matrix[:, :2, :2], precision="highest")
        norms = jnp.linalg.norm(freqs, axis=-1)
        amplitudes = jnp.clip(1 - (norms - self.bandwidth) / (self.rate / 2 - self.bandwidth), 0, 1)
        y, x = ((jnp.arange(n, dtype=w.dtype) - (n - 1) / 2) / self.rate for n in self.size)
        turns = freqs[:, None, None, :, 0] * x[:, None] + freqs[:, None, None, :, 1] * y[:, None, None]
        waves = jnp.sin(2 * jnp.pi * (turns + phases[:, None, None])) * amplitudes[:, None, None]
        return waves @ (kernel / math.sqrt(self.features)).astype(w.dtype)

    def _draw_freqs(self) -> jax.Array:
        """Uniform in the disc of radius `bandwidth`."""
        radius, turn = jax.random.uniform(self.make_rng("params"), (2, self.features))
        angle = 2 * jnp.pi * turn
        return self.bandwidth * jnp.sqrt(radius)[:, None] * jnp.stack([jnp.cos(angle), jnp.sin(angle)], 1)

    def _draw_phases(self) -> jax.Array:
        return jax.random.uniform(self.make_rng("params"), (self.features,), minval=-0.5, maxval=0.5)


def style_matrix(t: jax.Array) -> jax.Array:
    """(c, s, x, y) (B, 4) -> maps of the plane (B, 3, 3): t / |(c, s)|, shift by -(x, y), then [[c, -s], [s, c]]."""
    c, s, x, y = jnp.moveaxis(t / jnp.linalg.norm(t[:, :2], axis=1, keepdims=True), 1, 0)
    zero, one = jnp.zeros_like(c), jnp.ones_like(c)
    rows = ((c, -s, s * y - c * x), (s, c, -s * x - c * y), (zero, zero, one))
    return jnp.stack([jnp.stack(row, -1) for row in rows], 1)


class SynthesisLayer(nn.Module, kw_only=True):
    """x (B, h, w, I) and a style (B, S) -> (B, h', w', O): modulated convolution, filtered leaky ReLU.

    The input is brought to unit mean square on average by its running magnitude. The RGB layer is linear and not
    demodulated.
    """

    layer: Layer
    clamp: float
    magnitude_beta: float
    dtype: jnp.dtype | None  # of the computation; None: at least float32
    axis_name: str | None

    @nn.compact
    def __call__(self, x: jax.Array, w: jax.Array, train: bool) -> jax.Array:
        spec = self.layer
        assert x.shape[1:] == (*spec.in_size, spec.in_channels), (x.shape, spec)
        gain = lax.rsqrt(self._magnitude(x, train))
        styles = EqualDense(spec.in_channels, bias_init=1.0, name="affine")(w)
        shape = (spec.kernel_size, spec.kernel_size, spec.in_channels, spec.out_channels)
        kernel = self.param("kernel", nn.initializers.normal(1.0), shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (spec.out_channels,), jnp.float32)
        if spec.to_rgb:
            styles = styles / math.sqrt(spec.in_channels * spec.kernel_size**2)
        x = modulated_conv3(
            wide(x) if self.dtype is None else x.astype(self.dtype),
            kernel,
            styles,
            padding=spec.kernel_size - 1,
            demodulate=not spec.to_rgb,
            input_gain=gain,
        )
        up_taps, down_taps = layer_taps(spec)
        return filtered_lrelu(
            x,
            bias,
            up_taps=up_taps,
            down_taps=down_taps,
            up=spec.up,
            down=spec.down,
            padding=spec.padding,
            gain=1.0 if spec.to_rgb else math.sqrt(2),
            slope=1.0 if spec.to_rgb else 0.2,
            clamp=self.clamp or None,
        )

    def _magnitude(self, x: jax.Array, train: bool) -> jax.Array:
        """The running mean square of x, moved first in training."""
        average = self.variable("magnitude_ema", "magnitude_ema", jnp.ones, (), jnp.float32)
        if train and not self.is_initializing() and self.is_mutable_collection("magnitude_ema"):
            mean_square = jnp.mean(jnp.square(wide(lax.stop_gradient(x))))
            if self.axis_name:
                mean_square = lax.pmean(mean_square, self.axis_name)
            average.value = mean_square + self.magnitude_beta * (average.value - mean_square)
        return average.value


class Synthesis(nn.Module, kw_only=True):
    """Styles ws (B, num_ws, S) -> images (B, H, W, channels), float32."""

    layers: tuple[Layer, ...]
    conv_clamp: float
    output_scale: float
    num_bf16_res: int
    magnitude_ema_beta: float
    axis_name: str | None

    @nn.compact
    def __call__(self, ws: jax.Array, train: bool, transform: jax.Array | None = None) -> jax.Array:
        ws, first, last = wide(ws), self.layers[0], self.layers[-1]
        x = FourierInput(
            features=first.in_channels,
            size=first.in_size,
            rate=first.in_rate,
            bandwidth=first.in_cutoff,
            name="input",
        )(ws[:, 0], transform)
        for i, layer in enumerate(self.layers):
            low = max(layer.in_rate, layer.out_rate) * 2**self.num_bf16_res > last.out_rate
            x = SynthesisLayer(
                layer=layer,
                clamp=self.conv_clamp,
                magnitude_beta=self.magnitude_ema_beta,
                dtype=jnp.bfloat16 if low else None,
                axis_name=self.axis_name,
                name=layer.name,
            )(x, ws[:, i + 1], train)
        return wide(x) * self.output_scale


class Generator(nn.Module, kw_only=True):
    """z (B, latent_size), label -> images (B, H, W, channels), float32, nominally in [-1, 1].

    Labels are classes int32 (B,) or one- or multi-hot vectors (B, num_classes). Its two halves are methods of
    their own: `apply(variables, z, label, method="mapping")` and `apply(variables, ws, method="synthesis")`. Both
    move their running means in training mode, where `w_avg` and `magnitude_ema` are mutable. Of an image that is
    not square the shorter side is the unit of length. The defaults are configuration T.
    """

    resolution: Size = 256  # of the images: side, or (height, width)
    channels: int = 3  # of the images
    num_classes: int = 0  # 0: unconditional, labels are ignored
    latent_size: int = 512  # entries of z
    w_size: int = 512  # entries of w
    mapping_layers: int = 2
    mapping_lr_multiplier: float = 0.01
    w_avg_beta: float = 0.998  # weight of the old running mean of w
    channel_base: int = 32768  # twice the cutoff times features
    channel_max: int = 512  # features at most
    num_layers: int = 14  # without input and RGB layer
    num_critical: int = 2  # last layers whose cutoff is half the image's sampling rate
    first_cutoff: float = 2.0  # of the input, in waves per unit of length
    first_stopband: float = 2**2.1
    last_stopband: float = 2**0.3  # relative to the last cutoff
    margin: int = 10  # samples around the image, at every layer's own rate
    kernel_size: int = 3  # R: 1
    filter_size: int = 6  # taps per unit of resampling
    upsampling: int = 2  # of the nonlinearity
    radial_filters: bool = False  # rotationally symmetric before shrinking, but for critical layers; R: True
    conv_clamp: float = 256.0  # limit of every layer's output; 0: none
    output_scale: float = 0.25  # of the image
    num_bf16_res: int = 0  # highest resolutions that compute in bfloat16
    magnitude_ema_beta: float = 0.999  # weight of the old magnitude; published: 0.5 ** (batch / 20000)
    axis_name: str | None = None  # mesh axis over which the magnitudes are averaged

    separable = True
    moving_phases = ("discriminator",)  # the running means move in this phase of a game alone, as published

    def __post_init__(self):
        layer_table(**_design(self))
        super().__post_init__()

    @property
    def num_ws(self) -> int:
        """Styles of an image: for the input, each layer and the RGB layer."""
        return self.num_layers + 2

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
        self.synthesis_network = Synthesis(
            layers=layer_table(**_design(self)),
            conv_clamp=self.conv_clamp,
            output_scale=self.output_scale,
            num_bf16_res=self.num_bf16_res,
            magnitude_ema_beta=self.magnitude_ema_beta,
            axis_name=self.axis_name,
        )

    def __call__(
        self,
        z: jax.Array,
        label: jax.Array | None = None,
        *,
        train: bool,
        keys: jax.Array | None = None,
        transform: jax.Array | None = None,
    ) -> jax.Array:
        """Images (B, H, W, channels); `keys` are not used, see `synthesis` for `transform`."""
        return self.synthesis(self.mapping(z, label, train=train), train=train, transform=transform)

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
        """Styles ws (B, num_ws, w_size); see `Mapping` for `counted`, `mapping.truncate` for psi and cutoff."""
        assert z.shape[1:] == (self.latent_size,), (z.shape, self.latent_size)
        return self.mapping_network(z, label, train=train, psi=psi, cutoff=cutoff, counted=counted)

    def synthesis(
        self,
        ws: jax.Array,
        *,
        train: bool = False,
        keys: jax.Array | None = None,
        noise: str = "none",
        transform: jax.Array | None = None,
    ) -> jax.Array:
        """Images (B, H, W, channels) of styles ws (B, num_ws, w_size).

        `transform` (3, 3) or (B, 3, 3) maps the image's plane, (x, y) in shorter sides from its centre and x to the
        right, to the plane that is seen there: a shift by (a, b) moves the picture by (-a, -b). `keys` and `noise`
        are StyleGAN2's and not used: these layers have no noise.
        """
        assert ws.shape[1:] == (self.num_ws, self.w_size), (ws.shape, self.num_ws, self.w_size)
        return self.synthesis_network(ws, train, transform)


def _design(model: Generator) -> dict[str, Any]:
    return {name: getattr(model, name) for name in _DESIGN}
