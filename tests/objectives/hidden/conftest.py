"""A batch of matched rows, for tests of what objectives draw at a step of training."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fusion.alignment import align_spans
from fusion.core.example import ExampleInfo
from fusion.core.rows import LogitRows, Pairs
from fusion.objectives import BatchTargets, Objective, ObjectiveInputs, SourceTargets
from tests.helpers.rows import as_mapped


@pytest.fixture
def total_at_step():
    """Total of an objective's term at a step, of one example whose rows match one to one."""

    def total(objective: Objective, step: int, pivot: LogitRows, source: LogitRows) -> Tensor:
        every, none = torch.arange(len(pivot)), slice(0, 0)
        pairs = Pairs(every, every)
        one = torch.ones(len(pivot), dtype=pivot.gold.dtype)
        targets = SourceTargets(
            rows=source,
            pairs=pairs,
            weight=one,
            mapped_pair_index=every[none],
            mapped=as_mapped(source.select(none)),
            spans=align_spans(pivot, source, pairs),
            other_answer=source.select(none),
        )
        batch = BatchTargets(every, pivot, {"source": targets}, [ExampleInfo("domain")])
        (term,) = objective.terms(ObjectiveInputs(pivot, {}, batch, one, step=step))
        assert term.name == f"{objective.kind}/source"
        return term.total

    return total
