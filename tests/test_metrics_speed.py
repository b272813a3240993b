"""Speed of clips whose motion is known, and reals whose motion is taken away."""

import numpy as np
import pytest

from gan_jax import metrics
from gan_jax.errors import UserError


def _squares(corners, level=200, background=0, size=(20, 24), channels=1):
    """Clips (1, T, H, W, C) of a square of 4x4 pixels at these corners."""
    clip = np.full((1, len(corners), *size, channels), background, np.uint8)
    for frame, (y, x) in zip(clip[0], corners, strict=True):
        frame[y : y + 4, x : x + 4] = level
    return clip


@pytest.mark.parametrize(("step", "expected"), [((0, 1), 1.0), ((2, 0), 2.0), ((3, 4), 5.0), ((0, 0), 0.0)])
def test_it_is_the_path_of_the_centre(step, expected):
    clip = _squares([(t * step[0], t * step[1]) for t in range(4)])
    np.testing.assert_allclose(metrics.speed(clip), [expected], atol=1e-9)


def test_any_even_background_and_colours_of_ink():
    dark_on_light = _squares([(0, t) for t in range(5)], level=20, background=240, channels=3)
    np.testing.assert_allclose(metrics.speed(dark_on_light), [1.0], atol=1e-9)


def test_a_haze_does_not_slow_it_and_a_frame_without_ink_has_no_centre():
    clip = _squares([(2, 3 * t) for t in range(4)])
    hazy = np.where(clip == 0, np.random.default_rng(0).integers(0, 40, clip.shape), clip).astype(np.uint8)
    np.testing.assert_allclose(metrics.speed(hazy), [3.0], atol=1e-9)
    clip[:, 1] = 0
    np.testing.assert_allclose(metrics.speed(clip), [3.0], atol=1e-9)  # of the last two frames alone
    np.testing.assert_array_equal(metrics.speed(np.zeros((2, 3, 8, 8, 1), np.uint8)), [0, 0])


def test_several_are_measured_one_by_one():
    clips = np.concatenate([_squares([(0, s * t) for t in range(4)]) for s in (1, 2, 5)])
    np.testing.assert_allclose(metrics.speed(clips), [1, 2, 5], atol=1e-9)


@pytest.mark.parametrize("clips", [np.zeros((2, 8, 8, 1), np.uint8), np.zeros((2, 1, 8, 8, 1), np.uint8),
                                   np.zeros((2, 3, 8, 8, 1))])  # fmt: skip
def test_what_are_no_clips_is_refused(clips):
    with pytest.raises(UserError, match="speed of clips .*two frames or more"):
        metrics.speed(clips)


def test_frames_in_another_order_and_frames_that_stand():
    clips = np.arange(3 * 6 * 2 * 2 * 1, dtype=np.uint8).reshape(3, 6, 2, 2, 1)
    shuffled, again = (metrics.shuffled_frames(clips, seed=1) for _ in range(2))
    np.testing.assert_array_equal(shuffled, again)
    assert not np.array_equal(shuffled, clips)
    np.testing.assert_array_equal(np.sort(shuffled[..., 0, 0, 0], axis=1), clips[..., 0, 0, 0])
    for clip, other in zip(clips, shuffled, strict=True):  # whole frames moved
        places = (other[:, 0, 0, 0] - clip[0, 0, 0, 0]) // 4
        np.testing.assert_array_equal(other, clip[places])
    np.testing.assert_array_equal(metrics.still_frames(clips), clips[:, [0] * 6])
