"""What an environment says of the launcher that made it: how many processes, which one, and where they meet."""

import os
import re
import subprocess
import sys

import pytest

from gan_jax.processes import launchers
from tests import settings

SLURM = {"SLURM_JOB_ID": "7001", "SLURM_STEP_ID": "0", "SLURM_STEP_NODELIST": "n[1-2]", "SLURM_NTASKS": "2",
         "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "0"}  # fmt: skip
OPEN_MPI_5 = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
              "OMPI_COMM_WORLD_LOCAL_RANK": "1", "PMIX_NAMESPACE": "prterun-host-71@1", "PMIX_RANK": "1"}  # fmt: skip
OPEN_MPI_4 = {**OPEN_MPI_5, "PMIX_NAMESPACE": "373686273",
              "OMPI_MCA_orte_hnp_uri": "373686272.0;tcp://10.96.0.1,10.148.0.1:34911"}  # fmt: skip
MPICH = {"PMI_SIZE": "2", "PMI_RANK": "1", "MPI_LOCALNRANKS": "2", "MPI_LOCALRANKID": "1", "PMI_FD": "9"}


def port(launcher):
    return int(launcher.coordinator.rpartition(":")[2])


@pytest.mark.parametrize("environment", [
    {},
    {"HOSTNAME": "n1", "KUBERNETES_SERVICE_HOST": "10.0.0.1"},  # some pod
    {"OMPI_COMM_WORLD_SIZE": "many"},
    # A batch script: the numbers of the job, but no step
    {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODELIST": "n[1-8]"},
    {**SLURM, "SLURM_STEP_ID": "batch"},
    {**SLURM, "SLURM_STEP_ID": "4294967291"},
])  # fmt: skip
def test_nobody_is_found_where_nobody_started_several(environment):
    assert launchers.find(environment) is None


@pytest.mark.parametrize(("environment", "name"), [
    (SLURM, "Slurm"), (OPEN_MPI_5, "Open MPI"), (OPEN_MPI_4, "Open MPI"), (MPICH, "MPICH"),
])  # fmt: skip
def test_launchers_say_how_many_there_are_and_which_one_this_is(environment, name):
    launcher = launchers.find(environment)
    assert (launcher.name, launcher.processes, launcher.process) == (name, 2, 1)
    assert 61440 <= port(launcher) < 65536


@pytest.mark.parametrize(("nodes", "first"), [
    ("n1", "n1"), ("n1,m2", "n1"), ("n[001-0015],m2", "n001"), ("n[001,007-015]", "n001"),
    ("rack[2-3]n[05-06]", "rack2n05"), ("n7-x[3]y", "n7-x3y"),
])  # fmt: skip
def test_tasks_of_slurm_meet_at_the_first_node_of_their_step(nodes, first):
    assert launchers.find({**SLURM, "SLURM_STEP_NODELIST": nodes}).coordinator.startswith(f"{first}:")


def test_tasks_of_one_node_need_no_name_for_it():
    assert launchers.find({**SLURM, "SLURM_STEP_NUM_NODES": "1"}).coordinator.startswith("127.0.0.1:")
    assert launchers.find({**SLURM, "SLURM_STEP_NUM_NODES": "2"}).coordinator.startswith("n1:")


def test_a_step_counts_its_own_tasks():
    """As an interactive step of a job of many."""
    assert launchers.find({**SLURM, "SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "1"}).processes == 1
    environment = {name: value for name, value in SLURM.items() if name != "SLURM_STEP_NUM_TASKS"}
    assert launchers.find({**environment, "SLURM_NTASKS": "8"}).processes == 8


def test_ports_belong_to_a_job_and_a_step():
    same = [port(launchers.find({**SLURM, "SLURM_PROCID": task, "SLURM_LOCALID": task})) for task in "01"]
    steps = {port(launchers.find({**SLURM, "SLURM_STEP_ID": str(step)})) for step in range(20)}
    jobs = {port(launchers.find({**OPEN_MPI_5, "PMIX_NAMESPACE": f"prterun-host-{job}@1"})) for job in range(20)}
    assert same[0] == same[1] and len(steps) > 18 and len(jobs) > 18


@pytest.mark.parametrize("environment", [SLURM, OPEN_MPI_5, OPEN_MPI_4, MPICH])
def test_the_port_can_be_chosen(environment):
    assert port(launchers.find({**environment, "JAX_COORDINATOR_PORT": "1234"})) == 1234


def test_processes_of_one_machine_meet_on_loopback_and_others_where_the_launcher_says():
    for environment in (OPEN_MPI_5, OPEN_MPI_4, MPICH):
        assert launchers.find(environment).coordinator.startswith("127.0.0.1:")
    apart = {"OMPI_COMM_WORLD_LOCAL_SIZE": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "0", "MPI_LOCALNRANKS": "1"}
    assert launchers.find({**OPEN_MPI_4, **apart}).coordinator.startswith("10.96.0.1:")
    uri = {"OMPI_MCA_orte_hnp_uri": "1314521088.0;tcp6://[fe80::b9b:ac5d,2620::2]:43370"}
    assert launchers.find({**OPEN_MPI_4, **apart, **uri}).coordinator.startswith("[fe80::b9b:ac5d]:")
    assert launchers.find({**OPEN_MPI_5, **apart}).coordinator == launchers.find({**MPICH, **apart}).coordinator == ""


def test_a_process_that_shares_its_machine_takes_the_gpu_of_its_number():
    """Under Slurm and Open MPI 4 always, as JAX has it."""
    assert [launchers.find(environment).device for environment in (OPEN_MPI_5, MPICH)] == [1, 1]
    assert launchers.find({**SLURM, "SLURM_LOCALID": "3"}).device == 3
    apart = {"OMPI_COMM_WORLD_LOCAL_SIZE": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "0", "MPI_LOCALNRANKS": "1"}
    devices = [launchers.find({**environment, **apart}).device for environment in (OPEN_MPI_4, OPEN_MPI_5, MPICH)]
    assert devices == [0, None, None]


def test_mpirun_within_a_step_counts_and_slurm_where_both_say_the_same():
    alone = {**SLURM, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}
    assert launchers.find({**alone, **MPICH}).name == "MPICH"
    assert launchers.find({**alone, **OPEN_MPI_5}).name == "Open MPI"
    assert launchers.find({**SLURM, **MPICH}).name == "Slurm"  # srun --mpi=pmi2
    assert launchers.find({**SLURM, "PMIX_RANK": "1"}).name == "Slurm"  # srun --mpi=pmix


@pytest.mark.parametrize(("environment", "name", "process"), [
    ({"PMIX_RANK": "3", "PMIX_NAMESPACE": "prterun-host-71@1"}, "PMIx", 3),
    ({"JOB_COMPLETION_INDEX": "2", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "Kubernetes", 2),
    ({"MPI_LOCALNRANKS": "2", "MPI_LOCALRANKID": "1", "PMI_PORT": "host:4", "PMI_ID": "5"}, "MPICH", 5),
])  # fmt: skip
def test_some_do_not_say_how_many_there_are(environment, name, process):
    launcher = launchers.find(environment)
    assert (launcher.name, launcher.processes, launcher.process, launcher.coordinator) == (name, None, process, "")


def test_jax_has_the_classes_that_are_asked():
    from jax._src import clusters

    for name in launchers._ASKED_BY_JAX.values():
        assert issubclass(getattr(clusters, name), clusters.ClusterEnv)


def test_a_job_without_a_name_is_known_by_who_started_its_sessions():
    """As Hydra starts processes of MPICH, with a shell between or not."""
    code = ("import os; from gan_jax.processes import launchers; e = dict(os.environ, PMI_SIZE='2', PMI_RANK='0', "
            "MPI_LOCALNRANKS='2'); print(launchers.find(e).coordinator)")  # fmt: skip
    commands = [[sys.executable, "-c", code], ["bash", "-c", '"$@"; true', "bash", sys.executable, "-c", code]]
    environment = launchers.without(os.environ) | {"PYTHONPATH": str(settings.ROOT)}
    places = [subprocess.run(command, env=environment, capture_output=True, text=True, start_new_session=True,
                             check=True, timeout=60).stdout for command in commands]  # fmt: skip
    assert places[0] == places[1] and re.fullmatch(r"127\.0\.0\.1:\d+\n", places[0])


def test_a_run_by_itself_gets_nothing_of_the_launcher():
    own = {"PATH": "/bin", "TPU_WORKER_ID": "1", "KUBERNETES_SERVICE_HOST": "10.0.0.1", "PMIRROR": "x",
           "CUDA_VISIBLE_DEVICES": "1"}  # fmt: skip
    others = {"JOB_COMPLETION_INDEX": "1", "JAX_COORDINATOR_ADDRESS": "host:1"}
    environment = {**own, **SLURM, **OPEN_MPI_4, **MPICH, **others}
    assert launchers.without(environment) == own and launchers.find(launchers.without(environment)) is None
