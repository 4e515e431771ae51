"""A tiny run with every stage, the state of its folder before each of them, and what must come out whatever happens."""

from __future__ import annotations

import gc
import hashlib
import importlib
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.faults import runner
from tests.faults.merges import Disturbance
from tests.faults.runner import run

PATIENCE = 900
"""Seconds, on a busy machine, after which a command hangs."""
STAGES = {"respond": "respond", "extract": "extract", "train": "train", "merge": "merge", "evaluate": "run"}
"""By the stage that is disturbed: the command. `merge` also fuses, `evaluate` also reports."""
UNFINISHED = ("*.part", "claims", "lock", "*.lock", ".*", "damaged-*", "*.damaged")
NOT_RESULTS = {
    "run.json",
    "training_args.bin",
    "trainer_state.json",
    "report.html",
    "README.md",
    "files.json",
    "done.json",
}
"""Files that hold times of the day or durations, or the checksums of such."""
NOT_RESULT_FOLDERS = {"report", "runs", "tokens"}
"""Pictures, TensorBoard's logs, and tokens, which a run keeps once it has a folder."""


@dataclass(frozen=True)
class TinyRun:
    """A configuration in a folder of its own; the run is in `runs/small` there."""

    folder: Path
    config: str = "kills.yaml"
    rounds: bool = False
    """Whether it goes on in two rounds, and fuses behind them."""
    unlabelled: bool = False
    """Whether half of its prompts have no reference, and the best source of their domain answers them alone."""

    @property
    def stages(self) -> dict[str, str]:
        """By the stage that is disturbed: the command."""
        extra = {"rounds": "rounds"} if self.rounds else {}
        return {name: STAGES[name] for name in list(STAGES)[:-1]} | extra | {"evaluate": STAGES["evaluate"]}

    @property
    def run(self) -> Path:
        """The run's folder."""
        return self.folder / "runs/small"

    def before(self, stage: str) -> Path:
        """A copy of the run's folder as it is before a stage; `done` for the whole."""
        return self.folder / "states" / stage

    def restore(self, stage: str) -> None:
        """Put the run's folder back to what it was before a stage."""
        shutil.rmtree(self.folder / "runs", ignore_errors=True)
        if self.before(stage).exists():
            shutil.copytree(self.before(stage), self.run, symlinks=True)

    def prepare(self, last: str = "evaluate", **changes: Any) -> dict[str, int]:
        """Run every stage up to `last` undisturbed, keep the states between them, and return the file events of each.

        What they import is imported here, too, so that none of the tries, which are forked, takes its time.
        """
        events, states = {}, [*self.stages, "done"]
        number = states.index(last) + 1
        in_child(self.folder, lambda: self.write(**changes))
        for stage in states[:number]:
            self.keep(stage)
            whole = self.call(stage)
            assert whole.get("status") == 0, whole
            events[stage] = whole["count"]
            load(whole["modules"])
        self.keep(states[number])
        return events

    def write(self, **changes: Any) -> dict[str, Any]:
        """Write its configuration, and the models and data that it names."""
        return write_config(self.folder / self.config, rounds=self.rounds, unlabelled=self.unlabelled, **changes)

    def keep(self, stage: str) -> None:
        """Copy the run's folder as the state before a stage."""
        if self.run.exists():
            shutil.copytree(self.run, self.before(stage), symlinks=True)

    def call(self, stage: str, disturb: Callable[[], Disturbance] = Disturbance) -> dict[str, Any]:
        """Run a stage's command in a child with what `disturb` makes there; empty where it was killed.

        Else its status, what it said, how many file events there were, their names where they were wanted, and the modules
        that it imported.
        """

        def body() -> dict[str, Any]:
            before, disturbance = set(sys.modules), disturb()
            status, printed, said, escaped = run([self.stages[stage], str(self.folder / self.config)])
            disturbance.ended = True
            found = {"status": status, "said": said + printed, "escaped": repr(escaped), "count": disturbance.count}
            return found | {"names": disturbance.names, "modules": [name for name in sys.modules if name not in before]}

        return in_child(self.folder, body)

    def look(self, reader: str) -> dict[str, Any]:
        """Call a command that looks at the run: report, verify or plan."""

        def body() -> dict[str, Any]:
            status, printed, said, escaped = run(
                [reader, str(self.folder / self.config if reader == "plan" else self.run)]
            )
            return {"status": status, "said": said + printed, "escaped": repr(escaped)}

        return in_child(self.folder, body, "look.json")

    def results(self, state: Path | None = None) -> dict[str, str]:
        """A hash of every file that must be equal whatever happened, by path."""
        return results_in(state or self.run)


