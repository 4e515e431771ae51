"""A hook inside Python that forbids what the kernel forbids too: the second line, and a clearer message."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

FORBIDDEN = (
    "socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.startfile", "os.kill",
    "pty.", "ctypes.", "webbrowser.", "ftplib.", "smtplib.", "urllib.", "http.client.", "resource.setrlimit",
    "signal.pthread_kill", "resource.prlimit", "syslog.", "fcntl.ioctl",
)  # fmt: skip
WRITING = (
    "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.chmod", "os.chown", "os.lchmod", "os.link", "os.symlink",
    "os.truncate", "os.utime", "os.setxattr", "os.removexattr", "os.chflags", "os.lchflags", "shutil.", "tempfile.",
)  # fmt: skip
ATTRIBUTES = ("os.chmod", "os.chown", "os.utime", "os.setxattr", "os.removexattr", "os.chflags")
"""May be given a descriptor, of a file that was opened to be read."""
READING = ("os.listdir", "os.scandir", "os.getxattr", "os.listxattr")
AF_UNIX, SOCK_STREAM = 1, 1
WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def install(folder: str, readable: Sequence[str]) -> None:
    """Install the hook, which cannot be removed: nothing is written outside `folder`, nothing read outside `readable`."""
    may_write, may_read = _within([folder], os.devnull), _within([folder, *readable], os.devnull)
    write_flags, forbidden, writing, reading, attributes = WRITE_FLAGS, FORBIDDEN, WRITING, READING, ATTRIBUTES
    pair = AF_UNIX, SOCK_STREAM

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "socket.__new__" and args[1:3] == pair:
            return  # of a pair of sockets, connected to each other; the kernel's filter says more
        if event.startswith(forbidden):
            raise PermissionError(f"generated code may not do this: {event}")
        if event == "open":
            path, mode, flag = args
            writes = (isinstance(flag, int) and flag & write_flags) or (
                isinstance(mode, str) and set(mode) & set("wax+")
            )
            if not (may_write if writes else may_read)(path):
                raise PermissionError(
                    f"generated code may not {'write' if writes else 'read'} outside its folder: {path!r}"
                )
        elif event.startswith(reading) and not may_read(args[0]):
            raise PermissionError(f"generated code may not read outside its folder: {args[0]!r}")
        elif event.startswith(attributes) and isinstance(args[0], int):
            raise PermissionError(f"generated code may not do this through a descriptor: {event}")
        elif event.startswith(writing) and not all(may_write(path) for path in _resolved(event, args)):
            raise PermissionError(f"generated code may not do this outside its folder: {event}")

    sys.addaudithook(hook)


def _within(roots: Sequence[str], *others: str) -> Callable[[object], bool]:
    real, fsdecode, paths = os.path.realpath, os.fsdecode, [*map(os.path.realpath, roots), *others]
    beneath = tuple(path + os.sep for path in paths)

    def within(path: object) -> bool:
        if not isinstance(path, str | bytes):
            return True  # a descriptor, opened under these rules, or nothing
        resolved = real(fsdecode(path))
        return resolved in paths or resolved.startswith(beneath)

    return within


_TWO_PATHS = {"os.rename": 2, "os.link": 2, "os.symlink": 2}


def _resolved(event: str, args: Sequence[Any], readlink: Callable[[str], str] = os.readlink) -> list[object]:
    """The paths of an event, those relative to a folder's descriptor (dir_fd, the events' last arguments) made whole."""
    paths = list(args[: _TWO_PATHS.get(event, 2 if event.startswith("shutil.") else 1)])
    folders = [arg for arg in args[len(paths) :] if isinstance(arg, int)][-len(paths) :]
    if event.startswith(("shutil.", "tempfile.", "os.truncate")) or not any(folder >= 0 for folder in folders):
        return paths
    folders = folders[-1:] * 2 if event == "os.symlink" else folders
    return [
        os.path.join(readlink(f"/proc/self/fd/{folder}"), os.fsdecode(path)) if folder >= 0 else path  # noqa: PTH118
        for path, folder in zip(paths, folders, strict=True)
    ]
