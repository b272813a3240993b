"""Two real processes of two CPU devices each, joined by Gloo, against one process with four devices."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from gan_jax import cli, evaluate, folders, logs, parallel, runs
from gan_jax.processes import meeting
from gan_jax.train import train
from tests import settings

LIMIT = 240  # seconds until a process counts as hung; it takes a tenth of that on two idle cores
CONFIG = f"{settings.EXPERIMENTS / 'digits_dcgan.py'}:smoke"
SGD = [
    # Few layers, BatchNorm in both players: half the time to compile.
    ("generator.features", "(4,)"), ("generator.strides", "(8,)"), ("generator.kernel_size", "8"),
    ("discriminator.features", "(4,4)"), ("discriminator.strides", "(4,2)"),
    ("optim.generator.name", "sgd"), ("optim.discriminator.name", "sgd"),
    ("optim.generator.learning_rate", "0.02"), ("optim.discriminator.learning_rate", "0.02"),
]  # fmt: skip
MEASURED = [*SGD, ("evaluation.metrics", "fd,prdc,swd32,msssim8"), ("every.evaluate_images", "24")]


@contextlib.contextmanager
def _pair(workdir, overrides, second=(), as_open_mpi=False, config=CONFIG, failing=(), **environment):
    """Starts the two processes of a run and kills them at the end, whatever happens.

    `second` is added to the environment of the second alone. They meet by flags or, as those of Open MPI 5's mpirun,
    by their environment alone. `failing` is the script and its argument that the second plays instead of the command
    line.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = [flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag]
    environment = {**os.environ, "XLA_FLAGS": " ".join([*flags, "--xla_force_host_platform_device_count=2"]),
                   "PYTHONUNBUFFERED": "1", **environment}  # fmt: skip
    command = ["train", f"--config={config}", f"--workdir={workdir}",
               *(f"--config.{key}={value}" for key, value in overrides)]  # fmt: skip
    with contextlib.ExitStack() as stack:
        processes = []
        for number in range(2):
            output = stack.enter_context(open(f"{workdir}.{number}.log", "w+"))
            own = {**environment, **(dict(second) if number else {})}
            place = [f"--coordinator=127.0.0.1:{port}", "--num_processes=2", f"--process_id={number}"]
            if as_open_mpi:
                own |= {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": str(number),
                        "OMPI_COMM_WORLD_LOCAL_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": str(number),
                        "PMIX_NAMESPACE": f"prterun-{workdir}@1"}  # fmt: skip
                place = []
            script = failing if number and failing else [str(settings.ROOT / "launch.py")]
            started = subprocess.Popen([sys.executable, *script, *command, *place], env=own, stdout=output,
                                       stderr=subprocess.STDOUT, cwd=settings.ROOT)  # fmt: skip
            stack.callback(started.wait)
            stack.callback(started.kill)
            processes.append(started)
        yield processes


def _said(workdir, number):
    with open(f"{workdir}.{number}.log") as file:
        return file.read()


def _ended(processes, workdir):
    """Waits for both; their exit codes."""
    deadline = time.monotonic() + LIMIT
    with contextlib.suppress(subprocess.TimeoutExpired):
        for process in processes:
            process.wait(max(deadline - time.monotonic(), 0.1))
    codes = [process.poll() for process in processes]
    if any(codes):
        print(*(_said(workdir, number) for number in range(2)), sep="\n---\n")
    return codes


def _restored(workdir):
    config, spec, _ = folders.read_folder(workdir)
    return folders.restore(runs.build(config, spec), workdir, parallel.make_mesh(jax.devices()[:1]))


@pytest.fixture(scope="module")
def four_devices(tmp_path_factory):
    """One process, three steps, an evaluation; leaves the judge in the cache."""
    workdir = tmp_path_factory.mktemp("one") / "run"
    make_mesh = parallel.make_mesh
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "make_mesh", lambda devices=None: make_mesh((devices or jax.devices())[:4]))
        assert train(runs.load_config(CONFIG, MEASURED), str(workdir))
    return workdir


