"""run.json: what a run is made of and how long its stages took, for the report and for those who come back to it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusion.runtime import distributed
from fusion.runtime.artifacts import write_json
from fusion.runtime.console import console


@dataclass(frozen=True)
class Record:
    """The record of the run in one folder."""

    folder: Path

    def read(self) -> dict[str, Any]:
        """The record as it stands; empty before the run."""
        file = self.folder / "run.json"
        return json.loads(file.read_text()) if file.exists() else {}

    def keep(self, **facts: Any) -> None:
        """Put facts into it; the main process does."""
        if not distributed.is_main():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / "run.json", self.read() | facts)

    @contextmanager
    def stage(self, name: str) -> Iterator[dict[str, Any]]:
        """Times a stage and keeps it. Set `skipped` in what it gives where there was nothing to do."""
        console.print(f"[bold]{name}[/]")
        note: dict[str, Any] = {"name": name, "skipped": False}
        start = time.perf_counter()
        yield note
        note["seconds"] = round(time.perf_counter() - start, 4)
        before = {stage["name"]: stage for stage in self.read().get("stages", [])}
        if note["skipped"]:
            console.print("  done before, nothing to do")
            note["seconds"] = before.get(name, note)["seconds"]
        self.keep(stages=[*(stage for key, stage in before.items() if key != name), note])
