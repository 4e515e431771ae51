"""Batches as if the pivot had written their texts, with made-up numbers that depend on token, place and text alone."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fusion.core.example import ExampleInfo
from fusion.core.rows import LogitRows, Pairs
from fusion.core.spans import AlignedSpans
from fusion.objectives import BatchTargets, ObjectiveInputs, RolloutTargets, SourceTargets
from tests.helpers.rows import as_mapped


def as_rollouts(targets: BatchTargets) -> BatchTargets:
    """The batch with every text written by the pivot: made-up log-probabilities and rewards, the same in every batch."""
    token, prefix = targets.positions.token, targets.positions.prefix
    assert token is not None
    old = -3.5 - (token * 7 % 11) / 2 - prefix * 0.01
    rewards = torch.tensor([zlib.crc32(info.id.encode()) % 7 / 3 - 1 for info in targets.examples])
    examples = [info._replace(part="rollouts") for info in targets.examples]
    return dataclasses.replace(
        targets, examples=examples, rollouts=RolloutTargets(old, rewards, reference_logprobs=old * 1.1)
    )


def inputs_of(
    pivot: LogitRows,
    sources: Mapping[str, LogitRows],
    examples: int | Sequence[ExampleInfo],
    rollouts: RolloutTargets | None = None,
) -> ObjectiveInputs:
    """What an objective sees of sources with the pivot's own tokens: row n of one belongs to row n of the other."""
    infos = [ExampleInfo("d", f"e{n}") for n in range(examples)] if isinstance(examples, int) else examples
    there = {name: one_to_one(pivot, rows) for name, rows in sources.items()}
    targets = BatchTargets(torch.arange(len(pivot)), pivot, there, infos)
    targets = as_rollouts(targets) if rollouts is None else dataclasses.replace(targets, rollouts=rollouts)
    return ObjectiveInputs(pivot, {}, targets, torch.ones(len(pivot)))


def one_to_one(pivot: LogitRows, rows: LogitRows, weight: Tensor | None = None) -> SourceTargets:
    """A source whose rows are paired with the pivot's in order, each a span of its own."""
    every = torch.arange(len(pivot))
    none = rows.select(slice(0, 0))
    return SourceTargets(
        rows=rows,
        pairs=Pairs(every, every),
        weight=torch.ones(len(pivot)) if weight is None else weight,
        mapped_pair_index=every[:0],
        mapped=as_mapped(none),
        spans=AlignedSpans(every, every, every),
        other_answer=none,
    )
