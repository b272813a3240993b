"""AttnGAN's encoders (Xu et al. 2018, arXiv 1711.10485, section 3.2): of a sentence and its words, of an image.

The text encoder is the paper's; the image encoder, pretrained there, is a small residual network. The game trains
both so that a caption and its image are alike.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from gan_jax.errors import UserError
from gan_jax.layers.conv import Pair
from gan_jax.layers.dropout import dropout
from gan_jax.layers.linear import Conv, Dense
from gan_jax.layers.rescale import sizes
from gan_jax.models.blocks import check_choice, check_least
from gan_jax.models.dfgan import DownBlock, widths
from gan_jax.models.esrgan import UNIFORM

GATES = {"lstm": 4, "gru": 3}
DIRECTIONS = 2


class TextEncoder(nn.Module, kw_only=True):
    """Tokens (B, L), 0 behind the last word -> (sentence (B, size), words (B, L, size)), float32; 0 where no word is.

    A recurrent network reads the words in both directions, each with a half of the size: a word's vector is what stands
    there, the sentence's what both end with. Both begin at a word, so that padding changes nothing.
    """

    vocabulary: int = 2  # words, that of padding and the unknown one among them
    cell: str = "lstm"  # or gru: as PyTorch computes them
    embedding: int = 300  # entries of a word's own vector
    size: int = 256  # entries of the vectors that it makes, an even number
    dropout: float = 0.5  # of the words' own vectors, where keys are given
    normalise: bool = False  # the sentence has the length sqrt(size), which no cosine sees, but those that read it
    dtype: jnp.dtype = jnp.float32  # of the computation

    def __post_init__(self):
        check_choice("cell", self.cell, tuple(GATES))
        check_least(self, {"vocabulary": 2, "embedding": 1, "size": 2})
        if self.size % DIRECTIONS:
            raise UserError(f"size={self.size}: expected an even number, a half for each direction")
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout={self.dropout}: expected 0 or more and below 1")
        super().__post_init__()

    @nn.compact
    def __call__(
        self, tokens: jax.Array, *, train: bool, keys: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        table = self.param("embed", _uniform(0.1), (self.vocabulary, self.embedding), jnp.float32)
        mask = tokens > 0
        x = table.astype(self.dtype)[tokens]
        if train:
            x = dropout(x, keys, self.dropout)
        x = self._gates_of_words(x)  # (2, B, L, gates)
        x, there = (_backward_too(y) for y in (x, jnp.stack([mask, mask])))
        half, words = self.size // DIRECTIONS, []
        state = hidden = jnp.zeros_like(x[:, :, 0, :half])
        kernel, bias = self._weights("recurrent", half)
        for t in range(tokens.shape[1]):  # a loop of XLA is slow on a CPU, and sentences are short
            gates = jnp.einsum("dbh,dhk->dbk", hidden, kernel) + bias
            new = _CELLS[self.cell](x[:, :, t], gates, hidden, state)
            hidden, state = (jnp.where(there[:, :, t, None], a, b) for a, b in zip(new, (hidden, state), strict=True))
            words.append(hidden)
        words = _backward_too(jnp.stack(words, 2))
        words = jnp.concatenate([words[0], words[1]], -1) * mask[..., None]
        sentence = jnp.concatenate([hidden[0], hidden[1]], -1).astype(jnp.float32)
        if self.normalise:
            sentence *= lax.rsqrt(jnp.maximum(jnp.square(sentence).mean(-1, keepdims=True), 1e-12))
        return sentence, words.astype(jnp.float32)

    def _gates_of_words(self, x: jax.Array) -> jax.Array:
        kernel, bias = self._weights("input", x.shape[-1])
        return jnp.einsum("ble,dek->dblk", x, kernel) + bias[:, :, None]

    def _weights(self, name: str, inputs: int) -> tuple[jax.Array, jax.Array]:
        """Kernel (2, inputs, gates) and bias (2, 1, gates), of both directions."""
        half = self.size // DIRECTIONS
        init, gates = _uniform(half**-0.5), GATES[self.cell] * half
        kernel = self.param(f"{name}_kernel", init, (DIRECTIONS, inputs, gates), jnp.float32)
        bias = self.param(f"{name}_bias", init, (DIRECTIONS, 1, gates), jnp.float32)
        return kernel.astype(self.dtype), bias.astype(self.dtype)


def _uniform(most: float) -> Any:
    """U(-most, most)."""

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -most, most)

    return init


def _backward_too(x: jax.Array) -> jax.Array:
    """(2, B, L, ...), the second one's words in reverse order."""
    return jnp.stack([x[0], x[1][:, ::-1]])


def _lstm(x: jax.Array, gates: jax.Array, hidden: jax.Array, state: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Hidden and inner state, new (Hochreiter and Schmidhuber 1997; with a forget gate, Gers et al. 2000)."""
    i, f, g, o = jnp.split(x + gates, 4, -1)
    state = nn.sigmoid(f) * state + nn.sigmoid(i) * jnp.tanh(g)
    return nn.sigmoid(o) * jnp.tanh(state), state


def _gru(x: jax.Array, gates: jax.Array, hidden: jax.Array, state: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Hidden state, new, twice (Cho et al. 2014); the reset gate multiplies what the recurrent kernel gives."""
    (rx, zx, nx), (rh, zh, nh) = jnp.split(x, 3, -1), jnp.split(gates, 3, -1)
    update = nn.sigmoid(zx + zh)
    hidden = (1 - update) * jnp.tanh(nx + nn.sigmoid(rx + rh) * nh) + update * hidden
    return hidden, hidden


_CELLS = {"lstm": _lstm, "gru": _gru}


class ImageEncoder(nn.Module, kw_only=True):
    """Images (B, H, W, channels) -> (image (B, size), regions (B, N, size)), float32.

    The blocks of DF-GAN's discriminator. Regions are the places of the first map whose shorter side is at most
    `region_side`; the image's vector sees all of the last map, where things stand in it included.
    """

    resolution: int | Pair = 256  # of the images: side, or (height, width)
    channels: int = 3  # of the images
    width: int = 32  # features beside the image, doubled with each halving, up to 8 times so many
    region_side: int = 16
    size: int = 256  # entries of the vectors
    dtype: jnp.dtype = jnp.float32  # of the computation

    def __post_init__(self):
        check_least(self, {"channels": 1, "width": 1, "region_side": 4, "size": 1})
        sizes(self.resolution)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
        options = {"kernel_init": UNIFORM, "dtype": self.dtype}
        first, *rest = widths(self.resolution, self.width)
        x, regions = Conv(first, 3, name="stem", **options)(images.astype(self.dtype)), None
        for i, features in enumerate((0, *rest)):
            x = DownBlock(features, self.dtype, name=f"block{i}")(x) if features else x
            if regions is None and min(x.shape[1:3]) <= self.region_side:
                regions = Dense(self.size, False, name="region", **options)(x.reshape(len(x), -1, x.shape[-1]))
        image = Dense(self.size, name="image", **options)(x.reshape(len(x), -1))
        return image.astype(jnp.float32), regions.astype(jnp.float32)
