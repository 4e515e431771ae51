"""How much of its rows a cache knows: not every backend can tell every field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fusion.core.rows import LogitRows


@dataclass(frozen=True)
class KnownFields:
    """Of all rows of a cache."""

    rows: int
    gold: int
    """Rows with the log-probability of the token that follows."""
    moments: int
    """Rows with mean and standard deviation of the logits."""
    min_entries: int
    """The fewest entries that any row has."""
    hidden: int = 0
    """Rows with a hidden state."""

    @classmethod
    def from_shards(cls, shards: Sequence[Sequence[int]]) -> KnownFields:
        """The whole from `known` of each shard; of older caches, without hidden states, that is four numbers."""
        rows, gold, moments, entries, hidden = zip(*((*shard, 0)[:5] for shard in shards), strict=True)
        return cls(sum(rows), sum(gold), sum(moments), min(entries), sum(hidden))


def count_known_fields(rows: LogitRows) -> Tensor:
    """Rows, rows with gold, rows with moments, the fewest entries of a row, and rows with a hidden state: int [5]."""
    moments = rows.mean.isfinite() & rows.std.isfinite()
    entries = int((rows.ids >= 0).sum(-1).min()) if len(rows) else rows.k
    hidden = 0 if rows.hidden is None else int(rows.hidden.isfinite().all(-1).sum())
    return torch.tensor([len(rows), int(rows.gold.isfinite().sum()), int(moments.sum()), entries, hidden])
