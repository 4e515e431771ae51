"""A cache folder: shards of safetensors, what made them, and a manifest that is written last.

<folder>/key.json                          what made the rows; written first, so that a half-made cache knows itself
         shard-00000-of-00003.safetensors  rows of consecutive examples; each written aside and renamed
         manifest.json                     which example lies where, checksums; its presence means: complete
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from fusion.cache import sampled_entries
from fusion.cache.codec import decode, encode
from fusion.cache.known_fields import KnownFields, count_known_fields
from fusion.core.rows import LogitRows
from fusion.runtime.artifacts import claim, fingerprint, write_json

FORMAT = 3
INDEX_TENSORS = ("rows", "entries", "known")  # besides rows: how many each example has, how many entries a row, `known`


class CacheWriter:
    """Fills a cache folder shard by shard, in any order, over any number of attempts.

    `key` is all that made the rows, without the examples; `ids` names the examples (their content ids). Sorting them frees
    the cache from the order of the data. Token ids are below `vocabulary`. Raises ValueError when the folder holds
    something made otherwise.
    """

    def __init__(
        self,
        folder: Path,
        key: Mapping[str, Any],
        ids: Sequence[str],
        shard: int,
        values: str = "packed",
        *,
        vocabulary: int,
    ):
        self.folder, self.values, self.shard, self.vocabulary = folder, values, shard, vocabulary
        self.ids = sorted(set(ids))
        self.key = full_key(key, self.ids, values, shard, vocabulary)
        self.artifact_key = fingerprint(self.key)
        self.shards = max(1, -(-len(self.ids) // shard))
        claim(folder, self.key, "fusion extract")

    @property
    def is_complete(self) -> bool:
        """Whether the manifest is there."""
        return (self.folder / "manifest.json").exists()

    def missing(self, among: Sequence[int] | None = None) -> list[int]:
        """Numbers of the shards still to be written; of those `among`, if given."""
        return [n for n in (range(self.shards) if among is None else among) if not self._is_written(self._file(n))]

    def examples(self, number: int) -> list[str]:
        """Ids of the examples whose rows belong in shard `number`."""
        return self.ids[number * self.shard : (number + 1) * self.shard]

    def write(self, number: int, rows: LogitRows) -> None:
        """Write shard `number`; `rows.example` counts from 0 along `examples(number)`, and no example may lack rows."""
        counts = torch.bincount(rows.example, minlength=len(self.examples(number))).tolist()
        index = {
            "rows": torch.tensor(counts, dtype=torch.int32),
            "entries": torch.tensor(rows.k),
            "known": count_known_fields(rows),
        }
        target = self._file(number)
        aside = target.with_suffix(f".{uuid4().hex[:8]}.part")  # its own, should two processes be at the same shard
        save_file(encode(rows, self.values, self.vocabulary) | index, aside, metadata={"made": self.artifact_key})
        aside.replace(target)

    def finalize(self) -> Cache:
        """Write the manifest, if it is not there, and open the cache. Raises ValueError when a shard is missing."""
        if self.is_complete:
            return Cache(self.folder)
        if missing := self.missing():
            raise ValueError(f"{self.folder}: shards {missing} of {self.shards} are not written yet.")
        shards = []
        for n in range(self.shards):
            with safe_open(self._file(n), "pt") as shard:
                facts = {name: shard.get_tensor(name).tolist() for name in INDEX_TENSORS}
                facts |= {"drawn": True} if "unique" in shard.keys() else {}  # noqa: SIM118  (it has no __contains__)
            shards.append({"file": self._file(n).name, **facts, "sha256": _sha256(self._file(n))})
        if len(entries := {shard["entries"] for shard in shards}) > 1:
            raise ValueError(
                f"{self.folder}: shards keep {sorted(entries)} entries a row, and all should keep the same."
            )
        write_json(self.folder / "manifest.json", {"key": self.key, "ids": self.ids, "shards": shards})
        return Cache(self.folder)

    def _file(self, number: int) -> Path:
        return self.folder / f"shard-{number:05d}-of-{self.shards:05d}.safetensors"

    def _is_written(self, file: Path) -> bool:
        if not file.exists():
            return False
        with safe_open(file, "pt") as shard:
            return (shard.metadata() or {}).get("made") == self.artifact_key


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
        self.artifact_key = fingerprint(self.key)
        self._shards = manifest["shards"]
        self.entries: int = self._shards[0]["entries"]
        self.is_sampled: bool = self._shards[0].get("drawn", False)
        self.known_fields = KnownFields.from_shards([shard["known"] for shard in self._shards])
        self._starts = [[0, *itertools.accumulate(shard["rows"])] for shard in self._shards]
        self._location = {id: (i // self.key["shard"], i % self.key["shard"]) for i, id in enumerate(manifest["ids"])}
        self._open: dict[int, Any] = {}

    def __len__(self) -> int:
        """Rows in all."""
        return sum(starts[-1] for starts in self._starts)

    @property
    def ids(self) -> list[str]:
        """Content ids of the examples, in the order of the file."""
        return list(self._location)

    @property
    def num_examples(self) -> int:
        """How many examples the rows belong to."""
        return len(self._location)

    @property
    def size_in_bytes(self) -> int:
        """Bytes on disk."""
        return sum(file.stat().st_size for file in self.folder.glob("shard-*.safetensors"))

    @property
    def hidden_size(self) -> int | None:
        """Of the hidden states that it keeps; None where it keeps none."""
        file, _ = self._shard(0)
        return file.get_slice("hidden").get_shape()[1] if "hidden" in file.keys() else None  # noqa: SIM118 (no mapping)

    def rows(self, ids: Sequence[str], hidden: bool = False) -> LogitRows:
        """Rows of these examples, one example after another, numbered from 0 in `example`. KeyError names an absent one.

        Hidden states, which take most of the bytes, are read only where they are asked for.
        """
        leave = INDEX_TENSORS if hidden else (*INDEX_TENSORS, "hidden")
        parts = [(number, self._read(id, leave)) for number, id in enumerate(ids)]
        alike = itertools.groupby(
            parts, key=lambda part: part[1].keys()
        )  # shards differ where one keeps its prefixes apart
        rows = LogitRows.cat([self._decode(list(group)) for _, group in alike])
        if not self.is_sampled:
            return rows
        logprobs, token_ids, counts = sampled_entries.decode([tensors for _, tensors in parts], self.key["vocabulary"])
        return dataclasses.replace(rows, logprobs=logprobs, ids=token_ids, sample_counts=counts)

    def verify(self) -> None:
        """Compare every shard with its checksum; ValueError names the first that differs."""
        for shard in self._shards:
            file = self.folder / shard["file"]
            if not file.exists() or _sha256(file) != shard["sha256"]:
                raise ValueError(f"{file} is damaged or missing. Delete {self.folder} and run `fusion extract` again.")

    def _decode(self, parts: Sequence[tuple[int, dict[str, Tensor]]]) -> LogitRows:
        """Rows of examples that are stored alike: number and tensors of each."""
        names = [name for name in parts[0][1] if name not in sampled_entries.TENSORS]
        tensors = {name: torch.cat([part[name] for _, part in parts]) for name in names}
        counts = torch.tensor([len(part[names[0]]) for _, part in parts])
        example = torch.tensor([number for number, _ in parts]).repeat_interleave(counts)
        return decode(tensors, example, 0 if self.is_sampled else self.entries, self.key["vocabulary"])

    def _read(self, id: str, leave: Sequence[str]) -> dict[str, Tensor]:
        if id not in self._location:
            raise KeyError(f"{self.folder} has no rows of example {id}; it holds {len(self._location)} others.")
        shard, place = self._location[id]
        start, end = self._starts[shard][place : place + 2]
        file, entries = self._shard(shard)
        rows, ragged = slice(start, end), slice(int(entries[start]), int(entries[end])) if len(entries) else None
        names = [name for name in sorted(file.keys()) if name not in leave]
        return {name: file.get_slice(name)[ragged if name in sampled_entries.RAGGED else rows] for name in names}

    def _opened(self, shard: int) -> tuple[Any, Tensor]:
        """The file, and where the drawn entries of each row begin in it."""
        file = safe_open(self.folder / self._shards[shard]["file"], "pt").__enter__()
        unique = file.get_tensor("unique").long() if self.is_sampled else None
        return file, torch.empty(0) if unique is None else torch.cat([unique.new_zeros(1), unique.cumsum(0)])

    def _shard(self, number: int) -> tuple[Any, Tensor]:
        if number not in self._open:
            self._open[number] = self._opened(number)
        return self._open[number]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}}  # open files stay behind when a worker is started


def full_key(key: Mapping[str, Any], ids: Sequence[str], values: str, shard: int, vocabulary: int) -> dict[str, Any]:
    """`key` with the examples and the settings of the store."""
    store = {"values": values, "shard": shard, "vocabulary": vocabulary, "format": FORMAT}
    return {**key, "examples": fingerprint({"ids": list(ids)}), **store}


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
