"""Folders of artifacts: in the run's own folder, or in a store that runs share, so that nothing is computed twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fusion.core.text_files import read_object
from fusion.runtime import distributed
from fusion.runtime.artifacts import fingerprint, link_folder, refuse_other_key
from fusion.runtime.locks import exclusive

Kind = Literal["responses", "cache", "train"]

COMMANDS: dict[Kind, str] = {"responses": "respond", "cache": "extract", "train": "train"}
"""The command that makes each kind of artifact."""


@dataclass(frozen=True)
class ArtifactStore:
    """The folders of one run, and of the store that it shares with other runs, if it does."""

    run: Path
    """The run's own folder."""
    shared: Path | None = None
    """Where artifacts of all runs lie by the fingerprint of their key; None keeps everything in the run's folder."""
    redo: str | None = None
    """The command that makes them again, for messages; the stage of each kind if not said."""

    def artifact_folder(self, kind: Kind, name: str, key: dict[str, Any]) -> Path:
        """The folder of an artifact: the run's own or, with a shared store, a link to the one of all runs with this key.

        Makes the link. Raises ValueError where a link is there already and leads to something with another key.
        """
        folder = self.run / kind / name
        if self.shared is None or (folder.exists() and not folder.is_symlink()):
            return folder
        shared = (self.shared / kind / fingerprint(key)).absolute()
        if folder.exists() and folder.resolve() != shared.resolve() and (folder / "key.json").exists():
            refuse_other_key(folder, read_object(folder / "key.json"), key, self.redo or f"fusion {COMMANDS[kind]}")
        link_folder(folder, shared)
        return folder

    def shared_result(self, key: dict[str, Any]) -> Path | None:
        """The file of a measurement in the shared store; None where nothing is shared."""
        return None if self.shared is None else self.shared / "eval" / f"{fingerprint(key)}.json"

    @contextmanager
    def artifact_lock(self, kind: Kind, key: dict[str, Any]) -> Iterator[None]:
        """Lock an artifact of a shared store, so that runs that need the same one wait for the first to make it, and say so."""
        if self.shared is None or not distributed.is_main_process():
            yield
            return
        name = fingerprint(key)
        with exclusive(self.shared / kind / f"{name}.lock", f"{self.shared / kind / name}", wait=True):
            yield
