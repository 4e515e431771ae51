"""Several processes write the shards of one folder: each claims the next unclaimed shard until none is missing.

A shard is claimed by a file lock on one byte of the file `claims`. The operating system releases a lock when its process ends,
however it ends, so a process that dies loses the shard it was writing and no more, and another claims it at once. Processes
need no communication: they may be started by one launcher or several, on all machines that share the folder, and in another
number after every restart. Where a file system has no locks, shards are written twice at worst, with equal bytes.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

try:
    import fcntl
except ImportError:  # Windows: no claims, as on a file system without locks
    fcntl = None

Content = TypeVar("Content", contravariant=True)
Artifact = TypeVar("Artifact", covariant=True)
CLAIMED_ELSEWHERE = {errno.EACCES, errno.EAGAIN}


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
    another process wrote. `pause` is the time between polls, in seconds.
    """
    claims, missing = ShardClaims(writer.folder), writer.missing()
    while missing:
        claimed = next((number for number in missing if claims.claim(number)), None)
        if claimed is None:
            time.sleep(pause)
        elif writer.missing([claimed]):  # it may have been written between `missing` and the claim
            writer.write(claimed, make_content(claimed))
            missing.remove(claimed)
        if claimed is not None:
            claims.release(claimed)
        before, missing = missing, writer.missing(missing)
        for number in before:
            if number not in missing:
                on_written_elsewhere(number)
    claims.claim(writer.shards, wait=True)
    artifact = writer.finalize()
    for leftover in (*writer.folder.glob("*.part"), claims.path):  # of processes that died, and of all claims
        leftover.unlink(missing_ok=True)
    claims.close()
    return artifact


class ShardClaims:
    """The claims of this process on the shards of a folder; two objects in one process do not exclude each other."""

    def __init__(self, folder: Path):
        self.path = folder / "claims"
        self.file = self.path.open("ab")

    def claim(self, number: int, wait: bool = False) -> bool:
        """Claim shard `number` and return whether it succeeded; with `wait`, block until no other process has it."""
        if fcntl is None:
            return True
        try:
            fcntl.lockf(self.file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, number)
        except OSError as error:
            return error.errno not in CLAIMED_ELSEWHERE
        return True

    def release(self, number: int) -> None:
        """Release the claim on shard `number`."""
        if fcntl is not None:
            with suppress(OSError):  # there was no lock
                fcntl.lockf(self.file, fcntl.LOCK_UN, 1, number)

    def close(self) -> None:
        """Release all claims of this process."""
        self.file.close()
