"""A cache folder: its key, shards of safetensors, and a manifest that is written last.

<folder>/key.json                          everything the rows depend on; written first, so that an incomplete cache has it
         shard-00000-of-00003.safetensors  rows of consecutive examples; each written to a temporary file and renamed
         manifest.json                     the location of each example, checksums; its presence means: complete
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fusion.cache import sampled_entries
from fusion.cache.codec import decode, encode
from fusion.cache.known_fields import KnownFields, count_known_fields
from fusion.cache.shard_claims import remove_claims
from fusion.core.finite import row_fault
from fusion.core.rows import LogitRows
from fusion.core.text_files import read_object
from fusion.runtime.artifacts import claim_artifact, fingerprint, write_json
from fusion.runtime.syncing import sync
from fusion.runtime.unfinished import unfinished_file

FORMAT = 4
INDEX_TENSORS = ("rows", "entries", "known")
"""Tensors of a shard that describe it: rows of each example, entries of a row, and `count_known_fields`."""


class CacheWriter:
    """Writes a cache folder shard by shard, in any order, over any number of attempts.

    `key` is everything that the rows depend on besides the examples; `ids` are the content ids of the examples, which are
    sorted so that the cache does not depend on the order of the data. `shard_size` is the number of examples per shard,
    `value_format` is packed, float16 or float32, and token ids are below `vocabulary`. Raises ValueError where the folder has
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
    ):
        self.folder, self.value_format, self.shard_size, self.vocabulary = folder, value_format, shard_size, vocabulary
        self.ids = sorted(set(ids))
        self.key = full_key(key, self.ids, value_format, shard_size, vocabulary=vocabulary)
        self.artifact_key = fingerprint(self.key)
        self.shards = max(1, -(-len(self.ids) // shard_size))
        claim_artifact(folder, self.key, "fusion extract")
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
        with unfinished_file(target) as aside:  # its name is unique, should two processes write the same shard
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
            shards.append({"file": self._file(n).name, **index, "sha256": _sha256(self._file(n))})
        if len(entries := {shard["entries"] for shard in shards}) > 1:
            raise ValueError(
                f"{self.folder}: shards keep {sorted(entries)} entries a row, and all should keep the same."
            )
        manifest = {"key": self.key, "ids": self.ids, "shards": shards}
        write_json(self.folder / "manifest.json", manifest | {"checksum": fingerprint(manifest)})
        return Cache(self.folder)

    def _refuse_damaged(self, number: int, shard: Any) -> None:
        """Delete a shard whose bytes are not those that were written, and raise ValueError."""
        tensors = {name: shard.get_tensor(name) for name in shard.keys()}  # noqa: SIM118  (no mapping)
        if shard.metadata() != self._mark(tensors):
            self._file(number).unlink()
            raise ValueError(
                f"{self._file(number)} was damaged after it was written, and is deleted. Run `fusion extract` again: it is "
                "read anew."
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


def open_shard(file: Path) -> Any:
    """Open a shard. Raises ValueError, with the way out, for one that is absent or damaged."""
    try:
        return safe_open(file, "pt")
    except (SafetensorError, FileNotFoundError) as error:
        raise ValueError(
            f"{file} is absent or damaged ({error}). Delete {file.parent} and run `fusion extract` again."
        ) from error


def _manifest(folder: Path) -> dict[str, Any]:
    """What manifest.json says of a cache. Raises ValueError for one that is damaged."""
    way_out = f"delete {folder} and run `fusion extract` again"
    manifest = read_object(folder / "manifest.json", way_out)
    checksum = manifest.pop("checksum", None)
    if checksum != fingerprint(manifest):
        raise ValueError(f"{folder / 'manifest.json'} is not as it was written; {way_out}.")
    key, ids, shards = (manifest.get(name) for name in ("key", "ids", "shards"))
    if not isinstance(key, dict) or not isinstance(ids, list) or not _are_shards(shards, len(ids)):
        raise ValueError(f"{folder / 'manifest.json'} does not say what each shard holds; {way_out}.")
    if key.get("examples") != fingerprint({"ids": ids}):
        raise ValueError(f"{folder / 'manifest.json'} lists other examples than the cache was made for; {way_out}.")
    return manifest


def _are_shards(shards: Any, examples: int) -> bool:
    """Whether these are the shards of a manifest, with the rows of so many examples."""
    forms = {"file": str, "entries": int, "rows": list, "known": list}
    if not isinstance(shards, list) or not shards or not all(isinstance(shard, dict) for shard in shards):
        return False
    if not all(isinstance(shard.get(name), form) for shard in shards for name, form in forms.items()):
        return False
    rows = [count for shard in shards for count in shard["rows"]]
    return len(rows) == examples and all(isinstance(count, int) and count >= 0 for count in rows)


class Cache:
    """The rows of one model on some examples, read from a folder example by example. Safe in forked data workers.

    cache = fusion.Cache(Path("runs/mine/cache/coder"))
    rows = cache.rows([example.id])
    """

    def __init__(self, folder: Path):
        """Open the folder of a complete cache. Raises ValueError for one that is unfinished or damaged."""
        self.folder = folder
        if not (folder / "manifest.json").exists():
            raise ValueError(
                f"{folder} holds no complete cache (no manifest.json). Run `fusion extract` to make or finish it."
            )
        manifest = _manifest(folder)
        self.key: dict[str, Any] = manifest["key"]
        self.artifact_key = fingerprint(self.key)
        self._shards = manifest["shards"]
        self.entries: int = self._shards[0]["entries"]  # of each row, empty ones included
        self.is_sampled: bool = self._shards[0].get("drawn", False)
        self.known_fields = KnownFields.from_shards([shard["known"] for shard in self._shards])
        self._starts = [[0, *itertools.accumulate(shard["rows"])] for shard in self._shards]
        size = self.key["shard_size"]
        self._location = {id: (i // size, i % size) for i, id in enumerate(manifest["ids"])}
        self._open: dict[int, Any] = {}

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
        file, _ = self._shard(0)
        return file.get_slice("hidden").get_shape()[1] if "hidden" in file.keys() else None  # noqa: SIM118 (no mapping)

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
                f"{self.folder}: in example {ids[fault.example]} {fault}. Delete {self.folder} and run `fusion extract` again, "
                "which says where the model goes wrong."
            )
        return rows

    def verify(self) -> None:
        """Compare every shard with its checksum. Raises ValueError, which names the first that differs."""
        for shard in self._shards:
            file = self.folder / shard["file"]
            if not file.exists() or _sha256(file) != shard["sha256"]:
                raise ValueError(f"{file} is damaged or missing. Delete {self.folder} and run `fusion extract` again.")

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
        file, entries = self._shard(shard)
        rows, ragged = slice(start, end), slice(int(entries[start]), int(entries[end])) if len(entries) else None
        names = [name for name in sorted(file.keys()) if name not in skipped]
        return {name: file.get_slice(name)[ragged if name in sampled_entries.RAGGED else rows] for name in names}

    def _opened(self, shard: int) -> tuple[Any, Tensor]:
        """Open a shard; return its file and the start of each row's sampled entries in it."""
        file = open_shard(self.folder / self._shards[shard]["file"]).__enter__()
        unique = file.get_tensor("unique").long() if self.is_sampled else None
        return file, torch.empty(0) if unique is None else torch.cat([unique.new_zeros(1), unique.cumsum(0)])

    def _shard(self, number: int) -> tuple[Any, Tensor]:
        if number not in self._open:
            self._open[number] = self._opened(number)
        return self._open[number]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}}  # open files stay behind when a worker is started


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


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
