"""What made a thing on disk: one short name for it, in words where two things were made differently, and who owns a folder.

Every stage claims its folder with the key of all that makes its output, works, and marks it finished. So a stage that is
done is skipped, one that is half done goes on, and one that was made from something else is refused, with the reason.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4


def fingerprint(key: Mapping[str, Any]) -> str:
    """16 hex digits that change when any value in `key` does. Values are anything JSON can hold."""
    text = json.dumps(key, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The entries that differ, in one line: `top_k: 10 there, 20 here`. Empty where nothing does."""
    parts = []
    for name in sorted(found.keys() | wanted.keys()):
        old, new = found.get(name), wanted.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            inner = differences(old, new)
            parts += [f"{name} ({inner})"] if inner else []
        elif old != new:
            parts.append(f"{name}: {_short(old)} there, {_short(new)} here")
    return "; ".join(parts)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def claim(folder: Path, key: Mapping[str, Any], redo: str) -> None:
    """Write key.json into `folder`, or raise ValueError if what is there was made from something else.

    `redo` is the command that would make it again, for the message.
    """
    file = folder / "key.json"
    if file.exists():
        refuse_other_key(folder, json.loads(file.read_text()), key, redo)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(file, key)


def refuse_other_key(place: Path, found: Mapping[str, Any], wanted: Mapping[str, Any], redo: str) -> None:
    """Raise ValueError, with the reason, if `place` was made from another key than the one wanted."""
    if different := differences(found, json.loads(json.dumps(wanted))):
        raise ValueError(
            f"{place} was made from something else: {different}. Give the run another name (--set name=...), or delete "
            f"{place} and run `{redo}` again."
        )


def link_folder(place: Path, folder: Path) -> None:
    """Make `place` a link to `folder`, which is made if it is not there; another link in its place is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    aside = place.with_name(f".{place.name}.{uuid4().hex[:8]}")
    aside.symlink_to(
        os.path.relpath(folder, place.parent.resolve()), target_is_directory=True
    )  # both may move together
    aside.replace(place)


def mark_complete(folder: Path, **facts: Any) -> None:
    """Mark the claimed folder as whole; `facts` are kept with the mark."""
    write_json(folder / "done.json", facts)


def claim_artifact(folder: Path, key: Mapping[str, Any], redo: str) -> bool:
    """Whether the folder is whole and made from `key`; raises ValueError if it was made from something else."""
    claim(folder, key, redo)
    return (folder / "done.json").exists()


def artifact_key(folder: Path) -> str:
    """Fingerprint of the key with which `folder` was claimed."""
    return fingerprint(json.loads((folder / "key.json").read_text()))


def write_json(file: Path, value: Any) -> None:
    """`write_text` of a value as JSON."""
    write_text(file, json.dumps(value, ensure_ascii=False, indent=1))


def write_text(file: Path, text: str) -> None:
    """Write aside and rename, so that the file is whole or absent, whoever else may be writing it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f"{file.name}.{uuid4().hex[:8]}.part")
    aside.write_text(text)
    aside.replace(file)
