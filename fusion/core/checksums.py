"""Checksums of files."""

from __future__ import annotations

from pathlib import Path

import xxhash

HASHED_AT_ONCE = 1 << 24


def hash_of(file: Path) -> str:
    """Return the XXH3 of a file's contents, 128 bits in hexadecimal digits."""
    digest = xxhash.xxh3_128()
    with file.open("rb") as stream:
        while block := stream.read(HASHED_AT_ONCE):
            digest.update(block)
    return digest.hexdigest()
