"""The commands, `FLAGS` has their names. Each imports what it needs only when it runs."""

import contextlib
import difflib
import errno
import functools
import gc
import os
import sys

from gan_jax import help as help_texts
from gan_jax import output, paths, signals
from gan_jax.errors import STOPPED, DivergedError, UserError, shown

DEFAULT_CONFIG = "digits_dcgan"
STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EEXIST, errno.ENOTDIR,
           errno.ENAMETOOLONG, errno.ENOTEMPTY, errno.EIO, errno.ESTALE)
# Texts for `sample`.
DRAWN = ("inputs", "masks", "direction", "seeds", "labels", "truncation", "noise", "interpolate_in", "animation",
         "style_mixing", "dlatents", "format")  # fmt: skip
EVALUATION = ("features", "weights", "download", "preprocessing", "samples", "batch_size", "split", "flip_reals",
              "border", "statistics")  # keys of config.evaluation  # fmt: skip
FLAGS = {
    "train": ("config", "workdir", "dry_run", "profile", "coordinator", "num_processes", "process_id",
              "wait_seconds"),
    "evaluate": ("workdir", "data", "metrics", "step", "images", "reference", "resize", "out", *EVALUATION,
                 "save_statistics", "compare"),
    "sample": ("workdir", "data", "out", *DRAWN, "interpolate", "fps", "tile", "scale", "quality",
               "per_class", "as", "save_dlatents", "step"),
    "sweep": ("config", "workdir", "sweep", "jobs", "metric", "seed", "engine", "trials", "sampler", "pruner",
              "startup", "warmup", "storage", "study", "slurm", "task", "population", "rounds"),
    "config": (),
    "import": ("from", "workdir", "config"),
    "export": ("workdir", "out", "format", "truncation", "step"),
}  # fmt: skip
PATHS = ("config", "workdir", "out", "images", "reference", "statistics", "save_statistics", "weights", "inputs",
         "dlatents", "from", "profile", "compare")
SWITCHES = ("dry_run", "save_dlatents", "download", "flip_reals")


def command() -> None:
    """Runs one command and ends the process, after an error at once: Orbax's threads may wait for a disk for ever."""
    code = main()
    if code in (1, 2):
        output.flush()
        os._exit(code)
    sys.exit(code)


@output.lasting(patient=False)
def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        return _main(argv)
    except BaseException as error:
        return _exit_code(error)


