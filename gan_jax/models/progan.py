"""ProGAN, the growing networks of Karras et al. 2018 (arXiv 1710.10196), as their own code has them.

Both networks hold the layers of every resolution from the start. `level` counts halvings below the full
resolution and is static: only layers up to that size are computed. `lod` (level of detail) may be traced and lies
in [level, level + 1]; its fraction is the share of the next smaller resolution, so that a layer fades in while lod
falls from level + 1 to level. Images at `level` are not enlarged to the full size. With no level, lod may lie
anywhere and images are of full size; the smaller ones are enlarged by repeating pixels.

Kernels are stored raw, (kh, kw, in, out) and (in, out), and scaled when used. The dense layers of the base order
its units as (channels, height, width), as the published weights do.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax.layers.activation import bias_act
from gan_jax.layers.equalized import EqualDense
from gan_jax.layers.minibatch_stddev import minibatch_stddev
from gan_jax.layers.norm import pixel_norm
from gan_jax.layers.rescale import ScaledConv, downscale, fade, features, sizes, upscale
from gan_jax.models.blocks import block_dtype, wide
from gan_jax.models.mapping import one_hot

ROOT = math.sqrt(2)  # He et al.'s gain, part of the equalized scale; activations have none


class Generator(nn.Module, kw_only=True):
    """z (B, latent_size), label (B,) or (B, num_classes) -> images (B, H, W, channels), not bounded.

    Labels are concatenated with z as one- or multi-hot vectors, before both are normalised.
    """

    resolution: int | tuple[int, int] = 32  # of the images: side, or (height, width)
    channels: int = 3  # of the images
    num_classes: int = 0  # 0: unconditional, labels are ignored
    latent_size: int = 512  # entries of z
    feature_base: int = 8192  # features of stage i: base / 2^(i * decay), at most `feature_max`
    feature_decay: float = 1.0
    feature_max: int = 512
    fused_scale: bool = True  # doubling and convolution as one
    normalize_latents: bool = True
    pixel_norm: bool = True  # after every activation
    epsilon: float = 1e-8  # of pixel_norm; the authors take 1e-4 in half precision
    num_bf16_res: int = 0  # highest resolutions that compute in bfloat16
    dtype: jnp.dtype = jnp.float32  # of the computation elsewhere

    def __post_init__(self):
        sizes(self.resolution)
        super().__post_init__()

    @property
    def levels(self) -> int:
        """How often the full resolution can be halved."""
        return len(sizes(self.resolution)) - 1

    @nn.compact
    def __call__(
        self,
        z: jax.Array,
        label: jax.Array | None = None,
        *,
        train: bool,  # it makes no difference here
        keys: jax.Array | None = None,  # nothing is drawn
        lod: jax.Array | float | None = None,  # None: that of `level`, nothing is faded
        level: int | None = None,  # see above
    ) -> jax.Array:
        fading = lod is not None or self.is_initializing()
        x, images = self._base(z, label), None
        for stage, (h, w) in enumerate(sizes(self.resolution)):
            halvings = self.levels - stage
            if halvings < (level or 0):
                break
            if stage:
                x = self._block(x, stage, f"{h}x{w}")
            if (halvings <= (level or 0) + 1 or level is None) if fading else halvings == (level or 0):
                rgb = wide(ScaledConv(self.channels, 1, gain=1.0, dtype=x.dtype, name=f"{h}x{w}_to_image")(x))
                images = rgb if images is None else fade(rgb, upscale(images), 0.0 if lod is None else lod - halvings)
        return images

    def _base(self, z, label):
        h, w = sizes(self.resolution)[0]
        n = self._features(1)
        assert z.shape[1:] == (self.latent_size,), (z.shape, self.latent_size)
        if self.num_classes:
            z = jnp.concatenate([z, one_hot(label, self.num_classes).astype(z.dtype)], -1)
        z = pixel_norm(z, self.epsilon) if self.normalize_latents else z
        options = {"use_bias": False, "weight_gain": ROOT / 4, "dtype": self.dtype}
        x = EqualDense(n * h * w, name="base_dense", **options)(z)
        x = x.reshape(-1, n, h, w).transpose(0, 2, 3, 1)
        x = self._activate(x, self.param("base_dense_bias", nn.initializers.zeros, (n,), jnp.float32))
        return self._activate(ScaledConv(n, dtype=self.dtype, name="base_conv")(x))

    def _block(self, x, stage, size):
        dtype = block_dtype(stage, self.levels, self.num_bf16_res) or self.dtype
        options = {"features": self._features(stage + 1), "dtype": dtype}
        x = self._activate(ScaledConv(resample="up", fused=self.fused_scale, name=f"{size}_conv0", **options)(x))
        return self._activate(ScaledConv(name=f"{size}_conv1", **options)(x))

    def _activate(self, x, bias=None):
        x = bias_act(x, bias, activation="lrelu", gain=1.0)
        return pixel_norm(x, self.epsilon) if self.pixel_norm else x

    def _features(self, stage: int) -> int:
        return features(stage, self.feature_base, self.feature_decay, self.feature_max)


class Discriminator(nn.Module, kw_only=True):
    """Images (B, h, w, channels) at `level` -> logits (B,). `heads` gives class logits besides (AC-GAN)."""

    resolution: int | tuple[int, int] = 32  # of the images at level 0: side, or (height, width)
    channels: int = 3  # of the images
    num_classes: int = 0  # class logits beside the one of realism
    feature_base: int = 8192  # features of stage i: base / 2^(i * decay), at most `feature_max`
    feature_decay: float = 1.0
    feature_max: int = 512
    fused_scale: bool = True  # convolution and halving as one; else halving follows the activation
    stddev_group: int = 4  # neighbours whose deviation is a feature; below 2: none
    stddev_channels: int = 1  # such features, each of a share of the others
    grow: bool = True  # an image layer at every resolution; else at the last one only
    num_bf16_res: int = 0  # highest resolutions that compute in bfloat16
    dtype: jnp.dtype = jnp.float32  # of the computation elsewhere

    nonlinearity = "lrelu"  # not a field: ProGAN has no other

    def __post_init__(self):
        sizes(self.resolution)
        super().__post_init__()

    @property
    def levels(self) -> int:
        """How often the full resolution can be halved."""
        return len(sizes(self.resolution)) - 1

    @property
    def sample_groups(self) -> dict[str, int]:
        """Field -> neighbours of a batch that are seen together."""
        return {"stddev_group": self.stddev_group} if self.stddev_group > 1 else {}

    def __call__(
        self,
        x: jax.Array,
        label: jax.Array | None = None,  # it makes no difference: see `heads`
        *,
        train: bool,  # it makes no difference here
        keys: jax.Array | None = None,  # nothing is drawn
        lod: jax.Array | float | None = None,
        level: int | None = None,
    ) -> jax.Array:
        return self.heads(x, lod=lod, level=level)[0]

    @nn.compact
    def heads(
        self,
        x: jax.Array,
        *,
        train: bool = True,  # it makes no difference here
        lod: jax.Array | float | None = None,
        level: int | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """(logits (B,), class logits (B, num_classes)) of images, as `__call__` takes them."""
        out = wide(self._outputs(x, lod, level, 1 + self.num_classes))
        return out[:, 0], out[:, 1:]

    def _outputs(self, x, lod, level, count):
        """The last layer's outputs (B, count)."""
        assert self.grow or not level, "this discriminator does not grow"
        grid, fading = sizes(self.resolution), self.grow and (lod is not None or self.is_initializing())
        first = self.levels - (level or 0)
        assert x.shape[1:] == (*grid[first], self.channels), (x.shape, grid[first])
        y = self._from_image(x, first)
        for stage in range(first, 0, -1):
            y = self._block(y, stage)
            if fading and (stage == first or level is None):
                x = downscale(x)
                old = self._from_image(x, stage - 1)
                y = fade(y.astype(old.dtype), old, 0.0 if lod is None else lod - (self.levels - stage))
        return self._base(y, count)

    def _from_image(self, x, stage):
        h, w = sizes(self.resolution)[stage]
        conv = ScaledConv(self._features(stage + 1), 1, dtype=self._dtype(stage), name=f"{h}x{w}_from_image")
        return self._activate(conv(x))

    def _block(self, x, stage):
        (h, w), dtype = sizes(self.resolution)[stage], self._dtype(stage)
        x = self._activate(ScaledConv(self._features(stage + 1), dtype=dtype, name=f"{h}x{w}_conv0")(x))
        options = {"features": self._features(stage), "dtype": dtype, "name": f"{h}x{w}_conv1"}
        if self.fused_scale:
            return self._activate(ScaledConv(resample="down", fused=True, **options)(x))
        return downscale(self._activate(ScaledConv(**options)(x)))

    def _dtype(self, stage):
        return block_dtype(stage, self.levels, self.num_bf16_res) or self.dtype

    def _base(self, x, count):
        x = x.astype(self.dtype)
        if self.stddev_group > 1:
            x = minibatch_stddev(x, group_size=self.stddev_group, channels=self.stddev_channels)
        x = self._activate(ScaledConv(self._features(1), dtype=self.dtype, name="base_conv")(x))
        x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
        options = {"activation": self.nonlinearity, "activation_gain": 1.0, "weight_gain": ROOT, "dtype": self.dtype}
        x = EqualDense(self._features(0), name="base_dense", **options)(x)
        return EqualDense(count, dtype=self.dtype, name="head")(x)

    def _features(self, stage: int) -> int:
        return features(stage, self.feature_base, self.feature_decay, self.feature_max)

    def _activate(self, x):
        return bias_act(x, activation=self.nonlinearity, gain=1.0)  # the gain is in the kernels' scale
