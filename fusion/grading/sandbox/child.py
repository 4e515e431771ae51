"""A process of the sandbox, with nothing but the standard library: reads a task, contains itself, does its part.

judge    task on stdin; runs tests, with a program behind the pipes 3 and 4; the verdict goes to stdout
worker   task and then the judge's questions on stdin, answers to stdout; runs the program
inside   task on stdin; runs program and tests in one process; a secret and the verdict go to stdout
probe    says what contains it on this machine
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from collections.abc import Callable
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120  (no more imports than needed)

import audit  # pyright: ignore[reportMissingImports]
import crossing  # pyright: ignore[reportMissingImports]
import judge  # pyright: ignore[reportMissingImports]
import kernel  # pyright: ignore[reportMissingImports]
import runner  # pyright: ignore[reportMissingImports]
import worker  # pyright: ignore[reportMissingImports]

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
        # one second more for the hard limit on CPU: the soft one ends the process with a signal that says why
        most = value + (name == "RLIMIT_CPU")
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (min(value, most), most))


def contain(task: dict[str, Any]) -> dict[str, bool]:
    """Install everything that contains this process; returns which parts this machine has."""
    folder, readable = task["folder"], task["readable"]
    installed = {}
    for name, install in [
        ("rlimits", lambda: set_limits(task)),
        ("namespaces", kernel.enter_namespaces),
        ("landlock", lambda: kernel.install_landlock(folder, readable)),
        ("seccomp", kernel.install_seccomp),
    ]:
        # bubblewrap has made the namespaces already, and more of them
        installed[name] = (name == "namespaces" and task["bubblewrap"]) or _works(install)
    audit.install(folder, readable)
    return installed | {"audit_hook": True, "bubblewrap": task["bubblewrap"]}


def _works(install: Callable[[], None]) -> bool:
    try:
        install()
    except (OSError, ValueError):  # setrlimit raises the second
        return False
    return True


def run_program(imports: str, program: str, tests: str) -> dict[str, Any]:
    """Run imports, a program as `__main__`, and tests behind it; any exception, also an exit, is a failure."""
    names = {"__name__": "__main__", "__builtins__": __builtins__, "__file__": "<tests>"}
    try:
        with open(os.devnull, "w") as null, contextlib.redirect_stdout(null), contextlib.redirect_stderr(null):  # noqa: PTH123
            for part in (imports, program):  # each with `from __future__` at its own top
                exec(compile(part, "<answer>", "exec", dont_inherit=True), names)
            runner.run(tests, names, may_exit=False)
    except BaseException as error:
        return {"passed": False, "reason": f"{type(error).__name__}: {error}"[:400], "tests_broken": _of_tests(error)}
    return {"passed": True, "reason": ""}


def _of_tests(error: BaseException) -> bool:
    """Whether an error is of the tests alone: they import what is not there, and no line of the program was running."""
    place, files = error.__traceback__, set()
    while place is not None:
        files.add(place.tb_frame.f_code.co_filename)
        place = place.tb_next
    return isinstance(error, ImportError) and "<tests>" in files and "<answer>" not in files


def main() -> None:
    """Read the task, install what contains this process, and do the part named on the command line."""
    part = sys.argv[1]
    source, out = os.dup(0), os.dup(1)
    channel = crossing.Channel(source, out)
    task = channel.receive()[1]
    for descriptor in (0, 1):
        os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
    installed = contain(task)
    if part == "worker":
        worker.Worker(channel).serve(task["imports"], task["program"])
    elif part == "judge":
        channel.send(["verdict", judge.judge(crossing.Channel(task["read_from"], task["write_to"]), task["tests"])])
    elif part == "probe":
        channel.send(["containment", installed])
    else:
        secret = task.pop("secret")
        verdict = run_program(task["imports"], task["program"], task["tests"])
        channel.send(["verdict", verdict | {"secret": secret}])
    os._exit(0)  # neither threads nor handlers of the program have the last word


if __name__ == "__main__":
    main()
