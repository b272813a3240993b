"""The networks of CUT (Park et al. 2020, arXiv 2007.15651): those of CycleGAN with blurs for strides, and heads.

Sides are halved and doubled by fixed filters (Zhang 2019, arXiv 1904.11486), as in the authors' program, and kernels
begin smaller. The heads turn the generator's own maps into what PatchNCE compares.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax.layers.linear import Dense
from gan_jax.models import cyclegan, patchgan
from gan_jax.models.blocks import check_least

EPSILON = 1e-7  # beside the length that a vector is divided by


class Generator(cyclegan.Generator, kw_only=True):
    """CycleGAN's, with the changes of size of CUT."""

    antialias_down: bool = True  # halvings are blurs behind the layers, see `patchgan.blurred`; else strides
    antialias_up: bool = True  # doublings are bilinear, in front of the layers; else transposed convolutions
    kernels: str = "xavier"  # at first: N(0, .02^2 * 2 / (fan in + fan out)), or 'normal': N(0, .02^2)


class Discriminator(patchgan.Discriminator, kw_only=True):
    """`patchgan`'s, with the changes of size of CUT."""

    antialias: bool = True  # a layer keeps the size, and `patchgan.blurred` halves it behind the activation
    kernels: str = "xavier"  # at first: N(0, .02^2 * 2 / (fan in + fan out)), or 'normal': N(0, .02^2)


class Heads(nn.Module, kw_only=True):
    """{layer: features (..., C)} -> {layer: (..., width) of length 1}, by two dense layers of the layer's own."""

    width: int = 256

    def __post_init__(self):
        check_least(self, {"width": 1})
        super().__post_init__()

    @nn.compact
    def __call__(self, features: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        result, init = {}, patchgan.KERNELS["xavier"]
        for layer, x in features.items():
            x = nn.relu(Dense(self.width, kernel_init=init, name=f"{layer}_dense0")(x))
            result[layer] = unit(Dense(self.width, kernel_init=init, name=f"{layer}_dense1")(x))
        return result


def unit(x: jax.Array) -> jax.Array:
    """x (..., C) divided by its length, with a gradient of zero where that is 0."""
    length = jnp.sqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), 1e-30))
    return x / (length + EPSILON)
