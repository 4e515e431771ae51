"""The lock of a run: one start at a time, and all of its processes wait until the main one has it."""

import os
import socket
import subprocess
import sys
import time

import pytest
import torch.multiprocessing

from fusion import pipeline
from fusion.runtime.run_record import RunRecord
from tests.helpers import runs

HOLD = (
    "import sys, time; from pathlib import Path; from fusion.runtime.run_record import RunRecord\n"
    "with RunRecord(Path(sys.argv[1])).lock(): print('held', flush=True); time.sleep(60)\n"
)


@pytest.fixture
def config(tmp_path):
    return runs.config(tmp_path)


@pytest.fixture
def holder(config):
    """Another process that has the lock of the run."""
    with subprocess.Popen([sys.executable, "-c", HOLD, config.folder], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.mark.parametrize("until", ["train", "merge", "evaluate", "report"])
def test_a_second_start_of_a_run_names_the_first_and_writes_nothing(config, holder, until):
    said = rf"The run in {config.folder} is being written by process {holder.pid} on {socket.gethostname()} since \S+ \S+; wait"
    with pytest.raises(BlockingIOError, match=said):
        pipeline.run(config, until)
    assert [file.name for file in config.folder.iterdir()] == ["lock"]


def test_extraction_is_shared_with_whoever_has_the_run(config, holder):
    pipeline.run(config, "extract")
    assert (config.folder / "cache/pivot/manifest.json").exists()


def test_a_start_that_was_killed_blocks_nobody(config, holder):
    holder.kill()
    holder.wait()
    assert (config.folder / "lock").exists()
    with RunRecord(config.folder).lock():
        pass
    assert not (config.folder / "lock").exists()


def work(rank, port, folder):
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
    }  # fmt: skip
    if rank == 0:
        time.sleep(0.3)
    with RunRecord(folder).lock():
        assert (folder / "lock").exists()
        torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_other_processes_begin_when_the_main_one_has_it(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    torch.multiprocessing.spawn(work, (port, tmp_path), nprocs=2)
    assert not (tmp_path / "lock").exists()
