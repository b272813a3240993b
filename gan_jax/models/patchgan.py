"""The patch discriminator of Isola et al. 2017 (arXiv 1611.07004, appendix 6.1.2): every logit judges one patch.

CycleGAN and pix2pix have it. A layer in front of a batch normalisation has no bias. In front of an instance
normalisation it has one, which has no effect, as the published weights do. Strided layers pad one row on every side, as
torch does and TensorFlow does not. CUT's strides are blurs behind the layers (Zhang 2019, arXiv 1904.11486).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax.errors import UserError
from gan_jax.layers.fir import upfirdn2d
from gan_jax.layers.linear import Conv
from gan_jax.layers.norm import BatchNorm, instance_norm
from gan_jax.layers.pad import reflect
from gan_jax.models.blocks import check_choice, check_least, scale_near_one

WEIGHTS = nn.initializers.normal(0.02)
KERNELS = {"normal": WEIGHTS, "xavier": nn.initializers.variance_scaling(0.02**2, "fan_avg", "normal")}
ONE = ((1, 1), (1, 1))  # row and column of zeros on every side


class Discriminator(nn.Module, kw_only=True):
    """x (B, H, W, C) -> logits of patches (B, h, w, 1), float32.

    A logit sees 16, 34, 70 or 142 pixels in height and width for 1 to 4 layers, every 2 ** layers pixels; with 0
    layers a pixel of its own. An instance normalisation looks beyond them, at the mean and variance of the image.

    Raises:
      UserError: sides below 3 * 2 ** layers, which leave no patch.
    """

    width: int = 64  # features of the first layer; doubled after each, up to eightfold
    layers: int = 3  # of stride 2; 0: three layers of 1x1
    norm: str = "instance"  # or 'batch', 'none'; see `normalised`; the first layer has none
    antialias: bool = False  # a layer keeps the size, and `blurred` halves it behind the activation
    kernels: str = "normal"  # at first: N(0, .02^2), or 'xavier': N(0, .02^2 * 2 / (fan in + fan out))
    axis_name: str | None = None  # mesh axis of BatchNorm
    dtype: jnp.dtype = jnp.float32  # of the computation

    @property
    def couples_samples(self) -> bool:
        """Whether a logit depends on the other images of its batch."""
        return self.norm == "batch"

    def __post_init__(self):
        check(self, {"width": 1, "layers": 0})
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, keys: jax.Array | None = None) -> jax.Array:
        self._check_size(*x.shape[1:3])
        options = {"kernel_init": KERNELS[self.kernels], "dtype": self.dtype}
        options |= {"kernel_size": 4, "padding": ONE} if self.layers else {"kernel_size": 1, "padding": "VALID"}
        bias = self.norm != "batch"
        x = x.astype(self.dtype)
        for i in range(max(self.layers, 1) + 1):
            features, halves = self.width * min(2**i, 8), i < self.layers
            stride = 2 if halves and not self.antialias else 1
            x = Conv(features, stride=stride, use_bias=bias or i == 0, name=f"conv{i}", **options)(x)
            if i > 0:
                x = normalised(self, x, f"conv{i}_norm", train)
            x = nn.leaky_relu(x, 0.2)
            x = blurred(x) if halves and self.antialias else x
        x = Conv(1, use_bias=bias or self.layers > 0, name="head", **options)(x)
        return x.astype(jnp.float32)

    def _check_size(self, height: int, width: int) -> None:
        smallest = 3 * 2**self.layers if self.layers else 1
        if min(height, width) < smallest:
            raise UserError(
                f"images of {height}x{width}: a patch discriminator of {self.layers} layers expects sides from "
                f"{smallest} on; use fewer layers"
            )


def blurred(x: jax.Array) -> jax.Array:
    """x (B, h, w, C) -> (B, ceil(h / 2), ceil(w / 2), C), by 1/4, 1/2, 1/4 along both axes, with reflected borders."""
    return upfirdn2d(reflect(x, 1), (1.0, 2.0, 1.0), down=2, gain=1 / 16)


def normalised(model: nn.Module, x: jax.Array, name: str, train: bool) -> jax.Array:
    """x (B, h, w, C) by `model.norm`: 'instance', without parameters; 'batch', with them under `name`; or 'none'.

    A model whose `statistics` are 'picture' normalises each picture by its own values where it does not train.
    """
    if model.norm == "none":
        return x
    if model.norm == "instance":
        return instance_norm(x)
    alone = getattr(model, "statistics", "running") == "picture"
    options = {"axis_name": model.axis_name, "scale_init": scale_near_one, "dtype": model.dtype}
    return BatchNorm(evaluates_alone=alone, name=name, **options)(x, use_running_average=not train)


def check(model: nn.Module, smallest: dict[str, int]) -> None:
    """Raises UserError for an unknown `norm` or `kernels`, or a field below its smallest value."""
    check_choice("norm", model.norm, ("instance", "batch", "none"))
    check_choice("kernels", getattr(model, "kernels", "normal"), tuple(KERNELS))
    check_least(model, smallest)
