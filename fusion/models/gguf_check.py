"""Whether a GGUF file is whole: its header is read to the end, and every tensor lies inside the file.

The reader that transformers uses goes by the counts and lengths in the file, whatever they are: a damaged one costs it all
memory, or ends in an error that does not name the file. Format: the specification in ggml's docs/gguf.md, versions 2 and 3.
"""

from __future__ import annotations

import functools
import mmap
import struct
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = 32
"""Bytes to whose multiples tensors are aligned where the file does not say."""
STRING, ARRAY = 8, 9
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Types of values as `struct` names them."""
MOST_DIMENSIONS = 8


def check_gguf(file: Path) -> None:
    """Raise ValueError, with the file, the byte and the way out, where a GGUF file is cut or damaged. No weights are read."""
    state = file.stat()
    _check(file, state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _check(file: Path, size: int, _time: int) -> None:
    if size == 0:
        raise ValueError(f"{file} is empty; copy or download it again.")
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        _Header(file, content, size).check()


class _Header:
    """Reads a header from its beginning; `place` is the next byte."""

    def __init__(self, file: Path, content: mmap.mmap, size: int) -> None:
        self.file, self.content, self.size, self.place, self.order = file, content, size, 0, "<"

    def check(self) -> None:
        """Read everything up to the weights."""
        if self.content[:4] != MAGIC:
            self.fail(f"is no GGUF file: it begins with {self.content[:4]!r} instead of {MAGIC!r}")
        self.place = 4
        if self.content[4:6] == b"\x00\x00":
            self.order = ">"
        if (version := self.number("I")) not in VERSIONS:
            self.fail(f"is a GGUF file of version {version}; read are {', '.join(map(str, VERSIONS))}")
        tensors, pairs = self.count("tensors", least=24), self.count("keys", least=12)
        metadata = dict(self.pair() for _ in range(pairs))
        alignment = metadata.get("general.alignment") or ALIGNMENT
        infos = [self.tensor() for _ in range(tensors)]
        start = self.place + -self.place % alignment if isinstance(alignment, int) else self.place
        for name, bytes_, offset in infos:
            if start + offset + bytes_ > self.size:
                end = start + offset + bytes_
                self.fail(
                    f"is cut off: the tensor {name} should end at byte {end:,}, and the file ends at {self.size:,}"
                )

    def pair(self) -> tuple[str, Any]:
        """A key and its value; None stands for a list."""
        key = self.text("a key")
        return key, self.value(self.number("I"), key)

    def value(self, kind: int, key: str) -> Any:
        """A value of the kind that the file names, which belongs to this key."""
        if kind in NUMBERS:
            return self.number(NUMBERS[kind])
        if kind == STRING:
            return self.text(key)
        if kind != ARRAY:
            self.fail(f"is damaged: {key} is said to be of type {kind}, which there is not")
        inner = self.number("I")
        if inner in NUMBERS:
            width = struct.calcsize(NUMBERS[inner])
            self.skip(width * self.count(f"values of {key}", least=width), key)
        else:
            for _ in range(self.count(f"values of {key}", least=8)):
                self.skip(self.number("Q"), key) if inner == STRING else self.value(inner, key)
        return None

    def tensor(self) -> tuple[str, int, int]:
        """The name of a tensor, its bytes where its type is known (else 0), and where it begins."""
        name = self.text("the name of a tensor")
        dimensions = self.number("I")
        if dimensions > MOST_DIMENSIONS:
            self.fail(f"is damaged: the tensor {name} has {dimensions} dimensions")
        elements = 1
        for _ in range(dimensions):
            elements *= self.number("Q")
        kind, offset = self.number("I"), self.number("Q")
        block, bytes_ = _block_sizes().get(kind, (1, 0))
        return name, elements // block * bytes_, offset

    def number(self, form: str) -> Any:
        """The next number."""
        start = self.place
        self.skip(struct.calcsize(form), "a number")
        return struct.unpack_from(self.order + form, self.content, start)[0]

    def text(self, what: str) -> str:
        """The next string."""
        length, start = self.number("Q"), self.place
        self.skip(length, what)
        try:
            return self.content[start : self.place].decode()
        except UnicodeDecodeError:
            self.fail(f"is damaged: {what}, at byte {start:,}, is not UTF-8")

    def count(self, what: str, least: int) -> int:
        """How many follow, each of so many bytes at least."""
        number = self.number("Q")
        if number * least > self.size - self.place:
            self.fail(
                f"is cut off or damaged: it should hold {number:,} {what}, and has {self.size - self.place:,} bytes left"
            )
        return number

    def skip(self, length: int, what: str) -> None:
        """Go on; there must be so many bytes."""
        if length > self.size - self.place:
            self.fail(
                f"is cut off or damaged: at byte {self.place:,}, {what} should be {length:,} bytes long, and "
                f"{self.size - self.place:,} are left"
            )
        self.place += length

    def fail(self, what: str) -> NoReturn:
        """Raise with the way out."""
        raise ValueError(f"{self.file} {what}; copy or download it again.")


@functools.cache
def _block_sizes() -> dict[int, tuple[int, int]]:
    """Elements and bytes of a block, by the number of a type; empty without the package, without which nothing is loaded."""
    if find_spec("gguf") is None:
        return {}
    import gguf

    return {int(kind): sizes for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
