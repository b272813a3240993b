"""MoCoGAN (Tulyakov et al. 2018, arXiv 1707.04993): clips of one content and of a motion that is drawn frame by frame.

A latent is, in this order: the content; one number for each category, of which the largest counts; the first state of
the motion; and the noise of each frame, from which a gated recurrent unit makes the motion's states. A frame is drawn
from content, category and motion by DCGAN's generator. The discriminators are DCGAN's with 4x4 windows of a frame, or
with 4x4x4 windows of a clip, which see every frame and halve rows and columns alone.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax.errors import UserError
from gan_jax.layers import random
from gan_jax.layers.linear import Conv3D
from gan_jax.layers.norm import BatchNorm
from gan_jax.layers.recurrent import GRU
from gan_jax.models import dcgan
from gan_jax.models.blocks import check_clips, check_least, scale_near_one

SLOPE = 0.2  # of the leaky ReLU
WEIGHTS = nn.initializers.normal(0.02)
ONE = (1, 1)


class Generator(nn.Module, kw_only=True):
    """latents (B, latent_size), label (B,) -> clips (B, T, H, W, C), float32 in [-1, 1]; T is told by the latents.

    With labels these are the categories. Without, categories are drawn, all with the same probability.

    Raises:
      UserError: data that are no clips, or frames that DCGAN's layers do not fit.
    """

    shape: tuple[int, ...] = (16, 64, 64, 3)  # of a clip: frames, height, width, channels
    num_classes: int = 0  # 0: labels are ignored
    content: int = 50  # entries of the latent that all frames share
    categories: int = 0  # that are drawn where there are no labels
    motion: int = 10  # entries of the motion, of its noise and of its state
    width: int = 64  # features of the last hidden layer; doubled towards the stem
    axis_name: str | None = None  # mesh axis of BatchNorm
    dtype: jnp.dtype = jnp.float32  # of the computation

    clips = True  # it makes clips

    def __post_init__(self):
        check_clips("mocogan", self.shape)
        check_least(self, {"content": 1, "categories": 0, "motion": 1, "width": 1})
        dcgan.plan(self.shape[1:3], self.width)
        super().__post_init__()

    @property
    def latent_size(self) -> int:
        """Entries of a latent, all of them N(0, 1)."""
        return self.latents(self.shape[0])

    def latents(self, frames: int) -> int:
        """Entries of a latent of so many frames; that of a longer clip begins as that of a shorter one."""
        return self.content + self._drawn + self.motion * (1 + frames)

    @property
    def _drawn(self) -> int:
        return 0 if self.num_classes else self.categories

    def category(self, z: jax.Array, label: jax.Array | None = None) -> jax.Array | None:
        """(B,), the category of each clip: its label, or what its latent says; None where there are none."""
        if self.num_classes:
            assert label is not None, "a conditional generator needs labels"
            return label
        return jnp.argmax(z[:, self.content : self.content + self._drawn], -1) if self._drawn else None

    @nn.compact
    def __call__(self, z: jax.Array, label: jax.Array | None = None, *, train: bool) -> jax.Array:
        states, noise = self._split(z)
        motion = GRU(name="motion")(states, noise)
        frames, category = motion.shape[1], self.category(z, label)
        parts = [z[:, : self.content]]
        if category is not None:
            parts.append(jax.nn.one_hot(category, self.num_classes or self.categories, dtype=z.dtype))
        same = jnp.concatenate(parts, -1)
        codes = jnp.concatenate([jnp.broadcast_to(same[:, None], (len(z), frames, same.shape[-1])), motion], -1)
        size = codes.shape[-1]
        draw = dcgan.Generator(
            resolution=tuple(self.shape[1:3]), channels=self.shape[3], latent_size=size, width=self.width,
            axis_name=self.axis_name, dtype=self.dtype, name="frames",
        )  # fmt: skip
        images = draw(codes.reshape(-1, size), train=train)
        return images.reshape(-1, frames, *images.shape[1:])

    def _split(self, z: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The motion's first state (B, motion), and its noise (B, T, motion)."""
        begin = self.content + self._drawn
        assert z.ndim == 2 and z.shape[1] >= self.latents(1) and not (z.shape[1] - begin) % self.motion, z.shape
        states = z[:, begin:].reshape(len(z), -1, self.motion)
        return states[:, 0], states[:, 1:]


