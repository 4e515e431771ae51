"""The processes of one run: which one this is, how many there are, how they wait for each other and tell each other.

torchrun (like every launcher that speaks its language) says who is who in environment variables. Without them there is one
process, and nothing here does anything. The processes talk over gloo on the CPU, whatever the training talks over, and wait
as long as it takes: the main process may well evaluate for hours while the others have nothing to do.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

Value = TypeVar("Value")
PATIENCE = timedelta(days=30)


def rank() -> int:
    """Number of this process, from 0. Raises ValueError where the launcher said how many there are but not which this is."""
    return _number("RANK") if world() > 1 else 0


def local_rank() -> int:
    """Number of this process on its machine, from 0: the number of its GPU."""
    return _number("LOCAL_RANK") if world() > 1 else 0


def world() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", 1))


def is_main() -> bool:
    """Whether this is the process that prints, merges, evaluates and keeps the record."""
    return rank() == 0


def device() -> str:
    """Where this process computes: its own GPU, or the CPU."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    if world() > 1:
        torch.cuda.set_device(local_rank())
    return "cuda"


def barrier() -> None:
    """Returns once every process has come here."""
    if world() > 1:
        import torch.distributed as dist

        dist.barrier(_everyone())


def broadcast(value: Value) -> Value:
    """What the main process gives here, in every process. Anything small that pickle knows."""
    if world() == 1:
        return value
    import torch.distributed as dist

    box = [value]
    dist.broadcast_object_list(box, src=0, group=_everyone())
    return box[0]


def gather(value: Value) -> list[Value]:
    """What every process gives here, by rank, in every process. Anything small that pickle knows."""
    if world() == 1:
        return [value]
    import torch.distributed as dist

    box: list[Any] = [None] * world()
    dist.all_gather_object(box, value, group=_everyone())
    return box


@contextmanager
def main_first() -> Iterator[None]:
    """The main process does what follows before the others do: they find it done."""
    if not is_main():
        barrier()
    yield
    if is_main():
        barrier()


def start() -> None:
    """Meet the other processes. Called by whatever needs them, so that one process never pays for it."""
    import torch.distributed as dist

    if world() > 1 and not dist.is_initialized():
        on_gpu = device() == "cuda"
        dist.init_process_group("nccl" if on_gpu else "gloo")


@functools.cache
def _everyone() -> Any:
    import torch.distributed as dist

    start()
    return dist.new_group(backend="gloo", timeout=PATIENCE)


def _number(variable: str) -> int:
    if variable not in os.environ:
        raise ValueError(
            f"WORLD_SIZE is {world()}, but {variable} is not set. Start the processes with torchrun, which sets both, "
            "or unset WORLD_SIZE to run in one process."
        )
    return int(os.environ[variable])
