"""Mapped rows of a pivot and a source, for tests of single objectives."""

from __future__ import annotations

import torch
from torch import Tensor

from fusion.core.rows import LogitRows, MappedRows
from tests.helpers.rows import as_mapped, query, random_rows, rows_of


def mapped(M: int, K: int, V: int, empty: float = 0.3, unknown: float = 0.0) -> tuple[LogitRows, MappedRows]:
    """A pivot and a source about the same text and ids in float64, a share of the entries empty and of golds unknown."""
    about = random_rows(M, 0, V, torch.float64, seed=1, examples=min(2, M))
    generator = torch.Generator().manual_seed(3)
    mine, theirs = (torch.randn(M, V, generator=generator, dtype=torch.float64) * 2 for _ in range(2))
    source = rows_of(theirs, K, about.token, about.example)
    gaps = torch.rand(M, K, generator=generator) < empty
    gold = source.gold.masked_fill(torch.rand(M, generator=generator) < unknown, torch.nan)
    gaps |= gold.isnan()[:, None] & (source.ids == about.token[:, None])  # type: ignore[index]  # known where it is an entry
    mapped = as_mapped(
        source,
        logprobs=source.logprobs.masked_fill(gaps, -torch.inf),
        ids=source.ids.masked_fill(gaps, -1),
        pivot_token_logprob=gold,
    )
    return query(mine, mapped.ids, about), mapped


def agreeing(logits: Tensor, k: int) -> tuple[LogitRows, MappedRows]:
    """A source that says what the pivot says, of its `k` largest entries."""
    source = as_mapped(rows_of(logits.detach(), k))
    return query(logits, source.ids, source), source
