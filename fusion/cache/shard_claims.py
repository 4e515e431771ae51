"""Many processes, one cache: each takes the next shard that nobody has, until none is missing.

A shard is claimed by a lock on one byte of the file `claims`. The operating system gives a lock back when its process ends,
however it ends, so a process that dies loses the shard it was at and no more, and another takes it up at once. The processes
need not know each other: they may come from one launcher or from several, from one machine or from all that share the folder,
and be another number after every restart. Where a file system has no locks, shards are made twice at worst, with equal bytes.
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
Artifact = TypeVar("Whole", covariant=True)
CLAIMED_ELSEWHERE = {errno.EACCES, errno.EAGAIN}


@runtime_checkable
class ShardedArtifact(Protocol[Content, Artifact]):
    """A folder that is written shard by shard, in any order; its settings are equal in all processes that write it."""

    folder: Path
    shards: int
    """How many there are."""

    def missing(self, among: Sequence[int] | None = None) -> list[int]:
        """Numbers of the shards still to be written; of those `among`, if given."""
        ...

    def write(self, number: int, content: Content, /) -> None:
        """Write shard `number`."""
        ...

    def finalize(self) -> Artifact:
        """Mark the folder as whole, if it is not yet, and open it."""
        ...


def write_missing_shards(
    writer: ShardedArtifact[Content, Artifact],
    make_content: Callable[[int], Content],
    on_written_elsewhere: Callable[[int], None] = lambda _: None,
    pause: float = 0.5,
) -> Artifact:
    """Write shards until none is missing, wait for those that other processes are at, and mark the folder as whole.

    `make` gives the content of a shard by its number; `elsewhere` hears of each shard that another process wrote. `pause` is
    in seconds, between looks at what the others have done.
    """
    claims, left = ShardClaims(writer.folder), writer.missing()
    while left:
        mine = next((number for number in left if claims.claim(number)), None)
        if mine is None:
            time.sleep(pause)
        elif writer.missing([mine]):  # it may have been written between the look and the claim
            writer.write(mine, make_content(mine))
            left.remove(mine)
        if mine is not None:
            claims.release(mine)
        before, left = left, writer.missing(left)
        for number in before:
            if number not in left:
                on_written_elsewhere(number)
    claims.claim(writer.shards, wait=True)
    whole = writer.finalize()
    for leftover in (*writer.folder.glob("*.part"), claims.path):  # of processes that died, and of all claims
        leftover.unlink(missing_ok=True)
    claims.close()
    return whole


class ShardClaims:
    """The claims of this process on the numbers of a folder's shards. Two objects of one process do not see each other's."""

    def __init__(self, folder: Path):
        self.path = folder / "claims"
        self.file = self.path.open("ab")

    def claim(self, number: int, wait: bool = False) -> bool:
        """Whether `number` is now claimed by this process; with `wait`, once nobody else claims it."""
        if fcntl is None:
            return True
        try:
            fcntl.lockf(self.file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, number)
        except OSError as error:
            return error.errno not in CLAIMED_ELSEWHERE
        return True

    def release(self, number: int) -> None:
        """End the claim on `number`."""
        if fcntl is not None:
            with suppress(OSError):  # there was no lock
                fcntl.lockf(self.file, fcntl.LOCK_UN, 1, number)

    def close(self) -> None:
        """End all claims of this process."""
        self.file.close()
