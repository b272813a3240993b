"""What the loop calls: one or several steps in a program, fed from the host or from a set that lies on the devices."""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from gan_jax import parallel, runs
from gan_jax import step as steps
from gan_jax.errors import UserError

MILESTONES = ("log", "sample", "evaluate", "checkpoint")
LARGEST_SHARE = 0.5  # of a device's memory, for a set that lies on it


class Programs(NamedTuple):
    """A run's compiled calls, and the data that they take beside their batches."""

    mesh: Any
    resident: dict[str, jax.Array]  # whole arrays of the set, on every device; empty: batches come from the host
    compiled: dict[tuple, Callable]

    def of(self, run: runs.Run, step: int, count: int = 1) -> Callable:
        """The jitted (state, batches) -> (state, metrics) of `count` steps from a step on.

        There is one program for each sequence of sets of phases that occurs; stages that differ in nothing but their
        place in the run share them. The metrics are those of `step.make_step`, or of `step.make_steps` for several.
        """
        dues = tuple(steps.due(run.phases, step + i) for i in range(count))
        kind = run.stage._replace(start_images=0, end_images=0)
        names = (kind, *(tuple(phase.name for phase in due) for due in dues))
        if names not in self.compiled:
            settings = dict(seed=run.config.seed, ema=run.ema)
            if count == 1:
                step_fn = steps.make_step(dues[0], run.optimizers, **settings)
            else:
                step_fn = steps.make_steps(dues, run.optimizers, **settings)
            self.compiled[names] = self._compile(step_fn, run.config.parallel, several=count > 1)
        return self.compiled[names]

    def _compile(self, step_fn: Callable, mode: str, several: bool) -> Callable:
        if not self.resident:
            return parallel.data_parallel(step_fn, self.mesh, mode, several=several)

        @functools.wraps(step_fn)
        def fetching(state, batch, arrays):
            picked = {name: x.at[batch["index"]].get(mode="promise_in_bounds") for name, x in arrays.items()}
            return step_fn(state, picked)

        call = parallel.data_parallel(fetching, self.mesh, mode, several=several)
        return lambda state, batch: call(state, batch, self.resident)

    def stream(self, run: runs.Run, dataset, start: int) -> Iterator[dict[str, np.ndarray]]:
        """This process's part of each batch from position `start` on: its arrays, or `index`, places in the set."""
        rows = parallel.local_rows(run.stage.batch_size, run.config.accumulate)
        where = dict(seed=run.config.seed, start=start, batch_size=run.stage.batch_size, rows=rows)
        return dataset.order(**where) if self.resident else dataset.stream(**where)

    def put(self, run: runs.Run, batches: list[dict[str, np.ndarray]]) -> dict[str, jax.Array]:
        """The batches of one call, on the devices."""
        kept = [wanted(batch, run) for batch in batches]
        if len(kept) == 1:
            return parallel.shard_batch(kept[0], self.mesh, run.config.accumulate)
        return parallel.shard_batches(kept, self.mesh, run.config.accumulate)


def prepare(run: runs.Run, dataset, mesh) -> Programs:
    """No program yet, and the whole set on every device where `config.resident_data` asks for it.

    Raises:
      UserError: a number of steps below 1, or a set that is not packed or does not fit.
    """
    if run.config.steps_per_call < 1:
        raise UserError(f"config.steps_per_call={run.config.steps_per_call}: expected 1 or more")
    if not run.config.resident_data:
        return Programs(mesh, {}, {})
    arrays = dataset.packed()
    if arrays is None:
        raise UserError(
            f"config.resident_data=True: {dataset.name} is no packed set (it is endless, or too large to be decoded "
            "once); leave it False"
        )
    arrays = wanted(arrays, run)
    size = sum(x.nbytes for x in arrays.values())
    room = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")  # CPUs do not tell
    if room and size > LARGEST_SHARE * room:
        raise UserError(
            f"config.resident_data=True: {dataset.name} takes {size >> 20} MiB on each device, which has "
            f"{room >> 20} MiB; leave it False"
        )
    everywhere = parallel.replicated(mesh)
    placed = {name: jax.make_array_from_process_local_data(everywhere, np.asarray(x)) for name, x in arrays.items()}
    return Programs(mesh, placed, {})


def length(run: runs.Run, step: int, images: int, end: int) -> int:
    """How many steps the next call plays: `config.steps_per_call`, or 1 where one of them is to be looked at.

    Args:
      run: of the stage.
      step, images: where the run stands.
      end: images at which the stage ends.
    """
    count, config = run.config.steps_per_call, run.config
    cycle = math.lcm(*(phase.every for phase in run.phases))
    if count == 1 or step % math.gcd(count, cycle):  # from elsewhere in the cycle it would be another program
        return 1
    before_last = images + (count - 1) * run.stage.batch_size
    return 1 if milestones(config.every, images, before_last) or before_last >= end else count


def milestones(every, before: int, now: int) -> set[str]:
    """Those of `MILESTONES` that fall due from `before` images, without them, to `now`; a period of 0 never does."""
    periods = {name: every[f"{name}_images"] for name in MILESTONES}
    return {name for name, period in periods.items() if period > 0 and before // period != now // period}


def wanted(batch: dict, run: runs.Run) -> dict:
    """The batch without what this game does not read."""
    return batch if run.spec.num_classes else {key: value for key, value in batch.items() if key != "label"}
