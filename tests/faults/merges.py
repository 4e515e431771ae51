"""Merges that are stopped: a disk full from the n-th write on, Ctrl-C, SIGTERM and SIGKILL at the n-th event of a file.

Afterwards the inputs are what they were, the output is absent or complete, and the same command makes it. Each merge is a
process of its own, forked from this one, which does nothing with torch itself. `python -m tests.faults.merges [NUMBER]` tries
so many at random, or without a number every one.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import random
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fusion.merging.files import stream as _loaded  # noqa: F401  (before the forks, each of which would load torch)
from tests.faults.runner import run
from tests.helpers.families import WEIGHTS, tree

KINDS = ("full", "Ctrl-C", "SIGTERM", "SIGKILL")
SIGNALS = {"Ctrl-C": signal.SIGINT, "SIGTERM": signal.SIGTERM, "SIGKILL": signal.SIGKILL}
AUDITED = {"os.rename", "os.truncate", "os.mkdir", "os.remove", "os.rmdir", "shutil.copyfile"}
NEEDS_NO_ROOM = {"os.remove", "os.rmdir"}
Fault = tuple[str, bool, int]
"""The kind, whether the output folder is there before, and the number of the event."""


class Disturbance:
    """Counts what is done with files from its making on, and disturbs from the n-th event on."""

    def __init__(self, kind: str = "", number: int = 0):
        self.kind, self.number, self.count, self.ended = kind, number, 0, False
        self.names: list[str] = []
        self.pid = os.getpid()
        for name in ("pwrite", "fsync"):  # which are not audited
            setattr(os, name, self.counted(f"os.{name}", getattr(os, name)))
        sys.addaudithook(self.hook)

    def counted(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The call, counted."""

        def counted_call(*arguments: Any) -> Any:
            self.count_event(name, arguments)
            return call(*arguments)

        return counted_call

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Count writes, and what changes the names of files."""
        flags = arguments[2] if event == "open" else 0
        if event in AUDITED or (isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)):
            self.count_event(event, arguments)

    def count_event(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Disturb, where it is time."""
        if self.ended:
            return
        self.count += 1
        if self.kind == "full" and self.count >= self.number and event not in NEEDS_NO_ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self.kind in SIGNALS and self.count == self.number:
            os.kill(self.pid, SIGNALS[self.kind])


def merge_in_child(folder: Path, kind: str = "", number: int = 0) -> dict[str, Any]:
    """Merge in a forked process; its status, what it said and how many events there were, or nothing where it was killed."""
    answer = folder / "answer.json"
    answer.unlink(missing_ok=True)
    words = ["merge", "--method", "ties", "--base-model", str(folder / "base"), str(folder / "a"), str(folder / "b")]
    if (pid := os.fork()) == 0:
        try:
            disturbance = Disturbance(kind, number)
            status, printed, said, escaped = run([*words, "--out", str(folder / "out"), "--threads", "1"])
            disturbance.ended = True
            known = {"status": status, "said": said + printed, "escaped": repr(escaped), "count": disturbance.count}
            answer.write_text(json.dumps(known))
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    return json.loads(answer.read_text()) if answer.is_file() else {}


def prepare(folder: Path) -> tuple[bytes, int]:
    """Make the models, merge them once undisturbed, and return the weights and the number of events."""
    if (pid := os.fork()) == 0:
        try:
            from tests.helpers.families import save_tiny_llama

            base = save_tiny_llama(folder / "base")
            for seed, name in enumerate("ab", start=1):
                save_tiny_llama(folder / name, seed=seed, like=base)
            for name in ("tokenizer.json", "chat_template.jinja"):
                (folder / "base" / name).write_text(name)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    whole = merge_in_child(folder)
    assert whole["status"] == 0, whole
    return (folder / "out" / WEIGHTS).read_bytes(), whole["count"]


def faults(events: int, rng: random.Random | None) -> Iterator[Fault]:
    """Every kind at every event, or endless random ones."""
    if rng is None:
        yield from itertools.product(KINDS, (False, True), range(1, events + 1))
    while rng is not None:
        yield rng.choice(KINDS), rng.random() < 0.5, rng.randint(1, events)


def try_one(folder: Path, fault: Fault, expected: bytes) -> list[str]:
    """Disturb a merge, then merge again; return what is wrong."""
    kind, existed, number = fault
    clear(folder, existed)
    before = {name: tree(folder / name) for name in ("base", "a", "b")}
    disturbed = merge_in_child(folder, kind, number)
    wrong = [] if kind != "full" else wrong_sentence(disturbed)
    if (folder / "out/config.json").exists() and (folder / "out" / WEIGHTS).read_bytes() != expected:
        wrong.append("an incomplete result")
    again = merge_in_child(folder)
    if again.get("status") != 0:
        wrong.append(f"does not go on: {again}")
    elif (folder / "out" / WEIGHTS).read_bytes() != expected:
        wrong.append("went on to another result")
    if left := {path.name for path in folder.iterdir()} - {"base", "a", "b", "out", "answer.json"}:
        wrong.append(f"left {left}")
    if before != {name: tree(folder / name) for name in ("base", "a", "b")}:
        wrong.append("changed an input")
    return [f"{kind}, {'into' if existed else 'new'} folder, event {number}: {line}" for line in wrong]


def wrong_sentence(disturbed: dict[str, Any]) -> list[str]:
    """What a user should not read when the disk is full."""
    said = disturbed.get("said", "")
    if "Traceback" in said or disturbed.get("escaped") != "None":
        return [f"a traceback: {disturbed}"]
    told = "GB are missing" in said or "is whole, in" in said or "Free some space there" in said
    return [] if disturbed["status"] == 0 or told else [f"says nothing of the disk: {said}"]


def clear(folder: Path, existed: bool) -> None:
    """Remove the output and what was left of it."""
    import shutil

    for path in (folder / "out", *folder.glob(".out.*")):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    if existed:
        (folder / "out").mkdir()


def main(number: int | None) -> int:
    """Try so many random faults, or every one; print what is wrong and how many there were."""
    folder = Path(tempfile.mkdtemp(prefix="merges-"))
    expected, events = prepare(folder)
    rng = None if number is None else random.Random("merges")
    tried, wrong = 0, []
    for fault in itertools.islice(faults(events, rng), number):
        wrong += try_one(folder, fault, expected)
        tried += 1
    print(f"{tried} stopped merges of {events} events, {len(wrong)} wrong", *wrong, sep="\n")
    clear(folder, existed=False)
    return len(wrong)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else None) > 0)
