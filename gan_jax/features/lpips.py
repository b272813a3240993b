"""LPIPS 0.1: how differently two images look, as the distance of their maps in AlexNet or VGG16.

Zhang et al. 2018 (arXiv 1801.03924), equation 1, in the version that scales its input. The maps behind five ReLUs
are normalised to length 1 at every pixel; the squares of their differences are weighted by channel, averaged over
the pixels and summed over the layers. The weights ("heads") are published apart from the trunk.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax.errors import UserError
from gan_jax.features import resize, vgg

EPSILON = 1e-10  # added to the length of a pixel's activations
SHIFT = np.array((-0.030, -0.088, -0.188), np.float32)  # of RGB in [-1, 1]
SCALE = np.array((0.458, 0.448, 0.450), np.float32)


class Net(NamedTuple):
    """What is compared of a trunk."""

    trunk: str                  # as in `vgg.LAYERS`
    taps: tuple[int, ...]       # the ReLUs compared
    channels: tuple[int, ...]   # of their maps


NETS = {
    "alex": Net("alexnet", (1, 4, 7, 9, 11), (64, 192, 384, 256, 256)),
    "vgg": Net("vgg16", (3, 8, 15, 22, 29), (64, 128, 256, 512, 512)),
}
LEAST = {"alex": 31, "vgg": 16}  # pixels of a side; of smaller images nothing is left for the last layers


def distance(
    variables: Mapping, a: jax.Array, b: jax.Array, *, net: str = "alex", lpips: bool = True, spatial: bool = False,
    per_layer: bool = False, precision: Any = "highest",
) -> jax.Array:
    """LPIPS of pairs of images; pure, jittable, differentiable, independent per pair.

    Args:
      variables: see `from_torch`.
      a, b: (B, H, W, 3), uint8, or float in [0, 255] where a gradient is wanted.
      net: "alex" or "vgg".
      lpips: whether channels are weighted by the heads; else all count 1 (the package's `lpips=False`).
      spatial: a value for each pixel instead of their mean: every layer's map, enlarged bilinearly to H x W.
      per_layer: the five summands instead of their sum.
    Returns:
      (B,), or (B, H, W) if `spatial`; with `per_layer` an axis of 5 behind. float32, 0 for equal images.
    Raises:
      UserError: there is no such net, the heads are missing, or the images have unequal or other shapes.
    """
    if np.shape(a) != np.shape(b):
        raise UserError(f"LPIPS of images {np.shape(a)} and {np.shape(b)}: expected pairs of one shape (B, H, W, 3)")
    heads = _heads(variables, net) if lpips else None
    both = jnp.concatenate([jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32)])
    values = []
    for k, maps in enumerate(_activations(variables, both, net, precision)):
        first, second = jnp.split(maps, 2)
        squared = jnp.square(first - second)
        value = jnp.dot(squared, heads[k], precision=precision) if lpips else jnp.sum(squared, -1)  # (B, h, w)
        if spatial:
            values.append(resize.bilinear(value[..., None], both.shape[1:3])[..., 0])
        else:
            values.append(jnp.mean(value, (1, 2)))
    values = jnp.stack(values, -1)
    return values if per_layer else jnp.sum(values, -1)


def embedding(variables: Mapping, images: jax.Array, *, net: str = "vgg", precision: Any = "highest") -> jax.Array:
    """Points whose squared Euclidean distance is LPIPS: normalised maps times sqrt(head / pixels), side by side.

    Perceptual path length takes them. Pure, jittable, differentiable where heads are above 0, independent per image.

    Args:
      images: (B, H, W, 3), float in [0, 255], or uint8.
    Returns:
      (B, F) float32; F = the sum of h w C over the five maps, 8.0 million for VGG16 at 256 x 256.
    Raises:
      UserError: there is no such net, the heads are missing, the images have another shape, or a head is negative
        and so has no root; where the variables are traced this cannot be seen, and the result is NaN.
    """
    heads = _heads(variables, net)
    for k, head in enumerate(heads):
        if not isinstance(head, jax.core.Tracer) and np.min(head) < 0:
            raise UserError(f"LPIPS head lin{k} has the negative weight {np.min(head):.3g}, expected 0 or more as in "
                            "the published files: take `distance`, or other weights")
    maps = _activations(variables, jnp.asarray(images, jnp.float32), net, precision)
    points = [m * jnp.sqrt(head / (m.shape[1] * m.shape[2])) for m, head in zip(maps, heads, strict=True)]
    return jnp.concatenate([p.reshape(len(p), -1) for p in points], axis=1)


def _activations(variables: Mapping, images: jax.Array, net: str, precision) -> list[jax.Array]:
    """Maps of the five layers, (B, h, w, C), of length 1 at every pixel, or 0 where no channel is active."""
    if images.ndim != 4 or images.shape[-1] != 3:
        raise UserError(f"LPIPS of images {images.shape}: expected (B, H, W, 3); repeat the channel of grey ones")
    trunk, taps, _ = _net(net)
    x = ((images / 127.5 - 1) - SHIFT) / SCALE
    maps = vgg.Trunk(trunk, taps, precision).apply({"params": variables["params"]}, x)
    return [maps[index] / (_length(maps[index]) + EPSILON) for index in taps]


def _length(x: jax.Array) -> jax.Array:
    """Length along the last axis, (..., 1), whose gradient is 0 instead of NaN where it is 0."""
    square = jnp.sum(jnp.square(x), -1, keepdims=True)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)


def _net(net: str) -> Net:
    if net not in NETS:
        raise UserError(f"LPIPS net {net!r}: expected one of {', '.join(map(repr, NETS))}")
    return NETS[net]


def _heads(variables: Mapping, net: str) -> list:
    heads, channels = variables.get("heads", {}), _net(net).channels
    shapes = [np.shape(heads.get(f"lin{k}")) for k in range(len(channels))]
    if shapes != [(c,) for c in channels]:
        raise UserError(f"LPIPS heads of the shapes {shapes}, expected {channels} channels for net {net!r}: merge the "
                        "arrays of its heads' file with those of the trunk, or give lpips=False")
    return [heads[f"lin{k}"] for k in range(len(channels))]


# Weights

def shapes(net: str = "alex", *, lpips: bool = True) -> dict[str, tuple[int, ...]]:
    """Arrays of the trunk as torchvision names them, and with `lpips` those of the published heads."""
    trunk, _, channels = _net(net)
    heads = {f"lin{k}.model.1.weight": (1, c, 1, 1) for k, c in enumerate(channels)}
    return vgg.shapes(trunk) | (heads if lpips else {})


def from_torch(state: Mapping[str, np.ndarray]) -> dict:
    """Variables of `distance` and `embedding`: {"params": of the trunk, "heads": {"lin0": (C,), ...} if given}.

    Args:
      state: the arrays of `shapes(...)`, checked by `state.check`: of the trunk's file and the heads' together.
    """
    trunk = vgg.from_torch({name: array for name, array in state.items() if name.startswith("features.")})
    heads = {name.partition(".")[0]: np.asarray(array, np.float32).reshape(-1)
             for name, array in state.items() if name.startswith("lin") and name.endswith(".model.1.weight")}
    return trunk | ({"heads": heads} if heads else {})