class Discriminator(nn.Module, kw_only=True):
    """Clips (B, T, H, W, C) -> logits of patches (B, t, h, w), float32; with `patches` off h = w = 1.

    Every layer has `window` frames in view, and there are window - 1 frames less behind it: with 1 each frame is judged
    by itself. A label is not looked at: with labels, or categories, `heads` tells them apart.

    Raises:
      UserError: data that are no clips, or clips too short or too small for the layers.
    """

    shape: tuple[int, ...] = (16, 64, 64, 3)  # of a clip: frames, height, width, channels
    num_classes: int = 0  # of the class logits of `heads`, where the window is more than a frame
    categories: int = 0  # of the class logits where there are no labels, as of the generator
    window: int = 1  # frames of a kernel; 4 in the paper's discriminator of clips
    layers: int = 3  # that halve rows and columns, in front of the last one
    patches: bool = True  # the last layer is one of them, too; else it sees all rows and columns that are left
    width: int = 64  # features of the first layer; doubled after each
    noise: float = 0.0  # deviation of Gaussian noise on what enters each layer but the last, where keys are given
    axis_name: str | None = None  # mesh axis of BatchNorm
    dtype: jnp.dtype = jnp.float32  # of the computation

    clips = True  # it judges clips

    def __post_init__(self):
        check_clips("mocogan", self.shape)
        check_least(self, {"width": 1, "categories": 0, "noise": 0, "window": 1, "layers": 1})
        frames, *sides = self.shape[:3]
        multiple, least = 2 ** (self.layers + self.patches), (self.window - 1) * (self.layers + 1) + 1
        if any(side % multiple for side in sides):
            raise UserError(f"clips of {sides[0]}x{sides[1]} pixels: a discriminator of {self.layers} layers expects "
                            f"multiples of {multiple}; set layers of the discriminators")  # fmt: skip
        if frames < least:
            raise UserError(f"clips of {frames} frames: a discriminator with a window of {self.window} frames and "
                            f"{self.layers} layers expects {least} or more; set its window or layers")  # fmt: skip
        super().__post_init__()

    @property
    def classes(self) -> int:
        """Class logits of `heads`."""
        return (self.num_classes or self.categories) if self.window > 1 else 0

    def __call__(
        self, x: jax.Array, label: jax.Array | None = None, *, train: bool, keys: jax.Array | None = None
    ) -> jax.Array:
        return self.heads(x, label, train=train, keys=keys)[0]

    @nn.compact
    def heads(
        self, x: jax.Array, label: jax.Array | None = None, *, train: bool, keys: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array | None]:
        """(logits (B, t, h, w), class logits (B, classes), the mean of all places'; None without)."""
        options = {"kernel_init": WEIGHTS, "use_bias": False, "dtype": self.dtype}
        halving = {"kernel_size": (self.window, 4, 4), "stride": (1, 2, 2), "padding": ((0, 0), ONE, ONE)}
        x = x.astype(self.dtype)
        for i in range(self.layers):
            if self.noise and keys is not None:
                x = x + self.noise * random.normal(random.fold(keys, i), x.shape[1:]).astype(x.dtype)
            x = Conv3D(self.width * 2**i, name=f"conv{i}", **halving, **options)(x)
            if i > 0:
                norm = {"axis_name": self.axis_name, "scale_init": scale_near_one, "dtype": self.dtype}
                x = BatchNorm(name=f"conv{i}_norm", **norm)(x, use_running_average=not train)
            x = nn.leaky_relu(x, SLOPE)
        last = halving if self.patches else {"kernel_size": (self.window, *x.shape[2:4])}
        x = Conv3D(1 + self.classes, name="head", **last, **options)(x).astype(jnp.float32)
        return x[..., 0], x[..., 1:].mean((1, 2, 3)) if self.classes else None
