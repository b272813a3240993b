"""DINOv2's vision transformers with patches of 14 pixels (Oquab et al. 2024, arXiv 2304.07193): FD-DINOv2's network.

Stein et al. 2023 (arXiv 2306.04675) take the large one in Inception's place for the Frechet distance. Names are those
of Meta's checkpoints without registers (`dinov2_vitl14_pretrain.pth`), which were trained last at 518 pixels: their
grid of 37x37 positions is interpolated to the 16x16 patches of 224 pixels. The giant one is left out: its blocks have
another feed-forward layer.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gan_jax.errors import UserError
from gan_jax.features import resize
from gan_jax.features.transformer import MLP_RATIO, Block, dense_from, norm, norm_from

SIDE, PATCH = 224, 14
GRID = SIDE // PATCH  # patches in a row
TRAINED_GRID = 37  # positions in a row of the checkpoints
EPSILON = 1e-6
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's channels in [0, 1]


class Size(NamedTuple):
    """Blocks, dimension of a token, heads of attention."""

    depth: int
    width: int
    heads: int


SIZES = {"s": Size(12, 384, 6), "b": Size(12, 768, 12), "l": Size(24, 1024, 16)}


class VisionTransformer(nn.Module):
    """Images (B, 224, 224, 3) float32, prepared, to the class token behind the last norm, float32 (B, width).

    Each size is `VisionTransformer(*SIZES[name])`; nothing is dropped or drawn. LayerScale is in the kernel and bias of
    each block's `proj` and `fc2`.

    Raises:
      UserError: the images have another shape.
    """

    depth: int
    width: int
    heads: int
    precision: Any = "highest"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if x.ndim != 4 or x.shape[1:] != (SIDE, SIDE, 3):
            raise UserError(f"DINOv2 was given images of the shape {x.shape}; it needs (B, {SIDE}, {SIDE}, 3): "
                            "prepare them with features.vit.PREPROCESSING first")
        x = nn.Dense(self.width, precision=self.precision, name="patch_embed")(_patches(jnp.asarray(x, jnp.float32)))
        class_token = self.param("class_token", nn.initializers.zeros, (self.width,))  # with its position
        positions = self.param("positions", nn.initializers.normal(0.02), (GRID * GRID, self.width))
        class_tokens = jnp.broadcast_to(class_token, (len(x), 1, self.width))
        x = jnp.concatenate([class_tokens, x + positions], axis=1)  # (B, 1 + patches, D)
        for i in range(self.depth):
            x = Block(self.heads, self.precision, EPSILON, name=f"block_{i}")(x)
        return norm("norm", EPSILON)(x[:, 0])


def _patches(x: jax.Array) -> jax.Array:
    """(B, H, W, C) -> (B, patches row by row, PATCH * PATCH * C): a convolution of that stride is a product."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // PATCH, PATCH, w // PATCH, PATCH, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, (h // PATCH) * (w // PATCH), PATCH * PATCH * c)


# Weights

def shapes(size: str | Size) -> dict[str, tuple[int, ...]]:
    """Arrays of the PyTorch state dict that count: `mask_token`, which only training needs, is left out.

    Args:
      size: "s", "b" or "l", or numbers of one's own.
    Raises:
      UserError: there is no such size.
    """
    if isinstance(size, str) and size not in SIZES:
        raise UserError(f"DINOv2 size {size!r}: expected one of {', '.join(map(repr, SIZES))}")
    depth, d, _ = SIZES[size] if isinstance(size, str) else size
    hidden = MLP_RATIO * d
    block = {
        "norm1.weight": (d,), "norm1.bias": (d,), "attn.qkv.weight": (3 * d, d), "attn.qkv.bias": (3 * d,),
        "attn.proj.weight": (d, d), "attn.proj.bias": (d,), "ls1.gamma": (d,),
        "norm2.weight": (d,), "norm2.bias": (d,), "mlp.fc1.weight": (hidden, d), "mlp.fc1.bias": (hidden,),
        "mlp.fc2.weight": (d, hidden), "mlp.fc2.bias": (d,), "ls2.gamma": (d,),
    }
    return {
        "cls_token": (1, 1, d), "pos_embed": (1, 1 + TRAINED_GRID**2, d),
        "patch_embed.proj.weight": (d, 3, PATCH, PATCH), "patch_embed.proj.bias": (d,),
        **{f"blocks.{i}.{name}": shape for i in range(depth) for name, shape in block.items()},
        "norm.weight": (d,), "norm.bias": (d,),
    }


