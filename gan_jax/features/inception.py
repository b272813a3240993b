"""The Inception network of FID, inception score and KID: the classifier of December 2015, not that of any paper.

Its weights were published with TensorFlow (inception-2015-12-05) and are known in PyTorch through pytorch-fid and
torch-fidelity, whose names are used here. It differs from Inception v3 (Szegedy et al. 2016, arXiv 1512.00567) as
that package defines it in five points: 1008 classes, no auxiliary head, BatchNorm's epsilon 1e-3, average pools
that leave the padding out of their count, and a max pool in the last block.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gan_jax.errors import UserError
from gan_jax.features import resize

SIZE = (299, 299)
CLASSES = 1008
SMALLEST = 75  # side of the smallest image that leaves a pixel of every map
BN_EPSILON = 1e-3

# name of an output -> its dimension, in the order in which the network reaches them
OUTPUTS = {"64": 64, "192": 192, "768": 768, "2048": 2048, "logits_unbiased": CLASSES, "logits": CLASSES}


class Conv(NamedTuple):
    """A convolution, BatchNorm and ReLU; padded to keep the size where `same`, which has stride 1."""

    name: str
    features: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    same: bool = True


# A branch is a sequence of steps: a convolution, a pool by its name, or a tuple of convolutions side by side.
Branch = tuple[Conv | str | tuple[Conv, ...], ...]

_STEM: tuple[Branch, Branch] = (
    (
        Conv("Conv2d_1a_3x3", 32, (3, 3), 2, same=False), Conv("Conv2d_2a_3x3", 32, (3, 3), same=False),
        Conv("Conv2d_2b_3x3", 64, (3, 3)), "max_halved",
    ),
    (Conv("Conv2d_3b_1x1", 80), Conv("Conv2d_4a_3x3", 192, (3, 3), same=False), "max_halved"),
)


def _block_5(pool: int) -> tuple[Branch, ...]:
    return (
        (Conv("branch1x1", 64),),
        (Conv("branch5x5_1", 48), Conv("branch5x5_2", 64, (5, 5))),
        (Conv("branch3x3dbl_1", 64), Conv("branch3x3dbl_2", 96, (3, 3)), Conv("branch3x3dbl_3", 96, (3, 3))),
        ("average", Conv("branch_pool", pool)),
    )


def _block_6(width: int) -> tuple[Branch, ...]:
    return (
        (Conv("branch1x1", 192),),
        (Conv("branch7x7_1", width), Conv("branch7x7_2", width, (1, 7)), Conv("branch7x7_3", 192, (7, 1))),
        (
            Conv("branch7x7dbl_1", width), Conv("branch7x7dbl_2", width, (7, 1)), Conv("branch7x7dbl_3", width, (1, 7)),
            Conv("branch7x7dbl_4", width, (7, 1)), Conv("branch7x7dbl_5", 192, (1, 7)),
        ),
        ("average", Conv("branch_pool", 192)),
    )


def _block_7(pool: str) -> tuple[Branch, ...]:
    return (
        (Conv("branch1x1", 320),),
        (Conv("branch3x3_1", 384), (Conv("branch3x3_2a", 384, (1, 3)), Conv("branch3x3_2b", 384, (3, 1)))),
        (
            Conv("branch3x3dbl_1", 448), Conv("branch3x3dbl_2", 384, (3, 3)),
            (Conv("branch3x3dbl_3a", 384, (1, 3)), Conv("branch3x3dbl_3b", 384, (3, 1))),
        ),
        (pool, Conv("branch_pool", 192)),
    )


_REDUCE_6: tuple[Branch, ...] = (
    (Conv("branch3x3", 384, (3, 3), 2, same=False),),
    (
        Conv("branch3x3dbl_1", 64), Conv("branch3x3dbl_2", 96, (3, 3)),
        Conv("branch3x3dbl_3", 96, (3, 3), 2, same=False),
    ),
    ("max_halved",),
)
_REDUCE_7: tuple[Branch, ...] = (
    (Conv("branch3x3_1", 192), Conv("branch3x3_2", 320, (3, 3), 2, same=False)),
    (
        Conv("branch7x7x3_1", 192), Conv("branch7x7x3_2", 192, (1, 7)), Conv("branch7x7x3_3", 192, (7, 1)),
        Conv("branch7x7x3_4", 192, (3, 3), 2, same=False),
    ),
    ("max_halved",),
)
_TO_768 = {
    "Mixed_5b": _block_5(32), "Mixed_5c": _block_5(64), "Mixed_5d": _block_5(64), "Mixed_6a": _REDUCE_6,
    "Mixed_6b": _block_6(128), "Mixed_6c": _block_6(160), "Mixed_6d": _block_6(160), "Mixed_6e": _block_6(192),
}
_TO_2048 = {"Mixed_7a": _REDUCE_7, "Mixed_7b": _block_7("average"), "Mixed_7c": _block_7("max")}


class Inception(nn.Module):
    """Images (B, H, W, 3) float32 in [-1, 1], of any size from 75x75, to a dict of float32 (B, D), see `OUTPUTS`.

    The numbers are spatial means of the maps of that many channels; "logits" has the classifier's bias,
    "logits_unbiased", which inception score takes, has not. The network ends behind the last output asked for.

    Raises:
      UserError: an image is too small, or an output has no such name.
    """

    outputs: tuple[str, ...] = tuple(OUTPUTS)
    precision: Any = "highest"

    @nn.compact
    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        unknown = [name for name in self.outputs if name not in OUTPUTS]
        if unknown or not self.outputs:
            raise UserError(f"Inception outputs {self.outputs}: expected some of {', '.join(map(repr, OUTPUTS))}")
        if min(x.shape[1:3]) < SMALLEST:
            raise UserError(f"Inception was given images of {x.shape[1]}x{x.shape[2]}; it needs sides of "
                            f"{SMALLEST} or more: resize them first")
        taps = {}
        for name, value in self._taps(x):
            taps[name] = value
            if taps.keys() >= set(self.outputs):
                break
        return {name: taps[name] for name in self.outputs}

    def _taps(self, x: jax.Array):
        """Outputs one by one: what is not drawn is not computed."""
        for name, branch in zip(("64", "192"), _STEM, strict=True):
            x = _run(branch, x, self.precision)
            yield name, _mean(x)
        for name, blocks in (("768", _TO_768), ("2048", _TO_2048)):
            for block, branches in blocks.items():
                x = Block(branches, self.precision, name=block)(x)
            yield name, _mean(x)
        logits, bias = _Classifier(self.precision, name="fc")(_mean(x))
        yield "logits_unbiased", logits
        yield "logits", logits + bias


class Block(nn.Module):
    """Branches side by side: (B, H, W, C) -> (B, h, w, sum of their features)."""

    branches: tuple[Branch, ...]
    precision: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.concatenate([_run(branch, x, self.precision) for branch in self.branches], axis=-1)


class _Unit(nn.Module):
    """Convolution, bias and ReLU: BatchNorm is in kernel and bias."""

    conv: Conv
    precision: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        conv = self.conv
        kernel = self.param("kernel", nn.initializers.he_normal(), (*conv.kernel, x.shape[-1], conv.features))
        bias = self.param("bias", nn.initializers.zeros, (conv.features,))
        x = _convolve(x, kernel, conv.stride, conv.same, self.precision)
        return nn.relu(x + bias)


class _Classifier(nn.Module):
    precision: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], CLASSES))
        return jnp.dot(x, kernel, precision=self.precision), self.param("bias", nn.initializers.zeros, (CLASSES,))


def _run(branch: Branch, x: jax.Array, precision) -> jax.Array:
    """Steps of a branch; called inside a compact module, whose children the convolutions become."""
    for step in branch:
        if isinstance(step, str):
            x = _POOLS[step](x)
        elif isinstance(step, Conv):
            x = _Unit(step, precision, name=step.name)(x)
        else:
            x = jnp.concatenate([_Unit(conv, precision, name=conv.name)(x) for conv in step], axis=-1)
    return x


def _mean(x: jax.Array) -> jax.Array:
    return jnp.mean(x, (1, 2))


def _convolve(x: jax.Array, kernel: jax.Array, stride: int, same: bool, precision) -> jax.Array:
    kh, kw, c_in, c_out = kernel.shape
    if (kh, kw) == (1, 1):
        return jnp.dot(x, kernel.reshape(c_in, c_out), precision=precision)  # twice as fast as the convolution on CPU
    if same:
        padding, height = ((kh // 2, kh // 2), (kw // 2, kw // 2)), x.shape[1]
    else:
        # one row more than needed, and cut off: on CPU, XLA takes three times as long where nothing is padded
        padding, height = ((0, 1), (0, 0)), (x.shape[1] - kh) // stride + 1
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"),
                                    precision=precision)[:, :height]


def _windows(x: jax.Array, combine: Callable, axis: int, stride: int = 1) -> jax.Array:
    """Combines every three neighbours along an axis; slices are faster on CPU than a window reduction."""
    last = (x.shape[axis] - 3) // stride * stride
    first, second, third = (lax.slice_in_dim(x, i, last + i + 1, stride, axis) for i in range(3))
    return combine(combine(first, second), third)


def _max(x: jax.Array, stride: int = 1, pad: bool = False) -> jax.Array:
    if pad:
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    return _windows(_windows(x, jnp.maximum, 1, stride), jnp.maximum, 2, stride)


def _average(x: jax.Array) -> jax.Array:
    """Means of 3x3 windows; at the border, of the pixels that lie within the map."""
    rows, columns = (np.minimum(np.arange(n) + 2, n) - np.maximum(np.arange(n) - 1, 0) for n in x.shape[1:3])
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return _windows(_windows(x, jnp.add, 1), jnp.add, 2) / np.outer(rows, columns)[:, :, None].astype(np.float32)


_POOLS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "max_halved": lambda x: _max(x, stride=2), "max": lambda x: _max(x, pad=True), "average": _average,
}


# Weights

def _convs():
    """(path, convolution, its input channels) of every convolution, in the order of the network."""
    channels = 3
    for branch in _STEM:
        channels = yield from _convs_of("", branch, channels)
    for block, branches in (_TO_768 | _TO_2048).items():
        total = 0
        for branch in branches:
            total += yield from _convs_of(block + ".", branch, channels)
        channels = total


def _convs_of(prefix: str, branch: Branch, channels: int):
    for step in branch:
        convs = () if isinstance(step, str) else (step,) if isinstance(step, Conv) else step
        for conv in convs:
            yield prefix + conv.name, conv, channels
        channels = sum(conv.features for conv in convs) or channels
    return channels


def shapes() -> dict[str, tuple[int, ...]]:
    """Arrays of the PyTorch state dict that count: BatchNorm's `num_batches_tracked` are left out."""
    arrays = {}
    for path, conv, channels in _convs():
        arrays[f"{path}.conv.weight"] = (conv.features, channels, *conv.kernel)
        arrays |= {f"{path}.bn.{name}": (conv.features,) for name in ("weight", "bias", "running_mean", "running_var")}
    return arrays | {"fc.weight": (CLASSES, 2048), "fc.bias": (CLASSES,)}


