"""Loggers of a run beside its files and TensorBoard, named by `config.logs`: `wandb`, `mlflow`, or a class by its path.

A logger is made by `Class(workdir, config)` before training: the run's folder, and its config as {dotted key: value}.
It has
    scalars(step, images, values)  values is {name: float}: means of losses, images_per_second, evaluation/<metric>
    picture(name, images, array)   uint8 (H, W, 1 or 3); name is reals or fakes
    close(outcome)                 one of OUTCOMES: the run is complete, was stopped or failed; it may be begun again
What it raises while it is made ends the command. What it raises later is one line, and the run goes on without it.
"""

import contextlib
import difflib
import importlib
import json
import os
import pathlib
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import numpy as np

from gan_jax import modules
from gan_jax.errors import UserError

METHODS = ("scalars", "picture", "close")
OUTCOMES = ("complete", "stopped", "failed")
IDS = "loggers.json"  # in the run's folder: the ids by which a resumed run goes on in the same one elsewhere


class Logger(Protocol):
    """What a run calls, see above."""

    def scalars(self, step: int, images: int, values: dict[str, float]) -> None:
        """Values at a step, when so many images were seen."""

    def picture(self, name: str, images: int, array: np.ndarray) -> None:
        """A grid of images."""

    def close(self, outcome: str) -> None:
        """Nothing follows."""


Maker = Callable[[pathlib.Path, dict[str, Any]], Logger]


class Loggers:
    """Those of one run. One that fails is left out from then on."""

    def __init__(self, by_name: dict[str, Logger] | None = None):
        """`by_name`: as `begin` makes them; none where it is left out."""
        self._by_name = dict(by_name or {})

    def call(self, method: str, *arguments: Any) -> list[str]:
        """Calls a method of each; a line for each that failed."""
        lines = []
        for name, logger in list(self._by_name.items()):
            try:
                getattr(logger, method)(*arguments)
            except Exception as error:  # whatever another service or the user's class raises must not end the run
                lines.append(f"config.logs: {name} fails in {method}: {_words(error)}; the run goes on without it")
                del self._by_name[name]
                if method != "close":
                    with contextlib.suppress(Exception):
                        logger.close("failed")
        return lines


def find(names: tuple[str, ...]) -> dict[str, Maker]:
    """What makes the loggers of these names.

    Raises:
      UserError: an unknown name, a path that leads to no class, or a package that is not installed.
    """
    return {name: _maker(name) for name in ([names] if isinstance(names, str) else names)}


def begin(makers: dict[str, Maker], workdir: pathlib.Path, config: dict[str, Any]) -> Loggers:
    """The run's loggers. Raises UserError where one cannot be begun; those before it are closed."""
    begun: dict[str, Logger] = {}
    try:
        for name, maker in makers.items():
            begun[name] = _begun(name, maker, workdir, config)
    except UserError:
        Loggers(begun).call("close", "failed")
        raise
    return Loggers(begun)


def _maker(name: str) -> Maker:
    if name in OURS:
        try:
            return partial(OURS[name], importlib.import_module(name))
        except ImportError as error:
            raise UserError(f"config.logs={name!r}: pip install {name}, or leave it out: {error}") from error
        except Exception as error:  # a package that is broken raises whatever it likes
            message = f"config.logs={name!r} cannot be imported: {_words(error)}; mend it, or leave it out"
            raise UserError(message) from error
    module, dot, last = str(name).rpartition(".")
    if not dot:
        near = difflib.get_close_matches(str(name), OURS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"config.logs={name!r}: expected {', '.join(OURS)} or the dotted path of a class{hint}")
    maker = getattr(modules.import_path(module, "config.logs"), last, None)
    if not callable(maker):
        raise UserError(f"config.logs={name!r}: {module} has no class {last}")
    return maker


