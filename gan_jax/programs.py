"""What the loop calls: phases or steps as programs, fed from the host or from a set that lies on the devices."""

import functools
import json
import math
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any, NamedTuple

import jax
import numpy as np

from gan_jax import config as configs
from gan_jax import games, lowered, optim, parallel, runs
from gan_jax import step as steps
from gan_jax.errors import UserError

MILESTONES = ("log", "sample", "evaluate", "checkpoint")
MODES = ("auto", "phases", "steps")
LARGEST_SHARE = 0.5  # of a device's memory, for a set that lies on it
FINISH = "finish"  # the program that ends a step whose phases are programs of their own
LOOKED_AHEAD = 4096  # calls of which the programs are compiled before the first
NEWS_SECONDS = 5.0  # between two lines about programs that are being compiled
# Rooms whose code decides what a program computes.
CODE = ("step", "flat", "optim", "parallel", "losses", "penalties", "augment", "games", "layers", "models", "features",
        "runs", "programs", "lowered")  # fmt: skip

Key = tuple  # names a program: the stage's kind, and the phases of each of its steps


class Programs:
    """A run's programs, and the data that they take beside their batches."""

    def __init__(
        self,
        mesh,
        resident: dict[str, jax.Array],
        compiled: dict[Key, Callable],
        phases: bool = False,
        on_disk: bool = True,
        fixed: dict[str, Any] | None = None,
    ):
        """Knows the programs that are `compiled` already.

        Args:
          mesh: of the devices.
          resident: whole arrays of the set, on every device; empty: batches come from the host.
          compiled: by name.
          phases: whether each phase is a program of its own.
          on_disk: whether lowered programs are kept there.
          fixed: net -> arrays on every device, see `games.fixed`.
        """
        self.fixed = fixed or {}
        self.on_disk = on_disk
        self.mesh, self.resident, self.compiled, self.phases = mesh, resident, compiled, phases
        self._shared = (resident,) if resident else ()
        self.calls: dict[tuple[Key, ...], Callable] = {}  # that were played, by the names of their programs
        self._numbers: dict[Any, steps.Hyper] = {}  # of each kind of stage, on the devices
        self._begun: dict[Key, futures.Future] = {}  # what `compile_ahead` has begun

    def of(self, run: runs.Run, step: int, count: int = 1) -> Callable:
        """The (state, batches) -> (state, metrics) of `count` steps from a step on.

        The metrics are those of `step.make_step`, or of `step.make_steps` for several. Stages that differ in nothing
        but their place in the run share their programs.
        """
        return self.playing(run, self.keys(run, step, count))

    def playing(self, run: runs.Run, keys: tuple[Key, ...]) -> Callable:
        """The (state, batches) -> (state, metrics) of these programs, one after another."""
        if keys not in self.calls:
            numbers = self.numbers(run)

            def play(state, batch):
                metrics = {}
                for key in keys:
                    program = self.compiled.get(key) or self._late(run, key, state, batch)
                    state, measured = program(state, batch, numbers, *self._shared)
                    metrics = measured if isinstance(measured, tuple) else metrics | measured
                return state, metrics

            self.calls[keys] = play
        return self.calls[keys]

    def numbers(self, run: runs.Run) -> steps.Hyper:
        """The numbers of the run's stage, on the devices."""
        kind = _kind(run)
        if kind not in self._numbers:
            numbers = steps.hyper(run.phases, run.optimizers, seed=run.config.seed, ema=run.ema)
            self._numbers[kind] = parallel.replicate(numbers, self.mesh)._replace(fixed=self.fixed)
        return self._numbers[kind]

    def keys(self, run: runs.Run, step: int, count: int = 1) -> tuple[Key, ...]:
        """The names of the programs that play so many steps from a step on, in order."""
        dues = (steps.due(run.phases, step + i) for i in range(count))
        return self.keys_of(run, tuple(tuple(phase.name for phase in due) for due in dues))

    def keys_of(self, run: runs.Run, dues: tuple[tuple[str, ...], ...]) -> tuple[Key, ...]:
        """The names of the programs that play one step for each tuple of phases' names."""
        if self.phases and len(dues) == 1:
            return tuple((_kind(run), name) for name in (*dues[0], FINISH))
        return ((_kind(run), *dues),)

    def _late(self, run: runs.Run, key: Key, state, batch) -> Callable:
        """The program of that name, which nobody compiled ahead."""
        if run.config.parallel == "shard_map":
            self.compiled[key] = self._compile(run, key, shapes(state), shapes(batch))
        else:
            self.compiled[key] = self.jitted(run, key)
        return self.compiled[key]

    def jitted(self, run: runs.Run, key: Key) -> Callable:
        """(state, batch, numbers, ...) -> (state, metrics) of that name, not compiled."""
        return self._jitted(_function(run, key), run.config.parallel, several=_several(key))

    def _jitted(self, function: Callable, mode: str, several: bool) -> Callable:
        if not self.resident:
            return parallel.data_parallel(function, self.mesh, mode, several=several)

        @functools.wraps(function)
        def fetching(state, batch, numbers, arrays):
            picked = {name: x.at[batch["index"]].get(mode="promise_in_bounds") for name, x in arrays.items()}
            return function(state, picked, numbers)

        return parallel.data_parallel(fetching, self.mesh, mode, several=several)

    def compile_ahead(self, run: runs.Run, keys: set[Key], state: Any, example: dict[str, np.ndarray]) -> "Compiling":
        """Begins to compile programs side by side.

        Args:
          run: of the stage.
          keys: names from `keys`; those that are compiled already, or on their way, are not begun again.
          state: State of ShapeDtypeStruct as the loop keeps it, see `step.packed`.
          example: what `put` takes for one batch, of which the types and the samples' shapes count.
        Returns:
          What `wait` waits for; it raises there what compiling one raised.
        """
        if run.config.parallel != "shard_map":
            return Compiling(self.compiled, {})  # pmap compiles when it is called
        missing = [key for key in sorted(keys, key=str) if not hasattr(self.compiled.get(key), "compiled")]
        new = [key for key in missing if key not in self._begun]
        pool = futures.ThreadPoolExecutor(max_workers=max(len(new), 1))
        self._begun |= {
            key: pool.submit(self._compile, run, key, state, self._batch(run, key, example)) for key in new
        }
        pool.shutdown(wait=False)
        return Compiling(self.compiled, {self._begun[key]: key for key in missing})

    def _compile(self, run: runs.Run, key: Key, state, batch) -> Callable:
        arguments = (state, batch, *map(shapes, (self.numbers(run), *self._shared)))
        name = _cache_key(run, key, arguments) if self.on_disk else ""
        return lowered.compile_ahead(self.jitted(run, key), arguments, key=name, donate=1)

    def built(self, run: runs.Run, key: Key, state: Any, example: dict[str, np.ndarray]) -> tuple[Any, float]:
        """JAX's compiled program of that name, and the seconds that it took; compiled now where it is not yet."""
        if run.config.parallel == "shard_map":
            program = self.compiled[key]
            return program.compiled, program.seconds
        began = time.monotonic()
        arguments = (state, self._batch(run, key, example), *map(shapes, (self.numbers(run), *self._shared)))
        return self.jitted(run, key).lower(*arguments).compile(), time.monotonic() - began

    def _batch(self, run: runs.Run, key: Key, example: dict[str, np.ndarray]) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of what `put` makes of the batches of one call."""
        micro = run.config.accumulate
        lead = (len(key) - 1,) if _several(key) else ()
        lead = (*lead, micro, run.stage.batch_size // micro)
        sharding = parallel.batch_sharding(self.mesh, _several(key))
        if self.resident:
            example = {"index": np.zeros((1,), np.int32)}
        batch_shapes = {name: (*lead, *x.shape[1:]) for name, x in example.items()}
        return {
            name: jax.ShapeDtypeStruct(batch_shapes[name], x.dtype, sharding=sharding) for name, x in example.items()
        }

    def stream(self, run: runs.Run, dataset, start: int) -> Iterator[dict[str, np.ndarray]]:
        """This process's part of each batch from position `start` on: its arrays, or `index`, places in the set."""
        rows = parallel.local_rows(run.stage.batch_size, run.config.accumulate)
        where = dict(seed=run.config.seed, start=start, batch_size=run.stage.batch_size, rows=rows)
        return dataset.order(**where) if self.resident else dataset.stream(**where)

    def put(self, run: runs.Run, batches: list[dict[str, np.ndarray]]) -> dict[str, jax.Array]:
        """The batches of one call, on the devices."""
        fields = [wanted(batch, run) for batch in batches]
        if len(fields) == 1:
            return parallel.shard_batch(fields[0], self.mesh, run.config.accumulate)
        return parallel.shard_batches(fields, self.mesh, run.config.accumulate)


