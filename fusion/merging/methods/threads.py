"""The threads that merge tiles, set up so that they reuse memory."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager

import torch


@contextmanager
def tile_executor(threads: int | None) -> Iterator[Executor]:
    """An executor of `threads` threads, by default one per core, each with a single torch thread of its own."""
    count, before = threads or len(os.sched_getaffinity(0)), torch.get_num_threads()
    _keep_freed_memory()
    try:
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as executor:
            yield executor
    finally:
        torch.set_num_threads(before)


@contextmanager
def background_executor(threads: int | None) -> Iterator[Executor]:
    """An executor of `threads` threads, by default one per core, whose work is given up where an error ends the body."""
    executor = ThreadPoolExecutor(threads or os.cpu_count())
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def _keep_freed_memory() -> None:
    """Ask the C library to keep the memory of a tile for the next one; giving it back and forth is half of a merge."""
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        for parameter, value in ((-3, 1 << 25), (-1, 1 << 25), (-2, 1 << 24)):  # mmap and trim threshold, top pad
            library.mallopt(parameter, value)
