"""Which launcher started this process, as one of how many, and where they can meet: what its environment says.

JAX detects Slurm, Open MPI 4, TPU pods and Kubernetes with its extra. Processes of other launchers would each believe
that they are alone, so those are read here; and Slurm and Open MPI 4 too, so that it is known whom a process waits for.
"""

import os
import re
import warnings
import zlib
from collections.abc import Mapping
from typing import NamedTuple

from gan_jax.errors import UserError

# Ports between which a job's name chooses: JAX's own range, above those that Linux hands out by itself.
FIRST_PORT, PORTS = 61440, 4096
_LAST_STEP = 0xFFFFFFF0  # of Slurm; numbers from here on are batch scripts and the like
# Variables by which JAX or this module knows of a launcher, or by which a launcher's libraries find each other.
_LAUNCHER_VARIABLES = ("SLURM_", "OMPI_", "PMI_", "PMI2_", "PMIX_", "PRTE_", "HYDRA_", "HYDI_", "MPI_LOCAL",
                       "JOB_COMPLETION_INDEX", "JAX_COORDINATOR_ADDRESS")  # fmt: skip
# Whom jax.distributed.initialize() asks beyond the environment: classes of JAX that have no public name.
_ASKED_BY_JAX = {"this TPU pod on Kubernetes": "GkeTpuCluster", "this TPU pod": "GceTpuCluster",
                 "Kubernetes": "K8sCluster"}  # fmt: skip


class Launcher(NamedTuple):
    """What a launcher tells one of the processes that it started."""

    name: str
    evidence: str  # the variable that speaks of several processes, with its value
    processes: int | None  # how many it started; None where it does not say
    process: int | None  # this one's number from 0
    device: int | None = None  # this process's only GPU, by its number on the machine; None: all of them
    coordinator: str = ""  # host:port of process 0; empty where nothing says it


def find(environment: Mapping[str, str]) -> Launcher | None:
    """The launcher that the environment speaks of; None where it speaks of none, as of a TPU pod.

    A launcher within a Slurm step, such as mpirun, is the one that counts. Where Slurm itself starts MPI processes both
    say the same, and Slurm also says where process 0 is.
    """
    slurm, mpi = _slurm(environment), _open_mpi(environment) or _mpich(environment)
    if slurm and mpi and (slurm.processes, slurm.process) != (mpi.processes, mpi.process):
        return mpi
    return slurm or mpi or _pmix(environment) or _kubernetes(environment)


def without(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process that is no part of the launcher's job. What belongs to a TPU pod stays."""
    return {name: value for name, value in environment.items() if not name.startswith(_LAUNCHER_VARIABLES)}


def _slurm(environment: Mapping[str, str]) -> Launcher | None:
    """A task of a step that srun started. A batch script is one process, whatever its SLURM_NTASKS."""
    step, nodes = environment.get("SLURM_STEP_ID", ""), environment.get("SLURM_STEP_NODELIST", "")
    name = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environment else "SLURM_NTASKS"
    processes, process = _number(environment, name), _number(environment, "SLURM_PROCID")
    is_task = int(step) < _LAST_STEP if step.isdecimal() else bool(nodes) and not step
    if processes is None or process is None or not is_task:
        return None
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)[0]  # of "n[01-04,7],m1" the part before the comma outside
    host = re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first)
    if environment.get("SLURM_STEP_NUM_NODES") == "1":
        host = "127.0.0.1"
    # JAX's port comes from the job alone: steps that run side by side would share it.
    port = _port(environment, f"{environment.get('SLURM_JOB_ID', '')}.{step}")
    device = _number(environment, "SLURM_LOCALID")
    return Launcher("Slurm", f"{name}={processes}", processes, process, device, f"{host}:{port}" if host else "")


