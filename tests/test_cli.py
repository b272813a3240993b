"""The commands as a user meets them: flags, mistakes, a dry run, and what a run shows while it trains."""

import os
import pty
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

import gan_jax
from gan_jax import cli, folders, images, logs, run_data, runs, sweep, sweep_flags
from tests import settings, test_logs

SMOKE = f"--config={settings.EXPERIMENTS / 'digits_dcgan.py'}:smoke"
PLAIN = ("--config.evaluation.metrics=()", "--config.loss.r1_gamma=0")
SHALLOW = {"generator__features": "(4,)", "generator__strides": "(8,)", "discriminator__features": "(4,)",
           "discriminator__strides": "(8,)"}  # fmt: skip
# Few layers: what is compiled is a third.
PLAIN += tuple(f"--config.{key.replace('__', '.')}={value}" for key, value in SHALLOW.items())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Ten steps with a line every three, pictures every four: neither divides the end."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    every = [f"--config.every.{k}_images={v}" for k, v in (("log", 24), ("sample", 32), ("checkpoint", 32))]
    assert cli.main(["train", SMOKE, f"--workdir={folder}", *PLAIN, *every, "--config.total_images=80"]) == 0
    return folder


def failing(capfd, *argv) -> str:
    """The one message of a command that a user's mistake ends: nothing else on standard error, exit code 2."""
    capfd.readouterr()
    assert cli.main(list(argv)) == 2
    out, err = capfd.readouterr()
    assert err.startswith("error: ") and "Traceback" not in out + err
    return err.strip()


@pytest.mark.parametrize(("argv", "message"), [
    (["trian"], "unknown command 'trian'; did you mean train"),
    (["help", "sampel"], "unknown command 'sampel'; did you mean sample"),
    (["dance"], "unknown command 'dance'. Commands: train, evaluate, sample, sweep"),
    (["train", "--confg=x"], "--confg: train has no such flag; did you mean --config"),
    (["sample", "--config.seed=1"], "--config.seed: sample has no such flag"),
    (["train", "config.seed=1"], "'config.seed=1' is no flag; write --name=value"),
    (["train", "--"], "'--' is no flag"),
    (["train", "--workdir"], "--workdir needs a value: --workdir=..."),
    (["train", "--workdir="], "--workdir needs a value"),
    (["train", "--workdir", "--dry_run"], "--workdir needs a value"),
    (["train", "--config.seed"], "--config.seed needs a value"),
    (["train", "--workdir=a", "--workdir=b"], "--workdir is given 2 times: a, b"),
    (["train", "--dry_run=perhaps"], "--dry_run=perhaps: expected --dry_run alone, or True or False"),
    (["train", "--config=digits_dgan:smoke"], "--config=digits_dgan:smoke: no experiment .*mean digits_dcgan"),
    (["train", "--config=nowhere.py"], "--config=nowhere.py: no file nowhere.py"),
    (["train", SMOKE + "r"], "unknown or failing variant.*smoker"),
    (["train", SMOKE, "--config.optim.generator.learning_rat=1"], "mean --config.optim.generator.learning_rate"),
    (["train", SMOKE, "--config.seed=one"], "--config.seed=one: expected int"),
    (["train", SMOKE, "--config.data.name=folder:/nope"], "/nope"),
    (["train", SMOKE, "--config.data.name=digit"], "digits"),
    (["train", SMOKE, "--config.batch_size=12"], "config.batch_size=12 cannot be dealt over 8 devices"),
    (["train", SMOKE, "--config.total_images=0"], "config.total_images=0"),
    (["train", SMOKE, "--config.optim.generator.name=adm"], "config.optim.generator: .*adam"),
    (["train", SMOKE, "--config.loss.name=hing"], "hinge"),
    (["train", SMOKE, "--config.parallel=pmapp"], "config.parallel='pmapp': expected one of shard_map, pmap"),
    (["train", SMOKE, "--config.checkpoints.keep=0"], "config.checkpoints.keep=0"),
    (["train", SMOKE, "--config.evaluation.metrics=fdd"], "metrics='fdd'"),
    (["evaluate"], "--workdir=... is missing"),
    (["evaluate", "--workdir=/nope"], "--workdir=/nope: no /nope; give the folder of a run that has trained"),
    (["sample", "--workdir=/nope", "--out=x"], "--workdir=/nope: no /nope"),
    (["sample", "--workdir=/nope"], "--out=... is missing"),
    (["sample", "--workdir=/nope", "--out=x", "--step=last"], "--step=last: expected a whole number, or best"),
    (["export", "--workdir=/nope", "--out=x", "--step=best"], "--workdir=/nope: no /nope; give the folder of a run"),
    (["sample", "--workdir=/nope", "--out=x", "--truncation=x"], "--truncation=x: expected a number"),
    (["sample", "--workdir=/nope", "--out=x", "--noise=of"], "--noise=of: expected one of const, random, none"),
    (["sample", "--workdir=/nope", "--out=x", "--save_dlatents=2"], "expected --save_dlatents alone, or True or False"),
    (["sample", "--workdir=/nope", "--out=x", "--dlatents=a", "--seeds=0"], "--dlatents=a with --seeds=0"),
    (["sweep", SMOKE, "--workdir=x"], "nothing to sweep"),
    (["sweep", SMOKE, "--sweep=config.seed=1"], "--workdir=... is missing"),
])  # fmt: skip
def test_a_mistake_is_one_message(capfd, tmp_path, monkeypatch, argv, message):
    monkeypatch.chdir(tmp_path)
    output = failing(capfd, *argv)
    assert re.search(message, output), output
    assert not [path for path in tmp_path.rglob("checkpoints/*")], "no run was begun"


