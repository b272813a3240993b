"""DVD-GAN (Clark et al. 2019, arXiv 1907.06571), compact: no self-attention, and features by `widths`.

A generator of clips is a chain of scales. In each a convolutional recurrence over the frames is followed by residual
blocks on each frame, whose norms see latent and class, and the last of which doubles the sides. For prediction
(DVD-GAN-FP) a net such as the discriminator's makes of the context the recurrences' first states. A discriminator is
BigGAN's on each frame, whose logits are summed; the temporal one convolves clips in its first two blocks.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax.errors import UserError
from gan_jax.layers.linear import Conv, Conv3D, Dense
from gan_jax.layers.recurrent import ConvGRU
from gan_jax.models.blocks import check_clips, check_least
from gan_jax.models.mapping import one_hot
from gan_jax.models.residual import DownBlock, UpBlock, normalised, pooled_logits

ORTHOGONAL = nn.initializers.orthogonal()
KERNELS = {"kernel_init": ORTHOGONAL, "skip_init": ORTHOGONAL}
ALL_AROUND = ((1, 1),) * 3


class Generator(nn.Module, kw_only=True):
    """z (B, latent_size), label (B,), context (B, K, H, W, C) -> clips (B, T, H, W, C), float32 in [-1, 1].

    With a context in [-1, 1] they go on from it, else they begin from nothing. The paper's networks have a recurrence
    in each scale. With `shared` ones the first recurrence begins from what those make, once a clip: what moves is drawn
    first, and then moved.

    Raises:
      UserError: data that are no clips, or frames that the doublings do not divide.
    """

    shape: tuple[int, ...] = (12, 128, 128, 3)  # of a clip: frames, height, width, channels
    num_classes: int = 0  # 0: unconditional, labels are ignored
    latent_size: int = 120  # entries of z, N(0, 1)
    embed_size: int = 120  # of the class embedding that the stem and all norms share
    widths: tuple[int, ...] = (512, 256, 128, 64, 32)  # features of each scale
    still: int = 0  # the last scales, which keep the size; the others double it
    shared: int = 0  # first scales without a recurrence: what they make is the same for all frames, see below
    blocks: int = 2  # residual blocks of a scale
    spectral_norm: bool = True  # of every weight but the classes' vectors
    axis_name: str | None = None  # mesh axis of BatchNorm and of the spectral vectors
    dtype: jnp.dtype = jnp.float32  # of the computation

    clips = True  # it makes clips
    predicts = True  # it takes a context

    def __post_init__(self):
        check_clips("dvdgan", self.shape)
        check_least(self, {"latent_size": 1, "embed_size": 1, "blocks": 1})
        if not self.widths or min(self.widths) < 1 or not 0 <= self.still <= len(self.widths):
            raise UserError(f"widths={self.widths}, still={self.still}: expected one number of 1 or more for each "
                            "scale, and so many of them or less that keep the size")  # fmt: skip
        if not 0 <= self.shared < len(self.widths):
            raise UserError(f"shared={self.shared}: expected 0 to {len(self.widths) - 1}, so that a scale is left for "
                            "a recurrence")  # fmt: skip
        _check_sides(self.shape, len(self.widths) - self.still)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, z: jax.Array, label: jax.Array | None = None, *, train: bool, context: jax.Array | None = None
    ) -> jax.Array:
        assert z.shape[1:] == (self.latent_size,), (z.shape, self.latent_size)
        weights, frames = _weights(self), self.shape[0]
        parts = [z]
        if self.num_classes:
            assert label is not None, "a conditional generator needs labels"
            embed = Dense(self.embed_size, use_bias=False, kernel_init=ORTHOGONAL, name="embed")
            parts.append(embed(one_hot(label, self.num_classes)))
        condition = jnp.concatenate(parts, -1)

        doublings = len(self.widths) - self.still
        base = tuple(side >> doublings for side in self.shape[1:3])
        x = Dense(math.prod(base) * self.widths[0], kernel_init=ORTHOGONAL, name="stem", **weights)(condition, train)
        x = x.reshape(-1, *base, self.widths[0])
        states = self._states(context, train) if context is not None else {}
        for i, features in enumerate(self.widths):
            if i >= self.shared:
                begin = states[i] if states else self._begin(x, i, train)
                recurrence = ConvGRU(frames, self.spectral_norm, ORTHOGONAL, self.axis_name, name=f"recurrence{i}")
                x = recurrence(begin, x, train)
                x = x.reshape(-1, *x.shape[2:])
            of_maps = jnp.repeat(condition, len(x) // len(z), axis=0)
            for j in range(self.blocks):
                up = j == self.blocks - 1 and i < doublings
                norm = {"axis_name": self.axis_name, "spectral_norm": self.spectral_norm, "scale_init": ORTHOGONAL,
                        "offset_init": ORTHOGONAL}  # fmt: skip
                block = {"features": features, "norm": norm, "weights": weights, "up": up, **KERNELS}
                x = UpBlock(**block, name=f"block{i}_{j}")(x, train, of_maps)
            if i >= self.shared:
                x = x.reshape(-1, frames, *x.shape[1:])
        x = nn.relu(normalised(x, None, train, axis_name=self.axis_name, name="norm"))
        image = Conv(self.shape[3], 3, kernel_init=ORTHOGONAL, name="image", **weights)
        x = image(x.reshape(-1, *x.shape[2:]), train).astype(jnp.float32)
        return jnp.tanh(x).reshape(-1, *self.shape)

    def _begin(self, x: jax.Array, scale: int, train: bool) -> jax.Array:
        """First state of a recurrence without a context: zeros, or of shared scales what those make, convolved."""
        features = self.widths[scale]
        if not self.shared or scale > self.shared:
            return jnp.zeros((x.shape[0], *x.shape[-3:-1], features), x.dtype)
        return nn.relu(Conv(features, 3, kernel_init=ORTHOGONAL, name="begin", **_weights(self))(nn.relu(x), train))

    def _states(self, context: jax.Array, train: bool) -> dict[int, jax.Array]:
        """scale -> first state (B, h, w, features) of its recurrence, of the context's frames; of those that have one.

        Each frame passes the blocks by itself; at each scale what comes of them is put side by side, and convolved.
        """
        weights, count = _weights(self), context.shape[1]
        x, states = context.reshape(-1, *context.shape[2:]).astype(self.dtype), {}
        for i, features in reversed(list(enumerate(self.widths))[self.shared :]):
            block = {"features": features, "down": i < len(self.widths) - self.still, "weights": weights, **KERNELS}
            x = DownBlock(**block, first=i == len(self.widths) - 1, name=f"context{i}")(x, train)
            beside = jnp.moveaxis(x.reshape(-1, count, *x.shape[1:]), 1, 3).reshape(-1, *x.shape[1:3], count * features)
            reduce = Conv(features, 3, kernel_init=ORTHOGONAL, name=f"state{i}", **weights)
            states[i] = nn.relu(reduce(nn.relu(beside), train))
        return states


class VolumeBlock(nn.Module, kw_only=True):
    """x (B, T, h, w, I) -> (B, T', h', w', features): `DownBlock` with kernels of 3x3x3.

    Where `down` the sides are halved by averages, and the frames, too, where their number is even.
    """

    features: int
    down: bool
    first: bool
    weights: dict  # arguments of every layer

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        options = {"padding": ALL_AROUND, "kernel_init": ORTHOGONAL, **self.weights}
        y = x if self.first else nn.relu(x)
        y = Conv3D(self.features, (3, 3, 3), name="conv0", **options)(y, train)
        y = Conv3D(self.features, (3, 3, 3), name="conv1", **options)(nn.relu(y), train)
        if self.down:
            y, x = _halved(y), _halved(x)
        if self.down or x.shape[-1] != self.features:
            x = Conv3D(self.features, (1, 1, 1), kernel_init=ORTHOGONAL, name="skip", **self.weights)(x, train)
        return x + y


class Discriminator(nn.Module, kw_only=True):
    """Clips (B, T, H, W, C), label (B,) -> logits (B,), float32: the sums over their frames.

    Raises:
      UserError: data that are no clips, or frames that the halvings do not divide.
    """

    shape: tuple[int, ...] = (8, 128, 128, 3)  # of a clip: frames, height, width, channels
    num_classes: int = 0  # 0: unconditional, labels are ignored
    widths: tuple[int, ...] = (32, 64, 128, 256, 512, 512)  # features of each block
    halvings: int = 5  # the first blocks, which halve the size
    volumes: int = 0  # the first blocks, which convolve clips and not frames; 2 of the temporal discriminator
    spectral_norm: bool = True  # of every weight
    axis_name: str | None = None  # mesh axis of the spectral vectors
    dtype: jnp.dtype = jnp.float32  # of the computation

    clips = True  # it judges clips
    couples_samples = False  # a logit depends on its own clip alone

    def __post_init__(self):
        check_clips("dvdgan", self.shape)
        if not self.widths or min(self.widths) < 1:
            raise UserError(f"widths={self.widths}: expected one number of 1 or more for each block")
        for field in ("halvings", "volumes"):
            if not 0 <= getattr(self, field) <= len(self.widths):
                expected = f"expected 0 to {len(self.widths)}, the number of widths"
                raise UserError(f"{field}={getattr(self, field)}: {expected}")
        _check_sides(self.shape, self.halvings)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: jax.Array, label: jax.Array | None = None, *, train: bool, keys: jax.Array | None = None
    ) -> jax.Array:
        assert x.shape[1:] == tuple(self.shape), (x.shape, self.shape)
        weights, count = _weights(self), len(x)
        x = x.astype(self.dtype)
        for i, features in enumerate(self.widths):
            block = {"features": features, "down": i < self.halvings, "first": i == 0, "weights": weights}
            if i < self.volumes:
                x = VolumeBlock(**block, name=f"block{i}")(x, train)
                continue
            x = x.reshape(-1, *x.shape[-3:])
            x = DownBlock(**block, **KERNELS, name=f"block{i}")(x, train)
        x = x.reshape(-1, *x.shape[-3:])
        if self.num_classes:
            label = jnp.repeat(label, len(x) // count, axis=0)
        options = {"num_classes": self.num_classes, "weights": {"kernel_init": ORTHOGONAL, **weights}}
        return pooled_logits(x, label, train, **options).reshape(count, -1).sum(-1)


def _halved(x: jax.Array) -> jax.Array:
    """x (B, T, h, w, C) by averages over squares of pixels, and over pairs of frames where T is even."""
    batch, frames, height, width, channels = x.shape
    pair = 2 if frames % 2 == 0 else 1
    return x.reshape(batch, frames // pair, pair, height // 2, 2, width // 2, 2, channels).mean((2, 4, 6))


def _weights(model: nn.Module) -> dict[str, Any]:
    """Arguments of every layer."""
    return {"spectral_norm": model.spectral_norm, "axis_name": model.axis_name, "dtype": model.dtype}


def _check_sides(shape: tuple[int, ...], halvings: int) -> None:
    if any(side % 2**halvings for side in shape[1:3]):
        raise UserError(f"frames of {shape[1]}x{shape[2]} pixels: expected multiples of {2**halvings}, for {halvings} "
                        "changes of size; set widths")  # fmt: skip
