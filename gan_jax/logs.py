"""What a run tells: lines for people, `metrics.jsonl` for programs, TensorBoard for both, and `loggers` beside it."""

import contextlib
import json
import math
import os
import pathlib
import struct
import sys
import time
from collections.abc import Iterator

import jax
import numpy as np

from gan_jax.errors import DivergedError, UserError

SETTLE_STEPS = 4096  # metrics of so many steps wait on the device at most


def append_line(path: pathlib.Path, row: dict) -> None:
    """Appends one JSON line and flushes it. Raises UserError where the disk does not take it."""
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: os.PathLike | str, error: OSError) -> UserError:
    """The error for a file that the disk does not take; in a run's folder it tells what is left of the run."""
    run = next((one for one in pathlib.Path(path).absolute().parents[:2] if os.path.exists(one / "config.json")), None)
    rest = ""
    if run is not None:
        saved = any(step.name.isdecimal() for step in run.glob("checkpoints/*"))
        rest = "; checkpoints are kept" if saved else "; no checkpoint was saved yet, so that training begins anew"
    return UserError(
        f"{path}: cannot be written: {error.strerror or error}{rest}. Make room (or mend the folder) and run the "
        "same command again"
    )


def drop_lines_after(path: pathlib.Path, step: int) -> None:
    """Removes lines of later steps, and a half-written last one, so that a resumed run writes each step once.

    Raises:
      UserError: the file cannot be read or replaced.
    """
    if not path.is_file():
        return
    part = path.with_name(f".{path.name}.part")
    try:
        rows = [row for row in read_lines(path) if row.get("step", 0) <= step]
        part.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        raise unwritable(path, error) from error


def add_missing(path: pathlib.Path, rows: list[dict]) -> None:
    """Appends those of the rows that the file does not have. Raises UserError where the disk does not take them."""
    lines = {json.dumps(row) for row in read_lines(path)}
    for row in rows:
        if json.dumps(row) not in lines:
            append_line(path, row)


def read_lines(path: pathlib.Path) -> list[dict]:
    """The JSON objects of a file of lines, none where there is no file; a line cut short by a crash is passed over."""
    rows = []
    for line in () if not path.is_file() else path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            rows.append(json.loads(line))
    return [row for row in rows if isinstance(row, dict)]


def _single(metrics: dict[str, np.ndarray] | tuple[dict[str, np.ndarray], ...]) -> Iterator[dict[str, float]]:
    """The metrics of each step of a call."""
    if isinstance(metrics, dict):
        yield metrics
        return
    shapes = [next(iter(stretch.values())).shape for stretch in metrics]  # (periods, n)
    for period in range(shapes[0][0]):
        for stretch, (_, length) in zip(metrics, shapes, strict=True):
            for number in range(length):
                yield {name: value[period, number] for name, value in stretch.items()}


class Averages:
    """Means of the metrics since the last line; part of a checkpoint, so that a resumed run writes the same lines."""

    def __init__(self, sums: dict[str, list] | None = None):
        """`sums`: what an earlier `sums()` gave."""
        self._waiting: list[tuple[int, dict[str, jax.Array]]] = []
        self._sums = {name: (total, count) for name, (total, count) in (sums or {}).items()}

    def add(self, step: int, metrics: dict[str, jax.Array] | tuple[dict[str, jax.Array], ...]) -> None:
        """Takes the metrics `<phase>/<term>` of a step, or of a call's steps from that one on: see `step.make_steps`.

        They stay on the device. Raises DivergedError as `settle`.
        """
        self._waiting.append((step, metrics))
        if len(self._waiting) >= SETTLE_STEPS:  # a run that logs and saves nothing for long must not fill the memory
            self.settle()

    def settle(self) -> None:
        """Fetches what was added, checks it and adds it up, in the order of the steps.

        Raises:
          DivergedError: naming the first step, phase and term that is NaN or infinite.
        """
        fetched = jax.device_get([metrics for _, metrics in self._waiting])
        for (first, _), metrics in zip(self._waiting, fetched, strict=True):
            for number, measured in enumerate(_single(metrics)):
                self._count(first + number, measured)
        self._waiting.clear()

    def _count(self, step: int, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            if not np.isfinite(value):
                phase, term = name.split("/", 1)
                raise DivergedError(
                    f"step {step}: {term} of the phase {phase!r} is {value}; the last good checkpoint is kept. "
                    "Lower the learning rates in config.optim or set clip_norm, and begin another --workdir"
                )
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = (total + float(value), count + 1)

    def sums(self) -> dict[str, list]:
        """What has been added up, for a checkpoint: name -> [total, count]."""
        return {name: [total, count] for name, (total, count) in self._sums.items()}

    def take(self) -> dict[str, float]:
        """The mean of each metric over the steps in which it was measured; begins afresh."""
        means = {name: total / count for name, (total, count) in self._sums.items()}
        self._sums.clear()
        return means


class Board:
    """TensorBoard's event file. It is written at once and by the caller's thread, so that a full disk is seen here."""

    def __init__(self, folder: pathlib.Path, images: int):
        """`images`: where the run stands; TensorBoard forgets what an interrupted attempt wrote beyond it."""
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2

        self._event, self._session_log = event_pb2.Event, event_pb2.SessionLog
        self._folder = folder
        unique = f".{os.getpid()}.{time.time_ns() % 10**9}"  # two attempts may begin within one second
        self._writer = self._try(lambda: EventsWriter(str(folder / "events"), unique))
        if images:
            self._write(images + 1, session_log=self._session_log(status=self._session_log.START))

    def scalars(self, images: int, values: dict[str, float]) -> None:
        """One event with all values. Raises UserError where the disk does not take it."""
        from tensorboardX.proto import summary_pb2

        listed = [summary_pb2.Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(images, summary=summary_pb2.Summary(value=listed))

    def picture(self, images: int, name: str, picture: np.ndarray) -> None:
        """One uint8 picture (H, W, 1 or 3). Raises UserError where the disk does not take it."""
        from tensorboardX import summary

        self._write(images, summary=summary.image(name, picture, dataformats="HWC"))

    def animation(self, images: int, name: str, gif: bytes) -> None:
        """An encoded GIF, which TensorBoard plays among its images. Raises UserError as `picture` does."""
        from tensorboardX.proto import summary_pb2

        width, height = struct.unpack("<HH", gif[6:10])  # by GIF's specification
        image = summary_pb2.Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=gif)
        self._write(images, summary=summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag=name, image=image)]))

    def close(self) -> None:
        """Closes the file; what was written is on the disk already."""
        with contextlib.suppress(OSError):
            self._writer.close()

    def _write(self, images: int, **content) -> None:
        event = self._event(wall_time=time.time(), step=images, **content)
        self._try(lambda: (self._writer.write_event(event), self._writer.flush()))

    def _try(self, action):
        try:
            return action()
        except OSError as error:
            raise unwritable(self._folder / "events.out.tfevents", error) from error


