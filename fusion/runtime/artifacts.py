"""Folders of artifacts: what made each one (key.json), and whether it is complete (done.json).

A stage claims its folder with the key of everything that its output depends on, works, and marks the folder complete (a cache
with its manifest, an evaluation with its result file, all else with done.json). So a stage that is done is skipped, one
that was interrupted goes on, and an artifact that was made from something else is refused, with the difference named.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from typing_extensions import override

from fusion.core.renamed_keys import new_name
from fusion.core.system_errors import naming
from fusion.core.text_files import read_object
from fusion.runtime import distributed
from fusion.runtime.console import show
from fusion.runtime.file_states import damaged_files, file_states
from fusion.runtime.syncing import sync
from fusion.runtime.unfinished import remove_abandoned, unfinished_file, unfinished_path

DONE, FILES, CHECKSUM = "done.json", "files", "checksum"
NO_OUTPUTS = {DONE, "key.json", "claims"}
MADE = (DONE, "manifest.json", "model", "checkpoint-*", "shard-*")
"""What shows that a stage has worked in a folder."""
LEFTOVERS = {".part", ".lock", ".damaged"}
"""Endings of files that are no output: they belong to somebody who is writing or waiting, or were set aside."""


def fingerprint(key: Mapping[str, Any]) -> str:
    """Return 16 hex digits that change when any value in `key` does. Values are anything JSON can hold."""
    text = json.dumps(key, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def differences(existing: Mapping[str, Any], requested: Mapping[str, Any]) -> str:
    """Return the entries that differ, in one line: `top_k: 10 there, 20 here`. Empty where none does.

    A key that an earlier version wrote under another name is named with the new one.
    """
    renamed = {name: new for name in existing.keys() - requested.keys() if (new := new_name(name, requested))}
    parts = [f"{name} is called {new} now" for name, new in sorted(renamed.items())]
    existing = {renamed.get(name, name): value for name, value in existing.items()}
    for name in sorted(existing.keys() | requested.keys()):
        old, new = existing.get(name), requested.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            nested = differences(old, new)
            parts += [f"{name} ({nested})"] if nested else []
        elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
            found = _numbered(old, new)
            parts += [f"{name} ({found})"] if found else []
        elif old != new:
            parts.append(f"{name}: {_short(old)} there, {_short(new)} here")
    return "; ".join(parts)


def _numbered(old: Sequence[Any], new: Sequence[Any]) -> str:
    """Compare two lists of one length, item by item: `[1] (weight: 1.0 there, 0.5 here)`."""
    each = (differences({f"[{n}]": a}, {f"[{n}]": b}) for n, (a, b) in enumerate(zip(old, new, strict=True)))
    first, *more = [found for found in each if found] or [""]
    return first + (f", and {len(more)} more" if more else "")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def claim_artifact(folder: Path, key: Mapping[str, Any], redo: str) -> bool:
    """Write key.json into `folder` unless it is there, and return whether the artifact is complete.

    Raises ValueError if what is there was made from another key. `redo` is the command that would make it again, for the
    message.
    """
    if (existing := _existing_key(folder, redo)) is not None:
        refuse_other_key(folder, existing, key, redo)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "key.json", key)
    if distributed.is_main_process():  # the others find what it has taken away
        remove_abandoned(folder)
        _set_damage_aside(folder)
    return is_complete(folder)


def is_made(folder: Path, key: Mapping[str, Any], redo: str) -> bool:
    """Return whether the artifact is complete, without claiming the folder.

    For what is made in one go and may turn out to be wrong before anything is written: mended, it is another artifact, and no
    contradiction. Raises ValueError as `claim_artifact`.
    """
    if not any(next(folder.glob(pattern), None) for pattern in MADE):
        if distributed.is_main_process():
            (folder / "key.json").unlink(missing_ok=True)
        return False
    return claim_artifact(folder, key, redo)


def _existing_key(folder: Path, redo: str) -> dict[str, Any] | None:
    """The key that `folder` was claimed with; None for a folder in which nothing has been made yet.

    Raises ValueError where something was, and what made it is not known.
    """
    file = folder / "key.json"
    try:
        if file.exists():
            return read_object(file)
    except ValueError:
        pass  # it was cut off
    if any(next(folder.glob(pattern), None) for pattern in MADE):
        raise ValueError(
            f"{file} is gone or damaged, so that it is not known what made the files beside it. Delete {folder} and run "
            f"`{redo}` again."
        )
    return None


class OtherInputsError(ValueError):
    """What is there was made from other inputs than are asked for now: `paths`, which `redo` would make again.

    `following` was made from these, and would be refused next.
    """

    def __init__(self, paths: Sequence[Path], different: str, redo: str, following: Sequence[Path] = ()):
        self.paths, self.different, self.redo, self.following = tuple(paths), different, redo, tuple(following)
        one = len(self.paths) == 1
        behind = f", and what was made from {'it' if one else 'them'} ({_listed(following)})," if following else ""
        super().__init__(
            f"{_listed(self.paths)} {'was' if one else 'were'} made from something else: {different}. Give the run another "
            f"name (--set name=...), or delete {self.paths[0] if one else 'them'}{behind} and run `{redo}` again."
        )

    @override
    def __reduce__(self) -> tuple[Any, ...]:
        """For processes of a study, which hand their errors over: the message alone would not make it again."""
        return type(self), (self.paths, self.different, self.redo, self.following)


def _listed(paths: Sequence[Path]) -> str:
    *others, last = map(str, paths)
    return f"{', '.join(others)} and {last}" if others else last


def refuse_other_key(path: Path, existing: Mapping[str, Any], requested: Mapping[str, Any], redo: str) -> None:
    """Raise OtherInputsError, naming the difference, if `path` was made from another key than the `requested` one."""
    if different := differences(existing, json.loads(json.dumps(requested))):
        raise OtherInputsError([path], different, redo)


def refuse_other_keys(keys: Mapping[Path, Mapping[str, Any]], redo: str) -> None:
    """Raise one OtherInputsError for all of these folders that hold something made from another key than the requested one.

    For artifacts that are made one after the other, before the first of them costs anything.
    """
    refuse_together(partial(_refuse_other_folder, folder, key, redo) for folder, key in keys.items())


def _refuse_other_folder(folder: Path, key: Mapping[str, Any], redo: str) -> None:
    if (existing := _existing_key(folder, redo)) is not None:
        refuse_other_key(folder, existing, key, redo)


def refuse_together(checks: Iterable[Callable[[], object]]) -> None:
    """Make all checks, and raise one OtherInputsError for all that raised one."""
    found: list[OtherInputsError] = []
    for check in checks:
        try:
            check()
        except OtherInputsError as error:
            found.append(error)
    if found:
        different = "; ".join(dict.fromkeys(each.different for each in found))
        raise OtherInputsError([path for each in found for path in each.paths], different, found[0].redo)


def link_folder(link: Path, folder: Path) -> None:
    """Make `link` a symbolic link to `folder`, which is created if absent; an existing link at that path is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    link.parent.mkdir(parents=True, exist_ok=True)
    target = os.path.relpath(folder, link.parent.resolve())  # relative: both may move together
    with unfinished_path(link) as aside:
        aside.symlink_to(target, target_is_directory=True)
        aside.replace(link)


