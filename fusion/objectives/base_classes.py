"""Base classes of objectives: what a formula is called with, what its values count, and how they are averaged.

RowObjective          each row of the pivot alone (the text itself)
PairObjective         matched rows, each in its own vocabulary
MappedObjective       matched rows entry by entry, both in the pivot's vocabulary
AllSourcesObjective   each row of the pivot against all sources at once
SpanObjective         log-probabilities of spans of text between shared boundaries
RelationObjective     how the matched rows of an example stand to each other
ExampleObjective      all rows of an example, unmatched
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from typing_extensions import override

from fusion.core.rows import LogitRows, MappedRows
from fusion.objectives.base import Objective, Requirements, Term
from fusion.objectives.selection import Selection
from fusion.objectives.targets import BatchTargets, ObjectiveInputs, SourceTargets


class RowObjective(Objective):
    """Compares each of the pivot's rows with the text alone, as cross-entropy does. Unit: a row."""

    after_others: ClassVar[bool] = True
    use_remaining_weight: bool = False
    """Count each row by what the other terms leave of it: 1 less the sum of their weights there, those of sources and selection
    included, and at least 0. So rows that no source is heard at are learned from the text in full."""

    @property
    @override
    def requirements(self) -> Requirements:
        return Requirements(
            pivot_top_k=self.required_top_k,
            pivot_fields=self.required_pivot_fields,
            sources=False,
            exact_entries=False,
        )

    def counted_rows(self, targets: BatchTargets) -> Bool[Tensor, " N"] | None:
        """Which rows of the pivot it is about; None for all. Others are not in the mean."""
        return None

    @override
    def counts(self, targets: BatchTargets) -> dict[str, int]:
        rows = self.counted_rows(targets)
        return {self.kind: len(targets.positions) if rows is None else int(rows.sum())}

    @override
    def terms(self, inputs: ObjectiveInputs) -> Iterator[Term]:
        pivot, weight, rows = inputs.pivot, inputs.remaining_weight, self.counted_rows(inputs.targets)
        if rows is not None:
            pivot, weight = pivot.select(rows), weight[rows]
        values = _one_for_each(self, self(pivot), len(pivot))
        yield Term(self.kind, (values * weight.clamp(min=0) if self.use_remaining_weight else values).sum())

    @abstractmethod
    def __call__(self, pivot: LogitRows) -> Float[Tensor, " N"]:
        """Compute one value for each of the N rows; `pivot.gold` is the log-probability of the token that follows."""


class SourcewiseObjective(Objective):
    """Compares the pivot with each source alone: one term for each, named `kind/source`."""

    @override
    def counts(self, targets: BatchTargets) -> dict[str, int]:
        return {f"{self.kind}/{name}": self.count(targets, source) for name, source in targets.sources.items()}

    @override
    def terms(self, inputs: ObjectiveInputs) -> Iterator[Term]:
        for name, source in inputs.targets.sources.items():
            values, weight, row_weight = self.compare(inputs, name, source)
            values = _one_for_each(self, values, weight.numel())
            yield Term(f"{self.kind}/{name}", (weight * values).sum(), row_weight)

    @abstractmethod
    def count(self, targets: BatchTargets, source: SourceTargets) -> int:
        """Count the values against one source in this batch: what its mean divides by."""

    @abstractmethod
    def compare(
        self, inputs: ObjectiveInputs, name: str, source: SourceTargets
    ) -> tuple[Tensor, Tensor, Float[Tensor, " N"] | None]:
        """Gather the formula's arguments and call it: its values, how much each counts, and how much at each pivot row."""

    def extra_arguments(self, inputs: ObjectiveInputs, name: str) -> dict[str, Any]:
        """Keywords for the formula besides rows: a module of the objective's own, say."""
        return {}


class MatchedObjective(SourcewiseObjective):
    """Compares matched rows, of which `select` may leave out some. What is left out counts in the mean, as 0."""

    select: Selection | None = None
    """Which rows count; all if not said."""

    @property
    @override
    def requirements(self) -> Requirements:
        found = super().requirements
        # a selection looks at the pivot's largest entry
        at_least = None if found.pivot_top_k is None else max(found.pivot_top_k, int(self.select is not None))
        return dataclasses.replace(found, pivot_top_k=at_least)

    def selected(
        self, pivot: LogitRows, source: LogitRows | MappedRows, source_logprob: Float[Tensor, " M"]
    ) -> Tensor | int:
        """Say whether each matched row counts: 1 or 0 for each, or 1 for all.

        `source_logprob` is what the source gives to the token that follows, in nats.
        """
        return 1 if self.select is None else self.select(pivot, source, source_logprob)


