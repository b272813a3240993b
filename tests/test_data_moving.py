"""Digits that bounce: real ones, where they are by hand, and none in both splits."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from gan_jax.data import open_dataset
from gan_jax.data.moving import bounced
from gan_jax.errors import UserError

LOOK = {"name": "digits:moving", "resolution": 16}


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GAN_JAX_CACHE_DIR", str(tmp_path))


def _held_out():
    """Which of scikit-learn's digits are of the test split: every fifth of those sorted by class."""
    target = load_digits().target
    order = sorted(range(1797), key=lambda i: (target[i], i))
    return set(order[::5])


def _boxes(video):
    """The corner (T, 2) of the one 8x8 box that holds all ink of each frame and the same picture in all of them."""
    t, h, w, _ = video.shape
    corners = [(y, x) for y in range(h - 7) for x in range(w - 7)]
    for digit in load_digits().images.round().astype(int):
        picture = np.round(digit * 255 / 16).astype(np.uint8)
        if any(frame.sum() != picture.sum() for frame in video):
            continue
        fits = [[c for c in corners if np.array_equal(frame[c[0] : c[0] + 8, c[1] : c[1] + 8, 0], picture)]
                for frame in video]  # fmt: skip
        if all(len(places) == 1 for places in fits):
            return np.array([places[0] for places in fits])
    raise AssertionError("no digit of scikit-learn's moves here")


@pytest.mark.parametrize("split", ["train", "test"])
def test_each_clip_is_a_real_digit_that_moves_a_pixel_a_frame_and_turns_at_the_edges(split):
    data = open_dataset(**LOOK, split=split, frames=12)
    assert data.size == {"train": 4000, "test": 500}[split] and data.shape == (12, 16, 16, 1)
    clips = data.examples(np.array([0, 1, data.size - 1]))
    for video in clips["video"]:
        steps = np.diff(_boxes(video), axis=0)
        np.testing.assert_array_equal(np.abs(steps).sum(1), 1)
        assert (np.abs(steps).sum(0) == 0).any()  # along one axis alone
        assert np.count_nonzero(np.diff(steps.sum(1))) in (1, 2)  # 11 steps in a room of 8: once or twice it turns back


def test_digits_are_of_their_split_and_labels_their_own():
    everything, held_out = load_digits(), _held_out()
    by_pixels = {np.round(image * 255 / 16).astype(np.uint8).tobytes(): i for i, image in enumerate(everything.images)}
    for split in ("train", "test"):
        data = open_dataset(**LOOK, split=split, frames=2)
        batch, numbers = data.examples(np.arange(0, data.size, 7)), []
        for frame in batch["video"][:, 0, ..., 0]:
            rows, columns = np.nonzero(frame)
            boxes = [frame[y : y + 8, x : x + 8].tobytes() for y in range(max(rows.max() - 7, 0), rows.min() + 1)
                     for x in range(max(columns.max() - 7, 0), columns.min() + 1)]  # fmt: skip
            numbers.append(next(by_pixels[box] for box in boxes if box in by_pixels))
        assert {number in held_out for number in numbers} == {split == "test"}
        np.testing.assert_array_equal(batch["label"], everything.target[numbers])
        assert len(set(numbers)) > 60 and min(data.class_counts) > data.size / 15


def test_all_four_directions_and_all_places_occur():
    firsts = open_dataset(**LOOK, frames=2).examples(np.arange(400))["video"].astype(float)[..., 0]
    place = np.arange(16)
    y, x = ((firsts.sum(axis) * place).sum(-1) / firsts.sum((-1, -2)) for axis in (3, 2))
    moves = np.stack([np.diff(y, axis=1)[:, 0], np.diff(x, axis=1)[:, 0]], 1).round().astype(int)
    counts = np.unique(moves, axis=0, return_counts=True)
    np.testing.assert_array_equal(counts[0], [[-1, 0], [0, -1], [0, 1], [1, 0]])
    assert counts[1].min() > 60
    for centres in (y[:, 0], x[:, 0]):
        assert centres.min() < 4.5 and centres.max() > 10.5


def test_frames_that_are_left_out_make_it_faster():
    slow, fast = (open_dataset(**LOOK, frames=frames, frame_step=step) for frames, step in ((7, 1), (3, 3)))
    np.testing.assert_array_equal(
        fast.examples(np.arange(20))["video"], slow.examples(np.arange(20))["video"][:, ::3]
    )
    assert fast.protocol()["frame_step"] == 3 and fast.fingerprint != slow.fingerprint


def test_frames_of_any_size_and_the_same_clips_in_any_order():
    data = open_dataset(name="digits:moving", resolution=(12, 20), frames=3)
    assert data.shape == (3, 12, 20, 1)
    stream = data.stream(seed=1, start=0, batch_size=4, rows=np.arange(4))
    first = next(stream)
    stream.close()
    assert first["video"].shape == (4, 3, 12, 20, 1) and first["video"].dtype == np.uint8


def test_a_line_is_folded_between_two_ends():
    np.testing.assert_array_equal(bounced(np.arange(-3, 8), 3), [3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1])


@pytest.mark.parametrize(("settings", "message"), [
    ({}, "'digits:moving': are clips; set data.frames to how many frames one has, such as 8"),
    ({"frames": 1}, "data.frames=1: a clip has two frames or more; 0 reads pictures"),
    ({"frames": -2}, "data.frames=-2: expected a whole number of at least 0"),
    ({"frame_step": 2}, "data.frame_step=2: is of clips; set data.frames"),
    ({"frames": 4, "channels": 3}, "is grey: set data.channels=1, not 3"),
    ({"frames": 4, "resolution": 8}, "a digit of 8x8 pixels does not move in 8x8; set data.resolution to 9 or more"),
    ({"frames": 4, "split": "val"}, "data.split='val' is not known.*train, test"),
    ({"frames": 4, "name": "digits"}, "data.frames=4: clips are cut out of the films of 'folder:PATH'.*'digits' has"),
    ({"frames": 4, "name": "faces"}, "'faces' has pictures, data.frames=0"),
    ({"frames": 4, "name": "folder:x", "pair": "folders"}, "data.frames=4 with data.pair='folders'"),
])  # fmt: skip
def test_settings_that_make_no_clips_are_named(settings, message):
    with pytest.raises(UserError, match=message):
        open_dataset(**{**LOOK, **settings})
