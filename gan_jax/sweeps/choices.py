"""What engines that choose ask of a config: a metric with an order, rates that no length changes, right values."""

from collections.abc import Iterator

from ml_collections import ConfigDict

from gan_jax import sweep_flags
from gan_jax.errors import UserError
from gan_jax.evaluate import protocols


def order(config: ConfigDict, metric: str) -> str:
    """Whether the metric by which an engine chooses is the better the `lower` or the `higher`.

    Args:
      config: of any of the runs.
      metric: a name in a run's files; empty for the first of `config.evaluation.metrics`.
    Raises:
      UserError: there is none, or it has no order.
    """
    if why := protocols.unranked(metric):
        raise UserError(f"--metric={metric}: it is {why}; name another one, by which runs are ranked")
    if metric:
        return protocols.direction(metric)
    if not config.evaluation.metrics:
        raise UserError(
            "nothing to choose by: config.evaluation.metrics is empty; set it, or give --metric=NAME of metrics.jsonl, "
            "such as generator/loss"
        )
    return "lower" if protocols.ranking(config)["lower_is_better"] else "higher"


def check_schedules(config: ConfigDict) -> None:
    """Raises UserError where a rate follows from the length of a run, which is a round's in a population."""
    for player, section in config.optim.items():
        if section.schedule != "constant":
            raise UserError(
                f"--engine=pbt: config.optim.{player}.schedule={section.schedule!r} follows from the length of a run, "
                f"and a member has a run a round; give --config.optim.{player}.schedule=constant"
            )


def examples(space: sweep_flags.Space) -> Iterator[dict[str, str]]:
    """Values of runs in which every bound and every value of a list stands once, to be read before a run begins."""
    choices = {
        key: choice if isinstance(choice, list) else [choice.text(choice.low), choice.text(choice.high)]
        for key, choice in space.items()
    }
    for key, values in choices.items():
        for value in values:
            yield {other: value if other == key else first[0] for other, first in choices.items()}
