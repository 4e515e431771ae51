"""Where a run keeps what it makes: in its own folder, or in one that runs share, so that nothing is made twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from fusion import ranks
from fusion.config import Config
from fusion.made import fingerprint, link, refuse_other

MAKES = {"responses": "respond", "cache": "extract", "train": "train"}
"""The command that makes what a folder of a run holds."""


def kept(config: Config, kind: str, name: str, key: dict[str, Any]) -> Path:
    """The folder of a cache or training of the run: its own or, with `store`, a link to the one of all runs that make the same.

    Raises ValueError where the link leads to something made otherwise.
    """
    folder, store = config.folder / kind / name, config.store
    if store is None or (folder.exists() and not folder.is_symlink()):
        return folder
    shared = (Path(store) / kind / fingerprint(key)).absolute()
    if folder.exists() and folder.resolve() != shared.resolve() and (folder / "key.json").exists():
        refuse_other(folder, json.loads((folder / "key.json").read_text()), key, f"fusion {MAKES[kind]}")
    link(folder, shared)
    return folder


@contextmanager
def alone(config: Config, kind: str, key: dict[str, Any]) -> Iterator[None]:
    """Keep other runs with the same store from making the same at the same time; they wait, and find it made."""
    if config.store is None or not ranks.is_main():
        yield
        return
    lock = Path(config.store) / kind / f"{fingerprint(key)}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        yield
