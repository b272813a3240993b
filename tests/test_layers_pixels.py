"""Between bytes and [-1, 1], of images and of clips."""

import jax.numpy as jnp
import numpy as np

from gan_jax.layers import pixels


def test_bytes_come_back_from_the_range_of_networks():
    for shape in ((4, 8, 8, 1), (2, 2, 8, 8, 1)):
        levels = np.arange(256, dtype=np.uint8).reshape(shape)
        x = pixels.normalise(jnp.asarray(levels))
        assert (float(x.min()), float(x.max())) == (-1.0, 1.0)
        np.testing.assert_array_equal(pixels.quantise(x), levels)
    points = jnp.ones((3, 2)) * 0.5
    np.testing.assert_array_equal(pixels.quantise(points), points)


def test_a_clip_is_mirrored_as_a_whole():
    clips = np.random.default_rng(0).normal(size=(3, 4, 5, 6, 1))
    flipped = pixels.random_flip(jnp.asarray(clips), jnp.array([0.1, 0.6, 0.49]))
    np.testing.assert_allclose(flipped[0], clips[0, :, :, ::-1], rtol=1e-6)
    np.testing.assert_allclose(flipped[1], clips[1], rtol=1e-6)
    np.testing.assert_allclose(flipped[2], clips[2, :, :, ::-1], rtol=1e-6)
    images = pixels.random_flip(jnp.asarray(clips[:, 0]), jnp.zeros(3))
    np.testing.assert_allclose(images, clips[:, 0, :, ::-1], rtol=1e-6)
