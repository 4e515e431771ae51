"""Spoiled files of a run that is done: what is cut by a crash, edited by hand, or copied by halves."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.faults.command_lines import done_run
from tests.faults.mutations import spoil_bytes, spoil_tree
from tests.faults.runner import Mutant

NOT_READ = {".svg", ".png", ".html", ".md", ".bin", ".jinja", ".part", ".lock", ".pth", ".pt"}
"""Files that are for people, or that nothing but a training that goes on reads."""


def run_folders(folder: Path, rng: random.Random) -> Iterator[Mutant]:
    """Endless mutants of a file of a run, for the commands that read it again."""
    config, done, whole = done_run(folder), folder / "runs/small", folder / "whole-run"
    shutil.copytree(done, whole, symlinks=True)
    files = sorted(file for file in whole.rglob("*") if file.is_file() and file.suffix not in NOT_READ)
    cache = str(done / "cache/neox")
    words = [
        ["run", str(config)], ["run", str(config)], ["extract", str(config)], ["report", str(done)], ["cache", "show", cache],
        ["cache", "verify", cache], ["inspect", str(config), "--rescaling", "0.5"], ["plan", str(config)],
    ]  # fmt: skip
    while True:
        file = rng.choice(files)
        yield _mutant(done, whole, file, _spoil(file, rng), rng.choice(words))


def _spoil(file: Path, rng: random.Random) -> tuple[bytes | None, str]:
    content = file.read_bytes()
    if rng.random() < 0.1:
        return None, "deleted"
    if rng.random() < 0.1:
        return b"", "empty"
    if file.suffix == ".json" and isinstance(tree := json.loads(content), (dict, list)) and tree and rng.random() < 0.7:
        tree, place, what = spoil_tree(tree, rng)
        return json.dumps(tree).encode(), f"{'.'.join(map(str, place))[:60]}: {what}"
    return spoil_bytes(content, rng, 1000) if content else (b"x", "one byte")


def _mutant(done: Path, whole: Path, file: Path, spoiled: tuple[bytes | None, str], words: list[str]) -> Mutant:
    content, what = spoiled
    target = done / file.relative_to(whole)

    def prepare(spoil: bool = True) -> list[str]:
        shutil.rmtree(done)
        shutil.copytree(whole, done, symlinks=True)
        if spoil:
            target.unlink() if content is None else target.write_bytes(content)
        return words

    names = (str(target), target.name, str(target.parent))
    original = " ".join(words), lambda: prepare(spoil=False)
    return Mutant("run folder", f"{words[0]} {file.relative_to(whole)}: {what}", prepare, names, original)
