"""The files of deploy/: what they start, and what they do with its exit code.

Launchers are stand-ins here; `.ci/engines` starts real ones.
"""

import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest
import yaml

from gan_jax import cli

ROOT = pathlib.Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
SCRIPTS = sorted([*DEPLOY.glob("*.sh"), *DEPLOY.glob("*.sbatch"), ROOT / ".ci" / "run", ROOT / ".ci" / "engines"])
FLAGS = ["--config=mixture_gan:smoke", "--workdir=/shared/my runs/one", "--config.evaluation.metrics=()"]


@pytest.fixture
def launch(tmp_path):
    """Runs a file of deploy/ with stand-ins for programs: their calls, each a list of words, and the exit code.

    A stand-in is the body of a shell script, which is run after its words were written down.
    """

    def run(file, *words, **programs):
        calls = tmp_path / "calls"
        for name, body in programs.items():
            program = tmp_path / "bin" / name
            program.parent.mkdir(exist_ok=True)
            program.write_text(f'#!/bin/bash\nprintf "%q " {name} "$@" >> {calls}; echo >> {calls}\n{body}\n')
            program.chmod(0o755)
        environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "HOME": str(tmp_path), "SLURM_JOB_ID": "71"}
        done = subprocess.run([DEPLOY / file, *words], cwd=tmp_path, env=environment, capture_output=True, text=True,
                              timeout=60)  # fmt: skip
        lines = calls.read_text().splitlines() if calls.exists() else []
        return [shlex.split(line) for line in lines], done.returncode

    return run


def _trained(call):
    """The flags and overrides of the `train` command that a call holds, behind `launch.py train`."""
    words = call[call.index("launch.py") + 1 :]
    assert words[0] == "train"
    return cli.parse("train", words[1:])


