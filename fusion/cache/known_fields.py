"""Counts of the rows of a cache that have each field: not every backend can give every field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fusion.core.rows import LogitRows


@dataclass(frozen=True)
class KnownFields:
    """Numbers of rows of a cache that have a field, and the fewest entries of any."""

    rows: int
    """All rows."""
    gold: int
    """Rows with the log-probability of the true token."""
    moments: int
    """Rows with mean and standard deviation of the logits."""
    min_entries: int
    """The fewest entries of any row."""
    hidden: int = 0
    """Rows with a hidden state."""

    @classmethod
    def from_shards(cls, shards: Sequence[Sequence[int]]) -> KnownFields:
        """Add up the counts of the shards, each as `count_known_fields` gives them."""
        rows, gold, moments, entries, hidden = zip(*shards, strict=True)
        return cls(sum(rows), sum(gold), sum(moments), min(entries), sum(hidden))


def count_known_fields(rows: LogitRows) -> Tensor:
    """Return int [5]: rows, rows with gold, rows with mean and std, the fewest entries of a row, rows with a hidden state."""
    moments = rows.mean.isfinite() & rows.std.isfinite()
    entries = int((rows.ids >= 0).sum(-1).min()) if len(rows) else rows.k
    hidden = 0 if rows.hidden is None else int(rows.hidden.isfinite().all(-1).sum())
    return torch.tensor([len(rows), int(rows.gold.isfinite().sum()), int(moments.sum()), entries, hidden])
