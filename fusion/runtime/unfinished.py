"""Files and folders that are written beside what they become, and what a dead process left of them.

Each has a token, a file NAME.HOST-RANDOM.part that its process keeps locked from before there is anything to remove until there
is nothing any more; of a file it is the file itself, of a folder a file beside it. The operating system releases the lock when
the process ends, however it ends. So a token of this machine whose lock can be had is a dead process's, whatever its age, and
nothing is said of tokens of other machines: not every file system passes locks on.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from uuid import uuid4

try:
    import fcntl
except ImportError:  # Windows: no locks, and nothing is removed
    fcntl = None

PART = ".part"
OPEN = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0)


def host() -> str:
    """Return 8 hex digits for the name of this machine."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


@contextmanager
def unfinished_file(target: Path) -> Iterator[Path]:
    """Yield an empty file beside `target`, to be written and renamed; it is removed afterwards where it is still there.

    It must be written as it is. A library that puts another file in its place, as safetensors does, takes the lock away with
    it: give that one `unfinished_path`.
    """
    with _token(target.parent, f"{target.name}.") as token:
        yield token


@contextmanager
def unfinished_path(target: Path) -> Iterator[Path]:
    """Yield a path beside `target` where there is nothing, for a folder, file or link to be made there and renamed.

    Both names are hidden. What is still there afterwards is removed.
    """
    with _token(target.parent, f".{target.name}.") as token:
        path = token.with_suffix("")
        try:
            yield path
        finally:
            _remove(path)


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """Yield a new folder that only this user may read, and remove it afterwards, with those of dead processes before."""
    place = Path(os.path.realpath(tempfile.gettempdir()))
    _remove_abandoned_once(place, prefix)
    with _token(place, prefix) as token:
        folder = token.with_suffix("")
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            _remove(folder)


def remove_abandoned(folder: Path, prefix: str = "") -> None:
    """Remove what dead processes of this machine left unfinished in `folder`, not below it, under names with that prefix."""
    for token in folder.glob(f"{prefix}*{host()}-*{PART}"):
        _remove_if_abandoned(token)


@cache
def _remove_abandoned_once(folder: Path, prefix: str) -> None:
    remove_abandoned(folder, prefix)  # programs are graded by the thousand, each in a folder of its own


def remove_abandoned_below(folder: Path) -> None:
    """Remove what dead processes of this machine left unfinished in `folder` and all folders in it."""
    for place, _, files in os.walk(folder):
        for name in files:
            if name.endswith(PART) and f"{host()}-" in name:
                _remove_if_abandoned(Path(place, name))


@contextmanager
def _token(folder: Path, prefix: str) -> Iterator[Path]:
    """Hold a new file while the body runs."""
    handle, token = _new_token(folder, prefix)
    try:
        yield token
    finally:
        token.unlink(missing_ok=True)  # before the lock goes: nobody else finds it then
        os.close(handle)


def _new_token(folder: Path, prefix: str) -> tuple[int, Path]:
    while True:
        token = folder / f"{prefix}{host()}-{uuid4().hex[:8]}{PART}"
        handle = os.open(token, OPEN | os.O_CREAT | os.O_EXCL, 0o666)
        if not _is_held_elsewhere(handle, token):
            return handle, token
        os.close(handle)  # another process took it for a dead one's, before it was locked


def _is_held_elsewhere(handle: int, token: Path) -> bool:
    """Lock a file of ours; whether somebody else has it, or has removed it. Where there are no locks nobody has."""
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return not _is_open_at(handle, token)


def _remove_if_abandoned(token: Path) -> None:
    try:
        handle = os.open(token, OPEN)
    except OSError:  # it is gone, or another user's
        return
    try:
        if _is_abandoned(handle) and _is_open_at(handle, token):
            _remove(token.with_suffix(""))
            token.unlink(missing_ok=True)
    finally:
        os.close(handle)


def _is_abandoned(handle: int) -> bool:
    """Whether a token's lock can be had: never where there are no locks."""
    if fcntl is None or os.fstat(handle).st_uid != os.geteuid():
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_open_at(handle: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), file.lstat())
    except FileNotFoundError:
        return False


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink(missing_ok=True)
    else:
        with suppress(OSError, RecursionError):
            shutil.rmtree(path)
        if path.exists():  # thousands of folders in each other, as a program that is graded may make them
            subprocess.run(["rm", "-rf", path], check=False, stderr=subprocess.DEVNULL)