def from_torch(state: Mapping[str, np.ndarray]) -> dict:
    """Variables of `VisionTransformer`, which has as many blocks as the state.

    In float64, so that each is rounded once: positions are interpolated to the grid of 224 pixels, the class token has
    its own added, and LayerScale, a factor of each channel, goes into the layer before it.

    Args:
      state: the arrays of `shapes(size)`, checked by `state.check`.
    """
    wide = {name: np.asarray(array, np.float64) for name, array in state.items()}
    patches = wide["patch_embed.proj.weight"].transpose(2, 3, 1, 0)  # OIHW -> HWIO
    params = {
        "class_token": wide["cls_token"][0, 0] + wide["pos_embed"][0, 0],
        "positions": _interpolated(wide["pos_embed"][0, 1:]),
        "patch_embed": {"kernel": patches.reshape(-1, patches.shape[-1]), "bias": wide["patch_embed.proj.bias"]},
        "norm": norm_from(wide, "norm"),
    }
    for i in range(sum(name.endswith("ls1.gamma") for name in state)):
        path = f"blocks.{i}."
        params[f"block_{i}"] = {
            "norm1": norm_from(wide, path + "norm1"), "norm2": norm_from(wide, path + "norm2"),
            "qkv": dense_from(wide, path + "attn.qkv"), "fc1": dense_from(wide, path + "mlp.fc1"),
            "proj": dense_from(wide, path + "attn.proj", wide[path + "ls1.gamma"]),
            "fc2": dense_from(wide, path + "mlp.fc2", wide[path + "ls2.gamma"]),
        }
    return {"params": jax.tree.map(lambda array: np.ascontiguousarray(array, np.float32), params)}


def _interpolated(positions: np.ndarray) -> np.ndarray:
    """(37 * 37, D) -> (16 * 16, D) as the published code does it: PyTorch's bicubic, not smoothed."""
    matrix = _positions_matrix()
    grid = positions.reshape(TRAINED_GRID, TRAINED_GRID, -1)
    return np.einsum("ua,vb,abd->uvd", matrix, matrix, grid, optimize=True).reshape(GRID * GRID, -1)


def _positions_matrix() -> np.ndarray:
    """(16, 37). The step is not 37 / 16 but 37 / 16.1: the published code asks for a tenth of a patch more, lest the
    size be rounded down, and PyTorch takes its step from the factor asked for."""
    source = (np.arange(GRID) + 0.5) * (TRAINED_GRID / (GRID + 0.1)) - 0.5
    first = np.floor(source).astype(int) - 1
    matrix = np.zeros((GRID, TRAINED_GRID))
    for tap in range(4):
        index = first + tap
        # the border is repeated: taps beyond it fall on the last position
        np.add.at(matrix, (np.arange(GRID), np.clip(index, 0, TRAINED_GRID - 1)), _cubic(np.abs(source - index)))
    return matrix


def _cubic(t: np.ndarray, a: float = -0.75) -> np.ndarray:
    """The piecewise cubic of Keys 1981, equation 4, for t in 0..2; PyTorch's a."""
    return np.where(t < 1, ((a + 2) * t - (a + 3)) * t * t + 1, (((t - 5) * t + 8) * t - 4) * a)


# Preprocessing: uint8 (B, H, W, 3) -> float32 (B, 224, 224, 3)

def _dgm_eval(images: jax.Array) -> jax.Array:
    resized = resize.pil(images, (SIDE, SIDE), quantise=True)
    return (resized / 255 - np.array(MEAN, np.float32)) / np.array(STD, np.float32)


PREPROCESSING: dict[str, Callable[[jax.Array], jax.Array]] = {"dgm_eval": _dgm_eval}
DESCRIPTIONS = {"dgm_eval": "bicubic 224x224 as Pillow on bytes as dgm-eval, x/255, ImageNet's mean and deviation"}
