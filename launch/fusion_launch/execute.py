"""Execution of a prepared launch: signals are forwarded to it, and its exit code is passed on."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
from types import FrameType

from fusion_launch.resources import Launch


def execute(launch: Launch) -> int:
    """Run a launch and return its exit code, 128 + n where signal n ended it.

    Ctrl-C and termination reach it. Raises ValueError where a program that is needed is not installed.
    """
    _check(launch)
    pipe = subprocess.PIPE if launch.stdin else None
    process = subprocess.Popen(launch.argv, stdin=pipe, text=True, start_new_session=True)

    def forward(number: int, _frame: FrameType | None) -> None:
        if process.poll() is None:
            os.killpg(process.pid, number)  # its own group, so that Ctrl-C reaches it once

    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        process.communicate(launch.stdin or None)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def _check(launch: Launch) -> None:
    program = launch.argv[0]
    if shutil.which(program) is None:
        raise ValueError(f"There is no {program} on this machine; --dry-run prints what it would run and read.")
    if "deepspeed.launcher.runner" not in launch.argv:
        return
    if importlib.util.find_spec("deepspeed") is None:
        raise ValueError("DeepSpeed is not installed: pip install 'logit-fusion[deepspeed]', or use --on torchrun.")
    if any(word.startswith("--num_nodes") for word in launch.argv) and shutil.which("pdsh") is None:
        raise ValueError("DeepSpeed starts other hosts by pdsh, which is not on this machine; use --on torchrun.")
