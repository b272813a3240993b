"""VGG and AlexNet: the maps that perceptual losses and LPIPS compare, and the features of precision and recall.

VGG16 and VGG19 are configurations D and E of Simonyan and Zisserman 2015 (arXiv 1409.1556), AlexNet is the network
in one column of Krizhevsky 2014 (arXiv 1404.5997), all as torchvision has them, whose names are used here: a map is
known by the index of its layer in the sequence `features`. VGG16's second fully connected layer is the feature of
improved precision and recall (Kynkaanniemi et al. 2019, arXiv 1904.06991).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gan_jax.errors import UserError
from gan_jax.features import resize

SIZE = (224, 224)
MAP = (7, 7, 512)  # of VGG16 behind its last layer, for images of that size
WIDTH = 4096       # of its fully connected layers
CLASSES = 1000
MEAN = np.array((0.485, 0.456, 0.406))  # of ImageNet's RGB in [0, 1]
STD = np.array((0.229, 0.224, 0.225))

# name of an output of `VGG16` -> its dimension
OUTPUTS = {"fc2": WIDTH, "fc2_relu": WIDTH}


class Conv(NamedTuple):
    """A convolution with bias; by default it keeps the size."""

    features: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1


class Pool(NamedTuple):
    """Maxima of windows, two pixels apart, that lie within the map."""

    window: int = 2


class Relu(NamedTuple):
    """max(x, 0)"""


Layer = Conv | Pool | Relu


def _vgg(*blocks: tuple[int, int]) -> tuple[Layer, ...]:
    """Blocks of (convolutions, features of each), every one with a pool behind it."""
    return tuple(layer for count, features in blocks for layer in (*(Conv(features), Relu()) * count, Pool()))


LAYERS: dict[str, tuple[Layer, ...]] = {
    "vgg16": _vgg((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)),
    "vgg19": _vgg((2, 64), (2, 128), (4, 256), (4, 512), (4, 512)),
    "alexnet": (
        Conv(64, 11, 4, 2), Relu(), Pool(3),
        Conv(192, 5, 1, 2), Relu(), Pool(3),
        Conv(384), Relu(), Conv(256), Relu(), Conv(256), Relu(), Pool(3),
    ),
}


class Trunk(nn.Module):
    """Prepared images (B, H, W, 3) float32, of any size, to a dict of maps float32 (B, h, w, C) by layer index.

    Attributes:
      network: "vgg16", "vgg19" or "alexnet".
      taps: indices in torchvision's `features`; a map is taken behind the layer. VGG16's relu1_2, relu2_2, relu3_3,
        relu4_3 and relu5_3 are 3, 8, 15, 22 and 29. What lies behind the last one asked for is not computed.
    Raises:
      UserError: there is no such network or layer, or an image is too small to reach a layer.
    """

    network: str
    taps: tuple[int, ...]
    precision: Any = "highest"

    @nn.compact
    def __call__(self, x: jax.Array) -> dict[int, jax.Array]:
        layers = _layers(self.network)
        if not self.taps or not set(self.taps) <= set(range(len(layers))):
            raise UserError(f"{self.network} layers {self.taps}: expected some of 0 to {len(layers) - 1}, the indices "
                            "in torchvision's features")
        maps = {}
        for index in range(max(self.taps) + 1):
            x = _run(index, layers[index], x, self.precision)
            if index in self.taps:
                maps[index] = x
        return {index: maps[index] for index in self.taps}


class VGG16(nn.Module):
    """Prepared images (B, 224, 224, 3) float32 to a dict of float32 (B, 4096), see `OUTPUTS`.

    Both are of the second fully connected layer, "fc2" before and "fc2_relu" behind its ReLU, without dropout.

    Raises:
      UserError: images have another size, or an output has no such name.
    """

    outputs: tuple[str, ...] = tuple(OUTPUTS)
    precision: Any = "highest"

    @nn.compact
    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        unknown = [name for name in self.outputs if name not in OUTPUTS]
        if unknown or not self.outputs:
            raise UserError(f"VGG16 outputs {self.outputs}: expected some of {', '.join(map(repr, OUTPUTS))}")
        if x.shape[1:3] != SIZE:
            raise UserError(f"VGG16 was given images of {x.shape[1]}x{x.shape[2]}; its fully connected layers need "
                            f"{SIZE[0]}x{SIZE[1]}: resize them first, or take a map with Trunk")
        for index, layer in enumerate(LAYERS["vgg16"]):
            x = _run(index, layer, x, self.precision)
        x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)  # channels, rows, columns, as the weights are ordered
        x = nn.relu(nn.Dense(WIDTH, precision=self.precision, name="classifier_0")(x))
        x = nn.Dense(WIDTH, precision=self.precision, name="classifier_3")(x)
        values = {"fc2": x, "fc2_relu": nn.relu(x)}
        return {name: values[name] for name in self.outputs}


def _layers(network: str) -> tuple[Layer, ...]:
    if network not in LAYERS:
        raise UserError(f"network {network!r}: expected one of {', '.join(map(repr, LAYERS))}")
    return LAYERS[network]


def tap(network: str, name: str) -> int:
    """The index in `features` of a layer by its name in the paper: conv5_4, relu5_4 behind it, pool5 behind the block.

    Raises:
      UserError: there is no such network, or it has no layer of that name.
    """
    names, block, place = [], 1, 0
    for layer in _layers(network):
        place += isinstance(layer, Conv)
        kind = type(layer).__name__.lower()
        names.append(f"{kind}{block}" if isinstance(layer, Pool) else f"{kind}{block}_{place}")
        if isinstance(layer, Pool):
            block, place = block + 1, 0
    if name not in names:
        raise UserError(f"{network} has no layer {name!r}; expected one of {', '.join(names)}")
    return names.index(name)


def _run(index: int, layer: Layer, x: jax.Array, precision) -> jax.Array:
    """The map behind a layer; called inside a compact module, whose child a convolution becomes."""
    if isinstance(layer, Relu):
        return nn.relu(x)
    window, padding = (layer.kernel, layer.padding) if isinstance(layer, Conv) else (layer.window, 0)
    if min(x.shape[1:3]) + 2 * padding < window:
        raise UserError(f"layer {index} was reached by a map of {x.shape[1]}x{x.shape[2]} and takes windows of "
                        f"{window}x{window}: give larger images, or take an earlier layer")
    if isinstance(layer, Pool):
        return nn.max_pool(x, (window, window), (2, 2))
    return nn.Conv(layer.features, (window, window), layer.stride, padding, precision=precision,
                   conv_general_dilated=_convolve, name=f"features_{index}")(x)


def _convolve(x: jax.Array, kernel: jax.Array, strides, padding, *, precision, **options) -> jax.Array:
    """A convolution; of a map smaller than the window, as behind the pools of small images, a matrix product.

    XLA exchanges map and window there, and its loops for that on a CPU take a hundred times as long.
    """
    height, width, _, features = kernel.shape
    if x.shape[1] * x.shape[2] >= height * width or set(strides) != {1}:
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, precision=precision, **options)
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    rows, columns = x.shape[1] - height + 1, x.shape[2] - width + 1
    seen = [x[:, i:i + rows, j:j + columns] for i in range(height) for j in range(width)]
    return jnp.dot(jnp.concatenate(seen, -1), kernel.reshape(-1, features), precision=precision)


# Weights

def shapes(network: str, *, classifier: bool = False) -> dict[str, tuple[int, ...]]:
    """Arrays of torchvision's state dict: those of the trunk, or with `classifier` all that VGG16's file holds.

    The last of them, classifier.6, is of the file, and so of a random draw, but no output needs it.

    Raises:
      UserError: there is no such network, or a classifier is asked for of another than VGG16.
    """
    arrays: dict[str, tuple[int, ...]] = {}
    channels = 3
    for index, layer in enumerate(_layers(network)):
        if isinstance(layer, Conv):
            arrays[f"features.{index}.weight"] = (layer.features, channels, layer.kernel, layer.kernel)
            arrays[f"features.{index}.bias"] = (layer.features,)
            channels = layer.features
    if classifier:
        if network != "vgg16":
            raise UserError(f"{network} with its classifier: expected vgg16, or the trunk alone")
        width = int(np.prod(MAP))
        for index, features in ((0, WIDTH), (3, WIDTH), (6, CLASSES)):
            arrays[f"classifier.{index}.weight"] = (features, width)
            arrays[f"classifier.{index}.bias"] = (features,)
            width = features
    return arrays


def from_torch(state: Mapping[str, np.ndarray]) -> dict:
    """Variables of `Trunk`, and of `VGG16` where the state has the fully connected layers.

    Args:
      state: the arrays of `shapes(...)`, checked by `state.check`; others are passed over.
    """
    params = {}
    for name in state:
        layer, _, array = name.rpartition(".")
        if array == "weight" and (layer.startswith("features.") or layer in ("classifier.0", "classifier.3")):
            weight = np.asarray(state[name], np.float32)
            params[layer.replace(".", "_")] = {
                "kernel": weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T,
                "bias": np.asarray(state[f"{layer}.bias"], np.float32),
            }
    return {"params": params}


# Preprocessing: uint8 (B, H, W, 3) -> float32 (B, 224, 224, 3), or (B, H, W, 3) where it does not resize

def _tf1(images: jax.Array) -> jax.Array:
    return (resize.tf1_bilinear(images, SIZE) - np.float32(255 * MEAN)) / np.float32(255 * STD)


def _unresized(images: jax.Array) -> jax.Array:
    return (jnp.asarray(images, jnp.float32) / 255 - np.float32(MEAN)) / np.float32(STD)


PREPROCESSING: dict[str, Callable[[jax.Array], jax.Array]] = {"tf1": _tf1, "unresized": _unresized}
DESCRIPTIONS = {
    "tf1": "bilinear 224x224 as TensorFlow 1, (x-255 mean)/(255 std) of ImageNet",
    "unresized": "no resize, (x/255-mean)/std of ImageNet",
}
