"""Kills, full disks and damaged files at seeded moments of every stage of a run; afterwards the same command goes on.

`python -m tests.faults.kills [NUMBER]` prints a line for each try; `--help` says what can be chosen. Try n is the same in
every call, so that a series may be stopped and gone on with. Each try is a process forked from this one, which does nothing
with torch itself, and one or two more that go on.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import fusion.report.html_page
import fusion.training.fit  # noqa: F401  (before the forks, each of which would load torch)
from tests.faults.merges import Disturbance
from tests.faults.tiny_run import TinyRun, unfinished_in

KINDS = ("SIGKILL", "SIGTERM", "full", "cut", "empty", "flip", "gone")
READERS = ("report", "verify", "plan")
"""Commands that look at a run, however far it is."""
DAMAGE = ("cut", "empty", "flip", "gone")
UNREAD = {".svg", ".png", ".html", ".md", ".bin"}
"""Endings of files of a run that no stage reads."""


@dataclass
class Try:
    """One fault, and what became of it."""

    number: int
    kind: str
    stage: str
    what: str
    said: str = ""
    """What a user read, where the command ended with a sentence."""
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        how = "; ".join(self.wrong) or (f"said: {self.said}" if self.said else "goes on, equal")
        return f"{self.number} {self.kind} {self.stage} {self.what}: {how} ({self.seconds:.1f} s)"


def last_stage(numbers: Sequence[int], stages: Sequence[str], only: str | None = None, stage: str | None = None) -> str:
    """The last stage that any of these tries disturbs; damage may be found anywhere, and ends in a whole run."""
    drawn = [(only or rng.choice(KINDS), rng.choice(stages)) for rng in map(_random, numbers)]
    return max((stages[-1] if kind in DAMAGE else stage or any_ for kind, any_ in drawn), key=stages.index)


def _random(number: int) -> random.Random:
    return random.Random(f"kills-{number}")


def try_one(
    tiny: TinyRun, events: dict[str, int], number: int, only: str | None = None, stage: str | None = None
) -> Try:
    """Disturb a stage of the run and go on with it."""
    rng, start = _random(number), time.perf_counter()
    kind, drawn = only or rng.choice(KINDS), rng.choice(list(tiny.stages))
    stage = stage or drawn
    if kind in DAMAGE:
        found = _damage(tiny, Try(number, kind, rng.choice([*list(tiny.stages)[1:], "done"]), ""), rng)
    else:
        found = _stop(tiny, Try(number, kind, stage, ""), rng.randint(1, events[stage]), rng.choice(READERS))
    found.seconds = time.perf_counter() - start
    return found


def _stop(tiny: TinyRun, one: Try, event: int, reader: str) -> Try:
    """Kill a stage at an event, or let the disk be full from then on; look at the run; go on."""
    tiny.restore(one.stage)
    one.what = f"event {event}"
    disturbed = tiny.call(one.stage, lambda: Disturbance(one.kind, event))
    if one.kind == "full" and disturbed.get("status") != 0:
        one.said, one.wrong = sentence(disturbed, one.wrong)
    return go_on(tiny, one, reader)


def go_on(tiny: TinyRun, one: Try, reader: str) -> Try:
    """Look at a run that was disturbed, and give the command of its stage again."""
    if (read := tiny.look(reader)).get("status") != 0:
        one.wrong = sentence(read, one.wrong)[1]  # it may be that there is nothing to look at yet
    again = tiny.call(one.stage)
    if again.get("status") != 0:
        one.wrong.append(f"does not go on: {again}")
        return one
    one.wrong += differences(tiny, after(tiny, one.stage))
    if (verified := tiny.look("verify")).get("status") != 0:
        one.wrong.append(f"verify finds damage: {verified}")
    return one


def _damage(tiny: TinyRun, one: Try, rng: random.Random) -> Try:
    """Damage a file between two starts: it is made again, or refused by name; what is refused may be deleted as it is said."""
    tiny.restore(one.stage)
    files = sorted(file for file in tiny.run.rglob("*") if file.is_file() and file.suffix not in UNREAD)
    file = rng.choice(files)
    one.what = str(file.relative_to(tiny.run))
    harm(file, one.kind, rng)
    stage = "evaluate"  # whose command is the whole run
    for _ in range(3):  # a way out may lead to the next damage, such as a cache's, whose key is made anew
        found = tiny.call(stage)
        if found.get("status") == 0:
            one.wrong += differences(tiny, "done")
            return one
        one.said, one.wrong = sentence(found, one.wrong)
        if not (way_out := re.search(r"[Dd]elete (\S+)", one.said.replace("\n", " "))):
            continue
        place = Path(way_out[1].rstrip(",.;"))
        if not place.is_relative_to(tiny.run) or place == tiny.run:
            one.wrong.append(f"is to delete {place}")
            return one
        shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
    one.wrong.append(f"does not go on: {one.said}")
    return one


def harm(file: Path, kind: str, rng: random.Random) -> None:
    """Cut, empty, flip or delete a file."""
    content = bytearray(file.read_bytes())
    if kind == "gone":
        file.unlink()
        return
    if kind == "flip" and content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "flip": content}[kind])


def sentence(found: dict[str, Any], wrong: list[str]) -> tuple[str, list[str]]:
    """What was said of the error, and what is wrong with it."""
    said = found.get("said", "")
    if not found or "Traceback" in said or found["escaped"] != "None":
        return "", [*wrong, f"a traceback: {found}"]
    errors = re.findall(r"^Error[^:]*: (.*)$", said, re.MULTILINE)
    return (errors[-1], wrong) if errors else ("", [*wrong, f"no sentence: {said}"])


def after(tiny: TinyRun, stage: str) -> str:
    """The state in which a stage leaves the run."""
    return [*tiny.stages, "done"][list(tiny.stages).index(stage) + 1]


def differences(tiny: TinyRun, state: str) -> list[str]:
    """What is not as an undisturbed run leaves it."""
    expected, found = tiny.results(tiny.before(state)), tiny.results()
    different = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    left = unfinished_in(tiny.run)
    return [f"different: {different}"] * bool(different) + [f"left: {left}"] * bool(left)


def keep(one: Try, log: Path | None) -> None:
    """Append a try to the log, if there is one, as a line of JSON."""
    if log:
        with log.open("a") as file:
            file.write(json.dumps(asdict(one)) + "\n")


def main(words: Sequence[str]) -> int:
    """Try so many; return how many went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.kills")
    parser.add_argument("number", nargs="?", type=int, default=100)
    parser.add_argument("--from", dest="first", type=int, default=0)
    parser.add_argument("--only", choices=KINDS)
    parser.add_argument("--rounds", action="store_true", help="The run has two rounds.")
    parser.add_argument("--stage", help="Disturb this stage alone.")
    parser.add_argument("--log", type=Path, help="Each try is appended here as a line of JSON.")
    given = parser.parse_args(words)
    folder, wrong = Path(tempfile.mkdtemp(prefix="kills-")), 0
    tiny = TinyRun(folder, rounds=given.rounds)
    numbers = range(given.first, given.first + given.number)
    events = tiny.prepare(last_stage(numbers, list(tiny.stages), given.only, given.stage))
    print(f"file events by stage: {events}", flush=True)
    for number in numbers:
        found = try_one(tiny, events, number, given.only, given.stage)
        wrong += bool(found.wrong)
        print(found, flush=True)
        keep(found, given.log)
    print(f"{given.number} tries, {wrong} wrong")
    shutil.rmtree(folder, ignore_errors=True)
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) > 0)
