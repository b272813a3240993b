"""Devices and processes: the mesh, the wrapping of a per-device step, and the few collectives that games use."""

import contextlib
import functools
import glob
import logging
import math
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from gan_jax.errors import UserError

AXIS = "data"
MODES = ("shard_map", "pmap")
_TALKATIVE = ("absl", "asyncio", "orbax")  # loggers
_LONGEST_MESSAGE = 500  # bytes of an error that other processes are told
GPU_FILES = "/dev/nvidia[0-9]*"  # one a card


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """One-dimensional mesh over all devices of all processes, its axis named `data`."""
    devices = jax.devices() if devices is None else list(devices)
    _mention_idle_gpu(frozenset(device.platform for device in devices))
    return jax.make_mesh((len(devices),), (AXIS,), devices=devices, axis_types=(AxisType.Auto,))


@functools.cache  # once a process
def _mention_idle_gpu(platforms: frozenset[str]) -> None:
    """One line on stderr where JAX computes on the CPU beside a GPU, and nobody has asked for that."""
    is_asked_for = "cpu" in (jax.config.jax_platforms or "").split(",")  # JAX_PLATFORMS, or what a program has set
    if platforms == {"cpu"} and not is_asked_for and _machine_has_gpu():
        print(
            "warning: this machine has a GPU, and JAX computes on the CPU: pip install 'jax[cuda13]', "
            "with a driver that is new enough for it, or set JAX_PLATFORMS=cpu to stay there",
            file=sys.stderr,
            flush=True,
        )


def _machine_has_gpu() -> bool:
    """Whether the driver shows an NVIDIA card, as a file or through nvidia-smi."""
    if glob.glob(GPU_FILES):
        return True
    program = shutil.which("nvidia-smi")
    if program is None:
        return False
    try:
        result = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return result.returncode == 0 and "GPU " in result.stdout


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of State: a whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh, several: bool = False) -> NamedSharding:
    """The sharding of a batch (micro-batches, samples, ...), or of several: samples are dealt over the devices."""
    return NamedSharding(mesh, _dealt(several))


def _dealt(several: bool) -> PartitionSpec:
    return PartitionSpec(None, None, AXIS) if several else PartitionSpec(None, AXIS)


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Puts numpy arrays, equal in all processes, on every device; the copies are the devices' own."""
    everywhere = replicated(mesh)

    def put(x):
        if jax.process_count() == 1:
            return jax.device_put(x, everywhere, may_alias=False)
        return jax.make_array_from_callback(np.shape(x), everywhere, lambda _: np.array(x))

    return jax.tree.map(put, tree)


def check_mode(mode: str) -> None:
    """Raises UserError for an unknown mode of `data_parallel`, or `pmap` with several processes."""
    if mode not in MODES:
        raise UserError(f"config.parallel={mode!r}: expected one of {', '.join(MODES)}")
    if mode == "pmap" and jax.process_count() > 1:
        raise UserError("config.parallel='pmap' runs in one process; use config.parallel='shard_map' with several")


def data_parallel(step: Callable, mesh: Mesh, mode: str = "shard_map", *, several: bool = False) -> Callable:
    """Compiles a step that is written for one device's shard, so that it runs on every device of the mesh.

    Args:
      step: (state, batch, *shared) -> (state, metrics) for one device, using the axis name `data`.
      mesh: from `make_mesh`.
      mode: `shard_map`, with the check that what it returns is equal on all devices, or `pmap`.
      several: the batch's arrays hold several batches, (steps, micro-batches, samples, ...).
    Returns:
      A jitted function of (replicated state, sharded batch, *replicated values); it donates the state.
    Raises:
      UserError: see `check_mode`.
    """
    check_mode(mode)

    @functools.wraps(step)  # programs are named after it in a profile
    def one(state, batch, shared):
        return step(state, batch, *shared)

    if mode == "shard_map":
        everywhere = PartitionSpec()
        specs = (everywhere, _dealt(several), everywhere)
        mapped = jax.shard_map(one, mesh=mesh, in_specs=specs, out_specs=(everywhere, everywhere))
        run = functools.wraps(step)(lambda state, batch, *shared: mapped(state, batch, shared))
        return jax.jit(run, donate_argnums=0)
    return _pmapped(one, mesh, axis=2 if several else 1)


