"""The processes of one run meet: by flags, by what a launcher says, or by what JAX detects; then JAX joins them.

JAX's own wait is silent and ends by aborting the process, so `rendezvous` sees first that all are there.
"""

import importlib.util
import os
from collections.abc import Callable

import jax

from gan_jax import output
from gan_jax.errors import UserError
from gan_jax.processes import launchers, rendezvous
from gan_jax.processes.launchers import Launcher

WAIT_SECONDS = 300
_JOIN_SECONDS = 300  # for JAX, once all are there


def initialize(
    coordinator: str = "", num_processes: int = 0, process_id: int = -1, wait_seconds: int = WAIT_SECONDS,
    joining: Callable[[], None] = lambda: None,
) -> None:
    """Joins the processes of one run, where there are several; to be called before JAX is used.

    What is not given is what the launcher says: Slurm, Open MPI, MPICH, Kubernetes, a TPU pod. A process that is alone
    stays by itself and opens no port.

    Args:
      coordinator: `host:port` of process 0; empty for JAX_COORDINATOR_ADDRESS, or what the launcher says.
      num_processes: how many take part; 0 for what the launcher says.
      process_id: this process's number from 0; -1 for what the launcher says.
      wait_seconds: how long to wait for the others.
      joining: called when all are there, from where on they wait for this one.
    Raises:
      UserError: there are several and it is not known who or where they are, some did not come, or JAX was used before.
    """
    if wait_seconds < 1:
        raise UserError(f"--wait_seconds={wait_seconds}: expected 1 or more")
    if jax.distributed.is_initialized():  # they have met already
        return
    flags = Launcher(
        name="",
        evidence=f"--num_processes={num_processes}",
        processes=num_processes or None,
        process=process_id if process_id >= 0 else None,
        coordinator=coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS", ""),
    )
    launcher = launchers.find(os.environ)
    run = _completed(flags, launcher)
    if _unknown(run):
        launcher = launchers.ask_jax(launcher is not None and launcher.name == "Kubernetes", wait_seconds) or launcher
        run = _completed(flags, launcher)
    is_mentioned = launcher is not None or len(_unknown(flags)) < 3
    if run.processes == 1 or not is_mentioned:
        return
    _check_unused(run)
    if _unknown(run):
        raise _refusal(run, launcher)
    here = rendezvous.place(run.process, run.processes, run.coordinator)
    rendezvous.meet(here, wait_seconds)
    joining()
    _join(here, run.device)


def end() -> None:
    """Ends what `initialize` began. JAX waits for all processes: to be called while they watch each other, as the wait
    for one that is gone would last five minutes."""
    if jax.distributed.is_initialized():
        jax.distributed.shutdown()


def _completed(flags: Launcher, launcher: Launcher | None) -> Launcher:
    """What the flags say and, where they say nothing, the launcher."""
    if launcher is None:
        return flags
    return launcher._replace(
        processes=flags.processes or launcher.processes,
        process=launcher.process if flags.process is None else flags.process,
        coordinator=flags.coordinator or launcher.coordinator,
    )


def _unknown(run: Launcher) -> dict[str, str]:
    """Flags that are needed -> what they would say. None for one process."""
    if run.processes == 1:
        return {}
    unknown = {
        "--coordinator=HOST:PORT": ("where process 0 is", not run.coordinator),
        "--num_processes=N": ("how many there are", run.processes is None),
        "--process_id=I": ("which of them this is", run.process is None),
    }
    return {flag: meaning for flag, (meaning, is_unknown) in unknown.items() if is_unknown}


def _refusal(run: Launcher, launcher: Launcher | None) -> UserError:
    """Why several processes cannot meet, and what would let them."""
    if launcher is None:
        process = -1 if run.process is None else run.process
        return UserError(
            f"--coordinator={run.coordinator!r} --num_processes={run.processes or 0} --process_id={process}: give all "
            "three, or none to let the cluster be detected"
        )
    needed, meanings = " ".join(_unknown(run)), " or ".join(_unknown(run).values())
    has_package = launcher.name != "Kubernetes" or importlib.util.find_spec("kubernetes")
    package = "" if has_package else "pip install 'jax[k8s]', by which JAX finds the others, or "
    where = "" if run.coordinator else ", the machine of process 0 and a free port there, the same in all"
    return UserError(
        f"{launcher.evidence}: {launcher.name} started this process as one of several, and does not say {meanings}: "
        f"{package}give {needed}{where}; or --num_processes=1 to train alone"
    )


def _check_unused(run: Launcher) -> None:
    from jax._src import xla_bridge  # there is no public name for it

    if xla_bridge.backends_are_initialized():
        raise UserError(f"{run.evidence}: JAX was used before its processes could meet; call gan_jax first")


def _join(here: rendezvous.Place, device: int | None) -> None:
    """Lets JAX connect the processes, all of which are about to do so."""
    options = {"initialization_timeout": _JOIN_SECONDS}
    if device is not None and "JAX_LOCAL_DEVICE_IDS" not in os.environ:
        options["local_device_ids"] = [device]
    if rendezvous.bind_host(here) and "JAX_COORDINATOR_BIND_ADDRESS" not in os.environ:
        options["coordinator_bind_address"] = here.address
    output.doing(f"{here}: all are there, and JAX connects them")
    try:
        # Who they are is known: JAX need not detect it.
        jax.distributed.initialize(
            here.address, here.processes, here.process, cluster_detection_method="deactivate", **options
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{here} could not join {here.address}: {error}") from error
