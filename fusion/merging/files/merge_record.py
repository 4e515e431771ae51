"""`merge.json`: the inputs and settings a folder was merged from, and whether one that exists already is the same merge."""

from __future__ import annotations

import json
import mmap
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from fusion.core.text_files import read_object

FILE_NAME = "merge.json"
HASHED_AT_ONCE = 1 << 24
"""Bytes of a file that are mapped at once to be hashed."""
VERSION = 5
"""Raised when the same inputs would give other numbers or another layout."""


@dataclass(frozen=True)
class HashedInputs:
    """The files of each folder that decide the result, and their XXH3 (128 bits), computed in threads while others merge."""

    folders: list[tuple[Path, list[Path]]]
    states: list[tuple[int, int]]
    """Size and modification time of every file when hashing began."""
    hashes: list[Future[str]]

    @classmethod
    def start(cls, folders: Sequence[tuple[Path, Sequence[Path]]], executor: Executor) -> HashedInputs:
        """Begin to hash every file."""
        listed = [(folder, list(files)) for folder, files in folders]
        every = [file for _, files in listed for file in files]
        # without a base the first model stands in for it, and its files are listed twice
        pending = {file: executor.submit(_hash, file) for file in dict.fromkeys(every)}
        return cls(listed, [_state(file) for file in every], [pending[file] for file in every])

    def file_states(self) -> list[Any]:
        """Path, size and modification time of every file: tells these inputs from others without reading them."""
        files = [str(file.absolute()) for _, files in self.folders for file in files]
        return [list(entry) for entry in zip(files, self.states, strict=True)]

    def by_folder(self) -> list[dict[str, Any]]:
        """Wait for the hashes, and list for each folder its path and those of its files.

        Raises ValueError if a file changed since hashing began.
        """
        hashes = [pending.result() for pending in self.hashes]  # before the states are compared: all has been read then
        described, position = [], 0
        for folder, files in self.folders:
            span = slice(position, position + len(files))
            for file, state in zip(files, self.states[span], strict=True):
                if _state(file) != state:
                    raise ValueError(f"{file} was changed while it was merged; start again when it is complete.")
            # those of BASE+ADAPTER lie in two folders
            names = [str(file.relative_to(folder)) if file.is_relative_to(folder) else file.name for file in files]
            described.append({"folder": str(folder), "xxh3": dict(zip(names, hashes[span], strict=True))})
            position += len(files)
        return described


def write(folder: Path, record: dict[str, Any]) -> None:
    """Write the record into a complete folder, with the sizes of the files that are in it."""
    sizes = {str(file.relative_to(folder)): file.stat().st_size for file in folder.rglob("*") if file.is_file()}
    (folder / FILE_NAME).write_text(json.dumps(record | {"files": sizes}, indent=2) + "\n")


def check_output_folder(out: Path) -> None:
    """Raise FileExistsError where `out` is a file, or a folder with contents that no merge has written."""
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out} is a file; name a folder that does not exist yet.")
    if out.is_dir() and any(out.iterdir()) and not (out / FILE_NAME).is_file():
        raise FileExistsError(f"{out} is not empty and was not made by a merge; give another folder, or remove it.")


def is_already_merged(out: Path, record: dict[str, Any]) -> bool:
    """Whether `out` holds the complete result of the merge that `record` describes.

    Input folders may have moved since: their contents decide. Raises FileExistsError where `out` was merged from something
    else, or is no longer what was written.
    """
    if not (out / FILE_NAME).is_file():
        return False
    existing, record = read_object(out / FILE_NAME), json.loads(json.dumps(record))
    differ = [key for key in record if _without_folders(existing.get(key)) != _without_folders(record[key])]
    if differ:
        raise FileExistsError(
            f"{out} was merged with another {' and '.join(differ)}; give another folder, or remove it."
        )
    for name, size in existing["files"].items():
        if not (out / name).is_file() or (out / name).stat().st_size != size:
            raise FileExistsError(
                f"{out} was merged from these inputs, but {name} is gone or changed; remove the folder."
            )
    return True


def _without_folders(value: Any) -> Any:
    """A value of a record without the paths of its inputs."""
    if isinstance(value, list):
        return [_without_folders(entry) for entry in value]
    return {k: v for k, v in value.items() if k != "folder"} if isinstance(value, dict) else value


def _state(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def _hash(file: Path) -> str:
    """XXH3 of a file, as fast as memory is read; not cryptographic."""
    digest, size = xxhash.xxh3_128(), file.stat().st_size
    for start in range(
        0, size, HASHED_AT_ONCE
    ):  # mapped, a file is hashed where it lies; reading it would copy it first
        with file.open("rb") as stream:
            length = min(HASHED_AT_ONCE, size - start)
            with mmap.mmap(stream.fileno(), length, offset=start, access=mmap.ACCESS_READ) as pages:
                if hasattr(mmap, "MADV_WILLNEED"):
                    pages.madvise(mmap.MADV_WILLNEED)
                digest.update(pages)
    return digest.hexdigest()