class PairObjective(MatchedObjective):
    """Compares matched rows, each with its own entries, largest first, in its own vocabulary. Unit: a pair of rows.

    For formulas that do not ask which token an entry stands for: by rank, such as `infifusion`, or on hidden states.
    """

    @override
    def count(self, targets: BatchTargets, source: SourceTargets) -> int:
        return len(source.pairs)

    @override
    def compare(
        self, inputs: ObjectiveInputs, name: str, source: SourceTargets
    ) -> tuple[Tensor, Tensor, Float[Tensor, " N"]]:
        pivot, rows = inputs.pivot.select(source.pairs.pivot), source.rows.select(source.pairs.source)
        weight = source.weight * self.selected(pivot, rows, rows.gold)
        values = self(pivot, rows, **self.extra_arguments(inputs, name))
        return values, weight, weight.new_zeros(len(inputs.pivot)).index_put((source.pairs.pivot,), weight)

    @abstractmethod
    def __call__(self, pivot: LogitRows, source: LogitRows) -> Float[Tensor, " M"]:
        """Compute one value for each of the M pairs; row m of one belongs to row m of the other."""


class MappedObjective(MatchedObjective):
    """Compares matched rows token by token: entry k of both is about the same id of the pivot. Unit: a mapped row.

    The class to derive from first: KL in every direction is one. An id of -1, or a source's log-probability of -inf, is an
    empty entry, whatever the pivot has there.
    """

    @property
    @override
    def required_top_k(self) -> int | None:
        return 0  # the pivot is asked for the source's ids instead of its own largest

    @property
    @override
    def requirements(self) -> Requirements:
        return dataclasses.replace(super().requirements, mapped_rows=True)

    @override
    def count(self, targets: BatchTargets, source: SourceTargets) -> int:
        return len(source.mapped)

    @override
    def compare(
        self, inputs: ObjectiveInputs, name: str, source: SourceTargets
    ) -> tuple[Tensor, Tensor, Float[Tensor, " N"]]:
        index, mapped = source.pivot_index, source.mapped
        largest = inputs.pivot.select(index)
        weight = source.weight[source.mapped_pair_index] * self.selected(largest, mapped, mapped.pivot_token_logprob)
        pivot = dataclasses.replace(largest, logprobs=inputs.query_logprobs[name][index], ids=mapped.ids)
        values = self(pivot, mapped, **self.extra_arguments(inputs, name))
        return values, weight, weight.new_zeros(len(inputs.pivot)).index_put((index,), weight)

    @abstractmethod
    def __call__(self, pivot: LogitRows, source: MappedRows) -> Float[Tensor, " M"]:
        """Compute one value for each of the M rows; `pivot.logprobs` and `source.logprobs` are about `source.ids`, [M, K]."""


class AllSourcesObjective(Objective):
    """Compares each row of the pivot with all sources at once. Unit: a row that any source speaks of.

    Every source has M rows, in the pivot's ids, empty where it has nothing to say; `share` is how much each counts there,
    0 in such a row and 1 in sum over the sources. The pivot is about the ids of all sources, one source's after another's.
    """

    @property
    @override
    def required_top_k(self) -> int | None:
        return 0  # the pivot is asked for the sources' ids instead of its own largest

    @property
    @override
    def requirements(self) -> Requirements:
        return dataclasses.replace(super().requirements, mapped_rows=True)

    @override
    def counts(self, targets: BatchTargets) -> dict[str, int]:
        return {self.kind: len(targets.mapped_positions)}

    @override
    def terms(self, inputs: ObjectiveInputs) -> Iterator[Term]:
        targets, pivot = inputs.targets, inputs.pivot
        if not targets.sources:
            yield Term(self.kind, pivot.gold.sum() * 0)
            return
        weights = torch.stack([source.weight_at_pivot(targets.positions) for source in targets.sources.values()])
        index = targets.mapped_positions[weights.sum(0)[targets.mapped_positions] > 0]
        rows = {n: source.rows_at_pivot(targets.positions).select(index) for n, source in targets.sources.items()}
        ids = torch.cat([each.ids for each in rows.values()], dim=1)
        asked = torch.cat(list(inputs.query_logprobs.values()), dim=1)[index]
        sums = weights[:, index].sum(0)
        asked_rows = dataclasses.replace(pivot.select(index), logprobs=asked, ids=ids)
        values = _one_for_each(self, self(asked_rows, rows, weights[:, index] / sums), len(index))
        yield Term(self.kind, (values * sums).sum(), sums.new_zeros(len(pivot)).index_put((index,), sums))

    @abstractmethod
    def __call__(
        self, pivot: LogitRows, sources: Mapping[str, MappedRows], share: Float[Tensor, "S M"]
    ) -> Float[Tensor, " M"]:
        """Compute one value for each of the M rows; `share` are the weights of the S sources there."""


