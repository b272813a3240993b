"""The commands: train, evaluate, sample, sweep, import, export. Each imports what it needs only when it runs."""

import difflib
import errno
import gc
import os
import sys

from gan_jax import output, paths
from gan_jax.errors import DivergedError, UserError

DEFAULT_CONFIG = "experiments/digits_dcgan.py"
HELP = """usage: python launch.py [COMMAND] [--flag=value ...]

commands
  train      train a run, or go on where it stood (the default command)
  evaluate   measure a trained run, or a folder of images
  sample     write images of a trained run
  sweep      train every combination of some settings and compare them
  import     make a run's folder of official weights
  export     write a run's networks for other programs

train
  --config=FILE.py[:variant]   experiment; default experiments/digits_dcgan.py
  --workdir=DIR                the run's folder; default runs/<experiment>[_<variant>]
  --config.KEY=VALUE           override any key of the config, such as --config.optim.generator.learning_rate=1e-4
  --dry_run                    print parameters, FLOPs, memory, devices and data, and exit
  --profile=DIR                trace 16 to 32 steps into DIR once all is compiled, for XProf and TensorBoard
  --coordinator=HOST:PORT --num_processes=N --process_id=I   one process of several (detected on clusters)

evaluate
  --workdir=DIR                the run's folder
  --data=PATH                  where the run's data lie now, if they were moved; A=PATH,B=PATH of data with parts
  --metrics=NAME,NAME          such as fid50k_full, kid50k_full, pr50k3_full, is50k, ppl2_wend, swd16k, msssim10k;
                               or fd, kd, prdc, classes of --features and --samples (fid and kid are taken
                               for fd and kd where these are not Inception's, and reported by their features); modes,
                               of mixtures; eqt, eqt_frac, eqr, of stylegan3. Default: the config's. docs/metrics.md
  --step=N                     checkpoint; default: the newest
  --images=PATH                instead of the run's samples the images of a folder or .zip, compared with the run's
                               data (--workdir), with another folder or .zip (--reference=PATH) or with moments of a
                               file (--statistics); also psnr, ssim, ms_ssim, lpips_alex, lpips_vgg, image by image
  --out=FILE                   with --images: append the values to FILE as JSON lines
  --features=NAME              digits_classifier, inception, vgg16, dinov2_vitl14, random_inception, ...; default: the
                               config's, inception with --images
  --weights=PATH --download    a file or folder of weights (docs/metrics_weights.md), or fetch what is not there
  --preprocessing=tf1|pytorch_fid|clean   Inception's resize; default tf1, the official one
  --samples=N --batch_size=N --split=NAME --flip_reals   see config.evaluation in docs/metrics.md
  --statistics=FILE.npz        the reals' moments from a file, as pytorch-fid has them
  --save_statistics=FILE.npz   write the reals' moments to a file
  --compare=RUN,RUN            print the newest values of several runs, and which of them do not compare

sample
  --workdir=DIR --out=DIR      the run's folder, and where images go
  --seeds=0-63                 one image for each; also 1,5,9; of runs that translate, held-out examples
  --inputs=PATH                a picture, or a folder or .zip of such, for runs that translate pictures
  --data=PATH                  where the run's data lie now, if they were moved; A=PATH,B=PATH of data with parts
  --direction=ab|ba            of a translation; default: the config's
  --labels=0,1,2               classes, or their names: cat,dog; for conditional runs
  --interpolate=FRAMES         an animation through the seeds and back to the first; FRAMES for each
  --interpolate_in=z|w         along great circles of z (default), or linearly in w; for models with styles
  --truncation=PSI[,CUTOFF]    styles moved towards their mean, in all layers or the first ones; for models with styles
  --noise=const|random|none    noise inputs, for models with such: the same for all (default), of each seed, or none
  --style_mixing=ROWS:COLUMNS[:LAYERS]   table of images of the seeds ROWS with the styles of the seeds COLUMNS in
                               LAYERS, such as 0-5:10-14:0-6; default the coarse ones, 0-6; for models with styles
  --save_dlatents              write the styles w beside the images, as dlatents.npz
  --dlatents=FILE.npz          images of styles w, (N, num_ws, w_size) or (N, w_size), instead of those of seeds
  --step=N                     checkpoint; default: the newest

sweep
  --config=FILE.py[:variant] --workdir=DIR
  --sweep='config.KEY=FORM'    repeatable; FORM is a list 1,2,3 or log(1e-5,1e-3,5), linear(0,1,3), random(0,1,4),
                               lograndom(1e-5,1e-3,4)
  --jobs=N                     runs at once; default 1
  --metric=NAME                by which to sort; default: the config's first
  --seed=N                     of the random forms

import
  --from=FILE                  .pkl of stylegan2-ada-pytorch, stylegan3 or R3GAN; .pth or .safetensors of their tensors;
                               .pt of rosinality's stylegan2-pytorch; .pth of StudioGAN's StyleGAN2; .safetensors
                               that export wrote. Nothing in the file is run
  --workdir=DIR                the folder to make
  --config=FILE.py[:variant]   experiment for what the file does not tell: data, losses, optimizers
  --config.KEY=VALUE           override any key, such as --config.generator.conv_clamp=256

export
  --workdir=DIR --out=FILE     the run's folder, and the file to write
  --format=safetensors|stablehlo   the networks' arrays, the averaged ones where there are; or the averaged generator as
                               a program for any batch size on CPU, CUDA and TPU
  --truncation=PSI[,CUTOFF]    of the program; for models with styles
  --step=N                     checkpoint; default: the newest

exit codes: 0 done, 1 the run diverged or failed, 2 a mistake in flags, config or files
"""