@pytest.fixture(scope="module")
def two_processes(four_devices, tmp_path_factory):
    """The same by two processes, started as by mpirun, which find no prepared digits and prepare them at once."""
    workdir = tmp_path_factory.mktemp("two") / "run"
    with _pair(workdir, MEASURED, as_open_mpi=True, GAN_JAX_DATA_DIR=str(workdir.parent / "data")) as processes:
        assert _ended(processes, workdir) == [0, 0]
    return workdir


def test_the_figures_are_those_of_one_process(four_devices, two_processes):
    one, two = (logs.read_lines(folder / "metrics.jsonl") for folder in (four_devices, two_processes))
    assert [row["step"] for row in two] == [row["step"] for row in one] == [1, 2, 3]
    for ours, theirs in zip(two, one, strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours.keys() - {"images_per_second"}:
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-6), name


def test_the_state_is_that_of_one_process_and_restores_in_one(four_devices, two_processes):
    one, two = _restored(four_devices), _restored(two_processes)
    assert one.step == two.step == 3 and not two.broken
    for part in ("params", "variables", "ema", "opt"):
        assert settings.largest_difference(getattr(one.state, part), getattr(two.state, part)) < 1e-5, part
    assert int(two.state.images) == two.run["position"] == 24


def test_the_evaluation_is_that_of_one_process(four_devices, two_processes):
    """Each process draws its half of the samples."""
    one, two = (evaluate.read(str(folder)) for folder in (four_devices, two_processes))
    assert len(two) == len(one) > 4
    for ours, theirs in zip(two, one, strict=True):
        assert ours["metric"] == theirs["metric"] and ours.get("features_sha256") == theirs.get("features_sha256")
        assert ours["value"] == pytest.approx(theirs["value"], rel=1e-3), ours["metric"]


def test_networks_see_what_they_see_in_one_process(tmp_path):
    """Measured twice while two processes train; the second time the reals are those that process 0 has kept."""
    run = tmp_path / "run"
    overrides = [
        *SGD,
        ("total_images", "16"),
        ("data.name", "synthetic:40"),
        ("evaluation.features", "random_inception/64"),
        ("evaluation.metrics", "fd,kd,prdc"),
        ("evaluation.samples", "21"),
        ("every.evaluate_images", "8"),
    ]
    with _pair(run, overrides, second={"GAN_JAX_CACHE_DIR": str(tmp_path / "other")}) as processes:
        assert _ended(processes, run) == [0, 0]
    measured = evaluate.read(str(run))
    last = [row for row in measured if row["images"] == 16]
    assert len(last) == 6 and len(measured) == 12
    for ours, theirs in zip(last, evaluate.evaluate(run), strict=True):
        assert ours["metric"] == theirs["metric"] and ours["features_sha256"] == theirs["features_sha256"]
        assert ours["value"] == pytest.approx(theirs["value"], rel=1e-5, abs=1e-9), ours["metric"]


def test_only_the_first_process_writes_and_talks(four_devices, two_processes):
    def files(folder):
        paths = (path.relative_to(folder) for path in folder.rglob("*") if "checkpoints" not in path.parts)
        return sorted(str(path).split(".tfevents")[0] for path in paths)

    assert files(four_devices) == files(two_processes)
    assert "complete at 24 images, step 3" in _said(two_processes, 0)
    assert "images" not in _said(two_processes, 1)


