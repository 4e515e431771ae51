"""Several processes write the shards of one folder: each claims the next unclaimed shard until none is missing.

A shard is claimed by a file lock on one byte of the file `claims`. The operating system releases a lock when its process ends,
however it ends, so a process that dies loses the shard it was writing and no more, and another claims it at once. Processes
need no communication: they may be started by one launcher or several, on all machines that share the folder, and in another
number after every restart. Where a file system has no locks, shards are written twice at worst, with equal bytes.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

from fusion.runtime.console import show
from fusion.runtime.locks import LockHolder
from fusion.runtime.unfinished import remove_abandoned

try:
    import fcntl
except ImportError:  # Windows: no claims, as on a file system without locks
    fcntl = None

Content = TypeVar("Content", contravariant=True)
Artifact = TypeVar("Artifact", covariant=True)
CLAIMED_ELSEWHERE = {errno.EACCES, errno.EAGAIN}
HOLDER_BYTES = 256
"""Room for the holder of each claim in the file, in the order of the shards."""
SECONDS_BETWEEN_NOTES = 60.0


@runtime_checkable
class ShardedArtifact(Protocol[Content, Artifact]):
    """A folder that is written shard by shard, in any order, with equal settings in all processes; see `CacheWriter`."""

    folder: Path
    shards: int
    """Number of shards."""

    def missing(self, among: Sequence[int] | None = None) -> list[int]:
        """Return the numbers of the shards not written yet; among those given, if any are."""
        ...

    def write(self, number: int, content: Content, /) -> None:
        """Write shard `number`."""
        ...

    def finalize(self) -> Artifact:
        """Mark the folder complete, unless it is, and open it."""
        ...


def write_missing_shards(
    writer: ShardedArtifact[Content, Artifact],
    make_content: Callable[[int], Content],
    on_written_elsewhere: Callable[[int], None] = lambda _: None,
    pause: float = 0.5,
) -> Artifact:
    """Write shards until none is missing, wait for those that other processes write, and finalize the folder.

    `make_content` returns the content of a shard by its number; `on_written_elsewhere` is called with each shard that
    another process wrote. `pause` is the time between polls, in seconds. While nothing is left but to wait, it is said once a
    minute for whom. All claims end with this call, also where it raises.
    """
    with closing(ShardClaims(writer.folder)) as claims:
        missing, wait = writer.missing(), _Wait(claims, pause)
        while missing:
            claimed = next((number for number in missing if claims.claim(number)), None)
            if claimed is None:
                wait.pause(missing[0])
            elif writer.missing([claimed]):  # it may have been written between `missing` and the claim
                writer.write(claimed, make_content(claimed))
                missing.remove(claimed)
            if claimed is not None:
                claims.release(claimed)
                wait.restart()
            before, missing = missing, writer.missing(missing)
            for number in before:
                if number not in missing:
                    on_written_elsewhere(number)
        while not claims.claim(writer.shards):
            wait.pause(writer.shards)
        artifact = writer.finalize()
        remove_abandoned(writer.folder)
        claims.path.unlink(missing_ok=True)
        return artifact


class ShardClaims:
    """The claims of this process on the shards of a folder; two objects in one process do not exclude each other."""

    def __init__(self, folder: Path):
        self.path = folder / "claims"
        self.handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)

    def claim(self, number: int) -> bool:
        """Claim shard `number`, unless another process has it, and return whether it succeeded."""
        if fcntl is None:
            return True
        try:
            fcntl.lockf(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
        except OSError as error:
            return error.errno not in CLAIMED_ELSEWHERE
        holder = json.dumps(asdict(LockHolder.current())).encode().ljust(HOLDER_BYTES)
        with suppress(OSError):  # of a full disk: whoever waits is told of "another process"
            os.pwrite(self.handle, holder, number * HOLDER_BYTES)
        return True

    def holder(self, number: int) -> LockHolder | str:
        """Return who claimed shard `number` last."""
        try:
            return LockHolder(**json.loads(os.pread(self.handle, HOLDER_BYTES, number * HOLDER_BYTES)))
        except (ValueError, TypeError, OSError):
            return "another process"

    def release(self, number: int) -> None:
        """Release the claim on shard `number`."""
        if fcntl is not None:
            with suppress(OSError):  # there was no lock
                fcntl.lockf(self.handle, fcntl.LOCK_UN, 1, number)

    def close(self) -> None:
        """Release all claims of this process."""
        os.close(self.handle)


def remove_claims(folder: Path) -> None:
    """Remove the claims of a complete folder, which a process left that died behind the last shard, unless one is held."""
    if fcntl is None or not (folder / "claims").is_file():
        return
    with closing(ShardClaims(folder)) as claims, suppress(OSError):  # somebody has one, or there are no locks
        fcntl.lockf(claims.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        claims.path.unlink(missing_ok=True)


class _Wait:
    """Waits for shards that others write, and says so from time to time."""

    def __init__(self, claims: ShardClaims, seconds: float):
        self.claims, self.seconds = claims, seconds
        self.restart()

    def restart(self) -> None:
        """Begin to count the time until it is said."""
        self.since = time.monotonic()

    def pause(self, number: int) -> None:
        """Wait a moment for shard `number`."""
        time.sleep(self.seconds)
        if time.monotonic() - self.since >= SECONDS_BETWEEN_NOTES:
            self.restart()
            what, holder = self.claims.path.parent, self.claims.holder(number)
            show(
                [
                    f"{what}: waiting for shard {number}, claimed by {holder}; if it hangs, end it, and this process goes on."
                ]
            )
