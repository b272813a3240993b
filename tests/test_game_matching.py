"""How alike captions and images are, against AttnGAN's equations in plain loops."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import parallel
from gan_jax.games import matching
from tests import settings

SHARPNESS = matching.Sharpness(attention=2.0, words=3.0, contrast=4.0)


def _relevance(regions, words, sharpness):
    """Eq. 7 to 10 of one image (N, D) and one caption (T, D) in float64."""
    count, places = len(words), len(regions)
    s = np.array([[e @ v for v in regions] for e in words])
    shares = np.exp(s) / np.exp(s).sum(0)
    total = 0.0
    for i in range(count):
        weights = np.exp(sharpness.attention * shares[i])
        seen = sum(weights[j] / weights.sum() * regions[j] for j in range(places))
        alike = seen @ words[i] / np.linalg.norm(seen) / np.linalg.norm(words[i])
        total += math.exp(sharpness.words * alike)
    return math.log(total ** (1 / sharpness.words))


def test_words_and_regions():
    rng = np.random.default_rng(0)
    regions, words, lengths = rng.standard_normal((3, 4, 5)), rng.standard_normal((2, 6, 5)), (6, 3)
    is_word = np.arange(6) < np.array(lengths)[:, None]
    scores = matching.of_words(*(jnp.asarray(x, jnp.float32) for x in (regions, words)), is_word, SHARPNESS)
    expected = [[_relevance(v, e[:n], SHARPNESS) for e, n in zip(words, lengths, strict=True)] for v in regions]
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    padded = np.pad(words, ((0, 0), (0, 2), (0, 0)), constant_values=7.0).astype(np.float32)
    more = matching.of_words(jnp.asarray(regions, jnp.float32), padded, np.pad(is_word, ((0, 0), (0, 2))), SHARPNESS)
    np.testing.assert_allclose(more, scores, rtol=1e-6)


def test_sentences():
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((3, 5)), rng.standard_normal((2, 5))
    expected = (a @ b.T) / np.outer(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))
    scores = matching.of_sentences(*(jnp.asarray(x, jnp.float32) for x in (a, b)))
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    assert not np.asarray(matching.of_sentences(jnp.zeros((1, 5)), jnp.ones((1, 5)))).any()


def test_an_empty_caption_has_finite_slopes():
    def loss(words):
        return matching.of_words(jnp.ones((1, 2, 3)), words, jnp.zeros((1, 4), bool), SHARPNESS).sum()

    assert np.isfinite(jax.grad(loss)(jnp.zeros((1, 4, 3)))).all()


@pytest.mark.parametrize("devices", [1, 2])
def test_contrast_of_all_pairs_but_those_of_equal_captions(devices):
    """Eq. 11 to 13 in numpy, with the second and the fourth caption the same."""
    scores = np.random.default_rng(2).standard_normal((4, 4)).astype(np.float32)
    tokens = np.array([[1, 2], [3, 0], [2, 1], [3, 0]], np.int32)
    mesh = settings.mesh(devices)

    def play(shared, scores):
        return jnp.stack(matching.contrast(scores, shared, SHARPNESS), 1)

    result = np.asarray(parallel.over_samples(play, mesh)(tokens, scores))
    logits = np.float64(SHARPNESS.contrast * scores)
    for i in range(4):
        others = [j for j in range(4) if j == i or (tokens[i] != tokens[j]).any()]
        rows, columns = np.exp(logits[i, others]).sum(), np.exp(logits[others, i]).sum()
        expected = math.log(rows) + math.log(columns) - 2 * logits[i, i]
        assert result[i, 0] == pytest.approx(expected, rel=1e-5)
        assert result[i, 1] == (logits[i, i] == logits[i, others].max())
