"""Loggers beside a run's files: the user's own class, and packages whose interfaces are stood in for.

The stand-ins have what the packages document: wandb.init(...) -> run with id, define_metric, log, finish; wandb.Image;
mlflow.start_run(run_id=, run_name=) -> run.info.run_id, log_params (at most 100), log_metrics, log_image, end_run.
"""

import json
import sys
import types

import numpy as np
import pytest
from PIL import Image

from gan_jax import cli, loggers, logs, programs, runs
from gan_jax import config as configs
from gan_jax.errors import UserError
from tests import settings

SMOKE = f"--config={settings.EXPERIMENTS / 'digits_dcgan.py'}:smoke"
PLAIN = ("--config.evaluation.metrics=()", "--config.loss.r1_gamma=0")
OWN = '''
"""Loggers of a user: one that keeps everything, and one whose second line fails."""
import json
import numpy as np

class Keeper:
    def __init__(self, workdir, config):
        self.lines = (workdir / "keeper.jsonl").open("a")
        self.folder = workdir
        self.write(["begin", config["seed"], config["generator.width"]])

    def write(self, line):
        self.lines.write(json.dumps(line) + "\\n")

    def scalars(self, step, images, values):
        self.write(["scalars", step, images, values])

    def picture(self, name, images, array):
        np.save(self.folder / f"{name}_{images}.npy", array)

    def close(self, outcome):
        self.write(["close", outcome])
        self.lines.close()

class Failing(Keeper):
    def __init__(self, workdir, config):
        super().__init__(workdir / "failing", config)
        self.count = 0

    def scalars(self, step, images, values):
        self.count += 1
        if self.count == 2:
            raise ConnectionError("the service\\nis away")
        super().scalars(step, images, values)

def refused(workdir, config):
    raise PermissionError("no key")

class Half:
    def __init__(self, workdir, config):
        pass

    def scalars(self, step, images, values):
        pass

number = 3
'''


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    """The user's module, in the folder where the command is run."""
    (tmp_path / "own_loggers.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("own_loggers", None)


def kept(path) -> list:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_users_class_sees_the_run_and_one_that_fails_does_not_end_it(tmp_path, capsys):
    folder = tmp_path / "run"
    (folder / "failing").mkdir(parents=True)
    flags = [SMOKE, f"--workdir={folder}", *PLAIN, "--config.logs=own_loggers.Failing,own_loggers.Keeper"]
    assert cli.main(["train", *flags]) == 0
    begin, *scalars, close = kept(folder / "keeper.jsonl")
    assert begin == ["begin", 0, 4] and close == ["close", "complete"]
    rows = logs.read_lines(folder / "metrics.jsonl")
    assert len(rows) == 3
    for (_, step, images, values), row in zip(scalars, rows, strict=True):
        assert {"step": step, "images": images, **values} == row
    for array, file in (("reals_0", "reals"), ("fakes_16", "fakes_000000016"), ("fakes_24", "fakes_000000024")):
        with Image.open(folder / "samples" / f"{file}.png") as picture:
            np.testing.assert_array_equal(np.load(folder / f"{array}.npy")[:, :, 0], np.asarray(picture))
    assert [line[0] for line in kept(folder / "failing" / "keeper.jsonl")] == ["begin", "scalars", "close"]
    line = "config.logs: own_loggers.Failing fails in scalars: ConnectionError: the service is away; the run goes on"
    for text in (capsys.readouterr().out, (folder / "log.txt").read_text()):
        assert text.count("own_loggers.Failing") == 1 and line in text and "complete at 24 images" in text

    # A complete run tells nobody anything; one that goes on may have other loggers.
    before = (folder / "keeper.jsonl").read_text()
    assert cli.main(["train", *flags]) == 0 and (folder / "keeper.jsonl").read_text() == before
    assert cli.main(["train", *flags[:-1], "--config.logs=own_loggers.Keeper", "--config.total_images=32"]) == 0
    more = kept(folder / "keeper.jsonl")[5:]
    assert [line[0] for line in more] == ["begin", "scalars", "close"] and more[1][1:3] == [4, 32]


@pytest.mark.parametrize(("name", "message"), [
    ("wandbb", "config.logs='wandbb': expected wandb, mlflow or the dotted path of a class; did you mean wandb?"),
    ("nowhere.Logger", "config.logs='nowhere': ModuleNotFoundError"),
    ("own_loggers.Keper", "config.logs='own_loggers.Keper': own_loggers has no class Keper"),
    ("own_loggers.number", "config.logs='own_loggers.number': own_loggers has no class number"),
    ("wandb", "config.logs='wandb': pip install wandb, or leave it out"),
])  # fmt: skip
def test_what_is_no_logger_is_refused_by_a_dry_run_too(tmp_path, capfd, monkeypatch, name, message):
    monkeypatch.setitem(sys.modules, "wandb", None)
    flags = [SMOKE, f"--workdir={tmp_path / 'run'}", *PLAIN, f"--config.logs={name}", "--dry_run"]
    assert cli.main(["train", *flags]) == 2
    assert capfd.readouterr().err.startswith(f"error: {message}") and not (tmp_path / "run").exists()


@pytest.mark.parametrize(("name", "message"), [
    ("refused", "config.logs='own_loggers.refused' cannot be begun: PermissionError: no key; mend it, or leave it out"),
    ("Half", "config.logs='own_loggers.Half' has no picture, close; a logger has scalars, picture, close"),
])  # fmt: skip
def test_what_cannot_be_begun_is_an_error_and_the_others_are_closed(tmp_path, name, message):
    makers = loggers.find(("own_loggers.Keeper", f"own_loggers.{name}"))
    with pytest.raises(UserError) as error:
        loggers.begin(makers, tmp_path, {"seed": 5, "generator.width": 6})
    assert str(error.value) == message and kept(tmp_path / "keeper.jsonl") == [["begin", 5, 6], ["close", "failed"]]


def test_a_logger_that_cannot_be_begun_ends_the_command_before_training(tmp_path, capfd):
    folder = tmp_path / "run"
    assert cli.main(["train", SMOKE, f"--workdir={folder}", *PLAIN, "--config.logs=own_loggers.refused"]) == 2
    assert "cannot be begun: PermissionError" in capfd.readouterr().err
    assert not (folder / "metrics.jsonl").exists() and not list((folder / "checkpoints").glob("*"))


@pytest.mark.parametrize("method", loggers.METHODS)
def test_each_call_may_fail(method):
    class Bad:
        calls = []

        def __getattr__(self, name):
            def call(*arguments):
                self.calls.append(name)
                if name == method:
                    raise ValueError("x" * 1000)

            return call

    those = loggers.Loggers({"bad": Bad()})
    calls = {"scalars": (1, 8, {"a": 1.0}), "picture": ("fakes", 8, np.zeros((2, 2, 1), np.uint8))}
    calls["close"] = ("complete",)
    lines = [line for name, arguments in calls.items() for line in those.call(name, *arguments)]
    (line,) = lines
    assert line.startswith(f"config.logs: bad fails in {method}: ValueError: xxx") and len(line) < 400
    expected = {"scalars": ["scalars", "close"], "picture": ["scalars", "picture", "close"]}
    assert Bad.calls == expected.get(method, ["scalars", "picture", "close"])


def test_a_pictures_alpha_is_left_out(tmp_path):
    seen = []
    other = types.SimpleNamespace(call=lambda *arguments: seen.append(arguments) or [])
    log = logs.Log(tmp_path, total_images=9, others=other)
    for channels in (1, 2, 3, 4):
        log.picture("fakes", 5, np.full((2, 3, channels), channels, np.uint8))
    log.evaluation(1, 5, [{"metric": "fd/floor", "value": 2.0}, {"metric": "odd", "value": float("nan")}])
    log.close()
    assert [(call[:3], call[3].shape) for call in seen[:4]] == [
        (("picture", "fakes", 5), (2, 3, channels)) for channels in (1, 1, 3, 3)]  # fmt: skip
    assert seen[4:] == [("scalars", 1, 5, {"evaluation/fd/floor": 2.0}), ("close", "failed")]


def tell(folder, name: str, config: dict, outcome: str = "complete") -> None:
    """What a run of one line and one picture tells a logger."""
    those = loggers.begin(loggers.find((name,)), folder, config)
    values = {"generator/loss": 0.5, "evaluation/fd": 2.0, "evaluation/fd/floor/x": 1.0}
    lines = those.call("scalars", 3, 24, values) + those.call("picture", "fakes", 24, np.ones((2, 3, 1), np.uint8))
    assert lines + those.call("close", outcome) == []


def test_wandb(tmp_path, monkeypatch):
    """A resumed run goes on in the same one; nothing is logged by wandb's own steps, which may not go back."""
    said = []

    class Run:
        id = "abc"

        def define_metric(self, name, step_metric):
            said.append(("define_metric", name, step_metric))

        def log(self, data):
            said.append(("log", data))

        def finish(self, exit_code):
            said.append(("finish", exit_code))

    def init(*, project, name, dir, config, settings, id=None, resume=None):
        said.append(("init", project, name, dir, config, settings, id, resume))
        return Run()

    package = types.SimpleNamespace(init=init, Image=lambda array: ("image", array.shape))
    monkeypatch.setitem(sys.modules, "wandb", package)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    tell(tmp_path, "wandb", {"seed": 1})
    start = ("gan_jax", tmp_path.name, str(tmp_path), {"seed": 1}, {"console": "off"})
    values = {"generator/loss": 0.5, "evaluation/fd": 2.0, "evaluation/fd/floor/x": 1.0}
    assert said == [
        ("init", *start, None, None),
        ("define_metric", "*", "images"),
        ("log", {"images": 24, "step": 3, **values}),
        ("log", {"images": 24, "fakes": ("image", (2, 3, 1))}),
        ("finish", 0),
    ]
    said.clear()
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    tell(tmp_path, "wandb", {"seed": 1}, "failed")
    assert said[0] == ("init", "mine", *start[1:], "abc", "allow") and said[-1] == ("finish", 1)


def test_mlflow(tmp_path, monkeypatch):
    """Parameters are written once, a hundred at a time, and no metric's name is another's folder."""
    said = []

    def start_run(run_id=None, run_name=None):
        said.append(("start_run", run_id, run_name))
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id="abc"))

    package = types.SimpleNamespace(
        start_run=start_run,
        log_params=lambda params: said.append(("log_params", params)),
        log_metrics=lambda metrics, step: said.append(("log_metrics", metrics, step)),
        log_image=lambda image, artifact_file: said.append(("log_image", image.shape, artifact_file)),
        end_run=lambda status: said.append(("end_run", status)),
    )
    monkeypatch.setitem(sys.modules, "mlflow", package)
    config = {f"key.{i}": i for i in range(130)}
    tell(tmp_path, "mlflow", config)
    metrics = {"step": 3, "generator/loss": 0.5, "evaluation/fd": 2.0, "evaluation/fd.floor.x": 1.0}
    rest = [("log_metrics", metrics, 24), ("log_image", (2, 3, 1), "fakes_000000024.png")]
    assert said[0] == ("start_run", None, tmp_path.name) and said[3:] == [*rest, ("end_run", "FINISHED")]
    assert [len(params) for _, params in said[1:3]] == [100, 30]
    assert said[1][1] | said[2][1] == {key: str(value) for key, value in config.items()}
    said.clear()
    tell(tmp_path, "mlflow", config, "stopped")
    assert said == [("start_run", "abc", None), *rest, ("end_run", "KILLED")]
    (tmp_path / loggers.IDS).write_text('{"mlf')  # as a disk that was full may leave it
    with pytest.raises(UserError, match="loggers.json has no ids that can be read; remove it"):
        tell(tmp_path, "mlflow", config)


def test_a_run_that_diverges_has_failed(tmp_path, capfd):
    folder = tmp_path / "run"
    flags = "--config.logs=own_loggers.Keeper", "--config.optim.generator.learning_rate=1e38"
    assert cli.main(["train", SMOKE, f"--workdir={folder}", *PLAIN, *flags]) == 1
    assert kept(folder / "keeper.jsonl")[-1] == ["close", "failed"] and "last good checkpoint" in capfd.readouterr().err


def test_a_package_that_breaks_while_it_is_imported_is_one_message(tmp_path, monkeypatch):
    (tmp_path / "wandb.py").write_text("raise RuntimeError('built for another Python')")
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match="cannot be imported: RuntimeError: built for another Python; mend it"):
        loggers.find(("wandb",))


def test_loggers_make_no_other_programs_and_may_change_on_resume():
    one, two = settings.digits(), settings.digits(logs="wandb,own_loggers.Keeper")
    assert two.logs == ("wandb", "own_loggers.Keeper") and one.logs == runs.DEFAULTS["logs"] == ()
    assert configs.differences(one, two) == []
    assert len({programs._traced_masked(settings.build(config)) for config in (one, two)}) == 1