def test_flags_take_their_value_either_way():
    flags, overrides = cli.parse("train", ["--workdir", "a b", "--config.data.dir=", "--dry_run", "--config.x.y", "-1"])
    assert flags == {"workdir": ["a b"], "dry_run": ["true"]}
    assert overrides == [("data.dir", ""), ("x.y", "-1")]
    flags, _ = cli.parse("sweep", ["--sweep=config.a=1,2", "--sweep=config.b=3"])
    assert flags["sweep"] == ["config.a=1,2", "config.b=3"]


@pytest.mark.parametrize("command", sorted(cli.FLAGS))
def test_a_commands_help_has_its_flags_and_no_others(capsys, command):
    shown = set()
    for argv in ([command, "--help"], [command, "-h"], [command, "--workdir=x", "--help"], ["help", command]):
        assert cli.main(argv) == 0
        shown.add(capsys.readouterr().out)
    (text,) = shown
    usage, flags = text.split("\n\n")[0], text.split("\n\n", 1)[1]
    assert usage.endswith(f" {command} {'[NAME]' if command == 'config' else '[--flag=value ...]'}")
    assert set(re.findall(r"--(\w+)", flags)) == set(cli.FLAGS[command])
    assert ("--config.KEY=VALUE" in flags) == ("config" in cli.FLAGS[command])
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("argv", [["--help"], ["-h"], ["help"]])
def test_the_overview_has_a_line_for_each_command(capsys, argv):
    assert cli.main(argv) == 0
    text = capsys.readouterr().out
    assert re.findall(r"^  (\w+) +\w", text, re.M) == list(cli.FLAGS)
    assert set(cli.FLAGS) == {"config", *cli.COMMANDS}
    assert "COMMAND --help" in text and "--workdir" not in text and len(text.splitlines()) < 20


def test_the_version_names_what_it_runs_on(capsys):
    assert cli.main(["--version"]) == 0
    expected = f"gan_jax {gan_jax.__version__} (jax {jax.__version__}, Python {sys.version.split()[0]})\n"
    assert capsys.readouterr().out == expected


def test_the_default_workdir_is_named_after_the_experiment():
    assert cli.default_workdir("experiments/a_b.py") == os.path.join("runs", "a_b")
    assert cli.default_workdir("/x/a_b.py:smoke") == os.path.join("runs", "a_b_smoke")


@pytest.mark.parametrize(("flags", "expected"), [
    (["--sweep=config.generator.width=log(4,9,3)"], ["4", "6", "9"]),
    # Without the swept name the override would be none of the config's keys.
    (["--config.augment.policy=color", "--sweep=config.augment.name=diffaugment"], ["diffaugment"]),
])  # fmt: skip
def test_a_sweeps_values_are_those_that_the_config_can_take(tmp_path, monkeypatch, flags, expected):
    swept = []

    def run(path, overrides, sweeps, workdir, *, seed, whole, **rest):
        swept.extend(sweep_flags.product(sweeps, seed, whole).values())
        return 0

    monkeypatch.setattr(sweep, "sweep", run)
    assert cli.main(["sweep", SMOKE, f"--workdir={tmp_path / 'sweep'}", *flags]) == 0
    assert [value for values in swept for value in values.values()] == expected


def test_a_full_disk_outside_the_run_is_one_message_too(capfd, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device", "/cache/file")

    monkeypatch.setitem(cli.COMMANDS, "train", full)
    assert "/cache/file: No space left on device" in failing(capfd, "train")


@pytest.mark.parametrize("setting", ["config.steps_per_call=0", "config.checkpoints.keep=0"])
def test_a_dry_run_finds_what_the_run_would_refuse(capsys, tmp_path, setting):
    arguments = ["train", SMOKE, f"--workdir={tmp_path}", "--dry_run", *PLAIN, f"--{setting}"]
    assert cli.main(arguments) == 2
    assert setting in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["shard_map", "pmap"])