CACHED_SECONDS = 0.02  # programs that compile for longer are kept for the next process
STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EEXIST, errno.ENOTDIR)
# Texts for `sample`.
DRAWN = ("inputs", "direction", "seeds", "labels", "truncation", "noise", "interpolate_in", "style_mixing", "dlatents")
EVALUATION = ("features", "weights", "download", "preprocessing", "samples", "batch_size", "split", "flip_reals",
              "statistics")  # keys of config.evaluation  # fmt: skip
FLAGS = {
    "train": ("config", "workdir", "dry_run", "profile", "coordinator", "num_processes", "process_id"),
    "evaluate": ("workdir", "data", "metrics", "step", "images", "reference", "out", *EVALUATION, "save_statistics",
                 "compare"),
    "sample": ("workdir", "data", "out", *DRAWN, "interpolate", "save_dlatents", "step"),
    "sweep": ("config", "workdir", "sweep", "jobs", "metric", "seed"),
    "import": ("from", "workdir", "config"),
    "export": ("workdir", "out", "format", "truncation", "step"),
}  # fmt: skip
PATHS = ("config", "workdir", "out", "images", "reference", "statistics", "save_statistics", "weights", "inputs",
         "dlatents", "from", "profile", "compare")
SWITCHES = ("dry_run", "save_dlatents", "download", "flip_reals")


@output.lasting(patient=False)
def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        return _main(argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # storage that fails outside the run's own files, such as the cache
        if error.errno not in STORAGE:
            raise
        where = error.filename or "standard output"
        print(
            f"error: {where}: {error.strerror}; make room or mend it, and run the same command again", file=sys.stderr
        )
        return 2
    except DivergedError as error:
        print(f"diverged: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _main(argv: list[str]) -> int:
    command = "train" if not argv or argv[0].startswith("-") else argv.pop(0)
    if command not in FLAGS and command != "help":
        near = difflib.get_close_matches(command, FLAGS, 1)
        hint = f"; did you mean {near[0]}?" if near else "."
        raise UserError(f"unknown command {command!r}{hint} Commands: {', '.join(FLAGS)}; --help tells more")
    if command == "help" or "--help" in argv or "-h" in argv:
        print(HELP, end="")
        return 0
    flags, overrides = parse(command, argv)
    _prepare_jax()
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
            several = values[0].split(",") if name == "compare" else values
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


def _needed(flags: dict, name: str) -> str:
    if not _one(flags, name):
        raise UserError(f"--{name}=... is missing")
    return _one(flags, name)


def _prepare_jax() -> None:
    """A compilation cache shared by all runs, unless the user has set one; fewer words from the libraries."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import jax

    from gan_jax import cache, parallel

    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(cache.cache_dir("xla")))
        if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:  # a first save compiles many small programs
            jax.config.update("jax_persistent_cache_min_compile_time_secs", CACHED_SECONDS)
    # Tracing makes many objects; looking for garbage, and noting where each operation was written, delays a start.
    gc.set_threshold(100_000, 20, 100)
    if "JAX_TRACEBACK_IN_LOCATIONS_LIMIT" not in os.environ:
        jax.config.update("jax_traceback_in_locations_limit", 0)
    parallel.silence()


def _train(flags: dict, overrides: list) -> int:
    from gan_jax import parallel, runs

    path = _one(flags, "config", DEFAULT_CONFIG)
    config = runs.load_config(path, overrides)
    parallel.initialize(
        _one(flags, "coordinator"), _number(flags, "num_processes", 0), _number(flags, "process_id", -1)
    )
    from gan_jax.train import train

    workdir = _one(flags, "workdir") or default_workdir(path)
    dry_run = _one(flags, "dry_run", "false") in ("true", "1")
    train(config, workdir, dry_run=dry_run, profile=_one(flags, "profile"))
    return 0


def default_workdir(path: str) -> str:
    """`runs/<experiment>[_<variant>]` for an experiment path."""
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
        _alone(flags, "images", ("workdir", "data", "reference", "out", "metrics", "save_statistics", *EVALUATION))
        paths = {name: _one(flags, name) for name in ("reference", "workdir", "out")}
        rows = evaluate.compare_folders(_one(flags, "images"), **paths, **common)
    else:
        _alone(flags, "workdir", ("data", "step", "metrics", "save_statistics", *EVALUATION))
        rows = evaluate.evaluate(_needed(flags, "workdir"), step=_number(flags, "step", None), **common)
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
        step=_number(flags, "step", None),
        data=_one(flags, "data"),
        interpolate=_number(flags, "interpolate", 0),
        save_dlatents=_one(flags, "save_dlatents") in ("true", "1"),
        **{name: _one(flags, name) for name in DRAWN},
    )
    print(f"wrote {len(files)} file{'s' * (len(files) != 1)}, the last {files[-1]}")
    return 0


def _sweep(flags: dict, overrides: list) -> int:
    from gan_jax import runs, sweep

    path = _one(flags, "config", DEFAULT_CONFIG)
    for values in sweep.product(flags.get("sweep", []), _number(flags, "seed", 0)).values():
        varied = [(key.removeprefix("config."), value) for key, value in values.items()]
        runs.load_config(path, [*overrides, *varied])
    failures = sweep.sweep(
        path,
        overrides,
        flags.get("sweep", []),
        _needed(flags, "workdir"),
        jobs=_number(flags, "jobs", 1),
        metric=_one(flags, "metric"),
        seed=_number(flags, "seed", 0),
    )
    return 1 if failures else 0


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
        step=_number(flags, "step", None),
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
