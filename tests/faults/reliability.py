"""Write docs/reliability.md from the logs of faults: `python -m tests.faults.reliability LOG ... --write FILE`.

The page gives the plain command of each log; `--series "kills 60 --rounds --from 500" LOG` says another one.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

COMMANDS = {
    "server": "tests.faults.servers",
    "SIGKILL, torchrun": "tests.faults.ranks",
    "SIGKILL, every event": "tests.faults.every_event",
}
FAULTS = {
    "SIGKILL, every event": "the process is killed (SIGKILL) at every distinct file event, once",
    "SIGKILL": "the process is killed (SIGKILL) at a file event",
    "SIGTERM": "the process is ended (SIGTERM) at a file event",
    "full": "the disk is full from a file event on",
    "SIGKILL, torchrun": "one of two processes under torchrun is killed at a file event",
    "cut": "a file is cut in half between two starts",
    "empty": "a file is emptied between two starts",
    "flip": "a bit of a file is flipped between two starts",
    "gone": "a file is deleted between two starts",
    "server": "a server misbehaves",
}
INTRODUCTION = """# What a fault costs

Runs are stopped, disks fill, files are damaged and servers fail. This page says what was tried, how often, and what was
lost. It is generated (the last line says how), and holds what was run once by hand; tests repeat a small part of it in
every build.

**How it is tried.** A run of three tiny models goes through all stages: respond, extract, train (four trainings), merge,
rounds where it has them, fuse, evaluate, report. In a copy of it one fault is made at a seeded moment, and the same command
is given again. A try is right if the command then ends well, every weight, cached row, answer and result is *byte for byte*
that of a run nothing happened to, and no unfinished file is left. Where damage is refused, the sentence must name what to
delete, and after deleting it the same must hold. A *file event* is any call that opens a file for writing, renames, syncs,
makes a folder or deletes.

**Every distinct event.** Kills do not rest on chance alone: one series walks through each stage and kills it once right before
every distinct event. Two events are the same where one operation changes files of one name; numbers, hashes, the names of
the models and the four trainings do not count, nor do making a folder that is there, opening a file that is open, and one
sync directly after another, which change nothing. Of an event that comes again the first and the last are tried.

Not compared are times and what holds them, pictures, checkpoints (their number is limited) and the order of keys in logs.

Some of the runs go on in two rounds, in which the pivot writes and its sources read. The tries ran on one day over three states
of the code: first kills at random, full disks and damage, then the walk through respond, extract, merge and most of evaluate,
then the walk through the rest, 20 random kills of each stage, and servers. Between the last two one fault was mended that the
walk had found, in 5 of 153 tries in train: a process that was killed while it removed an old checkpoint left a part of it, the
next one removed a whole one instead, and `fusion verify` called the run damaged. No weight was lost by it.

| fault | where (tries) | tries | lost or wrong | ended with a sentence first, such as | command |
| --- | --- | ---: | ---: | --- | --- |
"""


def read(files: Sequence[Path]) -> list[dict[str, Any]]:
    """All tries of these logs."""
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def table(tries: Sequence[dict[str, Any]]) -> str:
    """A line for each fault."""
    by_fault: dict[str, list[dict[str, Any]]] = {words: [] for words in FAULTS.values()}
    for one in tries:
        words = FAULTS[one["kind"]]
        by_fault.setdefault(f"{words}: {one['stage']}" if one["kind"] == "server" else words, []).append(one)
    return "\n".join(_line(fault, mine) for fault, mine in by_fault.items() if mine)


def _line(fault: str, mine: Sequence[dict[str, Any]]) -> str:
    kind, said = mine[0]["kind"], [one["said"] for one in mine if one["said"]]
    stages = Counter("extract" if kind == "server" else _stage(kind, one["stage"]) for one in mine)
    where = ", ".join(f"{stage} ({count})" for stage, count in sorted(stages.items()))
    example = f"{len(said)}: {shorten(said[0])}" if said else "none"
    command = COMMANDS.get(kind, "tests.faults.kills").rpartition(".")[2]
    return f"| {fault} | {where} | {len(mine)} | {sum(bool(one['wrong']) for one in mine)} | {example} | {command} |"


def shorten(said: str) -> str:
    """A sentence as it stands in a table: without this machine's folders and ports, and not too long."""
    said = re.sub(r"/\S*?/(?:kills|ranks|servers)-\w+/", "", said)
    said = re.sub(r"127\.0\.0\.1:\d+", "HOST", said).replace("|", "/").replace("\n", " ")
    return said if len(said) <= 150 else f"{said[:147]}..."


def _stage(kind: str, stage: str) -> str:
    if stage == "done":
        return "the finished run"
    return f"before {stage}" if kind in ("cut", "empty", "flip", "gone") else stage


def page(tries: Sequence[dict[str, Any]], commands: Sequence[str]) -> str:
    """The whole page."""
    wrong = [one for one in tries if one["wrong"]]
    found = [f"- {one['kind']}, {one['stage']}, {one['what']}: {'; '.join(one['wrong'])[:300]}" for one in wrong]
    total = f"**{len(tries)} tries, {len(wrong)} wrong.**"
    return "\n".join(
        [INTRODUCTION + table(tries), "", total, *(["", *found] if found else []), "", OTHERS, *commands, ""]
    )


OTHERS = """## What is promised, and what is not

- A run is worked on by one start at a time, a study and an output of a merge too; the second start names the process that
  holds it. Caches and answers are shared on purpose: each process claims shards, and whoever waits says once a minute for
  whom.
- What a dead process left unfinished is removed at the next start on the same machine. Dead is a process whose lock can be
  had; neither age nor a process number counts, and what another machine left is never touched.
- A full disk is simulated by errors of Python's own calls; what libraries in other languages write is tried with limits on
  the size of files (`python -m tests.faults`), not event by event. A power cut is not tried; files are synced before their
  names.
- Network file systems are not tried, nor Windows, which has none of these locks.

## Again

Try *n* is the same in every call: `--from` goes on where a series was stopped, and `--log FILE` keeps a line for each try.
`every_event` goes on where its log ends, and a run with rounds tries what the log does not hold yet.
"""


def main(words: Sequence[str]) -> int:
    """Print the page, or write it."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.reliability")
    parser.add_argument("logs", nargs="+", type=Path)
    parser.add_argument("--write", type=Path)
    parser.add_argument(
        "--series", nargs=2, action="append", default=[], metavar=("WORDS", "LOG"), help="The command of a log, and it."
    )
    given = parser.parse_args(words)
    tries = read(given.logs)
    counts = Counter(COMMANDS.get(one["kind"], "tests.faults.kills") for one in tries)
    # the number of events is not chosen; the second time those that only a run with rounds has
    every = ["", " --rounds"] if counts.pop("tests.faults.every_event", 0) else []
    commands = [f"    python -m tests.faults.every_event{rounds} --log FILE" for rounds in every]
    commands += [f"    python -m {name} {count} --log FILE" for name, count in sorted(counts.items())]
    commands += [f"    python -m tests.faults.{series} --log FILE" for series, _ in given.series]
    tries += read([Path(log) for _, log in given.series])
    commands += ["    python -m tests.faults.reliability FILE ... --series WORDS FILE ... --write docs/reliability.md"]
    text = page(tries, commands)
    given.write.write_text(text) if given.write else print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
