"""Runs in a real Slurm of two nodes on this machine, on the CPU: cut off, they end with the weights of one that was not.

By hand, in about fifteen minutes, as root, with Debian's slurmd, slurmctld, slurm-client and munge installed:
`python -m pytest -m slow -n 0 tests/launch/test_real_slurm.py`.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from tests.helpers import runs
from tests.helpers.slurm_cluster import HOST, NODES, UNKNOWN, SlurmCluster, missing, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing()), pytest.mark.timeout(1500)]

ROOT = Path(__file__).parents[2]
PROCESSES = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
TRAINING = {"max_steps": 200, "learning_rate": 1e-3, "save_strategy": "steps", "save_steps": 5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("slurm")


@pytest.fixture(scope="module")
def cluster(folder):
    places = [str(ROOT), str(ROOT / "eval"), str(ROOT / "launch"), os.environ.get("PYTHONPATH", "")]
    (folder / "cluster").mkdir()
    with SlurmCluster(folder / "cluster") as cluster:
        cluster.environment |= {"PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
        yield cluster


@pytest.fixture(scope="module")
def config(folder):
    """Writes the configuration of a run with a name of its own; all are the same but for it."""

    def write(name):
        engine = {"kind": "ddp", "global_batch_size": 4}
        raw = runs.raw(folder, name=name, strategies=["unified"], baseline=False, engine=engine, training=TRAINING)
        file = folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump(raw | {"sources": raw["sources"][:1]}))
        return file

    return write


@pytest.fixture(scope="module")
def undisturbed(cluster, config, folder):
    """The fused weights of the same run by torchrun alone, as two processes too."""
    command = (sys.executable, *PROCESSES, "-m", "fusion", "run", str(config("undisturbed")))
    subprocess.run(command, env=cluster.environment, check=True, capture_output=True)
    return weights(folder / "runs/undisturbed")


@pytest.fixture
def launch(cluster, config):
    """Launches a run under a name, and returns the number of its job; what is left of jobs and nodes is mended afterwards."""

    def submit(name, *options):
        given = ("gpus-per-node=", f"chdir={cluster.folder}", *options)
        words = [word for option in given for word in ("--option", option)]
        command = ["-m", "fusion", "launch", str(config(name)), "--on", "slurm", "--gpus", "1", "--nodes", "2"]
        said = cluster.run(sys.executable, *command, *words)
        return re.fullmatch(r"Submitted batch job (\d+)\n", said)[1]

    yield submit
    cluster.mend()


def weights(run):
    return (run / "fused/model.safetensors").read_bytes()


def wait_for_checkpoint(cluster, job, run, step=5):
    """Wait until a training has a checkpoint of this step or a later one."""

    def is_there():
        found = (run / "train/unified").glob("checkpoint-*/trainer_state.json")
        return any(int(file.parent.name.removeprefix("checkpoint-")) >= step for file in found)

    wait_until(is_there, 400, lambda: cluster.words(job))
    assert not (run / "train/unified/done.json").exists()


def first_steps(run):
    """The step that each start of a training began with, in their order, from what it logged."""
    files = sorted((run / "train/unified").glob("runs/*/events*"), key=lambda file: file.stat().st_mtime)
    found = [[event.step for event in EventFileLoader(str(file)).Load() if event.step] for file in files]
    return [steps[0] for steps in found if steps]


def test_a_job_on_two_nodes_ends_with_its_table_and_the_weights_of_torchrun(cluster, launch, folder, undisturbed):
    job = launch("plain")
    ended = cluster.wait_for_end(job)
    words = cluster.words(job)
    assert (ended["JobState"], ended["Restarts"], ended["NumNodes"]) == ("COMPLETED", "0", "2"), words
    assert words.count("Fused model:") == 1
    assert weights(folder / "runs/plain") == undisturbed  # the same layout: to the bit


def test_a_job_that_is_signalled_goes_back_to_the_queue_and_on_from_its_checkpoint(
    cluster, launch, folder, undisturbed
):
    job = launch("signalled")
    wait_for_checkpoint(cluster, job, folder / "runs/signalled")
    cluster.run("scancel", "--signal=USR1", "--batch", job)
    wait_until(lambda: cluster.job(job)["Restarts"] == "1", 60, lambda: cluster.words(job))
    ended = cluster.wait_for_end(job)
    words = cluster.words(job)
    assert (ended["JobState"], ended["Restarts"]) == ("COMPLETED", "1"), words
    assert f"fusion: its time is nearly up; job {job} goes back to the queue" in words
    assert "Traceback" not in words
    began, went_on = first_steps(folder / "runs/signalled")
    assert (began, went_on % 5) == (1, 1)  # behind a checkpoint
    assert went_on > 5
    assert weights(folder / "runs/signalled") == undisturbed


def test_a_time_limit_that_strikes_costs_nothing(cluster, launch, folder, undisturbed):
    job = launch("limited", "time=2", "signal=B:USR1@20")
    wait_for_checkpoint(cluster, job, folder / "runs/limited")
    cluster.run("scancel", "--signal=STOP", job)  # a training of more than a minute, at no cost
    wait_until(lambda: cluster.job(job)["Restarts"] == "1", 200, lambda: cluster.words(job))
    cluster.run("scontrol", "update", f"JobId={job}", "TimeLimit=30")  # on a slow machine the rest may take longer
    ended = cluster.wait_for_end(job)
    words = cluster.words(job)
    assert (ended["JobState"], ended["Restarts"]) == ("COMPLETED", "1"), words
    assert f"fusion: its time is nearly up; job {job} goes back to the queue" in words
    assert first_steps(folder / "runs/limited")[1] > 5
    assert weights(folder / "runs/limited") == undisturbed


def test_a_job_whose_node_is_lost_goes_on_when_it_is_back(cluster, launch, folder, undisturbed):
    job, run = launch("lost"), folder / "runs/lost"
    wait_for_checkpoint(cluster, job, run)
    cluster.run("scontrol", "update", f"NodeName={NODES[1]}", "State=DOWN", "Reason=test")  # Slurm sees it first
    wait_until(lambda: cluster.job(job)["JobState"] == "PENDING", 60, lambda: cluster.words(job))
    cluster.run("scontrol", "update", f"NodeName={NODES[1]}", "State=RESUME", check=False)  # it may be back by itself
    wait_for_checkpoint(cluster, job, run, step=60)
    cluster.kill_node(NODES[1])  # the processes see it first
    wait_until(lambda: cluster.job(job)["Restarts"] == "2", 200, lambda: cluster.words(job))
    cluster.start_lost_node(NODES[1])
    ended = cluster.wait_for_end(job)
    words = cluster.words(job)
    assert (ended["JobState"], ended["Restarts"]) == ("COMPLETED", "2"), words
    assert "Traceback" not in words
    began, second, third = first_steps(run)
    assert began == 1 < 5 < second <= 60 < third
    assert weights(run) == undisturbed


def test_a_job_that_begins_on_a_node_that_has_just_died_goes_back_to_the_queue(cluster, launch, folder, undisturbed):
    job = launch("begins", "hold")
    cluster.kill_node(NODES[1])
    cluster.run("scontrol", "release", job)
    said = f"fusion: a node of {','.join(NODES)} does not answer; job {job} goes back to the queue"
    wait_until(lambda: said in cluster.words(job), 200, lambda: cluster.words(job))
    cluster.start_lost_node(NODES[1])
    ended = cluster.wait_for_end(job)
    assert ended["JobState"] == "COMPLETED", cluster.words(job)
    assert weights(folder / "runs/begins") == undisturbed


def test_two_jobs_on_one_run_are_one_job_and_one_sentence(cluster, launch, folder, undisturbed):
    first = launch("shared")
    wait_for_checkpoint(cluster, first, folder / "runs/shared")
    cluster.run("scancel", "--signal=STOP", first)  # so that it has not ended when the second begins
    second = launch("shared")
    ended = cluster.wait_for_end(second)
    cluster.run("scancel", "--signal=CONT", first)
    words = cluster.words(second)
    assert ended["JobState"] == "FAILED"
    assert re.search(
        rf"runs/shared is being written by process \d+ on {HOST} since \S+ \S+; wait until that ends", words
    )
    assert "Traceback" not in words
    assert cluster.wait_for_end(first)["JobState"] == "COMPLETED", cluster.words(first)
    assert weights(folder / "runs/shared") == undisturbed


def test_nodes_that_cannot_meet_are_told_in_a_sentence(cluster, launch):
    cluster.start_node(UNKNOWN)
    wait_until(lambda: cluster.state(UNKNOWN) == "IDLE", 60, lambda: cluster.state(UNKNOWN))
    job = launch("unknown", f"nodelist={UNKNOWN},{HOST}")
    ended = cluster.wait_for_end(job)
    cluster.kill_node(UNKNOWN)
    words = cluster.words(job)
    assert ended["JobState"] == "FAILED"
    assert f"Error on {HOST}: the processes are to meet at {UNKNOWN}, and this machine knows no address" in words
    assert "frame #" not in words
    assert "Traceback" not in words
