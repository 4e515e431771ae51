"""Objectives on all sources at once."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Iterator, Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from fusion.core.rows import LogitRows, MappedRows
from fusion.objectives.base import Objective, Requirements, Term
from fusion.objectives.base_classes.sourcewise import one_for_each
from fusion.objectives.targets import BatchTargets, ObjectiveInputs


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
        values = one_for_each(self, self(asked_rows, rows, weights[:, index] / sums), len(index))
        yield Term(self.kind, (values * sums).sum(), sums.new_zeros(len(pivot)).index_put((index,), sums))

    @abstractmethod
    def __call__(
        self, pivot: LogitRows, sources: Mapping[str, MappedRows], share: Float[Tensor, "S M"]
    ) -> Float[Tensor, " M"]:
        """Compute one value for each of the M rows; `share` are the weights of the S sources there."""