def test_a_signal_to_one_process_stops_both_at_one_step(two_processes, tmp_path):
    """The pair resumes the finished run, now with four steps a call; its second process alone is told to stop."""
    workdir = tmp_path / "run"
    shutil.copytree(two_processes, workdir)
    longer = [*SGD, ("total_images", "8000000"), ("evaluation.metrics", "()"), ("every.log_images", "64"),
              ("every.checkpoint_images", "10000000"), ("steps_per_call", "4")]  # fmt: skip
    with _pair(workdir, longer) as processes:
        deadline = time.monotonic() + LIMIT
        while len(logs.read_lines(workdir / "metrics.jsonl")) < 5 and time.monotonic() < deadline:
            assert all(process.poll() is None for process in processes), _said(workdir, 0)
            time.sleep(0.1)
        processes[1].send_signal(signal.SIGTERM)
        assert _ended(processes, workdir) == [75, 75]
    assert "resumed at 24 images, step 3" in _said(workdir, 0)
    restored = _restored(workdir)
    assert restored.step == int(restored.state.step) >= 5
    assert f"stopped at {8 * restored.step} images, step {restored.step}" in _said(workdir, 0)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(jax.device_get(restored.state.params)))


def test_a_signal_to_one_process_ends_the_measurement_of_both(two_processes, tmp_path):
    """The pair resumes the finished run for a step, of which it then measures 40,000 images. No value comes of it."""
    workdir = tmp_path / "run"
    shutil.copytree(two_processes, workdir)
    before = evaluate.read(str(workdir))
    longer = [*SGD, ("total_images", "8000"), ("evaluation.metrics", "msssim20000"), ("every.evaluate_images", "8"),
              ("evaluation.batch_size", "8")]  # fmt: skip
    with _pair(workdir, longer) as processes:
        deadline = time.monotonic() + LIMIT
        while not (workdir / "checkpoints" / "4").is_dir() and time.monotonic() < deadline:
            assert all(process.poll() is None for process in processes), _said(workdir, 0)
            time.sleep(0.1)
        processes[1].send_signal(signal.SIGUSR2)
        assert _ended(processes, workdir) == [75, 75]
    assert "stopped at 32 images, step 4" in _said(workdir, 0) and "Traceback" not in _said(workdir, 1)
    assert _restored(workdir).step == 4 and "evaluate" in _restored(workdir).run["due"]
    assert evaluate.read(str(workdir)) == before


