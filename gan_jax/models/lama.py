"""The networks of LaMa (Suvorov et al. 2021, arXiv 2109.07161), which fill holes of pictures.

The generator is a residual network whose blocks are fast Fourier convolutions (Chi et al. 2020): a part of the channels
is local, convolved 3x3; the others are global, convolved 1x1 over the picture's frequencies, so that each layer sees
the whole picture. The discriminator is the one of pix2pixHD (1711.11585): logits of patches, and its layers' maps. The
defaults are `lama-fourier`; `big-lama` has 18 blocks. Paddings mirror, as in the published networks.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax.errors import UserError
from gan_jax.layers.linear import Conv, ConvTranspose
from gan_jax.layers.norm import BatchNorm
from gan_jax.layers.pad import reflect
from gan_jax.models.blocks import check_choice, check_least, wide
from gan_jax.models.esrgan import UNIFORM

UNIFORM_UP = nn.initializers.variance_scaling(1 / 3, "fan_out", "uniform")  # PyTorch's default of a transposed one
TWO = ((2, 2), (2, 2))  # rows and columns of zeros on every side
MOST, MOST_OF_DISCRIMINATOR = 1024, 512  # features, however often they are doubled
OUTPUTS = {"sigmoid": nn.sigmoid, "tanh": lambda x: (jnp.tanh(x) + 1) / 2, "none": lambda x: x}


class FourierUnit(nn.Module):
    """x (B, h, w, C) -> (B, h, w, features): 1x1 over real and imaginary parts of the frequencies, norm, ReLU.

    The transform is the orthonormal one; parts of a channel are neighbours.
    """

    features: int
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        size = x.shape[1:3]
        x = jnp.fft.rfft2(wide(x), axes=(1, 2), norm="ortho")
        x = jnp.stack([x.real, x.imag], -1).reshape(*x.shape[:3], -1).astype(self.dtype)
        x = Conv(2 * self.features, 1, use_bias=False, kernel_init=UNIFORM, dtype=self.dtype, name="conv")(x)
        x = wide(nn.relu(_normalised(self, x, "norm", train))).reshape(*x.shape[:3], self.features, 2)
        x = jnp.fft.irfft2(jax.lax.complex(x[..., 0], x[..., 1]), s=size, axes=(1, 2), norm="ortho")
        return x.astype(self.dtype)


class SpectralTransform(nn.Module):
    """x (B, h, w, C) -> (B, h / stride, w / stride, features): 1x1 to half the features, Fourier units, 1x1.

    A local unit sees the four quarters of a quarter of the channels, one beside the other, and its result is repeated.
    """

    features: int
    stride: int = 1  # or 2: means of 2x2 first
    local_unit: bool = False  # sides are even then
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        options = {"use_bias": False, "kernel_init": UNIFORM, "dtype": self.dtype}
        common = {"axis_name": self.axis_name, "dtype": self.dtype}
        half = self.features // 2
        if self.stride == 2:
            x = nn.avg_pool(x, (2, 2), (2, 2))
        x = Conv(half, 1, name="reduce", **options)(x)
        x = nn.relu(_normalised(self, x, "reduce_norm", train))
        total = x + FourierUnit(half, **common, name="unit")(x, train=train)
        if self.local_unit:
            y = x[..., : half // 4]
            y = jnp.concatenate(jnp.split(y, 2, axis=1), -1)
            y = jnp.concatenate(jnp.split(y, 2, axis=2), -1)
            y = FourierUnit(half, **common, name="local_unit")(y, train=train)
            total = total + jnp.tile(y, (1, 2, 2, 1))
        return Conv(self.features, 1, name="expand", **options)(total)


class FourierConv(nn.Module):
    """(local (B, h, w, L), global (B, h, w, G) or None) -> the same of `features`, each behind its norm and ReLU.

    3x3 leads from local to both and from global to local; the spectral transform from global to global.
    """

    features: int
    of_global: int  # of the features, those that are global; 0: none, and None stands for them
    kernel_size: int = 3
    stride: int = 1
    local_unit: bool = False
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: tuple, *, train: bool) -> tuple:
        x_local, x_global = x
        border = self.kernel_size // 2
        common = {"axis_name": self.axis_name, "dtype": self.dtype}

        def conv(y, features, name):
            options = {"padding": "VALID", "use_bias": False, "kernel_init": UNIFORM, "dtype": self.dtype}
            return Conv(features, self.kernel_size, self.stride, name=name, **options)(reflect(y, border))

        y_local, y_global = conv(x_local, self.features - self.of_global, "local"), None
        if self.of_global:
            y_global = conv(x_local, self.of_global, "local_to_global")
        if x_global is not None:
            y_local = y_local + conv(x_global, self.features - self.of_global, "global_to_local")
            spectral = SpectralTransform(self.of_global, self.stride, self.local_unit, **common, name="spectral")
            y_global = y_global + spectral(x_global, train=train)
        y_local = nn.relu(_normalised(self, y_local, "local_norm", train))
        if y_global is not None:
            y_global = nn.relu(_normalised(self, y_global, "global_norm", train))
        return y_local, y_global


class Generator(nn.Module, kw_only=True):
    """x (B, H, W, C + 1) -> pictures (B, H, W, channels) in [0, 1], float32.

    x holds a picture in [0, 1] whose hole is 0, and its mask, 1 in the hole.

    Raises:
      UserError: sides that are no multiples of 2 ** halvings, or too small to be mirrored.
    """

    channels: int = 3  # of the pictures that it makes
    width: int = 64  # features at full size; doubled with each halving, up to 1024
    halvings: int = 3  # of the sides in front of the blocks, and doublings behind them
    blocks: int = 9  # residual ones; big-lama has 18
    share: float = 0.75  # of the blocks' channels, those that are global; 0: none, a plain residual network
    local_unit: bool = False  # whether the spectral transforms have a local Fourier unit, too
    output: str = "sigmoid"  # or 'tanh', moved to [0, 1]; or 'none'
    axis_name: str | None = None  # mesh axis of BatchNorm
    dtype: jnp.dtype = jnp.float32  # of the computation

    def __post_init__(self):
        check_least(self, {"channels": 1, "width": 1, "halvings": 1, "blocks": 1})
        check_choice("output", self.output, tuple(OUTPUTS))
        if not 0 <= self.share < 1:
            raise UserError(f"share={self.share}: expected 0 or more and below 1")
        super().__post_init__()

    @property
    def fills(self) -> bool:
        """It takes pictures with holes, and their masks."""
        return True

    @property
    def multiple(self) -> int:
        """Of which the sides of a picture are multiples."""
        return 2**self.halvings

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, keys: jax.Array | None = None) -> jax.Array:
        self._check_size(*x.shape[1:3])
        common = {"axis_name": self.axis_name, "dtype": self.dtype}
        widths = [min(self.width * 2**i, MOST) for i in range(self.halvings + 1)]
        of_global = int(widths[-1] * self.share)

        y = FourierConv(widths[0], 0, 7, name="stem", **common)((x.astype(self.dtype), None), train=train)
        for i, features in enumerate(widths[1:]):
            share = of_global if i == self.halvings - 1 else 0
            y = FourierConv(features, share, 3, 2, name=f"down{i}", **common)(y, train=train)
        for i in range(self.blocks):
            z = y
            for half in range(2):
                options = {"local_unit": self.local_unit, "name": f"block{i}_conv{half}", **common}
                z = FourierConv(widths[-1], of_global, **options)(z, train=train)
            y = jax.tree.map(jnp.add, y, z)
        x = y[0] if y[1] is None else jnp.concatenate(y, -1)
        for i, features in enumerate(widths[-2::-1]):
            # torch's padding 1 with output_padding 1: the last row and column are not cut off.
            options = {"kernel_init": UNIFORM_UP, "dtype": self.dtype, "name": f"up{i}"}
            x = ConvTranspose(features, 3, 2, ((1, 0), (1, 0)), **options)(x)
            x = nn.relu(_normalised(self, x, f"up{i}_norm", train))
        options = {"padding": "VALID", "kernel_init": UNIFORM, "dtype": self.dtype, "name": "image"}
        return OUTPUTS[self.output](Conv(self.channels, 7, **options)(reflect(x, 3)).astype(jnp.float32))

    def _check_size(self, height: int, width: int) -> None:
        smallest = max(4, 2 * self.multiple)
        if height % self.multiple or width % self.multiple or min(height, width) < smallest:
            raise UserError(
                f"pictures of {height}x{width}: expected sides that are multiples of {self.multiple}, from {smallest} "
                "on"
            )


class Discriminator(nn.Module, kw_only=True):
    """x (B, H, W, C) -> logits of patches (B, h, w, 1), float32; `maps` gives what its layers made, too."""

    width: int = 64  # features of the first layer; doubled after each, up to 512
    layers: int = 4  # of stride 2; one of stride 1 and the logits' follow
    axis_name: str | None = None  # mesh axis of BatchNorm
    dtype: jnp.dtype = jnp.float32  # of the computation

    def __post_init__(self):
        check_least(self, {"width": 1, "layers": 1})
        super().__post_init__()

    def __call__(self, x: jax.Array, *, train: bool, keys: jax.Array | None = None) -> jax.Array:
        return self.maps(x, train=train)[0]

    @nn.compact
    def maps(self, x: jax.Array, *, train: bool) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """(logits, the map of every layer in front of them)."""
        options = {"kernel_size": 4, "padding": TWO, "kernel_init": UNIFORM, "dtype": self.dtype}
        x, maps = x.astype(self.dtype), []
        for i in range(self.layers + 1):
            features = min(self.width * 2**i, MOST_OF_DISCRIMINATOR)
            x = Conv(features, stride=2 if i < self.layers else 1, name=f"conv{i}", **options)(x)
            if i:
                x = _normalised(self, x, f"conv{i}_norm", train)
            x = nn.leaky_relu(x, 0.2)
            maps.append(x)
        return Conv(1, name="head", **options)(x).astype(jnp.float32), tuple(maps)


def _normalised(model: nn.Module, x: jax.Array, name: str, train: bool) -> jax.Array:
    return BatchNorm(axis_name=model.axis_name, dtype=model.dtype, name=name)(x, use_running_average=not train)
