"""The terms of the loss: what each objective says of a batch, against each source, as shares of the global means."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fusion.alignment import Words
from fusion.core.rows import LogitRows
from fusion.models.head import Head
from fusion.objectives import (
    AnyObjective,
    ExampleObjective,
    MappedObjective,
    PairObjective,
    RelationObjective,
    RowObjective,
    SourcesObjective,
    SpanObjective,
    SpelledObjective,
)
from fusion.training.auxiliary_modules import of
from fusion.training.batch_targets import Matched, Targets, ask

Counts = Mapping[str, int] | Mapping[str, float]
"""Denominators of the global means, by what is counted."""
Term = tuple[str, AnyObjective, Tensor]
"""Name, objective, and share of the global mean."""


@dataclass(frozen=True)
class Terms:
    """All that a loss is made of, on batches of any size."""

    head: Head
    objectives: Sequence[AnyObjective]
    words: Mapping[str, Words]
    """By source, where an objective compares spellings."""
    owned: nn.ModuleDict
    """Modules that objectives train beside the pivot."""

    def __call__(self, hidden: Tensor, targets: Targets, counts: Counts, step: int = 0) -> Iterator[Term]:
        """Every term of a batch: one for each objective and source it looks at alone.

        `hidden` is [B, T, D]. A term that has nothing to average over (no match in the whole batch) is 0.
        """
        pivot, asked = self._pivot_rows(hidden, targets)
        objectives = [objective.at_step(step) for objective in self.objectives]
        left = torch.ones(len(pivot), device=pivot.gold.device)
        against = {
            number: list(self._against(number, objective, pivot, asked, targets, counts, left))
            for number, objective in enumerate(objectives)
            if not isinstance(objective, RowObjective)
        }
        for number, objective in enumerate(objectives):
            if isinstance(objective, RowObjective):
                values = objective(pivot)
                values = values * left.clamp(min=0) if objective.rest else values
                yield objective.kind, objective, values.sum() / counts["row"]
            for name, mean in against.get(number, []):
                yield name, objective, mean

    def _against(
        self,
        number: int,
        objective: Any,
        pivot: LogitRows,
        asked: dict[str, Tensor],
        targets: Targets,
        counts: Counts,
        left: Tensor,
    ) -> Iterator[tuple[str, Tensor]]:
        """Name and mean of a term against each source, or all at once; what it counts at each row is taken from `left`."""
        kind = objective.kind
        if isinstance(objective, SourcesObjective):
            total = pivot.gold.sum() * 0
            if targets.sources:
                values, at, weight = _taught(objective, pivot, asked, targets)
                total, left[at] = values.sum(), left[at] - objective.weight * weight
            yield kind, total / max(1, counts["sources"])
            return
        for name, source in targets.sources.items():
            unit = "example" if objective.unit in ("example", "relation") else f"{objective.unit}/{name}"
            words, module = self.words.get(name), of(self.owned, number, name)
            values, weight = _compared(objective, pivot, asked[name], source, targets.examples, words, module)
            left -= objective.weight * _at_rows(objective, source, weight, len(pivot))
            yield f"{kind}/{name}", (weight * values).sum() / max(1, counts[unit])

    def _pivot_rows(self, hidden: Tensor, targets: Targets) -> tuple[LogitRows, dict[str, Tensor]]:
        """The pivot's rows, and what it says of each source's ids: [N, K] by source."""
        entries = [_entries(objective) for objective in self.objectives]
        k = self.head.vocabulary if None in entries else max((e for e in entries if e is not None), default=0)
        mapped = any(objective.unit in ("mapped", "sources") for objective in self.objectives)
        moments = any(objective.reads & {"mean", "std"} for objective in self.objectives)
        chosen = hidden.flatten(0, 1)[targets.at]
        rows, asked = self.head.rows(chosen, targets.about, k, ask(targets) if mapped else None, moments)
        if any("hidden" in objective.reads for objective in self.objectives):
            rows = dataclasses.replace(rows, hidden=chosen)
        widths = [source.mapped.k if mapped else 0 for source in targets.sources.values()]
        return rows, dict(zip(targets.sources, asked.split(widths, dim=1), strict=True)) if widths else {}


def _entries(objective: AnyObjective) -> int | None:
    """How many of the pivot's largest entries a term reads."""
    if isinstance(objective, SpelledObjective):
        return objective.candidates
    selects = isinstance(objective, PairObjective | MappedObjective) and objective.select is not None
    return objective.entries if objective.entries is None else max(objective.entries, int(selects))


