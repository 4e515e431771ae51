"""A cache folder: shards of safetensors, what made them, and a manifest that is written last.

<folder>/key.json                          what made the rows; written first, so that a half-made cache knows itself
         shard-00000-of-00003.safetensors  rows of consecutive examples; each written aside and renamed
         manifest.json                     which example lies where, checksums; its presence means: complete
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from fusion.cache.codec import decode, encode
from fusion.made import claim, fingerprint, write_json
from fusion.rows import LogitRows

FORMAT = 1


class Writer:
    """Fills a cache folder shard by shard, in any order, over any number of attempts.

    `key` is all that made the rows, without the examples; `ids` names the examples (their content ids). Sorting them frees
    the cache from the order of the data. Raises ValueError when the folder holds something made otherwise.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any], ids: Sequence[str], shard: int, values: str = "float16"):
        self.folder, self.values, self.shard = folder, values, shard
        self.ids = sorted(set(ids))
        self.key = full_key(key, self.ids, values, shard)
        self.made = fingerprint(self.key)
        self.shards = max(1, -(-len(self.ids) // shard))
        claim(folder, self.key, "fusion extract")

    @property
    def complete(self) -> bool:
        """Whether the manifest is there."""
        return (self.folder / "manifest.json").exists()

    def missing(self) -> list[int]:
        """Numbers of the shards still to be written."""
        return [n for n in range(self.shards) if not self._whole(self._file(n))]

    def examples(self, number: int) -> list[str]:
        """Ids of the examples whose rows belong in shard `number`."""
        return self.ids[number * self.shard : (number + 1) * self.shard]

    def write(self, number: int, rows: LogitRows) -> None:
        """Write shard `number`; `rows.example` counts from 0 along `examples(number)`, and no example may lack rows."""
        counts = torch.bincount(rows.example, minlength=len(self.examples(number))).tolist()
        tensors = encode(rows, self.values) | {"rows": torch.tensor(counts, dtype=torch.int32)}
        target = self._file(number)
        aside = target.with_suffix(".part")
        save_file(tensors, aside, metadata={"made": self.made})
        aside.replace(target)

    def finish(self) -> Cache:
        """Write the manifest and open the cache. Raises ValueError when a shard is missing."""
        if missing := self.missing():
            raise ValueError(f"{self.folder}: shards {missing} of {self.shards} are not written yet.")
        shards = []
        for n in range(self.shards):
            with safe_open(self._file(n), "pt") as shard:
                rows = shard.get_tensor("rows").tolist()
            shards.append({"file": self._file(n).name, "rows": rows, "sha256": _sha256(self._file(n))})
        write_json(self.folder / "manifest.json", {"key": self.key, "ids": self.ids, "shards": shards})
        return Cache(self.folder)

    def _file(self, number: int) -> Path:
        return self.folder / f"shard-{number:05d}-of-{self.shards:05d}.safetensors"

    def _whole(self, file: Path) -> bool:
        if not file.exists():
            return False
        with safe_open(file, "pt") as shard:
            return (shard.metadata() or {}).get("made") == self.made


class Cache:
    """A complete cache, read example by example without loading the rest. Safe to use in forked data workers."""

    def __init__(self, folder: Path):
        self.folder = folder
        if not (folder / "manifest.json").exists():
            raise ValueError(
                f"{folder} holds no complete cache (no manifest.json). Run `fusion extract` to make or finish it."
            )
        manifest = json.loads((folder / "manifest.json").read_text())
        self.key: dict[str, Any] = manifest["key"]
        self.made = fingerprint(self.key)
        self._shards = manifest["shards"]
        self._starts = [[0, *accumulate(shard["rows"])] for shard in self._shards]
        self._place = {id: (i // self.key["shard"], i % self.key["shard"]) for i, id in enumerate(manifest["ids"])}
        self._open: dict[int, Any] = {}

    def __len__(self) -> int:
        """Rows in all."""
        return sum(starts[-1] for starts in self._starts)

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(file.stat().st_size for file in self.folder.glob("shard-*.safetensors"))

    def rows(self, ids: Sequence[str]) -> LogitRows:
        """Rows of these examples, one example after another, numbered from 0 in `example`. KeyError names an absent one."""
        return LogitRows.cat([self._read(id, number) for number, id in enumerate(ids)])

    def verify(self) -> None:
        """Compare every shard with its checksum; ValueError names the first that differs."""
        for shard in self._shards:
            file = self.folder / shard["file"]
            if not file.exists() or _sha256(file) != shard["sha256"]:
                raise ValueError(f"{file} is damaged or missing. Delete {self.folder} and run `fusion extract` again.")

    def _read(self, id: str, number: int) -> LogitRows:
        if id not in self._place:
            raise KeyError(f"{self.folder} has no rows of example {id}; it holds {len(self._place)} others.")
        shard, place = self._place[id]
        start, end = self._starts[shard][place : place + 2]
        if shard not in self._open:
            self._open[shard] = safe_open(self.folder / self._shards[shard]["file"], "pt").__enter__()
        example = torch.full((end - start,), number)
        return decode(lambda name: self._open[shard].get_slice(name)[start:end], example)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}}  # open files stay behind when a worker is started


def full_key(key: Mapping[str, Any], ids: Sequence[str], values: str, shard: int) -> dict[str, Any]:
    """`key` with the examples and the settings of the store."""
    return {**key, "examples": fingerprint({"ids": list(ids)}), "values": values, "shard": shard, "format": FORMAT}


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
