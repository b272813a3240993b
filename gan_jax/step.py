"""State, Phase and `descend`: the one place where a loss becomes gradients and gradients become parameters."""

import itertools
import math
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from gan_jax import flat, optim, parallel
from gan_jax.layers.by_platform import by_platform

UPDATE, AVERAGE = "optimizer_update", "running_average"  # scopes of a profile, beside the phases' names


class State(NamedTuple):
    """All that a run needs to go on exactly where it stood; one pytree, replicated over devices.

    On disk, and for all who look at it, a net's parameters are named arrays. Between steps the loop keeps them, their
    moments and their average as one vector each, see `packed`; `descend` plays either form.
    """

    step: jax.Array  # int32, steps done
    images: jax.Array  # int32, real images seen
    params: dict[str, Any]  # net -> parameters, float32
    variables: dict[str, Any]  # net -> mutable collections (batch_stats, spectral)
    opt: dict[str, Any]  # player -> optimizer state
    ema: dict[str, Any]  # net -> {"params": ..., **collections}, averaged
    memory: Any  # the game's own


class Rng(NamedTuple):
    """Randomness of one phase of one step: a function of (seed, step, phase, index of the sample)."""

    key: jax.Array  # equal on all devices: draws for the whole batch
    samples: jax.Array  # (B,) keys, one a sample: draws that do not depend on the number of devices


class Out(NamedTuple):
    """What a loss returns beside its value."""

    metrics: dict[str, jax.Array]  # scalars, averaged over devices
    variables: dict[str, Any]  # net -> new collections, of the nets that changed
    memory: Any = None  # None where unchanged; must be equal on all devices


class Phase(NamedTuple):
    """A move of the game: which nets descend on which loss, with whose optimizer, how often."""

    name: str
    loss: Callable[[dict, State, dict, Rng], tuple[jax.Array, Out]]
    nets: tuple[str, ...]
    player: str
    every: int = 1  # in steps: n_critic and lazy regularisation alike
    draws: str = ""  # the phase whose randomness it takes; empty: its own
    weights: tuple[tuple[str, float], ...] = ()  # (name, number) that a program takes as inputs: the loss's `weights`


class Ema(NamedTuple):
    """Running average of some nets."""

    nets: tuple[str, ...] = ()
    half_life_images: float = 0.0  # images after which a weight counts half; 0 copies
    decay: float = 0.0  # a step's weight of the old value, in place of the half-life; 0 for none
    rampup: float = 0.0  # half-life is at most this share of the images seen; 0 for none
    growth_images: float = 0.0  # half-life rises to its value from 0 over them, along a cosine; 0: at once
    copied: tuple[str, ...] = ()  # collections that are copied instead, such as averages themselves; and whole nets


class Hyper(NamedTuple):
    """Numbers that a step takes as inputs, so that another seed or rate is not another program."""

    seed: Any  # uint32
    rates: dict[str, dict[str, Any]]  # player -> `Optimizer.rates`
    weights: dict[str, dict[str, Any]]  # phase -> `Phase.weights`
    ema: dict[str, Any]  # the numbers of `Ema` that are not 0
    fixed: dict[str, Any] = {}  # noqa: RUF012, never changed: net -> arrays that losses see among `params`, never trained


def hyper(phases: tuple[Phase, ...], optimizers: dict[str, optim.Optimizer], *, seed: int, ema: Ema = Ema()) -> Hyper:
    """The numbers of a game's steps, on the host; zeros are left out, as they leave terms out."""
    numbers = {name: getattr(ema, name) for name in EMA_NUMBERS if getattr(ema, name)}
    return Hyper(
        np.uint32(seed),
        {player: jax.tree.map(np.float32, dict(optimizers[player].rates)) for player in players(phases)},
        {phase.name: jax.tree.map(np.float32, dict(phase.weights)) for phase in phases},
        jax.tree.map(np.float32, numbers),
    )


EMA_NUMBERS = ("half_life_images", "decay", "rampup", "growth_images")


def players(phases: tuple[Phase, ...]) -> dict[str, tuple[str, ...]]:
    """player -> its nets; phases that share a player must descend on the same nets."""
    table: dict[str, tuple[str, ...]] = {}
    for phase in phases:
        assert table.setdefault(phase.player, phase.nets) == phase.nets, (phase.player, phase.nets)
    return table


