"""Run a program that a model wrote, in a process of its own that can do nothing but compute.

What contains it, in the order in which it is installed (`containment` tells which of these this machine has):

    rlimits     CPU and wall time, memory, size and number of files, no core dumps; the kernel's, always
    namespaces  no network devices and none of root's rights (user and network namespace; Linux, where permitted)
    landlock    nothing may be written, made or removed outside a temporary folder (Linux 5.13)
    seccomp     no new processes, programs, sockets, signals to others, debugging or mounts (Linux, x86-64 or arm64)
    audit_hook  the same at the level of Python, as a second line; native code can get around it, so alone it is no wall

Reading files is not held back, but there is nowhere to send what was read: only a verdict and the end of the error
message come out.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

CHILD = Path(__file__).with_name("child.py")


@dataclass(frozen=True)
class Limits:
    """What a program may use."""

    seconds: int = 10
    """CPU time; wall time may be three times as long, on a busy machine."""
    memory_bytes: int = 2**30
    """Address space."""
    file_bytes: int = 2**20
    """Size of one file."""
    open_files: int = 64


@dataclass(frozen=True)
class ProgramResult:
    """How a program ended."""

    passed: bool
    """Whether it ran to its end without an exception."""
    reason: str
    """Empty where it passed, else the last line of the error, or which limit ended it."""


def run(program: str, limits: Limits | None = None) -> ProgramResult:
    """Run a Python program; whatever it starts or writes is gone when this returns."""
    limits = limits or Limits()
    with tempfile.TemporaryDirectory(prefix="fusion-sandbox-") as folder:
        return _run(program, folder, limits)


def _run(program: str, folder: str, limits: Limits) -> ProgramResult:
    secret = secrets.token_hex(16)  # the program's own output cannot pass for the verdict
    task = json.dumps({"program": program, "folder": folder, "secret": secret, **asdict(limits)}).encode()
    with (Path(folder) / ".out").open("w+b") as out, subprocess.Popen(
        [sys.executable, "-I", str(CHILD)], stdin=subprocess.PIPE, stdout=out, stderr=subprocess.DEVNULL,
        cwd=folder, env=_environment(folder), start_new_session=True,
    ) as process:  # fmt: skip
        try:
            process.communicate(task, timeout=3 * limits.seconds + 5)
        except subprocess.TimeoutExpired:
            return ProgramResult(False, f"took longer than {3 * limits.seconds + 5} seconds")
        finally:
            _kill_group(process)
        out.seek(0)
        return _result(out.read(2 * limits.file_bytes).decode(errors="replace"), secret, process.returncode, limits)


def _result(text: str, secret: str, code: int, limits: Limits) -> ProgramResult:
    _, separator, verdict = text.rpartition(secret)
    if separator:
        return ProgramResult(**json.loads(verdict))
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        return ProgramResult(False, f"took longer than {limits.seconds} seconds of CPU")
    return ProgramResult(False, f"ended by itself before the tests were through (exit code {code})")


def _environment(folder: str) -> dict[str, str]:
    """Nothing of ours: no keys, no paths; one thread for numerical libraries."""
    return {"PATH": os.defpath, "HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8"} | {
        f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")
    }


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


@cache
def containment() -> dict[str, bool]:
    """Whether each of rlimits, namespaces, landlock, seccomp and audit_hook works on this machine; tried out once."""
    with tempfile.TemporaryDirectory(prefix="fusion-sandbox-") as folder:
        task = {"program": "", "folder": folder, "secret": "", **asdict(Limits())}
        out = subprocess.run(
            [sys.executable, "-I", str(CHILD), "--containment"], input=json.dumps(task).encode(), stdout=subprocess.PIPE,
            cwd=folder, env=_environment(folder), check=True, start_new_session=True,
        )  # fmt: skip
    return json.loads(out.stdout.splitlines()[0])


def describe_containment() -> str:
    """Say in a sentence or two what contains generated code on this machine, and what is missing."""
    has = containment()
    if has["landlock"] and has["seccomp"]:
        return "Generated code runs with limits, cannot write outside its folder, start processes or reach the network."
    missing = ", ".join(name for name, on in has.items() if not on)
    return (
        f"Generated code runs with limits on time, memory and files, but this machine lacks: {missing}. Native code could "
        "get around what is left, a hook inside Python; run untrusted models in a container or virtual machine."
    )
