"""A safetensors file mapped into memory: entries are read where they lie, and given back when they have been used."""

from __future__ import annotations

import json
import mmap
import struct
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import UInt8
from safetensors import SafetensorError, safe_open
from torch import Tensor

FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
WIDTHS = {
    "BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "U16": 2, "I32": 4, "U32": 4, "I64": 8, "U64": 8, "F16": 2, "BF16": 2, "F32": 4,
    "F64": 8,
}  # fmt: skip
"""Bytes of a value of every type that can be merged or must be equal."""


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies, and what it is; `dtype` in safetensors' letters, such as BF16."""

    file: Mapped
    dtype: str
    shape: tuple[int, ...]
    start: int
    """Its first byte in the file."""

    @property
    def floating(self) -> bool:
        """Whether the tensor is merged; integers and booleans have to be equal everywhere."""
        return self.dtype in FLOATS

    @property
    def kind(self) -> torch.dtype:
        """Of a floating tensor, its dtype in torch."""
        return FLOATS[self.dtype]

    @property
    def size(self) -> int:
        """Number of values."""
        return torch.Size(self.shape).numel()

    def read(self, start: int, stop: int) -> Tensor:
        """Floating values `start` to `stop` of the flat tensor; a view of the file where its alignment allows."""
        raw = self.raw(start, stop)
        return (raw if raw.storage_offset() % self.kind.itemsize == 0 else raw.clone()).view(self.kind)

    def raw(self, start: int, stop: int) -> UInt8[Tensor, " n"]:
        """The bytes of these values."""
        width = WIDTHS[self.dtype]
        return self.file.bytes[self.start + start * width : self.start + stop * width]

    def release(self, start: int, stop: int) -> None:
        """Take these values out of the process's memory; they are read again if asked for."""
        width = WIDTHS[self.dtype]
        self.file.release(self.start + start * width, self.start + stop * width)


@dataclass(frozen=True)
class Mapped:
    """One file. The pages belong to the system's cache, not to the process, and stay private when written to."""

    path: Path

    def entries(self) -> dict[str, Entry]:
        """Every tensor of the file, in the order of its bytes. Raises ValueError for a file that is damaged."""
        try:
            with safe_open(self.path, framework="pt"):  # checks header, offsets and length
                pass
        except SafetensorError as error:
            raise ValueError(f"{self.path} is damaged or no safetensors file: {error}. Copy it again.") from error
        with self.path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        inside = sorted(header.items(), key=lambda item: item[1]["data_offsets"][0])
        return {
            name: Entry(self, spec["dtype"], tuple(spec["shape"]), 8 + length + spec["data_offsets"][0])
            for name, spec in inside
        }

    @cached_property
    def bytes(self) -> UInt8[Tensor, " n"]:
        """The whole file."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is not writable, where it is empty
            return torch.frombuffer(self._memory, dtype=torch.uint8)

    def release(self, start: int, stop: int) -> None:
        """Take the pages that hold these bytes out of the process's memory."""
        first = start - start % mmap.PAGESIZE
        if hasattr(mmap, "MADV_DONTNEED") and stop > first:
            self._memory.madvise(mmap.MADV_DONTNEED, first, stop - first)

    @cached_property
    def _memory(self) -> mmap.mmap:
        with self.path.open("rb") as stream:
            return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
