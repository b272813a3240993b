"""How near pictures come to themselves on their way into another domain and back."""

from collections.abc import Callable

import numpy as np

from gan_jax import metrics, painter, run_data, runs
from gan_jax.evaluate.protocols import CYCLE


def measurer(run: runs.Run) -> Callable[[dict], list[dict]]:
    """Of a game with `returns`: ema -> rows of held-out pictures, each once, at most config.evaluation.samples.

    The mean L1 distance, black being -1 and white 1; beside it `/mean_picture`, that of the mean of these pictures from
    each of them, which knows nothing of the one that is to come back.
    """
    (name,), split = run.game.returns(run.config), run.config.evaluation.split
    dataset = run_data.open_field(run.config, name, split)
    count = min(run.config.evaluation.samples, dataset.size or run.config.evaluation.samples)
    numbers = np.arange(count)
    given = {name: runs.held_out(run)(numbers)[name]}
    draw = painter.sampler(run, whole=True)
    mean = np.round(given[name].astype(np.float64).mean(0)).astype(np.uint8)
    protocol = {"group": CYCLE, "pairs": count, "data": dataset.name, "split": dataset.split}

    def rows(ema: dict) -> list[dict]:
        again = draw(ema, painter.keys_from(run.config.seed, "evaluation", numbers), given)[1]
        others = {"": again, "/mean_picture": np.broadcast_to(mean, again.shape)}
        return [{**protocol, "metric": f"{CYCLE}{suffix}", "value": float(metrics.l1(images, given[name]).mean())}
                for suffix, images in others.items()]

    return rows
