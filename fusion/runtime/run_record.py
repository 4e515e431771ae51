"""run.json: what a run is made of and how long its stages took, for the report and for those who come back to it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusion.core.system_errors import naming
from fusion.core.text_files import read_object
from fusion.runtime import distributed
from fusion.runtime.artifacts import CHECKSUM, fingerprint, write_json
from fusion.runtime.console import console
from fusion.runtime.locks import exclusive


@dataclass(frozen=True)
class RunRecord:
    """Reads and writes run.json in the folder of a run."""

    folder: Path

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep others out of the run while the body runs in all processes of one start.

        Raises BlockingIOError, naming the process, where another has it; nothing is written then.
        """
        if not distributed.is_main_process():
            distributed.barrier()  # until the main process has it
            yield
            return
        with exclusive(self.folder / "lock", f"The run in {self.folder}"):
            distributed.barrier()
            yield

    def read(self) -> dict[str, Any]:
        """The contents of run.json; empty before the first stage. Raises ValueError where it is not as it was written."""
        file = self.folder / "run.json"
        if not file.exists():
            return {}
        way_out = f"delete {file} and run the same command again: what is finished is kept"
        found = read_object(file, way_out)
        if (mark := found.pop(CHECKSUM, None)) is not None and mark != fingerprint(found):
            raise ValueError(f"{file} is not as it was written, it was damaged or edited; {way_out}.")
        return found

    def update(self, **entries: Any) -> None:
        """Set entries of run.json and keep all others; the main process writes, the others do nothing."""
        if not distributed.is_main_process():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        whole = json.loads(
            json.dumps(self.read() | entries)
        )  # as it will be read: a tuple is a list, a number a key's text
        write_json(self.folder / "run.json", whole | {CHECKSUM: fingerprint(whole)})

    @contextmanager
    def stage(self, name: str) -> Iterator[dict[str, Any]]:
        """Time a stage and record it; set `skipped` in the dict it yields where there was nothing to do."""
        console.print(f"[bold]{name}[/]")
        note: dict[str, Any] = {"name": name, "skipped": False}
        start = time.perf_counter()
        with naming(self.folder):
            yield note
        note["seconds"] = round(time.perf_counter() - start, 4)
        before = {stage["name"]: stage for stage in self.read().get("stages", [])}
        if note["skipped"]:
            console.print("  done before, nothing to do")
            note["seconds"] = before.get(name, note)["seconds"]
        self.update(stages=[*(stage for key, stage in before.items() if key != name), note])
