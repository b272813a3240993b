"""Pictures on the host, read back with PIL."""

import re
import subprocess

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from gan_jax import images


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_png_holds_every_pixel(tmp_path, channels):
    picture = noise(5, 7, channels)
    images.save(tmp_path / "a.png", picture)
    with Image.open(tmp_path / "a.png") as file:
        assert file.mode == {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
        np.testing.assert_array_equal(np.asarray(file).reshape(picture.shape), picture)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_failed_save_leaves_the_old_file(tmp_path):
    images.save(tmp_path / "a.png", noise(4, 4, 1))
    before = (tmp_path / "a.png").read_bytes()
    (tmp_path / ".a.png.part").symlink_to("/dev/full")
    with pytest.raises(OSError):
        images.save(tmp_path / "a.png", noise(64, 64, 3))
    assert (tmp_path / "a.png").read_bytes() == before


@pytest.mark.parametrize(("count", "columns", "rows", "laid"), [(4, 0, 2, 2), (5, 0, 2, 3), (1, 0, 1, 1), (5, 5, 1, 5)])
def test_a_grid_puts_image_i_in_its_row_and_column(count, columns, rows, laid):
    samples = noise(count, 3, 5, 2)
    grid = images.grid(samples, columns)
    gap = images.GAP
    assert grid.shape == (rows * (3 + gap) - gap, laid * (5 + gap) - gap, 2)
    for i, sample in enumerate(samples):
        y, x = (i // laid) * (3 + gap), (i % laid) * (5 + gap)
        np.testing.assert_array_equal(grid[y : y + 3, x : x + 5], sample)


def test_an_animation_has_its_frames(tmp_path):
    frames = noise(5, 8, 8, 1)
    images.save_animation(tmp_path / "a.gif", frames, fps=20)
    with Image.open(tmp_path / "a.gif") as file:
        assert file.n_frames == 5 and file.info["duration"] == 50 and file.info["loop"] == 0
        for number, frame in enumerate(frames):
            file.seek(number)
            np.testing.assert_array_equal(np.asarray(file.convert("L")), frame[:, :, 0])


def test_equal_frames_are_not_dropped(tmp_path):
    frames = np.repeat(noise(2, 8, 8, 1), 3, axis=0)
    images.save_animation(tmp_path / "a.gif", frames)
    with Image.open(tmp_path / "a.gif") as file:
        total = 0
        for number in range(file.n_frames):
            file.seek(number)
            total += file.info["duration"]
    assert total == 6 * 40, "equal neighbours may share a frame, never its time"


@pytest.mark.parametrize(("fps", "milliseconds"), [(25, 40), (30, 30), (50, 20), (1, 1000), (15, 70)])
def test_a_gif_counts_hundredths_of_seconds(tmp_path, fps, milliseconds):
    images.save_animation(tmp_path / "a.gif", noise(2, 4, 4, 1), fps=fps)
    with Image.open(tmp_path / "a.gif") as file:
        assert file.info["duration"] == milliseconds


def decoded(path) -> tuple[np.ndarray, str]:
    """The frames uint8 (N, H, W, 3) of a video, and the line in which ffmpeg describes it.

    `imageio_ffmpeg.read_frames` would fork this process, and JAX has threads.
    """
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, timeout=60)
    about = re.search(r"Stream #0.*Video: (.*)", done.stderr.decode())[1]
    width, height = map(int, re.search(r" (\d+)x(\d+)[ ,]", about).groups())
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3), about


@pytest.mark.parametrize(("channels", "shape", "size"), [(3, (64, 48), (64, 48)), (1, (17, 32), (18, 32)),
                                                         (4, (32, 21), (32, 22))])  # fmt: skip
