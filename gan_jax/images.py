"""Pictures on the host: grids, PNG files, GIF, APNG and MP4 animations, scatter plots of points."""

import contextlib
import dataclasses
import functools
import io
import math
import os
import pathlib
import subprocess

import numpy as np

from gan_jax import ffmpeg

GAP = 2  # pixels between the images of a grid
BLANK = 96  # of gaps and empty places
FPS = 25  # frames of an animation in a second
CLIP_FPS = 8  # of a clip, which has few


@dataclasses.dataclass(frozen=True)
class Grid:
    """All samples in one picture; of clips a sheet of their frames, and the same moving."""

    picture: np.ndarray  # uint8 (H, W, C)
    frames: np.ndarray | None = None  # uint8 (T, H, W, C), of clips

    @functools.cached_property
    def gif(self) -> bytes:
        """The frames as an endless GIF; nothing of still samples."""
        return b"" if self.frames is None else encoded(self.frames, "GIF", CLIP_FPS)


def grid(images: np.ndarray, columns: int = 0) -> np.ndarray:
    """Lays images out in rows.

    Args:
      images: uint8 (N, H, W, C) with 1 to 4 channels.
      columns: images in a row; 0 for the nearest to a square.
    Returns:
      uint8 (rows * (H + GAP) - GAP, columns * (W + GAP) - GAP, C); gaps grey, empty places too.
    """
    n, h, w, c = images.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    canvas = np.full((rows * columns, h + GAP, w + GAP, c), BLANK, np.uint8)
    canvas[:n, :h, :w] = images
    laid = canvas.reshape(rows, columns, h + GAP, w + GAP, c).swapaxes(1, 2)
    return laid.reshape(rows * (h + GAP), columns * (w + GAP), c)[:-GAP, :-GAP]


