"""Searches by Optuna: its samplers choose what to try, its pruners end what is not worth going on with.

A trial is an ordinary run in a folder of its own. The study knows the folder's name and the values, as the run's own
files have them. Any number of workers, this command each, may work at one study in one folder at the same time.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import pathlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from gan_jax import lock, sweep, sweep_flags
from gan_jax.errors import STOPPED, UserError
from gan_jax.sweeps import plots

SAMPLERS = ("tpe", "random", "grid", "cmaes")
PRUNERS = ("none", "median", "halving")
TRIALS = 20
LOCK_SECONDS = 60.0  # that a worker waits for another's writing to an SQLite file


class Settings(NamedTuple):
    """How a study searches; workers may differ in all but its name and storage."""

    trials: int = 0  # of all workers together; 0 for TRIALS, or as many as a grid has
    sampler: str = "tpe"  # one of SAMPLERS
    pruner: str = "none"  # one of PRUNERS
    startup: int | None = None  # trials before sampler and pruner decide by what they saw; None for Optuna's numbers
    warmup: int = 0  # images of a run before it can be pruned
    storage: str = ""  # URL of a database, or journal:FILE; empty for `study.db` in the sweep's folder
    study: str = ""  # the study's name; empty for the folder's


class _Search(NamedTuple):
    """What is searched, and how its runs are begun."""

    root: pathlib.Path
    config_flag: str
    flags: list[str]  # for every run
    space: sweep_flags.Space
    metric: str  # empty for the first that is evaluated
    better: str  # lower or higher
    seed: int
    command: Sequence[str] | None


def search(
    config_flag: str,  # value of --config
    overrides: Sequence[tuple[str, str]],  # for every run: (key without `config.`, value)
    sweeps: Sequence[str],  # see `sweep_flags.space`
    workdir: str,  # the sweep's folder; workers on several machines share it
    *,
    settings: Settings,
    metric: str,  # by which runs are judged; empty for the first that is evaluated
    better: str,  # `lower` or `higher`
    jobs: int = 1,  # runs at a time, of this worker
    seed: int = 0,  # of the draws; each trial's depend on its number as well
    whole: Collection[str] = (),  # keys of whole numbers
    command: Sequence[str] | None = None,  # program that takes `train` and flags; None for this project's own
) -> int:
    """Works at a study until it has all its trials; prints the table, writes `sweep.csv` and pictures.

    Returns:
      The command's exit code: `STOPPED` where a signal left trials undone, else 1 where some failed, or 0.
    Raises:
      UserError: Optuna is missing, flags that make no sense, or a folder or study of another search.
    """
    if jobs < 1:
        raise UserError(f"--jobs={jobs}: expected 1 or more runs at a time")
    space = sweep_flags.space(sweeps, seed, whole)
    settings = _checked(settings, space)
    root, flags = pathlib.Path(workdir).absolute(), [f"--config.{key}={value}" for key, value in overrides]
    definition = {"engine": "optuna", "config": config_flag, "overrides": flags, "sweeps": list(sweeps)}
    definition |= {"metric": metric, "better": better}
    root.mkdir(parents=True, exist_ok=True)
    with _alone(root):  # a study, and the tables of its storage, are made by one worker
        sweep.check_definition(root, definition, {})
        study = _open(settings, root, definition)
    searched = _Search(root, config_flag, flags, space, metric, better, seed, command)
    with contextlib.closing(_Worker(study, searched, settings)) as worker:
        print(f"{settings.trials} trials, {len(worker.begun())} begun, {jobs} at a time", flush=True)
        stopped = sweep.run_all(worker.runs(), jobs, worker.watch, worker.ended)
    with _alone(root):
        rows = sweep.report(root, _all_runs(study, space), metric)
        lines = sweep.measured(root / rows[0].run, metric) if rows else []
        plots.draw(study, root, lines[-1].get("metric", metric) if lines else "value")
    is_undone = worker.has_unfinished() or (stopped and len(worker.begun()) < settings.trials)
    return STOPPED if is_undone else int(worker.has_failures())


def _checked(settings: Settings, space: sweep_flags.Space) -> Settings:
    """The settings with the number of trials; UserError for those that make no sense."""
    for name, value, known in (("sampler", settings.sampler, SAMPLERS), ("pruner", settings.pruner, PRUNERS)):
        if value not in known:
            raise UserError(f"--{name}={value}: expected one of {', '.join(known)}")
    packages = ("optuna", "cmaes") if settings.sampler == "cmaes" else ("optuna",)
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise UserError(f"--engine=optuna: the package {package} is missing; pip install 'gan_jax[sweep]'")
    for name, value in (("trials", settings.trials), ("startup", settings.startup or 0), ("warmup", settings.warmup)):
        if value < 0:
            raise UserError(f"--{name}={value}: expected 0 or more")
    ranges = [key for key, choice in space.items() if isinstance(choice, sweep_flags.Range)]
    if settings.sampler == "cmaes" and len(ranges) < 2:
        raise UserError("--sampler=cmaes: it searches two ranges or more, such as loguniform(1e-5,1e-3); take tpe")
    if settings.sampler != "grid":
        return settings._replace(trials=settings.trials or TRIALS)
    if ranges:
        raise UserError(f"--sampler=grid: {ranges[0]} has endless values; give log(a,b,n), linear(a,b,n) or a list")
    size = 1
    for choice in space.values():
        size *= len(choice)
    return settings._replace(trials=min(settings.trials or size, size))


@contextlib.contextmanager
def _alone(root: pathlib.Path) -> Iterator[None]:
    """Among the workers in this folder, one at a time."""
    with open(root / "study.lock", "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _open(settings: Settings, root: pathlib.Path, definition: dict[str, Any]):
    """The study, made where there is none. Raises UserError where it cannot be, or is another search's."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.create_study(
            storage=_storage(settings.storage, root),
            study_name=settings.study or root.name,
            direction="minimize" if definition["better"] == "lower" else "maximize",
            pruner=_pruner(settings),
            load_if_exists=True,
        )
    except Exception as error:  # of the database's driver, which may be missing
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"--storage: the study cannot be opened: {first}") from error
    stored = study.user_attrs.get("sweep")
    if stored is None:
        study.set_user_attr("sweep", definition)
    elif stored != definition:
        raise UserError(f"--study={study.study_name}: the storage has another search of this name; give another name")
    return study