def test_a_dry_run_describes_and_writes_nothing(capsys, tmp_path, mode):
    folder = tmp_path / "run"
    flags = [f"--workdir={folder}", "--dry_run", f"--config.parallel={mode}", *PLAIN]
    assert cli.main(["train", SMOKE, *flags]) == 0
    text = capsys.readouterr().out
    assert not folder.exists()
    run = settings.build(settings.digits(**SHALLOW))
    for net in run.nets:
        count = sum(x.size for x in _leaves(runs.init_state(run).params[net]))
        assert f"{net}/" in text and f"Total: {count:,}" in text
    assert re.search(r"step of discriminator \+ generator: \d+\.\d+ GFLOP and \d+ MiB a device, compiled in", text)
    assert re.search(r"devices: 8 x cpu, 1 process", text)
    assert re.search(r"data: name digits, split train, .*count 1437, .*fingerprint [0-9a-f]{64}", text)


def _leaves(tree):
    return jax.tree.leaves(tree)


def test_a_runs_lines(trained):
    rows = logs.read_lines(trained / "metrics.jsonl")
    assert [(row["step"], row["images"]) for row in rows] == [(3, 24), (6, 48), (9, 72), (10, 80)]
    for row in rows:
        assert row["images_per_second"] > 0
        for phase in ("discriminator", "generator"):
            assert np.isfinite(row[f"{phase}/loss"]) and row[f"{phase}/grad_norm"] > 0


def test_a_runs_last_step_is_sampled_and_saved(trained):
    assert sorted(path.name for path in (trained / "samples").iterdir()) == [
        "fakes_000000032.png", "fakes_000000064.png", "fakes_000000080.png", "reals.png"]  # fmt: skip
    assert sorted(int(path.name) for path in (trained / "checkpoints").iterdir()) == [8, 10]


def test_reals_are_the_datas(trained):
    dataset = run_data.open_data(folders.read_folder(trained)[0])
    with Image.open(trained / "samples" / "reals.png") as file:
        picture = np.asarray(file)
    side = 32 + images.GAP
    cells = [picture[y : y + 32, x : x + 32] for y in (0, side) for x in (0, side)]
    examples = {image.tobytes() for image in dataset.examples(np.arange(dataset.size))["image"]}
    assert picture.shape == (2 * side - images.GAP,) * 2 and all(cell.tobytes() in examples for cell in cells)


def test_tensorboard_has_the_same_scalars_and_the_grids(trained):
    scalars = test_logs.scalars_of(trained)
    for name in ("discriminator/loss", "generator/grad_norm", "images_per_second"):
        rows = [(row["images"], pytest.approx(row[name])) for row in logs.read_lines(trained / "metrics.jsonl")]
        assert scalars[name] == rows, name
    grids = [(e.step, v.tag) for e in test_logs.events_of(trained) for v in e.summary.value if v.HasField("image")]
    assert sorted(grids) == [(0, "reals"), (32, "fakes"), (64, "fakes"), (80, "fakes")]


def test_sample_and_evaluate_follow(trained, tmp_path, capsys):
    assert cli.main(["sample", f"--workdir={trained}", f"--out={tmp_path}", "--seeds=3-4"]) == 0
    assert "wrote 3 files, the last" in capsys.readouterr().out
    assert cli.main(["sample", f"--workdir={trained}", f"--out={tmp_path}", "--seeds=3-4", "--step=8"]) == 0
    assert cli.main(["evaluate", f"--workdir={trained}"]) == 0
    assert "no metrics are configured" in capsys.readouterr().out


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_of_a_real_run(tmp_path, terminal):
    """The launcher itself: a live line on a terminal, plain lines otherwise, and nothing else from any library."""
    launch = str(settings.ROOT / "launch.py")
    command = [sys.executable, launch, "train", SMOKE, f"--workdir={tmp_path / 'run'}", *PLAIN]
    xla = re.sub(r"device_count=\d+", "device_count=2", os.environ["XLA_FLAGS"])
    env = {**os.environ, "XLA_FLAGS": xla, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=theirs if terminal else subprocess.PIPE)
    os.close(theirs)
    output = b""
    while terminal:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        output += part
    os.close(ours)
    out, err = (text.decode() if text else "" for text in process.communicate(timeout=60))
    assert process.returncode == 0, err + output.decode()
    waiting = r"(?:[\w :]+, \d+ s\n)*"  # where the start takes long, what it is at
    out = re.sub("^" + waiting, "", out)
    assert re.match(r"new run: unconditional on digits \(32, 32, 1\), 1437 samples of 10 classes: 0 142, ", out)
    assert re.match(r"new run: .* parameters; 2 cpu device", out)
    assert "complete at 24 images, step 3" in out
    if terminal:
        live = r"24 of 24 images .*images/s, [\d:?]+ left, discriminator=[\d.]+, generator=[\d.]+"
        assert re.search(live, output.decode()) and "images/s" not in out
    else:
        assert not err
        assert len(re.findall(r"^ +\d+ images +[\d.]+ images/s +[\d:]+ left +discriminator", out, re.M)) == 3
