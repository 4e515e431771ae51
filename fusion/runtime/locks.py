"""Locks on what one process at a time may write; who comes second learns who holds it.

A lock is a file beside what it guards, locked by the operating system, which releases it when its process ends, however it
ends: what a dead process leaves blocks nobody. While it is held the file names its holder.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from fusion.runtime.console import show

try:
    import fcntl
except ImportError:  # Windows: no locks, as on a file system without them
    fcntl = None

HELD_ELSEWHERE = {errno.EACCES, errno.EAGAIN}
SECONDS_BETWEEN_NOTES = 60.0
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
_held: set[tuple[int, Path]] = set()
"""Locks of this process, each with the thread that holds it, which may enter its own again."""


@dataclass(frozen=True)
class LockHolder:
    """The process that holds a lock."""

    pid: int
    host: str
    since: str
    """Local time when it got the lock, with the offset from UTC."""

    @staticmethod
    def current() -> LockHolder:
        """This process, now."""
        return LockHolder(os.getpid(), socket.gethostname(), datetime.now().astimezone().isoformat(" ", "seconds"))

    @staticmethod
    def read(handle: int) -> LockHolder | None:
        """Return whom an open lock file names, or None where it is empty. Raises ValueError where it is no lock of ours."""
        text = os.pread(handle, 4096, 0)
        return LockHolder(**json.loads(text)) if text else None

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"


@contextmanager
def exclusive(lock: Path, guarded: str, *, wait: bool = False) -> Iterator[None]:
    """Hold the file `lock` while the body runs; it and the folders that are made for it go afterwards, if they are empty.

    The thread that holds a lock may enter it again. `guarded` is what messages call the thing that is locked. Raises
    BlockingIOError, naming the holder, where another process or thread has it, or with `wait` waits for its end and says once
    a minute for whom; FileExistsError where a file of that name is no lock.
    """
    holder = threading.get_ident(), lock
    if holder in _held:
        yield
        return
    made = [folder for folder in lock.parents if not folder.exists()]
    try:
        with _locked(lock, guarded, wait):
            _held.add(holder)
            try:
                yield
            finally:
                _held.discard(holder)
    finally:
        for folder in made:
            with suppress(OSError):  # there is something in it now
                folder.rmdir()


@contextmanager
def _locked(lock: Path, guarded: str, wait: bool) -> Iterator[None]:
    handle = _acquire_in_time(lock, guarded) if wait else _acquire(lock, guarded)
    try:
        with suppress(OSError):  # of a full disk: whoever comes second is then told of "another process"
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps(asdict(LockHolder.current())).encode(), 0)
        yield
    finally:
        lock.unlink(missing_ok=True)  # before it is released: afterwards it may be another's
        os.close(handle)


def _acquire_in_time(lock: Path, guarded: str) -> int:
    said = time.monotonic()
    while True:
        try:
            return _acquire(lock, guarded)
        except BlockingIOError as error:
            if time.monotonic() - said >= SECONDS_BETWEEN_NOTES:
                said = time.monotonic()
                show(
                    [
                        f"{str(error).partition(';')[0]}: waiting until that ends. If it hangs, end it, and this one goes on."
                    ]
                )
        time.sleep(0.5)


def _acquire(lock: Path, guarded: str) -> int:
    while True:
        handle = _open(lock, guarded)
        try:
            _lock(handle, lock, guarded)
            if _is_open_at(handle, lock):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # whoever held it has removed it since


def _open(lock: Path, guarded: str) -> int:
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        # a link is not followed: what it leads to would be overwritten
        return os.open(lock, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    except OSError as error:
        if lock.is_symlink():
            raise FileExistsError(f"{lock} is there and is no lock of fusion; move it away.") from error
        raise OSError(error.errno, error.strerror, guarded) from error


def _lock(handle: int, lock: Path, guarded: str) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in HELD_ELSEWHERE:
            holder = _wait_for_holder(handle, lock)
            raise BlockingIOError(f"{guarded} is being written by {holder}; wait until that ends.") from None
        if error.errno not in NO_LOCKS:
            raise
        show([f"{lock.parent} has no file locks: see to it that nothing else writes {guarded} meanwhile."])
    _wait_for_holder(handle, lock, tries=1)  # whose file it is, before anything is written into it


def _wait_for_holder(handle: int, lock: Path, tries: int = 20) -> LockHolder | str:
    """Return who holds the lock; its name is written a moment after it is locked."""
    for _ in range(tries):
        try:
            if (holder := LockHolder.read(handle)) is not None:
                return holder
        except (ValueError, TypeError):  # not JSON, or other keys
            raise FileExistsError(f"{lock} is there and is no lock of fusion; move it away.") from None
        time.sleep(0.05 if tries > 1 else 0)
    return "another process"


def _is_open_at(handle: int, file: Path) -> bool:
    """Whether the open file is the one that has this path now."""
    try:
        return os.path.samestat(os.fstat(handle), file.stat())
    except FileNotFoundError:
        return False
