"""One process alone, and two that meet over gloo: who is main, and who waits for whom."""

import os
import socket
import time

import pytest
import torch.multiprocessing

from fusion.runtime import distributed


def test_one_process_is_the_main_one_and_needs_nobody(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert (distributed.rank(), distributed.local_rank(), distributed.world_size(), distributed.is_main_process()) == (
        0,
        0,
        1,
        True,
    )
    distributed.barrier()
    with distributed.main_process_first():
        pass
    assert not torch.distributed.is_initialized()


def test_a_launcher_that_says_half_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ValueError, match="WORLD_SIZE is 2, but RANK is not set. Start the processes with torchrun"):
        distributed.is_main_process()


def meet(rank, port, folder):
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
    }  # fmt: skip
    assert distributed.is_main_process() == (rank == 0)
    with distributed.main_process_first():
        if rank == 0:
            time.sleep(0.3)
            (folder / "done").touch()
        assert (folder / "done").exists()
    if rank == 1:
        (folder / "other").touch()
    distributed.barrier()
    assert (folder / "other").exists()
    torch.distributed.destroy_process_group()


def test_two_processes_agree_and_wait_for_each_other(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    torch.multiprocessing.spawn(meet, (port, tmp_path), nprocs=2)
