"""Texts and JSON files, read with the file, the place and the way out in every error; checksums of files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import xxhash

from fusion.core.system_errors import naming

HASHED_AT_ONCE = 1 << 24
"""Bytes of a file that are in memory while it is hashed."""
AGAIN = "copy or make it again"


def read_text(file: Path) -> str:
    """Return a text in UTF-8. Raises ValueError for another encoding, OSError that names the file where it cannot be read."""
    with naming(file):
        content = file.read_bytes()
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{file}, line {line}, is not UTF-8 (byte {error.start}); save it as UTF-8.") from error


def read_json(file: Path, way_out: str = AGAIN) -> Any:
    """Return what a JSON file holds. Raises ValueError, with the line, for one that is cut or damaged."""
    try:
        return json.loads(read_text(file))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}, line {error.lineno}, is not JSON ({error.msg}); {way_out}.") from error
    except RecursionError:
        raise ValueError(f"{file} is nested too deeply; {way_out}.") from None


def read_object(file: Path, way_out: str = AGAIN) -> dict[str, Any]:
    """Return the keys and values of a JSON file. Raises ValueError where it holds anything else."""
    value = read_json(file, way_out)
    if not isinstance(value, dict):
        raise ValueError(f"{file} should hold keys and values, it holds {type(value).__name__}; {way_out}.")
    return value


def hash_of(file: Path) -> str:
    """Return the XXH3 of a file's contents, 128 bits in hexadecimal digits."""
    digest = xxhash.xxh3_128()
    with file.open("rb") as stream:
        while block := stream.read(HASHED_AT_ONCE):
            digest.update(block)
    return digest.hexdigest()
