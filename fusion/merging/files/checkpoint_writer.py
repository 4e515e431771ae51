"""Writes weight files in place, at full size from the start, with a journal of the tensors that are safely on disk."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fusion.merging.files.safetensors_file import DTYPE_BYTES
from fusion.models.checkpoint_files import INDEX, SINGLE
from fusion.runtime.syncing import sync

SHARD_BYTES = 5 * 10**9
"""Largest file written; a larger single tensor gets its own."""
SYNC_BYTES = 256 << 20
"""After so many bytes files are synced, in the background; a merge that is killed then need not repeat their tensors."""
JOURNAL = "synced.jsonl"
"""The first line says which merge this is, the others name tensors that are on disk."""


@dataclass(frozen=True)
class TensorSpec:
    """A tensor to be written: its name, its type as safetensors names it, its shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Size on disk."""
        return torch.Size(self.shape).numel() * DTYPE_BYTES[self.dtype]


@dataclass
class CheckpointWriter:
    """The weights of a model folder while they are written; a context manager. Several threads may write at once."""

    folder: Path
    files: list[tuple[str, list[TensorSpec]]]
    synced: set[str]
    """Tensors that an earlier process has written and synced."""
    _locations: dict[str, tuple[int, int]] = field(default_factory=dict)
    _handles: list[int] = field(default_factory=list)
    _written: list[str] = field(default_factory=list)
    _written_bytes: int = 0
    _pending: list[Future[None]] = field(default_factory=list)
    _sync_failed: bool = False

    @staticmethod
    def open(folder: Path, specs: Sequence[TensorSpec], merge_key: dict[str, Any]) -> CheckpointWriter:
        """Resume in `folder` what `can_resume`, or start in one that is empty or not there."""
        files, synced = split_into_shards(specs), synced_tensors(folder)
        if not synced:
            folder.mkdir(exist_ok=True)
            (folder / JOURNAL).write_text(_first_line(merge_key) + "\n")
        writer = CheckpointWriter(folder, files, synced)
        for name, in_file in files:
            writer._create(name, in_file)
        sync(folder)
        return writer

    def write(self, name: str, start: int, values: Tensor) -> None:
        """Write `values`, which have the tensor's type, into the tensor `name` from its entry `start` on."""
        handle, offset = self._locations[name]
        data = values.contiguous().view(torch.uint8).numpy().data
        offset += start * values.element_size()
        while data:  # one call writes at most 2 GB
            written = os.pwrite(handle, data, offset)
            data, offset = data[written:], offset + written

    def mark_written(self, spec: TensorSpec) -> None:
        """Note that a tensor is complete, and sync the files where enough has been written."""
        self._written.append(spec.name)
        self._written_bytes += spec.num_bytes
        for sync_done in [pending for pending in self._pending if pending.done()]:
            sync_done.result()  # raises now what the disk refused, not after all else is merged
        if self._written_bytes >= SYNC_BYTES:
            self._sync_in_background()

    def __enter__(self) -> CheckpointWriter:
        self._sync_executor = ThreadPoolExecutor(1)
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        """Sync what was written, also where an error or a signal ends the merge, and close the files."""
        try:
            self._sync_in_background()
            for pending in self._pending:
                pending.result()
        finally:
            self._sync_executor.shutdown()
            for handle in self._handles:
                os.close(handle)

    def write_index(self) -> None:
        """Write the index, where there are several files; called when all tensors are written."""
        if len(self.files) > 1:
            total = sum(spec.num_bytes for _, in_file in self.files for spec in in_file)
            weight_map = {spec.name: name for name, in_file in self.files for spec in in_file}
            index = {"metadata": {"total_size": total}, "weight_map": weight_map}
            (self.folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")

    def _create(self, name: str, specs: Sequence[TensorSpec]) -> None:
        header, offsets = _header(specs)
        handle = os.open(self.folder / name, os.O_RDWR | os.O_CREAT, 0o666)
        self._handles.append(handle)
        os.pwrite(handle, header, 0)
        os.ftruncate(handle, _file_size(specs))
        for spec, offset in zip(specs, offsets, strict=True):
            self._locations[spec.name] = handle, len(header) + offset

    def _sync_in_background(self) -> None:
        names, self._written, self._written_bytes = self._written, [], 0
        self._pending.append(self._sync_executor.submit(self._sync, names))

    def _sync(self, names: list[str]) -> None:
        if self._sync_failed:  # what it could not write the system has dropped, and the next sync would succeed without
            return
        self._sync_failed = True
        for handle in self._handles:
            os.fsync(handle)
        with (self.folder / JOURNAL).open("a") as journal:
            journal.write("".join(f"{name}\n" for name in names))
            journal.flush()
            os.fsync(journal.fileno())
        self._sync_failed = False


def can_resume(folder: Path, specs: Sequence[TensorSpec], merge_key: dict[str, Any]) -> bool:
    """Whether `folder` holds weights begun under the same `merge_key`, in files that still have their sizes."""
    journal = folder / JOURNAL
    if not journal.is_file() or not journal.read_text().startswith(_first_line(merge_key) + "\n"):
        return False
    return all(
        (folder / name).is_file() and (folder / name).stat().st_size == _file_size(in_file)
        for name, in_file in split_into_shards(specs)
    )


def synced_tensors(folder: Path) -> set[str]:
    """Names of the tensors that the journal in `folder` says are on disk."""
    journal = folder / JOURNAL
    return set(journal.read_text().split("\n")[1:-1]) if journal.is_file() else set()  # the last line may be cut off


def split_into_shards(specs: Sequence[TensorSpec]) -> list[tuple[str, list[TensorSpec]]]:
    """Distribute tensors, in order, over files of at most SHARD_BYTES: file names, and the tensors of each."""
    shards: list[list[TensorSpec]] = [[]]
    for spec in specs:
        if shards[-1] and sum(other.num_bytes for other in shards[-1]) + spec.num_bytes > SHARD_BYTES:
            shards.append([])
        shards[-1].append(spec)
    if len(shards) == 1:
        return [(SINGLE, shards[0])]
    return [(f"model-{i:05}-of-{len(shards):05}.safetensors", shard) for i, shard in enumerate(shards, start=1)]


def _first_line(merge_key: dict[str, Any]) -> str:
    return json.dumps(merge_key, sort_keys=True)


def _file_size(specs: Sequence[TensorSpec]) -> int:
    return len(_header(specs)[0]) + sum(spec.num_bytes for spec in specs)


def _header(specs: Sequence[TensorSpec]) -> tuple[bytes, list[int]]:
    """The header of a safetensors file, and the offset of each tensor behind it."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offsets, end = [], 0
    for spec in specs:
        offsets.append(end)
        header[spec.name] = {"dtype": spec.dtype, "shape": spec.shape, "data_offsets": [end, end + spec.num_bytes]}
        end += spec.num_bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, offsets
