"""Objectives on the pivot's rows alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar

from jaxtyping import Bool, Float
from torch import Tensor
from typing_extensions import override

from fusion.core.rows import LogitRows
from fusion.objectives.base import Objective, Requirements, Term
from fusion.objectives.base_classes.sourcewise import one_for_each
from fusion.objectives.targets import BatchTargets, ObjectiveInputs


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
        values = one_for_each(self, self(pivot), len(pivot))
        yield Term(self.kind, (values * weight.clamp(min=0) if self.use_remaining_weight else values).sum())

    @abstractmethod
    def __call__(self, pivot: LogitRows) -> Float[Tensor, " N"]:
        """Compute one value for each of the N rows; `pivot.gold` is the log-probability of the token that follows."""