def due(phases: tuple[Phase, ...], step: int) -> tuple[Phase, ...]:
    """The phases to be played at a step."""
    return tuple(phase for phase in phases if step % phase.every == 0)


def init_optimizers(phases: tuple[Phase, ...], optimizers: dict[str, optim.Optimizer], params: dict) -> dict:
    """player -> fresh optimizer state."""
    return {player: optimizers[player].init(_pick(params, nets)) for player, nets in players(phases).items()}


def init_ema(nets: tuple[str, ...], params: dict, variables: dict) -> dict:
    """Averages that start as copies. Copied for real: State is donated, and a buffer can be donated once only."""
    return {net: jax.tree.map(jnp.copy, {"params": params[net], **variables.get(net, {})}) for net in nets}


def packed(
    state: State, phases: tuple[Phase, ...], optimizers: dict[str, optim.Optimizer], *, mean_size: float = math.inf
) -> State:
    """The State with one vector in place of the arrays of each net, its moments and its average.

    Nets with other types than float32 stay as they are, those of an optimizer that treats an array as a whole, and
    those whose arrays have more than `mean_size` elements on average.
    """
    whole = {net for player, nets in players(phases).items() for net in nets if not optimizers[player].elementwise}
    layouts = {net: flat.layout_of(p) for net, p in state.params.items() if net not in whole and flat.fits(p)}
    layouts = {net: layout for net, layout in layouts.items() if np.mean(layout.sizes) <= mean_size}

    def averaged(net, tree):
        return {**tree, "params": flat.pack(tree["params"])} if net in layouts else tree

    return state._replace(
        params={net: flat.pack(p) if net in layouts else p for net, p in state.params.items()},
        opt=flat.pack_like(state.opt, layouts),
        ema={net: averaged(net, tree) for net, tree in state.ema.items()},
    )


def make_step(
    phases: tuple[Phase, ...],  # the phases that are due, in order
    optimizers: dict[str, optim.Optimizer],  # player -> optimizer
    *,
    seed: int,
    ema: Ema = Ema(),
) -> Callable[[State, dict], tuple[State, dict[str, jax.Array]]]:
    """One step of the game for one device's shard: every due phase once, then the running averages.

    Returns:
      step(state, batch, numbers=None) -> (state, metrics); the batch's arrays have shape (micro-batches, samples, ...),
      metrics are named `<phase>/<term>`. `numbers` is a `Hyper`; without it the program holds those of the arguments.
      To be wrapped by `parallel.data_parallel`.
    """
    play, finish = make_phases(phases, optimizers, seed=seed), make_finish(ema)

    def step(state: State, batch: dict, numbers: Hyper | None = None) -> tuple[State, dict]:
        state, metrics = play(state, batch, numbers)
        return finish(state, batch, numbers), metrics

    return step


def make_phases(
    phases: tuple[Phase, ...], optimizers: dict[str, optim.Optimizer], *, seed: int
) -> Callable[[State, dict], tuple[State, dict[str, jax.Array]]]:
    """The part of `make_step` before its end: every phase once, in order. One phase is the smallest program."""

    def play(state: State, batch: dict, numbers: Hyper | None = None) -> tuple[State, dict]:
        metrics = {}
        for phase in phases:
            key = _key(seed if numbers is None else numbers.seed, state.step, phase.draws or phase.name)
            optimizer = optimizers[phase.player]
            if numbers is not None:
                optimizer = optimizer.at_rates(numbers.rates[phase.player])
            with jax.named_scope(phase.name):  # seen in a profile, as the scopes below
                fixed = {} if numbers is None else numbers.fixed
                state, measured = descend(state, _weighted(phase, numbers), optimizer, batch, key, fixed)
            metrics |= {f"{phase.name}/{name}": value for name, value in measured.items()}
        return state, metrics

    return play


def _key(seed, step: jax.Array, name: str) -> jax.Array:
    """Of a step and phase: no two of a run are equal. Made of its words, for programs grow with every draw."""
    words = jnp.uint32(seed) ^ np.uint32(zlib.crc32(name.encode())), step.astype(jnp.uint32)
    return jax.random.wrap_key_data(jnp.stack(words), impl="threefry2x32")


def _weighted(phase: Phase, numbers: Hyper | None) -> Phase:
    weights = dict(phase.weights) if numbers is None else numbers.weights[phase.name]
    return phase._replace(loss=partial(phase.loss, weights=weights)) if phase.weights else phase


