"""Linen modules over `layers.conv`: convolution, transposed convolution and dense layer, with spectral norm.

Parameters are float32 under 'kernel' and 'bias'; `dtype` is that of the computation and of the output.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from gan_jax.layers.channels import along_channels
from gan_jax.layers.conv import (
    Padding,
    Padding3D,
    Pair,
    Triple,
    as_pair,
    conv,
    conv_3d,
    conv_dilated,
    conv_transpose,
    same_padding,
)


class Conv(nn.Module):
    """Convolution of (B, H, W, I) to (B, h, w, features)."""

    features: int
    kernel_size: int | Pair
    stride: int | Pair = 1
    padding: str | Padding = "SAME"  # 'SAME' (TensorFlow's) | 'VALID' | ((top, bottom), (left, right))
    use_bias: bool = True
    spectral_norm: bool = False
    kernel_init: Callable = nn.initializers.lecun_normal()
    axis_name: str | None = None  # mesh axis over which the spectral vector is kept equal
    dtype: jnp.dtype | None = None  # None: that of x
    dilation: int = 1  # pixels from one of the kernel's to the next; above 1 the stride is 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        kernel, bias = _weights(self, (*as_pair(self.kernel_size), x.shape[-1], self.features), train)
        stride, size = as_pair(self.stride), x.shape[1:3]
        window = tuple((side - 1) * self.dilation + 1 for side in as_pair(self.kernel_size))
        padding = _padding(self.padding, size, window, stride)
        x, kernel, bias = _cast(self.dtype or x.dtype, x, kernel, bias)
        assert self.dilation == 1 or stride == (1, 1), (self.dilation, stride)
        y = conv(x, kernel, stride, padding) if self.dilation == 1 else conv_dilated(x, kernel, self.dilation, padding)
        return y if bias is None else y + along_channels(bias, y)


class Conv3D(nn.Module):
    """Convolution of clips (B, T, H, W, I) to (B, t, h, w, features)."""

    features: int
    kernel_size: Triple  # frames, rows, columns
    stride: Triple = (1, 1, 1)
    padding: Padding3D = ((0, 0),) * 3  # before and after, of frames, rows and columns
    use_bias: bool = True
    spectral_norm: bool = False
    kernel_init: Callable = nn.initializers.lecun_normal()
    axis_name: str | None = None  # mesh axis over which the spectral vector is kept equal
    dtype: jnp.dtype | None = None  # None: that of x

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        kernel, bias = _weights(self, (*self.kernel_size, x.shape[-1], self.features), train)
        x, kernel, bias = _cast(self.dtype or x.dtype, x, kernel, bias)
        y = conv_3d(x, kernel, self.stride, self.padding)
        return y if bias is None else y + along_channels(bias, y)


class Weights(nn.Module):
    """A kernel of some shape and its bias, as the layers have them, for a loop that applies them again and again.

    Spectral norm makes its one power iteration for all of the loop.
    """

    shape: tuple[int, ...]  # of the kernel; its last entry is the bias's
    use_bias: bool = True
    spectral_norm: bool = False
    kernel_init: Callable = nn.initializers.lecun_normal()
    axis_name: str | None = None  # mesh axis over which the spectral vector is kept equal

    @property
    def features(self) -> int:
        """Channels that the kernel makes."""
        return self.shape[-1]

    @nn.compact
    def __call__(self, train: bool = False) -> tuple[jax.Array, jax.Array | None]:
        return _weights(self, self.shape, train)


class ConvTranspose(nn.Module):
    """Transposed convolution of (B, h, w, I) to (B, H, W, features), see `conv_transpose` for the kernel.

    'SAME' gives H = h * stride (Keras), 'VALID' and explicit paddings follow `torch.nn.ConvTranspose2d`.
    """

    features: int
    kernel_size: int | Pair
    stride: int | Pair = 1
    padding: str | Padding = "SAME"
    use_bias: bool = True
    spectral_norm: bool = False
    kernel_init: Callable = nn.initializers.lecun_normal()
    axis_name: str | None = None  # mesh axis over which the spectral vector is kept equal
    dtype: jnp.dtype | None = None  # None: that of x

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        window, stride = as_pair(self.kernel_size), as_pair(self.stride)
        kernel, bias = _weights(self, (*window, x.shape[-1], self.features), train)
        large = tuple(n * s for n, s in zip(x.shape[1:3], stride, strict=True))
        padding = _padding(self.padding, large, window, stride)
        extra = (0, 0)
        if self.padding == "SAME":  # a window smaller than the stride leaves empty rows at the end
            extra = tuple(max(s - k, 0) for s, k in zip(stride, window, strict=True))
        x, kernel, bias = _cast(self.dtype or x.dtype, x, kernel, bias)
        y = conv_transpose(x, kernel, stride, padding, extra)
        return y if bias is None else y + along_channels(bias, y)


class Dense(nn.Module):
    """Linear map of (..., I) to (..., features)."""

    features: int
    use_bias: bool = True
    spectral_norm: bool = False
    kernel_init: Callable = nn.initializers.lecun_normal()
    axis_name: str | None = None  # mesh axis over which the spectral vector is kept equal
    dtype: jnp.dtype | None = None  # None: that of x

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        kernel, bias = _weights(self, (x.shape[-1], self.features), train)
        x, kernel, bias = _cast(self.dtype or x.dtype, x, kernel, bias)
        y = x @ kernel
        return y if bias is None else y + along_channels(bias, y)


def _weights(module: nn.Module, shape: tuple[int, ...], train: bool) -> tuple[jax.Array, jax.Array | None]:
    """The module's kernel, spectrally normalised if asked for, and its bias."""
    kernel = module.param("kernel", module.kernel_init, shape, jnp.float32)
    bias = None
    if module.use_bias:
        bias = module.param("bias", nn.initializers.zeros, (module.features,), jnp.float32)
    if module.spectral_norm:
        kernel = kernel / _spectral_sigma(module, kernel, train)
    return kernel, bias


def _spectral_sigma(module: nn.Module, kernel: jax.Array, train: bool) -> jax.Array:
    """The largest singular value of the kernel as a matrix (features, the rest) (Miyato et al. 2018, eq. 19).

    One power iteration per training forward from the vector `u` (features,) kept in 'spectral'; the singular
    vectors are constants to the gradient. In evaluation `u` stays as it is.
    """
    matrix = kernel.reshape(-1, kernel.shape[-1]).T  # (features, the rest)
    constant = lax.stop_gradient(matrix)

    def init_vector():
        u = jax.random.normal(module.make_rng("params"), (module.features,), jnp.float32)
        return _unit(u)

    vector = module.variable("spectral", "u", init_vector)
    u = vector.value
    v = _unit(constant.T @ u)
    if train and not module.is_initializing():
        u = _unit(constant @ v)
        if module.axis_name:  # equal on all devices already: this says so to shard_map
            u = lax.pmean(u, module.axis_name)
        if module.is_mutable_collection("spectral"):
            vector.value = u
    return u @ (matrix @ v)


def _unit(x: jax.Array) -> jax.Array:
    return x / jnp.maximum(jnp.linalg.norm(x), 1e-12)


def _padding(padding: str | Padding, size: Pair, kernel: Pair, stride: Pair) -> Padding:
    if padding == "SAME":
        return same_padding(size, kernel, stride)
    return ((0, 0), (0, 0)) if padding == "VALID" else padding


def _cast(dtype, x, kernel, bias):
    return x.astype(dtype), kernel.astype(dtype), None if bias is None else bias.astype(dtype)
