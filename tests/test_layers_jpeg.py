"""JPEG on the device beside Pillow's."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from skimage import data

from gan_jax.layers import jpeg

PICTURE = data.astronaut()[:90, 150:253]  # sides that are no multiples of 16


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_pillow_s(channels):
    """Within a fraction of what writing itself changes, and within a few levels at edges of colours."""
    qualities = (30, 50, 75, 95)
    picture = PICTURE if channels == 3 else PICTURE[..., 1:2]
    batch = jnp.asarray(np.repeat(picture[None], len(qualities), 0) / np.float32(255))
    ours = np.asarray(jax.jit(jpeg.jpeg)(batch, jnp.array(qualities, jnp.float32))) * 255
    np.testing.assert_allclose(ours, np.round(ours), atol=1e-3)
    for written, quality in zip(ours, qualities, strict=True):
        file = io.BytesIO()
        Image.fromarray(picture.squeeze()).save(file, "JPEG", quality=quality)
        theirs = np.asarray(Image.open(file)).reshape(picture.shape).astype(float)
        error, loss = np.abs(written - theirs), np.abs(theirs - picture).mean()
        assert error.mean() < (0.75 if channels == 3 else 0.3) and error.mean() < 0.4 * loss, quality
        assert error.max() <= 20


def test_a_flat_square_keeps_its_level_to_the_first_step():
    """The first coefficient is eight times the level less 128, a multiple of its step: 16 at quality 50."""
    flat = jnp.full((1, 16, 16, 1), 77 / 255)
    written = jpeg.jpeg(flat, jnp.array([50.0]))
    expected = round(8 * (77 - 128) / 16) * 16 / 8 + 128
    np.testing.assert_allclose(written * 255, np.round(expected), atol=1e-3)