def test_several_steps_a_call_on_a_resident_set_are_those_of_one_process(four_devices, two_processes, tmp_path):
    """Both finished runs go on for four steps, one process by single steps."""
    longer = [*SGD, ("total_images", "56"), ("evaluation.metrics", "()"), ("every.log_images", "56")]
    one, two = tmp_path / "one", tmp_path / "two"
    shutil.copytree(four_devices, one)
    shutil.copytree(two_processes, two)
    assert train(runs.load_config(CONFIG, longer), str(one))
    with _pair(two, [*longer, ("steps_per_call", "4"), ("resident_data", "True")]) as processes:
        assert _ended(processes, two) == [0, 0]
    ours, theirs = _restored(two), _restored(one)
    assert ours.step == theirs.step == 7 and ours.run["position"] == theirs.run["position"] == 56
    for part in ("params", "variables", "ema", "opt"):
        assert settings.largest_difference(getattr(ours.state, part), getattr(theirs.state, part)) < 1e-5, part
    rows = (logs.read_lines(folder / "metrics.jsonl") for folder in (two, one))
    for row, expected in zip(*rows, strict=True):
        for name in expected.keys() - {"images_per_second"}:
            assert row[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize("override", ["config.generator.widht=3", "config.batch_size=eight"])
def test_a_mistake_in_the_config_is_told_before_joining(override, monkeypatch, capsys):
    """So that no process waits for one that has given up."""
    monkeypatch.setattr(meeting, "initialize", lambda *args: pytest.fail("joined"))
    assert cli.main([f"--config={CONFIG}", f"--{override}", "--coordinator=127.0.0.1:1", "--num_processes=2",
                     "--process_id=1"]) == 2  # fmt: skip
    assert override.split("=")[0] in capsys.readouterr().err


def test_a_mistake_of_one_process_ends_both(tmp_path):
    """The second process finds no folder that it may write its digits to."""
    (tmp_path / "file").write_text("")
    run = tmp_path / "run"
    with _pair(run, SGD, second={"GAN_JAX_DATA_DIR": str(tmp_path / "file" / "data")}) as processes:
        assert _ended(processes, run) == [2, 2]
    assert "process 1 could not begin" in _said(run, 0) and "Traceback" not in _said(run, 0)
    assert "cannot be written" in _said(run, 1) and "Traceback" not in _said(run, 1)
    assert not run.exists()


# Long runs of a tiny game, of which one process fails.
ENDLESS = [("total_images", "80000000"), ("every.sample_images", "80000000"), ("every.log_images", "8"),
           ("every.checkpoint_images", "80")]  # fmt: skip
MIXTURE = f"{settings.EXPERIMENTS / 'mixture_gan.py'}:smoke"


def _errors(workdir, number):
    """What a process said of errors; all lines, so that no stack of Python's or C++'s stays unseen."""
    lines = _said(workdir, number).splitlines()
    return lines[next((place for place, line in enumerate(lines) if line.startswith("error: ")), 0) :]


@pytest.mark.parametrize(
    "what, message",
    [
        ("read", "photo.png: this image is damaged"),
        ("save", "checkpoints: the checkpoint of step 20 could not be written: [Errno 30] Read-only file system; the "
                 "checkpoint of step 10 is complete. Make room (or mend the folder) and run the same command again"),
    ],
)  # fmt: skip
def test_what_fails_in_one_process_is_one_line_in_both(tmp_path, what, message):
    """The other one waits for it in a step, or in the thread that saves."""
    run, script = tmp_path / "run", settings.ROOT / "tests" / "failing_process.py"
    with _pair(run, ENDLESS, config=MIXTURE, failing=(str(script), what), PYTHONPATH=str(settings.ROOT)) as processes:
        assert _ended(processes, run) == [2, 2]
    ((first,), (second,)) = _errors(run, 0), _errors(run, 1)
    assert second.startswith("error: ") and second.endswith(message)
    assert first == "error: process 1 left: " + second.removeprefix("error: ")


def test_a_failure_ends_a_process_whose_threads_wait_for_ever(tmp_path):
    """One process, which nobody watches."""
    script, folder = settings.ROOT / "tests" / "failing_process.py", tmp_path / "run"
    command = [sys.executable, script, "hang", "train", f"--config={MIXTURE}", f"--workdir={folder}",
               *(f"--config.{key}={value}" for key, value in ENDLESS)]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(settings.ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 2 and done.stderr.splitlines()[-1] == "error: photo.png: this image is damaged"


def test_a_process_that_is_killed_when_the_run_is_over_holds_nobody_up(tmp_path):
    """JAX's own goodbye would wait five minutes for it."""
    run, script = tmp_path / "run", settings.ROOT / "tests" / "failing_process.py"
    with _pair(run, [], config=MIXTURE, failing=(str(script), "end"), PYTHONPATH=str(settings.ROOT)) as processes:
        assert _ended(processes, run) == [0, -signal.SIGKILL]
    assert "complete at " in _said(run, 0) and not any("error" in line for line in _errors(run, 0))


def test_a_first_process_that_is_killed_ends_the_other(tmp_path):
    """It is JAX's coordinator, without which JAX would abort the other with a stack."""
    run = tmp_path / "run"
    with _pair(run, ENDLESS, config=MIXTURE) as processes:
        deadline = time.monotonic() + LIMIT
        while len(logs.read_lines(run / "metrics.jsonl")) < 25 and time.monotonic() < deadline:
            assert all(process.poll() is None for process in processes), _said(run, 0)
            time.sleep(0.05)
        processes[0].kill()
        assert _ended(processes, run) == [-signal.SIGKILL, 1]
    (line,) = _errors(run, 1)
    name = socket.gethostname()
    saved = re.fullmatch(rf"error: process 0 \({name}\) ended without a word, as a killed one does; "
                         r"(?:step \d+ was not saved; )?the same command goes on from step (\d+)", line)  # fmt: skip
    assert saved and int(saved[1]) >= 10 and (run / "checkpoints" / saved[1]).is_dir()
