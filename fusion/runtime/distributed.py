"""The processes of one run: which one this is, how many there are, and how they wait for each other.

torchrun (like every launcher that speaks its language) says who is who in environment variables. Without them there is one
process, and nothing here does anything. The processes talk over gloo on the CPU, whatever the training talks over, and wait
as long as it takes: the main process may well evaluate for hours while the others have nothing to do.
"""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

BARRIER_TIMEOUT = timedelta(days=30)


def rank() -> int:
    """Number of this process, from 0. Raises ValueError where the launcher said how many there are but not which this is."""
    return _rank_variable("RANK") if world_size() > 1 else 0


def local_rank() -> int:
    """Number of this process on its machine, from 0: the number of its GPU."""
    return _rank_variable("LOCAL_RANK") if world_size() > 1 else 0


def world_size() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", 1))


def is_main_process() -> bool:
    """Whether this is the process that prints, merges, evaluates and keeps the record."""
    return rank() == 0


def device() -> str:
    """Where this process computes: its own GPU, or the CPU."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    if world_size() > 1:
        torch.cuda.set_device(local_rank())
    return "cuda"


def free_memory() -> None:
    """Give back what this process no longer holds of its device's memory."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def barrier() -> None:
    """Returns once every process has come here."""
    if world_size() > 1:
        import torch.distributed as dist

        dist.barrier(_gloo_group())


@contextmanager
def main_process_first() -> Iterator[None]:
    """The main process does what follows before the others do: they find it done."""
    if not is_main_process():
        barrier()
    yield
    if is_main_process():
        barrier()


def init_process_group() -> None:
    """Meet the other processes. Called by whatever needs them, so that one process never pays for it."""
    import torch.distributed as dist

    if world_size() > 1 and not dist.is_initialized():
        on_gpu = device() == "cuda"
        dist.init_process_group("nccl" if on_gpu else "gloo")


def set_single_process_env() -> None:
    """Where there is one process and no launcher, say so in the launcher's language, for libraries that speak no other."""
    if world_size() > 1 or "RANK" in os.environ:
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    one = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update(one)


@functools.cache
def _gloo_group() -> Any:
    import torch.distributed as dist

    init_process_group()
    return dist.new_group(backend="gloo", timeout=BARRIER_TIMEOUT)


def _rank_variable(variable: str) -> int:
    if variable not in os.environ:
        raise ValueError(
            f"WORLD_SIZE is {world_size()}, but {variable} is not set. Start the processes with torchrun, which sets both, "
            "or unset WORLD_SIZE to run in one process."
        )
    return int(os.environ[variable])