def _compared(
    objective: PairObjective
    | SpelledObjective
    | MappedObjective
    | SpanObjective
    | RelationObjective
    | ExampleObjective,
    pivot: LogitRows,
    asked: Tensor,
    source: Matched,
    examples: int,
    words: Words | None,
    module: nn.Module | None = None,
) -> tuple[Tensor, Tensor]:
    """Values of one objective against one source, with its module where it owns one, and how much each counts."""
    own: dict[str, Any] = {} if module is None else {"module": module}
    if isinstance(objective, ExampleObjective):
        own |= {"other": source.other} if objective.reads_other_answers else {}
        return objective(pivot, source.rows, examples, **own), _mean_by_example(source, pivot, examples)
    if isinstance(objective, SpanObjective):
        text = source.stretches
        mine, theirs = text.sums(pivot.gold, text.pivot), text.sums(source.rows.gold, text.source)
        return objective(mine, theirs), source.weight[text.at]
    if isinstance(objective, RelationObjective):
        mine, theirs = pivot.select(source.pairs.pivot), source.rows.select(source.pairs.source)
        return objective(mine, theirs, examples, **own), _mean_by_example(source, pivot, examples)
    if isinstance(objective, MappedObjective):
        largest, theirs, weight = pivot.select(source.at), source.mapped, source.weight[source.comparable]
        mine = dataclasses.replace(largest, logprobs=asked[source.at], ids=theirs.ids)
    else:
        mine, theirs, weight = pivot.select(source.pairs.pivot), source.rows.select(source.pairs.source), source.weight
        largest = mine
    chosen = 1 if objective.select is None else objective.select(largest, theirs)
    if isinstance(objective, SpelledObjective):
        assert words is not None
        ids = mine.ids[:, : objective.candidates], theirs.ids[:, : objective.entries]
        return objective(mine, theirs, words.distance(*ids)), weight * chosen
    return objective(mine, theirs, **own), weight * chosen


def _at_rows(objective: AnyObjective, source: Matched, weight: Tensor, rows: int) -> Tensor:
    """What each value counts, at the pivot's rows that it is about; 0 for terms on whole examples."""
    found = weight.new_zeros(rows)
    if isinstance(objective, SpanObjective):
        inside = source.stretches.pivot >= 0
        found[inside] = weight[source.stretches.pivot[inside]]
    elif isinstance(objective, MappedObjective):
        found[source.at] = weight
    elif isinstance(objective, PairObjective | SpelledObjective):
        found[source.pairs.pivot] = weight
    return found


def _taught(
    objective: SourcesObjective, pivot: LogitRows, asked: dict[str, Tensor], targets: Targets
) -> tuple[Tensor, Tensor, Tensor]:
    """Values of an objective that looks at all sources at once, weighted, at the rows where there is any; where, how much."""
    found = {name: source.everywhere(targets.about) for name, source in targets.sources.items()}
    total = torch.stack([weight for _, weight in found.values()])
    at = targets.taught[total.sum(0)[targets.taught] > 0]
    rows = {name: theirs.select(at) for name, (theirs, _) in found.items()}
    ids = torch.cat([theirs.ids for theirs in rows.values()], dim=1)
    mine = dataclasses.replace(pivot.select(at), logprobs=torch.cat(list(asked.values()), dim=1)[at], ids=ids)
    sums = total[:, at].sum(0)
    return objective(mine, rows, total[:, at] / sums) * sums, at, sums


def _mean_by_example(source: Matched, pivot: LogitRows, examples: int) -> Tensor:
    """The mean weight of each example's pairs, 0 where it has none."""
    example = pivot.example[source.pairs.pivot]
    sums = source.weight.new_zeros(examples).index_add(0, example, source.weight)
    return sums / torch.bincount(example, minlength=examples).clamp(min=1)
