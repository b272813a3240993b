"""How the processes of one run meet: which are asked for, what is refused, and for whom a process waits."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
import time

import jax
import pytest

from gan_jax import output
from gan_jax.errors import UserError
from gan_jax.processes import launchers, meeting, rendezvous
from tests import settings
from tests.test_processes_launchers import MPICH, OPEN_MPI_4, OPEN_MPI_5, SLURM

TASK_ELSEWHERE = {"OMPI_COMM_WORLD_LOCAL_SIZE": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "0", "MPI_LOCALNRANKS": "1"}


@pytest.fixture
def started(monkeypatch):
    """Makes this a process that has not used JAX, of this environment: [(arguments, options)] that JAX gets."""
    joined = []

    def start(environment=(), **more):
        for name in os.environ.keys() - launchers.without(os.environ).keys():
            monkeypatch.delenv(name)
        for name, value in {**dict(environment), **more}.items():
            monkeypatch.setenv(name, value)
        return joined

    def join(*arguments, **options):
        joined.append((arguments, options))

    monkeypatch.setattr(jax.distributed, "initialize", join)
    monkeypatch.setattr("jax._src.xla_bridge.backends_are_initialized", lambda: False)
    monkeypatch.setattr(rendezvous, "meet", lambda here, seconds: None)
    return start


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# ---- who takes part


@pytest.mark.parametrize("environment", [
    {},
    {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},  # in a batch script
    {**SLURM, "SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},
    {**OPEN_MPI_5, "OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_LOCAL_SIZE": "1"},
    {**MPICH, "PMI_SIZE": "1", "PMI_RANK": "0", "MPI_LOCALNRANKS": "1"},
    {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "HOSTNAME": "notebook-0"},
])  # fmt: skip
def test_one_process_opens_no_port(started, monkeypatch, environment):
    monkeypatch.setattr("jax._src.clusters.K8sCluster.is_env_present", lambda: pytest.fail("asked Kubernetes"))
    joined = started(environment)
    meeting.initialize()
    assert joined == []


def test_who_joins_is_told_when_all_are_there(started, monkeypatch):
    """From then on the others wait for this process."""
    order = []
    joined = started(SLURM)
    monkeypatch.setattr(rendezvous, "meet", lambda here, seconds: order.append("met"))
    meeting.initialize(joining=lambda: order.append(f"{len(joined)} joined"))
    assert order == ["met", "0 joined"] and len(joined) == 1
    started()
    meeting.initialize(joining=lambda: order.append("alone"))
    assert order == ["met", "0 joined"]


@pytest.mark.parametrize("environment", [SLURM, OPEN_MPI_5, {"PMIX_RANK": "1"}, {"JOB_COMPLETION_INDEX": "1"}])
def test_a_process_can_be_told_that_it_is_alone(started, environment):
    joined = started(environment)
    meeting.initialize(num_processes=1)
    assert joined == []


@pytest.mark.parametrize("environment", [SLURM, OPEN_MPI_4, OPEN_MPI_5, MPICH])
def test_a_launcher_is_believed(started, environment):
    joined = started(environment)
    meeting.initialize()
    (((address, processes, process), options),) = joined
    assert (address, processes, process) == (launchers.find(environment).coordinator, 2, 1)
    assert options["local_device_ids"] == [launchers.find(environment).device]


@pytest.mark.parametrize("environment", [OPEN_MPI_5, MPICH])
def test_across_machines_the_coordinator_is_enough(started, environment):
    joined = started({**environment, **TASK_ELSEWHERE})
    with pytest.raises(UserError, match=r"=2: .* give --coordinator=HOST:PORT, the machine .*--num_processes=1"):
        meeting.initialize()
    meeting.initialize("head:1234")
    started({**environment, **TASK_ELSEWHERE}, JAX_COORDINATOR_ADDRESS="head:4321")
    meeting.initialize()
    assert [arguments for arguments, _ in joined] == [("head:1234", 2, 1), ("head:4321", 2, 1)]


@pytest.mark.parametrize("environment", [{}, SLURM, OPEN_MPI_5, {"JOB_COMPLETION_INDEX": "1"}])
def test_flags_always_win(started, environment):
    joined = started(environment)
    meeting.initialize("host:1", 3, 2)
    assert [arguments for arguments, _ in joined] == [("host:1", 3, 2)]


@pytest.mark.parametrize("arguments", [("host:1",), ("host:1", 2), ("", 2, 0), ("host:1", 0, 0), ("", 0, 1)])
def test_without_a_launcher_all_three_are_needed_or_none(started, arguments):
    joined = started()
    with pytest.raises(UserError, match="give all three"):
        meeting.initialize(*arguments)
    assert joined == []


@pytest.mark.parametrize(("environment", "message"), [
    ({"PMIX_RANK": "1"}, r"PMIX_RANK=1: .*--coordinator=HOST:PORT --num_processes=N,.*or --num_processes=1"),
    ({"JOB_COMPLETION_INDEX": "1", "KUBERNETES_SERVICE_HOST": "10.0.0.1"},
     r"JOB_COMPLETION_INDEX=1: .*pip install 'jax\[k8s\]'.* or give --coordinator=HOST:PORT --num_processes=N"),
    ({"OMPI_COMM_WORLD_SIZE": "2"}, r"OMPI_COMM_WORLD_SIZE=2: .* --process_id=I"),
])  # fmt: skip
def test_who_is_one_of_several_and_cannot_find_them_is_refused(started, monkeypatch, environment, message):
    joined = started(environment)
    monkeypatch.setitem(sys.modules, "kubernetes", None)  # not installed
    with pytest.raises(UserError, match=message):
        meeting.initialize()
    assert joined == []


@pytest.mark.parametrize(("arguments", "message"), [
    (("host", 2, 1), "--coordinator=host: expected HOST:PORT"),
    (("host:0", 2, 1), "--coordinator=host:0: expected HOST:PORT"),
    (("host:1", 2, 2), "--process_id=2 --num_processes=2: expected"),
    (("host:1", 2, 1, 0), "--wait_seconds=0: expected 1 or more"),
])  # fmt: skip
def test_what_cannot_be_is_refused(started, arguments, message):
    started()
    with pytest.raises(UserError, match=message):
        meeting.initialize(*arguments)


def test_several_cannot_meet_where_jax_was_used_before(started, monkeypatch):
    """As in a notebook, where one process goes on."""
    joined = started()
    monkeypatch.setattr("jax._src.xla_bridge.backends_are_initialized", lambda: True)
    meeting.initialize()
    started(OPEN_MPI_5)
    with pytest.raises(UserError, match="OMPI_COMM_WORLD_SIZE=2: JAX was used before"):
        meeting.initialize()
    assert joined == []
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)  # they have met already
    meeting.initialize()


def test_loopback_stays_on_loopback_and_devices_can_be_chosen(started):
    joined = started(OPEN_MPI_5, JAX_COORDINATOR_PORT="1234", JAX_LOCAL_DEVICE_IDS="0,1")
    meeting.initialize()
    meeting.initialize("head:1234")
    (_, here), (_, elsewhere) = joined
    assert here["coordinator_bind_address"] == "127.0.0.1:1234" and "coordinator_bind_address" not in elsewhere
    assert "local_device_ids" not in here


@pytest.mark.parametrize("error", [RuntimeError("DEADLINE_EXCEEDED: barrier"), ValueError("bad address")])
def test_what_jax_cannot_join_is_told(started, monkeypatch, error):
    started()

    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    with pytest.raises(UserError, match=f"process 1 of 2 could not join host:1: {error}"):
        meeting.initialize("host:1", 2, 1)


# ---- Kubernetes, as JAX detects it


@pytest.fixture
def kubernetes(monkeypatch):
    """Answers of Kubernetes that JAX gets: (pods of the job, the first one's host)."""

    def answer(pods, host="job-0.jaxpods"):
        cluster = "jax._src.clusters.K8sCluster."
        monkeypatch.setattr(cluster + "is_env_present", lambda: True)
        monkeypatch.setattr(cluster + "get_process_count", lambda: pods)
        monkeypatch.setattr(cluster + "get_process_id", lambda: int(os.environ["JOB_COMPLETION_INDEX"]))

        def address(timeout_secs, override_coordinator_port):
            return f"{host}:{override_coordinator_port or 55527}"

        monkeypatch.setattr(cluster + "get_coordinator_address", address)

    return answer


def test_pods_of_an_indexed_job_are_found_by_jax(started, kubernetes):
    joined = started(JOB_COMPLETION_INDEX="1")
    kubernetes(pods=2)
    meeting.initialize()
    started(JOB_COMPLETION_INDEX="1", JAX_COORDINATOR_PORT="1234")
    meeting.initialize()
    kubernetes(pods=1)
    meeting.initialize()
    assert [arguments for arguments, _ in joined] == [("job-0.jaxpods:55527", 2, 1), ("job-0.jaxpods:1234", 2, 1)]


@pytest.mark.parametrize("error", [RuntimeError("Kubernetes API Error: 403 - Forbidden"), KeyError("job-name")])
def test_what_kubernetes_does_not_tell_is_a_mistake_of_the_user(started, kubernetes, monkeypatch, error):
    started(JOB_COMPLETION_INDEX="1")
    kubernetes(pods=2)

    def fail():
        raise error

    monkeypatch.setattr("jax._src.clusters.K8sCluster.get_process_count", fail)
    with pytest.raises(UserError, match=f"from Kubernetes .*{re.escape(str(error))}; .*--coordinator=HOST:PORT"):
        meeting.initialize()


# ---- until all are there


def _meet_in_threads(port, processes, total=None, seconds=20.0):
    """Meets as these processes, each in a thread: {process: None, or its UserError}."""
    ends = {}

    def meet(process):
        try:
            rendezvous.meet(rendezvous.place(process, total or len(processes), f"127.0.0.1:{port}"), seconds)
            ends[process] = None
        except UserError as error:
            ends[process] = str(error)

    threads = [threading.Thread(target=meet, args=(process,), daemon=True) for process in processes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return ends


@pytest.fixture
def serving(monkeypatch):
    """Nobody serves after a meeting of a test: no process waits for JAX to do so."""
    monkeypatch.setattr(rendezvous, "_await_service", lambda here: None)


def test_all_leave_once_all_are_there(serving):
    assert _meet_in_threads(free_port(), [2, 1, 0]) == {0: None, 1: None, 2: None}


def test_a_stranger_and_one_who_left_do_not_count(serving):
    """A caller that talks another language, and a process that died while it waited and was started again."""
    port, ends = free_port(), {}
    first = threading.Thread(target=lambda: ends.update(_meet_in_threads(port, [0], total=3)), daemon=True)
    first.start()
    for words in (b"GET / HTTP/1.1\r\n\r\n", b"gan_jax 1 of 3\n"):
        _once_there(port, words)
    time.sleep(0.2)
    assert _meet_in_threads(port, [1, 2], total=3) == {1: None, 2: None}
    first.join(20)
    assert ends == {0: None}


def _once_there(port, words=b""):
    """Says something at a port as soon as somebody listens there."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(words)
            return
        time.sleep(0.05)


def test_a_process_says_for_whom_it_waits_and_who_did_not_come(serving, monkeypatch):
    texts = set()
    monkeypatch.setattr(output, "doing", texts.add)
    monkeypatch.setattr(output, "update", texts.add)
    port = free_port()
    ends = _meet_in_threads(port, [0, 2], total=4, seconds=3.0)
    assert f"process 0 of 4: waiting for processes 1, 3 at 127.0.0.1:{port}" in texts
    assert f"process 2 of 4: waiting for process 0 at 127.0.0.1:{port}" in texts
    assert f"process 2 of 4: waiting for processes 1, 3, with process 0 at 127.0.0.1:{port}" in texts
    late = f"processes 1, 3 did not come to 127.0.0.1:{port} within 3 s; see whether they run and what they say"
    assert ends[0] == f"process 0 of 4: {late}; --wait_seconds=N waits longer"
    assert ends[2].startswith("process 2 of 4: ") and "processes 1, 3" in ends[2] and "see whether they run" in ends[2]


@pytest.mark.parametrize(("process", "processes", "message"), [
    (1, 2, "process 0 is one of 3 processes"), (1, 3, "another process 1 is there already"),
])  # fmt: skip
def test_who_does_not_belong_to_the_others_is_told(serving, process, processes, message):
    port = free_port()
    others = threading.Thread(target=_meet_in_threads, args=(port, [0, 1], 3), daemon=True)
    others.start()
    _once_there(port)
    time.sleep(0.5)
    ends = _meet_in_threads(port, [process], processes)
    assert re.match(f"process 1 of {processes}: refused at 127.0.0.1:{port}: {message}", ends[1])
    assert _meet_in_threads(port, [2], 3) == {2: None}
    others.join(20)


def test_a_port_that_is_taken_and_a_name_that_nobody_has_are_told_at_once():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=rf"process 0 of 2: cannot listen at port {port} .*another run"):
            rendezvous.meet(rendezvous.place(0, 2, f"127.0.0.1:{port}"), 60)
    with pytest.raises(UserError, match="process 1 of 2: nowhere.invalid has no address here"):
        rendezvous.meet(rendezvous.place(1, 2, "nowhere.invalid:1"), 60)


def test_a_meeting_that_fails_ends_with_one_line_and_code_2(tmp_path):
    """And without a trace of JAX's, whose own wait ends by an abort."""
    port = free_port()
    command = [sys.executable, str(settings.ROOT / "launch.py"), "train", f"--workdir={tmp_path / 'run'}",
               f"--config={settings.EXPERIMENTS / 'mixture_gan.py'}:smoke", f"--coordinator=127.0.0.1:{port}",
               "--num_processes=2", "--process_id=1", "--wait_seconds=2"]  # fmt: skip
    environment = launchers.without(os.environ)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: process 1 of 2 did not find process 0 at 127.0.0.1:{port} within 2 s; see whether")
    assert done.returncode == 2 and not (tmp_path / "run").exists()
