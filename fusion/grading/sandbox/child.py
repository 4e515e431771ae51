"""The process in which one program runs; started by `run`, alone, with nothing but the standard library.

Reads a task from stdin, puts on all that holds it, runs the program, and writes the secret and the verdict to stdout.
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


def limit(task: dict[str, Any]) -> None:
    """Set the kernel's limits; none can be raised again."""
    for name, value in [
        ("RLIMIT_CPU", task["seconds"]),
        ("RLIMIT_AS", task["memory"]),
        ("RLIMIT_DATA", task["memory"]),
        ("RLIMIT_FSIZE", task["file"]),
        ("RLIMIT_NOFILE", task["files"]),
        ("RLIMIT_CORE", 0),
        (
            "RLIMIT_NPROC",
            64,
        ),  # counts all of a user's processes and never binds root, so `kernel.calls` forbids them too
    ]:
        _, hard = resource.getrlimit(kind := getattr(resource, name))
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        # one second more for the hard limit on CPU: the soft one ends the process with a signal that says why
        resource.setrlimit(kind, (value, value + (name == "RLIMIT_CPU") if hard == resource.RLIM_INFINITY else hard))


def contain(task: dict[str, Any]) -> dict[str, bool]:
    """Put on everything; which parts this machine has."""
    folder = task["folder"]
    on = {}
    for name, put_on in [
        ("limits", lambda: limit(task)),
        ("namespace", kernel.namespace),
        ("files", lambda: kernel.files(folder)),
        ("calls", kernel.calls),
    ]:
        on[name] = _works(put_on)
    audit.install(folder)
    return on | {"hook": True}


def _works(put_on: Callable[[], None]) -> bool:
    try:
        put_on()
    except (OSError, ValueError):  # setrlimit raises the second
        return False
    return True


def verdict(program: str) -> dict[str, Any]:
    """Run it as `__main__`; any exception, also an exit, is a failure."""
    try:
        with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):  # noqa: PTH123
            exec(compile(program, "<answer>", "exec"), {"__name__": "__main__", "__builtins__": __builtins__})
    except BaseException as error:
        return {"passed": False, "reason": f"{type(error).__name__}: {error}"[:400]}
    return {"passed": True, "reason": ""}


def main() -> None:
    """See the head of this file."""
    task = json.loads(sys.stdin.buffer.read())
    secret, out = task.pop("secret"), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(0, 1)
    on = contain(task)
    if "--say" in sys.argv:
        os.write(out, json.dumps(on).encode() + b"\n")
        return
    ended = verdict(task["program"])
    os.write(out, (secret + json.dumps(ended)).encode())
    os._exit(0)  # neither threads nor handlers of the program have the last word


if __name__ == "__main__":
    main()
