"""What a run writes for people, for programs and for TensorBoard."""

import fcntl
import io
import json
import os
import pty
import re
import struct
import sys
import termios

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from gan_jax import logs
from gan_jax.errors import DivergedError, UserError


def events_of(folder) -> list:
    """The events of all event files, by TFRecord's framing: length, its checksum, bytes, their checksum."""
    from tensorboardX.proto import event_pb2

    events = []
    for path in sorted(folder.glob("events.out.tfevents.*"), key=lambda path: path.stat().st_mtime_ns):
        raw = path.read_bytes()
        while raw:
            (length,) = struct.unpack("<Q", raw[:8])
            events.append(event_pb2.Event.FromString(raw[12 : 12 + length]))
            raw = raw[16 + length :]
    return events


def scalars_of(folder) -> dict[str, list[tuple[int, float]]]:
    table = {}
    for event in events_of(folder):
        for value in event.summary.value:
            if value.HasField("simple_value"):
                table.setdefault(value.tag, []).append((event.step, value.simple_value))
    return table


def test_a_line_goes_to_the_file_to_tensorboard_and_to_people(tmp_path, capsys):
    log = logs.Log(tmp_path, total_images=100)
    log.scalars(2, 20, {"discriminator/loss": 1.25, "discriminator/grad_norm": 3.0, "generator/loss": 0.5})
    log.close()
    (row,) = logs.read_lines(tmp_path / "metrics.jsonl")
    assert list(row)[:3] == ["step", "images", "images_per_second"] and row["images_per_second"] > 0
    assert {k: row[k] for k in ("step", "images", "discriminator/grad_norm")} == {
        "step": 2, "images": 20, "discriminator/grad_norm": 3.0}  # fmt: skip
    scalars = scalars_of(tmp_path)
    assert scalars["discriminator/loss"] == [(20, 1.25)] and scalars["generator/loss"] == [(20, 0.5)]
    assert "images_per_second" in scalars
    out, err = capsys.readouterr()
    assert re.fullmatch(r" *20 images +[\d.]+ images/s +[\d:]+ left +discriminator 1.250 generator 0.500\n", out)
    assert not err


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_picture_goes_to_tensorboard(tmp_path, channels):
    picture = np.random.default_rng(0).integers(0, 256, (6, 9, channels), dtype=np.uint8)
    log = logs.Log(tmp_path, total_images=100)
    log.picture("fakes", 64, picture)
    log.close()
    (event,) = [event for event in events_of(tmp_path) if event.summary.value]
    (value,) = event.summary.value
    assert (event.step, value.tag, value.image.height, value.image.width) == (64, "fakes", 6, 9)
    pixels = np.asarray(Image.open(io.BytesIO(value.image.encoded_image_string)))
    np.testing.assert_array_equal(pixels.reshape(6, 9, -1)[:, :, : min(channels, 3)], picture[:, :, :3])


def test_evaluations_go_to_their_file_and_to_tensorboard(tmp_path):
    log = logs.Log(tmp_path, total_images=100)
    others = [{"metric": "odd", "value": float("nan")}, {"metric": "psnr", "value": None}]  # of equal pairs alone
    log.evaluation(3, 24, [{"metric": "fd_x", "value": 2.5, "step": 3}, *others])
    log.close()
    assert [row["metric"] for row in logs.read_lines(tmp_path / "evaluations.jsonl")] == ["fd_x", "odd", "psnr"]
    assert scalars_of(tmp_path) == {"evaluation/fd_x": [(24, 2.5)]}


def test_what_is_written_is_on_the_disk_at_once(tmp_path):
    log = logs.Log(tmp_path, total_images=100)
    log.scalars(1, 10, {"generator/loss": 0.5})
    assert scalars_of(tmp_path)["generator/loss"] == [(10, 0.5)]
    log.close()


def test_two_attempts_within_a_second_keep_both_their_events(tmp_path):
    """The second says where it begins, so that TensorBoard forgets what the first wrote beyond."""
    for images in (0, 10):
        log = logs.Log(tmp_path, total_images=100, images=images)
        log.scalars(images, images + 10, {"generator/loss": 0.5})
        log.close()
    assert scalars_of(tmp_path)["generator/loss"] == [(10, 0.5), (20, 0.5)]
    starts = [event.step for event in events_of(tmp_path) if event.HasField("session_log")]
    assert starts == [11]


def test_a_silent_process_writes_nothing(tmp_path, capsys):
    log = logs.Log(tmp_path, total_images=100, active=False)
    log.say("x")
    log.advance(5)
    log.scalars(1, 10, {"generator/loss": 0.5})
    log.picture("fakes", 1, np.zeros((2, 2, 1), np.uint8))
    log.evaluation(1, 1, [{"metric": "a", "value": 1.0}])
    log.close()
    assert not list(tmp_path.iterdir()) and not capsys.readouterr().out


@pytest.mark.parametrize("columns", [120, 0])
def test_a_terminal_gets_one_live_line(tmp_path, monkeypatch, capsys, columns):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40 if columns else 0, columns, 0, 0))
    with os.fdopen(theirs, "w") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        log = logs.Log(tmp_path, total_images=6400, images=640)
        log.bar.mininterval = 0
        log.advance(1280)
        log.scalars(20, 1280, {"discriminator/loss": 1.25, "generator/loss": 0.5})
        log.say("a word in between")
        log.advance(1920)
        log.close()
        output = os.read(ours, 100_000).decode()
    os.close(ours)
    last = [line for line in output.split("\r") if line.strip()][-1]
    line = r"1920 of 6400 images .* images/s, [\d:?]+ left, discriminator=1.250, generator=0.500"
    assert re.search(line, last), output
    assert "a word in between" in capsys.readouterr().out + output


