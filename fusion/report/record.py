"""What the report reads of a run folder: `run.json`, `config.yaml`, training logs and results; see `Record`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from fusion_eval.results import Result, mistakes


class _Part(BaseModel):
    """A part of `run.json`; keys the report does not use are left alone."""

    model_config = ConfigDict(frozen=True, from_attributes=True, use_attribute_docstrings=True, protected_namespaces=())


class ModelFacts(_Part):
    """One model of the run: the pivot or a source."""

    id: str
    """Hub id or folder."""
    role: Literal["pivot", "source"]
    parameters: int | None = None
    vocab: int | None = None
    model_type: str | None = None
    licence: str | None = None
    fingerprint: str | None = None


class Stage(_Part):
    """One stage of the pipeline and the wall time it took; `skipped` where its output was already there."""

    name: str
    seconds: float = Field(ge=0)
    skipped: bool = False


class Helping(_Part):
    """What one source knows in one domain, against the pivot before training."""

    source: str
    domain: str
    rows: int
    """Rows of the pivot in this domain."""
    match_rate: float
    """Share of those rows that meet a row of the source, 0 to 1."""
    gold_source: float | None
    """Mean log-probability of the true text under the source, in nats per byte, nearer 0 is better; None if unknown."""
    gold_pivot: float | None
    """The same under the pivot, on the same text."""
    weight: float | None = None
    """Mean weight of the source over its matched rows; None where sources are not weighted."""


class Data(_Part):
    """Examples in each domain, for training and held out."""

    train: dict[str, int] = {}
    heldout: dict[str, int] = {}


class RunFile(_Part):
    """`run.json`."""

    name: str
    created: str
    versions: dict[str, str] = {}
    models: dict[str, ModelFacts] = {}
    stages: list[Stage] = []
    helping: list[Helping] = []
    data: Data | None = None
    result: str | None = None
    """Name of the fused model among the evaluated ones."""
    baseline: str | None = None
    """Name of the plainly fine-tuned pivot among the evaluated models, which stars and verdicts compare with."""


Log = list[dict[str, int | float | None]]
"""A training log: entries with `step`, `loss`, `loss/<part>`, `match/<source>`, `weight/<source>`."""


@dataclass(frozen=True)
class Record:
    """All that is known of a run."""

    run: RunFile
    config: str | None
    """`config.yaml` as it stands."""
    logs: dict[str, Log]
    """Training log of each run of the trainer: `unified`, `pairwise/<source>`."""
    results: dict[str, list[Result]]
    """Results of each suite: the fused model first, then the baseline, the pivot, the sources, the others by name."""

    def result(self, suite: str) -> Result | None:
        """Result of the fused model, or None where it was not evaluated on this suite."""
        return next((r for r in self.results[suite] if r.model == self.run.result), None)

    def baseline(self, suite: str) -> Result | None:
        """Result of plain fine-tuning, or None where it was not evaluated on this suite."""
        return next((r for r in self.results[suite] if r.model == self.run.baseline), None)


def read_run(run: Path) -> Record:
    """Read what the run has so far; only `run.json` must be there.

    Raises FileNotFoundError without it, and ValueError naming the file and every mistake where one cannot be read.
    """
    path = run / "run.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing, so {run} is not the folder of a run. Give the folder of a run.")
    facts = _read(path, RunFile)
    config = run / "config.yaml"
    return Record(
        run=facts,
        config=config.read_text(encoding="utf-8") if config.is_file() else None,
        logs={_log_name(run, path): _read(path, Log) for path in sorted((run / "train").rglob("log.json"))},
        results=_results(run / "eval", facts),
    )


def _log_name(run: Path, path: Path) -> str:
    return path.parent.relative_to(run / "train").as_posix()


def _results(folder: Path, facts: RunFile) -> dict[str, list[Result]]:
    """Results by suite, models in the order in which a reader wants them."""
    found = [Result.load(path) for path in sorted(folder.glob("*/*.json"))]
    suites: dict[str, list[Result]] = {suite: [] for suite in sorted({result.suite for result in found})}
    for result in sorted(found, key=lambda result: _place(result.model, facts)):
        suites[result.suite].append(result)
    return suites


def _place(model: str, facts: RunFile) -> tuple[int, str]:
    pivots = [name for name, model in facts.models.items() if model.role == "pivot"]
    sources = [name for name, model in facts.models.items() if model.role == "source"]
    order = [facts.result, facts.baseline, *pivots, *sources]
    return (order.index(model), "") if model in order else (len(order), model)


def helping_rows(rows: Iterable[Any]) -> list[Helping]:
    """Rows of the `helping` list, as read from JSON or as objects with these attributes.

    Raises pydantic's ValidationError (a ValueError) for a row that lacks one.
    """
    return TypeAdapter(list[Helping]).validate_python(list(rows))


def _read(path: Path, kind: Any) -> Any:
    try:
        return TypeAdapter(kind).validate_python(json.loads(path.read_text(encoding="utf-8")))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}). It may be half written; run the stage again.") from error
    except ValidationError as error:
        raise ValueError(f"{path} cannot be used:{mistakes(error)}") from error
