"""Thousands of mutants by hand: `python -m tests.faults [NUMBER] [KIND ...]`, by default 2000 of all kinds, one seed."""

from __future__ import annotations

import itertools
import os
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.faults import checkpoints, command_lines, configurations, disks, rows, run_folders
from tests.faults.runner import Mutant, Report, run
from tests.helpers import tiny

Source = Callable[[Path, random.Random], Iterator[Mutant]]
KINDS: dict[str, tuple[Source, float]] = {
    "configuration": (configurations.configurations, 0.25),
    "study": (configurations.study_files, 0.05),
    "merge": (configurations.merge_recipes, 0.1),
    "suite": (configurations.suite_files, 0.05),
    "data": (rows.data_files, 0.2),
    "command": (command_lines.command_lines, 0.2),
    "gguf": (checkpoints.gguf_files, 0.07),
    "folder": (checkpoints.model_folders, 0.07),
    "run": (run_folders.run_folders, 0.1),
}
"""Where mutants come from, and their share."""
DISKS = 0.01


def prepare(folder: Path) -> Path:
    """A folder with the models that mutants are about; relative paths that they write lead there."""
    for seed, name in enumerate(("base", "a", "b")):
        if not (folder / name).exists():
            tiny.folder("llama", folder / name, seed)
    (folder / "here").mkdir(exist_ok=True)
    os.chdir(folder / "here")
    return folder


def main(number: int, kinds: list[str]) -> None:
    """Run them and print what became of them."""
    folder, report, wrong = prepare(Path(tempfile.mkdtemp(prefix="faults-"))), Report(), []
    with command_lines.shorten():
        for kind, (source, share) in KINDS.items():
            if kinds and kind not in kinds:
                continue
            for mutant in itertools.islice(
                source(folder, random.Random(kind)), number if kinds else round(number * share)
            ):
                print(
                    f"{len(report.outcomes):5} {mutant.kind}: {mutant.what[:160]!r}", file=sys.stderr
                )  # if one kills us
                report.add(mutant)
    if not kinds or "disk" in kinds:
        expected = _expected(folder)
        for fault in itertools.islice(
            disks.full_disks(random.Random("disk")), number if kinds else round(number * DISKS)
        ):
            wrong += disks.try_one(report, folder, fault, expected)
    print(report.table(), report.details(), "", *wrong, sep="\n")


def _expected(folder: Path) -> dict[str, str]:
    import shutil

    import yaml

    from tests.helpers import runs

    shutil.rmtree(folder / "runs", ignore_errors=True)
    (folder / "disk.yaml").write_text(yaml.safe_dump(runs.raw(folder)))
    status, _, said, _ = run(["run", str(folder / "disk.yaml")])
    assert status == 0, said
    return disks.results(folder)


if __name__ == "__main__":
    words = sys.argv[1:]
    main(int(words[0]) if words else 2000, words[1:])