def _begun(name: str, maker: Maker, workdir: pathlib.Path, config: dict[str, Any]) -> Logger:
    try:
        logger = maker(workdir, config)
    except Exception as error:
        raise UserError(f"config.logs={name!r} cannot be begun: {_words(error)}; mend it, or leave it out") from error
    if missing := [method for method in METHODS if not callable(getattr(logger, method, None))]:
        raise UserError(f"config.logs={name!r} has no {', '.join(missing)}; a logger has {', '.join(METHODS)}")
    return logger


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


class Wandb:
    """A run of Weights & Biases, over images seen. Its own variables rule it, such as WANDB_PROJECT and WANDB_MODE."""

    def __init__(self, wandb, workdir: pathlib.Path, config: dict[str, Any]):
        """`wandb`: the package."""
        self._wandb, ids = wandb, _read_ids(workdir)
        again = {"id": ids["wandb"], "resume": "allow"} if "wandb" in ids else {}
        project = os.environ.get("WANDB_PROJECT", "gan_jax")
        options = {"dir": str(workdir), "name": workdir.resolve().name, "config": config, **again}
        self._run = wandb.init(project=project, settings={"console": "off"}, **options)  # log.txt has the lines
        _keep_id(workdir, "wandb", self._run.id)
        self._run.define_metric("*", step_metric="images")

    def scalars(self, step: int, images: int, values: dict[str, float]) -> None:
        """See above."""
        self._run.log({"images": images, "step": step, **values})

    def picture(self, name: str, images: int, array: np.ndarray) -> None:
        """See above."""
        self._run.log({"images": images, name: self._wandb.Image(array)})

    def close(self, outcome: str) -> None:
        """See above."""
        self._run.finish(exit_code=int(outcome == "failed"))


class Mlflow:
    """A run of MLflow, its steps being images seen. Its own variables rule it, such as MLFLOW_TRACKING_URI."""

    def __init__(self, mlflow, workdir: pathlib.Path, config: dict[str, Any]):
        """`mlflow`: the package."""
        self._mlflow, ids = mlflow, _read_ids(workdir)
        if "mlflow" in ids:  # a run's parameters are written once
            mlflow.start_run(run_id=ids["mlflow"])
            return
        run = mlflow.start_run(run_name=workdir.resolve().name)
        _keep_id(workdir, "mlflow", run.info.run_id)
        items = [(key, str(value)) for key, value in config.items()]
        for start in range(0, len(items), 100):  # a request takes no more
            mlflow.log_params(dict(items[start : start + 100]))

    def scalars(self, step: int, images: int, values: dict[str, float]) -> None:
        """See above."""
        named = {_one_slash(name): value for name, value in values.items()}
        self._mlflow.log_metrics({"step": step, **named}, step=images)

    def picture(self, name: str, images: int, array: np.ndarray) -> None:
        """See above."""
        self._mlflow.log_image(array, artifact_file=f"{name}_{images:09}.png")

    def close(self, outcome: str) -> None:
        """See above."""
        self._mlflow.end_run({"complete": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}[outcome])


OURS = {"wandb": Wandb, "mlflow": Mlflow}


def _one_slash(name: str) -> str:
    """MLflow may keep a metric in a file of its name, which is then no folder of others: fd, and fd/floor beside it."""
    head, slash, tail = name.partition("/")
    return head + slash + tail.replace("/", ".")


def _read_ids(workdir: pathlib.Path) -> dict[str, str]:
    path = workdir / IDS
    try:
        ids = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if not isinstance(ids, dict):
            raise ValueError("it is no object")
        return ids
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} has no ids that can be read; remove it, and another run begins there") from error


def _keep_id(workdir: pathlib.Path, name: str, value: str) -> None:
    part = workdir / f".{IDS}.part"  # a process that is killed leaves the whole file or none
    part.write_text(json.dumps({**_read_ids(workdir), name: value}) + "\n", encoding="utf-8")
    os.replace(part, workdir / IDS)
