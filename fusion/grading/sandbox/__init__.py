"""Judge a program that a model wrote, contained so that it can do nothing but compute.

Tests run in one process, the program in another, each in a folder of its own. The tests call stand-ins for the
program's functions; plain values cross over a pipe, so a program can return a wrong value but never a verdict.

What contains both, in the order in which it is installed (`containment` tells which of these this machine has):

    bubblewrap  sees system and Python read-only and nothing else, files in a small memory disk, no other processes
                (where `bwrap` is installed and may make namespaces)
    rlimits     CPU and wall time, memory, size and number of files, no core dumps; the kernel's, always
    namespaces  no network devices and none of root's rights (user and network namespace; Linux, where permitted)
    landlock    nothing is written, made or removed outside a temporary folder, nothing read outside system and Python
                (Linux 5.13)
    seccomp     no new processes, programs, sockets, signals to others, debugging or mounts; no modes, owners, times
                and attributes of files, no priorities (Linux, x86-64 or arm64)
    audit_hook  much of it at the level of Python, as a second line; native code gets around it, so alone it is no wall

The size of a program's folder is measured while it runs.
"""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from fusion.grading.sandbox.collected import why_they_test_nothing
from fusion.grading.sandbox.processes import (
    LimitExceeded,
    Limits,
    Process,
    bubblewrap,
    last_message,
    probe,
    started,
)

__all__ = [
    "Limits",
    "ProgramResult",
    "containment",
    "describe_containment",
    "judge_program",
    "run",
    "why_they_test_nothing",
]

CPU_ENDED = {-signal.SIGXCPU, -signal.SIGKILL, 128 + signal.SIGXCPU, 128 + signal.SIGKILL}  # bubblewrap adds 128


@dataclass(frozen=True)
class ProgramResult:
    """How a program ended."""

    passed: bool
    """Whether it did all that was asked of it."""
    reason: str
    """Empty where it passed, else the last line of the error, or which limit ended it."""
    ran_inside: str = ""
    """What was decided in the program's own process, so that a program made to deceive could have decided it itself."""
    tests_broken: bool = False
    """Whether it was the tests that could not run, whatever the program: no Python, or they import what is not there."""


def judge_program(program: str, tests: str, limits: Limits | None = None, *, imports: str = "") -> ProgramResult:
    """Run tests against a program; names that the tests use and do not define are the program's.

    Test functions and classes that the tests do not call themselves are run too, as pytest and unittest run them.
    `imports` run before the program, for those that it may leave out.

    Whole tests run inside the program's process where they need to (they patch it, or pass it objects of their own), and
    where it was only an object of the program that could tell, that alone did; `ran_inside` says so.

    Raises ValueError for tests that would pass any program.
    """
    if why := why_they_test_nothing(tests):
        raise ValueError(f"The tests that begin {tests[:60]!r} cannot tell a right program from a wrong one: {why}.")
    limits = limits or Limits()
    try:
        verdict, code = _judge({"program": program, "imports": imports}, tests, limits)
    except LimitExceeded as error:
        return ProgramResult(False, str(error))
    if needs := verdict.get("needs_inside"):
        return replace(run(program, limits, tests, imports=imports), ran_inside=f"all tests: {needs}")
    return _result(verdict, code, limits)


def _judge(task_of_worker: dict[str, Any], tests: str, limits: Limits) -> tuple[dict[str, Any], int]:
    with started("worker", task_of_worker, limits) as worker:
        assert worker.popen.stdin is not None
        assert worker.popen.stdout is not None
        read_from, write_to = worker.popen.stdout.fileno(), worker.popen.stdin.fileno()
        task = {"tests": tests, "read_from": read_from, "write_to": write_to}
        with started("judge", task, limits, pass_fds=(read_from, write_to)) as judging:
            worker.popen.stdin.close()  # the judge has its own, and must see the end when the program ends
            worker.popen.stdout.close()
            verdict = _verdict(last_message(judging, [judging, worker]))
            ends = [_exit_code(each) for each in (worker, judging) if not verdict.get("passed")]
        return verdict, next(filter(None, ends), 0)


def _exit_code(process: Process) -> int | None:
    """How a process ended that ends by itself, since nobody asks it any more."""
    try:
        return process.popen.wait(timeout=1)
    except subprocess.TimeoutExpired:
        return None


def run(program: str, limits: Limits | None = None, tests: str = "", *, imports: str = "") -> ProgramResult:
    """Run a program that holds its own tests, or `tests` behind it, in one process: it passes without an exception.

    What a program does to its own process can change this verdict; see `judge`.
    """
    limits, secret = limits or Limits(), secrets.token_hex(16)
    task = {"program": program, "tests": tests, "imports": imports, "secret": secret}
    try:
        with started("inside", task, limits) as process:
            verdict = _verdict(last_message(process, [process]))
            code = _exit_code(process)
    except LimitExceeded as error:
        return ProgramResult(False, str(error))
    return _result(verdict if verdict.pop("secret", None) == secret else {}, code, limits)


def _verdict(data: bytes) -> dict[str, Any]:
    """Read a verdict; empty where there is none, or where it is not of the right form."""
    try:
        word, verdict = json.loads(data[4:])
    except (ValueError, TypeError, RecursionError):
        return {}
    return verdict if word == "verdict" and isinstance(verdict, dict) else {}


def _result(verdict: Mapping[str, Any], code: int | None, limits: Limits) -> ProgramResult:
    passed, reason, inside = verdict.get("passed"), verdict.get("reason"), verdict.get("ran_inside", "")
    if passed is True:
        return ProgramResult(True, "", str(inside))
    if code in CPU_ENDED:
        reason = f"took longer than {limits.seconds} seconds of CPU"
    said = str(reason or f"ended by itself before the tests were through (exit code {code})")
    return ProgramResult(False, said, str(inside), verdict.get("tests_broken") is True)


@cache
def containment() -> dict[str, bool]:
    """Whether rlimits, namespaces, landlock, seccomp, audit_hook and bubblewrap work on this machine; tried out once.

    Raises RuntimeError where no process can be started in the sandbox.
    """
    data = probe(bubblewrap())
    if not data:
        raise RuntimeError("The sandbox's own process does not start on this machine; generated code cannot be run.")
    return json.loads(data[4:])[1]


def describe_containment() -> str:
    """Say in a sentence or two what contains generated code on this machine, and what is missing."""
    has = containment()
    if not (has["landlock"] and has["seccomp"]):
        missing = ", ".join(name for name, on in has.items() if not on)
        return (
            f"Generated code runs with limits on time, memory and files, but this machine lacks: {missing}. Native code "
            "could get around what is left, a hook inside Python; run untrusted models in a container or virtual machine."
        )
    held = (
        "Generated code runs with limits and cannot write outside its folder, read anything but the system and Python, "
        "start processes or reach the network"
    )
    if has["bubblewrap"]:
        return f"{held}; it sees no other files or processes (bubblewrap)."
    return f"{held}; that other files exist, with their sizes and times, it can see (install bubblewrap to hide them)."
