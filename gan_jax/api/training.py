"""Configs, and the loop."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from gan_jax import config as configs
from gan_jax import lowered, runs
from gan_jax.api import arguments
from gan_jax.api.arguments import Path
from gan_jax.api.trained import TrainedRun, open_run
from gan_jax.processes import meeting, peers
from gan_jax.train import train as train_loop


@arguments.spoken()
def load_config(name: Path, overrides: Mapping[str, Any] | None = None) -> ConfigDict:
    """The complete config of an experiment.

    Args:
      name: of an experiment, `digits_dcgan`, or the path of its file; `:VARIANT` may follow.
      overrides: dotted key -> value, such as `{"optim.generator.learning_rate": 1e-4}`.
    Raises:
      MissingPathError, UserError: no such experiment, variant or key, or a value of another type.
    """
    return runs.load_config(arguments.path(name, "config"), arguments.texts(overrides))


@arguments.spoken()
def train(
    config: ConfigDict | Path,
    workdir: Path,
    *,
    overrides: Mapping[str, Any] | None = None,
    dry_run: bool = False,
    profile: Path = "",
) -> TrainedRun | None:
    """Trains a run, or goes on where the folder's run stood.

    An interrupt (in a notebook: Interrupt kernel), SIGTERM, SIGHUP, SIGUSR1 and SIGUSR2 let it end its step and save;
    the same call goes on from there.
    Outside the main thread it leaves all signals alone. Among several processes the end of another one ends this one.

    Args:
      config: from `load_config`, or an experiment's name or path as it takes it.
      workdir: the run's folder.
      overrides: dotted key -> value, as of `load_config`.
      dry_run: print what would be trained, and return None.
      profile: folder for a trace of some steps; empty for none.
    Returns:
      The run, opened at its newest checkpoint. `is_complete` is False where a signal stopped it before its end.
    Raises:
      MissingPathError, UserError: a mistake in config, data or folder.
      DivergedError: a loss or gradient is not finite; the last good checkpoint is kept.
    """
    if isinstance(config, ConfigDict):
        config = configs.resolve(config, arguments.texts(overrides), runs.defaults)
    else:
        config = load_config(config, overrides)
    workdir = arguments.path(workdir, "workdir")
    lowered.keep_compiled()
    meeting.initialize()
    profile = arguments.path(profile, "profile", optional=True)
    with peers.watching() as watch:
        is_complete = train_loop(config, workdir, dry_run=bool(dry_run), profile=profile, watch=watch)
    if dry_run:
        return None
    run = open_run(workdir)
    run.is_complete = is_complete
    return run