def _storage(text: str, root: pathlib.Path):
    from optuna import storages

    if text.startswith("journal:"):
        return storages.JournalStorage(storages.journal.JournalFileBackend(text.removeprefix("journal:")))
    url = text or f"sqlite:///{root / 'study.db'}"
    patience = {"connect_args": {"timeout": LOCK_SECONDS}} if url.startswith("sqlite") else {}
    return storages.RDBStorage(url, engine_kwargs=patience)


def _pruner(settings: Settings):
    from optuna import pruners

    if settings.pruner == "none":
        return pruners.NopPruner()
    if settings.pruner == "halving":
        if not settings.warmup:  # a hundredth of the first trial's length; Optuna then waits for no more trials
            return pruners.SuccessiveHalvingPruner()
        return pruners.SuccessiveHalvingPruner(min_resource=settings.warmup, bootstrap_count=settings.startup or 0)
    startup = {} if settings.startup is None else {"n_startup_trials": settings.startup}
    return pruners.MedianPruner(n_warmup_steps=settings.warmup, **startup)


def _sampler(name: str, startup: int | None, space: sweep_flags.Space, seed: int, number: int):
    """A sampler whose draws are a function of the seed and the trial's number, so that no two workers draw alike."""
    from optuna import samplers

    own = int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:4], "big")
    startup = {} if startup is None else {"n_startup_trials": startup}
    if name == "grid":
        return samplers.GridSampler({_short(key): values for key, values in space.items()}, seed=seed)
    if name == "random":
        return samplers.RandomSampler(seed=own)
    if name == "cmaes":
        return samplers.CmaEsSampler(seed=own, warn_independent_sampling=False, **({"n_startup_trials": 1} | startup))
    return samplers.TPESampler(seed=own, constant_liar=True, **startup)


def _short(key: str) -> str:
    return key.removeprefix("config.")


def _distributions(space: sweep_flags.Space) -> dict[str, Any]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    def of(choice):
        if isinstance(choice, list):
            return CategoricalDistribution(choice)
        kind = IntDistribution if choice.whole else FloatDistribution
        return kind(choice.low, choice.high, log=choice.log)

    return {_short(key): of(choice) for key, choice in space.items()}


def _texts(space: sweep_flags.Space, params: dict[str, Any]) -> dict[str, str]:
    """A trial's values as they are handed to its run."""
    values = {key: params[_short(key)] for key in space}
    return {key: value if isinstance(space[key], list) else space[key].text(value) for key, value in values.items()}


def _all_runs(study, space: sweep_flags.Space) -> dict[str, dict[str, str]]:
    """Run folder's name -> values, of every trial of every worker."""
    trials = study.get_trials(deepcopy=False)
    return {trial.user_attrs["run"]: _texts(space, trial.params) for trial in trials if "run" in trial.user_attrs}


class _Trial:
    """A trial that this worker runs."""

    def __init__(self, trial, owner: lock.Lock):
        self.trial, self.owner = trial, owner
        self.reported: set[int] = set(trial.study.trials[trial.number].intermediate_values)
        self.size = -1  # of the files when they were last read, bytes
        self.is_over = self.has_failed = False


