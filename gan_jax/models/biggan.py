"""BigGAN (Brock et al. 2018, arXiv 1809.11096, appendix B), for 32, 64 and 128 px; other sizes take `widths`.

The generator's blocks normalise batches, and scale and move them by linear maps of an embedding of the class, which all
blocks share, and of a part of z, which each has for itself. Weights of both players are divided by their largest
singular values. The defaults are the paper's; the authors' networks for CIFAR-10 have no shared embedding, and all of z
at the stem: `shared_size=0`, `skip_z=False`, `initializer='normal'`.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax.errors import UserError
from gan_jax.layers.conv import Pair, as_pair
from gan_jax.layers.linear import Conv, Dense
from gan_jax.layers.self_attention import SelfAttention
from gan_jax.models.blocks import check_choice, check_least
from gan_jax.models.mapping import one_hot
from gan_jax.models.residual import DownBlock, UpBlock, normalised, pooled_logits

# Side of the images -> features of each block, in multiples of `width`: the paper's table 4 for 128 px, the authors'
# PyTorch release for the others; and how many of the discriminator's blocks halve.
GENERATOR = {32: (4, 4, 4), 64: (16, 8, 4, 2), 128: (16, 8, 4, 2, 1)}
DISCRIMINATOR = {32: (4, 4, 4, 4), 64: (1, 2, 4, 8, 16), 128: (1, 2, 4, 8, 16, 16)}
HALVINGS = {32: 2, 64: 4, 128: 5}
INITIALIZERS = {
    "orthogonal": nn.initializers.orthogonal(),
    "normal": nn.initializers.normal(0.02),
    "glorot": nn.initializers.glorot_uniform(),
}


class Generator(nn.Module, kw_only=True):
    """z (B, latent_size), label (B,) -> images (B, H, W, channels), float32 in [-1, 1].

    Raises:
      UserError: a size without `widths`, or which the blocks' doublings do not divide; a z that does not divide into
        parts; attention on maps that no block makes.
    """

    resolution: int | Pair = 128  # of the images: side, or (height, width)
    channels: int = 3  # of the images
    num_classes: int = 0  # 0: unconditional, labels are ignored
    latent_size: int = 120  # entries of z
    latent: str = "normal"  # distribution of z, read by the game: 'normal' N(0, 1) | 'uniform' U(-1, 1)
    shared_size: int = 128  # of the class embedding that all norms share; 0: each has a scale and offset of each class
    skip_z: bool = True  # z is cut in equal parts, for the stem and for the norms of each block; else all at the stem
    width: int = 96  # features, times those of the table by resolution
    widths: tuple[int, ...] = ()  # features of each block, which doubles the size; (): by resolution and width
    attention: int = 0  # height of the maps behind which self-attention stands; 0: nowhere
    spectral_norm: bool = True  # of every weight but vectors of classes
    initializer: str = "orthogonal"  # 'orthogonal' | 'normal': N(0, .02) | 'glorot'
    norm_momentum: float = 0.9  # weight of the old running value
    norm_epsilon: float = 1e-5
    axis_name: str | None = None  # mesh axis of BatchNorm and of the spectral vectors
    dtype: jnp.dtype = jnp.float32  # of the computation

    def __post_init__(self):
        check_choice("latent", self.latent, ("normal", "uniform"))
        check_least(self, {"shared_size": 0, "latent_size": 1})
        _check(self, self._levels(), len(self._features()))
        if self.latent_size % self._parts():
            raise UserError(f"latent_size={self.latent_size}: expected a multiple of {self._parts()}, for a part of z "
                            "for the stem and one for each block; or skip_z=False")  # fmt: skip
        super().__post_init__()

    def _features(self) -> tuple[int, ...]:
        return tuple(self.widths) or _of_resolution(self, GENERATOR)

    def _levels(self) -> tuple[int, ...]:
        """How many doublings are left behind each block."""
        return tuple(reversed(range(len(self._features()))))

    def _parts(self) -> int:
        return 1 + len(self._features()) if self.skip_z else 1

    @nn.compact
    def __call__(
        self, z: jax.Array, label: jax.Array | None = None, *, train: bool, keys: jax.Array | None = None
    ) -> jax.Array:
        assert z.shape[1:] == (self.latent_size,), (z.shape, self.latent_size)
        features, weights = self._features(), _weights(self)
        init = INITIALIZERS[self.initializer]
        options = {"weights": weights, "kernel_init": init, "skip_init": init}
        norm = {"momentum": self.norm_momentum, "epsilon": self.norm_epsilon, "axis_name": self.axis_name}
        maps = {"scale_init": init, "offset_init": init, "spectral_norm": self.spectral_norm and self.shared_size > 0}

        first, *parts = jnp.split(z, self._parts(), -1)
        of_class = self._of_class(label)
        base = tuple(n >> len(features) for n in as_pair(self.resolution))
        x = Dense(math.prod(base) * features[0], kernel_init=init, name="stem", **weights)(first, train)
        x = x.reshape(-1, *base, features[0])
        for i, n in enumerate(features):
            vectors = [*of_class, *parts[i : i + 1]]
            condition = jnp.concatenate(vectors, -1) if vectors else None
            block = UpBlock(features=n, norm=norm | (maps if vectors else {}), **options, name=f"block{i}")
            x = block(x, train, condition)
            if i == _attended(self, self._levels()):
                x = SelfAttention(weights={"kernel_init": init, **weights}, name="attention")(x, train)
        x = nn.relu(normalised(x, None, train, **norm, name="norm"))
        image = Conv(self.channels, 3, kernel_init=init, name="image", **weights)
        return jnp.tanh(image(x, train).astype(jnp.float32))

    def _of_class(self, label: jax.Array | None) -> list[jax.Array]:
        """The class's part of the conditions: none, its embedding, or a one-hot vector (B, D)."""
        if not self.num_classes:
            return []
        assert label is not None, "a conditional generator needs labels"
        classes, init = one_hot(label, self.num_classes), INITIALIZERS[self.initializer]
        if not self.shared_size:
            return [classes]
        return [Dense(self.shared_size, use_bias=False, kernel_init=init, name="embed")(classes)]