def grid_by_label(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """A grid whose rows are of one label each, or in the order of labels where few images share one.

    Args:
      images: uint8 (N, H, W, C).
      labels: int (N,).
    Returns:
      The picture, as of `grid`, and how many rows or images of which label it shows from top to bottom.
    """
    classes, counts = np.unique(labels, return_counts=True)
    most = int(counts.max())

    def rows(columns: int) -> np.ndarray:
        return -(-counts // columns)

    columns = next((n for n in range(1, most) if rows(n).sum() <= n), most)
    order, unit, numbers = np.argsort(labels, kind="stable"), "row", rows(columns)
    if numbers.sum() > 4 * columns:  # too tall a picture
        columns, unit, numbers = 0, "image", counts
    else:
        parts = np.split(order, np.cumsum(counts)[:-1])
        padded = [np.pad(part, (0, n * columns - len(part)), constant_values=-1)
                  for part, n in zip(parts, numbers, strict=True)]  # fmt: skip
        order = np.concatenate(padded)
    blank = np.full_like(images[:1], BLANK)
    lines = [f"{n} {unit}{'s' * (n != 1)} of label {label}" for n, label in zip(numbers.tolist(), classes, strict=True)]
    return grid(np.concatenate([images, blank])[order], columns), lines


def beside(pictures: list[np.ndarray]) -> np.ndarray:
    """Pictures of the same samples side by side, one row of pixels a sample.

    Args:
      pictures: each uint8 (N, H, W, C), of any size and of 1, 3 or 4 channels; smaller ones are enlarged by repeating
        pixels, gray ones become as many-coloured as the others, alpha is dropped.
    Returns:
      uint8 (N, H, sum of W and gaps, C), C 1 or 3.
    """
    height = max(x.shape[1] for x in pictures)
    colours = 1 if all(x.shape[-1] < 3 for x in pictures) else 3
    laid = []
    for x in pictures:
        width = round(x.shape[2] * height / x.shape[1])
        rows, columns = (np.arange(n) * old // n for n, old in ((height, x.shape[1]), (width, x.shape[2])))
        x = x[:, rows][:, :, columns]
        x = x[..., :3] if x.shape[-1] > 2 else x[..., :1].repeat(colours, axis=-1)
        laid += [x, np.full((len(x), height, GAP, colours), BLANK, np.uint8)]
    return np.concatenate(laid[:-1], axis=2)


def contact_sheet(parts: list[np.ndarray]) -> np.ndarray:
    """Frames of clips in one picture: a clip a row, its frames from left to right.

    Args:
      parts: each uint8 (N, T, H, W, C), of clips that follow each other, with a wider gap between.
    """
    sheets = [grid(clips.reshape(-1, *clips.shape[2:]), clips.shape[1]) for clips in parts]
    gap = np.full((len(sheets[0]), 4 * GAP, sheets[0].shape[2]), BLANK, np.uint8)
    laid = [x for sheet in sheets for x in (sheet, gap)]
    return np.concatenate(laid[:-1], axis=1)


def moving_grid(clips: np.ndarray) -> np.ndarray:
    """Clips uint8 (N, T, H, W, C) side by side, as `grid` lays their first frames out; uint8 (T, H', W', C)."""
    return np.stack([grid(frames) for frames in clips.swapaxes(0, 1)])


def table(top: np.ndarray, left: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Images (R, C, H, W, c) in rows and columns, with those of the columns (C, ...) above and the rows' (R, ...) left.

    Returns:
      One uint8 picture, as of `grid`.
    """
    corner = np.full_like(top[:1], BLANK)
    body = np.concatenate([left[:, None], cells], axis=1)
    return grid(np.concatenate([corner, top, body.reshape(-1, *top.shape[1:])]), len(top) + 1)


def save(path: os.PathLike | str, image: np.ndarray) -> None:
    """Writes one uint8 image (H, W, C), C = 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGBA), whole or not at all."""
    path = pathlib.Path(path)
    part = path.with_name(f".{path.name}.part")
    _pil(image).save(part, format="PNG")
    os.replace(part, path)


def save_grid(path: os.PathLike | str, grid: Grid) -> None:
    """Writes a grid as PNG, and that of clips moving beside it, by the same name, as GIF; whole or not at all."""
    save(path, grid.picture)
    if grid.gif:
        _write(pathlib.Path(path).with_suffix(".gif"), grid.gif)


def save_animation(path: os.PathLike | str, frames: np.ndarray, *, fps: int = FPS) -> None:
    """Writes uint8 frames (N, H, W, C) as an endless GIF, or APNG where the path ends so, whole or not at all.

    A GIF counts hundredths of seconds: each frame lasts the whole number of them that is nearest to 1 / `fps`. It has
    256 colours a frame, which grey ones and those of an APNG do not lose any of. Equal neighbours are one longer frame.
    """
    path = pathlib.Path(path)
    _write(path, encoded(frames, "PNG" if path.suffix == ".apng" else "GIF", fps))


def encoded(frames: np.ndarray, form: str, fps: int) -> bytes:
    """The bytes of an animation, see `save_animation`; `form` is GIF or PNG."""
    file, (first, *rest) = io.BytesIO(), [_pil(frame) for frame in frames]
    duration = 10 * round(100 / fps) if form == "GIF" else 1000 / fps
    first.save(file, format=form, save_all=True, append_images=rest, duration=duration, loop=0)
    return file.getvalue()


def _write(path: pathlib.Path, data: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(data)
    os.replace(part, path)


def save_video(path: os.PathLike | str, frames: np.ndarray, *, fps: int = FPS) -> None:
    """Writes uint8 frames (N, H, W, C) as MP4 (H.264), whole or not at all; alpha is dropped.

    Colours have half the resolution, which all players can show. That needs even sides: of odd ones the last row or
    column is there twice.

    Raises:
      UserError: there is no ffmpeg, see `ffmpeg.find`.
      OSError: ffmpeg does not write the file; the message has its words.
    """
    path, program = pathlib.Path(path), ffmpeg.find()
    part = path.with_name(f".{path.name}.part")
    frames = frames[..., :3] if frames.shape[3] >= 3 else frames[..., :1].repeat(3, axis=3)
    frames = np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), "edge")
    matrix = "bt709"  # named in the file, so that no player has to guess it from the size
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{frames.shape[2]}x{frames.shape[1]}", "-r", str(fps)]
    colours = ["-vf", f"scale=out_color_matrix={matrix}:out_range=tv", "-colorspace", matrix]
    colours += ["-color_primaries", matrix, "-color_trc", matrix, "-color_range", "tv", "-pix_fmt", "yuv420p"]
    codec = ["-c:v", "libx264", "-crf", "16", "-movflags", "+faststart", "-f", "mp4"]
    command = [program, "-y", "-v", "error", *source, "-i", "-", *colours, *codec, str(part)]
    done = subprocess.run(command, input=np.ascontiguousarray(frames).data, capture_output=True)
    if done.returncode:
        with contextlib.suppress(OSError):
            part.unlink()
        raise OSError(f"ffmpeg: {done.stderr.decode(errors='replace').strip()[-300:]}")
    os.replace(part, path)


def scatter(points: np.ndarray, *, extent: float, size: int = 256) -> np.ndarray:
    """Points (N, 2) drawn as a density.

    Args:
      points: coordinates.
      extent: the picture spans [-extent, extent] on both axes.
      size: its height and width in pixels.
    Returns:
      uint8 (1, size, size, 1), white where points lie.
    """
    edges = np.linspace(-extent, extent, size + 1)
    counts, _, _ = np.histogram2d(-points[:, 1], points[:, 0], bins=(edges, edges))
    shade = np.log1p(counts) / max(math.log1p(counts.max()), 1e-9)
    return np.round(255 * shade).astype(np.uint8)[None, :, :, None]


def _pil(image: np.ndarray):
    from PIL import Image

    modes = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
    assert image.ndim == 3 and image.shape[2] in modes, image.shape
    return Image.fromarray(
        image[:, :, 0] if image.shape[2] == 1 else np.ascontiguousarray(image), modes[image.shape[2]]
    )
