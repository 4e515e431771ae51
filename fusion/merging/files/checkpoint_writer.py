"""Writes weight files in place, at full size from the start, with a journal of the tensors that are safely on disk."""

from __future__ import annotations

import json
import os
import shutil
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

    @staticmethod
    def open(folder: Path, specs: Sequence[TensorSpec], merge_key: dict[str, Any]) -> CheckpointWriter:
        """Resume in `folder` what was written under the same `merge_key`, or start afresh.

        Raises OSError where the disk has no room for it.
        """
        files = split_into_shards(specs)
        journal, first = folder / JOURNAL, json.dumps(merge_key, sort_keys=True)
        lines = journal.read_text().split("\n")[:-1] if journal.is_file() else []  # the last line may be cut off
        if not lines or lines[0] != first:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            _check_disk_space(folder, sum(spec.num_bytes for spec in specs))
            lines = [first]
            journal.write_text(first + "\n")
        writer = CheckpointWriter(folder, files, set(lines[1:]))
        for name, in_file in files:
            writer._create(name, in_file)
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
        """Write the index, where there are several files, and remove the journal; called when all tensors are written."""
        if len(self.files) > 1:
            total = sum(spec.num_bytes for _, in_file in self.files for spec in in_file)
            weight_map = {spec.name: name for name, in_file in self.files for spec in in_file}
            index = {"metadata": {"total_size": total}, "weight_map": weight_map}
            (self.folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")
        (self.folder / JOURNAL).unlink()

    def _create(self, name: str, specs: Sequence[TensorSpec]) -> None:
        header, offsets = _header(specs)
        handle = os.open(self.folder / name, os.O_RDWR | os.O_CREAT, 0o666)
        self._handles.append(handle)
        os.pwrite(handle, header, 0)
        os.ftruncate(handle, len(header) + sum(spec.num_bytes for spec in specs))
        for spec, offset in zip(specs, offsets, strict=True):
            self._locations[spec.name] = handle, len(header) + offset

    def _sync_in_background(self) -> None:
        names, self._written, self._written_bytes = self._written, [], 0
        self._pending.append(self._sync_executor.submit(self._sync, names))

    def _sync(self, names: list[str]) -> None:
        for handle in self._handles:
            os.fsync(handle)
        with (self.folder / JOURNAL).open("a") as journal:
            journal.write("".join(f"{name}\n" for name in names))
            journal.flush()
            os.fsync(journal.fileno())


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


def _check_disk_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            f"{folder.parent} has {free / 1e9:.1f} GB free, the merged model takes {needed / 1e9:.1f} GB; "
            "free some, or choose another --out."
        )