class Discriminator(nn.Module, kw_only=True):
    """Images (B, H, W, channels), label (B,) -> logits (B,), float32, see `residual.pooled_logits`.

    Raises:
      UserError: a size without `widths`, or which the halvings do not divide; attention on maps that no block makes.
    """

    resolution: int | Pair = 128  # of the images: side, or (height, width)
    channels: int = 3  # of the images
    num_classes: int = 0  # 0: unconditional, labels are ignored
    width: int = 96  # features, times those of the table by resolution
    widths: tuple[int, ...] = ()  # features of each block; (): by resolution and width
    halvings: int = 0  # with `widths`: the first blocks, which halve the size
    attention: int = 0  # height of the maps behind which self-attention stands, the first of such; 0: nowhere
    spectral_norm: bool = True  # of every weight
    initializer: str = "orthogonal"  # 'orthogonal' | 'normal': N(0, .02) | 'glorot'
    axis_name: str | None = None  # mesh axis of the spectral vectors
    dtype: jnp.dtype = jnp.float32  # of the computation

    couples_samples = False  # a logit depends on its own image alone

    def __post_init__(self):
        if self.widths and not 0 <= self.halvings <= len(self.widths):
            raise UserError(f"halvings={self.halvings}: expected 0 to {len(self.widths)}, the number of widths")
        _check(self, self._levels(), max(self._levels()))
        super().__post_init__()

    def layers(self) -> tuple[str, ...]:
        """Paths of its layers, the first ones first."""
        return tuple(f"block{i}" for i in range(len(self._features())))

    def _features(self) -> tuple[int, ...]:
        return tuple(self.widths) or _of_resolution(self, DISCRIMINATOR)

    def _levels(self) -> tuple[int, ...]:
        """How many halvings lie before and in each block."""
        blocks = len(self._features())
        halvings = self.halvings if self.widths else HALVINGS[as_pair(self.resolution)[0]]
        return tuple(min(i + 1, halvings) for i in range(blocks))

    @nn.compact
    def __call__(
        self, x: jax.Array, label: jax.Array | None = None, *, train: bool, keys: jax.Array | None = None
    ) -> jax.Array:
        assert x.shape[1:] == (*as_pair(self.resolution), self.channels), (x.shape, self.resolution)
        init, weights = INITIALIZERS[self.initializer], _weights(self)
        levels = self._levels()
        for i, n in enumerate(self._features()):
            block = {"features": n, "down": levels[i] == i + 1, "first": i == 0, "weights": weights}
            x = DownBlock(**block, kernel_init=init, skip_init=init, name=f"block{i}")(x, train)
            if i == _attended(self, levels):
                x = SelfAttention(weights={"kernel_init": init, **weights}, name="attention")(x, train)
        return pooled_logits(x, label, train, num_classes=self.num_classes, weights={"kernel_init": init, **weights})


def _weights(model: nn.Module) -> dict[str, Any]:
    """Arguments of every layer of a net but its initialiser."""
    return {"spectral_norm": model.spectral_norm, "axis_name": model.axis_name, "dtype": model.dtype}


def _of_resolution(model: nn.Module, table: dict[int, tuple[int, ...]]) -> tuple[int, ...]:
    height, width = as_pair(model.resolution)
    if height != width or height not in table:
        sides = ", ".join(map(str, table))
        raise UserError(f"resolution {model.resolution}: the model 'biggan' has blocks for sides of {sides}; for "
                        "others set widths, the features of each block")  # fmt: skip
    return tuple(model.width * multiple for multiple in table[height])


def _attended(model: nn.Module, levels: tuple[int, ...]) -> int | None:
    """The first block whose maps have the height `attention`; None where there is none."""
    heights = [as_pair(model.resolution)[0] >> level for level in levels]
    return heights.index(model.attention) if model.attention in heights else None


def _check(model: nn.Module, levels: tuple[int, ...], doublings: int) -> None:
    """Raises UserError for fields that both players have; `levels` are the halvings of the maps behind each block."""
    check_choice("initializer", model.initializer, tuple(INITIALIZERS))
    check_least(model, {"channels": 1, "width": 1, "attention": 0})
    if any(n < 1 for n in model.widths):
        raise UserError(f"widths={model.widths}: expected numbers of 1 or more")
    height, width = as_pair(model.resolution)
    if height % 2**doublings or width % 2**doublings:
        factor = 2**doublings
        raise UserError(f"resolution {model.resolution}: expected multiples of {factor}, for {doublings} halvings")
    heights = sorted({height >> level for level in levels if (height >> level) % 2 == (width >> level) % 2 == 0})
    if model.attention and model.attention not in heights:
        listed = ", ".join(map(str, heights)) or "no other"
        raise UserError(f"attention={model.attention}: expected 0 or one of this network's even heights, {listed}")