def _open_mpi(environment: Mapping[str, str]) -> Launcher | None:
    """A process of Open MPI's mpirun."""
    processes = _number(environment, "OMPI_COMM_WORLD_SIZE")
    if processes is None:
        return None
    uri = environment.get("OMPI_MCA_orte_hnp_uri", "")  # Open MPI 4: 1531576320.0;tcp://10.96.0.1,10.148.0.1:34911
    local = _number(environment, "OMPI_COMM_WORLD_LOCAL_SIZE")
    host = "127.0.0.1" if local == processes else ""
    if not host and (address := re.search(r"tcp://([^,:]+)|tcp6://\[([^,\]]+)", uri)):
        host = address[1] or f"[{address[2]}]"
    port = _port(environment, environment.get("PMIX_NAMESPACE") or uri or _parent())
    # Open MPI 4 gets from us what it gets from JAX, one GPU each.
    device = _number(environment, "OMPI_COMM_WORLD_LOCAL_RANK") if uri or (local or 0) > 1 else None
    return Launcher(
        "Open MPI",
        f"OMPI_COMM_WORLD_SIZE={processes}",
        processes,
        _number(environment, "OMPI_COMM_WORLD_RANK"),
        device,
        f"{host}:{port}" if host else "",
    )


def _mpich(environment: Mapping[str, str]) -> Launcher | None:
    """A process of Hydra, the launcher of MPICH and Intel MPI; or of another one that speaks PMI."""
    processes, local = _number(environment, "PMI_SIZE"), _number(environment, "MPI_LOCALNRANKS")
    process = _number(environment, "PMI_RANK")
    if processes is None and (local or 0) > 1:  # mpiexec -pmi-port: it does not say how many there are elsewhere
        return Launcher("MPICH", f"MPI_LOCALNRANKS={local}", None, _number(environment, "PMI_ID"))
    if processes is None:
        return None
    port = _port(environment, environment.get("PMIX_NAMESPACE") or _parent())
    return Launcher(
        "a launcher that speaks PMI" if local is None else "MPICH",
        f"PMI_SIZE={processes}",
        processes,
        process,
        _number(environment, "MPI_LOCALRANKID") if (local or 0) > 1 else None,
        f"127.0.0.1:{port}" if local == processes else "",
    )


def _pmix(environment: Mapping[str, str]) -> Launcher | None:
    """A process of some launcher that speaks PMIx, such as prterun."""
    process = _number(environment, "PMIX_RANK")
    return None if process is None else Launcher("PMIx", f"PMIX_RANK={process}", None, process)


def _kubernetes(environment: Mapping[str, str]) -> Launcher | None:
    """A pod of an indexed job. How many there are only Kubernetes itself says, whom JAX asks."""
    process = _number(environment, "JOB_COMPLETION_INDEX")
    return None if process is None else Launcher("Kubernetes", f"JOB_COMPLETION_INDEX={process}", None, process)


def _number(environment: Mapping[str, str], name: str) -> int | None:
    text = environment.get(name, "")
    return int(text) if text.isascii() and text.isdigit() else None


def _port(environment: Mapping[str, str], job: str) -> str:
    """A port that all processes of a job choose alike, and those of another job hardly ever."""
    return environment.get("JAX_COORDINATOR_PORT") or str(FIRST_PORT + zlib.crc32(job.encode()) % PORTS)


def _parent() -> str:
    """What started this session, or this process: a job's name where its launcher has none.

    Hydra gives each process a session, so that a shell between the two does not matter.
    """
    try:
        with open(f"/proc/{os.getsid(0)}/stat") as file:
            return file.read().rpartition(")")[2].split()[1]
    except OSError:  # another system, or a session from outside of this container
        return str(os.getppid())


def ask_jax(kubernetes: bool, wait_seconds: int) -> Launcher | None:
    """What JAX learns of a TPU pod from its metadata or, where this is a pod of an indexed job, of Kubernetes.

    Raises:
      UserError: one of them is there, and does not tell.
    """
    from jax._src import clusters

    for name, source in _ASKED_BY_JAX.items():
        cluster = getattr(clusters, source, None)
        if cluster is None or (name == "Kubernetes" and not kubernetes):
            continue
        try:
            with warnings.catch_warnings(action="ignore"):  # of a package that is not there
                if not cluster.is_env_present():
                    continue
            processes, process = cluster.get_process_count(), cluster.get_process_id()
            coordinator = ""
            if processes > 1:
                port = os.environ.get("JAX_COORDINATOR_PORT")
                coordinator = cluster.get_coordinator_address(timeout_secs=wait_seconds, override_coordinator_port=port)
        except Exception as error:  # whatever a service's client raises
            raise UserError(
                f"JAX cannot learn from {name} which processes take part: {error or type(error).__name__}; mend that, "
                "or give --coordinator=HOST:PORT --num_processes=N --process_id=I, or --num_processes=1 for this one "
                "alone"
            ) from error
        return Launcher(name, name, processes, process, None, coordinator)
    return None
