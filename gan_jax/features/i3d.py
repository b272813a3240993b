"""The network of FVD: Inception v1 with its kernels inflated to three dimensions, trained on Kinetics-400.

I3D (Carreira and Zisserman 2017, arXiv 1705.07750) of colours, whose 400 logits, means over time, are what FVD compares
(Unterthiner et al. 2018, arXiv 1812.01717). TensorFlow Hub has it as `deepmind/i3d-kinetics-400/1`. Names of arrays
are those of its port to PyTorch, pytorch-i3d. Convolutions and pools pad as TensorFlow's 'SAME', which puts the odd
pixel behind; BatchNorm's epsilon is 1e-3.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gan_jax.errors import UserError
from gan_jax.features import resize

SIZE = (224, 224)
CLASSES = 400
LEAST = 9  # frames that leave two of the last map, which its average takes
BN_EPSILON = 1e-3
OUTPUTS = {"1024": 1024, "logits": CLASSES}  # name -> dimension

Window = tuple[int, int, int]  # of time, height and width


class Conv(NamedTuple):
    """A convolution, BatchNorm and ReLU."""

    name: str
    features: int
    window: Window = (1, 1, 1)
    stride: Window = (1, 1, 1)


class Pool(NamedTuple):
    """The largest value of each window."""

    window: Window
    stride: Window


class Mixed(NamedTuple):
    """Four branches side by side: 1x1x1; 1x1x1 and 3x3x3, twice; the largest of 3x3x3 and 1x1x1."""

    name: str
    features: tuple[int, int, int, int, int, int]  # of b0, b1a, b1b, b2a, b2b, b3b

    @property
    def branches(self) -> tuple[tuple[Conv | Pool, ...], ...]:
        """The steps of each branch."""
        b0, b1a, b1b, b2a, b2b, b3b = self.features
        one, three = (1, 1, 1), (3, 3, 3)
        return (
            (Conv("b0", b0),),
            (Conv("b1a", b1a), Conv("b1b", b1b, three)),
            (Conv("b2a", b2a), Conv("b2b", b2b, three)),
            (Pool(three, one), Conv("b3b", b3b)),
        )


LAYERS: tuple[Conv | Pool | Mixed, ...] = (
    Conv("Conv3d_1a_7x7", 64, (7, 7, 7), (2, 2, 2)), Pool((1, 3, 3), (1, 2, 2)),
    Conv("Conv3d_2b_1x1", 64), Conv("Conv3d_2c_3x3", 192, (3, 3, 3)), Pool((1, 3, 3), (1, 2, 2)),
    Mixed("Mixed_3b", (64, 96, 128, 16, 32, 32)), Mixed("Mixed_3c", (128, 128, 192, 32, 96, 64)),
    Pool((3, 3, 3), (2, 2, 2)),
    Mixed("Mixed_4b", (192, 96, 208, 16, 48, 64)), Mixed("Mixed_4c", (160, 112, 224, 24, 64, 64)),
    Mixed("Mixed_4d", (128, 128, 256, 24, 64, 64)), Mixed("Mixed_4e", (112, 144, 288, 32, 64, 64)),
    Mixed("Mixed_4f", (256, 160, 320, 32, 128, 128)), Pool((2, 2, 2), (2, 2, 2)),
    Mixed("Mixed_5b", (256, 160, 320, 32, 128, 128)), Mixed("Mixed_5c", (384, 192, 384, 48, 128, 128)),
)  # fmt: skip


class I3D(nn.Module):
    """Clips (B, T, H, W, 3) float32 in [-1, 1] of 9 frames or more, to a dict of float32 (B, D), see `OUTPUTS`.

    FVD's frames are 224x224, so that the last map has the 7x7 pixels that the published network averages; of other
    sizes the whole map is averaged.

    "logits" are means over time of the logits of every two neighbours of the last map; "1024" those of its features.

    Raises:
      UserError: too few frames, or an output that has no such name.
    """

    outputs: tuple[str, ...] = tuple(OUTPUTS)
    precision: Any = "highest"

    @nn.compact
    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        unknown = [name for name in self.outputs if name not in OUTPUTS]
        if unknown or not self.outputs:
            raise UserError(f"I3D outputs {self.outputs}: expected some of {', '.join(map(repr, OUTPUTS))}")
        check_clips(x.shape[1:])
        for layer in LAYERS:
            if isinstance(layer, Mixed):
                x = Block(layer.branches, self.precision, name=layer.name)(x)
            else:
                x = _run((layer,), x, self.precision)
        x = x.mean((2, 3))  # (B, t, 1024)
        x = ((x[:, 1:] + x[:, :-1]) / 2).mean(1)  # logits are linear: their mean over time is the logits of this one
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], CLASSES))
        bias = self.param("bias", nn.initializers.zeros, (CLASSES,))
        values = {"1024": x, "logits": jnp.dot(x, kernel, precision=self.precision) + bias}
        return {name: values[name] for name in self.outputs}


class Block(nn.Module):
    """Branches side by side: (B, T, H, W, C) -> (B, T, H, W, sum of their features)."""

    branches: tuple[tuple[Conv | Pool, ...], ...]
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
        kernel = self.param("kernel", nn.initializers.he_normal(), (*conv.window, x.shape[-1], conv.features))
        bias = self.param("bias", nn.initializers.zeros, (conv.features,))
        return nn.relu(convolve(x, kernel, conv.stride, self.precision) + bias)


def _run(branch: tuple[Conv | Pool, ...], x: jax.Array, precision) -> jax.Array:
    """Steps one after another; called inside a compact module, whose children the convolutions become."""
    for step in branch:
        if isinstance(step, Pool):
            x = max_pool(x, step.window, step.stride)
        else:
            x = _Unit(step, precision, name=step.name)(x)
    return x


def same_padding(sizes: tuple[int, ...], window: Window, stride: Window) -> tuple[tuple[int, int], ...]:
    """(before, behind) of each axis, as TensorFlow's 'SAME': ceil(n / stride) windows, the odd pixel behind."""
    pairs = []
    for n, k, s in zip(sizes, window, stride, strict=True):
        total = max((-(-n // s) - 1) * s + k - n, 0)
        pairs.append((total // 2, total - total // 2))
    return tuple(pairs)


def convolve(x: jax.Array, kernel: jax.Array, stride: Window = (1, 1, 1), precision: Any = "highest") -> jax.Array:
    """Correlation of x (B, T, H, W, I) with (kt, kh, kw, I, O), padded as TensorFlow's 'SAME'."""
    window = kernel.shape[:3]
    if window == stride == (1, 1, 1):
        return jnp.dot(x, kernel.reshape(kernel.shape[3:]), precision=precision)
    padding = same_padding(x.shape[1:4], window, stride)
    return lax.conv_general_dilated(x, kernel, stride, padding, dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
                                    precision=precision)


def max_pool(x: jax.Array, window: Window, stride: Window) -> jax.Array:
    """The largest value of each window of x (B, T, H, W, C), padded as TensorFlow's 'SAME'.

    Axis by axis, of slices: a CPU takes longer for a reduction of windows.
    """
    padding = same_padding(x.shape[1:4], window, stride)
    for axis, (k, s) in enumerate(zip(window, stride, strict=True), 1):
        if (k, s) == (1, 1):
            continue
        last = (-(-x.shape[axis] // s) - 1) * s
        pads = [padding[axis - 1] if axis == i else (0, 0) for i in range(x.ndim)]
        x = jnp.pad(x, pads, constant_values=-jnp.inf)
        x = functools.reduce(jnp.maximum, [lax.slice_in_dim(x, i, i + last + 1, s, axis) for i in range(k)])
    return x


def check_clips(shape: tuple[int, ...], what: str = "I3D") -> None:
    """Raises UserError where clips are not (T, H, W, C) of `LEAST` frames or more."""
    if len(shape) != 4 or shape[0] < LEAST:
        raise UserError(f"{what} takes clips (frames, height, width, channels) of {LEAST} frames or more, not "
                        f"{tuple(shape)}")


# Weights

def _convs():
    """(path, convolution, its input channels) of every convolution, in the order of the network."""
    channels = 3
    for layer in LAYERS:
        if isinstance(layer, Conv):
            yield layer.name, layer, channels
            channels = layer.features
        elif isinstance(layer, Mixed):
            total = 0
            for branch in layer.branches:
                width = channels
                for conv in (step for step in branch if isinstance(step, Conv)):
                    yield f"{layer.name}.{conv.name}", conv, width
                    width = conv.features
                total += width
            channels = total


_NORM = ("weight", "bias", "running_mean", "running_var")


def shapes() -> dict[str, tuple[int, ...]]:
    """Arrays of the PyTorch state dict that count: BatchNorm's `num_batches_tracked` are left out."""
    arrays = {}
    for path, conv, channels in _convs():
        arrays[f"{path}.conv3d.weight"] = (conv.features, channels, *conv.window)
        arrays |= {f"{path}.bn.{name}": (conv.features,) for name in _NORM}
    return arrays | {"logits.conv3d.weight": (CLASSES, 1024, 1, 1, 1), "logits.conv3d.bias": (CLASSES,)}


def from_torch(state: Mapping[str, np.ndarray]) -> dict:
    """Variables of `I3D`; BatchNorm is folded into kernels and biases, in float64, as in `inception.from_torch`.

    Args:
      state: the arrays of `shapes()`, checked by `state.check`.
    """
    logits = np.asarray(state["logits.conv3d.weight"]).reshape(CLASSES, -1)
    params: dict = {"kernel": logits.T, "bias": np.asarray(state["logits.conv3d.bias"])}
    for path, _, _ in _convs():
        scale, shift, mean, var = (np.asarray(state[f"{path}.bn.{name}"], np.float64) for name in _NORM)
        scale = scale / np.sqrt(var + BN_EPSILON)
        kernel = np.asarray(state[f"{path}.conv3d.weight"], np.float64).transpose(2, 3, 4, 1, 0) * scale
        block, _, branch = path.partition(".")
        into = params.setdefault(block, {}) if branch else params
        into[branch or block] = {
            "kernel": kernel.astype(np.float32), "bias": (shift - mean * scale).astype(np.float32),
        }
    return {"params": params}


# Preprocessing: uint8 (B, T, H, W, 3) -> float32 (B, T, 224, 224, 3)

def _tf1(clips: jax.Array) -> jax.Array:
    b, t, h, w, c = clips.shape
    frames = resize.tf1_bilinear(clips.reshape(b * t, h, w, c), SIZE)
    return 2 * frames.reshape(b, t, *SIZE, c) / 255 - 1


PREPROCESSING: dict[str, Callable[[jax.Array], jax.Array]] = {"tf1": _tf1}
DESCRIPTIONS = {"tf1": "frames bilinear 224x224 as TensorFlow 1, 2x/255-1"}
