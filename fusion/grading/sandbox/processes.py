"""Start the processes of the sandbox, watch over them, and end them; nothing of theirs stays."""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import site
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from fusion.grading.sandbox.crossing import Channel
from fusion.runtime.unfinished import temporary_folder

CHILD = Path(__file__).with_name("child.py")
SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/nix/store", "/System", "/Library", "/etc/alternatives")
SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/localtime")
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
VERDICT_BYTES = 2**16
POLL_SECONDS = 0.05
ENTRY_BYTES = 4096
"""What a file or folder counts for at least, so that a million empty ones are too many."""


@dataclass(frozen=True)
class Limits:
    """What a program may use."""

    seconds: int = 10
    """CPU time; wall time may be three times as long, on a busy machine."""
    memory_bytes: int = 2**30
    """Address space."""
    file_bytes: int = 2**20
    """Size of one file."""
    folder_bytes: int = 2**24
    """Size of all files together."""
    open_files: int = 64


class LimitExceeded(Exception):  # noqa: N818
    """A process was ended for what it used; the message says of what."""


class Process(NamedTuple):
    """A process of the sandbox, and its folder."""

    popen: subprocess.Popen[bytes]
    folder: str
    limits: Limits


@contextlib.contextmanager
def started(part: str, task: dict[str, Any], limits: Limits, pass_fds: Sequence[int] = ()) -> Iterator[Process]:
    """Start a process in a folder of its own and send it its task; it and whatever it wrote are gone afterwards."""
    with _temporary_folder() as folder, subprocess.Popen(
        _command(part, folder, limits, bubblewrap()), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, cwd=folder, env=_environment(folder), start_new_session=True, pass_fds=pass_fds,
        bufsize=0,
    ) as popen:  # fmt: skip
        try:
            send_task(popen, task, folder, limits, in_bubblewrap=bubblewrap() is not None)
            yield Process(popen, folder, limits)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(popen.pid, signal.SIGKILL)


def send_task(
    popen: subprocess.Popen[bytes], task: dict[str, Any], folder: str, limits: Limits, *, in_bubblewrap: bool
) -> None:
    """Tell a process what to do and how to contain itself."""
    containing = {"folder": folder, "readable": readable(), "bubblewrap": in_bubblewrap, **asdict(limits)}
    assert popen.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it has ended already, which its verdict will show
        Channel(-1, popen.stdin.fileno()).send(["task", task | containing])


def last_message(process: Process, watched: Sequence[Process]) -> bytes:
    """Read all that a process writes until it ends. Raises LimitExceeded where one of `watched` uses too much."""
    seconds = 3 * process.limits.seconds + 5
    deadline, data = time.monotonic() + seconds, b""
    assert process.popen.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(out := process.popen.stdout.fileno(), selectors.EVENT_READ)
        while True:
            if selector.select(POLL_SECONDS):
                data += (part := os.read(out, VERDICT_BYTES))
                if not part or len(data) > VERDICT_BYTES:
                    return data
            if time.monotonic() > deadline:
                raise LimitExceeded(f"took longer than {seconds} seconds")
            if any(folder_bytes(each.folder) > each.limits.folder_bytes for each in watched):
                raise LimitExceeded(
                    f"wrote more than {process.limits.folder_bytes} bytes of files, or where they cannot be counted"
                )


def folder_bytes(folder: str) -> int:
    """Measure what a folder and all in it take on the disk, while somebody may be writing there."""
    total, folders = 0, [folder]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    total += max(ENTRY_BYTES, entry.stat(follow_symlinks=False).st_blocks * 512)
                    folders += [entry.path] if entry.is_dir(follow_symlinks=False) else []
        except FileNotFoundError:
            continue
        except OSError:  # a path too long to be followed, or one that was closed to us
            return sys.maxsize
    return total


@contextlib.contextmanager
def _temporary_folder() -> Iterator[str]:
    with temporary_folder("fusion-sandbox-") as folder:
        yield str(folder)


def _command(part: str, folder: str, limits: Limits, bwrap: str | None) -> list[str]:
    python = [sys.executable, "-I", str(CHILD), part]
    if bwrap is None:
        return python
    seen = [argument for path in readable() for argument in ("--ro-bind", path, path)]
    devices = [argument for path in DEVICES for argument in ("--dev-bind", path, path)]
    own = ["--proc", "/proc", "--size", str(limits.folder_bytes), "--tmpfs", folder, "--remount-ro", "/"]
    return [
        bwrap,
        "--unshare-all",
        "--die-with-parent",
        "--cap-drop",
        "ALL",
        *seen,
        *devices,
        *own,
        "--chdir",
        folder,
        *python,
    ]


@cache
def readable() -> list[str]:
    """List what a program may read: the system's libraries, and this Python with what is installed for it."""
    python = [sys.prefix, sys.base_prefix, *site.getsitepackages(), str(CHILD.parent)]
    paths = [*SYSTEM, *SYSTEM_FILES, *python, *map(os.path.realpath, python)]
    return [path for path in dict.fromkeys(paths) if os.path.exists(path)]  # noqa: PTH110


def _environment(folder: str) -> dict[str, str]:
    """Nothing of ours: no keys, no paths; one thread for numerical libraries."""
    return {"PATH": os.defpath, "HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8"} | {
        f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")
    }


def probe(bwrap: str | None) -> bytes:
    """Run a process that only says what contains it, in bubblewrap or not; empty where that fails."""
    with _temporary_folder() as folder, subprocess.Popen(
        _command("probe", folder, Limits(), bwrap), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, cwd=folder, env=_environment(folder), start_new_session=True, bufsize=0,
    ) as popen:  # fmt: skip
        send_task(popen, {}, folder, Limits(), in_bubblewrap=bwrap is not None)
        return popen.communicate()[0]


@cache
def bubblewrap() -> str | None:
    """Find the program `bwrap`, where it is installed and allowed to make namespaces; tried out once."""
    bwrap = shutil.which("bwrap")
    return bwrap if bwrap and probe(bwrap) else None
