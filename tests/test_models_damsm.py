"""AttnGAN's encoders: recurrent cells against numpy, padding, shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.errors import UserError
from gan_jax.models import damsm
from tests import settings

TOKENS = np.array([[3, 1, 4, 0, 0], [2, 6, 5, 1, 3], [7, 0, 0, 0, 0]], np.int32)


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _read(params, words, cell):
    """Hidden states of one direction (T, half), by the equations that PyTorch's documentation gives."""
    kernel, bias, recurrent, recurrent_bias = params
    half = len(recurrent)
    hidden, state, states = np.zeros(half), np.zeros(half), []
    for x in words:
        a, b = x @ kernel + bias[0], hidden @ recurrent + recurrent_bias[0]
        if cell == "lstm":
            i, f, g, o = np.split(a + b, 4)
            state = _sigmoid(f) * state + _sigmoid(i) * np.tanh(g)
            hidden = _sigmoid(o) * np.tanh(state)
        else:
            (ar, az, an), (br, bz, bn) = np.split(a, 3), np.split(b, 3)
            update = _sigmoid(az + bz)
            hidden = (1 - update) * np.tanh(an + _sigmoid(ar + br) * bn) + update * hidden
        states.append(hidden)
    return np.array(states)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_both_directions_read_the_words_alone(cell):
    """Each caption by itself in numpy, without its padding: the backward direction begins at the last word."""
    net = damsm.TextEncoder(vocabulary=8, cell=cell, embedding=3, size=6)
    variables = jax.tree.map(lambda x: 3 * x, net.init(jax.random.key(0), TOKENS, train=True))
    sentence, words = jax.jit(lambda v, t: net.apply(v, t, train=False))(variables, TOKENS)
    params = {name: np.asarray(x, np.float64) for name, x in variables["params"].items()}
    names = ("input_kernel", "input_bias", "recurrent_kernel", "recurrent_bias")
    for row, tokens in enumerate(TOKENS):
        embedded = params["embed"][tokens[tokens > 0]]
        forward = _read([params[name][0] for name in names], embedded, cell)
        backward = _read([params[name][1] for name in names], embedded[::-1], cell)
        expected = np.concatenate([forward, backward[::-1]], 1)
        np.testing.assert_allclose(words[row, : len(expected)], expected, atol=1e-6)
        assert not np.asarray(words[row, len(expected) :]).any()
        np.testing.assert_allclose(sentence[row], np.concatenate([forward[-1], backward[-1]]), atol=1e-6)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_padding_changes_nothing_and_has_no_gradient(cell):
    net = damsm.TextEncoder(vocabulary=8, cell=cell, embedding=3, size=6)
    variables = net.init(jax.random.key(0), TOKENS, train=True)
    longer = np.pad(TOKENS, ((0, 0), (0, 3)))
    sentence, words = net.apply(variables, TOKENS, train=False)
    padded, more = net.apply(variables, longer, train=False)
    np.testing.assert_array_equal(padded, sentence)
    np.testing.assert_array_equal(more[:, :5], words)
    assert not np.asarray(more[:, 5:]).any()
    slopes = jax.grad(lambda v: net.apply(v, TOKENS, train=False)[1].sum())(variables)["params"]["embed"]
    assert not slopes[0].any() and np.abs(slopes[1:]).max(1).min() > 0


def test_a_normalised_sentence_has_the_length_of_its_size_and_the_same_direction():
    plain, long = (damsm.TextEncoder(vocabulary=8, embedding=3, size=6, normalise=n) for n in (False, True))
    variables = plain.init(jax.random.key(0), TOKENS, train=True)
    (before, words), (after, same) = (net.apply(variables, TOKENS, train=False) for net in (plain, long))
    np.testing.assert_array_equal(words, same)
    expected = np.sqrt(6) * before / np.linalg.norm(before, axis=1, keepdims=True)
    np.testing.assert_allclose(after, expected, rtol=1e-5)


@pytest.mark.parametrize("normalise", [False, True])
def test_an_empty_caption_is_zero(normalise):
    net = damsm.TextEncoder(vocabulary=8, embedding=3, size=6, normalise=normalise)
    empty = np.zeros((2, 4), np.int32)
    sentence, words = net.apply(net.init(jax.random.key(0), empty, train=True), empty, train=False)
    assert not sentence.any() and not words.any()


def test_words_are_dropped_in_training_alone_each_caption_by_its_own_key():
    net = damsm.TextEncoder(vocabulary=8, embedding=16, size=6, dropout=0.5)
    variables, keys = net.init(jax.random.key(0), TOKENS, train=True), jax.random.split(jax.random.key(1), 3)
    plain, _ = net.apply(variables, TOKENS, train=False, keys=keys)
    np.testing.assert_array_equal(plain, net.apply(variables, TOKENS, train=True)[0])
    dropped, _ = net.apply(variables, TOKENS, train=True, keys=keys)
    assert np.abs(dropped - plain).max(1).min() > 1e-4
    other, _ = net.apply(variables, TOKENS, train=True, keys=jnp.concatenate([keys[:1], keys[:0:-1]]))
    np.testing.assert_allclose(other[0], dropped[0], atol=1e-7)
    assert np.abs(other[1] - dropped[1]).max() > 1e-5


def test_the_text_encoder_has_as_many_parameters_as_the_published_one():
    """A bidirectional LSTM of 300 to 2 x 128, each gate with two biases, and the words' vectors."""
    shapes = jax.eval_shape(lambda: damsm.TextEncoder(vocabulary=5450).init(jax.random.key(0), TOKENS, train=True))
    expected = 5450 * 300 + 2 * 4 * 128 * (300 + 128 + 2)
    assert sum(x.size for x in jax.tree.leaves(shapes)) == expected


@pytest.mark.parametrize(("resolution", "side", "regions"), [(32, 16, 256), (32, 4, 16), ((8, 16), 4, 32), (8, 16, 64)])
def test_regions_are_the_places_of_a_map_of_that_side(resolution, side, regions):
    net = damsm.ImageEncoder(resolution=resolution, channels=1, width=2, region_side=side, size=5)
    height, width = (resolution, resolution) if isinstance(resolution, int) else resolution
    images = np.zeros((2, height, width, 1), np.float32)
    variables = settings.numpy_variables(net, images)
    image, places = net.apply(variables, images, train=False)
    assert image.shape == (2, 5) and places.shape == (2, regions, 5)


@pytest.mark.parametrize(("fields", "message"), [
    ({"vocabulary": 1}, "vocabulary=1: expected 2 or more"), ({"size": 5}, "size=5: expected an even number"),
    ({"cell": "rnn"}, "cell 'rnn' is unknown; expected one of lstm, gru"),
    ({"dropout": 1.0}, "dropout=1.0: expected 0 or more and below 1"),
])  # fmt: skip
def test_errors(fields, message):
    with pytest.raises(UserError, match=message):
        damsm.TextEncoder(**fields)