EXPECTED = {"config": ["mixture_gan:smoke"], "workdir": ["/shared/my runs/one"]}, [("evaluation.metrics", "()")]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_scripts_are_bash(script):
    assert os.access(script, os.X_OK)
    done = subprocess.run(["bash", "-n", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and not done.stderr, done.stderr


@pytest.mark.parametrize("file", sorted(DEPLOY.iterdir()), ids=lambda file: file.name)
def test_the_command_that_a_file_shows_can_be_given(file):
    commands = [line for line in file.read_text().splitlines() if re.match(r"#     \S", line)]
    assert len(commands) == 1 and f"deploy/{file.name}" in commands[0]
    flags = [word for word in shlex.split(commands[0], comments=False) if re.match("--(config|workdir)=", word)]
    assert len(flags) == (0 if file.suffix == ".yaml" else 2)
    cli.parse("train", flags)


@pytest.mark.parametrize("code", [0, 1, 2, 75, 137])
def test_a_slurm_job_goes_back_to_the_queue_where_its_run_was_stopped(launch, code):
    calls, ended = launch("slurm.sbatch", *FLAGS, srun=f"exit {code}", scontrol="")
    assert _trained(calls[0]) == EXPECTED and calls[0][0] == "srun"
    assert calls[1:] == ([["scontrol", "requeue", "71"]] if code == 75 else [])
    assert ended == code


def test_a_slurm_job_asks_for_a_signal_before_its_end_and_for_its_way_back():
    options = re.findall(r"^#SBATCH --(\S+)", (DEPLOY / "slurm.sbatch").read_text(), re.M)
    assert {"requeue", "open-mode=append", "signal=TERM@120"} <= set(options)
    counts = dict(option.split("=") for option in options if "=" in option)
    assert counts["ntasks-per-node"] == counts["gpus-per-node"]
    assert not {"gpus-per-task", "gpu-bind"} & counts.keys()  # JAX gives task i the GPU i of those that it sees


@pytest.mark.parametrize("code", [0, 2, 75])
def test_mpi_processes_have_a_grace_and_their_code_comes_back(launch, code):
    calls, ended = launch("mpi.sh", "-n", "2", "--hostfile", "hosts", "--", *FLAGS, mpirun=f"exit {code}")
    [call] = calls
    assert call[0] == "mpirun" and _trained(call) == EXPECTED and ended == code
    options = call[: call.index("launch.py")]
    assert "-n 2 --hostfile hosts" in shlex.join(options)
    assert int(options[options.index("odls_base_sigkill_timeout") + 1]) == 5  # seconds; mpirun's own is 1


@pytest.mark.parametrize("signal", ["TERM", "INT", "HUP"])
def test_a_signal_reaches_mpi_processes_at_once(launch, signal):
    """As SIGUSR1, the one that mpirun passes on; the run's code comes back all the same."""
    mpirun = f"trap 'exit 75' USR1; kill -{signal} $PPID; for _ in {{1..300}}; do sleep 0.1; done"
    _, ended = launch("mpi.sh", "-n", "2", "--", *FLAGS, mpirun=mpirun)
    assert ended == 75


def test_mpi_options_alone_are_a_mistake(launch):
    assert launch("mpi.sh", "-n", "2", mpirun="") == ([], 2)


def test_a_tpu_slice_runs_the_words_as_they_were_given_on_every_host(launch, tmp_path):
    """The stand-in for gcloud runs its command as a host's shell would."""
    python = tmp_path / "gan_jax" / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/bash\nprintf "%q " python "$@" >> {tmp_path / "calls"}; exit 75\n')
    python.chmod(0o755)
    calls, ended = launch("tpu_pod.sh", "slice", "zone-a", *FLAGS, gcloud='bash -c "${!#' + '#--command=}"')
    assert calls[0][:6] == ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "slice"]
    assert {"--zone=zone-a", "--worker=all"} <= set(calls[0])
    assert _trained(calls[1]) == EXPECTED and ended == 75


@pytest.fixture(scope="module")
def objects():
    """Kind -> the object of kubernetes.yaml."""
    documents = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
    assert len({document["kind"] for document in documents}) == len(documents) == 5
    return {document["kind"]: document for document in documents}


@pytest.fixture(scope="module")
def job(objects):
    """The specification of the JobSet's one Job."""
    [replicated] = objects["JobSet"]["spec"]["replicatedJobs"]
    assert replicated["replicas"] == 1
    return replicated["template"]["spec"]


def test_the_jobset_has_published_fields_alone(objects):
    """By a schema of our own, of the fields that the API publishes; a field with a typo is found."""
    jsonschema = pytest.importorskip("jsonschema")
    schema = yaml.safe_load((ROOT / "tests" / "jobset_schema.yaml").read_text())
    check = jsonschema.Draft202012Validator(schema)
    assert not [f"{error.json_path}: {error.message}" for error in check.iter_errors(objects["JobSet"])]
    text = yaml.safe_dump(objects["JobSet"])
    for name in ("maxRestarts", "onExitCodes", "completionMode", "restartPolicy", "BlockingRecreate", "FailJob", "In"):
        wrong, count = re.subn(rf"\b{name}\b", f"{name}x", text)
        assert count and not check.is_valid(yaml.safe_load(wrong)), name


def test_each_pod_is_a_process_that_jax_finds(objects, job):
    """What JAX's detection reads: an index for each pod, their number, one port, and leave to ask the cluster."""
    cluster = pytest.importorskip("jax._src.clusters.k8s_cluster").K8sCluster
    assert job["completionMode"] == "Indexed" and job["completions"] == job["parallelism"] > 1
    pod = job["template"]["spec"]
    [container] = pod["containers"]
    assert [port["containerPort"] for port in container["ports"]] == [int(cluster._coordinator_port)]
    role = objects["Role"]
    allowed = {(what, verb) for rule in role["rules"] for what in rule["resources"] for verb in rule["verbs"]}
    assert allowed == {("pods", "list"), ("services", "list"), ("jobs", "get")}
    assert objects["RoleBinding"]["roleRef"]["name"] == role["metadata"]["name"]
    [subject] = objects["RoleBinding"]["subjects"]
    account = objects["ServiceAccount"]["metadata"]["name"]
    assert subject["name"] == account == pod["serviceAccountName"]


def test_pods_share_the_folder_of_the_run(objects, job):
    pod = job["template"]["spec"]
    [container] = pod["containers"]
    assert container["command"][:2] == ["python", "launch.py"]
    flags, _ = _trained(container["command"])
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    claims = {volume["name"]: volume.get("persistentVolumeClaim") for volume in pod["volumes"]}
    assert set(mounts.values()) == claims.keys()
    claim = objects["PersistentVolumeClaim"]
    assert claims[mounts["/shared"]] == {"claimName": claim["metadata"]["name"]}
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert [value["value"] for value in container["env"] if not value["value"].startswith("/shared/")] == []
    assert flags["workdir"][0].startswith("/shared/")


def test_code_75_starts_all_pods_again_and_counts_for_nothing(objects, job):
    """Never one pod alone: the others would have ended. Any other failure counts."""
    pod, policy = job["template"]["spec"], objects["JobSet"]["spec"]["failurePolicy"]
    assert pod["restartPolicy"] == "Never" and job["backoffLimit"] == 0  # what a policy of pod failures asks for
    assert pod["terminationGracePeriodSeconds"] >= 60
    codes = [rule for rule in job["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    assert [rule["action"] for rule in codes] == ["FailJob"]
    assert codes[0]["onExitCodes"] == {"containerName": pod["containers"][0]["name"], "operator": "In", "values": [75]}
    [rule] = policy["rules"]
    assert rule["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    assert policy["maxRestarts"] > 0


def test_commands_of_the_page_name_files_that_are_there_and_flags_that_exist():
    text = (ROOT / "docs" / "multi_host.md").read_text()
    commands = re.findall(r"^    (?:sbatch )?(deploy/\S+) (.*)$", text, re.M)
    assert {file for file, _ in commands} == {f"deploy/{file}" for file in ("slurm.sbatch", "mpi.sh", "tpu_pod.sh")}
    for _, words in commands:
        flags = [word for word in shlex.split(words) if re.match(r"--(config|workdir)\b", word)]
        assert flags and cli.parse("train", flags)
    missing = [file.name for file in DEPLOY.iterdir() if f"deploy/{file.name}" not in text]
    assert not missing, missing


def test_same_bits_are_told_from_others(tmp_path):
    """`.ci/same_bits.py` finds one changed bit, another kind of numbers, and an array that is not there."""
    code = f"""
import runpy, numpy as np
differences = runpy.run_path({str(ROOT / ".ci" / "same_bits.py")!r})["differences"]
one = {{"a": np.zeros(2, np.float32), "b": np.ones(1, np.int32)}}
assert differences(one, {{name: value.copy() for name, value in one.items()}}) == []
assert differences(one, one | {{"a": np.float32([0.0, -0.0])}}) == ["a"]
assert differences(one, one | {{"b": np.ones(1, np.uint32)}}) == ["b"]
assert differences(one, {{"a": one["a"]}}) == ["b"]
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)
