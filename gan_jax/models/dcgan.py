"""DCGAN (Radford et al. 2015), in its three common forms.

The defaults are the PyTorch examples network: 4x4 kernels, stride 2, BatchNorm, no biases. The others are
set by fields: the 2015 paper (5x5 kernels, dense stem and head), and the TensorFlow tutorial for 28x28 digits
(features (256, 128, 64), strides (1, 2, 2), 5x5, dense stem, leaky ReLU .3, momentum .99, epsilon 1e-3,
Glorot weights).
All strided layers pad as TensorFlow's 'SAME', which for a 4x4 kernel and stride 2 is torch's padding 1.
A layer has a bias where it is not part of a batch-normalised network (norm 'none').
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax.errors import UserError
from gan_jax.layers.dropout import dropout
from gan_jax.layers.linear import Conv, ConvTranspose, Dense
from gan_jax.layers.norm import BatchNorm
from gan_jax.layers.random import fold
from gan_jax.models.blocks import check_choice, scale_near_one


class Generator(nn.Module, kw_only=True):
    """z (B, latent_size), label (B,) -> images (B, H, W, channels), float32 in [-1, 1].

    A conditional generator (num_classes > 0) concatenates z with a learned vector of the label, of z's size.
    """

    resolution: int | tuple[int, int] = 32  # of the images: side, or (height, width)
    channels: int = 3  # of the images
    num_classes: int = 0  # 0: unconditional, labels are ignored
    latent_size: int = 100  # entries of z
    latent: str = "normal"  # distribution of z, read by the game: 'normal' N(0, 1) | 'uniform' U(-1, 1)
    width: int = 64  # features of the last hidden layer; doubled towards the stem
    features: tuple[int, ...] = ()  # explicit widths from the stem on; (): by width and resolution
    strides: tuple[int, ...] = ()  # of the layers after the stem, the image layer last; (): 2 each
    kernel_size: int = 4  # of the layers after the stem
    stem: str = "conv"  # 'conv': z as a 1x1 image, BN per feature map | 'dense': BN per unit
    activation: str = "relu"  # 'relu' | 'leaky_relu'
    slope: float = 0.2  # of the leaky ReLU
    norm: str = "batch"  # 'batch' | 'none'
    norm_momentum: float = 0.9  # weight of the old running value
    norm_epsilon: float = 1e-5
    initializer: str = "normal"  # 'normal': N(0, .02), BN scale N(1, .02) | 'glorot': Keras' defaults
    axis_name: str | None = None  # mesh axis of BatchNorm
    dtype: jnp.dtype = jnp.float32  # of the computation

    def __post_init__(self):
        check_choice("stem", self.stem, ("conv", "dense"))
        check_choice("activation", self.activation, ("relu", "leaky_relu"))
        check_choice("latent", self.latent, ("normal", "uniform"))
        _check(self)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, z: jax.Array, label: jax.Array | None = None, *, train: bool, keys: jax.Array | None = None
    ) -> jax.Array:
        base, features, strides = plan(self.resolution, self.width, self.features, self.strides, reverse=True)
        options = {"kernel_init": _kernel_init(self.initializer), "dtype": self.dtype}
        options["use_bias"] = self.norm == "none"
        assert z.shape[1:] == (self.latent_size,), (z.shape, self.latent_size)
        if self.num_classes:
            assert label is not None, "a conditional generator needs labels"
            hot = jax.nn.one_hot(label, self.num_classes, dtype=self.dtype)
            # As loud as z itself, ten vectors drown it: the generator then learns one image for each label.
            embed = Dense(self.latent_size, False, kernel_init=nn.initializers.normal(0.2), name="embed")
            z = jnp.concatenate([z, embed(hot).astype(z.dtype)], axis=-1)

        if self.stem == "conv":
            x = ConvTranspose(features[0], base, padding="VALID", name="stem", **options)(z[:, None, None, :])
            x = self._activate(x, "stem_norm", train)
        else:
            x = Dense(math.prod(base) * features[0], name="stem", **options)(z)
            x = self._activate(x, "stem_norm", train).reshape(-1, *base, features[0])
        for i, (n, stride) in enumerate(zip(features[1:], strides[:-1], strict=True)):
            x = ConvTranspose(n, self.kernel_size, stride, name=f"up{i}", **options)(x)
            x = self._activate(x, f"up{i}_norm", train)
        x = ConvTranspose(self.channels, self.kernel_size, strides[-1], name="image", **options)(x)
        return jnp.tanh(x.astype(jnp.float32))

    def _activate(self, x: jax.Array, name: str, train: bool) -> jax.Array:
        if self.norm == "batch":
            x = _batch_norm(self, name)(x, use_running_average=not train)
        return nn.relu(x) if self.activation == "relu" else nn.leaky_relu(x, self.slope)


class Discriminator(nn.Module, kw_only=True):
    """Images (B, H, W, channels), label (B,) -> logits (B,), float32.

    A conditional discriminator adds the projection <embed(label), h> (Miyato & Koyama 2018, eq. 4); h is the
    sum of the last features over their positions, divided by the root of the number of positions.
    """

    resolution: int | tuple[int, int] = 32  # of the images: side, or (height, width)
    channels: int = 3  # of the images
    num_classes: int = 0  # 0: unconditional, labels are ignored
    width: int = 64  # features of the first layer; doubled after each
    features: tuple[int, ...] = ()  # explicit widths from the image on; (): by width and resolution
    strides: tuple[int, ...] = ()  # one per layer; (): 2 each
    kernel_size: int = 4
    slope: float = 0.2  # of the leaky ReLU
    norm: str = "batch"  # 'batch' (all layers but the first) | 'none'
    spectral_norm: bool = False  # of every weight (Miyato et al. 2018)
    dropout: float = 0.0  # after each activation, where keys are given
    head: str = "conv"  # 'conv': one window over the last features | 'dense': flattened
    norm_momentum: float = 0.9  # weight of the old running value
    norm_epsilon: float = 1e-5
    initializer: str = "normal"  # 'normal': N(0, .02), BN scale N(1, .02) | 'glorot': Keras' defaults
    axis_name: str | None = None  # mesh axis of BatchNorm and of the spectral vectors
    dtype: jnp.dtype = jnp.float32  # of the computation

    def __post_init__(self):
        check_choice("head", self.head, ("conv", "dense"))
        _check(self)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: jax.Array, label: jax.Array | None = None, *, train: bool, keys: jax.Array | None = None
    ) -> jax.Array:
        base, features, strides = plan(self.resolution, self.width, self.features, self.strides)
        assert x.shape[1:] == (*_size(self.resolution), self.channels), (x.shape, self.resolution)
        options = {"spectral_norm": self.spectral_norm, "kernel_init": _kernel_init(self.initializer)}
        options |= {"axis_name": self.axis_name, "dtype": self.dtype}
        bias = self.norm == "none"
        x = x.astype(self.dtype)
        for i, (n, stride) in enumerate(zip(features, strides, strict=True)):
            x = Conv(n, self.kernel_size, stride, use_bias=bias, name=f"down{i}", **options)(x, train)
            if self.norm == "batch" and i > 0:
                x = _batch_norm(self, f"down{i}_norm")(x, use_running_average=not train)
            x = nn.leaky_relu(x, self.slope)
            if train and self.dropout and keys is not None:
                x = dropout(x, fold(keys, i), self.dropout)

        if self.head == "conv":
            logits = Conv(1, base, padding="VALID", use_bias=bias, name="head", **options)(x, train)
        else:
            logits = Dense(1, bias, name="head", **options)(x.reshape(x.shape[0], -1), train)
        logits = logits.reshape(-1).astype(jnp.float32)
        if self.num_classes:
            assert label is not None, "a conditional discriminator needs labels"
            hot = jax.nn.one_hot(label, self.num_classes, dtype=self.dtype)
            embed = Dense(features[-1], False, name="embed", **options)(hot, train)
            h = jnp.sum(x.astype(jnp.float32), (1, 2)) / math.sqrt(math.prod(base))
            logits += jnp.sum(embed.astype(jnp.float32) * h, axis=-1)
        return logits


def plan(
    resolution: int | tuple[int, int],
    width: int,
    features: tuple[int, ...] = (),
    strides: tuple[int, ...] = (),
    reverse: bool = False,
) -> tuple[tuple[int, int], tuple[int, ...], tuple[int, ...]]:
    """(base (h, w), features, strides) of the layers between the base and the image, from the image on.

    With neither features nor strides, sizes are halved while they stay even and the base at least 4 wide.
    `reverse` gives both from the base on. Raises `UserError` for sizes that the strides do not divide.
    """
    size = _size(resolution)
    layers = len(features) or len(strides)
    if not layers:
        while all(n % 2 ** (layers + 1) == 0 and n // 2 ** (layers + 1) >= 4 for n in size):
            layers += 1
        if not layers:
            raise UserError(
                f"resolution {resolution} cannot be halved down to a base of 4x4 or more; "
                "use even sizes from 8 on (such as 32, 64 or 128), or set features and strides."
            )
    features = tuple(features) or tuple(width * 2**i for i in range(layers))[:: -1 if reverse else 1]
    strides = tuple(strides) or (2,) * layers
    if len(features) != len(strides):
        raise UserError(
            f"features {features} and strides {strides} differ in length; give one each per layer."
        )
    total = math.prod(strides)
    if any(n % total for n in size):
        raise UserError(
            f"resolution {resolution} does not fit the strides {strides}: "
            f"height and width must be multiples of {total}."
        )
    return (size[0] // total, size[1] // total), features, strides


def _size(resolution: int | tuple[int, int]) -> tuple[int, int]:
    return (resolution, resolution) if isinstance(resolution, int) else tuple(resolution)


def _check(model: nn.Module) -> None:
    check_choice("norm", model.norm, ("batch", "none"))
    check_choice("initializer", model.initializer, ("normal", "glorot"))
    for field in ("channels", "width", "kernel_size"):
        if getattr(model, field) < 1:
            raise UserError(f"{field}={getattr(model, field)}: expected 1 or more")
    if any(number < 1 for number in (*model.features, *model.strides)):
        raise UserError(f"features={model.features}, strides={model.strides}: expected numbers of 1 or more")
    plan(model.resolution, model.width, model.features, model.strides)


def _kernel_init(init: str) -> Callable:
    return nn.initializers.normal(0.02) if init == "normal" else nn.initializers.glorot_uniform()


def _batch_norm(model: nn.Module, name: str) -> BatchNorm:
    return BatchNorm(
        momentum=model.norm_momentum,
        epsilon=model.norm_epsilon,
        axis_name=model.axis_name,
        scale_init=scale_near_one if model.initializer == "normal" else nn.initializers.ones,
        dtype=model.dtype,
        name=name,
    )
