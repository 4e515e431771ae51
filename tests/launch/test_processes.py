"""Launches on this machine, as text and as real processes."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fusion_launch import Launch, Program, Resources, execute, prepare

HOSTILE = ["a b", "it's", '"quoted"', "$(touch /tmp/no)", "line\nbreak", "--set", "x=[1, 2]", "*", "%h"]


@pytest.fixture
def recording(tmp_path, monkeypatch):
    """Makes a program that writes down how it was started, and what its processes wrote."""
    places = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(places))

    def make(code, *arguments):
        return Program("tests.helpers.recording_program", (str(tmp_path), str(code), *arguments), "recording")

    make.recorded = lambda: {file.stem: json.loads(file.read_text()) for file in sorted(tmp_path.glob("*.json"))}
    make.folder = tmp_path
    return make


def test_local_is_one_process_with_the_very_arguments(recording):
    assert execute(prepare("local", recording(0, *HOSTILE), Resources())) == 0
    assert recording.recorded() == {"0": {"world": "1", "arguments": HOSTILE}}


def test_the_printed_command_is_the_one_that_runs(recording):
    launch = prepare("local", recording(0, *HOSTILE), Resources())
    assert shlex.split(launch.command) == list(launch.argv)
    subprocess.run(["bash", "-c", launch.command], check=True)
    assert recording.recorded()["0"]["arguments"] == HOSTILE


def test_torchrun_starts_a_process_for_each_gpu(recording):
    assert execute(prepare("torchrun", recording(0, *HOSTILE), Resources(gpus=2))) == 0
    assert recording.recorded() == {str(rank): {"world": "2", "arguments": HOSTILE} for rank in range(2)}


def test_deepspeeds_launcher_starts_a_process_for_each_gpu(recording):
    pytest.importorskip("deepspeed")
    assert execute(prepare("deepspeed", recording(0, *HOSTILE), Resources(gpus=2))) == 0
    assert recording.recorded() == {str(rank): {"world": "2", "arguments": HOSTILE} for rank in range(2)}


@pytest.mark.parametrize("code", [0, 3])
def test_an_exit_code_is_passed_on(recording, code):
    assert execute(prepare("local", recording(code), Resources())) == code


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_reach_the_program_and_its_exit_code_comes_back(recording, number):
    program = prepare("local", recording("wait"), Resources())
    code = f"import sys; from fusion_launch import Launch, execute; sys.exit(execute(Launch({program.argv!r})))"
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while not (recording.folder / "0.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(timeout=60) == 7
    assert (recording.folder / "signal").read_text() == number.name


def test_a_program_that_a_signal_ends_has_the_code_of_shells():
    assert execute(Launch(("bash", "-c", "kill -KILL $$"))) == 128 + signal.SIGKILL


def test_torchrun_on_several_nodes_is_one_command_for_all():
    launch = prepare("torchrun", Program("fusion", ("run", "a.yaml"), "a"), Resources(8, 4, "node1:1234"))
    python, *words = launch.argv
    assert python == sys.executable
    assert words == [
        "-m", "fusion_launch.torchrun", "--nnodes=4", "--nproc-per-node=8", "--rdzv-backend=c10d",
        "--rdzv-endpoint=node1:1234", "--rdzv-id=a", "-m", "fusion", "run", "a.yaml",
    ]  # fmt: skip
    assert launch.note == "Run this on each of the 4 nodes; they meet at node1:1234."


def test_deepspeed_reaches_other_nodes_by_its_hostfile(tmp_path):
    (tmp_path / "hosts").write_text("node1 slots=8\nnode2 slots=8\n")
    resources = Resources.from_options(hostfile=str(tmp_path / "hosts"))
    launch = prepare("deepspeed", Program("fusion", ("run", "a.yaml"), "a"), resources)
    assert launch.argv[1:] == (
        "-m", "deepspeed.launcher.runner", "--num_gpus=8", f"--hostfile={tmp_path / 'hosts'}", "--num_nodes=2",
        "--master_addr=node1", "--master_port=29500", "--no_local_rank", "--module", "fusion", "run", "a.yaml",
    )  # fmt: skip


@pytest.mark.parametrize("argument", ["a b", "$(ls)", "it's", "%h", "a;b"])
def test_what_deepspeed_would_garble_on_other_hosts_is_refused(tmp_path, argument):
    (tmp_path / "hosts").write_text("node1 slots=8\nnode2 slots=8\n")
    resources = Resources.from_options(hostfile=str(tmp_path / "hosts"))
    with pytest.raises(ValueError, match="would change the argument .* use --on torchrun"):
        prepare("deepspeed", Program("fusion", ("run", argument), "a"), resources)


@pytest.mark.parametrize(
    ("on", "resources", "options", "message"),
    [
        ("local", Resources(gpus=2), [], "local is one process, got --gpus 2 --nodes 1; use --on torchrun"),
        ("torchrun", Resources(nodes=2), [], "2 nodes need a place to meet"),
        ("deepspeed", Resources(nodes=2, head="n"), [], "give --hostfile"),
        ("torchrun", Resources(), ["a=b"], "torchrun takes none; slurm and kubernetes do"),
        ("mpi", Resources(), [], "there is no such launcher; there are local, torchrun, deepspeed, slurm, kubernetes"),
    ],
)
def test_what_a_launcher_cannot_do_is_refused_with_what_can(on, resources, options, message):
    with pytest.raises(ValueError, match=message):
        prepare(on, Program("fusion", (), "a"), resources, options)


def test_what_is_not_installed_is_said_before_anything_starts(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ValueError, match="There is no sbatch on this machine; --dry-run prints"):
        execute(Launch(("sbatch",), stdin="#!/bin/bash\n"))
    monkeypatch.setattr("shutil.which", lambda name: None if name == "pdsh" else name)
    many = Launch(("python", "-m", "deepspeed.launcher.runner", "--num_nodes=2"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="DeepSpeed is not installed"):
        execute(many)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    with pytest.raises(ValueError, match="by pdsh, which is not on this machine"):
        execute(many)