class SpanObjective(SourcewiseObjective):
    """Compares spans of text from one boundary that both models share to the next, however many tokens each needs.

    Unit: a span.
    """

    @property
    @override
    def required_top_k(self) -> int | None:
        return 0

    @property
    @override
    def required_source_fields(self) -> frozenset[str]:
        return frozenset({"gold"})

    @property
    @override
    def requirements(self) -> Requirements:
        return dataclasses.replace(super().requirements, aligned_spans=True, exact_entries=False)

    @override
    def count(self, targets: BatchTargets, source: SourceTargets) -> int:
        return len(source.spans)

    @override
    def compare(
        self, inputs: ObjectiveInputs, name: str, source: SourceTargets
    ) -> tuple[Tensor, Tensor, Float[Tensor, " N"]]:
        spans, weight = source.spans, source.weight[source.spans.pair]
        pivot_logprob = spans.sum_rows(inputs.pivot.gold, spans.pivot_span)
        source_logprob = spans.sum_rows(source.rows.gold, spans.source_span)
        inside = spans.pivot_span >= 0
        row_weight = weight.new_zeros(len(inputs.pivot)).index_put((inside,), weight[spans.pivot_span[inside]])
        return self(pivot_logprob, source_logprob), weight, row_weight

    @abstractmethod
    def __call__(self, pivot: Float[Tensor, " M"], source: Float[Tensor, " M"]) -> Float[Tensor, " M"]:
        """Compute one value for each span, from its log-probability under either model, in nats."""


class RelationObjective(SourcewiseObjective):
    """Compares how the matched rows of an example stand to each other, for instance by cosines. Unit: an example.

    Row m of the pivot belongs to row m of the source.
    """

    @override
    def count(self, targets: BatchTargets, source: SourceTargets) -> int:
        return len(targets.examples)

    @override
    def compare(self, inputs: ObjectiveInputs, name: str, source: SourceTargets) -> tuple[Tensor, Tensor, None]:
        pivot, rows = inputs.pivot.select(source.pairs.pivot), source.rows.select(source.pairs.source)
        values = self(pivot, rows, len(inputs.targets.examples), **self.extra_arguments(inputs, name))
        return values, mean_weight_by_example(inputs, source), None

    @abstractmethod
    def __call__(self, pivot: LogitRows, source: LogitRows, examples: int) -> Float[Tensor, " E"]:
        """Compute one value for each example, `example` counting from 0 to E-1; 0 where it has no matched rows."""


class ExampleObjective(SourcewiseObjective):
    """Compares all rows of an example at once, without matching them. Unit: an example.

    `example` of the rows counts from 0 to E-1 on both sides.
    """

    @override
    def count(self, targets: BatchTargets, source: SourceTargets) -> int:
        return len(targets.examples)

    @override
    def compare(self, inputs: ObjectiveInputs, name: str, source: SourceTargets) -> tuple[Tensor, Tensor, None]:
        values = self(inputs.pivot, source.rows, len(inputs.targets.examples), **self.extra_arguments(inputs, name))
        return values, mean_weight_by_example(inputs, source), None

    @abstractmethod
    def __call__(self, pivot: LogitRows, source: LogitRows, examples: int) -> Float[Tensor, " E"]:
        """Compute one value for each example; 0 where a side has no rows of it."""


def mean_weight_by_example(inputs: ObjectiveInputs, source: SourceTargets) -> Float[Tensor, " E"]:
    """Return the mean weight of each example's pairs, 0 where it has none."""
    example, examples = inputs.pivot.example[source.pairs.pivot], len(inputs.targets.examples)
    sums = source.weight.new_zeros(examples).index_add(0, example, source.weight)
    return sums / torch.bincount(example, minlength=examples).clamp(min=1)


def _one_for_each(objective: Objective, values: Tensor, count: int) -> Tensor:
    """Return the values of a formula. Raises ValueError where their shape is not [count]: it would be broadcast, and summed."""
    if values.shape != (count,):
        raise ValueError(
            f"The objective {objective.kind} returned a value of shape {list(values.shape)}; it must return one number for "
            f"each of {count}, shape [{count}]: sum or average over the entries of a row."
        )
    return values
