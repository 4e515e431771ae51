"""The process in which one program runs; started by `run`, alone, with nothing but the standard library.

Reads a task from stdin, installs all that contains it, runs the program, and writes the secret and the verdict to stdout.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
from collections.abc import Callable
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120  (no more imports than needed)

import audit  # pyright: ignore[reportMissingImports]
import kernel  # pyright: ignore[reportMissingImports]

sys.path.pop(0)


def set_limits(task: dict[str, Any]) -> None:
    """Set the kernel's limits; none can be raised again."""
    for name, value in [
        ("RLIMIT_CPU", task["seconds"]),
        ("RLIMIT_AS", task["memory_bytes"]),
        ("RLIMIT_DATA", task["memory_bytes"]),
        ("RLIMIT_FSIZE", task["file_bytes"]),
        ("RLIMIT_NOFILE", task["open_files"]),
        ("RLIMIT_CORE", 0),
        # counts all of a user's processes and never binds root, so `kernel.install_seccomp` forbids them too
        ("RLIMIT_NPROC", 64),
    ]:
        _, hard = resource.getrlimit(kind := getattr(resource, name))
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        # one second more for the hard limit on CPU: the soft one ends the process with a signal that says why
        resource.setrlimit(kind, (value, value + (name == "RLIMIT_CPU") if hard == resource.RLIM_INFINITY else hard))


def contain(task: dict[str, Any]) -> dict[str, bool]:
    """Install everything that contains this process; returns which parts this machine has."""
    folder = task["folder"]
    installed = {}
    for name, install in [
        ("rlimits", lambda: set_limits(task)),
        ("namespaces", kernel.enter_namespaces),
        ("landlock", lambda: kernel.install_landlock(folder)),
        ("seccomp", kernel.install_seccomp),
    ]:
        installed[name] = _works(install)
    audit.install(folder)
    return installed | {"audit_hook": True}


def _works(install: Callable[[], None]) -> bool:
    try:
        install()
    except (OSError, ValueError):  # setrlimit raises the second
        return False
    return True


def run_program(program: str) -> dict[str, Any]:
    """Run a program as `__main__`; any exception, also an exit, is a failure."""
    try:
        with open(os.devnull, "w") as null, contextlib.redirect_stdout(null), contextlib.redirect_stderr(null):  # noqa: PTH123
            exec(compile(program, "<answer>", "exec"), {"__name__": "__main__", "__builtins__": __builtins__})
    except BaseException as error:
        return {"passed": False, "reason": f"{type(error).__name__}: {error}"[:400]}
    return {"passed": True, "reason": ""}


def main() -> None:
    """Read the task, run its program, write the verdict; with `--containment`, write what contains it instead."""
    task = json.loads(sys.stdin.buffer.read())
    secret, out = task.pop("secret"), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(0, 1)
    installed = contain(task)
    if "--containment" in sys.argv:
        os.write(out, json.dumps(installed).encode() + b"\n")
        return
    verdict = run_program(task["program"])
    os.write(out, (secret + json.dumps(verdict)).encode())
    os._exit(0)  # neither threads nor handlers of the program have the last word


if __name__ == "__main__":
    main()
