"""Disks that fill, and users who press Ctrl-C: at any file that a run writes. Afterwards the same command goes on."""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from fusion.cli.boundary import INTERRUPTED
from tests.faults.runner import Mutant, Report, run
from tests.helpers import runs


class Interference:
    """Raises an error when a file is opened for writing the n-th time; does nothing while it is not told to."""

    def __init__(self) -> None:
        self.left, self.error, self.folder = 0, "", ""
        sys.addaudithook(self.hook)  # which stays for the rest of the process

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Count the files under `folder` that are opened for writing."""
        if not self.left or event != "open" or not str(arguments[0]).startswith(self.folder):
            return
        flags = arguments[2]
        if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR):
            return
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt if self.error == "Ctrl-C" else OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


INTERFERENCE = Interference()


def full_disks(rng: random.Random) -> Iterator[tuple[str, str, int]]:
    """Endless faults: a disk full at the n-th file, files that may not grow beyond a size, Ctrl-C."""
    while True:
        kind = rng.choice(["full at a file", "limit of size", "Ctrl-C"])
        yield (
            kind,
            rng.choice(["run", "extract"]),
            rng.randrange(1, 60) if kind != "limit of size" else int(2 ** rng.uniform(6, 18)),
        )


def try_one(report: Report, folder: Path, fault: tuple[str, str, int], expected: dict[str, Any]) -> list[str]:
    """Run a command with a fault, then without; return what is wrong beyond what the report keeps."""
    kind, command, number = fault
    shutil.rmtree(folder / "runs", ignore_errors=True)
    (folder / "disk.yaml").write_text(yaml.safe_dump(runs.raw(folder)))
    words = [command, str(folder / "disk.yaml")]

    def prepare() -> list[str]:
        if kind == "limit of size":
            resource.setrlimit(resource.RLIMIT_FSIZE, (number, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        else:
            INTERFERENCE.left, INTERFERENCE.error, INTERFERENCE.folder = number, kind, str(folder / "runs")
        return words

    names = (str(folder / "runs"),) if kind != "Ctrl-C" else ("run the same command again",)
    try:
        outcome = report.add(Mutant(f"disk, {kind}", f"{command}, {number}", prepare, names))
    finally:
        resource.setrlimit(
            resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
        )
        INTERFERENCE.left = 0
    wrong = []
    if kind == "Ctrl-C" and outcome.status not in (0, INTERRUPTED):
        wrong.append(f"{kind} {command} {number}: status {outcome.status}")
    status, _, said, escaped = run(words)
    if status != 0:
        wrong.append(f"{kind} {command} {number}: does not go on: {escaped!r} {said[-600:]}")
    elif command == "run" and results(folder) != expected:
        wrong.append(f"{kind} {command} {number}: went on to another result")
    return wrong


def results(folder: Path) -> dict[str, Any]:
    """What the evaluation of a run found, file by file, as text."""
    files = sorted((folder / "runs/small/eval").glob("*/heldout.json"))
    return {file.parent.name: file.read_text() for file in files}