def _pmapped(step: Callable, mesh: Mesh, axis: int) -> Callable:
    """As `data_parallel`, for a step whose third argument holds what is shared; `axis` is that of the samples."""
    count, devices = mesh.size, list(mesh.devices.flat)
    mapped = jax.pmap(step, axis_name=AXIS, devices=devices, in_axes=(None, axis, None), out_axes=(None, None))

    def split(x):
        return (*x.shape[:axis], count, x.shape[axis] // count, *x.shape[axis + 1 :])

    def run(state, batch, *shared):
        dealt = jax.tree.map(lambda x: x.reshape(split(x)), batch)
        state, metrics = mapped(state, dealt, shared)
        return jax.device_put(state, replicated(mesh)), metrics

    def lower(state, batch, *shared):
        return mapped.lower(state, jax.tree.map(lambda x: jax.ShapeDtypeStruct(split(x), x.dtype), batch), shared)

    run.lower = lower
    return run


def shard_batch(batch: dict[str, np.ndarray], mesh: Mesh, accumulate: int = 1) -> dict[str, jax.Array]:
    """Puts this process's rows of a global batch on its devices.

    Args:
      batch: arrays of shape (rows, ...), the rows in the order of `local_rows`.
      mesh: from `make_mesh`.
      accumulate: number of micro-batches.
    Returns:
      Global arrays of shape (accumulate, batch / accumulate, ...), the second axis dealt over devices.
    """
    sharding = batch_sharding(mesh)
    split = {k: v.reshape(accumulate, -1, *v.shape[1:]) for k, v in batch.items()}
    return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in split.items()}


def shard_batches(batches: list[dict[str, np.ndarray]], mesh: Mesh, accumulate: int = 1) -> dict[str, jax.Array]:
    """As `shard_batch`, of several batches: global arrays (batches, accumulate, batch / accumulate, ...)."""
    sharding = batch_sharding(mesh, several=True)
    stacked = {k: np.stack([batch[k] for batch in batches]) for k in batches[0]}
    split = {k: v.reshape(len(batches), accumulate, -1, *v.shape[2:]) for k, v in stacked.items()}
    return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in split.items()}


def local_rows(batch_size: int, accumulate: int = 1) -> np.ndarray:
    """The rows of a global batch that this process loads: its share of each micro-batch. int64 (rows,)."""
    rows = np.arange(batch_size).reshape(accumulate, jax.process_count(), -1)
    return rows[:, jax.process_index()].reshape(-1)


def check_batch_size(batch_size: int, accumulate: int, mesh: Mesh) -> None:
    """Raises UserError where a batch cannot be dealt evenly over micro-batches and devices."""
    share = mesh.size * max(accumulate, 1)
    if accumulate < 1 or batch_size < 1 or batch_size % share:
        raise UserError(
            f"config.batch_size={batch_size} cannot be dealt over {mesh.size} devices in "
            f"config.accumulate={accumulate} micro-batches: it must be a positive multiple of {share}"
        )


def check_groups(groups: Mapping[str, int], batch_size: int, accumulate: int, mesh: Mesh) -> None:
    """Refuses a batch of which a device's micro-batch does not hold whole groups of samples.

    What is found of a group would depend on the number of devices.

    Args:
      groups: config key -> neighbours of a batch that belong together; 0 or more than the batch: all of it.
      batch_size, accumulate, mesh: as for `check_batch_size`, which they have passed.
    Raises:
      UserError: see above.
    """
    local = batch_size // (accumulate * mesh.size)
    for key, size in groups.items():
        group = min(size or batch_size, batch_size)
        if local % group:
            common = math.gcd(local, group)
            smaller = f"set config.{key}={common}, or " if common > 1 else ""
            raise UserError(
                f"config.{key}={size}: a device's micro-batch must hold whole groups of {group} samples, it has {local}"
                f" (a batch of {batch_size} over {mesh.size} devices, config.accumulate={accumulate}); "
                f"{smaller}take a larger batch, or fewer devices or micro-batches"
            )


def vary(tree: Any) -> Any:
    """Marks replicated values as this device's own, so that their gradients stay local until they are averaged.

    Without it, `jax.grad` inside `shard_map` returns gradients already summed over devices, and a mean over devices
    leaves them N times too large.
    """

    def cast(x):
        if AXIS in _varying_axes(x) or not _checked():
            return x
        return lax.pcast(x, AXIS, to="varying")

    return jax.tree.map(cast, tree)


def mean(tree: Any) -> Any:
    """Averages every leaf over the devices; integers and leaves that are equal everywhere pass through."""

    def average(x):
        return lax.pmean(x, AXIS) if jnp.issubdtype(x.dtype, jnp.inexact) and varies(x) else x

    return jax.tree.map(average, tree)


