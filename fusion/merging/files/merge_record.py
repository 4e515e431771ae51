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
from fusion.merging.files.checkpoint_writer import JOURNAL
from fusion.runtime.artifacts import differences
from fusion.runtime.syncing import sync_folder, write_synced

FILE_NAME = "merge.json"
CARD = "README.md"
"""The card of the model, which people and evaluations write on: it is not compared with what was written."""
NOT_OF_THE_RESULT = {FILE_NAME, f".{FILE_NAME}.part", JOURNAL}
HASHED_AT_ONCE = 1 << 24
"""Bytes of a file that are mapped at once to be hashed."""
SETTINGS = ("method", "dtype")
"""Keys whose values a reader knows from his own recipe; the others are digests of files."""
VERSION = 6
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
        """Begin to hash every file. Raises OSError at once where one may not be read."""
        listed = [(folder, list(files)) for folder, files in folders]
        every = [file for _, files in listed for file in files]
        for file in every:
            file.open("rb").close()  # or it would be found when all weights are merged
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
    """Write the record into a complete folder, with size and XXH3 of every file that is in it, when all are on disk."""
    sync_folder(folder)
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file.name not in NOT_OF_THE_RESULT]
    named = {str(file.relative_to(folder)): file for file in files}
    sizes = {"files": {name: file.stat().st_size for name, file in named.items()}}
    hashes = {"files_xxh3": {name: _hash(file) for name, file in named.items()}}
    write_synced(folder / FILE_NAME, json.dumps(record | sizes | hashes, indent=2) + "\n")


def written_files(folder: Path) -> list[str]:
    """List the files that the record in `folder` says were written; none where there is no record."""
    return list(_read(folder).get("files", {})) if (folder / FILE_NAME).is_file() else []


def is_already_merged(out: Path, record: dict[str, Any]) -> bool:
    """Whether `out` holds the complete result of the merge that `record` describes.

    Input folders may have moved since: their contents decide. Raises FileExistsError where `out` was merged from something
    else, or is no longer what was written, byte by byte; the card, which people edit, may be.
    """
    if not (out / FILE_NAME).is_file():
        return False
    existing = _read(out)
    if differ := _differing_keys(existing, record):
        settings = [key for key in differ if key in SETTINGS]
        detail = differences({key: existing.get(key) for key in settings}, {key: record[key] for key in settings})
        raise FileExistsError(
            f"{out} was merged with another {' and '.join(differ)}; give another folder, or remove it"
            f"{f'. {detail}' if detail else ''}."
        )
    refuse_changed_files(out)
    return True


def refuse_changed_files(out: Path) -> None:
    """Raise FileExistsError where a file of the result in `out` is gone, cut or changed since it was written."""
    existing = _read(out)
    hashes = existing.get("files_xxh3", {})  # earlier versions wrote sizes alone
    for name, size in existing["files"].items():
        file = out / name
        if name == CARD or (_has_size(file, size) and hashes.get(name) in (None, _hash(file))):
            continue
        raise FileExistsError(
            f"{out} was merged from these inputs, but {name} is gone or changed; remove the folder to merge again."
        )


def is_unpublished(partial: Path, folder: Path, record: dict[str, Any]) -> bool:
    """Whether `partial` is the complete result of this merge; a kill may have left some of its files in `folder` already.

    Raises FileExistsError where they are another merge's.
    """
    if not (partial / FILE_NAME).is_file():
        return False
    existing = _read(partial)
    whole = [
        any(_has_size(place / name, size) for place in (partial, folder)) for name, size in existing["files"].items()
    ]
    if all(whole) and not _differing_keys(existing, record):
        return True
    if any((folder / name).is_file() for name in existing["files"]):
        raise FileExistsError(
            f"{folder} holds files of another merge, which was stopped at its end; empty it, or give another folder."
        )
    return False


def _read(folder: Path) -> dict[str, Any]:
    return read_object(folder / FILE_NAME, "remove the folder to merge again")


def _differing_keys(existing: dict[str, Any], record: dict[str, Any]) -> list[str]:
    record = json.loads(json.dumps(record))
    wrong = [key for key in record if _without_folders(existing.get(key)) != _without_folders(record[key])]
    return wrong if isinstance(existing.get("files"), dict) else [*wrong, "version"]


def _has_size(file: Path, size: int) -> bool:
    return file.is_file() and file.stat().st_size == size


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
