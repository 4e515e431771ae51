"""A cache folder: its key, shards of safetensors, and a manifest that is written last.

<folder>/key.json                          everything the rows depend on; written first, so that an incomplete cache has it
         shard-00000-of-00003.safetensors  rows of consecutive examples; each written to a temporary file and renamed
         manifest.json                     the location of each example, checksums; its presence means: complete
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fusion.cache import sampled_entries
from fusion.cache.codec import decode
from fusion.cache.known_fields import KnownFields
from fusion.core.finite import row_fault
from fusion.core.rows import LogitRows
from fusion.core.text_files import read_object
from fusion.runtime.artifacts import fingerprint

INDEX_TENSORS = ("rows", "entries", "known")
"""Tensors of a shard that describe it: rows of each example, entries of a row, and `count_known_fields`."""

REDO = "`fusion extract` again (for a cache of rounds: `fusion rounds`)"
"""The command that makes a cache again."""


class Cache:
    """The rows of one model on some examples, read from a folder example by example.

        cache = fusion.Cache(Path("runs/mine/cache/coder"))
        rows = cache.rows([example.id])

    Several data workers (forked processes) may read one cache.
    """

    def __init__(self, folder: Path | str):
        """Open the folder of a complete cache. Raises ValueError for one that is unfinished or damaged."""
        self.folder = folder = Path(folder)
        if not (folder / "manifest.json").exists():
            raise ValueError(
                f"{folder} holds no complete cache (no manifest.json). Run `fusion extract` to make or finish it."
            )
        manifest = _manifest(folder)
        self.key: dict[str, Any] = manifest["key"]
        self.artifact_key = fingerprint(self.key)
        self.tokenizer: dict[str, str] = manifest.get(
            "tokenizer", {}
        )  # empty in caches of before, which did not keep it
        self._shards = manifest["shards"]
        self.entries: int = self._shards[0]["entries"]  # of each row, empty ones included
        self.is_sampled: bool = self._shards[0].get("drawn", False)
        self.known_fields = KnownFields.from_shards([shard["known"] for shard in self._shards])
        self._starts = [[0, *itertools.accumulate(shard["rows"])] for shard in self._shards]
        size = self.key["shard_size"]
        self._location = {id: (i // size, i % size) for i, id in enumerate(manifest["ids"])}
        self._open: dict[int, tuple[dict[str, Tensor], Tensor]] = {}

    def __len__(self) -> int:
        """Return the number of rows."""
        return sum(starts[-1] for starts in self._starts)

    @property
    def ids(self) -> list[str]:
        """Content ids of the examples, in the order of the files."""
        return list(self._location)

    @property
    def num_examples(self) -> int:
        """Number of examples."""
        return len(self._location)

    @property
    def size_in_bytes(self) -> int:
        """Size of the shards on disk, in bytes."""
        return sum(file.stat().st_size for file in self.folder.glob("shard-*.safetensors"))

    @property
    def hidden_size(self) -> int | None:
        """Width of the cached hidden states; None where there are none."""
        tensors, _ = self._shard(0)
        return tensors["hidden"].shape[1] if "hidden" in tensors else None

    def __contains__(self, id: str) -> bool:
        """Return whether it has rows of an example."""
        return id in self._location

    def rows(self, ids: Sequence[str], hidden: bool = False) -> LogitRows:
        """Return the rows of these examples, one example after another, numbered from 0 in `example`.

        Hidden states, which take most of the bytes, are read only with `hidden=True`. Raises KeyError for an absent example,
        ValueError for rows that are no numbers.
        """
        skipped = INDEX_TENSORS if hidden else (*INDEX_TENSORS, "hidden")
        parts = [(number, self._read(id, skipped)) for number, id in enumerate(ids)]
        groups = itertools.groupby(
            parts, key=lambda part: part[1].keys()
        )  # shards differ where one has a separate tensor of prefixes
        rows = LogitRows.cat([self._decode(list(group)) for _, group in groups])
        if self.is_sampled:
            logprobs, token_ids, counts = sampled_entries.decode([each for _, each in parts], self.key["vocabulary"])
            rows = dataclasses.replace(rows, logprobs=logprobs, ids=token_ids, sample_counts=counts)
        if (fault := row_fault(rows)) is not None:
            raise ValueError(
                f"{self.folder}: in example {ids[fault.example]} {fault}. Delete {self.folder} and run {REDO}, "
                "which says where the model goes wrong."
            )
        return rows

    def verify(self) -> None:
        """Compare every shard with its checksum. Raises ValueError, which names the first that differs."""
        for shard in self._shards:
            file = self.folder / shard["file"]
            if not file.exists() or sha256_of(file) != shard["sha256"]:
                raise ValueError(f"{file} is damaged or missing. Delete {self.folder} and run {REDO}.")

    def _decode(self, parts: Sequence[tuple[int, dict[str, Tensor]]]) -> LogitRows:
        """Decode examples whose shards have the same tensors; `parts` are number and tensors of each."""
        names = [name for name in parts[0][1] if name not in sampled_entries.TENSORS]
        tensors = {name: torch.cat([part[name] for _, part in parts]) for name in names}
        counts = torch.tensor([len(part[names[0]]) for _, part in parts])
        example = torch.tensor([number for number, _ in parts]).repeat_interleave(counts)
        return decode(tensors, example, 0 if self.is_sampled else self.entries, self.key["vocabulary"])

    def _read(self, id: str, skipped: Sequence[str]) -> dict[str, Tensor]:
        if id not in self._location:
            raise KeyError(f"{self.folder} has no rows of example {id}; it holds {len(self._location)} others.")
        shard, position = self._location[id]
        start, end = self._starts[shard][position : position + 2]
        tensors, entries = self._shard(shard)
        rows, ragged = slice(start, end), slice(int(entries[start]), int(entries[end])) if len(entries) else None
        return {
            name: tensor[ragged if name in sampled_entries.RAGGED else rows]
            for name, tensor in tensors.items()
            if name not in skipped
        }

    def _opened(self, shard: int) -> tuple[dict[str, Tensor], Tensor]:
        """Map a shard; return its tensors, read where they are looked at, and the start of each row's sampled entries.

        Slices by safetensors, hundreds a batch, took more than half of the time that reading it takes.
        """
        with open_shard(self.folder / self._shards[shard]["file"]) as file:
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
        unique = tensors["unique"].long() if self.is_sampled else None
        return tensors, torch.empty(0) if unique is None else torch.cat([unique.new_zeros(1), unique.cumsum(0)])

    def _shard(self, number: int) -> tuple[dict[str, Tensor], Tensor]:
        if number not in self._open:
            self._open[number] = self._opened(number)
        return self._open[number]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}}  # open shards stay behind when a worker is started


def open_shard(file: Path) -> Any:
    """Open a shard. Raises ValueError, with the way out, for one that is absent or damaged."""
    try:
        return safe_open(file, "pt")
    except (SafetensorError, FileNotFoundError) as error:
        raise ValueError(f"{file} is absent or damaged ({error}). Delete {file.parent} and run {REDO}.") from error


def _manifest(folder: Path) -> dict[str, Any]:
    """What manifest.json says of a cache. Raises ValueError for one that is not as it was written."""
    way_out = f"delete {folder} and run {REDO}"
    manifest = read_object(folder / "manifest.json", way_out)
    if manifest.pop("checksum", None) != manifest_checksum(manifest):
        raise ValueError(f"{folder / 'manifest.json'} is not as it was written; {way_out}.")
    return manifest


def manifest_checksum(manifest: Mapping[str, Any]) -> str:
    """Return 16 hex digits that tell whether a manifest is as it was written, whatever may be in it now."""
    text = json.dumps(manifest, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file's contents, in hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
