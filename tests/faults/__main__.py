"""Thousands of mutants by hand: `python -m tests.faults [NUMBER] [KIND]`, by default FUSION_FAULTS or 2000 of all kinds.

The seed is the kind, so that two versions of the code meet the same mutants.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml

from tests.faults import checkpoints, command_lines, configurations, disks, rows, run_folders
from tests.faults.runner import Mutant, Report, run
from tests.helpers import runs, tiny

Source = Callable[[Path, random.Random], Iterator[Mutant]]
KINDS: dict[str, tuple[Source, float]] = {
    "configuration": (configurations.configurations, 0.23),
    "study": (configurations.study_files, 0.05),
    "merge": (configurations.merge_recipes, 0.1),
    "suite": (configurations.suite_files, 0.04),
    "data": (rows.data_files, 0.2),
    "command": (command_lines.command_lines, 0.17),
    "gguf": (checkpoints.gguf_files, 0.07),
    "folder": (checkpoints.model_folders, 0.07),
    "run": (run_folders.run_folders, 0.06),
}
"""Where mutants come from, and their share."""
DISKS = 0.01
"""Share of disks that fill and runs that are stopped, each of which is a run and another."""


MERGES = 0.03
"""Share of merges that are stopped, each of which is a merge and another."""


def prepare(folder: Path) -> Path:
    """Make the models that mutants are about, and go to a folder where relative paths that they write may lead."""
    for seed, name in enumerate(("base", "a", "b")):
        if not (folder / name).exists():
            tiny.folder("llama", folder / name, seed)
    (folder / "here").mkdir(exist_ok=True)
    os.chdir(folder / "here")
    return folder


def mutants(kind: str, folder: Path, number: int) -> Iterator[Mutant]:
    """So many mutants of a kind, the same each time."""
    return itertools.islice(KINDS[kind][0](folder, random.Random(kind)), number)


def unspoiled_results(folder: Path) -> dict[str, str]:
    """What the evaluation finds of a run that nothing disturbs."""
    shutil.rmtree(folder / "runs", ignore_errors=True)
    (folder / "disk.yaml").write_text(yaml.safe_dump(runs.raw(folder)))
    status, _, said, _ = run(["run", str(folder / "disk.yaml")])
    assert status == 0, said
    return disks.results(folder)


def main(number: int, only: str | None) -> int:
    """Run them, print what became of them, and return how many tracebacks there were."""
    folder, report, wrong = prepare(Path(tempfile.mkdtemp(prefix="faults-"))), Report(), []
    shares = {only: 1.0} if only else {**{kind: share for kind, (_, share) in KINDS.items()}, "disk": DISKS}
    with command_lines.shorten():
        for kind in [kind for kind in shares if kind != "disk"]:
            for mutant in mutants(kind, folder, round(number * shares[kind])):
                print(len(report.outcomes), mutant.kind, ascii(mutant.what[:160]), file=sys.stderr)  # if one ends us
                report.add(mutant)
    if "disk" in shares:
        expected = unspoiled_results(folder)
        for fault in itertools.islice(disks.full_disks(random.Random("disk")), round(number * shares["disk"])):
            wrong += disks.try_one(report, folder, fault, expected)
        # in a process of its own, for each of them is a fork
        words = [sys.executable, "-m", "tests.faults.merges", str(round(number * MERGES))]
        stopped = subprocess.run(words, capture_output=True, text=True, check=False)
        wrong += stopped.stdout.splitlines()[1:] or ([stopped.stderr] if stopped.returncode else [])
    print(report.table(), report.details(), "", *wrong, sep="\n")
    shutil.rmtree(folder, ignore_errors=True)
    return len(report.tracebacks()) + len(wrong)


if __name__ == "__main__":
    words = sys.argv[1:]
    sys.exit(
        main(int(words[0] if words else os.environ.get("FUSION_FAULTS", "2000")), words[1] if words[1:] else None) > 0
    )
