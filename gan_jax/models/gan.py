"""The multilayer perceptrons of the first GAN (Goodfellow et al. 2014), for images and for points."""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax.errors import UserError
from gan_jax.layers.dropout import dropout
from gan_jax.layers.linear import Dense
from gan_jax.layers.random import fold
from gan_jax.models.blocks import check_choice

_OUTPUTS = {"sigmoid": lambda x: 2 * nn.sigmoid(x) - 1, "tanh": jnp.tanh, "linear": lambda x: x}


class Generator(nn.Module, kw_only=True):
    """z (B, latent_size) -> samples (B, *shape), float32."""

    shape: tuple[int, ...] = (28, 28, 1)  # of a sample: (H, W, C) or (2,)
    num_classes: int = 0  # must be 0: the model is unconditional
    latent_size: int = 100  # entries of z
    latent: str = "uniform"  # distribution of z, read by the game: 'uniform' U(-1, 1) | 'normal' N(0, 1)
    widths: tuple[int, ...] = (1200, 1200)  # of the hidden layers
    activation: str = "relu"  # 'relu' | 'leaky_relu'
    slope: float = 0.2  # of the leaky ReLU
    output: str = "sigmoid"  # 'sigmoid' (stretched to [-1, 1]) | 'tanh' | 'linear'
    init_range: float = 0.05  # weights U(-range, range); 0: Glorot
    axis_name: str | None = None  # unused: the layers know no batch statistics
    dtype: jnp.dtype = jnp.float32  # of the computation

    def __post_init__(self):
        check_choice("activation", self.activation, ("relu", "leaky_relu"))
        check_choice("latent", self.latent, ("uniform", "normal"))
        check_choice("output", self.output, tuple(_OUTPUTS))
        _unconditional(self.num_classes)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, z: jax.Array, label: jax.Array | None = None, *, train: bool, keys: jax.Array | None = None
    ) -> jax.Array:
        assert z.shape[1:] == (self.latent_size,), (z.shape, self.latent_size)
        options = {"kernel_init": _kernel_init(self.init_range), "dtype": self.dtype}
        x = z
        for i, n in enumerate(self.widths):
            x = Dense(n, name=f"hidden{i}", **options)(x)
            x = nn.relu(x) if self.activation == "relu" else nn.leaky_relu(x, self.slope)
        x = Dense(math.prod(self.shape), name="out", **options)(x).astype(jnp.float32)
        return _OUTPUTS[self.output](x).reshape(-1, *self.shape)


class Discriminator(nn.Module, kw_only=True):
    """Samples (B, *shape) -> logits (B,), float32; dropout in training where keys (B,) are given."""

    shape: tuple[int, ...] = (28, 28, 1)  # of a sample: (H, W, C) or (2,)
    num_classes: int = 0  # must be 0: the model is unconditional
    widths: tuple[int, ...] = (240, 240)  # of the hidden layers
    pieces: int = 5  # linear maps per maxout unit
    activation: str = "maxout"  # 'maxout' (Goodfellow et al. 2013) | 'relu' | 'leaky_relu'
    slope: float = 0.2  # of the leaky ReLU
    dropout_input: float = 0.2  # rate on the sample
    dropout_hidden: float = 0.5  # rate after each hidden layer
    init_range: float = 0.005  # weights U(-range, range); 0: Glorot
    spectral_norm: bool = False  # of every weight (Miyato et al. 2018)
    axis_name: str | None = None  # mesh axis of the spectral vectors
    dtype: jnp.dtype = jnp.float32  # of the computation

    def __post_init__(self):
        check_choice("activation", self.activation, ("maxout", "relu", "leaky_relu"))
        _unconditional(self.num_classes)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: jax.Array, label: jax.Array | None = None, *, train: bool, keys: jax.Array | None = None
    ) -> jax.Array:
        assert x.shape[1:] == tuple(self.shape), (x.shape, self.shape)
        options = {"kernel_init": _kernel_init(self.init_range), "spectral_norm": self.spectral_norm}
        options |= {"axis_name": self.axis_name, "dtype": self.dtype}
        x = x.reshape(x.shape[0], -1)
        for i, n in enumerate(self.widths):
            x = self._drop(x, i, self.dropout_hidden if i else self.dropout_input, train, keys)
            pieces = self.pieces if self.activation == "maxout" else 1
            x = Dense(n * pieces, name=f"hidden{i}", **options)(x, train)
            if self.activation == "maxout":
                x = x.reshape(-1, n, pieces).max(axis=-1)
            else:
                x = nn.relu(x) if self.activation == "relu" else nn.leaky_relu(x, self.slope)
        x = self._drop(x, len(self.widths), self.dropout_hidden, train, keys)
        return Dense(1, name="out", **options)(x, train)[:, 0].astype(jnp.float32)

    def _drop(self, x: jax.Array, layer: int, rate: float, train: bool, keys: jax.Array | None) -> jax.Array:
        return dropout(x, fold(keys, layer), rate) if train and rate and keys is not None else x


def _kernel_init(init_range: float) -> Callable:
    if not init_range:
        return nn.initializers.glorot_uniform()

    def init(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -init_range, init_range)

    return init


def _unconditional(num_classes: int) -> None:
    if num_classes:
        raise UserError(
            f"num_classes={num_classes}: the model 'gan' takes no labels; play without them, or use a model that does, "
            "such as 'dcgan'"
        )
