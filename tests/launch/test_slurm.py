"""The batch script, run by a real bash with programs in Slurm's place that write down what they are told."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from fusion_launch import Program, Resources, execute, prepare

HOSTILE = ["a b", "it's", '"quoted"', "$(touch no)", "line\nbreak", "`ls`", "$SLURM_JOB_ID", "x=[1, 2]", "*", "\\"]


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Programs in Slurm's place, first on the PATH. `bodies` are Python."""

    def install(**bodies):
        for name, body in bodies.items():
            (tmp_path / name).write_text(f"#!{sys.executable}\nimport json, sys, time, pathlib\n{body}\n")
            (tmp_path / name).chmod(0o755)

    note = "pathlib.Path(__file__ + '.seen').write_text(json.dumps(sys.argv[1:]))"
    install(scontrol=f"{note}\nprint('node7', 'node8', sep='\\n')", srun=f"{note}\nsys.exit(5)")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "node[7-8]")
    install.seen = lambda name: json.loads((tmp_path / f"{name}.seen").read_text())
    install.folder, install.note = tmp_path, note
    return install


def script(*options, arguments=("run", "a.yaml")):
    return prepare("slurm", Program("fusion", arguments, "a run", "/opt/my python"), Resources(8, 2), options).stdin


def test_each_node_gets_torchrun_with_the_very_arguments(cluster):
    done = subprocess.run(["bash", "-s"], input=script(arguments=("run", *HOSTILE)), text=True, cwd=cluster.folder)
    assert done.returncode == 5  # the step's own
    assert cluster.seen("scontrol") == ["show", "hostnames", "node[7-8]"]
    assert cluster.seen("srun") == [
        "--kill-on-bad-exit=1", "/opt/my python", "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=8",
        "--rdzv-backend=c10d", "--rdzv-id", "42", "--rdzv-endpoint", "node7:29500", "-m", "fusion", "run", *HOSTILE,
    ]  # fmt: skip
    assert not (cluster.folder / "no").exists()


def test_directives_come_before_commands_and_yield_to_the_users():
    text = script("partition=gpu", "time=24:00:00", "exclusive", "gpus-per-node=", "gres=gpu:8")
    head = text.split("\n\n")[0].splitlines()
    assert head[0] == "#!/bin/bash"
    assert head[1:] == [
        "#SBATCH --job-name=a-run", "#SBATCH --nodes=2", "#SBATCH --ntasks-per-node=1", "#SBATCH --requeue",
        "#SBATCH --open-mode=append", "#SBATCH --signal=B:USR1@120", "#SBATCH --partition=gpu", "#SBATCH --time=24:00:00",
        "#SBATCH --exclusive", "#SBATCH --gres=gpu:8",
    ]  # fmt: skip


def test_a_job_whose_time_is_nearly_up_goes_back_to_the_queue_and_waits_for_its_step(cluster):
    cluster(srun=f"{cluster.note}\ntime.sleep(1.5)\nsys.exit(9)")
    (cluster.folder / "job").write_text(script())
    process = subprocess.Popen(["bash", cluster.folder / "job"])
    deadline = time.monotonic() + 60
    while not (cluster.folder / "srun.seen").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=60) == 9
    assert cluster.seen("scontrol") == ["requeue", "42"]


def test_submitting_hands_the_script_to_sbatch_and_passes_its_code_on(cluster):
    cluster(sbatch="pathlib.Path(__file__ + '.seen').write_text(json.dumps(sys.stdin.read()))\nsys.exit(3)")
    launch = prepare("slurm", Program("fusion", ("run", "a.yaml"), "a"), Resources(8, 2))
    assert execute(launch) == 3
    assert cluster.seen("sbatch") == launch.stdin


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("Partition=gpu", "its long name"),
        ("comment=a b", "cannot quote this value"),
        ("comment=a\nrm", "cannot quote this value"),
        ("a\nb=c", "its long name"),
        ("account='x'", "cannot quote this value"),
    ],
)
def test_an_option_that_a_directive_cannot_hold_is_refused(option, message):
    with pytest.raises(ValueError, match=message):
        script(option)
