"""How alike captions and images are, and the loss that makes them so (AttnGAN: 1711.10485, eq. 7 to 13)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gan_jax import parallel

NEVER = -1e9  # in place of what is to have no share of a softmax; finite, so that an empty caption has gradients


class Sharpness(NamedTuple):
    """Factors in the exponents, see the functions."""

    attention: float = 4.0  # gamma 1
    words: float = 5.0  # gamma 2
    contrast: float = 10.0  # gamma 3


def cosine(a: jax.Array, b: jax.Array) -> jax.Array:
    """Of vectors (..., D), (...); 0 where one has no length."""
    lengths = jnp.sum(a * a, -1) * jnp.sum(b * b, -1)
    return jnp.sum(a * b, -1) * jax.lax.rsqrt(jnp.maximum(lengths, 1e-12))


def of_sentences(images: jax.Array, sentences: jax.Array) -> jax.Array:
    """Cosines (I, C) of images (I, D) and sentences (C, D)."""
    return cosine(images[:, None], sentences[None])


def of_words(regions: jax.Array, words: jax.Array, is_word: jax.Array, sharpness: Sharpness) -> jax.Array:
    """Scores (I, C) of images by their regions (I, N, D) and captions by their words (C, L, D), eq. 7 to 10.

    Each word attends to the regions that prefer it to the caption's others, and is compared with what it sees.

    Args:
      is_word: (C, L), False at padding.
      sharpness: `attention` and `words` are used.
    """
    there = is_word[None, :, :, None]
    similarity = jnp.einsum("cld,ind->icln", words, regions)  # eq. 7
    shares = jax.nn.softmax(jnp.where(there, similarity, NEVER), 2)  # of the words, in each region: eq. 8
    attention = jax.nn.softmax(sharpness.attention * shares, 3)
    seen = jnp.einsum("icln,ind->icld", attention, regions)  # eq. 9
    relevance = jnp.where(is_word, sharpness.words * cosine(seen, words[None]), NEVER)
    return jax.nn.logsumexp(relevance, -1) / sharpness.words  # eq. 10


def contrast(scores: jax.Array, tokens: jax.Array, sharpness: Sharpness) -> tuple[jax.Array, jax.Array]:
    """How badly each image of this device names its caption among all, and each caption its image (eq. 11 to 13).

    Captions that say the same are no negatives of each other.

    Args:
      scores: (b, B), of this device's images with the captions of all devices.
      tokens: (B, L), of all devices, equal on each.
      sharpness: `contrast` is used.
    Returns:
      The loss of each pair (b,), and whether its caption has the highest score of the image (b,), float32.
    """
    own = parallel.sample_index(len(scores))
    same = (tokens[own][:, None] == tokens[None]).all(-1)
    is_own = own[:, None] == jnp.arange(len(tokens))
    logits = jnp.where(same & ~is_own, NEVER, sharpness.contrast * scores)
    positive = jnp.sum(jnp.where(is_own, logits, 0.0), 1)
    columns = jnp.take(parallel.gather(logits), own, axis=1)  # of this device's captions with all images
    loss = jax.nn.logsumexp(logits, 1) + jax.nn.logsumexp(columns, 0) - 2 * positive
    return loss, (logits.max(1) == positive).astype(jnp.float32)
