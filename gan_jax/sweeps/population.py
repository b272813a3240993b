"""Population-based training (Jaderberg et al. 2017, arXiv 1711.09846): runs that copy the better ones' State.

Training is cut into rounds. In each, every member of the population is a run of its own, which starts from a whole
State of the round before (`config.transfer.state`). The worst members take that of one of the best ones (exploit) and
go on with other values than it had (explore); the rest go on with their own.
"""

import csv
import pathlib
import random
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from gan_jax import sweep, sweep_flags
from gan_jax.errors import STOPPED, UserError

POPULATION, ROUNDS = 8, 5
SHARE = 4  # the worst of so many members copies one of the best of as many
FACTORS = (0.8, 1.2)  # by which a number is multiplied
RESAMPLED = 0.25  # chance of a value of a list to be drawn anew


class Member(NamedTuple):
    """One member in one round."""

    run: str  # its folder within the sweep's
    values: dict[str, str]  # config key -> value
    source: str  # folder of the run whose State it starts from; empty in the first round


def evolve(
    config_flag: str,  # value of --config
    overrides: Sequence[tuple[str, str]],  # for every run: (key without `config.`, value)
    sweeps: Sequence[str],  # see `sweep_flags.space`
    workdir: str,  # the sweep's folder
    *,
    total_images: int,  # of one member, over all rounds
    metric: str,  # by which members are judged; empty for the first that is evaluated
    better: str,  # `lower` or `higher`
    population: int = POPULATION,
    rounds: int = ROUNDS,
    jobs: int = 1,  # runs at a time
    seed: int = 0,  # of all draws
    whole: Collection[str] = (),  # keys of whole numbers
    command: Sequence[str] | None = None,  # program that takes `train` and flags; None for this project's own
) -> int:
    """Trains a population, then prints the table of its runs and writes `sweep.csv`, `sweep.png` and `lineage.csv`.

    Who copies whom, and all values, follow from the seed and the runs' files: the same command goes on.

    Returns:
      The command's exit code: `STOPPED` where a signal left runs unfinished, else 1 where some are not done, or 0.
    Raises:
      UserError: flags that make no sense, or a folder of another sweep.
    """
    if population < 2 or not 1 <= rounds <= total_images or jobs < 1:
        flags_text = f"--population={population} --rounds={rounds} --jobs={jobs}"
        raise UserError(f"{flags_text}: expected a population of 2 or more, and 1 round and 1 run at a time or more")
    space = sweep_flags.space(sweeps, seed, whole)
    root, flags = pathlib.Path(workdir).absolute(), [f"--config.{key}={value}" for key, value in overrides]
    definition = {"engine": "pbt", "config": config_flag, "overrides": flags, "sweeps": list(sweeps), "seed": seed}
    definition |= {"population": population, "rounds": rounds, "metric": metric}
    sweep.check_definition(root, definition, {})
    everyone: list[Member] = []
    members: list[Member] = []
    stopped = False
    for number in range(rounds):
        members = _next(root, members, space, number, population, metric, better, seed)
        everyone += members
        _write_lineage(root, everyone)
        length = f"--config.total_images={total_images * (number + 1) // rounds}"
        is_settled = any(root.glob(f"{number + 1:02d}-*"))  # the next round follows from what failed, too
        pending = [
            (root / member.run, _command(root, member, config_flag, [*flags, length], command))
            for member in members
            if sweep.status(root / member.run) not in (("done", "failed") if is_settled else ("done",))
        ]
        signalled = sweep.run_all(pending, jobs)
        # A member that somebody else stopped goes on first: who copies whom follows from all values of the round.
        stopped = bool(signalled) or any(sweep.status(root / member.run) == "unfinished" for member in members)
        if stopped:
            break
        if all(_value(root, member, metric) is None for member in members):
            print("no member has a value of the metric: the population ends here", flush=True)
            break
    rows = sweep.report(root, {member.run: member.values for member in everyone}, metric)
    is_whole = sum(row.status == "done" for row in rows) == population * rounds
    return STOPPED if stopped else int(not is_whole)


def _command(root: pathlib.Path, member: Member, config_flag: str, flags: list[str], command) -> list[str]:
    """What trains a member up to the end of its round."""
    state = [f"--config.transfer.state={root / member.source}"] if member.source else []
    return sweep.train_command(command, config_flag, root / member.run, [*flags, *state], member.values)


def _next(root, members: Sequence[Member], space, number: int, population: int, metric: str, better: str, seed: int):
    """The members of a round: fresh ones in the first, else those that follow from the one before."""
    draws = random.Random(f"{seed}/{number}")
    if not members:
        drawn = [{key: _drawn(choice, draws) for key, choice in space.items()} for _ in range(population)]
        return [Member(_name(number, i, values), values, "") for i, values in enumerate(drawn)]
    sources = _sources([_value(root, member, metric) for member in members], better, draws)
    following = []
    for i, source in enumerate(sources):
        values = members[source].values
        if source != i:
            values = {key: _explored(choice, values[key], draws) for key, choice in space.items()}
        following.append(Member(_name(number, i, values), values, members[source].run))
    return following


def _sources(values: Sequence[float | None], better: str, draws: random.Random) -> list[int]:
    """Whose State each member goes on from: its own, or in place of the worst ones' one of the best ones'."""
    sign = -1 if better == "higher" else 1
    order = sorted(range(len(values)), key=lambda i: (values[i] is None, sign * (values[i] or 0)))
    count = max(1, len(values) // SHARE)
    best, sources = [i for i in order[:count] if values[i] is not None], list(range(len(values)))
    lost = [i for i in order[count:] if values[i] is None]
    for i in dict.fromkeys([*order[-count:], *lost]):
        sources[i] = draws.choice(best)
    return sources


def _drawn(choice: sweep_flags.Range | list[str], draws: random.Random) -> str:
    if isinstance(choice, list):
        return draws.choice(choice)
    share = draws.random()
    low, high = choice.low, choice.high
    return choice.text(low ** (1 - share) * high**share if choice.log else low + (high - low) * share)


def _explored(choice: sweep_flags.Range | list[str], value: str, draws: random.Random) -> str:
    """Another value near one that was good."""
    if isinstance(choice, list):
        return draws.choice(choice) if draws.random() < RESAMPLED else value
    return choice.text(float(value) * draws.choice(FACTORS))


def _value(root: pathlib.Path, member: Member, metric: str) -> float | None:
    """The last value of a member that is done; None where it has none."""
    value: Any = next((line["value"] for line in sweep.measured(root / member.run, metric)[-1:]), None)
    return value if sweep.status(root / member.run) == "done" and sweep.is_finite(value) else None


def _name(number: int, member: int, values: dict[str, str]) -> str:
    shown = {key: f"{float(text):.4g}" if _is_number(text) else text for key, text in values.items()}
    return sweep_flags.run_name(f"{number:02d}-{member:03d}", shown)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _write_lineage(root: pathlib.Path, members: Sequence[Member]) -> None:
    with (root / "lineage.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["run", "source", *members[0].values])
        rows.writerows([member.run, member.source, *member.values.values()] for member in members)
