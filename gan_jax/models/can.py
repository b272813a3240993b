"""CAN's networks (Elgammal et al. 2017, arXiv 1706.07068): DCGAN's generator, and a discriminator with two heads.

The paper's generator goes from 4x4 with 1024 features to 256 px: DCGAN's with `features=(1024, 1024, 512, 256, 128,
64)`. Its discriminator for 256 px is the one below with its defaults.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax.errors import UserError
from gan_jax.layers.conv import as_pair
from gan_jax.layers.linear import Conv, Dense
from gan_jax.layers.norm import BatchNorm
from gan_jax.models import dcgan
from gan_jax.models.blocks import check_choice, check_least, scale_near_one
from gan_jax.models.dcgan import Generator

__all__ = ("Discriminator", "Generator")
NORMAL = nn.initializers.normal(0.02)


class Discriminator(nn.Module, kw_only=True):
    """Images (B, H, W, channels) -> logits (B,), float32; `heads` gives class logits (B, num_classes) beside them.

    4x4 convolutions of stride 2 down to 4 to 7 pixels, whose features double up to `widest`; then a dense layer for the
    logit, and the layers `hidden` and one of `num_classes` for the classes.

    Raises:
      UserError: a size that cannot be halved, or a field out of range.
    """

    resolution: int | tuple[int, int] = 256  # of the images: side, or (height, width)
    channels: int = 3  # of the images
    num_classes: int = 0  # 0: there is no head for classes
    width: int = 32  # features of the first layer; doubled after each
    widest: int = 512  # and never more than so many
    hidden: tuple[int, ...] = (1024, 512)  # features of the layers in front of the classes
    slope: float = 0.2  # of the leaky ReLU
    norm: str = "batch"  # 'batch' (all layers but the first) | 'none'
    norm_momentum: float = 0.9  # weight of the old running value
    norm_epsilon: float = 1e-5
    axis_name: str | None = None  # mesh axis of BatchNorm
    dtype: jnp.dtype = jnp.float32  # of the computation

    def __post_init__(self):
        check_choice("norm", self.norm, ("batch", "none"))
        check_least(self, {"channels": 1, "width": 1, "widest": 1, "num_classes": 0})
        if any(features < 1 for features in self.hidden):
            raise UserError(f"hidden={self.hidden}: expected numbers of 1 or more")
        dcgan.plan(self.resolution, self.width)
        super().__post_init__()

    def __call__(
        self, x: jax.Array, label: jax.Array | None = None, *, train: bool, keys: jax.Array | None = None
    ) -> jax.Array:
        return self.heads(x, train=train, keys=keys)[0]

    @nn.compact
    def heads(
        self, x: jax.Array, *, train: bool, keys: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array | None]:
        """Logits (B,) and class logits (B, num_classes), float32; None in place of these where there are no classes."""
        assert x.shape[1:] == (*as_pair(self.resolution), self.channels), (x.shape, self.resolution)
        x = x.astype(self.dtype)
        for i, width in enumerate(dcgan.plan(self.resolution, self.width)[1]):
            normed = self.norm == "batch" and i > 0
            bias = self.norm == "none"
            features = min(width, self.widest)
            x = Conv(features, 4, 2, use_bias=bias, kernel_init=NORMAL, dtype=self.dtype, name=f"down{i}")(x)
            if normed:
                x = self._norm(f"down{i}_norm")(x, use_running_average=not train)
            x = nn.leaky_relu(x, self.slope)
        x = x.reshape(x.shape[0], -1)
        logits = self._dense(1, "real")(x)[:, 0].astype(jnp.float32)
        if not self.num_classes:
            return logits, None
        for i, features in enumerate(self.hidden):
            x = nn.leaky_relu(self._dense(features, f"hidden{i}")(x), self.slope)
        return logits, self._dense(self.num_classes, "classes")(x).astype(jnp.float32)

    def _norm(self, name: str) -> BatchNorm:
        options = {"momentum": self.norm_momentum, "epsilon": self.norm_epsilon, "axis_name": self.axis_name}
        return BatchNorm(**options, scale_init=scale_near_one, dtype=self.dtype, name=name)

    def _dense(self, features: int, name: str) -> Dense:
        return Dense(features, kernel_init=NORMAL, dtype=self.dtype, name=name)
