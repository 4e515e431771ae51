"""Objectives on pieces of text longer than a row: spans and whole examples."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from fusion.core.rows import LogitRows
from fusion.objectives.base import Requirements
from fusion.objectives.base_classes.sourcewise import SourcewiseObjective
from fusion.objectives.targets import BatchTargets, ObjectiveInputs, SourceTargets


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
