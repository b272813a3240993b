"""Configs that the tests share: the default experiment, shrunk."""

import contextlib
import pathlib

import jax
import numpy as np

from gan_jax import checkpoint, flat, folders, games, parallel, run_data, runs, specs
from gan_jax import config as configs
from gan_jax import step as steps

ROOT = pathlib.Path(__file__).resolve().parents[1]
EXPERIMENTS = ROOT / "experiments"


@contextlib.contextmanager
def every_program_cached():
    """Within the block programs are cached however little they took to compile."""
    name = "jax_persistent_cache_min_compile_time_secs"
    before = getattr(jax.config, name)
    jax.config.update(name, 0.0)
    yield
    jax.config.update(name, before)


def digits(**overrides):
    """The smoke variant of the default experiment, without its lazy penalty; keys with `__` for dots."""
    overrides = {"loss__r1_gamma": 0.0, "every__penalty_steps": 1, **overrides}
    config = runs.load_config(f"{EXPERIMENTS / 'digits_dcgan.py'}:smoke")
    for key, value in overrides.items():
        configs.override(config, key.replace("__", "."), str(value))
    return config


def build(config, shape=(32, 32, 1), num_classes=0) -> runs.Run:
    """The run of a config, for data of this shape, without opening any data."""
    return runs.build(config, specs.labelled(shape, num_classes))


def fresh_folder(config, workdir, change=lambda state: state) -> runs.Run:
    """The folder of a run whose only checkpoint is its State before the first step, changed."""
    dataset = run_data.open_data(config)
    run = runs.build(config, run_data.data_spec(config, dataset))
    folders.start_folder(workdir, config, run.spec, dataset.summary(), dataset)
    manager = checkpoint.open_manager(pathlib.Path(workdir) / "checkpoints")
    with checkpoint.closing(manager):
        state = parallel.replicate(change(runs.fresh_state(run)), parallel.make_mesh())
        checkpoint.save(manager, state, {"position": 0, "data": dataset.fingerprint, "sums": {}})
    return run


def mesh(devices: int):
    """A mesh of the first so many devices."""
    return parallel.make_mesh(jax.devices()[:devices])


def play(run: runs.Run, *, count: int, devices: int = 1, mode: str = "shard_map", batches=None, state=None,
         fixed=None, programs=None):
    """Plays `count` steps on the first `devices` devices, on a packed State: (State, metrics of each step).

    `fixed` are the game's fixed networks, where they are others than its own. `programs` is a dict that keeps the
    steps of one run, devices and mode from one call to the next, so that each is compiled once.
    """
    mesh = parallel.make_mesh(jax.devices()[:devices])
    state = runs.fresh_state(run) if state is None else jax.device_get(state)
    state = parallel.replicate(runs.pack(run, state, mesh), mesh)
    programs, measured = {} if programs is None else programs, []
    numbers = steps.hyper(run.phases, run.optimizers, seed=run.config.seed, ema=run.ema)
    numbers = numbers._replace(fixed=games.fixed(run.game, run.config) if fixed is None else fixed)
    for number in range(count):
        due = steps.due(run.phases, int(state.step))
        if due not in programs:
            step = steps.make_step(due, run.optimizers, seed=run.config.seed, ema=run.ema)
            programs[due] = parallel.data_parallel(step, mesh, mode)
        batch = batches[number] if batches else random_batch(run, number)
        state, metrics = programs[due](state, parallel.shard_batch(batch, mesh, run.config.accumulate), numbers)
        measured.append(jax.device_get(metrics))
    return flat.unpack(jax.device_get(state)), measured


def random_batch(run: runs.Run, number: int) -> dict[str, np.ndarray]:
    """A batch of noise images, and labels or tokens where the run has them."""
    rng = np.random.default_rng(number)
    size = run.config.batch_size
    images = {name: field.shape for name, field in run.spec.items() if field.kind not in ("label", "tokens")}
    batch = {name: rng.integers(0, 256, (size, *shape), dtype=np.uint8) for name, shape in images.items()}
    for name, field in run.spec.items():
        if field.kind == "tokens":
            batch[name] = rng.integers(1, field.classes, (size, *field.shape)).astype(np.int32)
    if specs.classes(run.spec):
        batch["label"] = rng.integers(0, specs.classes(run.spec), size).astype(np.int32)
    return batch


def largest_difference(a, b, floor: float = 1e-12) -> float:
    """Largest absolute difference between two trees, each leaf relative to its own largest value, or `floor`."""
    worst = 0.0
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        if x.size:
            worst = max(worst, float(np.abs(x - y).max() / max(np.abs(x).max(), floor)))
    return worst


def numpy_variables(model, *args):
    """Variables of a net by numpy: compiling JAX's random initialisation takes seconds."""
    rng = np.random.default_rng(0)
    values = {"scale": 1.0, "bias": 0.0, "mean": 0.0, "var": 1.0}

    def fill(path, leaf):
        name = path[-1].key
        value = values[name] if name in values else rng.normal(0, 0.1, leaf.shape)
        return np.broadcast_to(value, leaf.shape).astype(leaf.dtype)

    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), *args, train=True))
    return jax.tree_util.tree_map_with_path(fill, shapes)