class Log:
    """The files and the progress line of one run; silent where `active` is false (processes other than the first)."""

    def __init__(
        self,
        workdir: pathlib.Path,  # the run's folder
        *,
        total_images: int,  # the length of the run
        images: int = 0,  # where it stands
        is_complete: bool = False,  # whether nothing is left to do: then the folder is left as it is
        active: bool = True,  # whether this process writes
        others=None,  # `loggers.Loggers`, which are told the same as TensorBoard
    ):
        self.active, self.workdir, self.total, self.others = active, workdir, total_images, others
        self.was_complete = is_complete
        self.images, self.last_images, self.last_time = images, images, time.monotonic()
        self.board = self.bar = None
        self.outcome = "failed"  # of `loggers.OUTCOMES`, until the loop has ended
        if not active:
            return
        self.board = Board(workdir, images)
        if sys.stderr.isatty():
            from tqdm import tqdm

            line = "{n_fmt} of {total_fmt} images {bar} {rate_noinv_fmt}, {remaining} left{postfix}"
            has_size = os.get_terminal_size(sys.stderr.fileno()).columns > 0  # containers have terminals of no size
            width = {"dynamic_ncols": True} if has_size else {"ncols": 100, "nrows": 24}
            self.bar = tqdm(total=total_images, initial=images, unit=" images", bar_format=line, **width)

    def say(self, text: str) -> None:
        """One line for people, on standard output and in `log.txt`. Raises UserError where the disk is full."""
        if not self.active:
            return
        self._note(text)
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
        row = {"step": step, "images": images, "images_per_second": speed, **metrics}
        append_line(self.workdir / "metrics.jsonl", row)
        values = {**metrics, "images_per_second": speed}
        self.board.scalars(images, values)
        self._tell_others("scalars", step, images, values)
        losses = {k.removesuffix("/loss"): f"{value:.3f}" for k, value in metrics.items() if k.endswith("/loss")}
        left = (self.total - images) / max(speed, 1e-9)
        text = " ".join(f"{name} {value}" for name, value in losses.items())
        text = f"{images:>9} images  {speed:7.1f} images/s  {duration(left)} left  {text}"
        self._note(text)
        if self.bar is not None:
            self.bar.set_postfix(losses)
        else:
            print(text, flush=True)

    def picture(self, name: str, images: int, picture: np.ndarray, gif: bytes = b"") -> None:
        """A picture uint8 (H, W, C) for TensorBoard, without its alpha; and a GIF, where it moves, for that alone."""
        if self.active:
            picture = picture[:, :, :3] if picture.shape[2] >= 3 else picture[:, :, :1]
            self.board.picture(images, name, picture)
            if gif:
                self.board.animation(images, f"{name}_moving", gif)
            self._tell_others("picture", name, images, picture)

    def evaluation(self, step: int, images: int, rows: list[dict]) -> None:
        """Lines of `evaluations.jsonl`, and their values to TensorBoard."""
        if not self.active:
            return
        for row in rows:
            append_line(self.workdir / "evaluations.jsonl", row)
        values = {f"evaluation/{row['metric']}": row["value"] for row in rows if row["value"] is not None}
        values = {name: value for name, value in values.items() if math.isfinite(value)}
        self.board.scalars(images, values)
        if values:
            self._tell_others("scalars", step, images, values)

    def _tell_others(self, method: str, *arguments) -> None:
        for line in self.others.call(method, *arguments) if self.others else ():
            self.say(line)

    def _note(self, text: str) -> None:
        if self.was_complete:
            return
        path = self.workdir / "log.txt"
        try:
            with open(path, "a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text + "\n")
        except OSError as error:
            raise unwritable(path, error) from error

    def leave_out(self, seconds: float) -> None:
        """Leaves time spent on something else than training, such as compiling, out of the next line's speed."""
        self.last_time += seconds

    def restart_clock(self, images: int) -> None:
        """Leaves what was done since the last line (evaluation, sampling) out of the next line's speed."""
        self.last_images, self.last_time = images, time.monotonic()

    def close(self) -> None:
        """Flushes everything."""
        self._tell_others("close", self.outcome)
        if self.board is not None:
            self.board.close()
        if self.bar is not None:
            self.bar.close()


def duration(seconds: float) -> str:
    """1:02:03 or 2:03."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
