"""How much of its rows a cache knows: not every backend can tell every field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fusion.rows import LogitRows


@dataclass(frozen=True)
class Known:
    """Of all rows of a cache."""

    rows: int
    gold: int
    """Rows with the log-probability of the token that follows."""
    moments: int
    """Rows with mean and standard deviation of the logits."""
    entries: int
    """The fewest entries that any row has."""

    @classmethod
    def of(cls, shards: Sequence[Sequence[int]]) -> Known:
        """The whole from `known` of each shard."""
        rows, gold, moments, entries = zip(*shards, strict=True)
        return cls(sum(rows), sum(gold), sum(moments), min(entries))


def known(rows: LogitRows) -> Tensor:
    """Rows, rows with gold, rows with moments, and the fewest entries of a row: int [4]."""
    moments = rows.mean.isfinite() & rows.std.isfinite()
    entries = int((rows.ids >= 0).sum(-1).min()) if len(rows) else rows.k
    return torch.tensor([len(rows), int(rows.gold.isfinite().sum()), int(moments.sum()), entries])