def mark_complete(folder: Path, outputs: Sequence[str] = (), **facts: Any) -> None:
    """Write done.json, the mark of a complete artifact, when all its files are on the disk.

    It holds `facts`, and size and checksum of the `outputs`: files and folders below `folder`, or everything in it. What was
    set aside as damaged has been made again by then, and goes.
    """
    mark = {**facts, FILES: file_states(folder, _output_files(folder, outputs))}
    write_json(folder / DONE, mark | {CHECKSUM: fingerprint(mark)})
    for damaged in (*folder.rglob("*.damaged"), *folder.glob("damaged-*")):
        shutil.rmtree(damaged) if damaged.is_dir() else damaged.unlink(missing_ok=True)


def is_complete(folder: Path) -> bool:
    """Return whether done.json marks `folder` as complete, and its files have the sizes that they were written with.

    Caches and evaluations ask for their own mark.
    """
    return (folder / DONE).exists() and not find_damage(folder, contents=False)


def find_damage(folder: Path, *, contents: bool) -> dict[str, str]:
    """Say what is wrong with each file of a folder that done.json marks as complete; with `contents` every byte is compared."""
    try:
        mark = read_object(folder / DONE)
    except ValueError:
        return {DONE: f"{DONE} is damaged"}
    if mark.pop(CHECKSUM, None) != fingerprint(mark):  # of the facts, too, which others read
        return {DONE: f"{DONE} is not as it was written"}
    return damaged_files(folder, mark.get(FILES), contents=contents)


def _set_damage_aside(folder: Path) -> None:
    """Where a complete folder is not as it was written, keep its damaged files under other names, and take its mark away."""
    damage = find_damage(folder, contents=True) if (folder / DONE).exists() else {}
    for name, problem in damage.items():
        show([f"{folder}: {problem}; it is made again"])
        with suppress(FileNotFoundError):  # it is gone, or another process of another run does the same
            (folder / name).replace(folder / f"{name}.damaged")
    if damage:
        (folder / DONE).unlink(missing_ok=True)


def _output_files(folder: Path, outputs: Sequence[str]) -> list[Path]:
    places = [folder / name for name in outputs] or [folder]
    files = [file for place in places for file in ([place] if place.is_file() else place.rglob("*"))]
    return [file for file in files if file.is_file() and file.name not in NO_OUTPUTS and file.suffix not in LEFTOVERS]


def artifact_key(folder: Path) -> str:
    """Return the fingerprint of the key with which `folder` was claimed."""
    return fingerprint(read_object(folder / "key.json"))


def write_json(file: Path, value: Any) -> None:
    """Write a value as JSON, by `write_text`."""
    write_text(file, json.dumps(value, ensure_ascii=False, indent=1))


def write_text(file: Path, text: str) -> None:
    """Write to a temporary file and rename it, so that `file` is whole or absent whoever else may be writing it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with naming(file), unfinished_file(file) as aside:
        aside.write_text(text)
        sync(aside)  # or the name may reach the disk before the contents, and a power cut leaves an empty file
        aside.replace(file)
        sync(file.parent)
