"""A folder of JSON lines by example id, in shards: made over any number of attempts, by any number of processes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fusion.runtime.artifacts import claim, fingerprint, finish, write_text


class Lines:
    """Fills and reads a folder. `key` is all that made the values, without the ids.

    Raises ValueError when the folder holds something made otherwise.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any], ids: Sequence[str], shard: int, redo: str):
        self.folder, self.shard = folder, shard
        self.ids = sorted(set(ids))
        self.key = keyed(key, self.ids, shard)
        self.shards = max(1, -(-len(self.ids) // shard))
        claim(folder, self.key, redo)

    @property
    def complete(self) -> bool:
        """Whether all is there."""
        return (self.folder / "done.json").exists()

    def missing(self, among: Sequence[int] | None = None) -> list[int]:
        """Numbers of the shards still to be written; of those `among`, if given."""
        return [n for n in (range(self.shards) if among is None else among) if not self._file(n).exists()]

    def examples(self, number: int) -> list[str]:
        """Ids whose values belong in shard `number`."""
        return self.ids[number * self.shard : (number + 1) * self.shard]

    def write(self, number: int, values: Sequence[Any]) -> None:
        """Write shard `number`: one value for each of `examples(number)`."""
        lines = [json.dumps([id, value]) for id, value in zip(self.examples(number), values, strict=True)]
        write_text(self._file(number), "".join(f"{line}\n" for line in lines))

    def finish(self) -> Lines:
        """Mark the folder as whole, if it is not yet. Raises ValueError when a shard is missing."""
        if missing := self.missing():
            raise ValueError(f"{self.folder}: shards {missing} of {self.shards} are not written yet.")
        finish(self.folder)
        return self

    def read(self) -> dict[str, Any]:
        """All values by id."""
        files = [self._file(n).read_text() for n in range(self.shards)]
        return dict(json.loads(line) for text in files for line in text.split("\n") if line)

    def _file(self, number: int) -> Path:
        return self.folder / f"shard-{number:05d}-of-{self.shards:05d}.jsonl"


def keyed(key: Mapping[str, Any], ids: Sequence[str], shard: int) -> dict[str, Any]:
    """`key` with the ids, each once, in whatever order they come, and how they are laid out."""
    return {**key, "prompts": fingerprint({"ids": sorted(set(ids))}), "shard": shard}
