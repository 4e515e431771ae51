"""A hook inside Python that forbids what the kernel forbids too: the second line, and a clearer message."""

from __future__ import annotations

import os
import sys

FORBIDDEN = (
    "socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.startfile", "os.kill",
    "pty.", "ctypes.", "webbrowser.", "ftplib.", "smtplib.", "urllib.", "http.client.", "resource.setrlimit",
    "signal.pthread_kill",
)  # fmt: skip
WRITING = (
    "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.chmod", "os.chown", "os.link", "os.symlink", "os.truncate",
    "os.utime", "os.setxattr", "os.removexattr", "shutil.", "tempfile.",
)  # fmt: skip


def install(folder: str) -> None:
    """Install the hook, which cannot be removed: nothing may be written outside `folder`."""
    root = os.path.realpath(folder)
    real, separator, flags = os.path.realpath, os.sep, os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

    def outside(path: object) -> bool:
        if not isinstance(path, str | bytes):
            return False  # a descriptor, opened under these rules, or nothing
        resolved = real(os.fsdecode(path))
        return resolved not in (root, os.devnull) and not resolved.startswith(root + separator)

    def hook(event: str, args: tuple[object, ...]) -> None:
        if event.startswith(FORBIDDEN):
            raise PermissionError(f"generated code may not do this: {event}")
        if event == "open":
            path, mode, flag = args
            writes = (isinstance(flag, int) and flag & flags) or (isinstance(mode, str) and set(mode) & set("wax+"))
            if writes and outside(path):
                raise PermissionError(f"generated code may not write outside its folder: {path}")
        elif event.startswith(WRITING) and any(outside(path) for path in args[:2]):
            raise PermissionError(f"generated code may not do this outside its folder: {event}")

    sys.addaudithook(hook)