def from_torch(state: Mapping[str, np.ndarray]) -> dict:
    """Variables of `Inception`; BatchNorm is folded into kernels and biases, in float64.

    With fixed statistics it is a scale and a shift for each channel, gamma (x - mean) / sqrt(var + eps) + beta: the
    scale goes into the kernel, which spares a pass over every map, and float64 keeps the rounding to one.

    Args:
      state: the arrays of `shapes()`, checked by `state.check`.
    """
    params: dict = {"fc": {"kernel": np.asarray(state["fc.weight"]).T, "bias": np.asarray(state["fc.bias"])}}
    for path, _, _ in _convs():
        bn = {name: np.asarray(state[f"{path}.bn.{name}"], np.float64)
              for name in ("weight", "bias", "running_mean", "running_var")}
        scale = bn["weight"] / np.sqrt(bn["running_var"] + BN_EPSILON)
        kernel = np.asarray(state[f"{path}.conv.weight"], np.float64).transpose(2, 3, 1, 0) * scale
        *block, name = path.split(".")
        into = params.setdefault(block[0], {}) if block else params
        into[name] = {
            "kernel": kernel.astype(np.float32), "bias": (bn["bias"] - bn["running_mean"] * scale).astype(np.float32),
        }
    return {"params": params}


# Preprocessing: uint8 (B, H, W, 3) -> float32 (B, 299, 299, 3)

def _tf1(images: jax.Array) -> jax.Array:
    return (resize.tf1_bilinear(images, SIZE) - 128) / 128


def _pytorch_fid(images: jax.Array) -> jax.Array:
    return 2 * resize.bilinear(jnp.asarray(images, jnp.float32) / 255, SIZE) - 1


def _clean(images: jax.Array) -> jax.Array:
    return (jnp.clip(resize.pil(images, SIZE), 0, 255) - 128) / 128


PREPROCESSING: dict[str, Callable[[jax.Array], jax.Array]] = {
    "tf1": _tf1, "pytorch_fid": _pytorch_fid, "clean": _clean,
}
DESCRIPTIONS = {
    "tf1": "bilinear 299x299 as TensorFlow 1, (x-128)/128",
    "pytorch_fid": "bilinear 299x299 with half-pixel centres as pytorch-fid, 2x/255-1",
    "clean": "bicubic 299x299 as Pillow in float as clean-fid, clipped to 0..255, (x-128)/128",
}