def varies(x: jax.Array) -> bool:
    """Whether a value may differ between devices; where nobody tracks that, any may."""
    return not _checked() or AXIS in _varying_axes(x)


def gather(x: jax.Array) -> jax.Array:
    """All devices' shards, (samples per device, ...) -> (samples, ...), equal on every device.

    A sum of shards put in their places instead of an all-gather: its result is known to be replicated.
    """
    whole = jnp.zeros((x.shape[0] * lax.axis_size(AXIS), *x.shape[1:]), x.dtype)
    start = lax.axis_index(AXIS) * x.shape[0]
    return lax.psum(lax.dynamic_update_slice_in_dim(vary(whole), x, start, 0), AXIS)


def sample_index(size: int) -> jax.Array:
    """Places of this device's `size` samples within the global batch, int32 (size,)."""
    return lax.axis_index(AXIS) * size + jnp.arange(size)


def _varying_axes(x) -> frozenset:
    kind = jax.typeof(x)  # the attribute's name differs between versions of JAX
    return kind.vma if hasattr(kind, "vma") else kind.mat.varying


def _checked() -> bool:
    """Whether the surrounding map tracks which values differ between devices (shard_map does, pmap does not)."""
    return AXIS in _varying_axes(lax.axis_index(AXIS))


def over_samples(fn: Callable, mesh: Mesh) -> Callable:
    """Compiles fn(replicated, *per-sample arrays) -> per-sample array; every device takes its share of samples."""
    one, dealt = PartitionSpec(), PartitionSpec(AXIS)

    def call(shared, *arrays):
        specs = (one, *(jax.tree.map(lambda _: dealt, a) for a in arrays))
        return jax.shard_map(fn, mesh=mesh, in_specs=specs, out_specs=dealt)(shared, *arrays)

    return jax.jit(call)


def local_copy(tree: Any, mesh: Mesh) -> Any:
    """Replicated values of the whole run on the devices of a mesh of this process alone."""
    return jax.tree.map(lambda x: jax.device_put(x.addressable_data(0), replicated(mesh)), tree)


def from_all_processes(rows: np.ndarray) -> np.ndarray:
    """Every process's rows (n, ...), equally many each, one process after another: (processes * n, ...)."""
    if jax.process_count() == 1:
        return rows
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(rows, tiled=True))


def from_first_process(array: np.ndarray | None, shape: tuple[int, ...], dtype) -> np.ndarray:
    """Process 0's array, bit for bit, in every process; of this shape and type, which all of them know."""
    if jax.process_count() == 1:
        return array
    from jax.experimental import multihost_utils

    size = math.prod(shape) * np.dtype(dtype).itemsize
    mine = np.zeros(size, np.uint8) if jax.process_index() else np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(mine)).view(dtype).reshape(shape)


def together(action: Callable[[], Any]) -> Any:
    """Runs an action in every process; where it fails in one it fails in all, and none waits for one that left.

    Returns:
      What the action returns in this process.
    Raises:
      UserError: this process's own, or one that names the processes where the action failed.
    """
    if jax.process_count() == 1:
        return action()
    result, failure = None, None
    try:
        result = action()
    except UserError as error:
        failure = error
    failed = np.flatnonzero(from_all_processes(np.array([failure is not None])))
    if not len(failed):
        return result
    text = " ".join(str(failure or "").split()).encode()[:_LONGEST_MESSAGE]
    texts = from_all_processes(np.frombuffer(text.ljust(_LONGEST_MESSAGE), np.uint8)[None])
    if failure is not None:
        raise failure
    cause = bytes(texts[failed[0]]).decode(errors="replace").strip()
    raise UserError(f"process {', '.join(map(str, failed))} could not begin: {cause}")


def silence() -> None:
    """Quiets messages that tell a user nothing: buffers that cannot be donated, libraries' own progress.

    JAX's own of devices stay: they say why a GPU is not used.
    """
    _ignore_donation()
    warnings.filterwarnings("ignore", message="coroutine .* was never awaited", category=RuntimeWarning)  # Orbax's
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what fails is raised, and told once


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within the block the libraries' own progress is no message, for programs whose other messages are not ours."""
    levels = {name: logging.getLogger(name).level for name in _TALKATIVE}
    _ignore_donation()
    try:
        for name in levels:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _ignore_donation() -> None:
    warnings.filterwarnings("ignore", message="Some donated buffers were not usable")
