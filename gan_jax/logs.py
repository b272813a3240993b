"""What a run tells: lines for people, `metrics.jsonl` for programs, TensorBoard for both."""

import json
import math
import os
import pathlib
import sys
import time

import numpy as np

from gan_jax.errors import UserError


def append_line(path: pathlib.Path, row: dict) -> None:
    """Appends one JSON line and flushes it. Raises UserError where the disk does not take it."""
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written: {error.strerror}; checkpoints are kept. Make room and run the same command again"
        ) from error


def drop_lines_after(path: pathlib.Path, step: int) -> None:
    """Removes lines of later steps, and a half-written last one, so that a resumed run writes each step once."""
    if not path.is_file():
        return
    kept = [row for row in read_lines(path) if row.get("step", 0) <= step]
    part = path.with_name(f".{path.name}.part")
    part.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    os.replace(part, path)


def read_lines(path: pathlib.Path) -> list[dict]:
    """The JSON objects of a file of lines; an unfinished line is passed over."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


class Log:
    """The files and the progress line of one run; silent where `active` is false (processes other than the first)."""

    def __init__(
        self,
        workdir: pathlib.Path,  # the run's folder
        *,
        total_images: int,  # the length of the run
        images: int = 0,  # where it stands
        active: bool = True,  # whether this process writes
    ):
        self.active, self.workdir, self.total = active, workdir, total_images
        self.images, self.last_images, self.last_time = images, images, time.monotonic()
        self.board = self.bar = None
        if not active:
            return
        from tensorboardX import SummaryWriter

        self.board = SummaryWriter(str(workdir))
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=total_images, initial=images, unit="img", unit_scale=True, dynamic_ncols=True)

    def say(self, text: str) -> None:
        """One line for people, on standard output."""
        if not self.active:
            return
        if self.bar is not None:
            self.bar.write(text)
        else:
            print(text, flush=True)

    def advance(self, images: int) -> None:
        """Moves the progress line to this many images seen."""
        if self.bar is not None:
            self.bar.update(images - self.bar.n)

    def scalars(self, step: int, images: int, metrics: dict[str, float]) -> None:
        """One line of `metrics.jsonl`, the same to TensorBoard, and the losses to people."""
        now = time.monotonic()
        speed = (images - self.last_images) / max(now - self.last_time, 1e-9)
        self.last_images, self.last_time = images, now
        if not self.active:
            return
        append_line(self.workdir / "metrics.jsonl", {"step": step, "images": images, "images_per_second": speed, **metrics})
        for name, value in {**metrics, "images_per_second": speed}.items():
            self.board.add_scalar(name, value, images)
        losses = {name.removesuffix("/loss"): f"{value:.3f}" for name, value in metrics.items() if name.endswith("/loss")}
        if self.bar is not None:
            self.bar.set_postfix(losses)
            return
        left = (self.total - images) / max(speed, 1e-9)
        text = " ".join(f"{name} {value}" for name, value in losses.items())
        print(f"{images:>9} images  {speed:7.1f} images/s  {duration(left)} left  {text}", flush=True)

    def picture(self, name: str, images: int, picture: np.ndarray) -> None:
        """A picture uint8 (H, W, C) for TensorBoard."""
        if self.active:
            rgb = picture[:, :, :3] if picture.shape[2] >= 3 else picture[:, :, :1]
            self.board.add_image(name, rgb, images, dataformats="HWC")

    def evaluation(self, step: int, images: int, rows: list[dict]) -> None:
        """Lines of `evaluations.jsonl`, and their values to TensorBoard."""
        if not self.active:
            return
        for row in rows:
            append_line(self.workdir / "evaluations.jsonl", row)
            if math.isfinite(row["value"]):
                self.board.add_scalar(f"evaluation/{row['metric']}", row["value"], images)

    def restart_clock(self, images: int) -> None:
        """Leaves what was done since the last line (evaluation, sampling) out of the next line's speed."""
        self.last_images, self.last_time = images, time.monotonic()

    def close(self) -> None:
        """Flushes everything."""
        if self.board is not None:
            self.board.close()
        if self.bar is not None:
            self.bar.close()


def duration(seconds: float) -> str:
    """1:02:03 or 2:03."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
