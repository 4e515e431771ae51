"""A run is killed once at every distinct file event of each stage; afterwards the same command goes on to the same bytes.

`python -m tests.faults.every_event [--rounds] [--unlabelled] --log FILE` prints a line for each try, and goes on where its log
ends: what the log holds is not tried again. Two events are the same where one operation changes files of one name: numbers,
hashes, the names of models and the kinds of trainings do not count. Of those that come again the first and the last are tried.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.kills import READERS, Try, go_on, keep
from tests.faults.merges import Disturbance
from tests.faults.tiny_run import TinyRun

KIND = "SIGKILL, every event"
TWO_NAMES = {"os.rename", "shutil.copyfile"}
ALIKE = (
    (r"/runs/\w+_[\w.-]+", "/runs/DATE_HOST"),
    (r"\bevents\.out\.[\w.-]+", "events"),
    (r"\b[0-9a-f]{8,}\b", "#"),
    (r"\d+", "#"),
    (r"\b(pivot|neox|qwen)\b", "MODEL"),
    (r"\btrain/(fine-tuned|unified|pairwise/MODEL)\b", "train/TRAINING"),
)
"""What is replaced in a name, in this order."""


@dataclass(frozen=True)
class FileEvent:
    """One of the events of a stage that are tried."""

    stage: str
    name: str
    """The operation, and the name of the file as far as it counts."""
    which: str
    """first or last"""
    number: int
    """How many of this name there have been with it."""

    @property
    def what(self) -> str:
        """What stands in the log."""
        return f"{self.which} {self.name}"


class NamedEvents(Disturbance):
    """Keeps the names of the file events, and kills the process right before the n-th of one name."""

    def __init__(self, root: Path, name: str = "", number: int = 0):
        self.root, self.name, self.left = root, name, number
        self.last: dict[int, str] = {}
        """By thread the operation before."""
        super().__init__()

    def count_event(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Keep the name, and kill where it is time."""
        thread = threading.get_ident()
        # one sync after another changes nothing in between
        if self.ended or changes_nothing(event, arguments) or event == "os.fsync" == self.last.get(thread):
            return
        self.last[thread] = event
        self.names.append(name := event_name(event, arguments, self.root))
        self.left -= name == self.name
        if name == self.name and self.left == 0:
            os.kill(self.pid, signal.SIGKILL)


def changes_nothing(event: str, arguments: tuple[Any, ...]) -> bool:
    """Whether a folder is made that is there, or a file is opened that is open."""
    if event == "os.mkdir":
        return os.path.lexists(_path(arguments[0], arguments[2]))
    return event == "open" and isinstance(arguments[0], int)


def event_name(event: str, arguments: tuple[Any, ...], root: Path) -> str:
    """The operation and what it is about, without what is another in another run."""
    at = arguments[1] if event in ("os.remove", "os.rmdir") else -1
    paths = [_path(path, at) for path in arguments[: 2 if event in TWO_NAMES else 1]]
    name = f"{event.rpartition('.')[2]} {' to '.join(path.replace(f'{root}/', '') for path in paths)}"
    name = name.replace(str(root), ".").replace("runs/small/", "")
    for pattern, instead in ALIKE:
        name = re.sub(pattern, instead, name)
    return name


def _path(path: Any, at: int) -> str:
    """The path of a path or descriptor; `at` is the descriptor of the folder that it is in, or -1."""
    if isinstance(path, int):
        return str(Path(f"/proc/self/fd/{path}").readlink())
    return str(Path(_path(at, -1) if at >= 0 else "", os.fsdecode(path)))


def distinct(stage: str, names: Sequence[str]) -> list[FileEvent]:
    """The first event of each name, and the last of those that come again, in the order of the first."""
    counts = Counter(names)
    found = [FileEvent(stage, name, "first", 1) for name in counts]
    return found + [FileEvent(stage, name, "last", count) for name, count in counts.items() if count > 1]


def events_of(tiny: TinyRun, stage: str) -> list[FileEvent]:
    """All distinct events of a stage."""
    tiny.restore(stage)
    whole = tiny.call(stage, lambda: NamedEvents(tiny.folder))
    assert whole.get("status") == 0, whole
    return distinct(stage, whole["names"])


def untried(events: Sequence[FileEvent], log: Path | None) -> list[FileEvent]:
    """The events that a log does not hold."""
    lines = log.read_text().splitlines() if log and log.exists() else []
    tried = {(one["stage"], one["what"]) for one in map(json.loads, lines)}
    return [event for event in events if (event.stage, event.what) not in tried]


def try_event(tiny: TinyRun, event: FileEvent, number: int) -> Try:
    """Kill the stage there, look at the run, and go on with it."""
    one, start = Try(number, KIND, event.stage, event.what), time.perf_counter()
    if any(_is_killed(tiny, event, count) for count in _halves(event.number)):
        one = go_on(tiny, one, READERS[number % len(READERS)])
    else:
        one.wrong.append("never came again")
    one.seconds = time.perf_counter() - start
    return one


def _is_killed(tiny: TinyRun, event: FileEvent, count: int) -> bool:
    tiny.restore(event.stage)
    return not tiny.call(event.stage, lambda: NamedEvents(tiny.folder, event.name, count))


def _halves(number: int) -> Iterator[int]:
    """The number, half of it, and so on: a thread may do something more often in one run than in another."""
    while number:
        yield number
        number //= 2


def main(words: Sequence[str]) -> int:
    """Try every event that the log does not hold; return how many went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.every_event")
    parser.add_argument("number", nargs="?", type=int, help="At most so many; all, if not given.")
    parser.add_argument("--rounds", action="store_true", help="The run has two rounds.")
    parser.add_argument(
        "--unlabelled",
        action="store_true",
        help="Half of the prompts have no reference; their domain's best source answers.",
    )
    parser.add_argument("--stage", help="The events of this stage alone.")
    parser.add_argument(
        "--log", type=Path, help="Each try is appended here as a line of JSON; what it holds is not tried."
    )
    given = parser.parse_args(words)
    folder, wrong = Path(tempfile.mkdtemp(prefix="kills-")), 0
    tiny = TinyRun(folder, rounds=given.rounds, unlabelled=given.unlabelled)
    stages = [given.stage] if given.stage else list(tiny.stages)
    tiny.prepare(stages[-1])
    events = [event for stage in stages for event in events_of(tiny, stage)]
    left = untried(events, given.log)
    print(f"distinct file events by stage: {dict(Counter(event.stage for event in events))}, {len(left)} not yet tried")
    for event in itertools.islice(left, given.number):
        one = try_event(tiny, event, events.index(event))
        keep(one, given.log)
        wrong += bool(one.wrong)
        print(one, flush=True)
    print(f"{min(len(left), given.number or len(left))} tries, {wrong} wrong")
    shutil.rmtree(tiny.folder, ignore_errors=True)
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) > 0)