class Compiling(NamedTuple):
    """Programs that are being compiled."""

    compiled: dict[Key, Callable]  # where they go
    waiting: dict[futures.Future, Key]

    def wait(self, say: Callable[[str], None]) -> float:
        """Waits for all of them, and tells how far they are while it takes long. Returns the seconds of waiting.

        Raises what compiling one raised.
        """
        began, left = time.monotonic(), set(self.waiting)
        while left:
            done, left = futures.wait(left, NEWS_SECONDS, futures.FIRST_COMPLETED)
            for future in done:
                self.compiled[self.waiting[future]] = future.result()
            seconds = time.monotonic() - began
            if not done or (left and seconds > NEWS_SECONDS):
                names = ", ".join(title(key) for future, key in self.waiting.items() if future in left)
                ready = f"{len(self.waiting) - len(left)} of {len(self.waiting)} programs are ready"
                say(f"compiling for {seconds:.0f} s: {ready}, {names} to come")
        return time.monotonic() - began


def _kind(run: runs.Run) -> Any:
    return run.stage._replace(start_images=0, end_images=0)


def _several(key: Key) -> bool:
    return len(key) > 2


def title(key: Key) -> str:
    """A program's name for people."""
    if isinstance(key[1], str):
        return key[1]
    return f"{len(key) - 1} steps" if _several(key) else "a step of " + " + ".join(key[1])