def _exit_code(error: BaseException) -> int:
    """Tells the user of an error in one line and gives the exit code, or raises it where there are no words for it."""
    try:
        raise error
    except UserError as error:
        print(f"error: {shown(error)}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # storage that fails outside the run's own files, such as the cache
        if error.errno not in STORAGE:
            raise
        where = shown(error.filename or "standard output")
        print(
            f"error: {where}: {error.strerror}; make room or mend it, and run the same command again", file=sys.stderr
        )
        return 2
    except DivergedError as error:
        print(f"diverged: {shown(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _main(argv: list[str]) -> int:
    first = argv[0] if argv else ""
    if first == "--version":
        print(help_texts.version(), end="")
        return 0
    if first in ("--help", "-h") or argv == ["help"]:
        print(help_texts.overview(), end="")
        return 0
    asked = first == "help" and argv.pop(0)
    command = "train" if not argv or argv[0].startswith("-") else argv.pop(0)
    if command not in FLAGS:
        near = difflib.get_close_matches(command, FLAGS, 1)
        hint = f"; did you mean {near[0]}?" if near else "."
        raise UserError(f"unknown command {command!r}{hint} Commands: {', '.join(FLAGS)}; --help tells more")
    if asked or "--help" in argv or "-h" in argv:
        print(help_texts.of(command), end="")
        return 0
    if command == "config":  # nothing of JAX
        return _config(argv)
    flags, overrides = parse(command, argv)
    if command not in ("train", "sweep"):  # which take the signals first
        _prepare_jax(command)
    return COMMANDS[command](flags, overrides)


def parse(command: str, argv: list[str]) -> tuple[dict[str, list[str]], list[tuple[str, str]]]:
    """Splits arguments into flags, name -> the values given, and overrides, (dotted key, text).

    Raises:
      UserError: an argument that is no flag of this command, or a flag without its value.
    """
    flags: dict[str, list[str]] = {}
    overrides = []
    rest = list(argv)
    while rest:
        argument = rest.pop(0)
        name, equals, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or not name:
            raise UserError(f"{argument!r} is no flag; write --name=value")
        override = name.startswith("config.") and "config" in FLAGS[command]
        if not override and name not in FLAGS[command]:
            near = difflib.get_close_matches(name, FLAGS[command], 1)
            hint = f"; did you mean --{near[0]}?" if near else "."
            names = ", ".join(f"--{flag}" for flag in FLAGS[command])
            raise UserError(f"--{name}: {command} has no such flag{hint} It takes {names}")
        if name in SWITCHES:
            value = (value if equals else "true").lower()
            if value not in ("true", "1", "false", "0"):
                raise UserError(f"{argument}: expected --{name} alone, or True or False")
        elif not equals and rest and not rest[0].startswith("--"):
            value = rest.pop(0)
        elif not equals or not (value or override):
            raise UserError(f"--{name} needs a value: --{name}=...")
        if override:
            overrides.append((name.removeprefix("config."), value))
        else:
            flags.setdefault(name, []).append(value)
    for name, values in flags.items():
        if len(values) > 1 and name != "sweep":
            raise UserError(f"--{name} is given {len(values)} times: {', '.join(values)}")
        if name in PATHS:
            several = values[0].split(",") if name in ("compare", "from") else values
            flags[name] = [",".join(paths.expanded(path, f"--{name}") for path in several)]
    return flags, overrides


def _one(flags: dict, name: str, default: str = "") -> str:
    return flags.get(name, [default])[0]


def _number(flags: dict, name: str, default, kind=int):
    text = _one(flags, name)
    if not text:
        return default
    try:
        return kind(text)
    except ValueError:
        expected = "a whole number" if kind is int else "a number"
        raise UserError(f"--{name}={text}: expected {expected}") from None


def _step(flags: dict) -> int | None:
    """The checkpoint's step; None for the newest."""
    text = _one(flags, "step")
    if text not in ("", "best") and not text.isdecimal():
        raise UserError(f"--step={text}: expected a whole number, or best")
    if text != "best":
        return _number(flags, "step", None)
    from gan_jax import evaluate, folders

    workdir = _needed(flags, "workdir")
    return folders.best_step(workdir, **evaluate.ranking(folders.read_folder(workdir)[0]))


def _needed(flags: dict, name: str) -> str:
    if not _one(flags, name):
        raise UserError(f"--{name}=... is missing")
    return _one(flags, name)


def _prepare_jax(command: str) -> None:
    """Programs are kept; fewer words from the libraries."""
    output.doing("starting JAX")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import jax

    from gan_jax import lowered, parallel

    lowered.keep_compiled()
    # Tracing makes many objects; looking for garbage, and noting where each operation was written, delays a start.
    gc.set_threshold(100_000, 20, 100)
    if "JAX_TRACEBACK_IN_LOCATIONS_LIMIT" not in os.environ:
        jax.config.update("jax_traceback_in_locations_limit", 0)
    parallel.silence()
    output.doing(f"{command}: at work")


def _train(flags: dict, overrides: list) -> int:
    with signals.Stop(functools.partial(_end, "before training began")) as stop:
        _prepare_jax("train")
        import jax

        from gan_jax import runs
        from gan_jax.processes import meeting, peers

        path = _one(flags, "config", DEFAULT_CONFIG)
        config = runs.load_config(path, overrides)
        from gan_jax.train import train  # before JAX may take SIGTERM, as this takes a while

        workdir = _one(flags, "workdir") or default_workdir(path)
        options = {"dry_run": _one(flags, "dry_run", "false") in ("true", "1"), "profile": _one(flags, "profile")}
        meeting.initialize(
            _one(flags, "coordinator"),
            _number(flags, "num_processes", 0),
            _number(flags, "process_id", -1),
            _number(flags, "wait_seconds", meeting.WAIT_SECONDS),
            joining=stop.note,
        )
        with peers.watching(_exit_code) as watch:
            stop.among(jax.process_count())
            output.doing("train: at work")
            is_complete = train(config, workdir, **options, stop=stop, watch=watch)
            meeting.end()
    return 0 if is_complete else STOPPED


def _end(when: str, name: str) -> None:
    """Ends the command where a signal came and nothing is to be saved.

    To raise there is not safe: compiled modules abort while they are imported, and callbacks of JAX swallow it.
    """
    with contextlib.suppress(OSError):
        os.write(1, f"stopped by {name} {when}, nothing is lost; the same command goes on\n".encode())
    os._exit(STOPPED)


def default_workdir(path: str) -> str:
    """`runs/<experiment>[_<variant>]` for an experiment's name or path."""
    name, _, variant = path.partition(":")
    stem = os.path.splitext(os.path.basename(name))[0]
    return os.path.join("runs", f"{stem}_{variant}" if variant else stem)


def _evaluate(flags: dict, overrides: list) -> int:
    from gan_jax import evaluate

    if "compare" in flags:
        _alone(flags, "compare", ())
        print(evaluate.comparison([folder.strip() for folder in _one(flags, "compare").split(",") if folder.strip()]))
        return 0
    settings = {name: _one(flags, name) for name in EVALUATION if name in flags}
    settings |= {name: str(text in ("true", "1")) for name, text in settings.items() if name in SWITCHES}
    common = {name: _one(flags, name) for name in ("metrics", "save_statistics", "data")} | {"settings": settings}
    if "images" in flags:
        beside = ("workdir", "data", "reference", "resize", "out", "metrics", "save_statistics", *EVALUATION)
        _alone(flags, "images", beside)
        paths = {name: _one(flags, name) for name in ("reference", "workdir", "out")}
        rows = evaluate.compare_folders(_one(flags, "images"), resize=_number(flags, "resize", None), **paths, **common)
    else:
        _alone(flags, "workdir", ("data", "step", "metrics", "save_statistics", *EVALUATION))
        rows = evaluate.evaluate(_needed(flags, "workdir"), step=_step(flags), **common)
    print(evaluate.table(rows))
    return 0


def _alone(flags: dict, main: str, others: tuple[str, ...]) -> None:
    """Raises UserError for flags that have no meaning beside `main`."""
    wrong = [name for name in flags if name not in (main, *others)]
    if wrong:
        reason = f"has no meaning with --{main}" if main in flags else "needs --images"
        raise UserError(f"--{wrong[0]} {reason}")


def _sample(flags: dict, overrides: list) -> int:
    from gan_jax import sample

    files = sample.sample(
        _needed(flags, "workdir"),
        _needed(flags, "out"),
        step=_step(flags),
        data=_one(flags, "data"),
        interpolate=_number(flags, "interpolate", 0),
        fps=_number(flags, "fps", None),
        tile=_number(flags, "tile", None),
        scale=_number(flags, "scale", None, float),
        quality=_number(flags, "quality", None),
        per_class=_number(flags, "per_class", None),
        as_=_one(flags, "as"),
        save_dlatents=_one(flags, "save_dlatents") in ("true", "1"),
        **{name: _one(flags, name) for name in DRAWN},
    )
    print(f"wrote {len(files)} file{'s' * (len(files) != 1)}, the last {files[-1]}")
    return 0


def _sweep(flags: dict, overrides: list) -> int:
    with signals.Stop(functools.partial(_end, "while no run trains")):
        _prepare_jax("sweep")
        return _engine(flags, overrides)


def _engine(flags: dict, overrides: list) -> int:
    from gan_jax import runs, sweep, sweep_flags, sweeps
    from gan_jax.evaluate import protocols
    from gan_jax.sweeps import choices, population, slurm, study

    engine, metric = _one(flags, "engine", "local"), _one(flags, "metric")
    sweeps.check_flags(engine, flags)
    if why := protocols.unranked(metric):
        raise UserError(f"--metric={metric}: it is {why}; name another one, by which runs are ranked")
    path = _one(flags, "config", DEFAULT_CONFIG)
    swept, seed = flags.get("sweep", []), _number(flags, "seed", 0)
    whole = frozenset()
    with contextlib.suppress(UserError):  # a swept name may be what makes the rest right; all is loaded below
        whole = sweep_flags.whole_keys(runs.load_config(path, overrides))
    chooses = engine in ("optuna", "pbt")
    space = sweep_flags.space(swept, seed, whole) if chooses else {}
    tried = choices.examples(space) if chooses else sweep_flags.product(swept, seed, whole).values()
    for values in tried:
        varied = [(key.removeprefix("config."), value) for key, value in values.items()]
        config = runs.load_config(path, [*overrides, *varied])
    settings = {"seed": seed, "whole": whole}
    common = (path, overrides, swept, _needed(flags, "workdir"))
    if "task" in flags:
        return slurm.run_task(_number(flags, "task", 0), *common, **settings)
    settings |= {"metric": metric, "jobs": _number(flags, "jobs", 0 if engine == "slurm" else 1)}
    if engine == "slurm":
        return slurm.submit(*common, options=_one(flags, "slurm"), **settings)
    if chooses:
        settings["better"] = choices.order(config, metric)
    if engine == "optuna":
        texts = {name: _one(flags, name) for name in ("sampler", "pruner", "storage", "study") if name in flags}
        numbers = {name: _number(flags, name, 0) for name in ("trials", "startup", "warmup") if name in flags}
        return study.search(*common, settings=study.Settings(**texts, **numbers), **settings)
    if engine == "pbt":
        choices.check_schedules(config)
        numbers = {name: _number(flags, name, 0) for name in ("population", "rounds") if name in flags}
        return population.evolve(*common, total_images=config.total_images, **numbers, **settings)
    return sweep.sweep(*common, **settings)


def _config(argv: list[str]) -> int:
    """Prints the file of one experiment, or the names of all."""
    from gan_jax import catalog

    if argv and argv[0].startswith("-") or len(argv) > 1:
        raise UserError(f"{' '.join(argv)!r}: expected the name of one experiment, or nothing for the list of all")
    if argv:
        file = catalog.find(argv[0].partition(":")[0])
        print(file.read_text(encoding="utf-8"), end="")
        return 0
    summaries = catalog.summaries()
    width = max(map(len, summaries))
    for name, summary in summaries.items():
        print(f"{name:{width}}  {summary}")
    return 0


def _import(flags: dict, overrides: list) -> int:
    from gan_jax.interop import importer

    source, workdir = _needed(flags, "from"), _needed(flags, "workdir")
    print(importer.import_weights(source, workdir, _one(flags, "config"), overrides))
    return 0


def _export(flags: dict, overrides: list) -> int:
    from gan_jax.interop import exporter

    file = exporter.export(
        _needed(flags, "workdir"),
        _needed(flags, "out"),
        format=_one(flags, "format", "safetensors"),
        truncation=_one(flags, "truncation"),
        step=_step(flags),
    )
    print(f"wrote {file}, {file.stat().st_size / 2**20:.1f} MiB")
    return 0


COMMANDS = {
    "train": _train,
    "evaluate": _evaluate,
    "sample": _sample,
    "sweep": _sweep,
    "import": _import,
    "export": _export,
}

if __name__ == "__main__":
    sys.exit(main())
