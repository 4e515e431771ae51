"""What the report reads of a run folder: `run.json`, `alignment.json`, `config.yaml`, training logs and results."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from fusion.core.overlay import Overlay
from fusion.runtime.run_file import Helping, RunFile
from fusion.runtime.run_record import RunRecord
from fusion_eval.results import Result, format_mistakes

Log = list[dict[str, int | float | None]]
"""A training log: entries with `step`, `loss`, `loss/<part>`, `grad_norm`, `entropy`, `calibration/<part>`, `match/<source>`,
`weight/<source>`; and entries of validation examples: `eval_<number>`, a mean over domains, and `eval_<number>/<domain>`."""


PREFERENCES = "preferences"
"""The last training of a run that has them, and its folder."""


@dataclass(frozen=True)
class RunContents:
    """Everything in the folder of a run that the report shows."""

    run: RunFile
    config: str | None
    """`config.yaml` as it stands."""
    logs: dict[str, Log]
    """Training log of each run of the trainer: `unified`, `pairwise/<source>`, `round <number>`, `preferences`."""
    results: dict[str, list[Result]]
    """Results of each suite: the fused model first, then the baseline, the pivot, the sources, the others by name."""
    overlays: list[Overlay]
    """One text of each domain in the tokens of every model; none before the caches are complete."""

    def result(self, suite: str) -> Result | None:
        """Result of the fused model, or None where it was not evaluated on this suite."""
        return next((r for r in self.results[suite] if r.model == self.run.result), None)

    def baseline(self, suite: str) -> Result | None:
        """Result of plain fine-tuning, or None where it was not evaluated on this suite."""
        return next((r for r in self.results[suite] if r.model == self.run.baseline), None)

    def results_by_role(self, suite: str, role: Literal["pivot", "source"]) -> list[Result]:
        """Results of the models that have this role."""
        names = self.run.names_by_role(role)
        return [result for result in self.results[suite] if result.model in names]

    @property
    def models(self) -> list[str]:
        """Names of the models that were evaluated or trained from, each once."""
        evaluated = [result.model for results in self.results.values() for result in results]
        return list(dict.fromkeys([*self.run.models, *evaluated]))


def read_run(run: Path) -> RunContents:
    """Read what the run has so far; only `run.json` must be there.

    Raises FileNotFoundError without it, and ValueError naming the file and every mistake where one cannot be read.
    """
    path = run / "run.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing, so {run} is not the folder of a run. Give the folder of a run.")
    RunRecord(run).read()  # refuses one that is not as it was written
    facts = _read(path, RunFile)
    config = run / "config.yaml"
    return RunContents(
        run=facts,
        config=config.read_text(encoding="utf-8") if config.is_file() else None,
        logs=_logs(run / "train", facts) | _logs_of_later_steps(run, facts),
        results=_results(run / "eval", facts),
        overlays=_read(alignment, list[Overlay]) if (alignment := run / "alignment.json").is_file() else [],
    )


def _logs(folder: Path, facts: RunFile) -> dict[str, Log]:
    """Logs by training: the baseline first, then those of all sources, then those of one."""
    files = sorted([*folder.glob("*/log.json"), *folder.glob("*/*/log.json")])  # unlike rglob, by way of links too
    found = {file.parent.relative_to(folder).as_posix(): file for file in files}
    order = sorted(found, key=lambda name: (name != facts.baseline, name.count("/"), name))
    return {name: _read(found[name], Log) for name in order}


def _logs_of_later_steps(run: Path, facts: RunFile) -> dict[str, Log]:
    """Logs of the trainings of rounds, in their order, and of preferences; one that is not done has none yet."""
    count = facts.rounds.count if facts.rounds else 0
    folders = {f"round {n}": run / "rounds" / str(n) for n in range(1, count + 1)}
    if facts.preferences:
        folders[PREFERENCES] = run / PREFERENCES
    files = {name: folder / "train" / "unified" / "log.json" for name, folder in folders.items()}
    return {name: _read(file, Log) for name, file in files.items() if file.is_file()}


def _results(folder: Path, facts: RunFile) -> dict[str, list[Result]]:
    """Results by suite: the fused model first, then the baseline, the pivot, the sources, the others by name."""
    found = [Result.load(path) for path in sorted(folder.glob("*/*.json"))]
    suites: dict[str, list[Result]] = {suite: [] for suite in sorted({result.suite for result in found})}
    for result in sorted(found, key=lambda result: _place(result.model, facts)):
        suites[result.suite].append(result)
    return suites


def _place(model: str, facts: RunFile) -> tuple[int, str]:
    order = [facts.result, facts.baseline, *facts.names_by_role("pivot"), *facts.names_by_role("source")]
    return (order.index(model), "") if model in order else (len(order), model)


def helping_rows(rows: Iterable[Any]) -> list[Helping]:
    """Rows of the `helping` list, checked: as read from JSON, or as they are.

    Raises pydantic's ValidationError (a ValueError) for a row that lacks a field.
    """
    return TypeAdapter(list[Helping]).validate_python(list(rows))


def _read(path: Path, kind: Any) -> Any:
    try:
        return TypeAdapter(kind).validate_python(json.loads(path.read_text(encoding="utf-8")))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}). {_again(path)}") from error
    except ValidationError as error:
        raise ValueError(f"{path} cannot be used:{format_mistakes(error)}\n{_again(path)}") from error


def _again(path: Path) -> str:
    return f"Delete {path} and run the same command again: what is finished is kept."