def make_finish(ema: Ema) -> Callable[[State, dict], State]:
    """The end of a step: the running averages, and the counts of steps and images."""

    def finish(state: State, batch: dict, numbers: Hyper | None = None) -> State:
        accumulate, size = jax.tree.leaves(batch)[0].shape[:2]
        seen = accumulate * size * lax.axis_size(parallel.AXIS)
        values = ema._asdict() if numbers is None else numbers.ema
        with jax.named_scope(AVERAGE):
            state = state._replace(ema=_average(state, ema, values, seen))
        return state._replace(step=state.step + 1, images=state.images + seen)

    return finish


def make_steps(
    dues: tuple[tuple[Phase, ...], ...],  # of each step, the phases that are due
    optimizers: dict[str, optim.Optimizer],
    *,
    seed: int,
    ema: Ema = Ema(),
) -> Callable[[State, dict], tuple[State, tuple[dict[str, jax.Array], ...]]]:
    """Several steps in one program: a loop over periods of phases, in it one over neighbours with the same phases.

    Returns:
      steps(state, batches, numbers=None) -> (state, metrics): the batches' arrays have shape (steps, micro-batches,
      samples, ...); the metrics are those of `make_step`, each (periods, n), one dict for each stretch of n neighbours
      of a period.
    """
    period = next(n for n in range(1, len(dues) + 1) if dues[:n] * (len(dues) // n) == dues)
    stretches = [(due, len(tuple(group))) for due, group in itertools.groupby(dues[:period])]

    def play(state: State, batches: dict, numbers: Hyper | None) -> tuple[State, tuple[dict, ...]]:
        begin, measured = 0, []
        for due, length in stretches:
            step = partial(make_step(due, optimizers, seed=seed, ema=ema), numbers=numbers)
            part = jax.tree.map(lambda x: x[begin : begin + length], batches)  # noqa: B023
            state, metrics = lax.scan(step, state, part)
            begin += length
            measured.append(metrics)
        return state, tuple(measured)

    def steps(state: State, batches: dict, numbers: Hyper | None = None) -> tuple[State, tuple[dict, ...]]:
        periods = jax.tree.map(lambda x: x.reshape(-1, period, *x.shape[1:]), batches)
        return lax.scan(partial(play, numbers=numbers), state, periods)

    return steps


def descend(
    state: State,
    phase: Phase,
    optimizer: optim.Optimizer,
    batch: dict,  # arrays (micro-batches, samples of this device, ...)
    key: jax.Array,  # of this step and phase
    fixed: Mapping[str, Any] | None = None,  # net -> arrays, see `Hyper.fixed`
) -> tuple[State, dict[str, jax.Array]]:
    """Plays one phase: gradients of its loss, averaged over micro-batches and devices, then one optimizer update.

    Returns:
      The new state, and the phase's metrics: its terms, `loss`, `grad_norm`, `update_norm`, `param_norm`. The run's
      loop stops where one of them is not finite.
    """
    grads, variables, memory, metrics = _gradients(state, phase, batch, key, fixed or {})
    grads, metrics = parallel.mean(grads), _mean_metrics(metrics)
    params = _pick(state.params, phase.nets)
    with jax.named_scope(UPDATE):
        updates, opt = optimizer.update(grads, state.opt[phase.player], params, state.images)
        moved = jax.tree.map(jnp.add, params, updates)
        metrics |= {
            "grad_norm": optim.global_norm(grads),
            "update_norm": optim.global_norm(updates),
            "param_norm": optim.global_norm(moved),
        }
        opt = _written_last(opt, metrics["update_norm"])
    state = state._replace(
        params={**state.params, **moved},
        variables=variables,
        opt={**state.opt, phase.player: opt},
        memory=memory,
    )
    return state, metrics


def _written_last(opt_state: Any, update_norm: jax.Array) -> Any:
    """The optimizer state, whose first moments on a CPU wait for the norm of the updates that are computed from them.

    XLA:CPU computes a new first moment twice: for the State, and within the update. Written first into the buffer of
    the old one, which is donated, it would make XLA copy that for the update: 10 of 103 ms of a step of pix2pix.
    """

    def wait(moment):
        # Never 0: no norm is negative. XLA does not know that, so that the norm must come first.
        ordered = lambda moment, norm: jnp.where(norm < 0, jnp.zeros((), moment.dtype), moment)  # noqa: E731
        return by_platform(moment, update_norm, cpu=ordered, default=lambda moment, norm: moment)

    def has_moment(node):
        return isinstance(node, optax.ScaleByAdamState)

    def waiting(node):
        return node._replace(mu=jax.tree.map(wait, node.mu)) if has_moment(node) else node

    return jax.tree.map(waiting, opt_state, is_leaf=has_moment)


def _mean_metrics(metrics: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Averages scalars over devices in one all-reduce."""
    return dict(zip(metrics, parallel.mean(jnp.stack(list(metrics.values()))), strict=True))


def _gradients(state: State, phase: Phase, batch: dict, key: jax.Array, fixed: Mapping[str, Any]):
    """Sums over micro-batches what `_micro_batch` finds; variables and memory pass from one to the next."""
    accumulate = jax.tree.leaves(batch)[0].shape[0]
    params = flat.unpack(parallel.vary(state.params)) | parallel.vary(dict(fixed))

    def body(carry, xs):
        total, variables, memory, metrics = carry
        number, micro = xs
        now = state._replace(variables=variables, memory=memory)
        grads, variables, memory, measured = _micro_batch(params, now, phase, micro, key, number)
        return (*_add((total, variables, memory, metrics), grads, variables, memory, measured),), None

    first = jax.tree.map(lambda x: x[0], batch)
    start = _micro_batch(params, state, phase, first, key, 0)
    if accumulate == 1:
        return start
    rest = jax.tree.map(lambda x: x[1:], batch)
    (grads, variables, memory, metrics), _ = lax.scan(body, start, (jnp.arange(1, accumulate), rest))
    grads, metrics = jax.tree.map(lambda x: x / accumulate, (grads, metrics))
    return grads, variables, memory, metrics


def _add(carry, grads, variables, memory, metrics):
    total, _, _, sums = carry
    return jax.tree.map(jnp.add, total, grads), variables, memory, jax.tree.map(jnp.add, sums, metrics)


def _micro_batch(params: dict, state: State, phase: Phase, batch: dict, key: jax.Array, number):
    """Gradients of the phase's loss on one micro-batch of this device, not yet averaged."""
    size = jax.tree.leaves(batch)[0].shape[0]
    rng = _rng(key, number, size)

    def objective(trained):
        loss, out = phase.loss({**params, **trained}, state, batch, rng)
        return loss, out

    (loss, out), grads = jax.value_and_grad(objective, has_aux=True)(_pick(params, phase.nets))
    grads = {net: flat.pack(g) if flat.is_flat(state.params[net]) else g for net, g in grads.items()}
    variables = {**state.variables, **parallel.mean(out.variables)}
    memory = state.memory if out.memory is None else out.memory
    metrics = parallel.vary({"loss": loss, **out.metrics})
    return grads, variables, memory, jax.tree.map(lambda x: x.astype(jnp.float32), metrics)


def _rng(key: jax.Array, number, size: int) -> Rng:
    """Keys of a micro-batch. No two of a phase are equal: samples are counted from 0 up, batches from -1 down."""
    index = number * size * lax.axis_size(parallel.AXIS) + parallel.sample_index(size)
    of_batch = jax.random.fold_in(key, jnp.uint32(2**32 - 1) - jnp.asarray(number, jnp.uint32))
    return Rng(of_batch, jax.vmap(jax.random.fold_in, (None, 0))(key, index))


def _average(state: State, ema: Ema, values: Mapping[str, Any], batch_size: int) -> dict:
    """The new averages; `ema` says which terms there are, and `values` has their numbers."""
    half_life = values.get("half_life_images", 0.0)
    if ema.growth_images:
        half_life = optim.cosine(state.images, 0.0, half_life, values["growth_images"])
    rampup = values["rampup"] if ema.rampup else None
    decay = values["decay"] if ema.decay else optim.ema_decay(batch_size, half_life, state.images, rampup)
    live = {net: {"params": state.params[net], **state.variables.get(net, {})} for net in ema.nets}
    averaged = optim.ema_update(state.ema, live, decay)
    return {
        net: {**tree, **{name: live[net][name] for name in (tree if net in ema.copied else ema.copied) if name in tree}}
        for net, tree in averaged.items()
    }


def _pick(tree: dict, nets: tuple[str, ...]) -> dict:
    return {net: tree[net] for net in nets}