def test_lines_after_a_step_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = [{"step": step, "x": 0.1 * step} for step in (1, 2, 3, 4)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 5, "x"')
    logs.drop_lines_after(path, 3)
    assert path.read_text() == "".join(json.dumps(row) + "\n" for row in rows[:3])
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]
    logs.drop_lines_after(path, -1)
    assert path.read_text() == ""
    logs.drop_lines_after(tmp_path / "none.jsonl", 3)


def test_damaged_lines_are_passed_over(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n\xff\xfe\n5\n\n{"step": 2}\n{"ste')
    assert logs.read_lines(path) == [{"step": 1}, {"step": 2}]


def test_a_disk_that_takes_nothing_is_one_message(tmp_path):
    full = tmp_path / "metrics.jsonl"
    full.symlink_to("/dev/full")
    (tmp_path / "checkpoints" / "20").mkdir(parents=True)
    (tmp_path / "config.json").touch()
    start = "metrics.jsonl: cannot be written: No space left on device"
    with pytest.raises(UserError, match=f"{start}; checkpoints are kept. Make room"):
        logs.append_line(full, {"step": 1})
    (tmp_path / "checkpoints" / "20").rename(tmp_path / "checkpoints" / "20.orbax-checkpoint-tmp")  # never completed
    with pytest.raises(UserError, match=f"{start}; no checkpoint was saved yet, so that training begins anew. Make"):
        logs.append_line(full, {"step": 1})
    (tmp_path / "checkpoints" / "20.orbax-checkpoint-tmp").rmdir()
    (tmp_path / "checkpoints").rmdir()
    error = logs.unwritable(tmp_path / "samples" / "reals.png", OSError(28, "No space left on device"))
    assert "no checkpoint was saved yet" in str(error)
    (tmp_path / "config.json").unlink()  # such as the file of `evaluate --out`, in no run's folder
    with pytest.raises(UserError, match=f"{start}. Make room"):
        logs.append_line(full, {"step": 1})
    with pytest.raises(UserError, match="cannot be written"):
        logs.Log(tmp_path / "nowhere", total_images=1)


def test_averages_name_what_is_not_finite():
    averages = logs.Averages()
    averages.add(1, {"discriminator/loss": jnp.float32(1.0)})
    averages.add(2, {"discriminator/loss": jnp.float32(1.0), "penalty/grad_norm": jnp.float32(jnp.inf)})
    averages.add(3, {"discriminator/loss": jnp.float32(jnp.nan)})
    with pytest.raises(DivergedError, match="step 2: grad_norm of the phase 'penalty' is inf; the last good"):
        averages.settle()


def test_averages_count_the_steps_within_a_call():
    """Of a call of steps 5 to 10, twice a period of one and two steps, the fifth step is not finite."""

    def call(bad):
        lone = {"penalty/loss": jnp.float32([[1], [4]]), "generator/loss": jnp.float32([[1], [4]])}
        return lone, {"generator/loss": jnp.float32([[2, 3], [bad, 6]])}

    averages = logs.Averages()
    averages.add(5, call(5))
    averages.settle()
    assert averages.sums() == {"generator/loss": [21.0, 6], "penalty/loss": [5.0, 2]}
    averages.add(5, call(jnp.nan))
    with pytest.raises(DivergedError, match="step 9: loss of the phase 'generator' is nan"):
        averages.settle()


def test_metrics_do_not_pile_up_where_nothing_is_logged(monkeypatch):
    monkeypatch.setattr(logs, "SETTLE_STEPS", 4)
    averages = logs.Averages()
    for step in range(4):
        assert averages.sums() == {}
        averages.add(step, {"generator/loss": jnp.float32(step)})
    assert averages.sums() == {"generator/loss": [6.0, 4]}


def test_time_left_out_is_not_in_the_speed(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: now[0])
    log = logs.Log(tmp_path, total_images=100)
    now[0] = 115.0
    log.leave_out(10.0)
    log.scalars(1, 50, {})
    log.close()
    assert logs.read_lines(tmp_path / "metrics.jsonl")[0]["images_per_second"] == 50 / 5


def test_averages_are_over_the_steps_that_measured_and_survive_a_restart():
    """Cut anywhere and carried over as JSON, they give the same mean to the last bit."""
    values = np.random.default_rng(0).normal(size=9).astype(np.float32)

    def fed(averages, numbers):
        for i in numbers:
            extra = {"penalty/loss": jnp.float32(i)} if i % 4 == 0 else {}
            averages.add(i, {"generator/loss": jnp.float32(values[i]), **extra})
        averages.settle()
        return averages

    whole = fed(logs.Averages(), range(9)).take()
    assert whole["generator/loss"] == pytest.approx(values.astype(np.float64).mean(), rel=1e-12)
    assert whole["penalty/loss"] == 4.0
    for cut in range(9):
        before = json.loads(json.dumps(fed(logs.Averages(), range(cut)).sums()))
        again = fed(logs.Averages(before), range(cut, 9))
        assert again.take() == whole and again.sums() == {}


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (61.9, "1:01"), (3661, "1:01:01"), (90_000, "25:00:00")])
def test_durations(seconds, text):
    assert logs.duration(seconds) == text