def _function(run: runs.Run, key: Key) -> Callable:
    """What the program of that name computes, (state, batch, numbers) -> (state, metrics)."""
    table, seed = {phase.name: phase for phase in run.phases}, run.config.seed
    if key[1] == FINISH:
        finish = steps.make_finish(run.ema)
        return functools.wraps(finish)(lambda state, batch, numbers: (finish(state, batch, numbers), {}))
    if isinstance(key[1], str):
        play = steps.make_phases((table[key[1]],), run.optimizers, seed=seed)
        play.__name__ = key[1]
        return play
    dues = tuple(tuple(table[name] for name in names) for names in key[1:])
    if len(dues) == 1:
        return steps.make_step(dues[0], run.optimizers, seed=seed, ema=run.ema)
    return steps.make_steps(dues, run.optimizers, seed=seed, ema=run.ema)


def shapes(tree: Any) -> Any:
    """Shapes, types and shardings of arrays, for `Programs.compile_ahead`."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def _cache_key(run: runs.Run, key: Key, arguments: tuple) -> str:
    """Names a lowered program: all that it depends on, and nothing that it takes as an input."""
    modules = {f"gan_jax.{room}" for room in CODE} | {run.game.__name__}
    modules |= {type(net).__module__ for net in run.nets.values()}
    modules |= {getattr(phase.loss, "func", phase.loss).__module__ for phase in run.phases}
    weights = [(phase.name, *dict(phase.weights)) for phase in run.phases]
    losses = [_without_weights(phase.loss) for phase in run.phases]
    return lowered.key_of(_traced_masked(run), str(weights), str(key), losses, arguments, modules=modules)


def _without_weights(loss: Callable) -> Callable:
    if not isinstance(loss, functools.partial):
        return loss
    fixed = {name: value for name, value in loss.keywords.items() if name != "weights"}
    return functools.partial(loss.func, *loss.args, **fixed)


def _traced_masked(run: runs.Run) -> str:
    """The config as JSON without the numbers that programs take as inputs, and without those of the loop alone."""
    config = dict(configs.flatten(run.config))
    numbers = {f"ema.{name}" for name in steps.EMA_NUMBERS}
    numbers |= {f"loss.{weight}" for phase in run.phases for weight, _ in phase.weights}
    for player, optimizer in run.optimizers.items():
        if optimizer.rates and not config[f"optim.{player}.b2_final"]:
            numbers |= {f"optim.{player}.{name}" for name in optim.RATES}
    loop = {"seed", "grid", "logs", "transfer.workdir", "transfer.state"}
    loop |= {f"every.{name}_images" for name in MILESTONES}
    apart = ("data.", "evaluation.", "checkpoints.")
    loop |= {key for key in config if key.startswith(apart) and not key.endswith(".flip")}
    if not any(config[f"optim.{player}.b2_final"] for player in run.optimizers):
        loop.add("total_images")
    masked = {key: bool(value) if key in numbers else value for key, value in config.items() if key not in loop}
    return json.dumps(masked, sort_keys=True, default=str)


def prepare(run: runs.Run, dataset, mesh) -> Programs:
    """No program yet, and the whole set on every device where `config.resident_data` asks for it.

    Raises:
      UserError: a number of steps below 1, unknown programs, or a set that is not packed or does not fit.
    """
    config = run.config
    if config.steps_per_call < 1:
        raise UserError(f"config.steps_per_call={config.steps_per_call}: expected 1 or more")
    if config.programs not in MODES:
        raise UserError(f"config.programs={config.programs!r}: expected one of {', '.join(MODES)}")
    if config.programs == "phases" and config.steps_per_call > 1:
        raise UserError(
            f"config.programs='phases' with config.steps_per_call={config.steps_per_call}: several steps are one "
            "program; take 'auto', or one step a call"
        )
    phases = config.programs == "phases" or (config.programs == "auto" and apart(run))
    fixed = parallel.replicate(games.fixed(run.game, config), mesh)
    if both := fixed.keys() & {net for phase in run.all_phases for net in phase.nets}:
        raise UserError(f"the game {config.game!r} calls a fixed network as one that it trains: "
                        f"{', '.join(sorted(both))}; give it another name")
    if not config.resident_data:
        return Programs(mesh, {}, {}, phases, fixed=fixed)
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
    return Programs(mesh, placed, {}, phases, fixed=fixed)


def apart(run: runs.Run) -> bool:
    """What `config.programs='auto'` means: phases where steps of several kinds would hold the networks twice."""
    return run.config.steps_per_call == 1 and len({phase.every for phase in run.phases}) > 1


def example(run: runs.Run, dataset) -> dict[str, np.ndarray]:
    """A batch of one sample."""
    return wanted({name: x[:1] for name, x in dataset.examples(np.zeros(1, np.int64)).items()}, run)


def ahead(calls: Programs, run: runs.Run, step: int, images: int, end: int) -> set[Key]:
    """Names of the programs that the calls to come need, as far as `LOOKED_AHEAD`."""
    keys: set[Key] = set()
    for _ in range(LOOKED_AHEAD):
        if images >= end:
            break
        count = length(run, step, images, end)
        keys.update(calls.keys(run, step, count))
        step, images = step + count, images + count * run.stage.batch_size
    return keys


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
    """The fields of a batch that the game reads; places in a set that lies on the devices pass."""
    return {name: array for name, array in batch.items() if name in run.spec or name == "index"}
