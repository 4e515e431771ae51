"""Writes a cache folder; see `store` for what lies in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors.torch import save_file
from torch import Tensor

from fusion.cache.codec import encode
from fusion.cache.known_fields import count_known_fields
from fusion.cache.shard_claims import remove_claims
from fusion.cache.store import INDEX_TENSORS, REDO, Cache, manifest_checksum, open_shard, sha256_of
from fusion.core.finite import row_fault
from fusion.core.rows import LogitRows
from fusion.runtime.artifacts import claim_artifact, fingerprint, write_json
from fusion.runtime.syncing import sync
from fusion.runtime.unfinished import unfinished_path

FORMAT = 4


class CacheWriter:
    """Writes a cache folder shard by shard, in any order, over any number of attempts.

    `key` is everything that the rows depend on besides the examples; `ids` are the content ids of the examples, which are
    sorted so that the cache does not depend on the order of the data. `shard_size` is the number of examples per shard,
    `value_format` is packed, float16 or float32, token ids are below `vocabulary`, `tokenizer` is the identity of the tokenizer
    that they are of, and `redo` is the command that makes the cache again, for messages. Raises ValueError where the folder has
    another key.
    """

    def __init__(
        self,
        folder: Path,
        key: Mapping[str, Any],
        ids: Sequence[str],
        shard_size: int,
        value_format: str = "packed",
        *,
        vocabulary: int,
        tokenizer: Mapping[str, str] | None = None,
        redo: str = "fusion extract",
    ):
        self.folder, self.value_format, self.shard_size, self.vocabulary = folder, value_format, shard_size, vocabulary
        self.ids, self.tokenizer = sorted(set(ids)), dict(tokenizer or {})
        self.key = full_key(key, self.ids, value_format, shard_size, vocabulary=vocabulary)
        self.artifact_key = fingerprint(self.key)
        self.shards = max(1, -(-len(self.ids) // shard_size))
        claim_artifact(folder, self.key, redo)
        if self.is_complete:
            remove_claims(folder)

    @property
    def is_complete(self) -> bool:
        """Whether all shards and the manifest are written."""
        return (self.folder / "manifest.json").exists()

    def missing(self, among: Sequence[int] | None = None) -> list[int]:
        """Return the numbers of the shards not written yet; among those given, if any are."""
        return [n for n in (range(self.shards) if among is None else among) if not self._is_written(self._file(n))]

    def examples(self, number: int) -> list[str]:
        """Return the ids of the examples of shard `number`."""
        return self.ids[number * self.shard_size : (number + 1) * self.shard_size]

    def write(self, number: int, rows: LogitRows) -> None:
        """Write shard `number`; `rows.example` counts from 0 along `examples(number)`, and no example may lack rows.

        Raises ValueError for rows that are no numbers.
        """
        if (fault := row_fault(rows)) is not None:
            raise ValueError(
                f"{self.folder}: in example {self.examples(number)[fault.example]} {fault}, so that no cache can be made of "
                "these rows. Choose another dtype, such as float32, or leave the example or the model out."
            )
        counts = torch.bincount(rows.example, minlength=len(self.examples(number))).tolist()
        index = {
            "rows": torch.tensor(counts, dtype=torch.int32),
            "entries": torch.tensor(rows.k),
            "known": count_known_fields(rows),
        }
        target = self._file(number)
        tensors = encode(rows, self.value_format, self.vocabulary) | index
        with unfinished_path(target) as aside:  # its name is unique, should two processes write the same shard
            save_file(tensors, aside, metadata=self._mark(tensors))
            sync(aside)  # or a power cut may leave the name without the contents
            aside.replace(target)
            sync(target.parent)

    def finalize(self) -> Cache:
        """Write the manifest, unless it is there, and open the cache. Raises ValueError when a shard is missing."""
        if self.is_complete:
            return Cache(self.folder)
        if missing := self.missing():
            raise ValueError(f"{self.folder}: shards {missing} of {self.shards} are not written yet.")
        shards = []
        for n in range(self.shards):
            with open_shard(self._file(n)) as shard:
                self._refuse_damaged(n, shard)
                index = {name: shard.get_tensor(name).tolist() for name in INDEX_TENSORS}
                index |= {"drawn": True} if "unique" in shard.keys() else {}  # noqa: SIM118  (it has no __contains__)
            shards.append({"file": self._file(n).name, **index, "sha256": sha256_of(self._file(n))})
        if len(entries := {shard["entries"] for shard in shards}) > 1:
            raise ValueError(
                f"{self.folder}: shards keep {sorted(entries)} entries a row, and all should keep the same."
            )
        # not in the key, which says what the rows depend on: caches of before, which lack it, are gone on with
        manifest = {"key": self.key, "ids": self.ids, "shards": shards, "tokenizer": self.tokenizer}
        write_json(self.folder / "manifest.json", manifest | {"checksum": manifest_checksum(manifest)})
        return Cache(self.folder)

    def _refuse_damaged(self, number: int, shard: Any) -> None:
        """Delete a shard whose bytes are not those that were written, and raise ValueError."""
        tensors = {name: shard.get_tensor(name) for name in shard.keys()}  # noqa: SIM118  (no mapping)
        if shard.metadata() != self._mark(tensors):
            self._file(number).unlink()
            raise ValueError(
                f"{self._file(number)} was damaged after it was written, and is deleted. Run {REDO}: it is read anew."
            )

    def _mark(self, tensors: Mapping[str, Tensor]) -> dict[str, str]:
        """What made a shard, and a checksum; one entry, for safetensors writes several in any order."""
        return {"made": f"{self.artifact_key}:{_hash_of(tensors)}"}

    def _file(self, number: int) -> Path:
        return self.folder / f"shard-{number:05d}-of-{self.shards:05d}.safetensors"

    def _is_written(self, file: Path) -> bool:
        try:
            with open_shard(file) as shard:
                return (shard.metadata() or {}).get("made", "").partition(":")[0] == self.artifact_key
        except ValueError:  # absent, or cut off
            return False


def full_key(
    key: Mapping[str, Any], ids: Sequence[str], value_format: str, shard_size: int, *, vocabulary: int
) -> dict[str, Any]:
    """Return `key` with the fingerprint of the examples and the settings of the files, as in key.json."""
    store = {"value_format": value_format, "shard_size": shard_size, "vocabulary": vocabulary, "format": FORMAT}
    return {**key, "examples": fingerprint({"ids": list(ids)}), **store}


def _hash_of(tensors: Mapping[str, Tensor]) -> str:
    """XXH3 of names, types, shapes and values."""
    digest = xxhash.xxh3_128()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
