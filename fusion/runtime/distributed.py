"""Ranks of the processes of one run, and barriers between them.

RANK, LOCAL_RANK and WORLD_SIZE come from the environment, where torchrun (and every compatible launcher) sets them. Without
them there is one process, and barriers return at once. Barriers use a gloo group of their own on the CPU, whatever backend
the training uses, with a timeout of days: the main process may evaluate for hours while the others wait.
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
    """Return the global rank of this process. Raises ValueError where WORLD_SIZE is set and RANK is not."""
    return _rank_variable("RANK") if world_size() > 1 else 0


def local_rank() -> int:
    """Return the rank of this process on its machine, which is the index of its GPU."""
    return _rank_variable("LOCAL_RANK") if world_size() > 1 else 0


def world_size() -> int:
    """Return the number of processes."""
    return int(os.environ.get("WORLD_SIZE", 1))


def is_main_process() -> bool:
    """Return whether this is rank 0, the process that prints, merges, evaluates and writes run.json."""
    return rank() == 0


def device() -> str:
    """Return the device type that this process computes on, and select its own GPU where there are several processes."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    if world_size() > 1:
        torch.cuda.set_device(local_rank())
    return "cuda"


def free_memory() -> None:
    """Collect garbage and empty the CUDA cache, so that other models find the memory free."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def barrier() -> None:
    """Wait until every process has reached this call."""
    if world_size() > 1:
        import torch.distributed as dist

        dist.barrier(_gloo_group())


@contextmanager
def main_process_first() -> Iterator[None]:
    """Run the body in the main process first and in the others afterwards, as `main_process_first` of TrainingArguments."""
    if not is_main_process():
        barrier()
    yield
    if is_main_process():
        barrier()


def init_process_group() -> None:
    """Initialise torch.distributed (nccl on GPUs, else gloo) where there are several processes and it is not yet."""
    import torch.distributed as dist

    if world_size() > 1 and not dist.is_initialized():
        on_gpu = device() == "cuda"
        dist.init_process_group("nccl" if on_gpu else "gloo")


def set_single_process_env() -> None:
    """Set the environment of a single process (rank 0 of 1, a free port), for libraries such as DeepSpeed that require one.

    Does nothing where a launcher has set it.
    """
    if world_size() > 1 or "RANK" in os.environ:
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update(environment)


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
