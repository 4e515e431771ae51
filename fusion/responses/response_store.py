"""Values by prompt on disk: shards of JSON lines, written over any number of attempts by any number of processes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fusion.runtime.artifacts import claim_artifact, fingerprint, is_complete, mark_complete, write_text


class ResponseStore:
    """Writes and reads a folder of JSON values by prompt id, such as the responses of one source.

    `key` is everything that the values depend on, without the ids; `shard_size` the number of ids in a file; `redo` the command
    that error messages name. Raises ValueError when the folder was written with another key.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any], ids: Sequence[str], *, shard_size: int, redo: str):
        self.folder, self.shard_size = folder, shard_size
        self.ids = sorted(set(ids))
        self.key = store_key(key, self.ids, shard_size)
        self.shards = max(1, -(-len(self.ids) // shard_size))
        claim_artifact(folder, self.key, redo)

    @property
    def is_complete(self) -> bool:
        """Whether all shards are written and the folder is marked as complete."""
        return is_complete(self.folder)

    @property
    def written(self) -> int:
        """Number of the ids whose values are there."""
        return len(self.ids) - sum(len(self.shard_ids(number)) for number in self.missing())

    def missing(self, among: Sequence[int] | None = None) -> list[int]:
        """Numbers of the shards that are not written yet, of all or of those `among`."""
        return [n for n in (range(self.shards) if among is None else among) if not self._is_written(n)]

    def _is_written(self, number: int) -> bool:
        """Whether a shard is there and has a line for each of its ids; one that was cut off is written again."""
        file, lines = self._file(number), len(self.shard_ids(number))
        return file.is_file() and file.read_bytes().count(b"\n") == lines

    def shard_ids(self, number: int) -> list[str]:
        """Ids whose values belong in shard `number`, in order."""
        return self.ids[number * self.shard_size : (number + 1) * self.shard_size]

    def write(self, number: int, values: Sequence[Any]) -> None:
        """Write shard `number`: one value for each of `shard_ids(number)`."""
        lines = [json.dumps([id, value]) for id, value in zip(self.shard_ids(number), values, strict=True)]
        write_text(self._file(number), "".join(f"{line}\n" for line in lines))

    def finalize(self) -> ResponseStore:
        """Mark the folder as complete, if it is not yet. Raises ValueError when a shard is missing."""
        if missing := self.missing():
            raise ValueError(f"{self.folder}: shards {missing} of {self.shards} are not written yet.")
        mark_complete(self.folder)
        return self

    def read(self) -> dict[str, Any]:
        """Read all values by id."""
        files = [self._file(n).read_text() for n in range(self.shards)]
        return dict(json.loads(line) for text in files for line in text.split("\n") if line)

    def _file(self, number: int) -> Path:
        return self.folder / f"shard-{number:05d}-of-{self.shards:05d}.jsonl"


def store_key(key: Mapping[str, Any], ids: Sequence[str], shard_size: int) -> dict[str, Any]:
    """Add to `key` a fingerprint of the ids, in whatever order they come, and the size of a shard."""
    return {**key, "prompts": fingerprint({"ids": sorted(set(ids))}), "shard": shard_size}
