"""Objectives on rows of the pivot and of one source that were matched."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod

from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from fusion.core.rows import LogitRows, MappedRows
from fusion.objectives.base import Requirements
from fusion.objectives.base_classes.sourcewise import SourcewiseObjective
from fusion.objectives.selection import Selection
from fusion.objectives.targets import BatchTargets, ObjectiveInputs, SourceTargets


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