def test_a_video_has_its_frames(tmp_path, channels, shape, size):
    """Four plain quarters a frame, whose colours move: chroma at half the resolution keeps what is not an edge."""
    colours = noise(9, 2, 2, channels)
    colours[0, 0, 0, :3], colours[1, 1, 1, :3] = [255, 0, 0][: min(channels, 3)], [0, 255, 0][: min(channels, 3)]
    rows, columns = (np.arange(n) * 2 // n for n in shape)
    frames = colours[:, rows][:, :, columns]
    images.save_video(tmp_path / "a.mp4", frames, fps=30)
    video, about = decoded(tmp_path / "a.mp4")
    assert video.shape == (9, *size, 3) and re.match(r"h264 .* yuv420p\(tv, bt709.* 30 fps", about), about
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    expected = np.broadcast_to(frames[..., :3] if channels > 1 else frames, (*frames.shape[:3], 3)).astype(int)
    away = [np.abs(2 * np.arange(n) + 1 - n) > 6 for n in shape]  # from the edges in the middle
    difference = np.abs(video[:, : shape[0], : shape[1]] - expected)[:, away[0]][:, :, away[1]]
    assert difference.mean() < 3 and np.percentile(difference, 99) < 12


def test_a_video_that_cannot_be_written_leaves_the_old_file(tmp_path):
    images.save_video(tmp_path / "a.mp4", noise(2, 8, 8, 3))
    before = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / ".a.mp4.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="ffmpeg: .*No space left"):
        images.save_video(tmp_path / "a.mp4", noise(3, 8, 8, 3))
    assert (tmp_path / "a.mp4").read_bytes() == before


def test_a_scatter_shows_points_where_they_are():
    """x grows to the right, y upwards; the densest place is white."""
    points = np.array([[0.9, 0.9]] * 9 + [[-0.9, -0.9]])
    picture = images.scatter(points, extent=1.0, size=10)
    assert picture.shape == (1, 10, 10, 1) and picture.dtype == np.uint8
    assert picture[0, 0, 9, 0] == 255 and 0 < picture[0, 9, 0, 0] < 255
    assert (picture > 0).sum() == 2
    assert images.scatter(np.zeros((0, 2)), extent=1.0).max() == 0


def test_rows_of_a_grid_have_one_label_each():
    """Images of one value each, their number plus one; the middle of every place is read."""
    B = images.BLANK

    def laid(labels):
        pictures = np.arange(1, len(labels) + 1, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 3, 1), np.uint8)
        picture, text = images.grid_by_label(pictures, np.array(labels))
        return picture[1 :: 3 + images.GAP, 1 :: 3 + images.GAP, 0].tolist(), text

    assert laid([1, 0, 1, 0, 1]) == ([[2, 4, B], [1, 3, 5]], ["1 row of label 0", "1 row of label 1"])
    assert laid([4] * 5) == ([[1, 2, 3], [4, 5, B]], ["2 rows of label 4"])
    lines = [f"1 image of label {label}" for label in range(7)]
    assert laid([6, 5, 4, 3, 2, 1, 0]) == ([[7, 6, 5], [4, 3, 2], [1, B, B]], lines)


def test_a_table_has_its_sources_above_and_to_the_left():
    top, left, cells = noise(3, 4, 5, 3), noise(2, 4, 5, 3)[::-1], noise(2, 3, 4, 5, 3)
    table = images.table(top, left, cells)
    gap = images.GAP
    assert table.shape == (3 * (4 + gap) - gap, 4 * (5 + gap) - gap, 3)

    def place(row, column):
        return table[row * (4 + gap) :, column * (5 + gap) :][:4, :5]

    assert (place(0, 0) == images.BLANK).all()
    for row in range(3):
        for column in range(4):
            if row or column:
                source = cells[row - 1, column - 1] if row and column else top[column - 1] if column else left[row - 1]
                np.testing.assert_array_equal(place(row, column), source)


def test_an_animated_png_keeps_all_colours(tmp_path):
    frames = noise(4, 8, 8, 3)
    images.save_animation(tmp_path / "a.apng", frames, fps=8)
    with Image.open(tmp_path / "a.apng") as file:
        assert (file.format, file.n_frames, file.info["duration"]) == ("PNG", 4, 125)
        for number, frame in enumerate(frames):
            file.seek(number)
            np.testing.assert_array_equal(np.asarray(file.convert("RGB")), frame)


def test_clips_are_a_sheet_and_a_grid_that_moves():
    first, then = noise(3, 2, 4, 5, 1), noise(3, 3, 4, 5, 1)
    sheet = images.contact_sheet([first, then])
    assert sheet.shape == (3 * 6 - 2, 2 * 7 - 2 + 8 + 3 * 7 - 2, 1)
    for row, (before, after) in enumerate(zip(first, then, strict=True)):
        for column, frame in enumerate([*before, *after]):
            x = 7 * column + (8 - 2 if column > 1 else 0)
            np.testing.assert_array_equal(sheet[6 * row :, x:][:4, :5], frame)
    moving = images.moving_grid(then)
    assert moving.shape == (3, 10, 12, 1)
    np.testing.assert_array_equal(moving[2, 6:10, :5], then[2, 2])


def test_a_grid_of_clips_has_an_animation_beside_it(tmp_path):
    frames = noise(3, 6, 6, 1)
    images.save_grid(tmp_path / "a.png", images.Grid(frames[0], frames))
    images.save_grid(tmp_path / "b.png", images.Grid(frames[0]))
    assert {file.name for file in tmp_path.iterdir()} == {"a.png", "a.gif", "b.png"}
    with Image.open(tmp_path / "a.gif") as file:
        assert file.n_frames == 3 and file.info["duration"] == 120  # 8 frames in a second, of hundredths
