"""`merge.json`: what a merged folder was made from, and whether a folder that is there already may stand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

NAME = "merge.json"
VERSION = 1
"""Raised when the same inputs would give other numbers or another layout."""


def inputs(folders: Sequence[tuple[Path, Sequence[Path]]], report: Callable[[int, int], None]) -> list[dict[str, Any]]:
    """For each folder its path and the sha256 of its files; `report` hears (files done, files in all)."""
    total, done, parts = sum(len(files) for _, files in folders), 0, []
    for folder, files in folders:
        sums = {}
        for file in files:
            with file.open("rb") as stream:
                sums[str(file.relative_to(folder))] = hashlib.file_digest(stream, "sha256").hexdigest()
            done += 1
            report(done, total)
        parts.append({"folder": str(folder), "sha256": sums})
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