def load(modules: Sequence[str]) -> None:
    """Import modules that a child has imported; some were made there and cannot be found."""
    for name in modules:
        if name not in sys.modules:
            with suppress(ImportError):
                importlib.import_module(name)
    gc.freeze()  # no child looks through what is imported, which would also copy its memory


def results_in(run: Path) -> dict[str, str]:
    """A hash of each file of a run, without those that hold times, pictures, and checkpoints, which rotate."""
    files = [file for file in run.rglob("*") if file.is_file() and file.name not in NOT_RESULTS]
    kept = [file for file in files if not NOT_RESULT_FOLDERS & set(file.relative_to(run).parts)]
    kept = [file for file in kept if "checkpoint-" not in str(file.relative_to(run))]
    return {str(file.relative_to(run)): hashlib.sha256(_content(file)).hexdigest() for file in kept}


def _content(file: Path) -> bytes:
    """The bytes of a file; of a log without the order of its keys, which checkpoints sort."""
    return (
        json.dumps(json.loads(file.read_text()), sort_keys=True).encode()
        if file.name == "log.json"
        else file.read_bytes()
    )


def unfinished_in(run: Path) -> list[str]:
    """What a run should not leave in its folder."""
    found = {path for pattern in UNFINISHED for path in run.rglob(pattern)}
    return sorted(str(path.relative_to(run)) for path in found)


def write_config(file: Path, *, rounds: bool = False, unlabelled: bool = False, **changes: Any) -> dict[str, Any]:
    """Write the configuration, and the models and data that it names."""
    from tests.helpers import runs

    raw = runs.raw(file.parent, strategies=["unified", "pairwise"], merge={"kind": "linear"}, **changes)
    raw["data"]["responses"] = {"kind": "best_source", "max_new_tokens": 4, "truncated": "keep"}
    for data in raw["data"]["train"]:
        data["check"] = {"kind": "ended"}
    if unlabelled:
        raw["data"]["responses"]["unlabelled"] = "best"
        halves = ({"limit": 4, "response": "{response}"}, {"skip": 4, "response": None})
        raw["data"]["train"] = [
            data | {"prompt": "{prompt}"} | half for data in raw["data"]["train"] for half in halves
        ]
    if rounds:
        raw["rounds"] = {
            "count": 2, "prompts": 4, "num_generations": 2, "max_completion_length": 6, "replay": 0.5,
            "objectives": [{"kind": "forward_kl"}, {"kind": "cross_entropy", "part": "replay"}], "training": {"max_steps": 2},
        }  # fmt: skip
        validation = runs.write_data(file.parent, "validation.jsonl", 2, start=300)
        raw["data"]["validation"] = [{"path": validation, "domain": "d0", "where": {"domain": 0}}]
    raw["training"] |= {"max_steps": 3, "save_steps": 1, "save_total_limit": 2}
    file.write_text(yaml.safe_dump(raw))
    return {}


def in_child(folder: Path, body: Callable[[], dict[str, Any]], name: str = "answer.json") -> dict[str, Any]:
    """Call `body` in a forked process; what it returns, or nothing where it was killed."""
    answer = folder / name
    answer.unlink(missing_ok=True)
    if (pid := os.fork()) == 0:
        runner.SECONDS = PATIENCE
        try:
            answer.write_text(json.dumps(body()))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    return json.loads(answer.read_text()) if answer.is_file() else {}
