"""`merge.json`: what a merged folder was made from, and whether a folder that is there already may stand."""

from __future__ import annotations

import json
import mmap
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

NAME = "merge.json"
MAPPED = 1 << 24
"""Bytes of a file that are mapped at once to be hashed."""
VERSION = 5
"""Raised when the same inputs would give other numbers or another layout."""


@dataclass(frozen=True)
class Inputs:
    """The files of each folder that decide the result, and their XXH3 (128 bits), which threads work out while others merge."""

    folders: list[tuple[Path, list[Path]]]
    seen: list[tuple[int, int]]
    """Size and time of change of every file, when they were first looked at."""
    sums: list[Future[str]]

    @staticmethod
    def look(folders: Sequence[tuple[Path, Sequence[Path]]], threads: Executor) -> Inputs:
        """Begin to read."""
        files = [file for _, files in folders for file in files]
        listed = [(folder, list(files)) for folder, files in folders]
        reading = {
            file: threads.submit(_hash, file) for file in dict.fromkeys(files)
        }  # without a base, one is in twice
        return Inputs(listed, [_state(file) for file in files], [reading[file] for file in files])

    def quick(self) -> list[Any]:
        """What tells these inputs from others without reading them."""
        files = [str(file.absolute()) for _, files in self.folders for file in files]
        return [list(part) for part in zip(files, self.seen, strict=True)]

    def described(self) -> list[dict[str, Any]]:
        """For each folder its path and the hash of its files. Raises ValueError if one changed since it was looked at."""
        sums, parts, number = [pending.result() for pending in self.sums], [], 0
        for folder, files in self.folders:
            for file, seen in zip(files, self.seen[number : number + len(files)], strict=True):
                if _state(file) != seen:
                    raise ValueError(f"{file} was changed while it was merged; start again when it is complete.")
            found = sums[number : number + len(files)]
            names = [str(file.relative_to(folder)) for file in files]
            parts.append({"folder": str(folder), "xxh3": dict(zip(names, found, strict=True))})
            number += len(files)
        return parts


def finish(folder: Path, record: dict[str, Any]) -> None:
    """Writes the record into a complete folder, with the sizes of the files that are in it."""
    sizes = {str(file.relative_to(folder)): file.stat().st_size for file in folder.rglob("*") if file.is_file()}
    (folder / NAME).write_text(json.dumps(record | {"files": sizes}, indent=2) + "\n")


def check_free(out: Path) -> None:
    """Raises FileExistsError where `out` is a file, or a folder with something no merge has made."""
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out} is a file; name a folder that does not exist yet.")
    if out.is_dir() and any(out.iterdir()) and not (out / NAME).is_file():
        raise FileExistsError(f"{out} is not empty and was not made by a merge; give another folder, or remove it.")


def already_made(out: Path, wanted: dict[str, Any]) -> bool:
    """Whether `out` holds this very merge, whole. Folders may have moved since: their contents decide.

    Raises FileExistsError where it was made from something else, or is no longer what was written.
    """
    if not (out / NAME).is_file():
        return False
    found = json.loads((out / NAME).read_bytes())
    wanted = json.loads(json.dumps(wanted))
    differ = [name for name in wanted if _deciding(found.get(name)) != _deciding(wanted[name])]
    if differ:
        raise FileExistsError(
            f"{out} was merged with another {' and '.join(differ)}; give another folder, or remove it."
        )
    for name, size in found["files"].items():
        if not (out / name).is_file() or (out / name).stat().st_size != size:
            raise FileExistsError(
                f"{out} was merged from these inputs, but {name} is gone or changed; remove the folder."
            )
    return True


def _deciding(part: Any) -> Any:
    """The part of a record without the places its inputs were found in."""
    if isinstance(part, list):
        return [_deciding(entry) for entry in part]
    return {k: v for k, v in part.items() if k != "folder"} if isinstance(part, dict) else part


def _state(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def _hash(file: Path) -> str:
    """Tells files apart at the speed of memory; no proof against one made to deceive."""
    digest, size = xxhash.xxh3_128(), file.stat().st_size
    for start in range(0, size, MAPPED):  # mapped, a file is hashed where it lies; reading it would copy it first
        with file.open("rb") as stream:
            length = min(MAPPED, size - start)
            with mmap.mmap(stream.fileno(), length, offset=start, access=mmap.ACCESS_READ) as pages:
                if hasattr(mmap, "MADV_WILLNEED"):
                    pages.madvise(mmap.MADV_WILLNEED)
                digest.update(pages)
    return digest.hexdigest()
