"""The networks of DeepFillv2 (Yu et al. 2019, arXiv 1806.03589), which fill holes of pictures in two stages.

Gated convolutions choose, pixel by pixel and channel by channel, what passes on. A coarse stage fills the hole; a
second one refines it, with a branch of dilated convolutions and one of contextual attention (Yu et al. 2018,
1801.07892), which copies patches of what is known. The discriminator is SN-PatchGAN: every number of its last map is a
logit. Borders are mirrored, and there is no normalisation but the discriminator's spectral one.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax.errors import UserError
from gan_jax.layers.attention import contextual
from gan_jax.layers.linear import Conv
from gan_jax.layers.pad import reflect
from gan_jax.layers.rescale import upscale
from gan_jax.models.blocks import check_least
from gan_jax.models.esrgan import UNIFORM

MULTIPLE = 8  # sides are halved twice, and once more for attention


class GatedConv(nn.Module):
    """x (B, H, W, I) -> ELU(a) sigmoid(b) (B, H / stride, W / stride, features / 2); a and b by one convolution."""

    features: int  # of the convolution: those that pass and as many gates
    kernel_size: int = 3
    stride: int = 1
    dilation: int = 1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        border = self.dilation * (self.kernel_size // 2)
        options = {"padding": "VALID", "dilation": self.dilation, "kernel_init": UNIFORM, "dtype": self.dtype}
        y = Conv(self.features, self.kernel_size, self.stride, name="conv", **options)(reflect(x, border))
        passing, gates = jnp.split(y, 2, axis=-1)
        return nn.elu(passing) * nn.sigmoid(gates)


class Generator(nn.Module, kw_only=True):
    """x (B, H, W, C + 1) -> pictures (B, H, W, channels) in [0, 1], float32; `stages` gives the coarse ones, too.

    x holds a picture in [0, 1] whose hole is 0, and its mask, 1 in the hole.

    Raises:
      UserError: sides that are no multiples of 8, or below 16.
    """

    channels: int = 3  # of the pictures that it makes
    width: int = 48  # features at full size, half of which are gates; doubled with each of two halvings
    dilations: tuple[int, ...] = (2, 4, 8, 16)  # of the convolutions in the middle of both stages
    sharpness: float = 10.0  # factor of the similarities in front of the attention's softmax
    dtype: jnp.dtype = jnp.float32  # of the computation

    def __post_init__(self):
        check_least(self, {"channels": 1, "width": 4})
        if self.width % 4:
            raise UserError(f"width={self.width}: expected a multiple of 4")
        super().__post_init__()

    @property
    def fills(self) -> bool:
        """It takes pictures with holes, and their masks."""
        return True

    @property
    def couples_samples(self) -> bool:
        """No sample sees another."""
        return False

    @property
    def multiple(self) -> int:
        """Of which the sides of a picture are multiples."""
        return MULTIPLE

    def __call__(self, x: jax.Array, *, train: bool, keys: jax.Array | None = None) -> jax.Array:
        return self.stages(x, train=train)[0]

    @nn.compact
    def stages(self, x: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
        """(pictures, those of the coarse stage)."""
        if x.shape[1] % MULTIPLE or x.shape[2] % MULTIPLE or min(x.shape[1:3]) < 2 * MULTIPLE:
            raise UserError(f"pictures of {x.shape[1]}x{x.shape[2]}: expected sides that are multiples of {MULTIPLE}, "
                            f"from {2 * MULTIPLE} on")
        x = x.astype(self.dtype)
        image, mask = x[..., :-1], x[..., -1:]
        n = self.width
        y = self._encoded(x, "coarse", (n, 2 * n, 2 * n, 4 * n, 4 * n, 4 * n))
        coarse = self._decoded(self._dilated(y, "coarse"), "coarse")

        x = jnp.concatenate([mask * coarse.astype(self.dtype) + (1 - mask) * image, mask], -1)
        y = self._encoded(x, "refine", (n, n, 2 * n, 2 * n, 4 * n, 4 * n))
        z = self._encoded(x, "attend", (n, n, 2 * n, 4 * n, 4 * n, 4 * n))
        small = nn.max_pool(mask, (4, 4), (4, 4))
        z = self._chain(contextual(z, small, rate=2, sharpness=self.sharpness), "attended", (4 * n, 4 * n))
        y = jnp.concatenate([self._dilated(y, "refine"), z], -1)
        return self._decoded(y, "refine"), coarse

    def _chain(self, x: jax.Array, name: str, features: tuple[int, ...], **options) -> jax.Array:
        for i, count in enumerate(features):
            x = GatedConv(count, dtype=self.dtype, name=f"{name}{i}", **options)(x)
        return x

    def _encoded(self, x: jax.Array, name: str, features: tuple[int, ...]) -> jax.Array:
        """Six convolutions: 5x5 first, the second and fourth of stride 2."""
        x = 2 * x - 1
        for i, count in enumerate(features):
            size, stride = 3 if i else 5, 2 if i in (1, 3) else 1
            x = GatedConv(count, size, stride, dtype=self.dtype, name=f"{name}{i}")(x)
        return x

    def _dilated(self, x: jax.Array, name: str) -> jax.Array:
        for dilation in self.dilations:
            x = GatedConv(4 * self.width, 3, 1, dilation, self.dtype, name=f"{name}_dilated{dilation}")(x)
        return x

    def _decoded(self, x: jax.Array, name: str) -> jax.Array:
        """Two convolutions, and twice a doubling with two; then the picture."""
        n = self.width
        x = self._chain(x, f"{name}_middle", (4 * n, 4 * n))
        x = self._chain(upscale(x), f"{name}_half", (2 * n, 2 * n))
        x = self._chain(upscale(x), f"{name}_full", (n, n // 2))
        options = {"padding": "VALID", "kernel_init": UNIFORM, "dtype": self.dtype, "name": f"{name}_image"}
        x = Conv(self.channels, 3, **options)(reflect(x, 1))
        return (jnp.tanh(x.astype(jnp.float32)) + 1) / 2


class Discriminator(nn.Module, kw_only=True):
    """x (B, H, W, C) -> logits (B, h, w, features), float32: every number of the last map judges a neighbourhood."""

    width: int = 64  # features of the first layer; doubled after each, up to fourfold
    layers: int = 6  # 5x5 of stride 2, spectrally normalised
    axis_name: str | None = None  # mesh axis over which the spectral vectors are kept equal
    dtype: jnp.dtype = jnp.float32  # of the computation

    def __post_init__(self):
        check_least(self, {"width": 1, "layers": 1})
        super().__post_init__()

    @property
    def couples_samples(self) -> bool:
        """No sample sees another."""
        return False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, keys: jax.Array | None = None) -> jax.Array:
        x = x.astype(self.dtype)
        for i in range(self.layers):
            options = {"spectral_norm": True, "axis_name": self.axis_name, "kernel_init": UNIFORM, "dtype": self.dtype}
            x = Conv(self.width * min(2**i, 4), 5, 2, name=f"conv{i}", **options)(x, train)
            x = nn.leaky_relu(x, 0.2) if i < self.layers - 1 else x
        return x.astype(jnp.float32)
