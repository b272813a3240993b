"""Terms of losses that compare pictures by the maps of a network that never trains (Johnson et al. 2016, 1603.08155).

Its layers go by the names of their paper: conv5_4 is in front of its ReLU, relu5_4 behind it.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax.errors import MissingPathError, UserError
from gan_jax.features import networks, vgg

NETWORKS = ("vgg19", "vgg16")
# The section `perceptual` of a game's config.
DEFAULTS = {
    "features": "vgg19",  # or vgg16; random_vgg19 and random_vgg16 need no file, and say less
    "layers": ("conv5_4",),  # whose maps are compared
    "factors": (1.0,),  # of each layer
    "textures": (),  # whose Gram matrices are compared; empty: those of `layers`, with their factors
    "texture_factors": (),
    "patch": 0,  # side of the squares of a map that have a Gram matrix each, a sum and no mean; 0: the whole map
    "normalise": False,  # each picture's map is divided by its mean, as in EnhanceNet
    "criterion": "l1",  # or l2
    "weights": "",  # file or folder of weights; empty: $GAN_JAX_WEIGHTS_DIR, or the cache
    "download": False,  # fetch weights that are not there
}
CRITERIA: dict[str, Callable[[jax.Array], jax.Array]] = {"l1": jnp.abs, "l2": jnp.square}


def criterion(name: str, key: str) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """The mean distance of two arrays, a scalar. Raises UserError for an unknown name, which `key` has."""
    if name not in CRITERIA:
        raise UserError(f"{key}={name!r}: expected one of {', '.join(CRITERIA)}")
    return lambda a, b: CRITERIA[name](a - b).mean()


def check(section: Any) -> None:
    """Raises UserError for a section that names what there is not."""
    _taps(section, "layers", "factors")
    _textures(section)
    criterion(section.criterion, "config.perceptual.criterion")
    if section.patch < 0:
        raise UserError(f"config.perceptual.patch={section.patch}: expected 0 or more")


def variables(section: Any) -> Any:
    """The network's arrays, up to the last layer that is compared. Raises as `features.networks.trunk`."""
    try:
        last = max({**_taps(section, "layers", "factors"), **_textures(section)})
        return networks.trunk(_network(section), last, section)
    except MissingPathError as error:  # whose own words name the keys of metrics
        text = re.sub(r"--download \([^)]*\)", "config.perceptual.download=True", str(error))
        advice = f"config.perceptual.features='{networks.RANDOM}{section.features}' needs none"
        raise MissingPathError(f"config.perceptual.features={section.features!r}: {text}; {advice}") from error


def terms(section: Any) -> Callable[[Any, jax.Array, jax.Array], dict[str, jax.Array]]:
    """function(variables, made, target) of pictures (B, H, W, 1 or 3) in [0, 1] -> {"perceptual", "texture"}.

    Both are sums over layers of a factor times the mean distance: of the maps, and of their Gram matrices (Gatys et al.
    2015, 1505.07376), see `gram` and `patch_gram`. The target is a constant to the gradient.
    """
    taps, textures = _taps(section, "layers", "factors"), _textures(section)
    trunk = vgg.Trunk(_network(section), tuple(dict.fromkeys((*taps, *textures))), precision=None)
    products = partial(patch_gram, side=section.patch) if section.patch else gram
    compare = criterion(section.criterion, "config.perceptual.criterion")

    def measure(variables, made, target):
        ours = trunk.apply(variables, _prepared(made))
        theirs = trunk.apply(variables, _prepared(jax.lax.stop_gradient(target)))
        if section.normalise:
            ours, theirs = ({tap: x / (x.mean((1, 2, 3), keepdims=True) + 1e-8) for tap, x in one.items()}
                            for one in (ours, theirs))  # fmt: skip
        return {
            "perceptual": sum(factor * compare(ours[tap], theirs[tap]) for tap, factor in taps.items()),
            "texture": sum(
                factor * compare(products(ours[tap]), products(theirs[tap])) for tap, factor in textures.items()
            ),
        }

    return measure


def gram(maps: jax.Array) -> jax.Array:
    """maps (B, h, w, C) -> products of channels (B, C, C), summed over pixels, divided by h w C."""
    return jnp.einsum("bhwc,bhwd->bcd", maps, maps) / np.prod(maps.shape[1:])


def patch_gram(maps: jax.Array, side: int) -> jax.Array:
    """maps (B, h, w, C) -> products of channels (B, h / side, w / side, C, C), sums over each square of `side` pixels.

    As EnhanceNet (1612.07919) compares textures. Pixels that make up no whole square are left out.

    Raises:
      UserError: maps that are smaller than a square.
    """
    b, h, w, c = maps.shape
    if min(h, w) < side:
        raise UserError(f"config.perceptual.patch={side}: a map has {h}x{w} pixels; give larger pictures, an earlier "
                        "layer, or smaller squares")
    rows, columns = h // side, w // side
    squares = maps[:, : rows * side, : columns * side].reshape(b, rows, side, columns, side, c)
    return jnp.einsum("biujvc,biujvd->bijcd", squares, squares)


def _prepared(images: jax.Array) -> jax.Array:
    return (networks.rgb(images) - jnp.asarray(vgg.MEAN, images.dtype)) / jnp.asarray(vgg.STD, images.dtype)


def _network(section: Any) -> str:
    name = section.features.removeprefix(networks.RANDOM)
    if name not in NETWORKS:
        names = (*NETWORKS, *(networks.RANDOM + name for name in NETWORKS))
        raise UserError(f"config.perceptual.features={section.features!r}: expected one of {', '.join(names)}")
    return name


def _textures(section: Any) -> Mapping[int, float]:
    """Index of each layer whose texture is compared -> its factor."""
    names = ("textures", "texture_factors") if section.textures or section.texture_factors else ("layers", "factors")
    return _taps(section, *names)


def _taps(section: Any, of_layers: str, of_factors: str) -> Mapping[int, float]:
    """Index of each layer that a key of the section names -> its factor."""
    layers, factors = section[of_layers], section[of_factors]
    if isinstance(layers, str) or not layers or len(layers) != len(factors) or len(set(layers)) < len(layers):
        raise UserError(
            f"config.perceptual.{of_layers}={layers!r} with config.perceptual.{of_factors}={factors!r}: expected "
            "different names, and one factor for each"
        )
    return {vgg.tap(_network(section), name): factor for name, factor in zip(layers, factors, strict=True)}
