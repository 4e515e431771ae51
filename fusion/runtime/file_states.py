"""What the files of a finished folder were when they were written, so that nothing damaged passes for done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fusion.core.text_files import hash_of
from fusion.runtime.syncing import sync

FileStates = dict[str, list[Any]]
"""By path below the folder: size in bytes, and XXH3 (128 bits) of the contents."""


def file_states(folder: Path, files: Iterable[Path]) -> FileStates:
    """Force the files to the disk, and describe each."""
    found: FileStates = {}
    for file in sorted(files):
        sync(file)
        found[file.relative_to(folder).as_posix()] = [file.stat().st_size, hash_of(file)]
    return found


def damaged_files(folder: Path, states: Any, *, contents: bool) -> dict[str, str]:
    """Say by name what is wrong with each file that is not as it was written.

    Sizes are compared, and with `contents` every byte.
    """
    if not isinstance(states, Mapping) or not all(
        isinstance(each, list) and len(each) == 2 for each in states.values()
    ):
        return {"done.json": "its list of files is damaged"}
    found = {name: _damage(folder / name, name, *state, contents=contents) for name, state in states.items()}
    return {name: problem for name, problem in found.items() if problem}


def _damage(file: Path, name: str, size: int, digest: str, *, contents: bool) -> str | None:
    if not file.is_file():
        return f"{name} is gone"
    if (found := file.stat().st_size) != size:
        return f"{name} has {found:,} bytes, and {size:,} were written"
    return f"{name} has not the contents that were written" if contents and hash_of(file) != digest else None
