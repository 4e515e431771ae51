"""What a run computes on, in words, so that its times can be judged."""

from __future__ import annotations

import os
import platform
from collections import Counter
from pathlib import Path

from fusion.runtime import distributed

CPU_FACTS = Path("/proc/cpuinfo")
"""Where Linux says what its processors are."""


def hardware(cpu_facts: Path = CPU_FACTS) -> str:
    """Return this machine's GPUs, processor and cores, and how many processes there are: "2 x NVIDIA H200, 16 cores of X"."""
    parts = [f"{count} x {name}" for name, count in Counter(_gpus()).items()]
    cores = _cores()
    parts.append(f"{cores} core{'s' * (cores != 1)} of {_processor(cpu_facts)}")
    processes = distributed.world_size()
    return ", ".join([*parts, *([f"{processes} processes"] if processes > 1 else [])])


def _gpus() -> list[str]:
    import torch

    return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]


def _cores() -> int:
    """Those that this process may use, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor(facts: Path) -> str:
    """The processor's name, or its kind where the system does not say."""
    lines = facts.read_text().splitlines() if facts.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(filter(None, named), None) or platform.processor() or platform.machine()