class _Worker:
    """Asks the study for trials, tells it of their values, and holds those that it runs."""

    def __init__(self, study, searched: _Search, settings: Settings):
        self.study, self.searched, self.settings = study, searched, settings
        self.trials: dict[str, _Trial] = {}  # by the run folder's name

    def begun(self) -> list:
        """The trials of all workers."""
        from optuna.trial import TrialState

        return [trial for trial in self.study.get_trials(deepcopy=False) if trial.state != TrialState.WAITING]

    def runs(self) -> Iterator[tuple[pathlib.Path, list[str]]]:
        """Folder and command of one trial after another: first those that a worker left behind, then new ones."""
        while True:
            with _alone(self.searched.root):
                run = self._left_behind() or self._asked()
            if not run:
                return
            folder, trial = self.searched.root / run, self.trials[run].trial
            values = _texts(self.searched.space, trial.params)
            yield folder, sweep.train_command(
                self.searched.command, self.searched.config_flag, folder, self.searched.flags, values
            )

    def _left_behind(self) -> str:
        """The run of a trial that is under way, and that nobody works at; empty for none."""
        import optuna

        for trial in self.begun():
            run = trial.user_attrs.get("run", "")
            if trial.state != optuna.trial.TrialState.RUNNING or not run or run in self.trials:
                continue
            if owner := self._own(run):
                self.trials[run] = _Trial(optuna.trial.Trial(self.study, trial._trial_id), owner)
                return run
        return ""

    def _asked(self) -> str:
        """The run of a new trial; empty where there are enough."""
        number = len(self.begun())
        if number >= self.settings.trials:
            return ""
        searched, settings = self.searched, self.settings
        self.study.sampler = _sampler(settings.sampler, settings.startup, searched.space, searched.seed, number)
        trial = self.study.ask(_distributions(searched.space))
        shown = {key: f"{x:.4g}" if isinstance(x, float) else str(x) for key, x in trial.params.items()}
        run = sweep_flags.run_name(f"{trial.number:03d}", shown)
        trial.set_user_attr("run", run)
        self.trials[run] = _Trial(trial, lock.take(searched.root / "owners" / run))
        return run

    def _own(self, run: str) -> lock.Lock | None:
        """The lock of a trial; None where another worker has it, or where its run still trains."""
        try:
            owner = lock.take(self.searched.root / "owners" / run)
        except UserError:
            return None
        try:
            lock.take(self.searched.root / run).close()
        except UserError:
            owner.close()
            return None
        return owner

    def watch(self, running: Sequence[sweep.Child]) -> None:
        """Tells the study of new values, and ends the runs that its pruner does not want."""
        for child in running:
            if child.pruned_at or (self._report(child) and self.trials[child.folder.name].trial.should_prune()):
                child.prune()

    def _report(self, child: sweep.Child) -> bool:
        """Whether the run has new values, which the study is told."""
        entry = self.trials[child.folder.name]
        files = [child.folder / name for name in ("evaluations.jsonl", "metrics.jsonl")]
        size = sum(file.stat().st_size for file in files if file.exists())
        if size == entry.size:
            return False
        entry.size, before = size, len(entry.reported)
        for line in sweep.measured(child.folder, self.searched.metric):
            if line.get("better", self.searched.better) != self.searched.better:
                name = line["metric"]
                raise UserError(f"--metric={name}: it is the better the {line['better']}, which was not foreseen")
            images = int(line.get("images", line.get("step", 0)))
            if images not in entry.reported and sweep.is_finite(line["value"]):
                entry.trial.report(line["value"], images)
                entry.reported.add(images)
        return len(entry.reported) > before

    def ended(self, child: sweep.Child) -> None:
        """Tells the study how a run ended; one that somebody else stopped stays under way."""
        from optuna.trial import TrialState

        entry, status = self.trials[child.folder.name], sweep.status(child.folder)
        self._report(child)
        value = next((line["value"] for line in sweep.measured(child.folder, self.searched.metric)[-1:]), None)
        entry.is_over = status != "unfinished"
        entry.has_failed = status == "failed" or (status == "done" and not sweep.is_finite(value))
        with contextlib.suppress(RuntimeError):  # a whole grid wants to end Optuna's own loop, and there is none
            if entry.has_failed:
                self.study.tell(entry.trial, state=TrialState.FAIL)
            elif status == "pruned":
                self.study.tell(entry.trial, state=TrialState.PRUNED)
            elif status == "done":
                self.study.tell(entry.trial, value)
        entry.owner.close()

    def has_unfinished(self) -> bool:
        """Whether trials of this worker are not over."""
        return not all(entry.is_over for entry in self.trials.values())

    def has_failures(self) -> bool:
        """Whether trials of the study failed."""
        from optuna.trial import TrialState

        return any(trial.state == TrialState.FAIL for trial in self.begun())

    def close(self) -> None:
        """Leaves what is not over to others."""
        for entry in self.trials.values():
            if not entry.is_over:
                entry.owner.close()
