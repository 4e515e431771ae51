"""Weight files that have their full size from the start, are filled in place, and remember what is settled on disk."""

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

from fusion.merging.files.checkpoint import INDEX, SINGLE
from fusion.merging.files.mapped import WIDTHS

SHARD_BYTES = 5 * 10**9
"""Largest file written; a larger single tensor gets its own."""
SETTLE_BYTES = 256 << 20
"""After so many bytes the disk is waited for, in the background, and the tensors among them need not be merged again."""
JOURNAL = "settled.jsonl"


@dataclass(frozen=True)
class Spec:
    """A tensor to be written: its name, its type in safetensors' letters, its shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Its size on disk."""
        return torch.Size(self.shape).numel() * WIDTHS[self.dtype]


@dataclass
class Output:
    """The weights of a model folder while they are written. Threads may write at once."""

    folder: Path
    files: list[tuple[str, list[Spec]]]
    settled: set[str]
    """Tensors that an earlier process has finished."""
    _places: dict[str, tuple[int, int]] = field(default_factory=dict)
    _handles: list[int] = field(default_factory=list)
    _waiting: list[str] = field(default_factory=list)
    _bytes: int = 0
    _pending: list[Future[None]] = field(default_factory=list)

    @staticmethod
    def open(folder: Path, specs: Sequence[Spec], made_from: dict[str, Any]) -> Output:
        """Go on with what a killed merge of exactly this has left in `folder`, or start afresh.

        Raises OSError where the disk has no room for it.
        """
        files = shards(specs)
        journal, first = folder / JOURNAL, json.dumps(made_from, sort_keys=True)
        lines = journal.read_text().split("\n")[:-1] if journal.is_file() else []  # the last line may be cut off
        if not lines or lines[0] != first:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            _refuse_full_disk(folder, sum(spec.bytes for spec in specs))
            lines = [first]
            journal.write_text(first + "\n")
        output = Output(folder, files, set(lines[1:]))
        for name, inside in files:
            output._create(name, inside)
        return output

    def write(self, name: str, start: int, values: Tensor) -> None:
        """Put `values` into the tensor `name` from its entry `start` on; they have its type already."""
        handle, offset = self._places[name]
        data = values.contiguous().view(torch.uint8).numpy().data
        offset += start * values.element_size()
        while data:  # a single call writes 2 GB at most
            written = os.pwrite(handle, data, offset)
            data, offset = data[written:], offset + written

    def finish(self, spec: Spec) -> None:
        """Say that a tensor is complete."""
        self._waiting.append(spec.name)
        self._bytes += spec.bytes
        if self._bytes >= SETTLE_BYTES:
            self._settle_later()

    def __enter__(self) -> Output:
        self._disk = ThreadPoolExecutor(1)
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        """Wait for the disk; what was finished is settled also where an error or a signal ends the merge."""
        try:
            self._settle_later()
            for pending in self._pending:
                pending.result()
        finally:
            self._disk.shutdown()
            for handle in self._handles:
                os.close(handle)

    def seal(self) -> None:
        """Write the index, where there are several files, and take the journal away."""
        if len(self.files) > 1:
            total = sum(spec.bytes for _, inside in self.files for spec in inside)
            places = {spec.name: name for name, inside in self.files for spec in inside}
            index = {"metadata": {"total_size": total}, "weight_map": places}
            (self.folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")
        (self.folder / JOURNAL).unlink()

    def _create(self, name: str, inside: Sequence[Spec]) -> None:
        header, offsets = _header(inside)
        handle = os.open(self.folder / name, os.O_RDWR | os.O_CREAT, 0o666)
        self._handles.append(handle)
        os.pwrite(handle, header, 0)
        os.ftruncate(handle, len(header) + sum(spec.bytes for spec in inside))
        for spec, offset in zip(inside, offsets, strict=True):
            self._places[spec.name] = handle, len(header) + offset

    def _settle_later(self) -> None:
        names, self._waiting, self._bytes = self._waiting, [], 0
        self._pending.append(self._disk.submit(self._settle, names))

    def _settle(self, names: list[str]) -> None:
        for handle in self._handles:
            os.fsync(handle)
        with (self.folder / JOURNAL).open("a") as journal:
            journal.write("".join(f"{name}\n" for name in names))
            journal.flush()
            os.fsync(journal.fileno())


def shards(specs: Sequence[Spec]) -> list[tuple[str, list[Spec]]]:
    """File names and what each holds, in order."""
    parts: list[list[Spec]] = [[]]
    for spec in specs:
        if parts[-1] and sum(other.bytes for other in parts[-1]) + spec.bytes > SHARD_BYTES:
            parts.append([])
        parts[-1].append(spec)
    if len(parts) == 1:
        return [(SINGLE, parts[0])]
    return [(f"model-{i:05}-of-{len(parts):05}.safetensors", part) for i, part in enumerate(parts, start=1)]


def _header(specs: Sequence[Spec]) -> tuple[bytes, list[int]]:
    """The head of a safetensors file, and where each tensor begins behind it."""
    described: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offsets, at = [], 0
    for spec in specs:
        offsets.append(at)
        described[spec.name] = {"dtype": spec.dtype, "shape": spec.shape, "data_offsets": [at, at + spec.bytes]}
        at += spec.bytes
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, offsets


def _refuse_full_disk(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            f"{folder.parent} has {free / 1e9:.1f} GB free, the merged model takes {needed / 1e9:.1f} GB; "
            "free some, or choose another --out."
        )
