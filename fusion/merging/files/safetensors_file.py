"""A safetensors file mapped into memory: tensors are read where they lie, and their pages released after use."""

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

from fusion.models.checkpoint_files import refuse_stand_in, unreadable_weights

FLOAT_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
DTYPE_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "U16": 2, "I32": 4, "U32": 4, "I64": 8, "U64": 8, "F16": 2, "BF16": 2, "F32": 4,
    "F64": 8,
}  # fmt: skip
"""Bytes of a value, for every type that can be merged or has to be equal in all models."""


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a file: its place, type and shape. `dtype` is named as safetensors does, such as BF16."""

    file: SafetensorsFile
    dtype: str
    shape: tuple[int, ...]
    start: int
    """Offset of its first byte in the file."""

    @property
    def is_floating(self) -> bool:
        """Whether the tensor is merged; integers and booleans have to be equal in all models."""
        return self.dtype in FLOAT_DTYPES

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype in torch of a floating tensor; KeyError for others."""
        return FLOAT_DTYPES[self.dtype]

    @property
    def size(self) -> int:
        """Number of values."""
        return torch.Size(self.shape).numel()

    def read(self, start: int, stop: int) -> Tensor:
        """Read values `start` to `stop` of the flat, floating tensor; a view of the file where its alignment allows."""
        raw = self.read_bytes(start, stop)
        return (raw if raw.storage_offset() % self.torch_dtype.itemsize == 0 else raw.clone()).view(self.torch_dtype)

    def read_bytes(self, start: int, stop: int) -> UInt8[Tensor, " n"]:
        """Read the bytes of values `start` to `stop`, of a tensor of any type; a view of the file."""
        width = DTYPE_BYTES[self.dtype]
        return self.file.bytes[self.start + start * width : self.start + stop * width]

    def release(self, start: int, stop: int) -> None:
        """Free the memory of these values; reading them again reads the file again."""
        width = DTYPE_BYTES[self.dtype]
        self.file.release(self.start + start * width, self.start + stop * width)


@dataclass(frozen=True)
class SafetensorsFile:
    """One file. Its pages belong to the system's page cache, not to the process, and stay private when written to."""

    path: Path

    def entries(self) -> dict[str, TensorEntry]:
        """List every tensor by name, in the order of the bytes.

        Raises ValueError for a file that is damaged, OSError for one that may not be read.
        """
        with self.path.open("rb") as stream:  # first: safetensors says of what it may not read that it is not there
            self._check()
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        by_offset = sorted(header.items(), key=lambda item: item[1]["data_offsets"][0])
        return {
            name: TensorEntry(self, spec["dtype"], tuple(spec["shape"]), 8 + length + spec["data_offsets"][0])
            for name, spec in by_offset
        }

    def _check(self) -> None:
        """Raise ValueError where header, offsets or length are damaged, or something else has the name of the file."""
        refuse_stand_in(self.path)
        try:
            with safe_open(self.path, framework="pt"):
                pass
        except SafetensorError as error:
            raise unreadable_weights(self.path, error) from error

    @cached_property
    def bytes(self) -> UInt8[Tensor, " n"]:
        """The whole file, mapped."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is not writable, where it is empty
            return torch.frombuffer(self._memory, dtype=torch.uint8)

    def release(self, start: int, stop: int) -> None:
        """Free the pages that hold bytes `start` to `stop`."""
        first = start - start % mmap.PAGESIZE
        if hasattr(mmap, "MADV_DONTNEED") and stop > first:
            self._memory.madvise(mmap.MADV_DONTNEED, first, stop - first)

    @cached_property
    def _memory(self) -> mmap.mmap:
        with self.path.open("rb") as stream:
            return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
