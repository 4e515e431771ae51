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

    note = "open(__file__ + '.calls', 'a').write(json.dumps(sys.argv[1:]) + '\\n')"
    install(scontrol=f"{note}\nprint('node7', 'node8', sep='\\n')", srun=f"{note}\nsys.exit(5)")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "node[7-8]")
    install.calls = lambda name: [json.loads(line) for line in (tmp_path / f"{name}.calls").read_text().splitlines()]
    install.folder, install.note = tmp_path, note
    return install


def script(*options, arguments=("run", "a.yaml")):
    return prepare("slurm", Program("fusion", arguments, "a run", "/opt/my python"), Resources(8, 2), options).stdin


def test_each_node_gets_torchrun_with_the_very_arguments(cluster):
    done = subprocess.run(["bash", "-s"], input=script(arguments=("run", *HOSTILE)), text=True, cwd=cluster.folder)
    assert done.returncode == 5  # the step's own
    assert cluster.calls("scontrol")[0] == ["show", "hostnames", "node[7-8]"]
    assert cluster.calls("srun")[0] == [
        "--kill-on-bad-exit=1", "/opt/my python", "-m", "fusion_launch.torchrun", "--nnodes=2", "--nproc-per-node=8",
        "--rdzv-backend=c10d", "--rdzv-id", "42", "--rdzv-endpoint", "node7:20042", "-m", "fusion", "run", *HOSTILE,
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
    while not (cluster.folder / "srun.calls").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=60) == 9
    assert cluster.calls("scontrol")[1:] == [["requeue", "42"]]
    assert len(cluster.calls("srun")) == 1  # no look at the nodes of a job that is requeued already


def run_script(cluster, text):
    """Exit code of a script, and what it says to whoever reads the job's output."""
    done = subprocess.run(["bash", "-s"], input=text, text=True, cwd=cluster.folder, stderr=subprocess.PIPE)
    return done.returncode, done.stderr


def test_a_step_that_fails_on_nodes_that_are_there_is_not_run_again(cluster):
    cluster(srun=f"{cluster.note}\nsys.exit(5 if len(sys.argv) > 3 else 0)")
    assert run_script(cluster, script()) == (5, "")
    assert cluster.calls("srun")[1:] == [["--quiet", "true"]]
    assert len(cluster.calls("scontrol")) == 1


def test_a_step_that_fails_with_a_node_that_does_not_answer_goes_back_to_the_queue(cluster):
    said = "fusion: a node of node[7-8] does not answer; job 42 goes back to the queue, and will go on from what is finished.\n"
    assert run_script(cluster, script()) == (5, said)  # every srun fails here
    assert cluster.calls("scontrol")[1:] == [["requeue", "42"]]


def test_a_job_that_slurm_does_not_requeue_says_to_submit_it_again(cluster):
    cluster(scontrol="print('node7', 'node8', sep='\\n')\nsys.exit(sys.argv[1] == 'requeue')")
    code, said = run_script(cluster, script())
    assert code == 5
    assert said.endswith(
        "fusion: Slurm did not requeue job 42; submit it again, and it goes on from what is finished.\n"
    )


def test_a_job_whose_nodes_slurm_does_not_name_says_so(cluster):
    cluster(scontrol="sys.exit(1)")
    assert run_script(cluster, script()) == (1, "fusion: scontrol names no node of job 42: node[7-8].\n")
    assert not (cluster.folder / "srun.calls").exists()


def test_jobs_that_share_a_node_meet_at_ports_of_their_own(cluster, monkeypatch):
    ports = []
    for number in ("42", "43"):
        monkeypatch.setenv("SLURM_JOB_ID", number)
        run_script(cluster, script())
        ports.append(cluster.calls("srun")[-2][10])
    assert ports == ["node7:20042", "node7:20043"]


def test_one_node_asks_for_no_name_and_no_port(cluster):
    text = prepare("slurm", Program("fusion", ("run", "a.yaml"), "a"), Resources(8)).stdin
    assert "scontrol show" not in text
    assert run_script(cluster, text)[0] == 5
    assert cluster.calls("srun")[0][4:7] == ["--nnodes=1", "--nproc-per-node=8", "--standalone"]


def test_a_head_that_is_named_is_where_the_nodes_meet(cluster):
    program = Program("fusion", ("run", "a.yaml"), "a")
    assert run_script(cluster, prepare("slurm", program, Resources(8, 2, "node7-ib:1234")).stdin)[0] == 5
    assert cluster.calls("srun")[0][10] == "node7-ib:1234"


def test_a_hostfile_is_refused_where_the_queue_chooses_the_machines():
    for on in ("slurm", "kubernetes"):
        with pytest.raises(
            ValueError, match=f"--hostfile hosts: {on} chooses the machines; leave it out, and give --nodes"
        ):
            prepare(on, Program("fusion", (), "a"), Resources(8, 2, "node1", "hosts"))


def test_submitting_hands_the_script_to_sbatch_and_passes_its_code_on(cluster):
    cluster(sbatch="pathlib.Path(__file__ + '.calls').write_text(json.dumps(sys.stdin.read()))\nsys.exit(3)")
    launch = prepare("slurm", Program("fusion", ("run", "a.yaml"), "a"), Resources(8, 2))
    assert execute(launch) == 3
    assert cluster.calls("sbatch") == [launch.stdin]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("Partition=gpu", "its long name"),
        ("comment=a b", "cannot quote this value"),
        ("comment=a\nrm", "cannot quote this value"),
        ("a\nb=c", "its long name"),
        ("account='x'", "cannot quote this value"),
        ("nodes=4", "--option nodes=4: that is not the job's to choose: give --nodes"),
        ("ntasks=16", "torchrun is the one task of a node"),
        ("ntasks-per-node=8", "torchrun is the one task of a node"),
        ("array=0-3", "would all work on the same run"),
        ("signal=USR1@60", "write B:USR1@SECONDS"),
        ("signal=B:TERM@60", "write B:USR1@SECONDS"),
        ("signal", "write B:USR1@SECONDS"),
    ],
)
def test_an_option_that_a_directive_cannot_hold_is_refused(option, message):
    with pytest.raises(ValueError, match=message):
        script(option)
